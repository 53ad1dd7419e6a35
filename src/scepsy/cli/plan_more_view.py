"""What surrounds a plan, for the eye: why, the next best, the frontier, the steps of a change."""

from collections.abc import Iterator, Sequence

from rich.markup import escape

from scepsy.cli.output import out, print_table
from scepsy.model.plan import Plan, ReplicaGroup
from scepsy.place.exact import Proof
from scepsy.place.moves import StepKind
from scepsy.search.loss import Loss
from scepsy.search.replan import Change
from scepsy.search.sweep import FrontierPoint
from scepsy.search.why import GpuChange, Why
from scepsy.units import format_duration


def print_best(plans: Sequence[Plan]) -> None:
    """Print a row for each of several plans, best first."""
    print_table(
        "Best plans",
        ("plan", "mean latency", "more than the best", "GPUs touched", "allocation"),
        [
            (
                str(number),
                format_duration(plan.objective_s or 0.0),
                _more(plan.objective_s, plans[0].objective_s),
                str(len(plan.placement.used)),
                _allocation(plan),
            )
            for number, plan in enumerate(plans, start=1)
        ],
    )


def print_frontier(points: Sequence[FrontierPoint]) -> None:
    """Print the best plan at each rate."""
    print_table(
        "Throughput and latency",
        (*(f"{rate.workflow} /s" for rate in points[0].plan.rates), "mean latency", "GPUs", "plan"),
        [
            (
                *(f"{rate.rate_per_s:.3g}" for rate in point.plan.rates),
                format_duration(point.objective_s),
                str(len(point.plan.placement.used)),
                _allocation(point.plan),
            )
            for point in points
        ],
    )


def print_why(plan: Plan, why: Why) -> None:
    """Print what one GPU more or less would do, and what other degrees would cost."""
    out.print()
    out.print("[bold]Why this plan[/]")
    for line in (*_changes(plan, why.more), *_changes(plan, why.less)):
        out.print(escape(line), soft_wrap=True)
    out.print()
    rows = []
    for other in why.alternatives:
        has = plan.allocation.group(other.llm)
        row = (str(other.llm), str(has.tensor_parallel), str(other.tensor_parallel))
        if other.group is None:
            rows.append((*row, "-", "does not sustain the rates, or fit"))
        else:
            rows.append((*row, _group(other.group), f"+{format_duration(max(0.0, other.more_s))}"))
    print_table(
        "Why each LLM has its TP", ("LLM", "has TP", "instead TP", "would be", "latency"), rows
    )


def _changes(plan: Plan, change: GpuChange) -> Iterator[str]:
    count = f"{abs(change.gpus)} GPU{'s' if abs(change.gpus) > 1 else ''}"
    which = f"With {count} more" if change.gpus > 0 else f"With {count} less than it touches"
    if change.plan is None:
        yield f"{which}: {change.reason}"
        return
    now_s, then_s = plan.objective_s or 0.0, change.plan.objective_s or 0.0
    moved = [
        f"`{group.llm}` {_group(plan.allocation.group(group.llm))} -> {_group(group)}"
        for group in change.plan.allocation.groups
        if group != plan.allocation.group(group.llm)
    ]
    yield (
        f"{which}: {format_duration(then_s)} instead of {format_duration(now_s)} "
        f"({then_s / now_s - 1:+.1%}); {', '.join(moved) or 'the same allocation'}"
    )


def print_change(change: Change) -> None:
    """Print the steps from the running plan to a new one."""
    out.print()
    starts = sum(step.kind is StepKind.START for step in change.steps)
    stops = len(change.steps) - starts
    out.print(
        f"[bold]Steps[/]: {change.stay} replicas stay, {starts} start, {stops} stop"
        if change.steps
        else "[bold]Steps[/]: none, the running plan stays"
    )
    for number, step in enumerate(change.steps, start=1):
        replica = step.replica
        where = ", ".join(replica.gpus)
        line = f"  {number}. {step.kind} {replica.name}: {replica.gpu_fraction:g} of {where}"
        if step.moves_to is not None:
            line += f" (moves to {', '.join(step.moves_to)})"
        out.print(escape(line), soft_wrap=True)


def print_loss(plan: Plan, loss: Loss) -> None:
    """Print how slow the plan is without the node or rack that is the worst to lose."""
    now_s = plan.objective_s or 0.0
    line = (
        f"Without {loss.lost}, the worst to lose: mean latency "
        f"{format_duration(loss.objective_s)} instead of {format_duration(now_s)} "
        f"({loss.objective_s / now_s - 1:+.1%})"
    )
    workflows = loss.prediction.workflows
    if len(workflows) > 1:
        each = (f"{w.workflow} {format_duration(w.execution_s_mean)}" for w in workflows)
        line += f": {', '.join(each)}"
    out.print()
    out.print(escape(line), soft_wrap=True)


def proof_line(plan: Plan, proof: Proof) -> str:
    """What constraint programming says of the plan's placement, goal by goal."""
    goals = []
    if proof.moved is not None:
        goals.append(_proven(proof.moved, proof.moved_bound, "replicas moved"))
    goals.append(_proven(len(plan.placement.used), proof.touched_bound, "GPUs touched"))
    part_free = len(plan.placement.part_free)
    if proof.part_free is None:
        goals.append(f"{part_free} left part free, not looked into")
    else:
        goals.append(_proven(part_free, proof.part_free_bound, "left part free"))
    return f"placement: {'; '.join(goals)}"


def _proven(value: int, bound: int, what: str) -> str:
    if value <= bound:
        return f"{value} {what}, proven least"
    return f"{value} {what}, at least {bound} needed: a gap of {value - bound}"


def _more(objective_s: float | None, best_s: float | None) -> str:
    return f"{(objective_s or 0.0) / (best_s or 1.0) - 1:+.2%}"


def _allocation(plan: Plan) -> str:
    groups = ", ".join(f"{group.llm} {_group(group)}" for group in plan.allocation.groups)
    turns = "; ".join(f"{', '.join(llms)} by turns" for llms in plan.allocation.turns)
    return f"{groups}; {turns}" if turns else groups


def _group(group: ReplicaGroup) -> str:
    """``2 x TP 4 x 0.5``: replicas, degree, fraction where not whole."""
    share = "" if group.gpu_fraction == 1 else f" x {group.gpu_fraction:g}"
    return f"{group.replicas} x TP {group.tensor_parallel}{share}"
