"""Host memory that engines offload KV to, as options say it."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from scepsy.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from scepsy.model.workflow import LlmName

MOST_GIB = 65_536
"""More than any host has; who says more has said bytes."""

HostGib = Annotated[
    list[str] | None,
    typer.Option(
        help="Host memory (GiB) that each replica of an LLM offloads KV to, over all its GPUs. "
        "Repeatable.",
        metavar="LLM=GIB",
    ),
]


def parse_host_gib(
    texts: Sequence[str] | None, llms: "Collection[LlmName]"
) -> "dict[LlmName, float]":
    """Read ``<llm>=<GiB>`` items.

    Args:
        texts: the items.
        llms: those there are.

    Returns:
        Bytes for each replica of an LLM.

    Raises:
        InputError: an item of another form, or that no host has so much.
        UnknownNameError: there is no such LLM.
    """
    known = {str(llm): llm for llm in llms}
    found = {}
    for text in texts or ():
        llm, _, number = text.rpartition("=")
        if not llm:
            raise InputError(
                f"`--host-gib {text}` does not say how much host memory an LLM's replicas have",
                hint="write it like `--host-gib qwen3-32b=256`",
            )
        if llm not in known:
            raise UnknownNameError("LLM", llm, known)
        found[known[llm]] = parse_gib(f"--host-gib {text}", number)
    return found


def parse_gib(said: str, number: str) -> float:
    """Bytes of some GiB.

    Args:
        said: how the user has said it.
        number: what is to be read.

    Raises:
        InputError: it is no number of GiB above 0, or more than any host has.
    """
    from scepsy.units import GIB

    try:
        gib = float(number)
    except ValueError:
        gib = 0.0
    if not 0 < gib <= MOST_GIB:
        raise InputError(
            f"`{said}`: `{number}` is not host memory of a replica in GiB",
            hint=f"give a number above 0 and not above {MOST_GIB:,}",
        )
    return gib * GIB
