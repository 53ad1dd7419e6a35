"""What waits for what, from times alone."""

from scepsy.model.dependency import dependencies
from scepsy.model.execution import Call


def calls(*times: tuple[float, float]) -> list[Call]:
    return [
        Call(
            id=str(at),
            execution="e",
            workflow="w",
            llm="m",
            start_s=start_s,
            end_s=end_s,
            prompt_tokens=1,
            output_tokens=1,
        )
        for at, (start_s, end_s) in enumerate(times)
    ]


def waits(*times: tuple[float, float]) -> list[tuple[int, ...]]:
    return [each.waits_for for each in dependencies(calls(*times))]


def test_a_sequence_waits_for_each_answer() -> None:
    assert waits((0, 1), (1, 2), (5, 6)) == [(), (0,), (1,)]
    assert [each.after_s for each in dependencies(calls((0, 1), (1, 2), (5, 6)))] == [0, 0, 3]


def test_a_join_waits_for_all_of_a_burst_and_a_burst_for_the_join() -> None:
    assert waits((0, 1), (0, 4), (0, 2), (4, 5), (5, 6), (5, 7)) == [
        (), (), (), (0, 1, 2), (3,), (3,)
    ]  # fmt: skip


def test_calls_that_start_late_but_beside_others_wait_for_none() -> None:
    found = dependencies(calls((0, 3), (1, 2)))

    assert [each.waits_for for each in found] == [(), ()]
    assert found[1].after_s == 1


def test_a_call_without_duration_does_not_wait_for_itself() -> None:
    assert waits((0, 0), (0, 0), (1, 1)) == [(), (), (0, 1)]
