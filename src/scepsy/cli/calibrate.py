"""``scepsy calibrate``: correct profiles from what was served."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scepsy.cli.output import JsonOption, print_json, print_table, progress, say
from scepsy.errors import MissingError

if TYPE_CHECKING:
    from scepsy.model.plan import Plan, Prediction
    from scepsy.predict.calibrate import StageCorrection
    from scepsy.predict.pipeline import RatedWorkflow
    from scepsy.traces.store import SqliteTraceStore


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowCheck:
    """Execution latency of one workflow: served, and predicted with both profiles."""

    workflow: str
    statistic: str
    served_s: float
    before_s: float
    after_s: float


def calibrate(
    plan: Annotated[Path, typer.Option(help="The plan that served.")],
    traces: Annotated[Path, typer.Option(help="Trace store of what it served.")],
    profiles: Annotated[Path, typer.Option(help="The profiles it was made with.")],
    output: Annotated[
        Path | None, typer.Option(help="Write the corrected profiles to this file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare what a plan served with what was predicted, and correct the profiles by it.

    Prints, for each stage, the latency of a call as served and as predicted at the served load,
    and the factor between them; and what the correction does to the prediction of executions.
    A stage with under 30 calls, or within the error of its measurement, is left as it is.

    Example: `scepsy calibrate --plan plan.json --traces served.db --profiles profiles.json
    --output corrected.json`
    """
    from scepsy.files.plan_file import load_plan
    from scepsy.predict import critical_path
    from scepsy.predict.calibrate import corrected, corrections
    from scepsy.predict.predictor import PREDICTORS, find_predictor
    from scepsy.profiles.store import load_profiles, save_profiles
    from scepsy.traces.store import SqliteTraceStore

    made, curves = load_plan(plan), load_profiles(profiles)
    with SqliteTraceStore.open(traces, create=False) as store, progress("reading traces"):
        served = _served(made, store)
    found = corrections(served, made.allocation, curves)
    better = corrected(curves, found)
    by = made.prediction.predictor
    predict = find_predictor(by if by in PREDICTORS else critical_path.PREDICTOR)
    checks = _checks(
        served,
        predict(served, made.allocation, curves),
        predict(served, made.allocation, better),
    )
    if as_json:
        print_json({"stages": found, "workflows": checks})
    else:
        _print(found, checks)
    if output is not None:
        save_profiles(output, better)
        say(f"wrote {output}")


def _served(plan: "Plan", store: "SqliteTraceStore") -> list["RatedWorkflow"]:
    """The plan's workflows as served: demand, and the rate at which executions came.

    Raises:
        MissingError: the store has under two executions of each.
    """
    from scepsy.model.plan import WorkflowRate
    from scepsy.predict.pipeline import RatedWorkflow
    from scepsy.traces.demand import demand

    served = []
    planned = {rate.workflow for rate in plan.rates}
    for summary in store.select():
        if summary.workflow not in planned:
            say(f"{summary.workflow}: not in the plan, left out")
            continue
        executions = tuple(store.executions(summary.workflow))
        if len(executions) < 2:
            say(f"{summary.workflow}: under two executions, left out")
            continue
        span_s = executions[-1].start_s - executions[0].start_s
        rate = WorkflowRate(summary.workflow, (len(executions) - 1) / max(span_s, 1e-9))
        served.append(RatedWorkflow(demand(executions), rate))
    if not served:
        raise MissingError(
            "nothing of the plan's workflows was served",
            hint=f"the plan is for: {', '.join(sorted(planned))}",
        )
    return served


def _checks(
    served: Sequence["RatedWorkflow"], before: "Prediction", after: "Prediction"
) -> list[WorkflowCheck]:
    from scepsy.traces.demand import spread

    found = []
    for each in served:
        name = each.rate.workflow
        seen = spread([execution.execution_s for execution in each.demand.executions])
        old, new = before.workflow(name), after.workflow(name)
        for statistic, seen_s, old_s, new_s in (
            ("mean", seen.mean, old.execution_s_mean, new.execution_s_mean),
            ("p95", seen.p95, old.execution_s_p95, new.execution_s_p95),
        ):
            found.append(
                WorkflowCheck(
                    workflow=name,
                    statistic=statistic,
                    served_s=seen_s,
                    before_s=old_s,
                    after_s=new_s,
                )
            )
    return found


def _print(found: Sequence["StageCorrection"], checks: Sequence[WorkflowCheck]) -> None:
    from scepsy.units import format_duration

    print_table(
        "A call, as served and as predicted at the served load",
        ("stage", "calls", "load", "served", "predicted", "error", "corrected by"),
        [
            (
                str(each.stage),
                str(each.calls),
                f"{each.utilization:.0%}",
                f"{format_duration(each.served_s)} ±{each.error_fraction:.0%}",
                format_duration(each.predicted_s),
                f"{each.predicted_s / each.served_s - 1:+.1%}" if each.served_s else "-",
                f"x {each.factor:.3f}" if each.factor != 1 else "-",
            )
            for each in found
        ],
    )
    print_table(
        "An execution, as served and as predicted",
        ("workflow", "", "served", "before", "error", "after", "error"),
        [
            (
                each.workflow,
                each.statistic,
                format_duration(each.served_s),
                format_duration(each.before_s),
                f"{each.before_s / each.served_s - 1:+.1%}",
                format_duration(each.after_s),
                f"{each.after_s / each.served_s - 1:+.1%}",
            )
            for each in checks
        ],
    )
