"""The scripts of the emulated engines know the prompts that the examples really send."""

import json
import random
import statistics

import pytest

from examples.beam_search import emulated as beam
from examples.beam_search import workflow as beam_workflow
from examples.coding_agent import emulated as coding
from examples.coding_agent import workflow as coding_workflow
from examples.rag_rerank import emulated as rag
from examples.rag_rerank import workflow as rag_workflow
from examples.rag_rerank.index import read_corpus

PROBLEMS = {problem.id: problem for problem in beam_workflow.read_problems()}
CORPUS = {passage.id: passage for passage in read_corpus()}
SCRIPTS = (beam.answer, rag.answer, coding.answer)


def chat(system: str, user: str) -> dict[str, object]:
    return {
        "model": "m",
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
    }


def step(problem: str, steps: tuple[str, ...], seed: int) -> str:
    text = beam_workflow.solution_text(PROBLEMS[problem], steps)
    found = beam.answer(chat(beam_workflow.GENERATOR_PROMPT, text), random.Random(seed))
    assert found is not None
    return found.text


def score(problem: str, steps: tuple[str, ...], seed: int) -> float:
    text = beam_workflow.solution_text(PROBLEMS[problem], steps)
    found = beam.answer(chat(beam_workflow.VERIFIER_PROMPT, text), random.Random(seed))
    assert found is not None
    return beam_workflow.parse_score(found.text)


@pytest.mark.parametrize("script", SCRIPTS)
def test_requests_of_others_are_left_to_others(script) -> None:
    for request in ({}, chat("You are a pirate", "Sing!"), {"prompt": "Once"}, {"messages": "?"}):
        assert script(request, random.Random(0)) is None


def test_no_two_scripts_answer_the_same_prompt() -> None:
    for prompt in (
        beam_workflow.GENERATOR_PROMPT,
        beam_workflow.VERIFIER_PROMPT,
        rag_workflow.ANSWER_PROMPT,
        rag_workflow.REWRITE_PROMPT,
        coding_workflow.PLANNER_PROMPT,
        coding_workflow.CODER_PROMPT,
        coding_workflow.REVIEWER_PROMPT,
    ):
        found = [script(chat(prompt, "?"), random.Random(0)) for script in SCRIPTS]
        assert len([each for each in found if each is not None]) == 1


def test_the_same_seed_gives_the_same_step_and_another_another() -> None:
    assert step("tiles", (), 1) == step("tiles", (), 1) != step("tiles", (), 2)


def test_steps_have_the_length_of_real_ones() -> None:
    tokens = [len(step("loan", (), seed)) / 4 for seed in range(100)]

    assert 140 < statistics.mean(tokens) < 190
    assert min(tokens) > 90
    assert max(tokens) < beam_workflow.SearchConfig().step_max_tokens


def test_easy_problems_end_sooner() -> None:
    def finished(problem: str, steps: int) -> int:
        before = tuple(f"step {at}" for at in range(steps))
        return sum("FINAL ANSWER" in step(problem, before, seed) for seed in range(50))

    assert finished("ribbon", 0) > 10
    assert finished("calendar", 0) == 0
    assert finished("calendar", 6) > 10


def test_right_answers_score_above_wrong_ones() -> None:
    right = [score("ribbon", ("so\nFINAL ANSWER: 14",), seed) for seed in range(50)]
    wrong = [score("ribbon", ("so\nFINAL ANSWER: 15",), seed) for seed in range(50)]

    assert statistics.mean(right) > 0.85
    assert statistics.mean(wrong) < 0.65


def rerank(query: str) -> list[float]:
    request = {"query": query, "documents": [each.document for each in CORPUS.values()]}
    found = rag.answer(request, random.Random(0))
    assert found is not None
    assert found.scores is not None
    return list(found.scores)


def test_the_passage_that_shares_the_words_is_the_most_relevant() -> None:
    scores = rerank("Why do most coasts see high water twice a day?")

    assert list(CORPUS)[max(range(len(scores)), key=scores.__getitem__)] == "tides"
    assert max(scores) > rag_workflow.RagConfig().accept


def test_a_question_in_other_words_fits_badly() -> None:
    assert max(rerank("Is it the spinning that stops me from falling over?")) < 0.5


def test_most_rewritten_queries_name_the_passage() -> None:
    user = "Question: How do I tell how far away a storm is?\nQuery: storm"
    request = chat(rag_workflow.REWRITE_PROMPT, user)
    found = [rag.answer(request, random.Random(seed)) for seed in range(40)]

    named = [each for each in found if each is not None and "Thunder" in each.text]
    assert 20 < len(named) < 40


def test_an_answer_cites_what_it_was_given() -> None:
    user = f"Passages:\n\n[tides] {CORPUS['tides'].document}\n\nQuestion: Why?"
    found = rag.answer(chat(rag_workflow.ANSWER_PROMPT, user), random.Random(0))

    assert found is not None
    assert "[tides]" in found.text


def test_texts_that_share_words_have_vectors_that_are_close() -> None:
    texts = ["high water on coasts", "coasts see high water", "the holes in a cheese"]
    found = rag.answer({"input": texts}, random.Random(0))

    assert found is not None
    assert found.embeddings is not None
    one, near, far = found.embeddings
    assert sum(a * b for a, b in zip(one, near, strict=True)) > 0.8
    assert sum(a * b for a, b in zip(one, far, strict=True)) < 0.2


def test_the_coder_writes_better_programs_when_it_tries_again() -> None:
    task = coding_workflow.read_tasks()[2]

    def right(attempt: int) -> int:
        talk = chat(coding_workflow.CODER_PROMPT, f"Task: {task.text}\n\nPlan:\n1. Think.")
        talk["messages"] = [*talk["messages"], *talk["messages"][1:] * 2 * (attempt - 1)]
        found = [coding.answer(talk, random.Random(seed)) for seed in range(200)]
        return len([each for each in found if each and coding_right(task.id, each.text)])

    assert 0 < right(1) < right(4) < 200


def coding_right(task: str, reply: str) -> bool:
    return coding_workflow.parse_program(reply).strip() == coding._DRAFTS[task]["right"].strip()


def test_the_reviewer_approves_only_what_passes() -> None:
    def approved(outcome: str) -> int:
        request = chat(coding_workflow.REVIEWER_PROMPT, f"Task: x\n\nProgram:\nx\n\n{outcome}")
        found = [coding.answer(request, random.Random(seed)) for seed in range(50)]
        return len([each for each in found if each and each.text.startswith("APPROVE")])

    assert approved("The tests fail:\nAssertionError") == 0
    assert 30 < approved("The tests pass.") < 50


def test_scores_are_json() -> None:
    text = beam_workflow.solution_text(PROBLEMS["loan"], ["so"])
    found = beam.answer(chat(beam_workflow.VERIFIER_PROMPT, text), random.Random(0))

    assert found is not None
    assert 0 <= json.loads(found.text)["score"] <= 1
