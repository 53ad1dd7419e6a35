"""Roles that a recording does not name: from what prompts begin with, or from lengths.

A workflow that uses one LLM for several things gives the LLM two kinds of calls, and no average
fits either. Where calls name no role, one is derived: calls whose prompts begin alike over several
executions (a system prompt) have a role of their own; else calls are split where their lengths
have two peaks. Data with one peak is left alone.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from scepsy.errors import MissingError
from scepsy.model.execution import Call, CallStatus, Execution
from scepsy.model.workflow import NO_ROLE, Role, Stage
from scepsy.traces.call_table import Floats
from scepsy.traces.demand import WorkflowDemand

MIN_ROLE_FRACTION = 0.05
"""A role has at least this part of its LLM's calls; what is rarer is no role but an exception."""
MIN_CALLS = 20
"""Calls that a role must have to be told from chance."""
_VALLEY = 0.5
"""Between two peaks there are at most so many calls, relative to the lesser peak."""
_SIGMAS = 2.5
"""By how many standard deviations (of counts) the valley must be below the lesser peak."""


@dataclass(frozen=True, slots=True)
class RoleSplit:
    """How the calls of one stage were split."""

    stage: Stage
    """As recorded, without a role."""
    by: str
    """``prompt prefix``, ``prompt length`` or ``output length``."""
    roles: tuple[Role, ...]
    """Sorted."""


def with_roles(
    executions: Iterable[Execution],
) -> tuple[tuple[Execution, ...], tuple[RoleSplit, ...]]:
    """The executions with a role on each call that named none and has one, and what was split."""
    kept = tuple(executions)
    by_stage: dict[Stage, list[Call]] = defaultdict(list)
    for execution in kept:
        for call in execution.calls:
            if call.role == NO_ROLE and call.status is CallStatus.OK:
                by_stage[call.stage].append(call)
    roles: dict[str, Role] = {}
    splits: list[RoleSplit] = []
    for stage, calls in sorted(by_stage.items()):
        by, found = _split(calls)
        if by:
            roles.update((call.id, role) for call, role in zip(calls, found, strict=True))
            splits.append(RoleSplit(stage, by, tuple(sorted(set(found)))))
    if not splits:
        return kept, ()
    return tuple(_relabelled(execution, roles) for execution in kept), tuple(splits)


def _relabelled(execution: Execution, roles: dict[str, Role]) -> Execution:
    calls = tuple(
        replace(call, role=roles[call.id]) if call.id in roles else call for call in execution.calls
    )
    return replace(execution, calls=calls)


def _split(calls: Sequence[Call]) -> tuple[str, list[Role]]:
    """By what, and the role of each call; by nothing where they are of one kind."""
    if prefixes := _prefix_groups(calls):
        return "prompt prefix", prefixes
    lengths = (
        ("output", np.array([call.output_tokens for call in calls], dtype=np.float64)),
        ("prompt", np.array([call.prompt_tokens for call in calls], dtype=np.float64)),
    )
    for kind, tokens in lengths:
        if (border := two_peaks(np.log1p(tokens))) is not None:
            short = np.log1p(tokens) <= border
            names = (Role(f"long-{kind}"), Role(f"short-{kind}"))
            return f"{kind} length", [names[int(is_short)] for is_short in short]
    return "", []


def _prefix_groups(calls: Sequence[Call]) -> list[Role]:
    """A role for each beginning that several executions share; none unless nearly all calls have.

    Beginnings are told apart at the first block at which calls differ.
    """
    depth = 0
    while True:
        heads = [
            call.prefix_blocks[depth] if len(call.prefix_blocks) > depth else None for call in calls
        ]
        groups = _large(heads, calls)
        covered = sum(groups.values())
        if covered < (1 - MIN_ROLE_FRACTION) * len(calls):
            return []
        if len(groups) > 1:
            order = [head for head, _ in sorted(groups.items(), key=lambda g: (-g[1], g[0]))]
            names = {head: Role(f"prompt-{at}") for at, head in enumerate(order, start=1)}
            rest = names[order[0]]
            return [names.get(head, rest) if head is not None else rest for head in heads]
        depth += 1


def _large(heads: Sequence[int | None], calls: Sequence[Call]) -> dict[int, int]:
    """How many calls begin with each block that is one of a role's, by the block."""
    counts = Counter(head for head in heads if head is not None)
    seen_in: dict[int, set[str]] = defaultdict(set)
    for head, call in zip(heads, calls, strict=True):
        if head is not None:
            seen_in[head].add(call.execution)
    least = max(MIN_CALLS, MIN_ROLE_FRACTION * len(calls))
    return {h: n for h, n in counts.items() if n >= least and len(seen_in[h]) > 1}


def two_peaks(values: Floats) -> float | None:
    """A border between two peaks of a distribution; None if it has one.

    The values are cut in two so that they vary least within the parts (the optimal 2-means in one
    dimension). That cuts anything; it counts only if there is a valley: around the emptiest place
    between the parts' medians lie at most half as many values as around the lesser median, by
    more than chance would have it.
    """
    ordered = np.sort(values)
    cut = _least_variance_cut(ordered)
    if cut is None or min(cut, len(ordered) - cut) < max(
        MIN_CALLS, MIN_ROLE_FRACTION * len(ordered)
    ):
        return None
    low, high = float(np.median(ordered[:cut])), float(np.median(ordered[cut:]))
    half = (high - low) / 6
    if half <= 0:
        return None
    places = np.linspace(low + 2 * half, high - 2 * half, 9)
    counts = [_count(ordered, place, half) for place in places]
    valley = min(counts)
    peak = min(_count(ordered, low, half), _count(ordered, high, half))
    if valley > _VALLEY * peak or peak - valley < _SIGMAS * np.sqrt(peak + valley):
        return None
    emptiest = [place for place, n in zip(places, counts, strict=True) if n == valley]
    return float(emptiest[len(emptiest) // 2])


def _least_variance_cut(ordered: Floats) -> int | None:
    """Values below the cut that leaves the least variance within the parts; None if all equal."""
    if ordered[0] == ordered[-1]:
        return None
    below = np.arange(1, len(ordered))
    sums = np.cumsum(ordered)[:-1]
    above = len(ordered) - below
    between = below * above * (sums / below - (ordered.sum() - sums) / above) ** 2
    return int(np.argmax(between)) + 1


def _count(ordered: Floats, place: float, half: float) -> int:
    low, high = np.searchsorted(ordered, (place - half, place + half), side="left")
    return int(high - low)


@dataclass(frozen=True, slots=True)
class SplitEffect:
    """What the pipeline makes of executions from stage averages, before and after a split."""

    merged_s_mean: float
    split_s_mean: float
    merged_s_p95: float
    split_s_p95: float

    @property
    def change_fraction(self) -> float:
        """The larger change of the two statistics, relative to the merged one."""
        changes = (
            self.split_s_mean / self.merged_s_mean - 1 if self.merged_s_mean else 0.0,
            self.split_s_p95 / self.merged_s_p95 - 1 if self.merged_s_p95 else 0.0,
        )
        return max(changes, key=abs)


def split_effect(merged: WorkflowDemand, split: WorkflowDemand) -> SplitEffect:
    """How a split changes what is said of the same executions.

    Each execution is taken to last (calls x mean latency / fan-out) over its stages, plus its
    gap: what a stage's average says of it. Where calls of unlike lengths share a stage that is
    wrong by as much as executions mix them differently.
    """
    before, after = _by_averages(merged), _by_averages(split)
    return SplitEffect(
        merged_s_mean=float(before.mean()),
        split_s_mean=float(after.mean()),
        merged_s_p95=float(np.percentile(before, 95)),
        split_s_p95=float(np.percentile(after, 95)),
    )


def _by_averages(demand: WorkflowDemand) -> Floats:
    if demand.calls is None:
        raise MissingError(f"the demand of {demand.workflow} does not hold its calls")
    calls = demand.calls.stage_sums(np.ones(len(demand.calls.stage)), len(demand.stages))
    each_s = np.array([stage.call_s_mean / stage.fan_out for stage in demand.stages])
    gaps_s = np.array([execution.gap_s for execution in demand.executions])
    executions_s: Floats = calls @ each_s + gaps_s
    return executions_s
