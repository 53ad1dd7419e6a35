"""What the emulated engines answer to the RAG workflow: vectors, relevances, queries, answers.

The program knows nothing of this file; give it to an emulated engine with ``--script``. Vectors
and relevances come from the words that texts share, so a question put in other words than its
passage finds badly, and the workflow has to rewrite its query.
"""

import json
import random
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from zlib import crc32

from scepsy.engines.script import Answer

_HERE = Path(__file__).parent
DIMENSIONS = 256
_ANSWER_MARK = "You answer questions from the passages given"
_REWRITE_MARK = "You improve search queries"
_COMMON_TEXT = (
    "about after all also another any are because before between but can could does down each "
    "else ever for from get goes had has have here how into its just keep know make many mean "
    "more most much must not off one only other our out over see should some somebody such than "
    "that the their them then there these they thing things this those through too two under "
    "what when where which while who why will with would you your"
)
_COMMON = frozenset(_COMMON_TEXT.split())
_LINKS = (
    "Put simply,",
    "This means that",
    "In practice,",
    "The passage goes on to say that",
    "What matters for the question is that",
    "It follows that",
)
_ASIDES = (
    "this is the point on which the other passages agree as well",
    "the effect is strongest where the quantities involved are large",
    "one should not expect the same where these conditions do not hold",
    "the numbers in the text are meant as an order of magnitude",
    "the reason given is a physical one and not a matter of taste",
    "anything beyond this would go further than the sources allow",
)


def _rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (_HERE / name).read_text("utf-8").splitlines()]


_PASSAGES = {row["id"]: row for row in _rows("corpus.jsonl")}
_ASKED = {row["text"]: _PASSAGES[row["passage"]] for row in _rows("questions.jsonl")}
_DOCUMENTS = frozenset(f"{row['title']}. {row['text']}" for row in _PASSAGES.values())


def answer(request: Mapping[str, object], rng: random.Random) -> Answer | None:
    """An answer, a query, relevances or vectors; None for anyone else's request."""
    messages = request.get("messages")
    if isinstance(messages, list) and len(messages) == 2:
        return _chat(str(messages[0].get("content")), str(messages[1].get("content")), rng)
    documents, texts = request.get("documents"), request.get("input")
    if isinstance(documents, list) and _DOCUMENTS.issuperset(documents):
        query = str(request.get("query"))
        return Answer(scores=tuple(_relevance(query, text, rng) for text in documents))
    if texts is not None:
        listed = texts if isinstance(texts, list) else [texts]
        return Answer(embeddings=tuple(_vector(str(text)) for text in listed))
    return None


def _chat(system: str, user: str, rng: random.Random) -> Answer | None:
    if system.startswith(_ANSWER_MARK):
        return Answer(text=_answer(user, rng))
    if system.startswith(_REWRITE_MARK):
        return Answer(text=_query(user, rng))
    return None


def _query(user: str, rng: random.Random) -> str:
    question = user.removeprefix("Question: ").partition("\nQuery: ")[0]
    passage = _ASKED.get(question)
    if passage is None or rng.random() < 0.3:
        asked = question.rstrip("?").split() or ["reference"]
        return " ".join(rng.sample(asked, k=min(4, len(asked))))
    terms = list(dict.fromkeys(_words(passage["text"])))
    return " ".join([passage["title"], *rng.sample(terms, k=min(6, len(terms)))])


def _answer(user: str, rng: random.Random) -> str:
    cited = re.findall(r"^\[([a-z0-9-]+)\] ", user, re.MULTILINE)
    if not cited:
        return "The passages do not say."
    best = _PASSAGES.get(cited[0])
    sentences = best["text"].split(". ") if best else ["The passages speak of it"]
    said = [f"{sentences[0].rstrip('.')} [{cited[0]}]."]
    for _ in range(rng.randint(8, 14)):
        told = rng.choice(sentences).rstrip(".")
        aside = rng.choice(_ASIDES)
        said.append(f"{rng.choice(_LINKS)} {told[0].lower()}{told[1:]}; {aside} [{cited[0]}].")
    if len(cited) > 1 and rng.random() < 0.5:
        said.append(f"See also [{rng.choice(cited[1:])}].")
    return " ".join(said)


def _relevance(query: str, document: str, rng: random.Random) -> float:
    asked = set(_words(query))
    found = len(asked & set(_words(document))) / max(len(asked), 1)
    return round(min(max(0.9 * found + rng.gauss(0.05, 0.04), 0.01), 0.99), 4)


@lru_cache(maxsize=4096)
def _vector(text: str) -> tuple[float, ...]:
    vector = [0.01] * DIMENSIONS
    for word in _words(text):
        vector[crc32(word.encode()) % DIMENSIONS] += 1.0
    length = sum(value * value for value in vector) ** 0.5
    return tuple(round(value / length, 5) for value in vector)


@lru_cache(maxsize=4096)
def _words(text: str) -> Sequence[str]:
    found = (word.removesuffix("s") for word in re.findall(r"[a-z0-9]{3,}", text.lower()))
    return tuple(word for word in found if word not in _COMMON)
