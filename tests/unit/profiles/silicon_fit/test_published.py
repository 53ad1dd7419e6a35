"""Published rows become configurations: parallelism, precision and concurrency as they were run."""

import gzip
from pathlib import Path

import pytest

from scepsy.errors import InputError, MissingError
from scepsy.profiles.silicon_fit.configuration import Precision
from scepsy.profiles.silicon_fit.published import distinct, halves, load_published, parse_row

ROW = {
    "id": "a",
    "silicon_data_source": "x; silicon_concurrency=64; measured=2026",
    "backend": "vllm",
    "backend_version": "0.19.0",
    "model_path": "MiniMaxAI/MiniMax-M2.5",
    "system": "b200_sxm",
    "precision": "fp8",
    "mode": "agg",
    "isl": "8192",
    "osl": "1024",
    "gemm_quant_mode": "fp8",
    "moe_quant_mode": "fp8",
    "batch_size": "64",
    "tp_size": "4",
    "attention_dp_size": "1",
    "moe_tp_size": "4",
    "moe_ep_size": "1",
    "silicon_ttft_ms": "250.0",
    "silicon_tpot_ms": "20.0",
}


def test_a_row_becomes_a_measurement_in_seconds() -> None:
    one = parse_row(ROW)

    assert one.configuration.llm == "minimax-m2.5"
    assert one.configuration.group == ("minimax-m2.5", "b200", 4)
    assert one.configuration.precision is Precision.FP8
    assert (one.ttft_s, one.tpot_s) == (0.25, 0.02)
    assert one.calls_per_s == pytest.approx(64 / (0.25 + 1023 * 0.02))


@pytest.mark.parametrize(
    ("degrees", "gpus", "copies", "expert_parallel"),
    [
        (("8", "1", "8", "1"), 8, 1, 1),
        (("8", "1", "1", "8"), 8, 1, 8),
        (("64", "1", "8", "8"), 8, 1, 8),  # TP 8, experts over 8 GPUs, published as a product
        (("16", "1", "4", "4"), 4, 1, 4),
        (("4", "1", "2", "2"), 2, 1, 2),
        (("4", "", "2", "2"), 4, 1, 2),  # another publisher, who means what the columns say
        (("1", "8", "1", "8"), 8, 8, 8),
        (("1", "64", "8", "8"), 8, 8, 8),
        (("4", "4", "1", "16"), 4, 4, 4),
        (("2", "", "0", "0"), 2, 1, 1),
        (("1", "", "2", "1"), 2, 2, 1),
    ],
)
def test_parallelism_is_what_was_run(
    degrees: tuple[str, str, str, str], gpus: int, copies: int, expert_parallel: int
) -> None:
    columns = ("tp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size")
    configuration = parse_row({**ROW, **dict(zip(columns, degrees, strict=True))}).configuration

    assert configuration.gpus == gpus
    assert configuration.attention_copies == copies
    assert configuration.expert_parallel == expert_parallel


def test_concurrency_without_a_note_is_the_batch_of_every_copy_of_attention() -> None:
    row = {**ROW, "silicon_data_source": "", "tp_size": "1", "batch_size": "16"}
    row |= {"attention_dp_size": "8", "moe_tp_size": "1", "moe_ep_size": "8"}

    assert parse_row(row).configuration.concurrency == 128


def test_precision_falls_back_to_that_of_the_matrices() -> None:
    unnamed = {**ROW, "precision": ""}

    assert parse_row(unnamed).configuration.precision is Precision.FP8
    assert parse_row({**unnamed, "gemm_quant_mode": ""}).configuration.precision is Precision.BF16
    oss = parse_row({**ROW, "model_path": "openai/gpt-oss-120b"}).configuration
    assert oss.precision is Precision.FP4


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("isl", "many"),
        ("model_path", "someone/unknown"),
        ("silicon_ttft_ms", "0"),
        ("precision", "fp3"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(column: str, value: str) -> None:
    with pytest.raises(InputError, match="measurement a"):
        parse_row({**ROW, column: value})


def test_a_file_is_read_plain_or_gzipped_without_disaggregated_rows(tmp_path: Path) -> None:
    lines = [",".join(ROW)]
    for name, mode in (("a", "agg"), ("b", "disagg")):
        lines.append(",".join({**ROW, "id": name, "mode": mode}.values()))
    plain, zipped = tmp_path / "rows.csv", tmp_path / "rows.csv.gz"
    plain.write_text("\n".join(lines))
    zipped.write_bytes(gzip.compress(plain.read_bytes()))

    assert [m.row_id for m in load_published(plain)] == ["a"]
    assert load_published(zipped) == load_published(plain)


def test_a_file_that_is_not_there_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(MissingError) as raised:
        load_published(tmp_path / "none.csv")
    assert raised.value.hint is not None
    assert "aiconfigurator" in raised.value.hint


def test_twice_published_counts_once() -> None:
    one = parse_row(ROW)
    again = parse_row({**ROW, "id": "again"})
    other = parse_row({**ROW, "id": "other", "silicon_tpot_ms": "21.0"})

    assert distinct([one, again, other]) == (one, other)


def test_deepseek_under_two_names_is_one_measurement() -> None:
    names = ("deepseek-ai/DeepSeek-R1", "deepseek-ai/DeepSeek-V3")

    assert len(distinct(parse_row({**ROW, "model_path": name}) for name in names)) == 1


def test_halves_are_of_whole_groups_and_repeat() -> None:
    rows = [
        parse_row({**ROW, "tp_size": degree, "moe_tp_size": degree, "isl": tokens})
        for degree in ("1", "2", "4", "8")
        for tokens in ("512", "1024")
    ]
    first, second = halves(rows, seed=0)

    groups = [{m.configuration.group for m in half} for half in (first, second)]
    assert not groups[0] & groups[1]
    assert len(first) == len(second) == 4
    assert halves(rows, seed=0) == (first, second)
