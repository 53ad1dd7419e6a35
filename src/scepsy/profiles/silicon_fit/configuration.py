"""What is measured and what is predicted: one engine that serves so many calls at once."""

from dataclasses import dataclass
from enum import StrEnum

from scepsy.errors import InputError


class Precision(StrEnum):
    """What the weights are stored in."""

    BF16 = "bf16"
    FP8 = "fp8"
    FP4 = "fp4"
    INT4 = "int4"

    @property
    def weight_bytes(self) -> float:
        """Bytes of one weight with its share of the scales."""
        return {Precision.BF16: 2.0, Precision.FP8: 1.0, Precision.FP4: 0.5625}.get(self, 0.53)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """A replica in a closed loop: ``concurrency`` calls are always in flight."""

    llm: str
    """A name that ``architecture.find_architecture`` knows."""
    gpu_type: str
    """A name that ``accelerator.find_accelerator`` knows."""
    engine: str
    """``vllm``, ``sglang`` or ``trtllm``."""
    engine_version: str = ""
    """Empty where it is not known."""
    precision: Precision
    gpus: int
    """GPUs of the replica: its tensor parallel degree times ``attention_copies``."""
    attention_copies: int = 1
    """Data parallel copies of the attention layers within the replica."""
    expert_parallel: int = 1
    """GPUs over which whole experts are spread."""
    input_tokens: int
    output_tokens: int
    concurrency: int

    def __post_init__(self) -> None:
        sizes = (self.gpus, self.attention_copies, self.expert_parallel, self.input_tokens)
        if min(*sizes, self.concurrency) < 1 or self.output_tokens < 2:
            raise InputError(
                f"{self.llm}: gpus, copies, tokens and concurrency must be >= 1, output_tokens >= 2"
            )
        if self.gpus % self.attention_copies:
            raise InputError(
                f"{self.llm}: {self.attention_copies} copies of attention on {self.gpus} GPUs",
                hint="attention_copies must divide gpus",
            )

    @property
    def tensor_parallel(self) -> int:
        """GPUs over which each attention layer is sharded."""
        return self.gpus // self.attention_copies

    @property
    def group(self) -> tuple[str, str, int]:
        """LLM, GPU type and GPUs: what is left out as a whole to test a fit."""
        return self.llm, self.gpu_type, self.gpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Mean times of a configuration's calls, as measured end to end."""

    configuration: Configuration
    ttft_s: float
    tpot_s: float
    row_id: str = ""
    """The measurement's name where it was published."""

    def __post_init__(self) -> None:
        if not (0 < self.ttft_s < float("inf") and 0 < self.tpot_s < float("inf")):
            raise InputError(f"measurement {self.row_id or self.configuration}: times must be > 0")

    @property
    def latency_s(self) -> float:
        """Time of a whole call."""
        return self.ttft_s + (self.configuration.output_tokens - 1) * self.tpot_s

    @property
    def calls_per_s(self) -> float:
        """Throughput of the closed loop (Little's law)."""
        return self.configuration.concurrency / self.latency_s
