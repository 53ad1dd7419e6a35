"""``scepsy profile``: latency against load of each recorded stage, on each shape of a replica."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
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

MapOption = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        help="Read a recorded LLM as a known one, `gpt-4o=qwen3-32b`, or as one given by the "
        "config.json of its checkpoint: `gpt-4o=llms/mine/config.json`.",
    ),
]
EngineOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Measure a live engine instead, e.g. http://127.0.0.1:8000. It runs on --gpu with "
        "one --tp, --fraction and --replicas (1 where not given).",
    ),
]
_HEADER = ("stage", "GPU", "TP", "fraction", "replicas", "calls/s", "idle s", "80 % s", "from")


def profile(
    *,
    traces: Annotated[Path, typer.Option(help="Trace store with the workflows' executions.")],
    gpu: Annotated[str, typer.Option(help="GPU type, e.g. h100.")] = "h100",
    workflow: Annotated[
        list[str] | None, typer.Option(help="Only this workflow; repeatable.")
    ] = None,
    tp: Annotated[
        str | None, typer.Option(help="Tensor parallel degrees, e.g. 1,2,4. Default: those useful.")
    ] = None,
    fraction: Annotated[
        str | None, typer.Option(help="GPU fractions, e.g. 0.5,1. Default: a few that fit.")
    ] = None,
    replicas: Annotated[
        str | None, typer.Option(help="Replicas that share a load.", show_default="1,4")
    ] = None,
    rename: MapOption = None,
    engine: EngineOption = None,
    speedup: Annotated[
        float | None, typer.Option(help="How much faster than silicon an emulated --engine runs.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Profile file; what is in it stays.")] = Path(
        "profiles.json"
    ),
    seed: Annotated[int, typer.Option(help="Decides the order of executions and gaps.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = os.cpu_count() or 1,
    as_json: JsonOption = False,
) -> None:
    """Profile every recorded stage: replay its calls at rising loads, up to saturation.

    It runs on the engine model, with step times that are published or else fitted; or, with
    `--engine`, on a live engine over HTTP: the stages of the LLMs that it serves, in real time.

    Example: `scepsy profile --traces traces.db --gpu h100 --output profiles.json`
    """
    from scepsy.profiles.curve import ProfileSet
    from scepsy.profiles.store import load_profiles, save_profiles

    if engine is None and speedup is not None:
        raise InputError("`--speedup` is of an emulated engine", hint="add --engine URL")
    known = load_profiles(output) if output.exists() else ProfileSet(())
    workloads = _workloads(traces, workflow or [None])
    degrees = None if tp is None else _whole("tp", tp)
    fractions = None if fraction is None else _fractions(fraction)
    counts = None if replicas is None else _whole("replicas", replicas)
    names = _renames(rename or [], workloads)
    if engine is None:
        planned = _plan_jobs(workloads, gpu, names, degrees, fractions, counts or [1, 4])
        curves = _profile(workloads, planned, seed, jobs)
    else:
        keys = _keys(workloads, gpu, *_only(degrees, fractions, counts))
        curves = _measure(workloads, keys, names, engine, speedup, seed)
    save_profiles(output, known.updated(curves))
    if as_json:
        print_json(sorted(curves, key=lambda curve: curve.key))
    else:
        print_table("Capacity per replica and latency", _HEADER, _rows(curves))
    for source in sorted({curve.source for curve in curves}):
        say(f"from {source}")
    say(f"wrote {output}: {len(curves)} curves new")


def _workloads(traces: Path, wanted: Sequence[str | None]) -> dict["Stage", "Workload"]:
    """The recorded calls of each stage, those of which no call ended well left out, and said."""
    from scepsy.errors import MissingError
    from scepsy.model.workflow import WorkflowName
    from scepsy.profiles.workload import stage_workload
    from scepsy.traces.store import SqliteTraceStore

    names = [None if name is None else WorkflowName(name) for name in wanted]
    with SqliteTraceStore.open(traces, create=False) as store:
        selected = [found.workflow for name in names for found in store.select(name)]
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


def _only(
    degrees: Sequence[int] | None, fractions: Sequence[float] | None, counts: Sequence[int] | None
) -> tuple[int, float, int]:
    """The one shape that a live engine has."""
    shapes = [
        (degree, fraction, count)
        for degree in degrees or [1]
        for fraction in fractions or [1.0]
        for count in counts or [1]
    ]
    if len(shapes) > 1:
        raise InputError(
            f"`--engine` has one shape, not {len(shapes)}",
            hint="give one --tp, one --fraction and one --replicas",
        )
    return shapes[0]


def _renames(texts: Sequence[str], workloads: Mapping["Stage", "Workload"]) -> dict["LlmName", str]:
    from scepsy.errors import UnknownNameError
    from scepsy.model.workflow import LlmName

    names: dict[LlmName, str] = {}
    recorded = {stage.llm for stage in workloads}
    for text in texts:
        name, _, known = text.partition("=")
        if not name or not known:
            raise InputError(
                f"`--map {text}` is not a pair of names", hint="write it like gpt-4o=qwen3-32b"
            )
        if name not in recorded:
            raise UnknownNameError("recorded LLM", name, recorded)
        names[LlmName(name)] = known
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
    from scepsy.profiles.shapes import profile_shapes

    gpu_type = find_gpu_type(gpu).name
    shapes = {
        stage: profile_shapes(
            workload,
            names.get(stage.llm, stage.llm),
            gpu_type,
            degrees=degrees,
            fractions=fractions,
        )
        for stage, workload in workloads.items()
    }
    return [
        (key, shape.spec)
        for count in sorted(counts, reverse=True)
        for stage, fitting in shapes.items()
        for shape in fitting
        for key in _keys([stage], gpu_type, shape.tensor_parallel, shape.gpu_fraction, count)
    ]


def _keys(
    stages: Iterable["Stage"], gpu: str, degree: int, fraction: float, count: int
) -> list["ProfileKey"]:
    from scepsy.model.cluster import GpuTypeName
    from scepsy.profiles.curve import ProfileKey

    return [
        ProfileKey(
            stage=stage,
            gpu_type=GpuTypeName(gpu),
            tensor_parallel=degree,
            gpu_fraction=fraction,
            replicas=count,
        )
        for stage in stages
    ]


def _measure(
    workloads: Mapping["Stage", "Workload"],
    keys: Sequence["ProfileKey"],
    names: Mapping["LlmName", str],
    url: str,
    speedup: float | None,
    seed: int,
) -> list["ProfileCurve"]:
    """Measure the stages of the LLMs that the engine says it serves."""
    import asyncio

    from scepsy.clock import ScaledClock
    from scepsy.model.provenance import Provenance
    from scepsy.profiles.measure import UTILIZATIONS, LiveEngine, fetch_models, measure_stage

    served = asyncio.run(fetch_models(url))
    known = [key for key in keys if names.get(key.stage.llm, key.stage.llm) in served]
    if not known:
        raise InputError(
            f"{url} serves {', '.join(served) or 'nothing'}, of which nothing was recorded",
            hint=f"recorded: {', '.join(sorted({key.stage.llm for key in keys}))}; "
            "`--map recorded=served` gives one another name",
        )
    curves: list[ProfileCurve] = []
    with progress(f"measuring {url}", len(known) * (1 + len(UTILIZATIONS))) as advance:
        for key in known:
            engine = LiveEngine(
                url=url,
                model=names.get(key.stage.llm, key.stage.llm),
                clock=ScaledClock(speedup or 1.0),
                provenance=Provenance.MEASURED if speedup is None else Provenance.SIMULATED,
                source=f"measured over HTTP at {url}"
                + ("" if speedup is None else ", an emulated engine"),
            )
            work = measure_stage(workloads[key.stage], key, engine, seed=seed, progress=advance)
            curves.append(asyncio.run(work))
    return curves


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
    from scepsy.collector import collect_rarely
    from scepsy.profiles.workload import poisson_arrivals
    from scepsy.sim.profile import MIN_CALLS

    collect_rarely()
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
            _provenance(curve),
        )


def _provenance(curve: "ProfileCurve") -> str:
    bar = "" if curve.error_fraction is None else f" ±{curve.error_fraction:.0%}"
    return f"{curve.provenance}{bar}"
