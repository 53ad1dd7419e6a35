"""What is learned of executions while they run, and forecast from the first one on.

Gaps are learned for each (tool, workflow, LLM and role), and for what is above: the tool in this
workflow, the tool in all, everything. Where little was seen, the more general counts more; where
nothing was, a stated prior does.
Hints take part as one more way to forecast, weighted by how well their source told before.
Everything is bounded in memory and depends on nothing but the calls made here, in their order.
"""

from functools import partial

from scepsy.model.workflow import Stage
from scepsy.policy.learned_counts import Counts, How, Key, Nodes, heavy_tail
from scepsy.policy.learned_curve import Curve, Forecast, Grid, Part
from scepsy.policy.learned_hints import Trust, Way
from scepsy.policy.program import Program

GAP_GRID = Grid.log(1e-3, 1e5, per_decade=8)
TOKEN_GRID = Grid.log(1.0, 1e6, per_decade=8)
STEP_GRID = Grid.whole(1e4, per_decade=12)
RATIO_GRID = Grid.log(1e-4, 1e4, per_decade=8)

PRIOR_GAP_S = 10.0
"""Medians of the priors: assumed, and worth ``PARENT_WAITS`` observations."""
PRIOR_OUTPUT_TOKENS = 200.0
PRIOR_NEW_TOKENS = 500.0
PRIOR_STEPS = 10.0
PRIOR_RATIO = 1.0
"""What happened, over what the hint said."""

MOST_NODES = 2_048
"""Of each kind; at about 5 kB each, 65 MB in all when every one is in use."""
MOST_STEPS_LEFT = 1_000.0
"""Where the mean of the calls to come is cut off: a heavy tail may have none."""


def _tree(grid: Grid, median: float, most: int) -> Nodes:
    return Nodes(partial(Counts, grid, heavy_tail(grid, median)), most)


class Learned:
    """Learns from events of executions, and forecasts what comes."""

    of_gaps_alone = False
    """Whether nothing but gaps is learned, so that nobody needs to tell of calls."""

    def __init__(self, most_nodes: int = MOST_NODES) -> None:
        """Nothing is known but the priors."""
        self._gaps = _tree(GAP_GRID, PRIOR_GAP_S, most_nodes)
        self._outputs = _tree(TOKEN_GRID, PRIOR_OUTPUT_TOKENS, most_nodes)
        self._new_tokens = _tree(TOKEN_GRID, PRIOR_NEW_TOKENS, most_nodes)
        self._steps = _tree(STEP_GRID, PRIOR_STEPS, most_nodes)
        self._gap_ratios = _tree(RATIO_GRID, PRIOR_RATIO, most_nodes)
        self._output_ratios = _tree(RATIO_GRID, PRIOR_RATIO, most_nodes)
        self._gap_trust = Trust(most_nodes)
        self._output_trust = Trust(most_nodes)

    @property
    def nodes(self) -> int:
        """Of all kinds: what its memory is proportional to."""
        gaps, outputs = (self._gaps, self._gap_ratios), (self._outputs, self._output_ratios)
        trees = (*gaps, *outputs, self._new_tokens, self._steps)
        return sum(map(len, trees))

    # What happened.

    def arrived(
        self, program: Program, stage: Stage, prompt_tokens: int, new_tokens: int | None
    ) -> None:
        """A call arrives, and is not yet counted in the program."""
        if new_tokens is None:
            new_tokens = prompt_tokens - program.kv_tokens.get(stage.llm, 0)
        self._new_tokens.use(gap_key(program)).left(max(0, new_tokens), How.RETURNED)
        steps = self._steps.use((program.workflow,))
        if program.steps:
            steps.did_not_leave(program.steps, How.UNSEEN)
        steps.left(program.steps + 1, How.UNSEEN)

    def answered(self, program: Program, stage: Stage, output_tokens: int, *, alone: bool) -> None:
        """A call ended with that many tokens. Hints are checked where it was in flight alone."""
        node = self._outputs.use(_key(stage))
        hint = program.hints.output_tokens
        if hint is not None and alone:
            ratio = self._output_ratios.use(_source(program))
            scores = {
                Way.LEARNED: _score(node.curve(), output_tokens),
                Way.VALUE: _score(ratio.curve(), output_tokens, hint),
            }
            self._output_trust.check(_source(program), scores)
            ratio.left(output_tokens / hint, How.RETURNED)
        node.left(output_tokens, How.RETURNED)

    def gap_began(self, program: Program) -> None:
        """No call is in flight any more, since ``program.gap_start_s``."""
        node = program.gap_node = self._gaps.use(gap_key(program))
        node.began(program.gap_start_s)

    def gap_over(self, program: Program, now_s: float, how: How) -> None:
        """The gap is over: the next call came, none will, or it is no longer looked at."""
        node = program.gap_node or self._gaps.use(gap_key(program))
        program.gap_node = None
        start_s, hints = program.gap_start_s, program.hints
        gap_s = max(0.0, now_s - start_s)
        if hints.gap_s is None and hints.next_tool is None:
            node.passed(start_s, gap_s, how)
            return
        node.over(start_s)
        if how is not How.ENDED:
            ways = self._ways(program, now_s)
            score = _score if how is How.RETURNED else _survival
            scores = {way: score(curve, gap_s, scale) for way, (curve, scale) in ways.items()}
            self._gap_trust.check(_source(program), scores)
        if hints.gap_s is not None:
            self._gap_ratios.use(_source(program)).left(gap_s / hints.gap_s, how)
        node.left(gap_s, how)

    def ended(self, program: Program, how: How) -> None:
        """The execution is over, or (unseen) no longer looked at."""
        if how is not How.UNSEEN and program.steps:
            steps = self._steps.use((program.workflow,))
            steps.did_not_leave(program.steps, How.UNSEEN)
            steps.left(program.steps, How.RETURNED)

    # What comes.

    def gap(self, program: Program, now_s: float) -> Forecast:
        """Time to the next call, for one whose gap goes on: seconds from now."""
        waited_s = now_s - program.gap_start_s
        ways = self._ways(program, now_s)
        if len(ways) == 1:
            ((curve, scale),) = ways.values()
            return Forecast((Part(1.0, curve, scale),), waited_s)
        weights = self._gap_trust.weights(_source(program), list(ways))
        pairs = zip(weights, ways.values(), strict=True)
        return Forecast([Part(weight, *way) for weight, way in pairs], waited_s)

    def output(self, program: Program, stage: Stage, so_far_tokens: float = 0.0) -> Forecast:
        """Tokens that a call's answer still grows by: "returned" means that it ends."""
        curve = self._outputs.nearest(_key(stage)).curve()
        hint = program.hints.output_tokens
        if hint is None:
            return Forecast((Part(1.0, curve),), so_far_tokens)
        source = _source(program)
        ratio = self._output_ratios.nearest(source).curve()
        weights = self._output_trust.weights(source, (Way.LEARNED, Way.VALUE))
        parts = (Part(weights[0], curve), Part(weights[1], ratio, hint))
        return Forecast(parts, so_far_tokens)

    def new_tokens(self, program: Program) -> Forecast:
        """Prompt tokens that the next call adds to the last one's."""
        curve = self._new_tokens.nearest(gap_key(program)).curve()
        return Forecast((Part(1.0, curve),))

    def steps(self, program: Program) -> Forecast:
        """Its number of calls, from half a call before the last one: "returned" means the end."""
        curve = self._steps.nearest((program.workflow,)).curve()
        return Forecast((Part(1.0, curve),), max(0.0, program.steps - 0.5))

    def steps_left(self, program: Program, most: float = MOST_STEPS_LEFT) -> float:
        """Mean number of calls that still arrive, where more than ``most`` count as so many."""
        return max(0.0, self.steps(program).expected_wait(most + 0.5) - 0.5)

    def _ways(self, program: Program, now_s: float) -> dict[Way, tuple[Curve, float]]:
        key, hints = gap_key(program), program.hints
        ways = {Way.LEARNED: (self._gaps.nearest(key).curve(now_s), 1.0)}
        if hints.next_tool is not None and hints.next_tool != program.tool:
            announced = self._gaps.nearest((hints.next_tool, *key[1:]))
            ways[Way.TOOL] = announced.curve(now_s), 1.0
        if hints.gap_s is not None:
            ratios = self._gap_ratios.nearest(_source(program))
            ways[Way.VALUE] = ratios.curve(), hints.gap_s
        return ways


class LearnedGaps(Learned):
    """Only the time to the next call is learned: a third of the work. All else stays as assumed."""

    of_gaps_alone = True

    def ended(self, program: Program, how: How) -> None:
        """Nothing is learned of lengths."""


def _score(curve: Curve, value: float, scale: float = 1.0) -> float:
    return Forecast((Part(1.0, curve, scale),)).log_density(value)


def _survival(curve: Curve, value: float, scale: float = 1.0) -> float:
    return Forecast((Part(1.0, curve, scale),)).log_goes_on(value)


def _key(stage: Stage) -> Key:
    return (stage.workflow, stage.label)


def gap_key(program: Program) -> Key:
    """What a gap follows. The tool comes first: it tells most, also in a workflow that is new."""
    stage = program.stage
    return (program.tool, program.workflow, "" if stage is None else stage.label)


def _source(program: Program) -> Key:
    return (program.tenant, program.workflow)
