"""Reading operator profiles, good and bad."""

from pathlib import Path

import pytest

from scepsy.errors import InputError, MissingError
from scepsy.profiles import operator_profile
from scepsy.profiles.operator_profile import load_operator_profile
from tests.unit.profiles.made_up_operators import LLM, attention_us, write_profile


@pytest.mark.parametrize("packed", [True, False])
def test_a_profile_is_read_whole(tmp_path: Path, packed: bool) -> None:
    folder = write_profile(tmp_path, with_experts=True, packed=packed)

    one, two = (load_operator_profile(folder, degree) for degree in (1, 2))

    assert (one.gpu_type, one.llm, one.engine) == ("RTX4090", LLM, "vllm 0.19.0")
    assert dict(one.dense["o_proj"])[1024] == pytest.approx(102.4e-6)
    assert dict(one.per_sequence["sampler"])[64] == pytest.approx(114e-6)
    assert sorted(one.moe) == sorted(two.moe) == [8, 64, 128]  # profiled at degree 1 alone
    assert one.attention.at(256, 0, 16, 256) == pytest.approx(attention_us(256, 0, 16, 256) / 1e6)
    assert (one.skew, two.skew) == (0.05, None)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    folder = write_profile(tmp_path)

    with pytest.raises(MissingError, match="tensor parallel 4") as caught:
        load_operator_profile(folder, 4)
    assert caught.value.hint == "profiled degrees: 1, 2"

    (folder / "tp1" / "dense.csv").unlink()
    with pytest.raises(MissingError, match=r"no dense\.csv"):
        load_operator_profile(folder, 1)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("tp1/dense.csv", "layer,tokens,time_us\no_proj,1,fast", "line 2: not a number"),
        ("tp1/dense.csv", "layer,tokens,time_us\no_proj,1,-2", "line 2: a value is not in"),
        ("tp1/dense.csv", "layer,tokens,time_us\no_proj,1,nan", "line 2: a value is not in"),
        ("tp1/dense.csv", "layer,tokens,time_us\no_proj,1", "line 2: not a number"),
        ("tp1/dense.csv", "layer,tokens,time_us\no_proj,1,2", "fewer than two rows"),
        ("tp1/dense.csv", "layer,tokens\no_proj,1", "no column time_us"),
        ("tp1/attention.csv.gz", "not packed", "cannot read"),
        ("meta.yaml", "- a list", "not a mapping"),
        ("meta.yaml", "{", "not YAML"),
    ],
)
def test_bad_files_are_answered_with_file_and_line(
    tmp_path: Path, name: str, content: str, says: str
) -> None:
    folder = write_profile(tmp_path)
    (folder / name).write_text(content)

    with pytest.raises(InputError, match=says) as caught:
        load_operator_profile(folder, 1)
    assert str(folder / name) in str(caught.value)


def test_attention_needs_prompts_and_decodes(tmp_path: Path) -> None:
    folder = write_profile(tmp_path, packed=False)
    header = "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us"
    (folder / "tp1" / "attention.csv").write_text(f"{header}\n16,0,0,0,5\n64,0,0,0,9")

    with pytest.raises(InputError, match="with and without decodes"):
        load_operator_profile(folder, 1)


def test_a_file_that_is_too_large_is_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_profile(tmp_path)
    monkeypatch.setattr(operator_profile, "MAX_BYTES", 1000)

    with pytest.raises(InputError, match="more than 1000 bytes"):
        load_operator_profile(folder, 1)
