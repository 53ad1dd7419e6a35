import pytest

from examples.beam_search.workflow import (
    Beam,
    Problem,
    SearchConfig,
    parse_score,
    read_problems,
    solution_text,
    survivors,
)

CONFIG = SearchConfig(width=2, margin=0.1, accept=0.8)
OPEN = ("half of it is 21",)
DONE = ("half of it is 21\nFINAL ANSWER: 21",)


def test_only_beams_close_to_the_best_live_on() -> None:
    scored = [Beam(OPEN, 0.5), Beam(OPEN, 0.9), Beam(OPEN, 0.85)]

    assert [beam.score for beam in survivors(scored, CONFIG)] == [0.9, 0.85]


def test_no_more_beams_than_the_width_live_on() -> None:
    scored = [Beam(OPEN, score) for score in (0.71, 0.7, 0.72, 0.73)]

    assert [beam.score for beam in survivors(scored, CONFIG)] == [0.73, 0.72]


def test_a_good_final_answer_ends_the_search() -> None:
    assert survivors([Beam(OPEN, 0.9), Beam(DONE, 0.91)], CONFIG) == ()


def test_a_doubtful_final_answer_lets_others_go_on() -> None:
    unfinished = Beam(OPEN, 0.65)

    assert survivors([unfinished, Beam(DONE, 0.7)], CONFIG) == (unfinished,)


def test_a_better_open_beam_outlives_a_good_final_answer() -> None:
    better = Beam(OPEN, 0.95)

    assert survivors([Beam(DONE, 0.9), better], CONFIG) == (better,)


@pytest.mark.parametrize(
    ("verdict", "score"),
    [
        ('{"score": 0.73}', 0.73),
        ('```json\n{"score": 1}\n```', 1.0),
        ("Score: .5, because step 3 is doubtful", 0.5),
        ("0.25", 0.25),
        ('{"step": 3, "score": 0.9}', 0.9),
        ('{"score": 87}', 1.0),
        ("it looks fine to me", 0.0),
        ("", 0.0),
    ],
)
def test_scores_are_read_from_whatever_a_verifier_says(verdict: str, score: float) -> None:
    assert parse_score(verdict) == score


@pytest.mark.parametrize(
    ("last", "answer"),
    [
        ("so\nFINAL ANSWER: 42", "42"),
        ("so\nFINAL ANSWER: $1,200.", "1200"),
        ("so\nFINAL ANSWER: -3.5", "-3.5"),
        ("the final answer is near", None),
    ],
)
def test_final_answer_of_a_beam(last: str, answer: str | None) -> None:
    assert Beam((last,)).final_answer == answer


def test_a_continuation_extends_the_text_of_its_beginning() -> None:
    problem = Problem(id="p", text="How many?", answer="1")

    assert solution_text(problem, ["a", "b"]).startswith(solution_text(problem, ["a"]))


def test_a_search_without_width_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        SearchConfig(width=0)


def test_shipped_problems_differ() -> None:
    problems = read_problems()

    assert len(problems) == 40
    assert len({problem.id for problem in problems}) == 40
    assert len({problem.text for problem in problems}) == 40
