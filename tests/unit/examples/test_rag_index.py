import numpy as np
import pytest

from examples.rag_rerank.index import Bm25, HybridIndex, Passage, read_corpus, words
from examples.rag_rerank.workflow import read_questions

PASSAGES = (
    Passage("tides", "Tides", "The Moon pulls on the oceans."),
    Passage("tea", "Tea", "Leaves for tea are dried. The tea is brewed hot."),
    Passage("moon", "The Moon", "The Moon circles the Earth; the Moon has no air."),
)
VECTORS = np.array([[1.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.9, 0.0, 0.5]])


def test_bm25_prefers_rare_words_and_repeated_ones() -> None:
    scores = Bm25(PASSAGES).scores("the moon")

    assert scores.argmax() == 2
    assert scores[0] > scores[1] > 0  # `the` alone is worth little, but it is shared


def test_bm25_gives_nothing_where_no_word_is_shared() -> None:
    assert Bm25(PASSAGES).scores("bicycle").tolist() == [0, 0, 0]


def test_meaning_finds_what_words_do_not() -> None:
    index = HybridIndex(PASSAGES, VECTORS)

    assert index.find("hot beverage", np.array([0.0, 0.1, 0.0]), 1)[0].id == "tea"


def test_words_find_what_vectors_do_not() -> None:
    found = HybridIndex(PASSAGES, np.ones((3, 3))).find("brewed", np.ones(3), 1)

    assert found[0].id == "tea"


def test_no_more_is_found_than_there_is() -> None:
    found = HybridIndex(PASSAGES, VECTORS).find("moon", np.ones(3), 12)

    assert sorted(passage.id for passage in found) == ["moon", "tea", "tides"]


def test_a_vector_of_zeros_is_no_error() -> None:
    assert len(HybridIndex(PASSAGES, VECTORS).find("moon", np.zeros(3), 2)) == 2


@pytest.mark.parametrize(("text", "found"), [("Tides, tide!", ["tide", "tide"]), ("", [])])
def test_words(text: str, found: list[str]) -> None:
    assert words(text) == found


def test_every_shipped_question_asks_for_a_passage_that_is_there() -> None:
    ids = [passage.id for passage in read_corpus()]

    assert len(ids) == len(set(ids)) == 64
    assert {question.passage for question in read_questions()} <= set(ids)
    assert len({question.text for question in read_questions()}) == 40
