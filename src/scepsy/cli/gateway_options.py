"""Options of ``scepsy gateway``."""

from pathlib import Path
from typing import Annotated

import typer

Replicas = Annotated[
    list[str],
    typer.Option(
        help="An LLM's server, as LLM=URL. Repeat it; an LLM may have several. With --plan: a "
        "replica's of the plan, as NAME=URL.",
        metavar="LLM=URL",
    ),
]
PlanPath = Annotated[
    Path | None,
    typer.Option(
        help="The plan that the replicas serve. Says what they run on, and which LLMs take turns: "
        "they are routed by what goes on beside each replica."
    ),
]
Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")]
Record = Annotated[
    Path | None, typer.Option(help="Trace store to record calls into; made if it is not there.")
]
RecordContent = Annotated[
    bool, typer.Option("--record-content", help="Record prompts and answers, too.")
]
Speedup = Annotated[
    float, typer.Option(help="How much faster than silicon the emulated engines run.")
]
Policy = Annotated[
    str | None,
    typer.Option(help="How a replica is picked for a call. Default: the plan's, or least-loaded."),
]
Hardware = Annotated[
    list[str] | None,
    typer.Option(
        help="What an LLM's replicas run on, GPUs of a replica behind the colon, host memory that "
        "its KV is offloaded to behind the plus; the plan's where there is one. Repeatable.",
        metavar="LLM=GPU[:N][+GIB]",
    ),
]
KvTokens = Annotated[
    list[str] | None,
    typer.Option(help="KV tokens that fit on an LLM's replica.", metavar="LLM=TOKENS"),
]
HostGib = Annotated[
    list[str] | None,
    typer.Option(
        help="Host memory (GiB) that the engine of each replica of an LLM offloads KV to, where "
        "it is neither emulated nor vLLM with `--kv-offloading-size`: those say it themselves.",
        metavar="LLM=GIB",
    ),
]
Patience = Annotated[
    float, typer.Option(help="Low favours the slowest calls, high the number of calls a second.")
]
Shares = Annotated[
    list[str] | None,
    typer.Option(help="A tenant's weight; 1 where not given.", metavar="TENANT=WEIGHT"),
]
MaxWaiting = Annotated[
    int, typer.Option(help="Calls of an LLM that may wait; a further one gets status 429.")
]
MaxWait = Annotated[
    float, typer.Option(help="How long a call may wait for a replica; then it gets 503.")
]
MaxBody = Annotated[str, typer.Option(help="Largest request body; a larger one gets status 413.")]
