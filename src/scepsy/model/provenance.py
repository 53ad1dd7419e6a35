"""Where a number comes from."""

from collections.abc import Iterable
from enum import StrEnum


class Provenance(StrEnum):
    """How a number was come by, best first. A number made of several is as good as its worst."""

    MEASURED = "measured"
    """Timed on the thing itself."""
    SIMULATED = "simulated"
    """Run through the engine model with step times from operator measurements of the GPU."""
    INTERPOLATED = "interpolated"
    """Between two points that were measured or simulated."""
    EXTRAPOLATED = "extrapolated"
    """Outside the range of what was measured or simulated."""
    ASSUMED = "assumed"
    """From a model that was fitted to other hardware or other LLMs."""

    @property
    def rank(self) -> int:
        """0 is best."""
        return list(Provenance).index(self)


def worst(provenances: Iterable[Provenance]) -> Provenance:
    """What a number is that was made of these; measured when made of none."""
    return max(provenances, key=lambda p: p.rank, default=Provenance.MEASURED)
