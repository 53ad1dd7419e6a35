"""How what systems are told differs from what comes: wrong profiles, executions that drift."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from benchmarks.paper.workloads import Workload
from scepsy.model.cluster import GpuTypeName
from scepsy.model.plan import WorkflowRate
from scepsy.model.workflow import LlmName, WorkflowName
from scepsy.profiles.curve import ProfileCurve, ProfileSet
from scepsy.profiles.gpu_fraction import CO_RUN_PENALTY
from scepsy.profiles.step_time import EngineSpec, StepTimes
from scepsy.sim.baselines.base import Task
from scepsy.sim.script import Script

LONG_PART = 0.5
"""Of the recorded executions, those with most calls: what comes under the drift to long ones."""


@dataclass(frozen=True, slots=True)
class SlowerSteps:
    """Steps that take so many times as long."""

    times: StepTimes
    factor: float

    def step_s(
        self,
        *,
        prefill_tokens: int,
        prefill_context_tokens: int,
        decodes: int,
        decode_context_tokens: int,
    ) -> float:
        """Seconds of one step."""
        return self.factor * self.times.step_s(
            prefill_tokens=prefill_tokens,
            prefill_context_tokens=prefill_context_tokens,
            decodes=decodes,
            decode_context_tokens=decode_context_tokens,
        )

    def decode_run_s(self, *, decodes: int, decode_context_tokens: int, steps: int) -> float:
        """Seconds of several steps."""
        return self.factor * self.times.decode_run_s(
            decodes=decodes, decode_context_tokens=decode_context_tokens, steps=steps
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A difference between what systems are planned for and what they are evaluated on."""

    wrong: Sequence[float] = ()
    """By how much every first, second ... LLM (by name) is thought slower than it is."""
    growth: Mapping[WorkflowName, float] = field(default_factory=dict)
    """On the rates of workflows."""
    long_only: bool = False
    """Only the longer half of the executions come."""
    is_known: bool = False
    """Systems are told the rates that come: they plan anew."""
    shared_steps: float = 1.0
    """On the times of steps on part of a GPU, as planned for and as evaluated."""

    def true(self, task: Task) -> Task:
        """What systems are evaluated on."""
        if self.shared_steps == 1:
            return task
        return _slowed(task, lambda _, fraction: self.shared_steps if fraction < 1 else 1.0)

    def told(self, task: Task) -> Task:
        """What systems are given."""
        task = replace(task, rates=self.told_rates(task.rates))
        if not self.wrong:
            return task
        slower = self._slower(task)
        return _slowed(task, lambda llm, _: slower[llm])

    def rates(self, rates: Sequence[WorkflowRate]) -> tuple[WorkflowRate, ...]:
        """What comes."""
        return tuple(
            WorkflowRate(r.workflow, r.rate_per_s * self.growth.get(r.workflow, 1.0)) for r in rates
        )

    def told_rates(self, rates: Sequence[WorkflowRate]) -> tuple[WorkflowRate, ...]:
        """What systems are planned for."""
        return self.rates(rates) if self.is_known else tuple(rates)

    def executions(self, workload: Workload) -> Mapping[WorkflowName, tuple[Script, ...]]:
        """What comes."""
        if not self.long_only:
            return workload.evaluation
        return {name: _longest(found) for name, found in workload.evaluation.items()}

    def _slower(self, task: Task) -> Mapping[LlmName, float]:
        llms = sorted({curve.key.stage.llm for curve in task.profiles.curves})
        return {llm: self.wrong[at % len(self.wrong)] for at, llm in enumerate(llms)}


def _longest(found: Sequence[Script]) -> tuple[Script, ...]:
    by_calls = sorted(found, key=lambda script: -len(script.stages))
    return tuple(by_calls[: max(1, round(len(by_calls) * LONG_PART))])


def _slower_curve(curve: ProfileCurve, factor: float) -> ProfileCurve:
    points = (
        replace(
            point,
            latency_s_mean=point.latency_s_mean * factor,
            latency_s_p95=point.latency_s_p95 * factor,
            ttft_s_mean=point.ttft_s_mean * factor,
        )
        for point in curve.points
    )
    return replace(curve, capacity_per_s=curve.capacity_per_s / factor, points=tuple(points))


def _slowed(task: Task, by: Callable[[LlmName, float], float]) -> Task:
    """The task with steps that take so many times as long, by LLM and GPU fraction."""
    right = task.spec_of

    def spec_of(
        llm: LlmName, gpu_type: GpuTypeName, tensor_parallel: int, gpu_fraction: float
    ) -> EngineSpec:
        spec = right(llm, gpu_type, tensor_parallel, gpu_fraction)
        return replace(spec, times=SlowerSteps(spec.times, by(llm, gpu_fraction)))

    curves = (
        _slower_curve(curve, by(curve.key.stage.llm, curve.key.gpu_fraction))
        for curve in task.profiles.curves
    )
    return replace(task, profiles=ProfileSet(tuple(curves)), spec_of=spec_of)


SHARING = "no co-run penalty"
_MORE_BEAM_SEARCH = {WorkflowName("beam_search"): 1.3, WorkflowName("rag_rerank"): 0.7}
_MORE_RAG = {WorkflowName("beam_search"): 0.7, WorkflowName("rag_rerank"): 1.3}
VARIANTS: Mapping[str, Variant] = {
    "": Variant(),
    "+20 % -20 % +20 %": Variant(wrong=(1.2, 0.8, 1.2)),
    "-20 % +20 % -20 %": Variant(wrong=(0.8, 1.2, 0.8)),
    "+20 % +20 % -20 %": Variant(wrong=(1.2, 1.2, 0.8)),
    "-20 % -20 % +20 %": Variant(wrong=(0.8, 0.8, 1.2)),
    "longer executions": Variant(long_only=True),
    SHARING: Variant(shared_steps=1 / CO_RUN_PENALTY),
    "more beam search": Variant(growth=_MORE_BEAM_SEARCH),
    "more beam search, planned anew": Variant(growth=_MORE_BEAM_SEARCH, is_known=True),
    "more RAG": Variant(growth=_MORE_RAG),
    "more RAG, planned anew": Variant(growth=_MORE_RAG, is_known=True),
}
WRONG = tuple(name for name, variant in VARIANTS.items() if variant.wrong)


def find_variant(name: str) -> Variant:
    """The variant of that name."""
    return VARIANTS[name]
