"""What an emulated engine says when no script does: deterministic, and plausible in its length.

A text of n tokens has exactly 4 n bytes, so that token counts and prefix blocks of whoever counts
bytes agree with the engine's.
"""

import math
import random
import re
from collections.abc import Sequence
from hashlib import blake2b
from zlib import crc32

from scepsy.model.prompt import TOKEN_BYTES

_TEXT = (
    "the of and with from that this there which where when what into over under about after "
    "value result system number point part step case form order group state level model term "
    "process measure change effect reason method problem question answer example function "
    "takes gives shows means needs holds makes keeps finds follows depends remains becomes "
    "small large simple common different possible certain general early late open clear "
    "then also only more less most again often still rather between against through without"
)
_BABBLE = " ".join(random.Random(0).choices(_TEXT.split(), k=4096))
"""Answers are pieces of this: to draw each word anew would cost more than all else of a call."""
_MEDIAN_TOKENS, _SIGMA = 180.0, 0.8
"""Assumed: chat answers are about log-normal in length, a few hundred tokens long."""
DIMENSIONS = 256


def chance(*parts: bytes) -> random.Random:
    """A generator of chance that depends on nothing but the parts."""
    digest = blake2b(digest_size=8)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return random.Random(int.from_bytes(digest.digest(), "big"))


def output_length(rng: random.Random) -> int:
    """Tokens of an answer that ends by itself."""
    return max(1, round(rng.lognormvariate(math.log(_MEDIAN_TOKENS), _SIGMA)))


def babble(tokens: int, rng: random.Random) -> str:
    """Words that mean nothing, in exactly so many tokens."""
    size = tokens * TOKEN_BYTES - 1
    start = _BABBLE.find(" ", rng.randrange(len(_BABBLE) // 2)) + 1
    piece = _BABBLE[start : start + size]
    while len(piece) < size:
        piece += " " + _BABBLE[: size - len(piece) - 1]
    return piece[0].upper() + piece[1:] + "."


def embed(text: str, dimensions: int = DIMENSIONS) -> tuple[float, ...]:
    """A vector of length 1 by feature hashing: texts that share words are close."""
    vector = [0.01] * dimensions
    for word in _content_words(text):
        vector[crc32(word.encode()) % dimensions] += 1.0
    length = math.sqrt(math.fsum(value * value for value in vector))
    return tuple(round(value / length, 6) for value in vector)


def relevances(query: str, documents: Sequence[str]) -> tuple[float, ...]:
    """For each document, the part of the query's words that it has, in [0, 1]."""
    asked = set(_content_words(query))
    return tuple(
        round(len(asked.intersection(_content_words(text))) / max(1, len(asked)), 4)
        for text in documents
    )


def _content_words(text: str) -> list[str]:
    return re.findall(r"\w{3,}", text.lower())
