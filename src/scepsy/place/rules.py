"""What a placement must keep beside the laws."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from scepsy.model.cluster import Gpu, GpuTypeName
from scepsy.model.plan import PlacedReplica
from scepsy.model.workflow import LlmName


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceRules:
    """What a placement must keep beside the laws; nothing by default."""

    max_gpus: Mapping[GpuTypeName, int] = field(default_factory=dict)
    """GPUs of a type that may be touched; all where not named."""
    max_together: Mapping[LlmName, int] = field(default_factory=dict)
    """Replicas of an LLM that one node, or rack, may hold at most; any number where not named."""
    by_rack: bool = False
    """Whether ``max_together`` is by rack."""
    equal_shares: bool = False
    """Whether all replicas on the GPUs of a node have the same units."""
    kept: tuple[PlacedReplica, ...] = ()
    """Replicas that stay where they are."""

    def scope(self, gpu: Gpu) -> str:
        """What fails together with a GPU."""
        return gpu.rack if self.by_rack else gpu.node


NO_RULES = PlaceRules()
