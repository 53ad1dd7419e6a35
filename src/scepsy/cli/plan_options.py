"""The options of ``scepsy plan``, and what their texts mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from scepsy.errors import InputError

if TYPE_CHECKING:
    from scepsy.model.plan import WorkflowRate, WorkflowWeight
    from scepsy.model.workflow import LlmName
    from scepsy.search.limits import Limits, LlmLimits
    from scepsy.traces.store import SqliteTraceStore

Traces = Annotated[Path, typer.Option(help="Trace store with the workflows' executions.")]
Profiles = Annotated[Path, typer.Option(help="Profiles of the workflows' stages.")]
ClusterFile = Annotated[Path, typer.Option("--cluster", help="Cluster file: what GPUs there are.")]
Rates = Annotated[
    list[str],
    typer.Option(
        "--rate",
        help="Executions per second, as `workflow=4`; just `4` if only one was recorded. "
        "Repeat for each workflow to plan for.",
    ),
]
SloText = Annotated[
    str | None,
    typer.Option("--slo", help="Bound on execution latency (mean, p50, p95, p99): `p95 <= 30s`."),
]
Weights = Annotated[
    list[str] | None,
    typer.Option(
        "--weight", help="How much a second of a workflow's latency counts: `workflow=2`."
    ),
]
GoalName = Annotated[
    str,
    typer.Option(
        "--goal",
        help="`latency`: least latency at the rates; `rate`: largest rates, in their proportions; "
        "`gpus`: fewest GPUs; `cost`: least price per hour, by the cluster file's prices.",
    ),
]
ObjectiveName = Annotated[
    str,
    typer.Option(
        "--objective",
        help="Over several workflows: `mean`, their weighted mean latency; `max-min`, that of "
        "the one that is slowed down most, so that none starves.",
    ),
]
Output = Annotated[Path | None, typer.Option("--output", help="Write the plan to this file.")]
GpuShares = Annotated[
    int,
    typer.Option(min=1, help="A GPU is divided into so many shares; 1: whole GPUs only."),
]
ToolLimits = Annotated[
    list[str] | None,
    typer.Option(
        "--tool-limit",
        help="So many executions at a time may use the tools that follow a stage's calls, as "
        "`workflow/llm:role=4`; waiting for them is added to what was recorded. Repeatable.",
    ),
]
Best = Annotated[
    int, typer.Option(min=1, help="Compare so many plans of distinct allocations, best first.")
]
Why = Annotated[
    bool,
    typer.Option("--why", help="Say what one GPU more or less and other TP degrees would do."),
]
Frontier = Annotated[
    bool, typer.Option("--frontier", help="Latency against throughput, as a table.")
]
Picture = Annotated[
    Path | None,
    typer.Option("--picture", help="With `--frontier`: draw it to this .svg, .png or .html file."),
]
Prove = Annotated[
    bool,
    typer.Option("--prove", help="Prove or improve the placement by constraint programming."),
]
ProveSeconds = Annotated[
    float, typer.Option("--prove-seconds", min=0.1, help="Time for each goal of `--prove`.")
]
From = Annotated[
    Path | None,
    typer.Option("--from", help="The plan that runs: move little, and print the steps."),
]
Tolerance = Annotated[
    float,
    typer.Option(
        min=0, max=1, help="With `--from`: part of the latency given up to move less: `0.02`."
    ),
]
LimitsPath = Annotated[
    Path | None, typer.Option("--limits", help="Limits file: what the plan must keep.")
]
Pins = Annotated[
    list[str] | None, typer.Option("--pin", help="The only TP degree of an LLM: `llm=2`.")
]
MinReplicas = Annotated[
    list[str] | None, typer.Option("--min-replicas", help="Replicas of an LLM at least: `llm=2`.")
]
Alone = Annotated[
    list[str] | None,
    typer.Option("--alone", help="An LLM that shares no GPU; `all` for every LLM."),
]
FreeGpus = Annotated[
    int | None, typer.Option(min=0, help="GPUs that stay untouched, whichever they are.")
]
Survive = Annotated[
    str | None,
    typer.Option("--survive", help="Sustain the rates after any `1 node` (or `1 rack`) is lost."),
]
TargetName = Annotated[
    str | None,
    typer.Option(
        "--target",
        help="Shares that the deployment can express: `any`, `whole-gpus`, `k8s-mps-equal`.",
    ),
]

PredictorName = Annotated[
    str,
    typer.Option(
        "--predictor",
        help="Whose figures the plan carries: `pipeline`, which the search also optimises; "
        "`critical-path`, which re-times the recorded executions and chooses among the best "
        "plans that the search finds; `simulator`, which serves the recorded executions in virtual "
        "time by those plans and by what lies near the best of them.",
    ),
]
RankSeconds = Annotated[
    float,
    typer.Option(
        "--rank-seconds",
        min=1,
        help="Time for the simulations of `--predictor simulator`, about; then the best so far "
        "is taken. Enough of it gives the same plan each time.",
    ),
]


@dataclass(frozen=True, slots=True)
class RequestTexts:
    """What is asked for, as it was given on the command line."""

    rates: Sequence[str]
    slo: str | None
    weights: Sequence[str] | None
    objective: str
    units_per_gpu: int
    tool_limits: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class LimitTexts:
    """The limits, as they were given on the command line; None where they were not."""

    path: Path | None = None
    pins: Sequence[str] | None = None
    min_replicas: Sequence[str] | None = None
    alone: Sequence[str] | None = None
    free_gpus: int | None = None
    survive: str | None = None
    target: str | None = None


def parse_limits(texts: LimitTexts) -> "Limits":
    """The limits of the file, with those of the options over them.

    Raises:
        MissingError: there is no such file.
        InputError: a limit cannot be read.
    """
    from scepsy.files.limits_file import LimitsFile, load_limits
    from scepsy.model.cluster import GpuId
    from scepsy.model.workflow import LlmName
    from scepsy.search.limits import Limits, LlmLimits, Target, parse_survive

    file = LimitsFile() if texts.path is None else load_limits(texts.path)
    llms: dict[LlmName, LlmLimits] = {
        LlmName(name): LlmLimits(
            tensor_parallel=entry.tensor_parallel,
            min_replicas=entry.min_replicas,
            share=entry.share,
        )
        for name, entry in file.llms.items()
    }
    for text in texts.pins or ():
        _change(llms, text, "pin", "tensor_parallel")
    for text in texts.min_replicas or ():
        _change(llms, text, "min-replicas", "min_replicas")
    alone = texts.alone or ()
    for name in {*alone} - {"all"}:
        llms[LlmName(name)] = _with(llms.get(LlmName(name)), share=False)
    survive = texts.survive or file.survive
    return Limits(
        llms=llms,
        share=file.share and "all" not in alone,
        free_gpus=file.free_gpus if texts.free_gpus is None else texts.free_gpus,
        keep_free=frozenset(map(GpuId, file.keep_free)),
        survive=None if survive is None else parse_survive(survive),
        target=parse_choice("target", texts.target or file.target, Target),
    )


def _change(llms: "dict[LlmName, LlmLimits]", text: str, option: str, field_: str) -> None:
    from scepsy.model.workflow import LlmName

    name, _, number = text.rpartition("=")
    if not name or not number.isdigit():
        raise InputError(
            f"`--{option} {text}` is not an LLM and a number",
            hint=f"write it like `--{option} qwen3-32b=2`",
        )
    llms[LlmName(name)] = _with(llms.get(LlmName(name)), **{field_: int(number)})


def _with(own: "LlmLimits | None", **changes: int | bool) -> "LlmLimits":
    from dataclasses import replace

    from scepsy.search.limits import LlmLimits

    return replace(own or LlmLimits(), **changes)  # type: ignore[arg-type]


_Choice = TypeVar("_Choice", bound=StrEnum)


def parse_choice(option: str, text: str, kind: type[_Choice]) -> _Choice:
    """A value of an enumeration by its name.

    Raises:
        InputError: it has none of that name.
    """
    try:
        return kind(text)
    except ValueError:
        raise InputError(
            f"`--{option} {text}`: there is no such {option}", hint=f"known: {', '.join(kind)}"
        ) from None


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


def parse_weights(texts: Sequence[str]) -> tuple["WorkflowWeight", ...]:
    """Read ``workflow=2``.

    Raises:
        InputError: no workflow, or no number.
    """
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
