"""The published measurements themselves: read whole, and groups of them predicted unseen."""

import os
from pathlib import Path

import numpy as np
import pytest

from scepsy.profiles.silicon_fit.fit import Predicted, fit
from scepsy.profiles.silicon_fit.published import distinct, load_published

DATA = Path(os.environ.get("SCEPSY_DATA", Path(__file__).parents[3] / "shared" / "data"))
PUBLISHED = DATA / "silicon" / "agg.csv.gz"
pytestmark = pytest.mark.skipif(
    not PUBLISHED.exists(), reason=f"no {PUBLISHED}; set SCEPSY_DATA to the folder of public data"
)


def test_every_published_row_is_read() -> None:
    rows = load_published(PUBLISHED)

    assert len(rows) == 3130
    assert len(distinct(rows)) == 2462
    assert len({m.configuration.group for m in rows}) == 76
    assert max(m.configuration.gpus for m in rows if m.configuration.gpu_type != "gb200") == 8


@pytest.mark.slow
def test_groups_left_out_are_predicted() -> None:
    left_out = {
        ("llama-3.1-70b", "b200", 2),
        ("gpt-oss-120b", "h200", 4),
        ("minimax-m2.5", "b300", 4),
    }
    rows = distinct(load_published(PUBLISHED))
    model = fit([m for m in rows if m.configuration.group not in left_out])

    errors = []
    for one in rows:
        if one.configuration.group in left_out:
            answer = model.predict(one.configuration)
            assert isinstance(answer, Predicted)
            errors.append(
                (
                    abs(answer.tpot_s.value / one.tpot_s - 1),
                    abs(answer.ttft_s.value / one.ttft_s - 1),
                    abs(answer.calls_per_s.value / one.calls_per_s - 1),
                )
            )
    tpot, ttft, throughput = np.median(errors, axis=0)
    assert tpot <= 0.08
    assert ttft <= 0.20
    assert throughput <= 0.10
