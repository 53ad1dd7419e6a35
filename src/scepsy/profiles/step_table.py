"""Published step tables: milliseconds of pure prefill and pure decode steps, as shipped.

The files in ``published/`` are made by ``tools/build_step_tables.py``. Their figures are kept as
they are; ``silicon`` makes step times of them.
"""

import gzip
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from scepsy.errors import MissingError
from scepsy.model.provenance import Provenance


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTable:
    """Step times of one LLM on one GPU type at one tensor parallel degree (s)."""

    new_tokens: tuple[int, ...]
    cached_tokens: tuple[int, ...]
    prefill_s: tuple[tuple[float, ...], ...]
    """(new tokens, cached tokens): one call's prompt computed on top of a cached prefix."""
    decodes: tuple[int, ...]
    context_tokens: tuple[int, ...]
    decode_s: tuple[tuple[float, ...], ...]
    """(calls, tokens of context of each): one output token for each call."""
    provenance: Provenance
    source: str


@dataclass(frozen=True, slots=True)
class PublishedTables:
    """All step tables of one GPU type: by an LLM's Hugging Face name and TP degree."""

    source: str
    tables: dict[tuple[str, int], StepTable]

    def tensor_parallels(self, hf_name: str) -> tuple[int, ...]:
        """TP degrees that an LLM has a table for, rising; none where it is not published."""
        return tuple(sorted(degree for name, degree in self.tables if name == hf_name))


@cache
def published_tables(gpu_type: str) -> PublishedTables:
    """Load the step tables that are shipped for a GPU type.

    Raises:
        MissingError: no tables are shipped for it.
    """
    path = files(__package__).joinpath("published", f"{gpu_type}.json.gz")
    if not path.is_file():
        raise MissingError(f"no step times are published for GPU type `{gpu_type}`")
    content = json.loads(gzip.decompress(path.read_bytes()))
    tables = {
        (hf_name, int(degree)): StepTable(
            new_tokens=tuple(content["new_tokens"]),
            cached_tokens=tuple(content["cached_tokens"]),
            prefill_s=_seconds(table["prefill"]),
            decodes=tuple(content["decodes"]),
            context_tokens=tuple(content["context_tokens"]),
            decode_s=_seconds(table["decode"]),
            provenance=Provenance(content["provenance"]),
            source=content["source"],
        )
        for hf_name, degrees in content["tables"].items()
        for degree, table in degrees.items()
    }
    return PublishedTables(content["source"], tables)


def _seconds(rows_ms: list[list[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(value / 1e3 for value in row) for row in rows_ms)
