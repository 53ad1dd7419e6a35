"""Where a call goes, of replicas that could compute its prompt as soon."""

from dataclasses import dataclass

from scepsy.model.execution import ReplicaName
from scepsy.policy.dispatch import Capacity
from scepsy.policy.dispatch_belief import Replica
from scepsy.policy.dispatch_place import soonest

CAPACITY = Capacity(kv_tokens=1000, seqs=8, prompt_token_s=1e-3)


@dataclass
class Runs:
    need_tokens: int


def replica(name: str, *tokens: int, computes: bool = False) -> Replica:
    made = Replica(ReplicaName(name), CAPACITY)
    for at, need_tokens in enumerate(tokens):
        call_id = f"{name}-{at}"
        made.start(0.0, call_id, Runs(need_tokens), 1.0)
        if not computes:
            made.computed(0.0)
    return made


def chosen(*among: Replica) -> str | None:
    found = soonest(0.0, 100, among)
    return None if found is None else found.name


def test_fewest_calls_run_beside_it() -> None:
    assert chosen(replica("a", 10, 10, 10), replica("b", 300, 300)) == "b"


def test_of_as_many_calls_the_emptiest_then_the_first() -> None:
    assert chosen(replica("a", 300), replica("b", 100), replica("c", 200)) == "b"
    assert chosen(replica("a"), replica("b")) == "a"


def test_prompts_that_are_computed_come_first() -> None:
    busy, calm = replica("a", 10, computes=True), replica("b", 10, 10, 10)
    assert chosen(busy, calm) == "b"
    assert chosen(busy) == "a"
