"""The baselines by name. A new one is one module and one line here."""

from collections.abc import Mapping

from scepsy.errors import UnknownNameError
from scepsy.sim.baselines import even, independent, multiplexed, muxserve, published, user_given
from scepsy.sim.baselines.base import Baseline

BASELINES: Mapping[str, Baseline] = {
    even.NAME: even.even_systems,
    independent.NAME: independent.independent_systems,
    multiplexed.NAME: multiplexed.multiplexed_systems,
    muxserve.NAME: muxserve.muxserve_systems,
    published.NAME: published.published_systems,
    user_given.NAME: user_given.user_given_systems,
}


def find_baseline(name: str) -> Baseline:
    """The baseline of that name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in BASELINES:
        raise UnknownNameError("baseline", name, BASELINES)
    return BASELINES[name]
