"""Plans that the search proposes and the simulator chooses."""

from dataclasses import replace

import pytest

from scepsy.errors import InfeasibleError, MissingError, UnknownNameError
from scepsy.model.execution import Call, CallId, Execution, ExecutionId
from scepsy.model.slo import parse_slo
from scepsy.model.workflow import WorkflowName
from scepsy.place.pack import Unplaced, pack
from scepsy.profiles.curve import ProfileSet
from scepsy.profiles.step_time import EngineSpec
from scepsy.search.limits import Limits, LlmLimits
from scepsy.search.neighbours import Neighbourhood, placed
from scepsy.search.plan import best_plans
from scepsy.search.problem import problem, slo_value_s
from scepsy.search.rank import contenders
from scepsy.sim.plan_by_simulation import Effort, plan_by_simulation, with_simulated
from scepsy.sim.script import Script, scripts
from tests.unit.search.made_up import BIG, SMALL, profiles, request

W = WorkflowName("w")
EFFORT = Effort(contenders=6, rounds=(30, 60), starts=1, steps=4, finalists=3, last_calls=100)


class Steps:
    """A step takes as long as it is told."""

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s

    def step_s(
        self,
        *,
        prefill_tokens: int,
        prefill_context_tokens: int,
        decodes: int,
        decode_context_tokens: int,
    ) -> float:
        return self._step_s

    def decode_run_s(self, *, decodes: int, decode_context_tokens: int, steps: int) -> float:
        return self._step_s * steps


def engine(step_s: float) -> EngineSpec:
    return EngineSpec(times=Steps(step_s), kv_blocks=1000, max_seqs=16)


def spec_of(llm: str, _gpu: str, degree: int, fraction: float) -> EngineSpec:
    """As profiled, about: the more GPU the faster."""
    return engine((0.2 if llm == BIG else 0.02) / degree / fraction)


def no_good_in_pairs(llm: str, gpu: str, degree: int, fraction: float) -> EngineSpec:
    """What no profile told: two GPUs together are slow."""
    return engine(2.0) if (llm, degree) == (BIG, 2) else spec_of(llm, gpu, degree, fraction)


def unknown(llm: str, _gpu: str, _degree: int, _fraction: float) -> EngineSpec:
    raise UnknownNameError("LLM", llm, ["qwen3-8b"])


@pytest.fixture(scope="module")
def recorded() -> dict[WorkflowName, tuple[Script, ...]]:
    """Four calls of the big LLM, two of the small one after each."""
    llms = [BIG, SMALL, SMALL] * 4
    calls = tuple(
        Call(
            id=CallId(str(at)),
            execution=ExecutionId("e"),
            workflow=W,
            llm=llm,
            start_s=3.0 * at,
            end_s=3.0 * at + 2,
            prompt_tokens=64,
            output_tokens=10,
        )
        for at, llm in enumerate(llms)
    )
    return {W: scripts([Execution(ExecutionId("e"), W, calls)])}


def test_plans_carry_what_was_simulated_best_first(
    recorded: dict[WorkflowName, tuple[Script, ...]],
) -> None:
    asked = problem(request(4, rate_per_s=0.2))

    found = plan_by_simulation(asked, recorded, spec_of, effort=EFFORT)

    assert len(found.plans) == 3
    assert len({plan.allocation for plan in found.plans}) == 3
    assert found.simulations <= EFFORT.most_simulations
    means_s = [plan.objective_s or 0.0 for plan in found.plans]
    assert means_s == [plan.prediction.workflow(W).execution_s_mean for plan in found.plans]
    assert means_s == sorted(means_s)
    assert {plan.prediction.predictor for plan in found.plans} == {"simulator"}
    assert found == plan_by_simulation(asked, recorded, spec_of, effort=EFFORT)


def test_the_simulator_overrules_the_profiles(
    recorded: dict[WorkflowName, tuple[Script, ...]],
) -> None:
    asked = problem(request(4, rate_per_s=0.2))

    best = plan_by_simulation(asked, recorded, no_good_in_pairs, effort=EFFORT).plans[0]

    by_profiles = best_plans(asked, 1)[0]
    assert by_profiles.allocation.group(BIG).tensor_parallel == 2
    assert best.allocation.group(BIG).tensor_parallel != 2


@pytest.mark.parametrize(
    "limits",
    [
        Limits(llms={BIG: LlmLimits(min_replicas=2), SMALL: LlmLimits(min_replicas=3)}),
        Limits(llms={BIG: LlmLimits(tensor_parallel=1)}),
        Limits(share=False),
        Limits(free_gpus=2),
    ],
)
def test_limits_are_kept(recorded: dict[WorkflowName, tuple[Script, ...]], limits: Limits) -> None:
    asked = problem(replace(request(6, rate_per_s=0.2), limits=limits))

    plans = plan_by_simulation(asked, recorded, no_good_in_pairs, effort=EFFORT).plans

    for plan in plans:
        assert len(plan.placement.used) <= 6 - limits.free_gpus
        assert not isinstance(pack(plan.allocation, asked.cluster), Unplaced)
        for group in plan.allocation.groups:
            own = limits.of(group.llm)
            assert own.tensor_parallel in {None, group.tensor_parallel}
            assert group.replicas >= own.min_replicas
            assert limits.share or group.gpu_fraction == 1
            placed = [r for r in plan.placement.replicas if r.llm == group.llm]
            assert len(placed) == group.replicas


@pytest.mark.parametrize(
    "limits",
    [
        Limits(llms={BIG: LlmLimits(min_replicas=2), SMALL: LlmLimits(min_replicas=3)}),
        Limits(share=False, free_gpus=1),
    ],
)
def test_neighbours_keep_limits_sustain_the_rate_and_come_by_what_is_predicted(
    limits: Limits,
) -> None:
    asked = problem(replace(request(6, rate_per_s=2.0), limits=limits))
    start = best_plans(asked, 1)[0].allocation

    found = list(Neighbourhood(asked).of(start))

    assert len(found) > 3
    means_s = [asked.objective_s(asked.predict(each)) for each in found]
    assert means_s == pytest.approx(sorted(means_s))
    assert max(means_s) < float("inf")
    for each in found:
        assert placed(asked, each) is not None
        assert each.gpus <= 6 - limits.free_gpus + 1e-9
        assert all(g.replicas >= limits.of(g.llm).min_replicas for g in each.groups)
        assert limits.share or all(g.gpu_fraction == 1 for g in each.groups)


def slow_in_part(llm: str, _gpu: str, degree: int, fraction: float) -> EngineSpec:
    """On part of a GPU all is very slow."""
    return engine((0.2 if llm == BIG else 0.02) / degree * (1 if fraction == 1 else 50))


def test_llms_take_turns_where_that_is_faster(
    recorded: dict[WorkflowName, tuple[Script, ...]],
) -> None:
    """One GPU, and to share it in parts is out of the question."""
    asked = problem(replace(request(1, rate_per_s=0.02), profiles=on_one_gpu()))

    best = plan_by_simulation(asked, recorded, slow_in_part, effort=EFFORT).plans[0]

    assert best.allocation.turns == ((BIG, SMALL),)
    assert {replica.gpus for replica in best.placement.replicas} == {(asked.cluster.gpus[0].id,)}
    assert best.prediction.predictor == "simulator"
    gaps_s = 11 * 1.0
    assert best.objective_s == pytest.approx(4 * 10 * 0.2 + 8 * 10 * 0.02 + gaps_s, rel=0.1)


def on_one_gpu() -> ProfileSet:
    return profiles("w", shapes={BIG: ((1, 0.7), (1, 1.0)), SMALL: ((1, 0.2), (1, 1.0))})


def test_with_an_slo_its_statistic_decides(
    recorded: dict[WorkflowName, tuple[Script, ...]],
) -> None:
    asked = problem(replace(request(4, rate_per_s=0.2), slo=parse_slo("p95 <= 60s")))

    plans = plan_by_simulation(asked, recorded, spec_of, effort=EFFORT).plans

    values_s = [slo_value_s(plan.prediction, parse_slo("p95 <= 60s")) for plan in plans]
    assert values_s == sorted(values_s)


def test_out_of_time_there_is_still_a_plan(
    recorded: dict[WorkflowName, tuple[Script, ...]],
) -> None:
    asked = problem(request(4, rate_per_s=0.2))

    found = plan_by_simulation(asked, recorded, spec_of, effort=EFFORT, go_on=lambda: False)

    assert len(found.plans) == 1
    assert found.simulations <= 6


def test_contenders_are_distinct_and_differ_in_more_than_a_replica() -> None:
    plans = contenders(problem(request(8)), 12)

    assert 6 < len({plan.allocation for plan in plans}) == len(plans) <= 12
    assert plans[0].allocation == best_plans(problem(request(8)), 1)[0].allocation
    shapes = {plan.allocation.group(BIG).tensor_parallel for plan in plans}
    assert len(shapes) > 1
    assert all(plan.rates == plans[0].rates for plan in plans)


def test_what_cannot_be_simulated_is_told(
    recorded: dict[WorkflowName, tuple[Script, ...]],
) -> None:
    asked = problem(request(4, rate_per_s=0.2))
    with pytest.raises(MissingError, match="`big` cannot be simulated on h100: unknown LLM `big`"):
        plan_by_simulation(asked, recorded, unknown, effort=EFFORT)


def test_that_nothing_keeps_up_is_told(
    recorded: dict[WorkflowName, tuple[Script, ...]],
) -> None:
    asked = problem(request(4, rate_per_s=0.2))

    def slow(llm: str, _gpu: str, _degree: int, _fraction: float) -> EngineSpec:
        return engine(50.0)

    with pytest.raises(InfeasibleError, match=r"none of the \d+ best plans keeps up with w=0.2/s"):
        plan_by_simulation(asked, recorded, slow, effort=EFFORT)
    with pytest.raises(InfeasibleError, match="the plan does not keep up"):
        with_simulated(asked, best_plans(asked, 1)[0], recorded, slow, calls=50)
