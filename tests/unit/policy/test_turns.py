"""Routing of LLMs that take turns on the same GPUs."""

import pytest

from scepsy.model.execution import ExecutionId, ReplicaName
from scepsy.model.workflow import LlmName, Role, WorkflowName
from scepsy.policy.replicas import NoReplicaLeft, ReplicaSet
from scepsy.policy.route import CallView
from scepsy.policy.turns import FewestTurns, StepCost, TurnGroup

BIG, SMALL = LlmName("big"), LlmName("small")
B0, B1, S0, S1 = map(ReplicaName, ("b0", "b1", "s0", "s1"))


class Scene:
    """Two instances; each has a replica of the big LLM and one of the small one."""

    def __init__(self, *, is_prefix_aware: bool = False) -> None:
        self.sets = {BIG: ReplicaSet((B0, B1)), SMALL: ReplicaSet((S0, S1))}
        self.group = TurnGroup(
            costs={BIG: StepCost(0.03, 0.001, 1e-4), SMALL: StepCost(0.01, 0.001, 1e-5)},
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
