"""Choices that cost the same are many where LLMs are alike; they must not be begun all at once."""

from itertools import islice
from typing import Any

import numpy as np
import pytest

from scepsy.model.cluster import GpuTypeName
from scepsy.model.workflow import LlmName
from scepsy.search import exact
from scepsy.search.exact import choices
from scepsy.search.frontier import Options

ALIKE = 60


def an_llm(number: int, costs_s: list[float]) -> Options:
    """An LLM with one option for each number of units from 1 on."""
    ones = np.ones(len(costs_s), dtype=np.int32)
    units = np.arange(1, len(costs_s) + 1, dtype=np.int32)
    return Options(
        llm=LlmName(f"llm-{number:02}"),
        gpu_types=(GpuTypeName("gpu"),),
        units_per_gpu=1,
        room=0 * ones,
        tensor_parallel=ones,
        fraction_units=ones,
        replicas=units,
        units=units,
        cost_s=np.array(costs_s),
        parts_s=np.zeros((0, len(costs_s))),
    )


@pytest.mark.parametrize("least_s", [1.0, 0.1, 1 / 3, 1e-6, 12345.678])
def test_ties_take_work_in_proportion_to_the_choices(
    least_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which half of the LLMs get a second GPU is all the same; a few of the many ways are taken.

    Their costs add up in other orders, so many differ in the last digit.
    """
    branches = 0
    real = exact._Walk._branch

    def counted(walk: exact._Walk, *given: Any) -> exact._Branch:
        nonlocal branches
        branches += 1
        assert branches < 10_000, "ties are begun one after the other, and none is ended"
        return real(walk, *given)

    monkeypatch.setattr(exact._Walk, "_branch", counted)
    llms = [
        an_llm(n, [least_s * (1 + n * 0.137 % 1) + least_s / 3, least_s * (1 + n * 0.137 % 1)])
        for n in range(ALIKE)
    ]

    found = list(islice(choices(llms, [ALIKE + ALIKE // 2]), 50))

    assert len({one.options for one in found}) == 50
    assert [one.cost_s for one in found] == pytest.approx([found[0].cost_s] * 50, rel=1e-9)
    assert branches <= ALIKE * len(found)
