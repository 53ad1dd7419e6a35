import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scepsy.engines.text import babble, chance, embed, output_length, relevances
from scepsy.model.prompt import count_tokens


@given(st.integers(1, 20_000), st.integers(0, 2**63))
def test_a_text_has_exactly_the_tokens_asked_for(tokens: int, seed: int) -> None:
    text = babble(tokens, random.Random(seed))
    assert len(text.encode()) == 4 * tokens
    assert count_tokens(text) == tokens
    assert "  " not in text


def test_chance_depends_on_all_parts_and_where_they_end() -> None:
    draws = {chance(*parts).random() for parts in ((b"ab", b"c"), (b"a", b"bc"), (b"ab", b"d"))}
    assert len(draws) == 3
    assert chance(b"ab", b"c").random() in draws


def test_lengths_are_spread_around_a_plausible_median() -> None:
    rng = random.Random(1)
    lengths = [output_length(rng) for _ in range(2000)]
    assert 150 < statistics.median(lengths) < 220
    assert min(lengths) >= 1
    assert max(lengths) > 1000


def test_texts_that_share_words_are_close() -> None:
    question, near, far = map(
        embed,
        (
            "how do planets move around the sun",
            "planets move on ellipses around the sun",
            "bread rises because yeast makes gas",
        ),
    )
    similar = sum(a * b for a, b in zip(question, near, strict=True))
    other = sum(a * b for a, b in zip(question, far, strict=True))
    assert similar > 0.6
    assert other < 0.3
    assert math.hypot(*question) == pytest.approx(1, abs=1e-4)


def test_relevance_is_the_part_of_the_query_that_a_document_has() -> None:
    found = relevances("red green blue", ["green and red", "nothing", "blue GREEN red"])
    assert found == (pytest.approx(0.6667), 0.0, 1.0)
