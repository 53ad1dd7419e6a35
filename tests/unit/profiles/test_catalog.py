import pytest

from scepsy.errors import InputError, UnknownNameError
from scepsy.model.provenance import Provenance
from scepsy.model.workflow import LlmName
from scepsy.profiles.catalog import GPU_TYPES, LLMS, LlmKind, LlmSpec, find_gpu_type, find_llm
from scepsy.units import GIB


@pytest.mark.parametrize("name", ["qwen3-32b", "Qwen3-32B", "Qwen/Qwen3-32B", "qwen/qwen3-32b"])
def test_an_llm_is_found_by_its_short_and_its_hub_name(name: str) -> None:
    assert find_llm(name).name == "qwen3-32b"


def test_an_instruction_tuned_llama_is_the_llama_it_was_tuned_from() -> None:
    assert find_llm("meta-llama/Llama-3.1-8B-Instruct") is find_llm("llama-3.1-8b")


def test_an_unknown_llm_is_answered_with_what_comes_close() -> None:
    with pytest.raises(UnknownNameError, match="unknown LLM `qwen3-23b`") as raised:
        find_llm("qwen3-23b")
    assert "qwen3-32b" in (raised.value.hint or "")


@pytest.mark.parametrize("name", ["h100", "H100", "h100_sxm", "h100-sxm", "H100-SXM"])
def test_a_gpu_type_is_found_by_its_aliases(name: str) -> None:
    assert find_gpu_type(name) is GPU_TYPES[find_gpu_type("h100").name]


def test_an_unknown_gpu_type_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown GPU type `h1000`"):
        find_gpu_type("h1000")


def test_names_are_unique() -> None:
    names = [name.casefold() for m in LLMS for name in (m.name, m.hf_name, *m.aliases)]
    assert len(names) == len(set(names))


def test_kv_of_a_token_counts_keys_and_values_over_all_layers() -> None:
    """Figures that the models' makers and users state."""
    assert find_llm("llama-3.1-8b").kv_bytes_per_token == 131_072
    assert find_llm("llama-3.1-70b").kv_bytes_per_token == 327_680


def test_kv_is_copied_where_there_are_more_gpus_than_kv_heads() -> None:
    llm = find_llm("qwen3-30b-a3b")
    assert llm.kv_heads == 4
    assert llm.replica_kv_bytes_per_token(4) == llm.kv_bytes_per_token
    assert llm.replica_kv_bytes_per_token(8) == 2 * llm.kv_bytes_per_token


@pytest.mark.parametrize(
    ("name", "hidden", "intermediate", "heads", "vocabulary", "tied", "qk_norm"),
    [
        ("qwen3-0.6b", 1024, 3072, 16, 151_936, True, True),
        ("qwen3-1.7b", 2048, 6144, 16, 151_936, True, True),
        ("qwen3-8b", 4096, 12_288, 32, 151_936, False, True),
        ("qwen3-32b", 5120, 25_600, 64, 151_936, False, True),
        ("llama-3.1-8b", 4096, 14_336, 32, 128_256, False, False),
        ("llama-3.1-70b", 8192, 28_672, 64, 128_256, False, False),
    ],
)
def test_weights_follow_from_the_architecture(
    name: str,
    hidden: int,
    intermediate: int,
    heads: int,
    vocabulary: int,
    tied: bool,
    qk_norm: bool,
) -> None:
    """Two bytes for each parameter of a dense decoder with gated MLP and grouped queries."""
    llm = find_llm(name)
    attention = 2 * hidden * (heads + llm.kv_heads) * llm.head_dim
    norms = 2 * hidden + (2 * llm.head_dim if qk_norm else 0)
    layer = attention + 3 * hidden * intermediate + norms
    embeddings = vocabulary * hidden * (1 if tied else 2)
    assert llm.weight_bytes == 2 * (llm.layers * layer + embeddings + hidden)


def test_an_llm_with_another_ones_step_table_is_assumed() -> None:
    embedder = find_llm("qwen3-embedding-0.6b")
    assert embedder.kind is LlmKind.EMBED
    assert embedder.table == find_llm("qwen3-0.6b").hf_name
    assert embedder.provenance is Provenance.ASSUMED
    assert find_llm("qwen3-0.6b").provenance is Provenance.SIMULATED


def test_a_spec_without_weights_is_refused() -> None:
    with pytest.raises(InputError, match="must be >= 1"):
        LlmSpec(
            name=LlmName("x"),
            hf_name="x/x",
            weight_bytes=0,
            layers=1,
            kv_heads=1,
            head_dim=1,
            table="x/x",
        )


def test_memory_is_that_of_the_data_sheets() -> None:
    assert GPU_TYPES[find_gpu_type("h100").name].memory_bytes == 80 * GIB
    assert GPU_TYPES[find_gpu_type("h200").name].memory_bytes == 141 * GIB
