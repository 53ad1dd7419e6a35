import random
from collections.abc import Mapping

import pytest

from scepsy.engines.reply import Reply, make_replies, make_scores, make_vectors
from scepsy.engines.request import parse_generation, parse_pooling
from scepsy.engines.script import Answer, Script, ToolCall
from scepsy.errors import InputError
from scepsy.model.execution import Endpoint
from scepsy.model.prompt import block_ids, count_tokens, prompt_bytes


def says(answer: Answer) -> Script:
    def script(request: Mapping[str, object], rng: random.Random) -> Answer:
        return answer

    return script


def replies(*scripts: Script, room: int = 1000, **fields: object) -> list[Reply]:
    body = {"messages": [{"role": "user", "content": "hi " * 300}], **fields}
    asked = parse_generation(Endpoint.CHAT, body)
    return make_replies(asked, scripts, seed=0, max_context_tokens=room)


def test_the_same_request_gets_the_same_answer_and_another_seed_another() -> None:
    assert replies(seed=1) == replies(seed=1)
    assert replies(seed=1) != replies(seed=2)
    first, second = replies(n=2)
    assert first.text != second.text


def test_max_tokens_cuts_and_says_so() -> None:
    (reply,) = replies(max_tokens=5)
    assert (reply.tokens, reply.finish_reason, len(reply.text)) == (5, "length", 20)


def test_an_answer_never_outgrows_the_context() -> None:
    (reply,) = replies(room=240, ignore_eos=True, max_tokens=500)
    assert reply.prompt_tokens + reply.tokens == 240


def test_an_answer_that_ends_by_itself_stops() -> None:
    (reply,) = replies(says(Answer(text="well")), max_tokens=5)
    assert (reply.tokens, reply.finish_reason, reply.text) == (1, "stop", "well")


def test_ignore_eos_gives_exactly_what_was_asked_for() -> None:
    (reply,) = replies(ignore_eos=True, max_tokens=600)
    assert (reply.tokens, count_tokens(reply.text)) == (600, 600)


def test_a_stop_text_ends_the_answer_before_it() -> None:
    (reply,) = replies(says(Answer(text="one two three")), stop=["three", " two"])
    assert (reply.text, reply.finish_reason, reply.tokens) == ("one", "stop", 1)


def test_tool_calls_look_like_openai_s() -> None:
    (reply,) = replies(says(Answer(tool_calls=(ToolCall("look", {"at": 1}),))))
    message = reply.message()
    assert reply.finish_reason == "tool_calls"
    assert message["content"] is None
    assert message["tool_calls"][0]["function"] == {"name": "look", "arguments": '{"at":1}'}
    assert reply.tokens > 10


def test_a_forced_tool_is_called_without_a_script() -> None:
    tools = [{"type": "function", "function": {"name": "look"}}]
    (reply,) = replies(tools=tools, tool_choice="required")
    assert reply.tool_calls[0]["function"]["name"] == "look"


def test_hidden_tokens_count_and_cut_in_proportion() -> None:
    hidden = says(Answer(text="x" * 40, output_tokens=100))
    assert replies(hidden)[0].tokens == 100
    (cut,) = replies(hidden, max_tokens=50)
    assert (cut.tokens, cut.text, cut.finish_reason) == (50, "x" * 20, "length")


def test_a_continued_conversation_starts_with_the_blocks_of_the_last() -> None:
    body: dict[str, object] = {"messages": [{"role": "user", "content": "hi " * 300}]}
    (reply,) = replies(says(Answer(text="answer " * 100)))
    longer = {"messages": [*body["messages"], reply.message(), {"role": "user", "content": "more"}]}
    ids = block_ids(prompt_bytes(Endpoint.CHAT, longer))
    shared = reply.prefix_blocks + reply.output_blocks
    assert len(shared) > len(reply.prefix_blocks)
    assert ids[: len(shared)] == shared


def test_text_until_never_splits_a_character() -> None:
    (reply,) = replies(says(Answer(text="äöü€" * 10)))
    sizes = [reply.text_until(tokens) for tokens in range(reply.tokens + 1)]
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (0, 40)


def test_scripted_vectors_and_scores_must_be_as_many_as_texts() -> None:
    embed = parse_pooling(Endpoint.EMBEDDING, {"input": ["a", "b"]})
    two = says(Answer(embeddings=((1.0, 2.0), (3.0, 4.0))))
    assert list(make_vectors(embed, [two], seed=0)) == [(1.0, 2.0), (3.0, 4.0)]
    rank = parse_pooling(Endpoint.RERANK, {"query": "q", "documents": ["a", "b"]})
    assert make_scores(rank, [says(Answer(scores=(0.1, 0.2)))], seed=0) == (0.1, 0.2)
    with pytest.raises(InputError, match="1 embeddings for 2 texts"):
        make_vectors(embed, [says(Answer(embeddings=((1.0,),)))], seed=0)
    with pytest.raises(InputError, match="3 scores for 2 texts"):
        make_scores(rank, [says(Answer(scores=(1, 2, 3)))], seed=0)
