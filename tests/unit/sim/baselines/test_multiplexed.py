"""LLMs by turns on pooled GPUs."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scepsy.errors import InputError, UnknownNameError
from scepsy.model.execution import Call, CallId, Execution, ExecutionId, ReplicaName
from scepsy.model.workflow import LlmName, Role, WorkflowName
from scepsy.policy.route import CallView
from scepsy.profiles.silicon import engine_spec
from scepsy.profiles.step_time import EngineSpec
from scepsy.sim import turns
from scepsy.sim.arrivals import OpenLoop, Stream
from scepsy.sim.baselines.base import System, Task
from scepsy.sim.baselines.multiplexed import decode_only, multiplexed_systems
from scepsy.sim.baselines.pool import Pool, PrefillApart
from scepsy.sim.baselines.pool_memory import Tenant, memory_plans
from scepsy.sim.baselines.pooled_instance import PooledInstance, PooledLlm, PooledSpec
from scepsy.sim.baselines.turns import quotas_s
from scepsy.sim.engine import EngineCall, EngineEvent, Finished, FirstToken
from scepsy.sim.fleet import Fleet, ServedGroup, Serving, replica_names
from scepsy.sim.run import Simulation, steady
from scepsy.sim.script import Script, scripts
from tests.unit.sim.baselines.made_up import WHOLE, Llm, made_task

A, B = LlmName("a"), LlmName("b")
INF = float("inf")
Asked = tuple[float, LlmName, EngineCall]


class Seconds:
    """A step takes a second, whatever is in it."""

    def step_s(
        self,
        *,
        prefill_tokens: int,
        prefill_context_tokens: int,
        decodes: int,
        decode_context_tokens: int,
    ) -> float:
        return 1.0

    def decode_run_s(self, *, decodes: int, decode_context_tokens: int, steps: int) -> float:
        return float(steps)


class Growing:
    """A step takes longer the more is in it."""

    def step_s(
        self,
        *,
        prefill_tokens: int,
        prefill_context_tokens: int,
        decodes: int,
        decode_context_tokens: int,
    ) -> float:
        return 0.011 + 1e-5 * prefill_tokens + 1e-3 * decodes

    def decode_run_s(self, *, decodes: int, decode_context_tokens: int, steps: int) -> float:
        return (0.011 + 1e-3 * decodes) * steps


def an_llm(name: LlmName, times: object = None, *, stays: bool = True, **more: int) -> PooledLlm:
    spec = EngineSpec(times=times or Seconds(), kv_blocks=1000, block_tokens=16)  # type: ignore[arg-type]
    return PooledLlm(
        llm=name,
        spec=replace(spec, **more),  # type: ignore[arg-type]
        weight_bytes=10,
        block_bytes=1,
        stays=stays,
        answer_tokens=10.0,
        context_tokens=20.0,
    )


def a_spec(*llms: PooledLlm, prefetches: bool = False, token_target_s: float = 3.0) -> PooledSpec:
    return PooledSpec(
        llms=llms, host_bytes_per_s=10.0, prefetches=prefetches, token_target_s=token_target_s
    )


def a_pool(*specs: PooledSpec) -> Pool:
    return Pool({ReplicaName(f"p-{at}"): spec for at, spec in enumerate(specs)})


def a_call(name: str, tokens: int, prompt: int = 10) -> EngineCall:
    return EngineCall(id=name, prompt_tokens=prompt, output_tokens=tokens)


def served(serving: Serving, asked: list[Asked]) -> dict[str, tuple[float, float]]:
    """First token and end of each call, with what must hold for all on the way."""
    left, seen, last_s = list(asked), list[EngineEvent](), 0.0
    while (now_s := min(serving.next_event_s(), left[0][0] if left else INF)) < INF:
        assert now_s >= last_s
        last_s = now_s
        for event in serving.advance(now_s):
            assert event.at_s <= now_s
            assert serving.replica_of(event.call_id)
            seen.append(event)
        while left and left[0][0] <= now_s:
            _, llm, call = left.pop(0)
            serving.submit(now_s, llm, a_view(call), call)
    first_s = {e.call_id: e.at_s for e in seen if isinstance(e, FirstToken)}
    ended = {e.call_id: e for e in seen if isinstance(e, Finished)}
    assert len(ended) == len([e for e in seen if isinstance(e, Finished)])
    for at_s, _, call in asked:
        end = ended[call.id]
        assert end.output_tokens == call.output_tokens
        assert at_s - 1e-9 <= end.scheduled_s <= first_s.get(call.id, end.at_s) <= end.at_s
    return {call_id: (first_s.get(call_id, e.at_s), e.at_s) for call_id, e in ended.items()}


def a_view(call: EngineCall) -> CallView:
    return CallView(
        execution=ExecutionId("e"),
        workflow=WorkflowName("w"),
        role=Role("r"),
        prompt_tokens=call.prompt_tokens,
    )


BOTH = [(0.0, A, a_call("a", 8)), (0.0, B, a_call("b", 8))]


@pytest.fixture(autouse=True)
def _free_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Round figures: what turns cost has a test of its own."""
    monkeypatch.setattr(turns, "TURN_COST_FRACTION", 0.0)


def test_llms_whose_weights_stay_take_turns_of_their_share_of_the_target() -> None:
    """Turns of 1.5 s, and to the end of the step: 2 steps each."""
    pool = a_pool(a_spec(an_llm(A), an_llm(B)))

    found = served(pool, [(0.0, A, a_call("a", 4)), (0.0, B, a_call("b", 4))])

    assert found == {"a": (1, 6), "b": (3, 8)}  # a a b b a a b b
    assert (pool.switches, pool.switching_s) == (3, 0)


@pytest.mark.parametrize("stays", [True, False])
def test_a_turn_costs_a_part_of_itself_where_all_weights_stay(
    monkeypatch: pytest.MonkeyPatch, *, stays: bool
) -> None:
    """2 s each, and a third of the GPUs' time is lost; weights of 1 s are waited for instead."""
    monkeypatch.setattr(turns, "TURN_COST_FRACTION", 1 / 3)
    pool = a_pool(a_spec(an_llm(A, stays=stays), an_llm(B, stays=stays)))

    served(pool, [(0.0, A, a_call("a", 4)), (0.0, B, a_call("b", 4))])

    assert pool.switching_s == pytest.approx(pool.switches * 1.0)


def test_weights_that_come_and_go_are_waited_for() -> None:
    """Turns of 4 s: the step that begins then is their last. A switch takes 1 s."""
    pool = a_pool(a_spec(an_llm(A, stays=False), an_llm(B, stays=False)))

    assert served(pool, BOTH) == {"a": (1, 15), "b": (7, 19)}
    assert (pool.switches, pool.switching_s) == (3, 3)


def test_weights_loaded_ahead_are_there_in_time() -> None:
    pool = a_pool(a_spec(an_llm(A, stays=False), an_llm(B, stays=False), prefetches=True))

    assert served(pool, BOTH) == {"a": (1, 13), "b": (6, 16)}
    assert (pool.switches, pool.switching_s) == (3, 0)


def test_an_llm_alone_keeps_its_weights_and_never_waits() -> None:
    pool = a_pool(a_spec(an_llm(A, stays=False), an_llm(B, stays=False)))

    found = served(pool, [(float(at), A, a_call(str(at), 3)) for at in (0, 10, 20)])

    assert found == {"0": (1, 3), "10": (11, 13), "20": (21, 23)}
    assert pool.switches == 0


@pytest.mark.parametrize(("kv_blocks", "moving_s"), [(30, 0.0), (15, 4.8)])
def test_kv_that_does_not_fit_beside_anothers_is_moved(kv_blocks: int, moving_s: float) -> None:
    """A call holds 10 blocks, then 11; 10 move in 1 s. At the first switch 6 go; at each of the
    six others 7 go, come back, or both.
    """
    llms = [an_llm(name, kv_blocks=kv_blocks) for name in (A, B)]
    asked = [(0.0, llm, a_call(llm, 8, prompt=160)) for llm in (A, B)]
    pool = a_pool(a_spec(*llms))

    ends = [end_s for _, end_s in served(pool, asked).values()]

    assert pool.switching_s == pytest.approx(moving_s)
    assert max(ends) == pytest.approx(16 + pool.switching_s)


def test_prefill_apart_gives_the_first_token_and_the_rest_follows_its_kv() -> None:
    prefill = a_pool(a_spec(an_llm(A), token_target_s=0))
    decode = a_pool(a_spec(replace(an_llm(A), spec=decode_only(an_llm(A).spec))))
    apart = PrefillApart(prefill, decode, {A: 0.05})

    found = served(apart, [(0.0, A, a_call("a", 4)), (0.0, A, a_call("embed", 0))])

    assert found == {"a": (1, 4.5), "embed": (1, 1)}  # 10 tokens move in 0.5 s; 3 steps


def test_quotas_are_those_of_the_round() -> None:
    """Steps of 25 and 50 ms: n is 4 and 2, and 1 s of switches."""
    quotas = quotas_s([0.025, 0.05], switching_s=0.2, token_target_s=0.1)

    alpha = max(0.2 / (2 * turns.LONGEST_TURN_S) + 0.75, 0.5)
    assert quotas == [pytest.approx(0.2 / (n * (alpha - 0.75))) for n in (4, 2)]
    for quota_s, n in zip(quotas, (4, 2), strict=True):
        assert quota_s * n / (0.2 + sum(quotas)) == pytest.approx(1 / alpha)
    assert quotas_s([0.01, 0.01], switching_s=0.0, token_target_s=0.1) == [0.05, 0.05]
    assert quotas_s([0.01], switching_s=1.0, token_target_s=0.0) == [0.0]


calls = st.lists(
    st.tuples(st.floats(0, 2), st.sampled_from((A, B)), st.integers(0, 40), st.integers(1, 400)),
    min_size=1,
    max_size=25,
)


def asked_of(drawn: list[tuple[float, LlmName, int, int]]) -> list[Asked]:
    ordered = sorted(drawn, key=lambda each: each[0])
    return [
        (s, llm, a_call(str(n), out, prompt)) for n, (s, llm, out, prompt) in enumerate(ordered)
    ]


@pytest.mark.no_cover
@settings(max_examples=40, deadline=None)
@given(calls, st.booleans(), st.booleans(), st.integers(1, 3), st.sampled_from((30, 40, 1000)))
def test_calls_end_once_in_order_and_equally_each_time(
    drawn: list[tuple[float, LlmName, int, int]],
    stays: bool,
    prefetches: bool,
    instances: int,
    kv_blocks: int,
) -> None:
    llms = [an_llm(name, Growing(), stays=stays, kv_blocks=kv_blocks) for name in (A, B)]
    specs = [a_spec(*llms, prefetches=prefetches, token_target_s=0.1)] * instances

    found = served(a_pool(*specs), asked_of(drawn))

    assert len(found) == len(drawn)
    assert served(a_pool(*specs), asked_of(drawn)) == found


@pytest.mark.no_cover
@settings(max_examples=30, deadline=None)
@given(calls)
def test_with_one_llm_at_work_an_instance_is_a_replica(
    drawn: list[tuple[float, LlmName, int, int]],
) -> None:
    asked = [(s, A, call) for s, _, call in asked_of(drawn)]
    llms = [an_llm(name, Growing(), stays=False, kv_blocks=40) for name in (A, B)]
    fleet = Fleet([ServedGroup(A, llms[0].spec, replica_names(A, 1))])

    assert served(a_pool(a_spec(*llms)), asked) == served(fleet, asked)


@pytest.mark.no_cover
@settings(max_examples=30, deadline=None)
@given(calls, st.booleans())
def test_all_that_comes_at_once_takes_the_time_of_each_llm_and_of_the_switches(
    drawn: list[tuple[float, LlmName, int, int]],
    stays: bool,
) -> None:
    asked = [(0.0, llm, call) for _, llm, call in asked_of(drawn)]
    llms = [an_llm(name, Growing(), stays=stays) for name in (A, B)]
    pool = a_pool(a_spec(*llms, token_target_s=0.1))

    together = served(pool, asked)

    work_s = 0.0
    for name in (A, B):
        own = [each for each in asked if each[1] == name]
        alone = served(a_pool(a_spec(*llms)), own)
        assert all(together[call][1] >= end_s - 1e-9 for call, (_, end_s) in alone.items())
        work_s += max((end_s for _, end_s in alone.values()), default=0.0)
    assert max(end_s for _, end_s in together.values()) == pytest.approx(work_s + pool.switching_s)


def test_what_an_instance_does_not_serve_is_refused() -> None:
    instance = PooledInstance(a_spec(an_llm(A)))
    with pytest.raises(UnknownNameError, match="LLM"):
        instance.serve(0.0, B, a_call("b", 1))
    with pytest.raises(UnknownNameError, match="LLM"):
        a_pool(a_spec(an_llm(A))).submit(0.0, B, a_view(a_call("b", 1)), a_call("b", 1))
    instance.serve(1.0, A, a_call("a", 1))
    with pytest.raises(InputError, match="ran back"):
        instance.advance(0.5)


def test_small_weights_stay_and_large_ones_come_and_go() -> None:
    """Of 100 bytes of memory 10 are needed for KV; alone, LLMs have far more."""
    small, middle, large = (
        Tenant(
            replace(
                an_llm(LlmName(f"{weight_bytes}"), kv_blocks=100 - weight_bytes),
                weight_bytes=weight_bytes,
            ),
            least_kv_tokens=160,
        )
        for weight_bytes in (10, 60, 80)
    )

    assert [plan.switches for plan in memory_plans([large, small])] == [False, True]
    first, roomiest = memory_plans([large, middle, small])
    assert [model.stays for model in first.llms] == [True, False, False]
    assert [model.spec.kv_blocks for model in first.llms] == [10, 30, 10]
    assert [model.spec.kv_blocks for model in roomiest.llms] == [90, 40, 20]
    assert memory_plans([Tenant(large.alone, 1000)]) == []


def a_real_task(*llms: str, gpus: int) -> Task:
    task = made_task({"w": {llm: Llm(0.3, 0.5, WHOLE) for llm in llms}}, gpus=gpus)
    return replace(
        task,
        spec_of=lambda llm, gpu, degree, part: engine_spec(
            llm, gpu, tensor_parallel=degree, gpu_fraction=part
        ),
    )


def test_pools_of_each_degree_of_two_and_with_prefill_apart_are_offered() -> None:
    systems = multiplexed_systems(a_real_task("qwen3-8b", "qwen3-32b", gpus=4))

    notes = [system.note for system in systems]
    for part in ("4 x TP1, qwen3-8b, qwen3-32b come and go", "2 x TP2, all weights stay"):
        assert any(note.startswith(part) for note in notes)
    assert any("prefill apart" in note for note in notes)
    assert any("1 x TP2" in note and "2 x TP1" in note for note in notes)
    assert len(set(notes)) == len(notes)
    assert all(system.gpus == 4 for system in systems)


def test_what_fits_nowhere_has_no_system() -> None:
    task = made_task({"w": {"qwen3-8b": Llm(0.1, shapes=((4, 1.0),))}}, gpus=2)

    assert multiplexed_systems(task) == ()


def test_all_executions_go_through_and_each_simulation_starts_idle() -> None:
    for system in multiplexed_systems(a_real_task("qwen3-8b", "qwen3-32b", gpus=2)):
        first = run(system)

        assert run(system) == first
        assert all(0.1 < s < 20 for s in first)


def run(system: System) -> list[float]:
    """Latencies of executions."""
    stream = Stream(scripts=(a_script(),), rate_per_s=1.0)
    simulation = Simulation(OpenLoop(stream.arrivals(1)), system.make(), order=system.order)
    return [each.execution_s for each in steady(simulation, executions=10, warm_up=2)]


def a_script() -> Script:
    made = tuple(
        Call(
            id=CallId(llm),
            execution=ExecutionId("e"),
            workflow=WorkflowName("w"),
            llm=LlmName(llm),
            start_s=at,
            end_s=at + 1,
            prompt_tokens=500,
            output_tokens=30,
        )
        for at, llm in enumerate(("qwen3-8b", "qwen3-32b"))
    )
    assert all(one.end_s <= other.start_s for one, other in pairwise(made))
    return scripts([Execution(ExecutionId("e"), WorkflowName("w"), made)])[0]
