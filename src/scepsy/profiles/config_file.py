"""An LLM given by its architecture: the ``config.json`` of a checkpoint on the Hugging Face hub."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from scepsy.errors import InputError, MissingError
from scepsy.profiles.silicon_fit.architecture import DENSE, Architecture, Experts, grouped


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedLlm:
    """What a file says of an LLM."""

    architecture: Architecture
    weight_bytes: int
    """In bfloat16; norms and biases, some thousandths, are left out."""
    kv_heads: int
    head_dim: int


class _Config(BaseModel):
    model_config = ConfigDict(extra="allow", protected_namespaces=())

    hidden_size: PositiveInt
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt | None = None
    head_dim: PositiveInt | None = None
    vocab_size: PositiveInt
    intermediate_size: PositiveInt
    tie_word_embeddings: bool = False
    experts: PositiveInt | None = Field(
        None, validation_alias=AliasChoices("num_experts", "num_local_experts")
    )
    num_experts_per_tok: PositiveInt | None = None
    moe_intermediate_size: PositiveInt | None = None
    torch_dtype: str = Field("bfloat16", validation_alias=AliasChoices("torch_dtype", "dtype"))


_NOT_TOLD = {
    "kv_lora_rank": "latent attention",
    "quantization_config": "quantized weights",
    "n_routed_experts": "experts beside dense layers",
    "shared_expert_intermediate_size": "shared experts",
    "linear_num_value_heads": "linear attention",
    "ssm_cfg": "state-space layers",
}
"""Keys of what is not understood, where they are set."""


def read_config(path: Path) -> DescribedLlm:
    """Read a decoder with grouped-query attention and gated MLPs, dense or all experts.

    Raises:
        MissingError: no such file.
        InputError: it is no such file, or of another kind of LLM.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise MissingError(
            f"cannot read {path}: {error.strerror}", hint="give the path of a config.json"
        ) from None
    try:
        config = _Config.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(
            f"{path} does not describe a decoder: {where}: {first['msg']}",
            hint="of an LLM with images or sound, take the part that is its text_config",
        ) from None
    for key, what in _NOT_TOLD.items():
        if (config.model_extra or {}).get(key):
            raise InputError(
                f"{path}: step times of LLMs with {what} (`{key}`) cannot be told",
                hint="measure them: scepsy profile --engine URL",
            )
    if config.torch_dtype not in {"bfloat16", "float16"}:
        raise InputError(f"{path}: weights in {config.torch_dtype}, not in 16 bit")
    return _described(path.parent.name or path.stem, config)


def _described(name: str, config: _Config) -> DescribedLlm:
    kv_heads = config.num_key_value_heads or config.num_attention_heads
    head_dim = config.head_dim or config.hidden_size // config.num_attention_heads
    experts = DENSE
    if config.experts is not None and config.experts > 1:
        experts = Experts(
            count=config.experts,
            per_token=config.num_experts_per_tok or 1,
            size=config.moe_intermediate_size or config.intermediate_size,
        )
    architecture = grouped(
        name,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocabulary=config.vocab_size,
        intermediate=config.intermediate_size,
        experts=experts,
    )
    parameters = architecture.dense_parameters + architecture.routed_parameters
    if not config.tie_word_embeddings:
        parameters += config.hidden_size * config.vocab_size
    return DescribedLlm(
        architecture=architecture,
        weight_bytes=round(2 * parameters),
        kv_heads=kv_heads,
        head_dim=head_dim,
    )
