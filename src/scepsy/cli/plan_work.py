"""What ``scepsy plan`` does with a request: search, prove, compare, explain, print and write."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

import typer

from scepsy.cli.output import print_json, progress, say
from scepsy.cli.plan_more_view import (
    print_best,
    print_change,
    print_frontier,
    print_loss,
    print_why,
    proof_line,
)
from scepsy.cli.plan_view import print_plan
from scepsy.collector import collect_rarely
from scepsy.errors import InputError, UnknownNameError
from scepsy.files.plan_file import dump_plan, load_plan, save_plan
from scepsy.model.plan import Plan
from scepsy.model.workflow import WorkflowName
from scepsy.place.exact import Proof, place_exactly
from scepsy.predict.predictor import PREDICTORS
from scepsy.search.goals import Goal
from scepsy.search.loss import worst_loss
from scepsy.search.plan import best_plans, plan_for
from scepsy.search.problem import PlanRequest, Problem, problem, slo_value_s
from scepsy.search.rank import COMPARED, PREDICTOR, ranked
from scepsy.search.replan import Change, change_to, replan, stayable
from scepsy.search.sweep import frontier
from scepsy.search.why import Why, why
from scepsy.sim.plan_by_simulation import Effort, plan_by_simulation, with_simulated
from scepsy.sim.rank import SIMULATOR
from scepsy.sim.script import Script, scripts
from scepsy.sim.specs import published
from scepsy.traces.store import SqliteTraceStore
from scepsy.units import format_duration

Recorded = Mapping[WorkflowName, Sequence[Script]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is wanted beside a plan."""

    goal: Goal
    best: int
    why: bool
    points: int
    """Of the frontier; 0 for none."""
    picture: Path | None
    prove_s: float | None
    """Time for each goal of the proof; None for none."""
    running: Path | None
    tolerance: float
    predictor: str
    rank_s: float
    """Time for simulations, where they rank the plans."""
    output: Path | None
    as_json: bool

    def __post_init__(self) -> None:
        if self.goal is not Goal.LATENCY and (self.best > 1 or self.running or self.points):
            raise InputError(
                f"`--goal {self.goal}` has one best plan",
                hint="leave out `--best`, `--from` and `--frontier`",
            )
        if self.picture is not None and not self.points:
            raise InputError("`--picture` draws the frontier", hint="add `--frontier`")
        if self.predictor not in {*PREDICTORS, SIMULATOR}:
            raise UnknownNameError("predictor", self.predictor, {*PREDICTORS, SIMULATOR})


def run(request: PlanRequest, wanted: Wanted, traces: Path) -> None:
    """Plan, and print and write what is wanted.

    Args:
        request: what to plan for.
        wanted: beside the plan.
        traces: store with the recorded executions, for simulations.

    Raises:
        InputError: the request contradicts itself, or a file cannot be read or written.
        InfeasibleError: there is no plan.
    """
    collect_rarely()
    asked = problem(request)
    if wanted.points:
        _frontier(asked, wanted)
        return
    running = None if wanted.running is None else load_plan(wanted.running)
    plans = _plans(asked, running, wanted, traces)[: wanted.best]
    change: Change | None = None
    proof: Proof | None = None
    if wanted.prove_s is not None:
        plans[0], proof = _proven(asked, plans[0], running, wanted.prove_s)
    if running is not None:
        change = change_to(plans[0], running)
    _tell(plans, change, proof, why(asked, plans[0]) if wanted.why else None, wanted)
    if not wanted.as_json and (loss := worst_loss(asked, plans[0])) is not None:
        print_loss(plans[0], loss)
    if wanted.output is not None:
        save_plan(wanted.output, plans[0])
        say(f"wrote {wanted.output}")


def _plans(asked: Problem, running: Plan | None, wanted: Wanted, traces: Path) -> list[Plan]:
    """The plans with the predictor's figures, best first."""
    if running is not None:
        plans = [replan(asked, running, wanted.tolerance).plan]
    elif wanted.goal is not Goal.LATENCY:
        plans = [plan_for(asked, wanted.goal)]
    elif wanted.predictor == SIMULATOR:
        return _raced(asked, _recorded(asked, traces), wanted)
    else:
        most = wanted.best if wanted.predictor == PREDICTOR else max(wanted.best, COMPARED)
        plans = best_plans(asked, most)
    if wanted.predictor != SIMULATOR:
        return ranked(asked, plans, wanted.predictor)
    recorded = _recorded(asked, traces)
    with progress("simulating the plan"):
        return [with_simulated(asked, plans[0], recorded, published)]


def _raced(asked: Problem, recorded: Recorded, wanted: Wanted) -> list[Plan]:
    """The best by simulation of what the search proposes."""
    effort = Effort()
    effort = replace(effort, finalists=max(wanted.best, effort.finalists))
    end_s = monotonic() + wanted.rank_s
    with progress("simulating plans", total=effort.most_simulations) as advance:

        def go_on() -> bool:
            advance()
            return monotonic() < end_s

        found = plan_by_simulation(asked, recorded, published, effort=effort, go_on=go_on)
    out_of_time = "; time was out, the best by then is taken" if monotonic() > end_s else ""
    say(f"{found.simulations} simulations{out_of_time}")
    return list(found.plans)


def _recorded(asked: Problem, traces: Path) -> Recorded:
    """The executions of the workflows that have a rate."""
    with SqliteTraceStore.open(traces, create=False) as store, progress("reading traces"):
        names = [workflow.rate.workflow for workflow in asked.workflows]
        return {name: scripts(store.executions(name)) for name in names}


def _proven(asked: Problem, plan: Plan, running: Plan | None, limit_s: float) -> tuple[Plan, Proof]:
    """The plan with the better of its placement and the proof's."""
    stay = () if running is None else stayable(asked, plan.allocation, running)
    with progress("proving the placement"):
        proof = place_exactly(
            plan.allocation,
            asked.cluster,
            limit_s=limit_s,
            units_per_gpu=asked.room.units_per_gpu,
            rules=asked.place_rules(plan.allocation),
            stay=stay,
            start=plan.placement,
        )
    if proof.placement is None:
        return plan, proof
    exact = replace(plan, placement=proof.placement)

    def worth(one: Plan) -> tuple[int, int, int]:
        stays = 0 if running is None else change_to(one, running).stay
        return -stays, len(one.placement.used), len(one.placement.part_free)

    return min(plan, exact, key=worth), proof


def _tell(
    plans: Sequence[Plan],
    change: Change | None,
    proof: Proof | None,
    explained: Why | None,
    wanted: Wanted,
) -> None:
    best = plans[0]
    _warn_if_missed(best)
    if proof is not None:
        say(proof_line(best, proof))
    if wanted.as_json:
        extra = {
            "best": plans if wanted.best > 1 else None,
            "steps": change.steps if change else None,
            "why": explained,
            "proof": proof,
        }
        if any(extra.values()):
            print_json({"plan": best, **{key: value for key, value in extra.items() if value}})
        else:
            typer.echo(dump_plan(best).decode(), nl=False)
        return
    print_plan(best)
    if wanted.best > 1:
        print_best(plans)
    if explained is not None:
        print_why(best, explained)
    if change is not None:
        print_change(change)


def _frontier(asked: Problem, wanted: Wanted) -> None:
    with progress("planning at each rate", total=wanted.points) as advance:
        points = frontier(asked, wanted.points, advance)
    if wanted.as_json:
        print_json(points)
    else:
        print_frontier(points)
    if wanted.picture is not None:
        from scepsy.report.frontier import draw_frontier

        first = points[0].plan.rates[0].workflow
        draw_frontier(
            wanted.picture,
            first,
            [
                (p.plan.rates[0].rate_per_s, p.objective_s, len(p.plan.placement.used))
                for p in points
            ],
        )
        say(f"wrote {wanted.picture}")


def _warn_if_missed(made: Plan) -> None:
    """Say so where the figures of another predictor than the search's miss the SLO."""
    if (
        made.slo is not None
        and (value_s := slo_value_s(made.prediction, made.slo)) > made.slo.bound_s
    ):
        say(
            f"warning: by {made.prediction.predictor} the plan misses the SLO {made.slo}: "
            f"{made.slo.statistic} is {format_duration(value_s)}"
        )
