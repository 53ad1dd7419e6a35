"""Tasks whose figures can be computed by hand."""

from collections.abc import Mapping
from dataclasses import dataclass

from scepsy.model.cluster import GpuType, GpuTypeName, regular_cluster
from scepsy.model.plan import WorkflowRate
from scepsy.model.provenance import Provenance
from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.profiles.curve import ProfileCurve, ProfileKey, ProfilePoint, ProfileSet
from scepsy.profiles.step_time import EngineSpec
from scepsy.sim.baselines.base import Task
from scepsy.traces.demand import ExecutionDemand, Spread, StageDemand, WorkflowDemand

H100 = GpuType(name=GpuTypeName("h100"), memory_bytes=80 * 1024**3)
TENTHS = tuple((1, tenths / 10) for tenths in range(1, 11))
WHOLE = ((1, 1.0), (2, 1.0), (4, 1.0))
BOTH = (*TENTHS, (2, 0.5), (2, 1.0))
"""The whole GPU, parts of it, and pairs."""


@dataclass(frozen=True, slots=True)
class Llm:
    """An LLM that each execution calls once; a call keeps a whole GPU busy for ``call_s``."""

    call_s: float
    share: float = 0.5
    """Of an execution's LLM time."""
    shapes: tuple[tuple[int, float], ...] = WHOLE


class Steady:
    """A step takes 10 ms, whatever is in it."""

    def step_s(
        self,
        *,
        prefill_tokens: int,
        prefill_context_tokens: int,
        decodes: int,
        decode_context_tokens: int,
    ) -> float:
        return 0.01

    def decode_run_s(self, *, decodes: int, decode_context_tokens: int, steps: int) -> float:
        return 0.01 * steps


def spec_of(_llm: LlmName, _gpu_type: GpuTypeName, _degree: int, _fraction: float) -> EngineSpec:
    return EngineSpec(times=Steady(), kv_blocks=1000)


def made_task(
    workflows: Mapping[str, Mapping[str, Llm]], *, gpus: int, nodes: int = 1, rate_per_s: float = 1
) -> Task:
    """All workflows at one rate; twice the GPUs, or the fraction, make a call twice as fast."""
    return Task(
        demands=tuple(_demand(name, llms) for name, llms in workflows.items()),
        profiles=ProfileSet(
            tuple(
                _curve(Stage(WorkflowName(name), LlmName(llm)), made.call_s, *shape)
                for name, llms in workflows.items()
                for llm, made in llms.items()
                for shape in made.shapes
            )
        ),
        cluster=regular_cluster(H100, nodes=nodes, gpus_per_node=gpus // nodes),
        rates=tuple(WorkflowRate(WorkflowName(name), rate_per_s) for name in workflows),
        spec_of=spec_of,
    )


def _demand(name: str, llms: Mapping[str, Llm]) -> WorkflowDemand:
    once = Spread(mean=1.0, sd=0.0, p5=1.0, p95=1.0)
    return WorkflowDemand(
        workflow=WorkflowName(name),
        stages=tuple(
            StageDemand(
                stage=Stage(WorkflowName(name), LlmName(llm)),
                calls_per_execution=1.0,
                calls=once,
                fan_out=1.0,
                time_share=Spread(mean=made.share, sd=0.0, p5=made.share, p95=made.share),
                call_s_mean=made.call_s,
                prompt_tokens_mean=100.0,
                output_tokens_mean=10.0,
                cached_fraction=None,
            )
            for llm, made in sorted(llms.items())
        ),
        executions=(
            ExecutionDemand(tuple(made.call_s for _, made in sorted(llms.items())), 0.0, 1.0),
        ),
    )


def _curve(stage: Stage, call_s: float, degree: int, fraction: float) -> ProfileCurve:
    alone_s = call_s / degree / fraction
    return ProfileCurve(
        key=ProfileKey(
            stage=stage, gpu_type=H100.name, tensor_parallel=degree, gpu_fraction=fraction
        ),
        capacity_per_s=1 / alone_s,
        points=tuple(
            ProfilePoint(utilization=u, latency_s_mean=s, latency_s_p95=s, ttft_s_mean=0.0)
            for u in (0.0, 0.5, 0.9)
            for s in (alone_s / (1 - u),)
        ),
        provenance=Provenance.SIMULATED,
        source="made up",
    )
