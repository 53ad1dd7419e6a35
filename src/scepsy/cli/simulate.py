"""``scepsy simulate``: serve a plan in virtual time, and ask what if."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from scepsy.cli import simulate_options as given
from scepsy.cli.output import JsonOption, print_json, progress, say
from scepsy.errors import InputError

if TYPE_CHECKING:
    from scepsy.model.plan import Plan
    from scepsy.sim.plan_run import NodeLoss, Setting, Simulated
    from scepsy.sim.run import ServedExecution

BASE, WHAT_IF = "plan", "what if"


def simulate(
    *,
    plan: given.PlanPath,
    traces: given.Traces,
    rate: given.Rates = None,
    without: given.Without = None,
    lose: given.Losses = None,
    policy: given.Policy = None,
    patience: given.Patience = None,
    host_gib: given.HostGib = None,
    order: given.Order = "first-come",
    arrivals: given.ArrivalsText = "poisson",
    executions: given.Executions = 400,
    seed: given.Seed = 0,
    slo: given.SloText = None,
    output: given.Output = None,
    as_json: JsonOption = False,
) -> None:
    """Serve recorded executions by a plan in virtual time, with the gateway's own policies.

    Prints latency and throughput beside what the plan predicts; with a what-if (`--rate`,
    `--without`, `--lose`, `--policy`, `--patience`, `--host-gib`) both the plan as it is and the
    changed one. With `--output`: all calls and executions as Parquet, a timeline, and a plot.

    Example: `scepsy simulate plan.json --traces traces.db --without node-1 --rate 2x
    --output simulated`
    """
    from scepsy.cli.simulate_view import print_comparison
    from scepsy.files.plan_file import load_plan
    from scepsy.model.slo import parse_slo
    from scepsy.policy.order import find_order
    from scepsy.sim.plan_run import Setting
    from scepsy.sim.summary import summary

    made = load_plan(plan)
    bound = made.slo if slo is None else parse_slo(slo)
    base = _with_arrivals(
        Setting(
            rates=made.rates,
            order=find_order(order),
            executions=executions,
            warm_up=executions // 4,
            seed=seed,
        ),
        arrivals,
    )
    changes = _Changes(rate or (), without or (), lose or (), policy, patience, host_gib or ())
    settings = {BASE: _served_by(base, made.route)}
    if changes.any:
        settings[WHAT_IF] = _changed(base, changes, made)
    found = _simulated(made, traces, settings)
    summaries = {name: summary(r.counted, bound, r.others) for name, r in found.items()}
    if as_json:
        print_json({"prediction": made.prediction, "simulated": summaries})
    else:
        print_comparison(made, summaries)
    if changes.losses:
        _say_where_losses_are_missed(settings[WHAT_IF], found[WHAT_IF])
    if output is not None:
        _write(output, found)


@dataclass(frozen=True, slots=True)
class _Changes:
    """What the options ask to be different from the plan."""

    rates: Sequence[str]
    without: Sequence[str]
    losses: Sequence[str]
    policy: str | None
    patience: float | None
    host_gib: Sequence[str]

    @property
    def any(self) -> bool:
        if self.policy is not None or self.patience is not None:
            return True
        return bool(self.rates or self.without or self.losses or self.host_gib)


def _with_arrivals(setting: "Setting", text: str) -> "Setting":
    """Raises ``InputError`` where the text is no way to arrive."""
    kind, _, number = text.partition("=")
    try:
        if kind == "poisson" and not number:
            return setting
        if kind == "bursty":
            return replace(setting, burstiness=_positive(float(number)))
        if kind == "closed":
            return replace(setting, users=int(_positive(int(number))))
        if kind == "recorded":
            return replace(setting, speed=_positive(float(number or 1)))
    except ValueError:
        pass
    raise InputError(
        f"`--arrivals {text}` is no way to arrive",
        hint="known: poisson, bursty=3, closed=8, recorded, recorded=2",
    )


def _positive(number: float) -> float:
    if not 0 < number < float("inf"):
        raise ValueError
    return number


def _changed(base: "Setting", changes: _Changes, plan: "Plan") -> "Setting":
    from scepsy.cli.host_memory import parse_host_gib
    from scepsy.model.cluster import NodeName

    changed = replace(
        _served_by(base, changes.policy or plan.route, changes.patience),
        without=frozenset(map(NodeName, changes.without)),
        losses=tuple(map(_loss, changes.losses)),
        host_bytes=parse_host_gib(changes.host_gib, [g.llm for g in plan.allocation.groups]),
    )
    for text in changes.rates:
        changed = _with_rate(changed, text)
    return changed


def _served_by(setting: "Setting", policy: str, patience: float | None = None) -> "Setting":
    """As the gateway serves with a policy of that name."""
    from scepsy.policy.by_name import PROGRAMS, SERVED, find_dispatcher
    from scepsy.policy.route import find_policy

    if patience is not None and policy != PROGRAMS:
        raise InputError(
            f"`--patience` says nothing to the policy `{policy}`",
            hint=f"add `--policy {PROGRAMS}`, or leave `--patience` out",
        )
    settings = SERVED if patience is None else replace(SERVED, patience=patience)
    make = find_dispatcher(policy, settings)
    if make is not None:
        return replace(setting, make_dispatcher=make)
    return replace(setting, make_router=find_policy(policy))


def _with_rate(setting: "Setting", text: str) -> "Setting":
    from scepsy.model.plan import WorkflowRate

    name, _, number = text.rpartition("=")
    times = not name and number.endswith("x")
    try:
        value = _positive(float(number.removesuffix("x") if times else number))
    except ValueError:
        raise InputError(
            f"`--rate {text}` is not a rate", hint="write it like `--rate 2x` or `--rate rag=3`"
        ) from None
    known = [rate.workflow for rate in setting.rates]
    if times:
        several = tuple(WorkflowRate(r.workflow, value * r.rate_per_s) for r in setting.rates)
        return replace(setting, rates=several, speed=value * setting.speed)
    if name not in known and (name or len(known) > 1):
        raise InputError(
            f"`--rate {text}`: the plan has no such workflow", hint=f"it has {', '.join(known)}"
        )
    wanted = name or known[0]
    return replace(
        setting,
        rates=tuple(
            WorkflowRate(r.workflow, value) if r.workflow == wanted else r for r in setting.rates
        ),
    )


def _loss(text: str) -> "NodeLoss":
    from scepsy.model.cluster import NodeName
    from scepsy.sim.plan_run import NodeLoss

    node, _, times = text.rpartition("@")
    at, _, back = times.partition(":")
    try:
        at_s, back_s = float(at), float(back or "inf")
    except ValueError:
        node = ""
    if not node or at_s < 0 or back_s <= at_s:
        raise InputError(
            f"`--lose {text}` does not say which node and when",
            hint="write it like `--lose node-1@60` or `--lose node-1@60:180`",
        )
    return NodeLoss(NodeName(node), at_s, back_s)


def _simulated(
    plan: "Plan", traces: Path, settings: "dict[str, Setting]"
) -> "dict[str, Simulated]":
    from scepsy.collector import collect_rarely
    from scepsy.sim.plan_run import simulate_plan
    from scepsy.sim.script import scripts
    from scepsy.sim.specs import published
    from scepsy.traces.store import SqliteTraceStore

    collect_rarely()
    with SqliteTraceStore.open(traces, create=False) as store, progress("reading traces"):
        recorded = {rate.workflow: scripts(store.executions(rate.workflow)) for rate in plan.rates}
    found = {}
    for name, setting in settings.items():
        total = sum(map(len, recorded.values())) if setting.speed else setting.executions
        with progress(f"simulating: {name}", total=total) as advance:
            found[name] = simulate_plan(
                plan,
                recorded,
                published,
                setting,
                on_end=advance,
            )
    return found


def _say_where_losses_are_missed(setting: "Setting", found: "Simulated") -> None:
    """Losses are on the clock of the simulation, which begins with the warm-up."""
    first_s = found.counted[0].start_s
    last_s = max(each.end_s for each in found.counted)
    for loss in setting.losses:
        if loss.back_s <= first_s or loss.at_s >= last_s:
            say(
                f"warning: {loss.node} is not lost while executions are counted, from "
                f"{first_s:.0f} s to {last_s:.0f} s: what comes before them is the warm-up"
            )


def _write(folder: Path, found: "dict[str, Simulated]") -> None:
    """All files of the variant that was asked for last; the plot compares all of them."""
    from scepsy.report.simulated import draw_latencies, write_executions
    from scepsy.report.timeline import write_timeline
    from scepsy.sim.records import as_recorded_execution
    from scepsy.traces.files import export

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror}") from error
    last: Sequence[ServedExecution] = list(found.values())[-1].counted
    calls = export(folder / "calls.parquet", map(as_recorded_execution, last))
    write_executions(folder / "executions.parquet", last)
    write_timeline(folder / "timeline.json.gz", last)
    draw_latencies(folder / "latency.svg", {name: each.counted for name, each in found.items()})
    say(f"wrote {folder}: {len(last)} executions, {calls} calls, timeline.json.gz, latency.svg")
