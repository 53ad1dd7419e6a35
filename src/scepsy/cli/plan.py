"""``scepsy plan``: which LLM gets how much of which GPU, and what to expect of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scepsy.cli.output import JsonOption, progress, say
from scepsy.errors import InputError

if TYPE_CHECKING:
    from scepsy.model.plan import Plan, WorkflowRate, WorkflowWeight
    from scepsy.traces.demand import WorkflowDemand
    from scepsy.traces.store import SqliteTraceStore

RateOption = Annotated[
    list[str],
    typer.Option(
        help="Executions per second, as `workflow=4`; just `4` if only one was recorded. "
        "Repeat for each workflow to plan for."
    ),
]
SloOption = Annotated[
    str | None,
    typer.Option(help="Bound on execution latency (mean, p50, p95, p99): `p95 <= 30s`."),
]
WeightOption = Annotated[
    list[str] | None,
    typer.Option(help="How much a second of a workflow's latency counts: `workflow=2`."),
]


def plan(
    *,
    traces: Annotated[Path, typer.Option(help="Trace store with the workflows' executions.")],
    profiles: Annotated[Path, typer.Option(help="Profiles of the workflows' stages.")],
    cluster: Annotated[Path, typer.Option(help="Cluster file: what GPUs there are.")],
    rate: RateOption,
    slo: SloOption = None,
    weight: WeightOption = None,
    output: Annotated[Path | None, typer.Option(help="Write the plan to this file.")] = None,
    gpu_shares: Annotated[
        int, typer.Option(min=1, help="A GPU is divided into so many shares; 1: whole GPUs only.")
    ] = 10,
    predictor: Annotated[
        str,
        typer.Option(
            help="Whose figures the plan carries: `pipeline`, which the search also optimises, or "
            "`critical-path`, which re-times the recorded executions on the plan found."
        ),
    ] = "pipeline",
    as_json: JsonOption = False,
) -> None:
    """Plan replicas, tensor parallelism and GPU fractions for workflows at their rates.

    Finds the allocation with the least mean execution latency that sustains the rates on the
    cluster and meets the SLO, places it, and prints it with what is predicted. Where there is
    none it says why, and what would do, and exits with 1.

    Example: `scepsy plan --traces traces.db --profiles profiles.json --cluster cluster.yaml
    --rate rag=2 --rate beam-search=0.5 --slo "p95 <= 30s" --output plan.json`
    """
    from scepsy.cli.plan_view import print_plan
    from scepsy.files.cluster_file import load_cluster
    from scepsy.files.plan_file import dump_plan, save_plan
    from scepsy.model.slo import parse_slo
    from scepsy.predict.predictor import predicted_by
    from scepsy.profiles.catalog import find_gpu_type
    from scepsy.profiles.store import load_profiles
    from scepsy.search.plan import make_plan
    from scepsy.search.problem import PlanRequest
    from scepsy.traces.store import SqliteTraceStore

    bound = None if slo is None else parse_slo(slo)
    hardware = load_cluster(cluster, find_gpu_type)
    curves = load_profiles(profiles)
    with SqliteTraceStore.open(traces, create=False) as store, progress("reading traces"):
        rates = parse_rates(rate, store)
        demands = _demands(rates, store)
    made = make_plan(
        PlanRequest(
            demands=demands,
            profiles=curves,
            cluster=hardware,
            rates=rates,
            slo=bound,
            weights=_parse_weights(weight or []),
            units_per_gpu=gpu_shares,
        )
    )
    made = predicted_by(predictor, made, demands, curves)
    _warn_if_missed(made)
    if as_json:
        typer.echo(dump_plan(made).decode(), nl=False)
    else:
        print_plan(made)
    if output is not None:
        save_plan(output, made)
        say(f"wrote {output}")


def _warn_if_missed(made: "Plan") -> None:
    """Say so where the figures of another predictor than the search's miss the SLO."""
    from scepsy.search.problem import slo_value_s
    from scepsy.units import format_duration

    if (
        made.slo is not None
        and (value_s := slo_value_s(made.prediction, made.slo)) > made.slo.bound_s
    ):
        say(
            f"warning: by {made.prediction.predictor} the plan misses the SLO {made.slo}: "
            f"{made.slo.statistic} is {format_duration(value_s)}"
        )


def parse_rates(texts: Sequence[str], store: "SqliteTraceStore") -> tuple["WorkflowRate", ...]:
    """Read ``workflow=4``, or ``4`` where the store holds one workflow.

    Raises:
        InputError: no number, a workflow twice, or a bare number for several workflows.
        MissingError: a bare number for an empty store.
    """
    from scepsy.model.plan import WorkflowRate
    from scepsy.model.workflow import WorkflowName

    rates = []
    for text in texts:
        name, _, number = text.rpartition("=")
        if not name:
            recorded = [summary.workflow for summary in store.select()]
            if len(recorded) > 1:
                raise InputError(
                    f"`--rate {text}` does not say of which workflow: {', '.join(recorded)}",
                    hint=f"write it like `--rate {recorded[0]}={number}`",
                )
            name = recorded[0]
        rates.append(WorkflowRate(WorkflowName(name), _number("rate", text, number)))
    return tuple(rates)


def _parse_weights(texts: Sequence[str]) -> tuple["WorkflowWeight", ...]:
    from scepsy.model.plan import WorkflowWeight
    from scepsy.model.workflow import WorkflowName

    weights = []
    for text in texts:
        name, _, number = text.rpartition("=")
        if not name:
            raise InputError(
                f"`--weight {text}` does not say of which workflow",
                hint=f"write it like `--weight rag={number}`",
            )
        weights.append(WorkflowWeight(WorkflowName(name), _number("weight", text, number)))
    return tuple(weights)


def _number(option: str, text: str, number: str) -> float:
    try:
        return float(number)
    except ValueError:
        raise InputError(
            f"`--{option} {text}`: `{number}` is not a number",
            hint=f"write it like `--{option} rag=2`",
        ) from None


def _demands(
    rates: Sequence["WorkflowRate"], store: "SqliteTraceStore"
) -> tuple["WorkflowDemand", ...]:
    """The demand of the workflows that have a rate; others in the store play no part."""
    from scepsy.traces.demand import demands

    names = dict.fromkeys(rate.workflow for rate in rates)
    return tuple(one for name in names for one in demands(store, name))
