from itertools import count

import pytest

from scepsy.gateway.identify import MAX_NAME_CHARACTERS, Identifier, Rung, clean_name, parse_baggage
from scepsy.gateway.openai import ParsedRequest, Target, parse_target
from scepsy.model.execution import Endpoint

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
USER = {"role": "user", "content": "question"}
ANSWER = {"role": "assistant", "content": "answer"}


@pytest.fixture
def identifier():
    numbers = count(1)
    return Identifier(lambda: f"new{next(numbers)}")


def chat(*messages, **body):
    found = {"messages": list(messages) or [USER], **body}
    return ParsedRequest(Endpoint.CHAT, "m", found)


def place(identifier, request=None, path="/v1/chat/completions", **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return identifier.identify(parse_target(path), named, request or chat())


def rungs(identity):
    return (identity.execution, identity.rung)


def test_the_path_decides_before_everything_else(identifier):
    found = place(
        identifier,
        chat(user="u"),
        path="/w/rag/e1/judge/v1/chat/completions",
        x_scepsy_execution="e2",
        x_scepsy_workflow="other",
        x_scepsy_role="other",
        x_session_id="e3",
    )

    assert rungs(found) == ("e1", Rung.PATH)
    assert (found.workflow, found.role) == ("rag", "judge")


def test_headers_of_ours_decide_before_those_of_clients(identifier):
    found = place(
        identifier,
        x_scepsy_execution="e2",
        x_scepsy_workflow="w",
        x_scepsy_role="r",
        x_session_id="e3",
        baggage="gen_ai.conversation.id=e4",
    )

    assert rungs(found) == ("e2", Rung.HEADER)
    assert (found.workflow, found.role) == ("w", "r")


@pytest.mark.parametrize(
    "header",
    ["x_claude_code_session_id", "x_dynamo_session_id", "session_id", "x_session_id"],
)
def test_clients_session_headers_are_known(identifier, header):
    found = place(identifier, chat(user="u"), traceparent=TRACE, **{header: "s1"})

    assert rungs(found) == ("s1", Rung.CLIENT)
    assert (found.workflow, found.role) == ("default", "")


def test_a_session_belongs_to_the_execution_of_the_one_that_started_it(identifier):
    place(identifier, x_dynamo_session_id="root")
    child = place(identifier, x_dynamo_session_id="child", x_dynamo_parent_session_id="root")
    grandchild = place(identifier, x_dynamo_session_id="leaf", x_dynamo_parent_session_id="child")
    again = place(identifier, x_dynamo_session_id="leaf")

    assert {child.execution, grandchild.execution, again.execution} == {"root"}


def test_baggage_names_conversation_agent_and_workflow(identifier):
    baggage = "gen_ai.conversation.id=c%201,gen_ai.agent.name=judge;ttl=3,gen_ai.workflow.name=w"
    found = place(identifier, baggage=baggage)

    assert rungs(found) == ("c_1", Rung.BAGGAGE)
    assert (found.workflow, found.role) == ("w", "judge")


def test_baggage_that_is_malformed_is_left_out():
    assert parse_baggage("a=1, b ,=,c=x%20y;p=1,") == {"a": "1", "c": "x y"}


def test_a_trace_id_counts_from_its_second_call_on(identifier):
    first = place(identifier, chat(USER), traceparent=TRACE)
    second = place(identifier, chat({"role": "user", "content": "else"}), traceparent=TRACE)

    assert rungs(first) == ("0af7651916cd43dd8448eb211c80319c", Rung.NEW)
    assert rungs(second) == (first.execution, Rung.TRACE)


def test_a_trace_id_of_its_own_for_each_call_does_not_part_a_conversation(identifier):
    first = place(identifier, chat(USER), traceparent=TRACE)
    identifier.answered(first, [ANSWER])
    other = TRACE.replace("0af7", "1af7")

    assert rungs(place(identifier, chat(USER, ANSWER, USER), traceparent=other)) == (
        first.execution,
        Rung.PREFIX,
    )


@pytest.mark.parametrize(
    ("body", "execution"),
    [
        ({"prompt_cache_key": "k"}, "k"),
        ({"user": "u", "prompt_cache_key": "k"}, "k"),
        ({"user": "u"}, "u"),
        ({"conversation": {"id": "c"}}, "c"),
        ({"conversation": "c"}, "c"),
        ({"metadata": {"session_id": "s"}}, "s"),
        ({"nvext": {"agent_context": {"session_id": "d"}}}, "d"),
        ({"vllm_xargs": {"agentic_context": {"program_id": "p", "root_program_id": "r"}}}, "r"),
        ({"previous_response_id": "resp_1"}, "resp_1"),
    ],
)
def test_fields_of_the_body_are_known(identifier, body, execution):
    assert rungs(place(identifier, chat(**body))) == (execution, Rung.BODY)


@pytest.mark.parametrize("body", [{"user": 3}, {"user": ""}, {"nvext": []}, {"conversation": None}])
def test_fields_of_another_form_say_nothing(identifier, body):
    assert place(identifier, chat(**body)).rung is Rung.NEW


def test_the_role_may_come_from_the_body(identifier):
    body = {"vllm_xargs": {"agentic_context": {"program_id": "p", "agent_role": "judge"}}}

    assert place(identifier, chat(**body)).role == "judge"


def test_a_response_that_builds_on_an_earlier_one_is_placed_with_it(identifier):
    request = ParsedRequest(Endpoint.OTHER, "m", {"input": "x"})
    first = place(identifier, request)
    identifier.answered(first, [], "resp_1")

    second = ParsedRequest(Endpoint.OTHER, "m", {"previous_response_id": "resp_1"})
    assert rungs(place(identifier, second)) == (first.execution, Rung.BODY)


def test_a_chat_that_continues_an_earlier_one_is_placed_with_it(identifier):
    first = place(identifier, chat(USER))
    identifier.answered(first, [ANSWER])
    second = place(identifier, chat(USER, ANSWER, {"role": "tool", "content": "42"}))
    identifier.answered(second, [{"role": "assistant", "content": "so 42"}])
    third = place(
        identifier,
        chat(
            USER,
            {"role": "assistant", "content": " answer\n"},  # clients trim and pad
            {"role": "tool", "content": "42"},
            {"role": "assistant", "content": "so 42"},
            USER,
        ),
    )

    assert rungs(first) == ("new1", Rung.NEW)
    assert rungs(second) == rungs(third) == ("new1", Rung.PREFIX)


def test_a_chat_that_only_starts_alike_is_an_execution_of_its_own(identifier):
    system = {"role": "system", "content": "You are helpful. " * 50}
    first = place(identifier, chat(system, USER))
    identifier.answered(first, [ANSWER])

    other_answer = {"role": "assistant", "content": "another answer"}
    assert place(identifier, chat(system, USER)).rung is Rung.NEW
    assert place(identifier, chat(system, USER, other_answer, USER)).rung is Rung.NEW
    assert place(identifier, chat(USER, ANSWER, USER)).rung is Rung.NEW


def test_tool_calls_are_part_of_an_answer(identifier):
    call = {"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    first = place(identifier, chat(USER))
    identifier.answered(first, [{"role": "assistant", "content": "", "tool_calls": [call]}])

    sent_back = {"role": "assistant", "content": None, "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "t1", "content": "1"}
    assert place(identifier, chat(USER, sent_back, result)).execution == first.execution
    other = {**sent_back, "tool_calls": [{**call, "id": "t2"}]}
    assert place(identifier, chat(USER, other, result)).rung is Rung.NEW


def test_any_of_several_answers_may_be_continued(identifier):
    other = {"role": "assistant", "content": "another answer"}
    first = place(identifier, chat(USER))
    identifier.answered(first, [ANSWER, other])

    assert place(identifier, chat(USER, other, USER)).execution == first.execution
    assert place(identifier, chat(USER, ANSWER, USER)).execution == first.execution


def test_equal_twins_take_turns(identifier):
    for _ in range(2):
        identifier.answered(place(identifier, chat(USER)), [ANSWER])

    placed = [place(identifier, chat(USER, ANSWER, USER)).execution for _ in range(3)]

    assert placed == ["new1", "new2", "new2"]


def test_workflows_do_not_share_conversations(identifier):
    first = place(identifier, chat(USER), x_scepsy_workflow="a")
    identifier.answered(first, [ANSWER])

    assert place(identifier, chat(USER, ANSWER, USER), x_scepsy_workflow="b").rung is Rung.NEW


@pytest.mark.parametrize("messages", ["text", None, [3, None], [{}] * 2000])
def test_messages_of_another_form_are_no_conversation(identifier, messages):
    request = ParsedRequest(Endpoint.CHAT, "m", {"messages": messages})

    assert place(identifier, request).rung is Rung.NEW


def test_memory_is_bounded(identifier, monkeypatch):
    monkeypatch.setattr("scepsy.gateway.identify._REMEMBERED", 2)
    kept = place(identifier, traceparent=TRACE).execution
    for number in range(5):
        place(identifier, x_correlation_id=f"c{number}")
        place(identifier, traceparent=TRACE)  # used, so it stays

    assert rungs(place(identifier, traceparent=TRACE)) == (kept, Rung.TRACE)
    assert place(identifier, x_correlation_id="c0").rung is Rung.NEW


@pytest.mark.parametrize(
    ("text", "name"),
    [(" a b\n", "a_b"), ("ok-1.2:x@y+z", "ok-1.2:x@y+z"), ("a/../b", "a_.._b"), ("é\udcff", "_")],
)
def test_names_are_made_fit(text, name):
    assert clean_name(text) == name


def test_long_names_are_cut_and_stay_different():
    one, other = clean_name("x" * 500 + "1"), clean_name("x" * 500 + "2")

    assert len(one) == len(other) == MAX_NAME_CHARACTERS
    assert one != other


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/v1/models", Target("/v1/models")),
        ("/w/a/b/v1/chat/completions", Target("/v1/chat/completions", "a", "b")),
        ("/w/a/b/c/v1/chat/completions", Target("/v1/chat/completions", "a", "b", "c")),
        ("/w/a/b/rerank", Target("/rerank", "a", "b")),
        ("/w/a/b/c/rerank", Target("/rerank", "a", "b", "c")),
        ("/w/a%2Fx/b/v1/models", Target("/v1/models", "a/x", "b")),
        ("/w/a", Target("/", "a")),
        ("/w/", Target("/")),
        ("/wrong", Target("/wrong")),
    ],
)
def test_paths_are_taken_apart(path, target):
    assert parse_target(path) == target
