"""Routing of LLMs that take turns on the same GPUs."""

from dataclasses import dataclass

import pytest

from scepsy.model.execution import ExecutionId, ReplicaName
from scepsy.model.workflow import LlmName, Role, WorkflowName
from scepsy.policy.replicas import NoReplicaLeft, ReplicaSet
from scepsy.policy.route import CallView
from scepsy.policy.turns import FewestTurns, StepCost, TurnGroup, step_cost
from scepsy.profiles.step_time import EngineSpec
from tests.property.made_up_times import DyadicTimes


@dataclass(frozen=True)
class PerCall:
    """A step takes so long, and 1 ms longer with each call but the first."""

    first_s: float

    def step_s(self, **_work: int) -> float:
        return self.first_s

    def decode_run_s(self, *, decodes: int, decode_context_tokens: int, steps: int) -> float:
        return steps * (self.first_s + 0.001 * (decodes - 1))


BIG, SMALL = LlmName("big"), LlmName("small")
B0, B1, S0, S1 = map(ReplicaName, ("b0", "b1", "s0", "s1"))


class Scene:
    """Two instances; each has a replica of the big LLM and one of the small one."""

    def __init__(self, *, is_prefix_aware: bool = False) -> None:
        self.sets = {BIG: ReplicaSet((B0, B1)), SMALL: ReplicaSet((S0, S1))}
        self.group = TurnGroup(
            costs={
                BIG: StepCost(PerCall(0.03), 256, 1e-4),
                SMALL: StepCost(PerCall(0.01), 256, 1e-5),
            },
            replicas=self.sets,
            beside={B0: [(SMALL, S0)], B1: [(SMALL, S1)], S0: [(BIG, B0)], S1: [(BIG, B1)]},
        )
        self.routers = {
            llm: FewestTurns(llm, self.group, is_prefix_aware=is_prefix_aware) for llm in self.sets
        }

    def choice(self, llm: LlmName, *without: ReplicaName) -> ReplicaName:
        return self.routers[llm].choose(a_call(), self.sets[llm], without)

    def work(self, llm: LlmName, name: ReplicaName, *, prompt_tokens: int = 100) -> None:
        """A call that already answers."""
        self.group.came(llm, prompt_tokens)
        self.routers[llm].started(a_call(prompt_tokens), name)
        self.group.answers(name, prompt_tokens)
        self.sets[llm].started(name, prompt_tokens)


def a_call(prompt_tokens: int = 100, *blocks: int) -> CallView:
    return CallView(
        execution=ExecutionId("e"),
        workflow=WorkflowName("w"),
        role=Role("r"),
        prompt_tokens=prompt_tokens,
        prefix_blocks=blocks,
    )


def test_a_call_goes_where_nobody_waits_for_its_steps() -> None:
    scene = Scene()
    scene.work(BIG, B0)

    assert scene.choice(SMALL) == S1


def test_a_call_joins_its_llm_rather_than_let_another_llm_wait() -> None:
    """Two of the big LLM's calls are at work on the first instance, as many small ones on the
    second: there a step of the big LLM would keep both of them waiting."""
    scene = Scene()
    for _ in range(2):
        scene.work(BIG, B0)
        scene.work(SMALL, S1)

    assert scene.choice(BIG) == B0
    assert scene.choice(SMALL) == S1


def test_prompts_that_wait_count_on_either_side() -> None:
    """As much is at work on both; one has a long prompt before it."""
    scene = Scene()
    scene.work(BIG, B0)
    scene.work(BIG, B1)
    scene.routers[SMALL].started(a_call(100_000), S0)
    scene.sets[SMALL].started(S0, 100_000)
    scene.work(SMALL, S1)

    assert scene.choice(BIG) == B1
    scene.group.answers(S0, 100_000)
    assert scene.choice(BIG) == B0


def test_a_cached_prompt_costs_nothing_where_it_is_cached() -> None:
    scene = Scene(is_prefix_aware=True)
    call = a_call(1000, 1, 2, 3)
    scene.routers[BIG].started(call, B1)
    scene.group.answers(B1, 1000)

    assert scene.routers[BIG].choose(call, scene.sets[BIG]) == B1
    scene.routers[BIG].lost(B1)
    assert scene.routers[BIG].choose(call, scene.sets[BIG]) == B0


def test_replicas_that_must_not_be_used_are_not() -> None:
    scene = Scene()

    assert scene.choice(BIG, B0) == B1
    with pytest.raises(NoReplicaLeft):
        scene.choice(BIG, B0, B1)


def test_a_steps_cost_is_that_of_the_engine_at_the_calls_own_contexts() -> None:
    times = DyadicTimes()
    cost = step_cost(EngineSpec(times=times, kv_blocks=100, max_seqs=8, chunk_tokens=64))

    assert cost.prompt_token_s == (64 + 8 * 64) / 1024 / 64
    assert cost.step_s(0, 640) == 0
    for calls, contexts in ((1, 640), (3, 0), (8, 64)):
        tokens = calls * max(1, contexts)
        exact_s = times.decode_run_s(decodes=calls, decode_context_tokens=tokens, steps=1)
        assert cost.step_s(calls, contexts) == exact_s
    assert cost.step_s(9, 64) == cost.step_s(8, 64), "no more fit in a step"
