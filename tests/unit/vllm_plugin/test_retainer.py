"""What the policy is told of an engine's calls."""

import pytest

from scepsy.policy.retain import Lru
from scepsy.vllm_plugin.programs import Programs
from scepsy.vllm_plugin.retainer import Retainer
from tests.unit.vllm_plugin.made_up_vllm import Block, BlockPool, Request


class Heard(Lru):
    """Writes down what it is told."""

    def __init__(self):
        super().__init__()
        self.told = []

    def arrived(self, now_s, program, chain):
        self.told.append(("arrived", program, tuple(chain)))

    def scheduled(self, now_s, program):
        self.told.append(("scheduled", program))

    def ended(self, now_s, program, kind, chain):
        self.told.append(("ended", program, kind, tuple(chain)))

    def over(self, now_s, program):
        self.told.append(("over", program))


@pytest.fixture
def heard():
    return Heard()


@pytest.fixture
def retainer(heard):
    return Retainer(BlockPool(8), retention=heard, now_s=lambda: 0.0)


def cached(retainer, *hashes):
    blocks = [Block(number, 1, content) for number, content in enumerate(hashes)]
    retainer._pool.cached.update({block.block_hash: block for block in blocks})
    return blocks


def test_a_call_arrives_is_scheduled_once_and_ends(retainer, heard):
    first, *_ = cached(retainer, b"a", b"x")
    request = Request("r", [b"a", b"b"], "rag/judge/e1")

    retainer.arrived(request)
    retainer.scheduled(request)
    retainer.scheduled(request)  # another step
    request.finished = True
    retainer.leaving(request, [first, Block(4, 1, b"b"), Block(5, 1)])

    assert heard.told == [
        ("arrived", "rag/judge/e1", (0,)),
        ("scheduled", "rag/judge/e1"),
        ("ended", "rag/judge/e1", "rag/judge", (0, 4)),
    ]


def test_a_call_that_loses_its_blocks_waits_again(retainer, heard):
    request = Request("r", [b"a"], "p")
    retainer.arrived(request)
    retainer.scheduled(request)
    retainer.leaving(request, [Block(3, 1, b"a")])
    retainer.scheduled(request)

    assert heard.told[2:] == [("ended", "p", "", (3,)), ("arrived", "p", (3,)), ("scheduled", "p")]


def test_a_call_that_leaves_the_queue_still_wants_its_blocks(retainer, heard):
    cached(retainer, b"a", b"b")
    request = Request("r", [b"a", b"b", b"c"], "p")
    retainer.arrived(request)
    request.finished = True
    retainer.leaving(request, [])

    assert heard.told[-1] == ("ended", "p", "", (0, 1))


def test_after_its_last_call_a_program_is_over(retainer, heard):
    request = Request("r", [], "p", {"scepsy_last": 1})
    retainer.arrived(request)
    request.finished = True
    retainer.leaving(request, [])

    assert heard.told[-1] == ("over", "p")


def test_more_input_for_a_call_is_no_new_call(retainer, heard):
    retainer.arrived(Request("r", [], "p"))
    retainer.arrived(Request("r", [], "p"))
    assert len(heard.told) == 1


def test_calls_that_were_there_before_the_policy_do_not_count(retainer, heard):
    retainer.scheduled(Request("r"))
    retainer.leaving(Request("r"), [])
    assert heard.told == []


def test_the_first_fault_is_told_once_and_ends_it(retainer, heard, caplog):
    def fail(*_):
        raise KeyError("gone")

    heard.arrived = fail
    retainer.keep([1])
    for name in "ab":
        retainer.arrived(Request(name, [], "p"))

    assert not retainer.is_on
    assert not retainer.keeps(1)
    assert retainer.evict() is None
    assert len(caplog.records) == 1
    assert "vLLM's order from now on: KeyError('gone')" in caplog.text


def test_when_all_is_forgotten_so_is_what_was_kept(retainer):
    retainer.keep([1, 2])
    retainer.emptied()
    assert not retainer.keeps(1)
    assert not retainer.keeps(2)


def test_a_session_among_the_extra_arguments_counts_too():
    programs = Programs(block_tokens=4)
    whose = programs.whose(Request("r", extra_args={"session_id": "w/e"}))
    assert (whose.program, whose.kind) == ("w/e", "w")


def test_without_a_session_a_call_continues_the_one_whose_prompt_it_has():
    programs = Programs(block_tokens=4)
    first = Request("1", [b"a", b"b"], num_prompt_tokens=8)
    whose = programs.whose(first)
    first.block_hashes.append(b"c")  # its answer
    programs.ended(whose, first)

    with_answer = programs.whose(Request("2", [b"a", b"b", b"c", b"d"]))
    answer_rewritten = programs.whose(Request("3", [b"a", b"b", b"e"]))
    only_the_head = programs.whose(Request("4", [b"a", b"z"]))

    assert with_answer.program == answer_rewritten.program == whose.program
    assert only_the_head.program not in {whose.program, ""}


def test_names_without_end_are_one_kind():
    programs = Programs(block_tokens=4)
    kinds = {programs.whose(Request("r", [], f"{number}/e")).kind for number in range(5000)}
    assert len(kinds) < 1100
    assert programs.whose(Request("r", [], "0/e")).kind == "0"
