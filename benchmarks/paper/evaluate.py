"""The whole evaluation: recordings, profiles, then every system at every rate, in processes."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import ParamSpec, TypeVar

from benchmarks.paper.chain import Chain, Point, read_points, run_chain
from benchmarks.paper.settings import PUBLIC, SETTINGS, WORKLOADS, Part, Setting
from benchmarks.paper.systems import OUR_VARIANTS, OURS
from benchmarks.paper.variants import SHARING, VARIANTS, WRONG
from benchmarks.paper.workloads import (
    PARTS,
    Files,
    ProfileJob,
    Workload,
    keep_profiles,
    make_recording,
    profile,
    profile_jobs,
)
from benchmarks.recorded.sources import DATA
from scepsy.collector import collect_rarely
from scepsy.profiles.curve import ProfileCurve
from scepsy.sim.baselines.registry import BASELINES

Tell = Callable[[str], None]
_LARGE_WORKLOADS = ("rag_rerank",)
_LARGE_SYSTEMS = (OURS, "published", "independent", "even")
_SHARING_SYSTEMS = (OURS, "published")
_DRIFT_SYSTEMS = (OURS, "published", "user-given")
_SIDE_WORKLOADS = ("beam_search", "rag_rerank")


def workloads_at_hand(setting: Setting, files: Files, tell: Tell) -> list[str]:
    """The setting's workloads, those left out whose public recordings are not there."""
    found = []
    for name in setting.workloads:
        missing = [
            w
            for w in WORKLOADS[name].rates
            if w in PUBLIC
            and not (DATA / _FOLDER[w]).exists()
            and not files.recording(w, PARTS[0]).exists()
        ]
        if missing:
            tell(f"left out: {name}, as {DATA} has no {_FOLDER[missing[0]]}/; see SCEPSY_DATA")
        else:
            found.append(name)
    return found


_FOLDER = {"chatdev": "chatdev", "coding": "claude_code"}


def systems(setting: Setting) -> tuple[str, ...]:
    """The baselines and ours."""
    return setting.systems or (*BASELINES, OURS)


def chains(setting: Setting, names: Iterable[str]) -> list[Chain]:
    """All that is evaluated, what matters most first."""
    wanted = list(names)
    found = [chain for part in setting.parts for chain in _CHAINS[part](setting, wanted)]
    return sorted(found, key=lambda chain: _RANK[chain.part] + 2 * (chain.gpus > _SMALL))


_SMALL = 8
"""GPUs up to which the main part is evaluated before all others."""


def _main(setting: Setting, names: list[str]) -> Iterator[Chain]:
    for gpus in setting.clusters:
        for name in names:
            heavy = WORKLOADS[name].is_heavy
            for system in systems(setting):
                yield Chain(
                    part=Part.MAIN,
                    workload=name,
                    gpus=gpus,
                    system=system,
                    loads=setting.heavy_loads if heavy else setting.loads,
                    seeds=setting.seeds,
                )


def _sharing(setting: Setting, names: list[str]) -> Iterator[Chain]:
    for name in names:
        for system in _SHARING_SYSTEMS if name in _SIDE_WORKLOADS else ():
            if system in systems(setting):
                yield _side(setting, Part.SHARING, name, system, SHARING)


def _ablation(setting: Setting, names: list[str]) -> Iterator[Chain]:
    for name in names:
        for system in OUR_VARIANTS if name in _SIDE_WORKLOADS else ():
            if system != OURS:
                yield _side(setting, Part.ABLATION, name, system)


def _wrong(setting: Setting, names: list[str]) -> Iterator[Chain]:
    for name in names:
        for variant in WRONG if name in _SIDE_WORKLOADS else ():
            yield _side(setting, Part.WRONG, name, OURS, variant)


def _drift(setting: Setting, names: list[str]) -> Iterator[Chain]:
    for name in names:
        for variant in VARIANTS:
            is_mix, is_long = variant.startswith("more"), variant.startswith("longer")
            if (name == "both" and is_mix) or (name in _SIDE_WORKLOADS and is_long):
                for system in _DRIFT_SYSTEMS if "anew" not in variant else (OURS,):
                    if system in systems(setting):
                        yield _side(setting, Part.DRIFT, name, system, variant)


def _large(setting: Setting, names: list[str]) -> Iterator[Chain]:
    for gpus in setting.large_clusters:
        for name in names:
            for system in _LARGE_SYSTEMS if name in _LARGE_WORKLOADS else ():
                if system in systems(setting):
                    yield Chain(
                        part=Part.LARGE,
                        workload=name,
                        gpus=gpus,
                        system=system,
                        loads=setting.large_loads,
                        seeds=setting.large_seeds,
                        size=setting.large_size,
                    )


_CHAINS = {
    Part.MAIN: _main,
    Part.SHARING: _sharing,
    Part.ABLATION: _ablation,
    Part.WRONG: _wrong,
    Part.DRIFT: _drift,
    Part.LARGE: _large,
}
_RANK = {part: at / 10 for at, part in enumerate(_CHAINS)}


def _side(setting: Setting, part: Part, name: str, system: str, variant: str = "") -> Chain:
    return Chain(
        part=part,
        workload=name,
        gpus=setting.side_cluster,
        system=system,
        variant=variant,
        loads=setting.few_loads,
        seeds=setting.seeds,
    )


def evaluate(setting: Setting, files: Files, *, jobs: int, tell: Tell) -> list[Point]:
    """Do what is not done yet; give all results."""
    names = workloads_at_hand(setting, files, tell)
    workflows = list(dict.fromkeys(w for name in names for w in WORKLOADS[name].rates))
    with _pool(jobs) as pool:
        recorded = [
            _submit(pool, make_recording, files, workflow, part, setting)
            for workflow in workflows
            for part in PARTS
        ]
        for each in recorded:
            each.result()
        tell(f"recorded {', '.join(workflows)}")
        for workflow in workflows:
            _profile(pool, files, workflow, setting, tell)
        wanted = chains(setting, names)
        under_way = {_submit(pool, _run, chain, setting.name, files): chain for chain in wanted}
        for number, done in enumerate(as_completed(under_way), start=1):
            done.result()
            tell(f"{number}/{len(wanted)} {under_way[done].name}")
    return read_all(setting, files, tell)


def read_all(setting: Setting, files: Files, tell: Tell) -> list[Point]:
    """The results that there are."""
    wanted = chains(setting, workloads_at_hand(setting, files, tell))
    return [point for chain in wanted for point in read_points(_path(files, chain))]


def _profile(
    pool: Executor | None, files: Files, workflow: str, setting: Setting, tell: Tell
) -> None:
    jobs: list[ProfileJob] = profile_jobs(files, workflow, setting)
    if jobs:
        under_way = [
            _submit(pool, profile, files, workflow, job, setting.profiled_calls) for job in jobs
        ]
        curves: list[ProfileCurve] = [each.result() for each in under_way]
        keep_profiles(files, workflow, curves)
        tell(f"profiled {workflow}: {len(curves)} curves")


def _path(files: Files, chain: Chain) -> Path:
    return files.points / f"{chain.name}.jsonl"


def _run(chain: Chain, setting: str, files: Files) -> None:
    run_chain(chain, SETTINGS[setting], _workload(files, chain.workload), _path(files, chain))


@lru_cache(maxsize=2)
def _workload(files: Files, name: str) -> Workload:
    return Workload(files, name)


_P = ParamSpec("_P")
_R = TypeVar("_R")


def _pool(jobs: int) -> AbstractContextManager[Executor | None]:
    """Processes; none where one job at a time is enough."""
    if jobs == 1:
        collect_rarely()
        return nullcontext(None)
    return ProcessPoolExecutor(jobs, get_context("spawn"), initializer=collect_rarely)


def _submit(
    pool: Executor | None, work: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs
) -> Future[_R]:
    if pool is not None:
        return pool.submit(work, *args, **kwargs)
    done: Future[_R] = Future()
    done.set_result(work(*args, **kwargs))
    return done
