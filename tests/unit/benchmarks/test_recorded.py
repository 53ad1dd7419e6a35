"""What predictions are compared with: made-up prompts, and the chance in what was served."""

import random

import numpy as np
import orjson
import pytest

from benchmarks.recorded.answer import answer
from benchmarks.recorded.errors import standard_errors
from benchmarks.recorded.replay import bodies
from benchmarks.recorded.sources import CODING_LLMS, with_role
from scepsy.model.execution import BLOCK_TOKENS, Call, CallId, Endpoint, Execution, ExecutionId
from scepsy.model.prompt import TOKEN_BYTES, block_ids, count_tokens, prompt_bytes
from scepsy.model.workflow import LlmName, WorkflowName
from scepsy.sim.script import scripts

PATHS = {Endpoint.CHAT: Endpoint.COMPLETION}
"""Endpoints that are replayed as another."""


def call(at: int, **fields: object) -> Call:
    values: dict[str, object] = {
        "id": CallId(str(at)),
        "execution": ExecutionId("e"),
        "workflow": WorkflowName("w"),
        "llm": LlmName("m"),
        "start_s": float(2 * at),
        "end_s": float(2 * at + 1),
        "prompt_tokens": 100,
        "output_tokens": 10,
    }
    return Call(**{**values, **fields})


CHAT = (
    call(0, prompt_tokens=150, prefix_blocks=(7, 8), output_tokens=80, output_blocks=(1,)),
    call(1, prompt_tokens=250, prefix_blocks=(7, 8, 1), output_tokens=70, output_blocks=(2, 3)),
    call(2, prompt_tokens=330, prefix_blocks=(7, 8, 1, 2, 3), output_tokens=5),
)
"""A conversation: answers come back in later prompts."""


def sent(calls: tuple[Call, ...], copy: int = 1) -> list[dict[str, object]]:
    (script,) = scripts([Execution(ExecutionId("e"), WorkflowName("w"), calls)])
    return [orjson.loads(body) for body in bodies(script, copy)]


def rendered(recorded: Call, body: dict[str, object]) -> bytes:
    return prompt_bytes(PATHS.get(recorded.endpoint, recorded.endpoint), body)


@pytest.mark.parametrize("endpoint", [Endpoint.CHAT, Endpoint.EMBEDDING, Endpoint.RERANK])
@pytest.mark.parametrize("tokens", [1, 63, 64, 65, 1000])
def test_a_made_up_prompt_is_as_long_as_recorded(endpoint, tokens):
    recorded = call(0, endpoint=endpoint, prompt_tokens=tokens)
    (body,) = sent((recorded,))
    assert count_tokens(rendered(recorded, body)) == tokens


@pytest.mark.parametrize("endpoint", [Endpoint.CHAT, Endpoint.EMBEDDING, Endpoint.RERANK])
def test_prompts_share_the_blocks_that_they_shared_when_recorded(endpoint):
    calls = (
        call(0, endpoint=endpoint, prompt_tokens=200, prefix_blocks=(7, 8, 9)),
        call(1, endpoint=endpoint, prompt_tokens=200, prefix_blocks=(7, 8, 10)),
    )
    one, two = (block_ids(rendered(c, body)) for c, body in zip(calls, sent(calls), strict=True))
    assert (len(one), one[:2], one[2] != two[2]) == (3, two[:2], True)


def test_answers_are_told_so_that_later_prompts_find_them_cached():
    bodies_sent = sent(CHAT)
    seen: set[int] = set()
    for recorded, body in zip(CHAT, bodies_sent, strict=True):
        prompt = rendered(recorded, body)
        known = sum(block in seen for block in block_ids(prompt))
        assert known == len(recorded.prefix_blocks) - (2 if recorded is CHAT[0] else 0)
        told = answer(body, random.Random(0))
        text = told.text if told else " " * recorded.output_tokens * TOKEN_BYTES
        assert len(text) == recorded.output_tokens * TOKEN_BYTES
        seen |= set(block_ids(prompt + text.encode()))


def test_copies_of_an_execution_share_nothing_of_their_own():
    one, two = (sent(CHAT, copy) for copy in (1, 2))
    shared = set(block_ids(rendered(CHAT[2], one[2]))) & set(block_ids(rendered(CHAT[2], two[2])))
    assert not shared


def test_a_call_without_recorded_blocks_shares_nothing_with_others():
    calls = (call(0, prompt_tokens=5 * BLOCK_TOKENS), call(1, prompt_tokens=5 * BLOCK_TOKENS))
    one, two = (
        set(block_ids(rendered(c, body))) for c, body in zip(calls, sent(calls), strict=True)
    )
    assert (len(one), one & two) == (5, set())


def test_an_answer_is_left_to_the_engine_where_none_is_asked_for():
    assert answer({"prompt": "x"}, random.Random(0)) is None


def test_the_standard_error_of_independent_executions_is_the_textbook_one():
    served_s = np.random.default_rng(1).exponential(size=4_000)
    of_mean, of_p95 = standard_errors(served_s, recorded=10)
    assert of_mean == pytest.approx(1 / 4_000**0.5, rel=0.2)
    density = 0.05  # of the exponential at its 95th percentile, ln 20
    expected = (0.05 * 0.95 / 4_000) ** 0.5 / density / np.log(20)
    assert of_p95 == pytest.approx(expected, rel=0.25)


def test_executions_that_meet_the_same_load_say_less_than_as_many_that_do_not():
    loads = np.repeat(np.random.default_rng(1).exponential(size=400), 20)
    alone, _ = standard_errors(np.random.default_rng(1).permutation(loads), recorded=100)
    together, _ = standard_errors(loads, recorded=100)
    assert together > 3 * alone


def test_rounds_of_the_same_executions_have_no_sampling_error_without_load():
    served_s = np.tile(np.random.default_rng(1).exponential(size=40), 20)
    nothing = (pytest.approx(0), pytest.approx(0))
    assert standard_errors(served_s, recorded=40) == nothing


def test_rounds_are_found_where_counting_began_within_one():
    rng = np.random.default_rng(1)
    lengths_s = rng.exponential(size=40)
    rounds = np.concatenate([rng.permutation(lengths_s) for _ in range(20)])
    counted = np.roll(rounds, -13)
    assert standard_errors(counted, recorded=40, warm_up=13)[0] == pytest.approx(0)
    assert standard_errors(counted, recorded=40)[0] > 0.001


def test_every_role_of_a_coding_session_has_an_llm_of_its_own():
    outputs = (20, 400, 30)
    calls = [call(at, output_tokens=tokens) for at, tokens in enumerate(outputs)]
    found = [(c.role, c.llm) for c in with_role(calls)]
    roles = ("planner", "coder", "summariser")
    assert found == [(role, CODING_LLMS[role]) for role in roles]
