"""Policies by the names that commands and plans give them, for gateway and simulator alike."""

from scepsy.errors import UnknownNameError
from scepsy.policy.dispatch import MakeDispatcher
from scepsy.policy.dispatch_program import ByProgram
from scepsy.policy.dispatch_settings import Settings
from scepsy.policy.learned import LearnedGaps
from scepsy.policy.program_table import Limits, Programs
from scepsy.policy.route import POLICIES

PROGRAMS = "programs"
"""Calls wait until a replica has room for them, near what their executions left behind."""
SERVED = Settings(engines_ask=False)
"""Engines as they are forget what was unused for longest, and ask nobody."""


def find_dispatcher(
    name: str, settings: Settings = SERVED, limits: Limits | None = None
) -> MakeDispatcher | None:
    """What makes a dispatcher for each LLM; None where a router of that name does without.

    Args:
        name: of the policy.
        settings: of ``programs``.
        limits: how many executions it keeps, and for how long.

    Raises:
        UnknownNameError: no policy has that name.
    """
    if name == PROGRAMS:
        return lambda: ByProgram(settings, Programs(LearnedGaps(), limits))
    if name not in POLICIES:
        raise UnknownNameError("routing policy", name, [*POLICIES, PROGRAMS])
    return None
