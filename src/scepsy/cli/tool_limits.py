"""``--tool-limit``: tools that only so many executions may use at a time."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from scepsy.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from scepsy.model.plan import WorkflowRate
    from scepsy.traces.demand import WorkflowDemand


def limited(
    demands: Sequence["WorkflowDemand"], rates: Sequence["WorkflowRate"], texts: Sequence[str]
) -> tuple["WorkflowDemand", ...]:
    """The demands with gaps as long as limits like ``workflow/llm:role=4`` make them.

    Raises:
        InputError: a text is no limit, or names a stage that no tool follows.
        InfeasibleError: a tool is asked for more than it can do.
    """
    from scepsy.predict.pipeline import RatedWorkflow
    from scepsy.predict.tools import ToolLimit, with_tool_limits

    stages = {str(gap.after): gap.after for demand in demands for gap in demand.gaps}
    limits = []
    for text in texts:
        name, _, number = text.rpartition("=")
        if not number.isdecimal():
            raise InputError(
                f"`--tool-limit {text}` gives no number",
                hint="write it like `--tool-limit agent/qwen3-32b:planner=4`",
            )
        if name not in stages:
            raise UnknownNameError("stage that a tool follows", name, stages)
        limits.append(ToolLimit(stages[name], int(number)))
    rate_of = {rate.workflow: rate for rate in rates}
    return tuple(
        with_tool_limits(
            RatedWorkflow(demand, rate_of[demand.workflow]),
            [limit for limit in limits if limit.after.workflow == demand.workflow],
        ).demand
        for demand in demands
    )
