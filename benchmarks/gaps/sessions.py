"""Recorded sessions as calls and gaps, played as events of live executions."""

import gzip
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scepsy.model.execution import ExecutionId
from scepsy.model.workflow import LlmName, Role, Stage, WorkflowName
from scepsy.policy.learned_curve import Forecast
from scepsy.policy.program import NO_TOOL, Hints, Program, ToolName
from scepsy.policy.program_table import CallArrived, CallEnded, Programs

DATA = Path(os.environ.get("SCEPSY_DATA", "../shared/data"))
HORIZON_S = 3_600.0
"""A gap that is longer is taken to have no end."""
EVERY_S = 60.0
"""A session starts after each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One call of a session."""

    start_s: float
    end_s: float
    stage: Stage
    tool: ToolName
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Gap:
    """What is known when it begins, and how long it was; None: longer than the horizon."""

    program: Program
    gap_s: float | None


Session = Sequence[Step]
GapId = tuple[ExecutionId, float]
"""An execution, and when its gap began."""


def sessions(name: str) -> list[Session]:
    read = {"claude_code": claude_code, "agentcgroup": agentcgroup}[name]
    with gzip.open(DATA / name / "sessions.jsonl.gz") as lines:
        return [sorted(read(json.loads(line)), key=lambda step: step.start_s) for line in lines]


def claude_code(session: dict) -> Iterator[Step]:  # type: ignore[type-arg]
    for entry in session["requests"]:
        nested = entry["type"] == "subagent"
        for request in entry["requests"] if nested else [entry]:
            start_s = request["t"] + (entry["t"] if nested else 0.0)
            llm = LlmName(request["model"])
            yield Step(
                start_s=start_s,
                end_s=start_s + (request.get("api_time") or 0.0),
                stage=Stage(WorkflowName("claude-code"), llm, Role("sub" if nested else "main")),
                tool=ToolName("tool") if request.get("stop") == "tool_use" else NO_TOOL,
                prompt_tokens=request["in"],
                output_tokens=request["out"],
            )


def agentcgroup(session: dict) -> Iterator[Step]:  # type: ignore[type-arg]
    for step in session["steps"]:
        stage = Stage(
            WorkflowName(session["group"]),
            LlmName(step["model"] or "?"),
            Role("sub" if step["side"] else "main"),
        )
        names = sorted({tool["name"] for tool in step["tools"]})
        yield Step(
            start_s=step["t_req"],
            end_s=max(step["t_end"], step["t_req"]),
            stage=stage,
            tool=ToolName("+".join(names)),
            prompt_tokens=step["in"] + (step["cache_read"] or 0) + (step["cache_new"] or 0),
            output_tokens=step["out_chars"] // 4,
        )


def run(
    programs: Programs, several: Sequence[Session], hinted_s: Mapping[GapId, float] | None = None
) -> Iterator[tuple[Gap, Forecast]]:
    """Play sessions side by side; give each gap when it is over, with what was forecast for it."""
    hinted_s = hinted_s or {}
    open_gaps: dict[ExecutionId, tuple[Program, Forecast]] = {}
    now_s = 0.0
    for now_s, order, number, step in _events(several):
        for gone in programs.expire(now_s):
            known, forecast = open_gaps.pop(gone.execution)
            yield Gap(known, None), forecast
        execution = ExecutionId(str(number))
        if order == _STARTS:
            if execution in open_gaps:
                known, forecast = open_gaps.pop(execution)
                yield Gap(known, now_s - known.gap_start_s), forecast
            gap_s = hinted_s.get((execution, number * EVERY_S + step.end_s))
            programs.arrived(
                CallArrived(
                    execution=execution,
                    stage=step.stage,
                    prompt_tokens=step.prompt_tokens,
                    hints=Hints(gap_s=gap_s) if gap_s else None,
                ),
                now_s,
            )
            programs.started(execution)
        else:
            _end(programs, execution, step, now_s)
            program = programs.get(execution)
            if program is not None and not program.calls_in_flight:
                open_gaps[execution] = _snapshot(program), programs.learned.gap(program, now_s)
    for gone in programs.expire(now_s + HORIZON_S):
        known, forecast = open_gaps.pop(gone.execution)
        yield Gap(known, None), forecast


_ENDS, _STARTS, _ENDS_AT_ONCE = range(3)
"""The order of events at one instant."""


def _events(several: Sequence[Session]) -> list[tuple[float, int, int, Step]]:
    found = []
    for number, session in enumerate(several):
        at_s = number * EVERY_S
        for step in session:
            ends = _ENDS if step.end_s > step.start_s else _ENDS_AT_ONCE
            found.append((at_s + step.start_s, _STARTS, number, step))
            found.append((at_s + step.end_s, ends, number, step))
    return sorted(found, key=lambda event: event[:3])


def _end(programs: Programs, execution: ExecutionId, step: Step, now_s: float) -> None:
    programs.ended(
        CallEnded(
            execution=execution,
            stage=step.stage,
            output_tokens=step.output_tokens,
            kv_tokens=step.prompt_tokens + step.output_tokens,
            tool=step.tool,
        ),
        now_s,
    )


def _snapshot(program: Program) -> Program:
    """What a forecast looks at, as it is now."""
    return Program(
        execution=program.execution,
        tenant=program.tenant,
        workflow=program.workflow,
        start_s=program.start_s,
        stage=program.stage,
        tool=program.tool,
        hints=program.hints,
        gap_start_s=program.gap_start_s,
    )
