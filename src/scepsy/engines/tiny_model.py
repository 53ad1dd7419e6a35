"""A tiny random Llama, made on the spot: a real model file for tests that must not download one.

It answers nonsense, at thousands of tokens a second, through all the code that a real model takes:
tokenizer, chat template, KV cache, sampling. Needs the extra ``real`` (for the GGUF format).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scepsy.errors import InputError, MissingError

_HEAD_WIDTH = 32
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_NORMAL_TOKEN, _CONTROL_TOKEN = 1, 3
"""Token types of the GGUF format."""
_MERGES = ("t h", "th e", "i n", "a n", "an d", "e r", "r e", "o n", "o f", "t o")
"""Enough of a vocabulary for the tokenizer to have something to merge."""
_CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyModel:
    """Shape of a random Llama. More width and layers make it slower."""

    width: int = 64
    layers: int = 2
    context_tokens: int = 8192
    seed: int = 0

    def __post_init__(self) -> None:
        if self.width < 2 * _HEAD_WIDTH or self.width % (2 * _HEAD_WIDTH):
            raise InputError(f"width {self.width} is not a multiple of {2 * _HEAD_WIDTH}")
        if self.layers < 1 or self.context_tokens < 1:
            raise InputError("a model needs at least 1 layer and 1 token of context")


def write_tiny_model(path: Path, model: TinyModel | None = None) -> Path:
    """Write the model as a GGUF file; the same shape and seed give the same bytes.

    Raises:
        MissingError: the extra ``real`` is not installed.
    """
    try:
        import gguf  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise MissingError(
            "making a model file needs the extra `real`", hint="pip install 'scepsy[real]'"
        ) from error
    shape = model or TinyModel()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny-random")
    writer.add_context_length(shape.context_tokens)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(3 * shape.width)
    writer.add_head_count(shape.width // _HEAD_WIDTH)
    writer.add_head_count_kv(2)
    writer.add_key_length(_HEAD_WIDTH)
    writer.add_value_length(_HEAD_WIDTH)
    writer.add_rope_dimension_count(_HEAD_WIDTH)
    writer.add_layer_norm_rms_eps(1e-6)
    _add_tokenizer(writer)
    for name, weights in _tensors(shape):
        writer.add_tensor(name, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tokens() -> list[str]:
    """Special tokens, all bytes, and the merged pairs."""
    return [*_SPECIAL, *_byte_characters(), *(merge.replace(" ", "") for merge in _MERGES)]


def _byte_characters() -> list[str]:
    """GPT-2's alphabet: one printable character for each byte, its own where it has one."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(spare)) for byte in range(256)]


def _add_tokenizer(writer: object) -> None:
    import gguf  # noqa: PLC0415 - an optional extra

    assert isinstance(writer, gguf.GGUFWriter)
    tokens = _tokens()
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    special = [_CONTROL_TOKEN] * len(_SPECIAL)
    writer.add_token_types(special + [_NORMAL_TOKEN] * (len(tokens) - len(special)))
    writer.add_token_merges(list(_MERGES))
    writer.add_bos_token_id(_SPECIAL.index("<|endoftext|>"))
    writer.add_eos_token_id(_SPECIAL.index("<|im_end|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(_CHAT_TEMPLATE)


def _tensors(shape: TinyModel) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Names and weights: (out, in) matrices in float16, norms of ones in float32."""
    rng = np.random.default_rng(shape.seed)
    width, hidden, kv_width = shape.width, 3 * shape.width, 2 * _HEAD_WIDTH

    def matrix(rows: int, columns: int) -> NDArray[np.generic]:
        return (0.05 * rng.standard_normal((rows, columns))).astype(np.float16)

    norm = np.ones(width, np.float32)
    yield "token_embd.weight", matrix(len(_tokens()), width)
    yield "output_norm.weight", norm
    for layer in range(shape.layers):
        block = f"blk.{layer}"
        yield f"{block}.attn_norm.weight", norm
        yield f"{block}.attn_q.weight", matrix(width, width)
        yield f"{block}.attn_k.weight", matrix(kv_width, width)
        yield f"{block}.attn_v.weight", matrix(kv_width, width)
        yield f"{block}.attn_output.weight", matrix(width, width)
        yield f"{block}.ffn_norm.weight", norm
        yield f"{block}.ffn_gate.weight", matrix(hidden, width)
        yield f"{block}.ffn_up.weight", matrix(hidden, width)
        yield f"{block}.ffn_down.weight", matrix(width, hidden)
