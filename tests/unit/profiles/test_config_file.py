"""LLMs given by the ``config.json`` of their checkpoint."""

import json
from pathlib import Path

import pytest

from scepsy.errors import InputError, MissingError
from scepsy.profiles.catalog import find_llm

QWEN3_8B = {
    "hidden_size": 4096,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151_936,
    "intermediate_size": 12_288,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
QWEN3_30B_A3B = {
    **QWEN3_8B,
    "hidden_size": 2048,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "intermediate_size": 6144,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
}


def write(folder: Path, content: object) -> str:
    path = folder / "config.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("content", "name"), [(QWEN3_8B, "qwen3-8b"), (QWEN3_30B_A3B, "qwen3-30b-a3b")]
)
def test_a_file_gives_what_the_catalog_knows_of_the_same_llm(
    tmp_path: Path, content: dict[str, object], name: str
) -> None:
    read, known = find_llm(write(tmp_path, content)), find_llm(name)
    assert read.weight_bytes == pytest.approx(known.weight_bytes, rel=0.001)
    assert read.kv_bytes_per_token == known.kv_bytes_per_token


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_size": 0}, "hidden_size"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"kv_lora_rank": 512}, "latent attention"),
        ({"quantization_config": {"bits": 4}}, "quantized weights"),
        ({"torch_dtype": "float32"}, "weights in float32"),
    ],
)
def test_what_is_not_understood_is_refused(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        find_llm(write(tmp_path, {**QWEN3_8B, **change}))


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="cannot read"):
        find_llm(str(tmp_path / "config.json"))


def test_a_file_that_is_no_object_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not describe a decoder"):
        find_llm(write(tmp_path, [1, 2]))
