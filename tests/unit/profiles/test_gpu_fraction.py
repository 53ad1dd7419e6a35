import csv
import os
from pathlib import Path
from statistics import mean

import pytest

from scepsy.errors import InputError
from scepsy.model.provenance import Provenance
from scepsy.profiles.gpu_fraction import (
    CO_RUN_PENALTY,
    decode_slowdown,
    fraction_provenance,
    prefill_slowdown,
)

DATA = Path(os.environ.get("SCEPSY_DATA", Path(__file__).parents[4] / "shared/data"))
MEASURED = DATA / "muxserve/llama_sm_fraction.csv"


@pytest.mark.parametrize("tensor_parallel", [1, 2, 3, 4, 8, 16])
def test_a_whole_gpu_is_not_slowed_down(tensor_parallel: int) -> None:
    assert prefill_slowdown(1.0, tensor_parallel=tensor_parallel) == 1
    assert decode_slowdown(1.0, tensor_parallel=tensor_parallel, decodes=300) == 1


@pytest.mark.parametrize("gpu_fraction", [0.1, 0.3, 0.5, 0.9])
def test_prefill_suffers_more_than_a_small_decode_batch(gpu_fraction: float) -> None:
    prefill = prefill_slowdown(gpu_fraction, tensor_parallel=1)
    assert prefill > decode_slowdown(gpu_fraction, tensor_parallel=1, decodes=8) > 1


def test_a_large_decode_batch_suffers_as_prefill_does() -> None:
    small = decode_slowdown(0.3, tensor_parallel=1, decodes=64)
    middle = decode_slowdown(0.3, tensor_parallel=1, decodes=128)
    large = decode_slowdown(0.3, tensor_parallel=1, decodes=256)
    assert small < middle < large
    assert large == pytest.approx(prefill_slowdown(0.3, tensor_parallel=1))


def test_whoever_shares_a_gpu_pays_for_its_neighbours() -> None:
    """The one measured pair lost 16.5 % of throughput; a share just under 1 costs that alone."""
    assert decode_slowdown(0.999_999, tensor_parallel=1, decodes=1) == pytest.approx(
        1 / 0.835, rel=1e-4
    )


def test_a_share_of_a_gpu_is_assumed() -> None:
    assert fraction_provenance(0.5) is Provenance.ASSUMED
    assert fraction_provenance(1.0) is Provenance.MEASURED


@pytest.mark.parametrize("gpu_fraction", [0.0, -0.1, 1.1, float("nan")])
def test_a_share_outside_its_range_is_refused(gpu_fraction: float) -> None:
    with pytest.raises(InputError, match=r"not in \(0, 1\]"):
        prefill_slowdown(gpu_fraction, tensor_parallel=1)
    with pytest.raises(InputError, match=r"not in \(0, 1\]"):
        decode_slowdown(gpu_fraction, tensor_parallel=1, decodes=1)


@pytest.mark.skipif(not MEASURED.is_file(), reason="needs MuxServe's measurements (SCEPSY_DATA)")
def test_the_model_is_within_five_per_cent_of_what_was_measured_on_one_gpu() -> None:
    with MEASURED.open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["tp"] == "1"]
    rows = [r for r in rows if float(r["prefill_ms"]) > 0 and float(r["decode_ms"]) > 0]
    whole = {(r["model"], r["batch"], r["seq_len"]): r for r in rows if r["sm_pct"] == "100"}
    prefill_errors, decode_errors = [], []
    for row in rows:
        full = whole[row["model"], row["batch"], row["seq_len"]]
        share, batch = int(row["sm_pct"]) / 100, int(row["batch"])
        if share == 1:
            continue
        measured = float(row["decode_ms"]) / float(full["decode_ms"])
        model = decode_slowdown(share, tensor_parallel=1, decodes=batch) / CO_RUN_PENALTY
        decode_errors.append(abs(model / measured - 1))
        if batch * int(row["seq_len"]) >= 1024:
            measured = float(row["prefill_ms"]) / float(full["prefill_ms"])
            model = prefill_slowdown(share, tensor_parallel=1) / CO_RUN_PENALTY
            prefill_errors.append(abs(model / measured - 1))
    assert len(prefill_errors) > 300
    assert mean(prefill_errors) < 0.05
    assert mean(decode_errors) < 0.05
