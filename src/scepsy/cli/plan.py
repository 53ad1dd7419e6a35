"""``scepsy plan``: which LLM gets how much of which GPU, and what to expect of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scepsy.cli import plan_options as given
from scepsy.cli.output import JsonOption, progress

if TYPE_CHECKING:
    from scepsy.model.plan import WorkflowRate
    from scepsy.search.problem import PlanRequest
    from scepsy.traces.demand import WorkflowDemand
    from scepsy.traces.store import SqliteTraceStore

FRONTIER_POINTS = 12
"""Rates that `--frontier` looks at."""


def plan(
    *,
    traces: given.Traces,
    profiles: given.Profiles,
    cluster: given.ClusterFile,
    rate: given.Rates,
    slo: given.SloText = None,
    weight: given.Weights = None,
    goal: given.GoalName = "latency",
    objective: given.ObjectiveName = "mean",
    best: given.Best = 1,
    why: given.Why = False,
    frontier: given.Frontier = False,
    picture: given.Picture = None,
    prove: given.Prove = False,
    prove_seconds: given.ProveSeconds = 10.0,
    running: given.From = None,
    tolerance: given.Tolerance = 0.0,
    limits: given.LimitsPath = None,
    pin: given.Pins = None,
    min_replicas: given.MinReplicas = None,
    alone: given.Alone = None,
    free_gpus: given.FreeGpus = None,
    survive: given.Survive = None,
    target: given.TargetName = None,
    gpu_shares: given.GpuShares = 10,
    tool_limit: given.ToolLimits = None,
    predictor: given.PredictorName = "pipeline",
    rank_seconds: given.RankSeconds = 300.0,
    output: given.Output = None,
    as_json: JsonOption = False,
) -> None:
    """Plan replicas, tensor parallelism and GPU fractions for workflows at their rates.

    Finds the allocation of least mean latency that sustains the rates and meets the SLO, places it,
    and prints it with what is predicted. If there is none it says why, and what would do.

    Example: `scepsy plan --traces traces.db --profiles profiles.json --cluster cluster.yaml
    --rate rag=2 --rate beam-search=0.5 --slo "p95 <= 30s" --output plan.json`
    """
    from scepsy.cli.plan_work import Wanted, run
    from scepsy.search.goals import Goal

    kept = given.LimitTexts(limits, pin, min_replicas, alone, free_gpus, survive, target)
    wanted = Wanted(
        goal=given.parse_choice("goal", goal, Goal),
        best=best,
        why=why,
        points=FRONTIER_POINTS if frontier else 0,
        picture=picture,
        prove_s=prove_seconds if prove else None,
        running=running,
        tolerance=tolerance,
        predictor=predictor,
        rank_s=rank_seconds,
        output=output,
        as_json=as_json,
    )
    texts = given.RequestTexts(rate, slo, weight, objective, gpu_shares, tool_limit or ())
    run(read_request((traces, profiles, cluster), texts, kept), wanted, traces)


def read_request(
    files: tuple[Path, Path, Path], texts: given.RequestTexts, kept: given.LimitTexts
) -> "PlanRequest":
    """What to plan for, from (trace store, profiles, cluster file) and the options' texts.

    Raises:
        InputError: a text or a file cannot be read as what it must be.
        MissingError: a file is not there.
    """
    from scepsy.cli.tool_limits import limited
    from scepsy.files.cluster_file import load_cluster
    from scepsy.model.slo import parse_slo
    from scepsy.profiles.catalog import find_gpu_type
    from scepsy.profiles.store import load_profiles
    from scepsy.search.problem import Objective, PlanRequest
    from scepsy.traces.store import SqliteTraceStore

    traces, profiles, cluster = files
    slo = None if texts.slo is None else parse_slo(texts.slo)
    limits = given.parse_limits(kept)
    hardware = load_cluster(cluster, find_gpu_type)
    curves = load_profiles(profiles)
    with SqliteTraceStore.open(traces, create=False) as store, progress("reading traces"):
        rates = given.parse_rates(texts.rates, store)
        demands = limited(_demands(rates, store), rates, texts.tool_limits)
    return PlanRequest(
        demands=demands,
        profiles=curves,
        cluster=hardware,
        rates=rates,
        slo=slo,
        weights=given.parse_weights(texts.weights or ()),
        objective=given.parse_choice("objective", texts.objective, Objective),
        limits=limits,
        units_per_gpu=texts.units_per_gpu,
    )


def _demands(
    rates: Sequence["WorkflowRate"], store: "SqliteTraceStore"
) -> tuple["WorkflowDemand", ...]:
    """The demand of the workflows that have a rate; others in the store play no part."""
    from scepsy.traces.demand import demands

    names = dict.fromkeys(rate.workflow for rate in rates)
    return tuple(one for name in names for one in demands(store, name))
