"""``scepsy profile``: latency against load of each recorded stage, on each shape of a replica."""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scepsy.cli.output import JsonOption, print_json, print_table, progress, say
from scepsy.errors import InputError

if TYPE_CHECKING:
    from scepsy.model.workflow import LlmName, Stage
    from scepsy.profiles.curve import ProfileCurve, ProfileKey
    from scepsy.profiles.step_time import EngineSpec
    from scepsy.profiles.workload import Arrivals, Workload

    Job = tuple[ProfileKey, EngineSpec]

_HEADER = ("stage", "GPU", "TP", "fraction", "replicas", "calls/s", "idle s", "80 % s", "from")


def profile(
    *,
    traces: Annotated[Path, typer.Option(help="Trace store with the workflows' executions.")],
    gpu: Annotated[str, typer.Option(help="GPU type, e.g. h100.")] = "h100",
    workflow: Annotated[str | None, typer.Option(help="Only this workflow.")] = None,
    tp: Annotated[
        str | None, typer.Option(help="Tensor parallel degrees, e.g. 1,2,4. Default: those useful.")
    ] = None,
    fraction: Annotated[
        str | None, typer.Option(help="GPU fractions, e.g. 0.5,1. Default: a few that fit.")
    ] = None,
    replicas: Annotated[str, typer.Option(help="Replicas that share a load.")] = "1,2,4",
    rename: Annotated[
        list[str] | None,
        typer.Option("--map", help="Read a recorded LLM as a known one: `gpt-4o=qwen3-32b`."),
    ] = None,
    output: Annotated[Path, typer.Option(help="Profile file; what is in it stays.")] = Path(
        "profiles.json"
    ),
    seed: Annotated[int, typer.Option(help="Decides the order of executions and gaps.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = os.cpu_count() or 1,
    as_json: JsonOption = False,
) -> None:
    """Profile every recorded stage: replay its calls at rising loads, up to saturation.

    It runs on the engine model, with published step times of the GPU.

    Example: `scepsy profile --traces traces.db --gpu h100 --output profiles.json`
    """
    from scepsy.profiles.curve import ProfileSet
    from scepsy.profiles.store import load_profiles, save_profiles

    known = load_profiles(output) if output.exists() else ProfileSet(())
    workloads = _workloads(traces, workflow)
    degrees = None if tp is None else _whole("tp", tp)
    fractions = None if fraction is None else _fractions(fraction)
    counts = _whole("replicas", replicas)
    names = _renames(rename or [])
    planned = _plan_jobs(workloads, gpu, names, degrees, fractions, counts)
    curves = _profile(workloads, planned, seed, jobs)
    save_profiles(output, known.updated(curves))
    if as_json:
        print_json(sorted(curves, key=lambda curve: curve.key))
    else:
        print_table("Capacity per replica and latency", _HEADER, _rows(curves))
    for source in sorted({curve.source for curve in curves}):
        say(f"from {source}")
    say(f"wrote {output}: {len(curves)} curves new")


def _workloads(traces: Path, workflow: str | None) -> dict["Stage", "Workload"]:
    """The recorded calls of each stage, those of which no call ended well left out, and said."""
    from scepsy.errors import MissingError
    from scepsy.model.workflow import WorkflowName
    from scepsy.profiles.workload import stage_workload
    from scepsy.traces.store import SqliteTraceStore

    name = None if workflow is None else WorkflowName(workflow)
    with SqliteTraceStore.open(traces, create=False) as store:
        selected = [summary.workflow for summary in store.select(name)]
        executions = {w: list(store.executions(w)) for w in selected}
    workloads: dict[Stage, Workload] = {}
    for recorded in executions.values():
        for stage in sorted({call.stage for one in recorded for call in one.calls}):
            try:
                workloads[stage] = stage_workload(recorded, stage)
            except MissingError as error:
                say(f"left out: {error}")
    if not workloads:
        raise MissingError(f"no call in {traces} ended well", hint="record the workflow again")
    return workloads


def _whole(option: str, text: str) -> list[int]:
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = [0]
    if numbers[0] < 1:
        raise InputError(
            f"`--{option} {text}` is not a list of whole numbers > 0",
            hint=f"write it like `--{option} 1,2,4`",
        )
    return numbers


def _fractions(text: str) -> list[float]:
    try:
        numbers = sorted({float(part) for part in text.split(",")})
    except ValueError:
        numbers = [0.0]
    if not 0 < numbers[0] <= numbers[-1] <= 1:
        raise InputError(
            f"`--fraction {text}` is not a list of numbers in (0, 1]",
            hint="write it like `--fraction 0.3,0.5,1`",
        )
    return numbers


def _renames(texts: Sequence[str]) -> dict["LlmName", str]:
    from scepsy.model.workflow import LlmName

    names: dict[LlmName, str] = {}
    for text in texts:
        recorded, _, known = text.partition("=")
        if not recorded or not known:
            raise InputError(
                f"`--map {text}` is not a pair of names", hint="write it like gpt-4o=qwen3-32b"
            )
        names[LlmName(recorded)] = known
    return names


def _plan_jobs(
    workloads: Mapping["Stage", "Workload"],
    gpu: str,
    names: Mapping["LlmName", str],
    degrees: Sequence[int] | None,
    fractions: Sequence[float] | None,
    counts: Sequence[int],
) -> list["Job"]:
    """What to profile, that which takes longest first."""
    from scepsy.profiles.catalog import find_gpu_type
    from scepsy.profiles.curve import ProfileKey
    from scepsy.profiles.shapes import profile_shapes

    gpu_type = find_gpu_type(gpu).name
    if unused := names.keys() - {stage.llm for stage in workloads}:
        raise InputError(f"`--map`: no LLM was recorded as {', '.join(sorted(unused))}")
    return [
        (
            ProfileKey(
                stage=stage,
                gpu_type=gpu_type,
                tensor_parallel=shape.tensor_parallel,
                gpu_fraction=shape.gpu_fraction,
                replicas=count,
            ),
            shape.spec,
        )
        for count in sorted(counts, reverse=True)
        for stage, workload in workloads.items()
        for shape in profile_shapes(
            workload,
            names.get(stage.llm, stage.llm),
            gpu_type,
            degrees=degrees,
            fractions=fractions,
        )
    ]


def _profile(
    workloads: Mapping["Stage", "Workload"], planned: Sequence["Job"], seed: int, jobs: int
) -> list["ProfileCurve"]:
    """Do the jobs, in this process or in several."""
    curves: list[ProfileCurve] = []
    with progress(f"profiling {len(planned)} shapes", len(planned)) as advance:
        if jobs == 1:
            _begin(workloads, seed)
            for job in planned:
                curves.append(_do(job))
                advance()
            return curves
        pool = ProcessPoolExecutor(
            jobs, get_context("spawn"), initializer=_begin, initargs=(workloads, seed)
        )
        with pool:
            for done in as_completed([pool.submit(_do, job) for job in planned]):
                curves.append(done.result())
                advance()
    return curves


_work: dict["Stage", tuple["Workload", "Arrivals"]] = {}
"""What a process replays, so that it is sent once and not with every job."""


def _begin(workloads: Mapping["Stage", "Workload"], seed: int) -> None:
    from scepsy.profiles.workload import poisson_arrivals
    from scepsy.sim.profile import MIN_CALLS

    _work.clear()
    for stage, workload in workloads.items():
        _work[stage] = workload, poisson_arrivals(workload, min_calls=MIN_CALLS, seed=seed)


def _do(job: "Job") -> "ProfileCurve":
    from scepsy.sim.profile import profile_workload

    key, spec = job
    return profile_workload(*_work[key.stage], spec, key)


def _rows(curves: Sequence["ProfileCurve"]) -> Iterator[tuple[str, ...]]:
    """One for each shape of a replica, with the fewest replicas that were profiled."""
    fewest: dict[tuple[object, ...], ProfileCurve] = {}
    for curve in sorted(curves, key=lambda curve: curve.key):
        key = curve.key
        fewest.setdefault((key.stage, key.gpu_type, key.tensor_parallel, key.gpu_fraction), curve)
    for curve in fewest.values():
        key = curve.key
        yield (
            str(key.stage),
            key.gpu_type,
            str(key.tensor_parallel),
            f"{key.gpu_fraction:g}",
            str(key.replicas),
            f"{curve.capacity_per_s:.3g}",
            f"{curve.latency_s(0.0):.3g}",
            f"{curve.latency_s(0.8):.3g}",
            curve.provenance.value,
        )
