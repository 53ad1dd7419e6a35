from scepsy.gateway.answer import Answer, Usage
from scepsy.gateway.exchange import MAX_HASHED_BYTES, Exchange
from scepsy.gateway.identify import Identity, Rung
from scepsy.model.execution import CallStatus, Endpoint
from scepsy.model.prompt import block_ids


def exchange(prompt=b"x" * 1000, endpoint=Endpoint.CHAT):
    identity = Identity("w", "e", "r", Rung.HEADER)
    return Exchange(
        id="c",
        identity=identity,
        llm="m",
        endpoint=endpoint,
        start_s=1.0,
        prompt=prompt,
        request=b"{}",
    )


def test_a_policy_sees_what_is_known_before_the_call_runs():
    view = exchange().view()

    assert (view.execution, view.workflow, view.role) == ("e", "w", "r")
    assert (view.prompt_tokens, len(view.prefix_blocks)) == (250, 3)


def test_a_call_of_which_nothing_came_is_one_whose_client_left():
    call = exchange().call(2.0)

    assert (call.status, call.output_tokens, call.e2e_s) == (CallStatus.CANCELLED, 0, 1.0)
    assert call.output_blocks == ()


def test_the_engines_counts_are_believed_and_else_bytes_are_counted():
    said, silent = exchange(), exchange()
    said.answer = Answer(usage=Usage(7, 8, 4), texts={0: ["y" * 400]})
    silent.answer = Answer(texts={0: ["y" * 400]})

    assert (said.call(2.0).prompt_tokens, said.call(2.0).output_tokens) == (7, 8)
    assert said.call(2.0).cached_tokens == 4
    assert (silent.call(2.0).prompt_tokens, silent.call(2.0).output_tokens) == (250, 100)


def test_output_blocks_continue_the_prompts():
    made = exchange()
    made.answer = Answer(texts={0: ["y" * 400]})
    call = made.call(2.0)

    assert call.prefix_blocks + call.output_blocks == block_ids(b"x" * 1000 + b"y" * 400)
    assert len(call.output_blocks) == 2


def test_hashing_is_bounded():
    made = exchange(prompt=bytes(MAX_HASHED_BYTES * 2))
    made.answer = Answer(texts={0: ["y" * 400]})
    call = made.call(2.0)

    assert len(call.prefix_blocks) == MAX_HASHED_BYTES // 256
    assert call.output_blocks == ()
    assert call.prompt_tokens == MAX_HASHED_BYTES // 2


def test_embeddings_fill_no_blocks_of_their_own():
    made = exchange(endpoint=Endpoint.EMBEDDING)
    made.answer = Answer(texts={0: ["y" * 400]})

    assert made.call(2.0).output_blocks == ()
