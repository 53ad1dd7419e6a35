"""The options of ``scepsy simulate``."""

from pathlib import Path
from typing import Annotated

import typer

PlanPath = Annotated[Path, typer.Argument(help="The plan, as `scepsy plan --output` wrote it.")]
Traces = Annotated[Path, typer.Option(help="Trace store with the workflows' executions.")]
Rates = Annotated[
    list[str] | None,
    typer.Option(
        help="What if at another rate: `2x` the plan's rates, or `workflow=3` per second."
    ),
]
Without = Annotated[list[str] | None, typer.Option(help="What if without this node. Repeatable.")]
Losses = Annotated[
    list[str] | None,
    typer.Option(
        help="What if this node dies: `node-1@60` after 60 s, `node-1@60:180` until 180 s, "
        "counted from the first arrival, warm-up included. Repeatable."
    ),
]
Policy = Annotated[
    str | None,
    typer.Option(
        help="What if the gateway had this policy: a router's, or `programs`. Default: the plan's."
    ),
]
Patience = Annotated[
    float | None,
    typer.Option(
        help="What if the policy `programs` had this patience: low favours the slowest calls, high "
        "the number of calls a second. Default: the gateway's."
    ),
]
HostGib = Annotated[
    list[str] | None,
    typer.Option(
        help="What if each replica of an LLM offloaded KV to so much host memory (GiB). "
        "Repeatable.",
        metavar="LLM=GIB",
    ),
]
Order = Annotated[
    str, typer.Option(help="Which waiting call is first: `first-come`, `oldest-execution`.")
]
ArrivalsText = Annotated[
    str,
    typer.Option(
        help="`poisson`; `bursty=3`, gaps that vary three times as much; `closed=8`, so many "
        "users of each workflow who wait for their last; `recorded`, as it was, or `recorded=2`"
        " times as fast."
    ),
]
Executions = Annotated[int, typer.Option(min=2, help="Executions that are counted.")]
Seed = Annotated[int, typer.Option(help="Of arrivals: equal seeds, equal results.")]
SloText = Annotated[
    str | None, typer.Option(help="Bound to count attainment by. Default: the plan's.")
]
Output = Annotated[
    Path | None,
    typer.Option(help="Folder for calls and executions (Parquet), timeline and plot."),
]
