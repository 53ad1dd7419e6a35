"""What a user, or what the plan is deployed on, allows of an allocation and its placement."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from scepsy.errors import InputError
from scepsy.model.cluster import GpuId
from scepsy.model.workflow import LlmName


class Target(StrEnum):
    """What a plan is deployed on, by the shares of a GPU that it can express."""

    ANY = "any"
    """Any share beside any other."""
    WHOLE_GPUS = "whole-gpus"
    """No sharing."""
    K8S_MPS_EQUAL = "k8s-mps-equal"
    """NVIDIA's device plugin with MPS: 1/n of one GPU each, with one n for all GPUs of a node."""


class Scope(StrEnum):
    """What may fail at once."""

    NODE = "node"
    RACK = "rack"


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmLimits:
    """What holds for one LLM."""

    tensor_parallel: int | None = None
    """The only degree that is allowed."""
    min_replicas: int = 1
    share: bool = True
    """Whether its replicas may share their GPUs with any other replica."""

    def __post_init__(self) -> None:
        if self.min_replicas < 1 or (self.tensor_parallel or 1) < 1:
            raise InputError("limits: min_replicas and tensor_parallel must be >= 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What holds for a plan."""

    llms: Mapping[LlmName, LlmLimits] = field(default_factory=dict)
    share: bool = True
    """Whether replicas may share GPUs at all."""
    free_gpus: int = 0
    """GPUs that stay untouched, whichever they are."""
    keep_free: frozenset[GpuId] = frozenset()
    """GPUs that stay untouched, by id."""
    survive: Scope | None = None
    """The rates are still sustained after any one of these is lost."""
    target: Target = Target.ANY

    def __post_init__(self) -> None:
        if self.free_gpus < 0:
            raise InputError(f"limits: free_gpus must be >= 0, got {self.free_gpus}")

    def of(self, llm: LlmName) -> LlmLimits:
        """What holds for one LLM."""
        return self.llms.get(llm, LlmLimits())

    def allow(self, llm: LlmName, tensor_parallel: int, units: int, units_per_gpu: int) -> bool:
        """Whether an LLM may have replicas of a degree and so many units of each GPU."""
        own = self.of(llm)
        if own.tensor_parallel not in {None, tensor_parallel}:
            return False
        if units == units_per_gpu:
            return True
        if not (self.share and own.share) or self.target is Target.WHOLE_GPUS:
            return False
        if self.target is Target.K8S_MPS_EQUAL:
            return tensor_parallel == 1 and units_per_gpu % units == 0
        return True


def parse_survive(text: str) -> Scope:
    """Read ``1 node`` or ``1 rack``.

    Raises:
        InputError: anything else.
    """
    words = text.split()
    if len(words) == 2 and words[0] == "1" and words[1] in set(Scope):
        return Scope(words[1])
    raise InputError(f"`{text}` is not what a plan can survive", hint="write `1 node` or `1 rack`")
