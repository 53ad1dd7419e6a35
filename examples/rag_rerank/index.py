"""Find passages by meaning (vectors) and by words (BM25), and merge both rankings."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from examples.workflow import read_rows

K1, B = 1.2, 0.75
"""BM25's usual constants: how soon repeated words stop counting, and how much length does."""
RANK_OFFSET = 60
"""Reciprocal rank fusion's usual constant: how little the first rank is ahead of the second."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of text that an answer may rest on."""

    id: str
    title: str
    text: str

    @property
    def document(self) -> str:
        """Title and text, as models read them."""
        return f"{self.title}. {self.text}"


class Bm25:
    """Ranks passages by the words they share with a query."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._counts = [Counter(words(passage.document)) for passage in passages]
        lengths = [sum(counts.values()) for counts in self._counts]
        mean_length = sum(lengths) / len(lengths)
        self._norms = [K1 * (1 - B + B * length / mean_length) for length in lengths]
        found_in = Counter(word for counts in self._counts for word in counts)
        self._weights = {
            word: math.log(1 + (len(passages) - n + 0.5) / (n + 0.5))
            for word, n in found_in.items()
        }

    def scores(self, query: str) -> NDArray[np.float64]:
        """(passages,) how well each fits; 0 where no word is shared."""
        known = [word for word in words(query) if word in self._weights]
        return np.array(
            [
                sum(
                    self._weights[word] * counts[word] * (K1 + 1) / (counts[word] + norm)
                    for word in known
                    if word in counts
                )
                for counts, norm in zip(self._counts, self._norms, strict=True)
            ],
            dtype=np.float64,
        )


class HybridIndex:
    """Passages with their vectors. Cosine and BM25 rankings are merged by reciprocal rank.

    Args:
        passages: What can be found.
        vectors: (passages, dimensions) their embeddings, of any length.
    """

    def __init__(self, passages: Sequence[Passage], vectors: NDArray[np.float64]) -> None:
        self.passages = tuple(passages)
        self._vectors = _unit(vectors)
        self._bm25 = Bm25(passages)

    def find(self, query: str, vector: NDArray[np.float64], count: int) -> tuple[Passage, ...]:
        """The best passages, best first."""
        by_words = self._bm25.scores(query)
        merged = _reciprocal_ranks(self._vectors @ _unit(vector))
        merged += np.where(by_words > 0, _reciprocal_ranks(by_words), 0.0)
        order = np.argsort(-merged, kind="stable")[:count]
        return tuple(self.passages[at] for at in order)


def words(text: str) -> list[str]:
    """The words of a text in lower case, without a plural's ending."""
    return [word.removesuffix("s") for word in re.findall(r"[a-z0-9]+", text.lower())]


def read_corpus() -> tuple[Passage, ...]:
    """The shipped passages."""
    rows = read_rows(Path(__file__).parent / "corpus.jsonl")
    return tuple(Passage(row["id"], row["title"], row["text"]) for row in rows)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: NDArray[np.float64] = vectors / np.maximum(lengths, np.finfo(np.float64).tiny)
    return unit


def _reciprocal_ranks(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    ranks = np.empty(len(scores))
    ranks[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    return 1.0 / (RANK_OFFSET + ranks)
