"""The baselines by name. A new one is one module and one line here."""

from collections.abc import Mapping

from scepsy.errors import UnknownNameError
from scepsy.sim.baselines.base import Baseline

BASELINES: Mapping[str, Baseline] = {}


def find_baseline(name: str) -> Baseline:
    """The baseline of that name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in BASELINES:
        raise UnknownNameError("baseline", name, BASELINES)
    return BASELINES[name]
