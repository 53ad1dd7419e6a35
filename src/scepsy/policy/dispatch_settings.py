"""What a dispatcher of programs does, and how much of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import log

from scepsy.errors import InputError
from scepsy.policy.program import TenantName


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Each mechanism can be switched off, and be the only one that is on."""

    patience: float = 1.25
    """The one knob: how many times the wait of serving all in turn, nothing cached, a call may be
    passed over at the door. Low favours the tail, high favours throughput."""
    many_ratio: float = 1.1
    """... and so many times as long where executions have many calls: each wait then costs
    computing a context again, and longer ones are fewer."""
    least_bound_s: float = 10.0
    """... and so much longer in any case (s)."""
    revoke_ratio: float = 2.0
    """After so many times that wait, claims give way, and a replica is freed for the call."""
    routes: bool = True
    """A call goes to its context; else to any replica."""
    admits: bool = True
    """A call without a context on a GPU waits until it fits beside what runs and has claims."""
    holds: bool = True
    """Contexts in gaps have claims while they are worth their room."""
    shares: bool = True
    """Tenants have equal shares, or by weight."""
    weights: Mapping[TenantName, float] = field(default_factory=dict)
    engines_ask: bool = True
    """Engines ask ``is_kept``: they forget contexts without a claim first."""
    price: float = 1.0
    """Of room, in replicas: at 1, all room of a replica for 1 s is worth 1 s of its work."""
    level_ratio: float = 4.0
    """Levels of work at the door: so much more work is one level later. 1: none, all by arrival."""
    least_level_s: float = 0.25
    """Work up to which a call is of the first level (s)."""
    fill_fraction: float = 0.95
    """Of the KV that calls and claims may take up."""

    def __post_init__(self) -> None:
        positive = self.least_level_s > 0 and 0 < self.fill_fraction <= 1 <= self.revoke_ratio
        least = min(self.patience, self.many_ratio, self.least_bound_s, self.price)
        if least < 0 or not positive:
            raise InputError("settings of a dispatcher are out of range")

    def level(self, work_s: float) -> int:
        """Of a call that takes so long to begin."""
        if self.level_ratio <= 1 or work_s <= self.least_level_s:
            return 0
        return 1 + int(log(work_s / self.least_level_s) / log(self.level_ratio))
