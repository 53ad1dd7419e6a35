"""What late news is taken to mean, and what ends that were told too soon may not teach."""

from dataclasses import dataclass, field

from scepsy.model.execution import ExecutionId, ReplicaName
from scepsy.model.workflow import Role, WorkflowName
from scepsy.policy.dispatch import AtOnce, CallResult, Capacity
from scepsy.policy.dispatch_call import Live, Waiting
from scepsy.policy.dispatch_estimates import Estimates
from scepsy.policy.news import Informed, Late
from scepsy.policy.route import CallView

A, B = ReplicaName("a"), ReplicaName("b")
CAPACITY = Capacity(kv_tokens=10_000, seqs=8, prompt_token_s=1e-4, block_tokens=10)
BLOCKS = tuple(range(1, 20))


def call(name: str, tokens: int, execution: str = "e") -> CallView:
    return CallView(
        execution=ExecutionId(execution),
        workflow=WorkflowName("w"),
        role=Role("r"),
        prompt_tokens=tokens,
        prefix_blocks=BLOCKS[: tokens // 10],
        id=name,
    )


@dataclass
class Told(AtOnce):
    """Notes of whose end it was told."""

    ends: list[tuple[float, str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def ended(self, now_s: float, call: CallView, result: CallResult) -> None:
        self.ends.append((now_s, call.id, result.output_tokens))
        super().ended(now_s, call, result)


def informed() -> tuple[Told, Informed]:
    told = Told()
    made = Informed(told, Late(1.0))
    for replica in (A, B):
        made.joined(0.0, replica, CAPACITY)
    return told, made


def send(made: Informed, now_s: float, each: CallView) -> ReplicaName:
    made.arrived(now_s, each)
    ((_, replica, _, _),) = made.take(now_s)
    return replica


def test_who_goes_on_has_had_an_answer() -> None:
    told, made = informed()
    first, second = call("1", 50), call("2", 80)
    send(made, 0.0, first)
    made.ended(3.0, first, CallResult(output_tokens=20))
    send(made, 3.5, second)
    assert told.ends == [(3.5, "1", 30)]
    made.take(5.0)  # the news comes, and is none
    made.ended(6.0, second, CallResult(output_tokens=7))
    made.take(7.0)
    assert told.ends == [(3.5, "1", 30), (7.0, "2", 7)]


def test_who_asks_something_else_may_have_had_none() -> None:
    told, made = informed()
    send(made, 0.0, call("1", 50))
    send(made, 0.5, call("2", 50))  # the same prompt again
    send(made, 0.6, call("3", 80, execution="f"))
    send(made, 0.7, call("4", 20))
    made.ended(0.8, call("4", 20), CallResult(output_tokens=1))
    send(made, 0.9, call("5", 90))  # beside the first two, which go on
    assert told.ends == [(0.9, "4", 70)]


def test_a_call_that_was_lost_has_not_ended() -> None:
    told, made = informed()
    first = call("1", 50)
    made.lost(0.5, send(made, 0.0, first))
    send(made, 1.0, call("2", 80))
    assert not told.ends


def test_an_execution_tells_once_what_others_left() -> None:
    estimates = Estimates()

    def began(execution: str, cached_tokens: int) -> float:
        view = call("1", 100, execution)
        found = Waiting(view, Live(), estimates.of(view), 0.0, 0)
        estimates.ended(found, CallResult(output_tokens=1, cached_tokens=cached_tokens))
        return estimates.all_shared_tokens

    once = began("e", 10)
    assert once > 0
    assert began("e", 90) == once  # its own, as it was said to be over too soon
    assert began("f", 10) > once
