import json

import pytest
from pydantic import ValidationError

from scepsy.errors import InputError
from scepsy.traces.readers import chatdev, claude_code, jsonl
from scepsy.traces.readers.source import Naming

AS_NAMED = Naming()


def _request(t, model="opus", nblk=4, lcp=0, new=((1, 4),), **more):
    fields = {"t": t, "type": "n", "model": model, "in": 64 * nblk + 3, "out": 380}
    return {**fields, "nblk": nblk, "lcp": lcp, "new": new, **more}


def _session(requests, id_="trace_1", **more):
    fields = {"id": id_, "block_size": 64, "hash_id_scope": "local"}
    tokens = {"tool_tokens": 64, "system_tokens": 64}
    return json.dumps({**fields, **tokens, "requests": requests, **more}).encode()


def _claude(line, naming=AS_NAMED):
    return claude_code.FORMAT.parser(naming)(line)


def test_claude_code_calls_have_exact_times_and_blocks():
    first, second = _claude(
        _session(
            [
                _request(0.0, api_time=7.5),
                _request(10.0, nblk=5, lcp=3, new=[[9, 2]], api_time=4.0, ttft=1.5, type="s"),
            ]
        )
    )

    assert (first.start_s, first.end_s, first.first_token_s) == (0, 7.5, None)
    assert (second.start_s, second.end_s, second.first_token_s) == (10, 14, 11.5)
    assert (first.workflow, first.llm, first.role) == ("claude-code", "opus", "main")
    assert (first.execution, first.prompt_tokens, first.output_tokens) == ("trace_1", 259, 380)
    assert second.prefix_blocks[:3] == first.prefix_blocks[:3]
    assert second.prefix_blocks[3] not in first.prefix_blocks
    assert len(set(first.prefix_blocks + second.prefix_blocks)) == 6


def test_claude_code_call_without_duration_ends_by_assumed_rate_or_next_start():
    calls = _claude(_session([_request(0.0), _request(4.0), _request(40.0)]))

    assert [call.end_s for call in calls] == [4.0, 14.0, 50.0]


def test_claude_code_subagents_are_nested_in_their_execution():
    agent = {"type": "subagent", "t": 5.0, "tool_tokens": 64, "system_tokens": 0}
    nested = _request(1.0, model="haiku", nblk=3, new=[[20, 3]], api_time=2.0)
    main = [_request(0.0, api_time=9.0), {**agent, "requests": [nested]}]

    outer, inner = _claude(_session([*main, _request(9.5, api_time=1.0)]))[:2]

    assert (inner.start_s, inner.end_s) == (6.0, 8.0)
    assert (inner.role, inner.llm, inner.execution) == ("subagent", "haiku", outer.execution)
    assert inner.id != outer.id
    assert not set(inner.prefix_blocks) & set(outer.prefix_blocks)


def test_claude_code_sessions_share_tools_and_system_prompt_and_nothing_else():
    (one,) = _claude(_session([_request(0.0)], "one"))
    (two,) = _claude(_session([_request(0.0)], "two"))
    (other_system,) = _claude(_session([_request(0.0)], "three", system_tokens=70))
    (other_llm,) = _claude(_session([_request(0.0, model="haiku")], "four"))

    assert one.prefix_blocks[:2] == two.prefix_blocks[:2]
    assert not set(one.prefix_blocks[2:]) & set(two.prefix_blocks[2:])
    assert one.prefix_blocks[0] == other_system.prefix_blocks[0]
    assert one.prefix_blocks[1] != other_system.prefix_blocks[1]
    assert not set(one.prefix_blocks) & set(other_llm.prefix_blocks)


@pytest.mark.parametrize(
    ("request_", "match"),
    [
        (_request(0.0, nblk=5), "has 4 blocks, says 5"),
        (_request(0.0, nblk=2**25, new=[[1, 2**25]]), "out of range"),
    ],
)
def test_claude_code_blocks_that_do_not_add_up(request_, match):
    with pytest.raises(InputError, match=match):
        _claude(_session([request_]))


def _step(send, receive, role=None, peer=None, output=42):
    said = {} if role is None else {"role": role, "peer": peer, "phase": "P", "turn": 0}
    return {"t_send": send, "t_recv": receive, "in": 100, "out": output, **said}


def _chatdev(steps, naming=AS_NAMED):
    line = json.dumps({"session": "Game", "model": None, "steps": steps}).encode()
    return chatdev.FORMAT.parser(naming)(line)


def test_chatdev_steps_become_calls():
    (call,) = _chatdev([_step(3.0, 8.0, "Programmer", "CTO")])

    assert (call.workflow, call.llm, call.role) == ("chatdev", "chatdev", "Programmer")
    assert (call.execution, call.start_s, call.end_s) == ("Game", 3, 8)
    assert (call.prompt_tokens, call.output_tokens) == (100, 42)


def test_chatdev_steps_without_a_role_get_one_from_their_exchange():
    calls = _chatdev(
        [
            _step(0.0, 1.0),
            _step(1.0, 2.0, "CPO", "CEO"),
            _step(2.0, 3.0),
            _step(3.0, 4.0, "Reviewer", "Programmer"),
            _step(4.0, 5.0),
        ]
    )

    roles = [call.role for call in calls]
    assert roles == ["Prompt Engineer", "CPO", "Programmer", "Reviewer", "unknown"]


def test_chatdev_step_without_send_time_has_an_assumed_duration():
    calls = _chatdev(
        [
            _step(None, 10.0, output=42),
            _step(None, 11.0, output=420),
            _step(None, 400.0, output=4),
        ]
    )

    assert [call.start_s for call in calls] == [8.0, 10.0, 399.0]


def test_names_can_be_given():
    (call,) = _chatdev([_step(0.0, 1.0, "R", "P")], Naming(workflow="team", llm="qwen3-8b"))

    assert (call.workflow, call.llm) == ("team", "qwen3-8b")


MINIMAL = {
    "id": "c",
    "execution": "e",
    "workflow": "w",
    "llm": "m",
    "start_s": 0,
    "end_s": 1,
    "prompt_tokens": 3,
    "output_tokens": 2,
}


def test_a_minimal_jsonl_line_is_enough():
    (call,) = jsonl.FORMAT.parser(Naming())(json.dumps(MINIMAL).encode())

    assert (call.role, call.status, call.cached_tokens, call.prefix_blocks) == ("", "ok", None, ())


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"surprise": 1}, "surprise"),
        ({"end_s": -1}, "need start"),
        ({"prompt_tokens": -1}, "prompt_tokens"),
        ({"status": "fine"}, "status"),
        ({"llm": ""}, "llm"),
        ({"prefix_blocks": [2**63]}, "prefix_blocks"),
        ({"base": {"call": "nobody", "blocks": 1}}, "base call `nobody` is missing"),
    ],
)
def test_bad_jsonl_lines_say_what_is_wrong(change, match):
    with pytest.raises((ValidationError, InputError), match=match):
        jsonl.FORMAT.parser(Naming())(json.dumps(MINIMAL | change).encode())
