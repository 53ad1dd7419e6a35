"""Recordings and profiles of the workloads: made once, kept in files, read by every process."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

from benchmarks.paper.record import record
from benchmarks.paper.settings import PUBLIC, WORKLOADS, Setting
from benchmarks.recorded.sources import CHATDEV_LLMS, chatdev, coding
from examples.beam_search.workflow import BeamSearch, SearchConfig
from examples.rag_rerank.workflow import RagConfig, RagRerank
from examples.workflow import ExampleWorkflow
from scepsy.model.cluster import Cluster, regular_cluster
from scepsy.model.execution import Call, CallId, Execution
from scepsy.model.plan import WorkflowRate
from scepsy.model.workflow import LlmName, Role, Stage, WorkflowName
from scepsy.profiles.catalog import find_gpu_type
from scepsy.profiles.curve import ProfileCurve, ProfileKey, ProfileSet
from scepsy.profiles.shapes import profile_shapes
from scepsy.profiles.step_time import EngineSpec
from scepsy.profiles.store import load_profiles, save_profiles
from scepsy.profiles.workload import Workload as StageWorkload
from scepsy.profiles.workload import poisson_arrivals, stage_workload
from scepsy.sim.arrivals import Stream
from scepsy.sim.baselines.base import Task
from scepsy.sim.profile import profile_workload
from scepsy.sim.script import Script, scripts
from scepsy.sim.specs import SpecOf, published
from scepsy.traces.demand import WorkflowDemand, demand
from scepsy.traces.store import SqliteTraceStore

BEAM_SEARCH = SearchConfig(expand=24, width=6, depth=8, margin=0.015)
"""Calls the generator about as often as the paper's: 24 to 844 times in an execution."""
EXAMPLES: Mapping[str, ExampleWorkflow] = {
    "beam_search": BeamSearch(config=BEAM_SEARCH),
    "rag_rerank": RagRerank(config=RagConfig(stream=False)),
}
CODING_LLMS: Mapping[str, str] = {
    "planner": "qwen3-32b",
    "coder": "qwen3-30b-a3b",
    "summariser": "qwen3-8b",
}
MAX_CHATDEV_GAP_S = 30.0
"""Longer ones (8 % of them) are taken for a person's or a lost connection, and cut to this."""
STRETCHES = 160
"""Of coding sessions."""
TRAINING, EVALUATION = "training", "evaluation"
PARTS = (TRAINING, EVALUATION)
"""Recorded with the seeds 0 and 1."""
_GPUS_PER_NODE = 8


def h100s(gpu: str, gpus: int) -> Cluster:
    """Nodes of 8 GPUs, or one of fewer, each one NVLink domain."""
    nodes, over = divmod(gpus, _GPUS_PER_NODE)
    per_node = _GPUS_PER_NODE if not over else gpus
    return regular_cluster(find_gpu_type(gpu), nodes=max(1, nodes), gpus_per_node=per_node)


@dataclass(frozen=True, slots=True)
class Files:
    """Where recordings, profiles and points of one setting lie."""

    folder: Path

    def recording(self, workflow: str, part: str) -> Path:
        """A trace store."""
        return self.folder / "recordings" / f"{workflow}-{part}.db"

    def profiles(self, workflow: str) -> Path:
        """A profile file."""
        return self.folder / "profiles" / f"{workflow}.json"

    @property
    def points(self) -> Path:
        """The folder of the results."""
        return self.folder / "points"


class Workload:
    """One workload with all that planning and simulating it takes."""

    def __init__(self, files: Files, name: str) -> None:
        self.setting = WORKLOADS[name]
        self._files = files

    @cached_property
    def demands(self) -> tuple[WorkflowDemand, ...]:
        """From the training executions."""
        return tuple(demand(self._read(name, TRAINING)) for name in self.setting.rates)

    @cached_property
    def profiles(self) -> ProfileSet:
        """From the training executions."""
        curves: list[ProfileCurve] = []
        for name in self.setting.rates:
            curves += load_profiles(self._files.profiles(name)).curves
        return ProfileSet(tuple(curves))

    @cached_property
    def training(self) -> Mapping[WorkflowName, tuple[Script, ...]]:
        """What systems are tuned on."""
        return self._scripts(TRAINING)

    @cached_property
    def evaluation(self) -> Mapping[WorkflowName, tuple[Script, ...]]:
        """What systems are compared on."""
        return self._scripts(EVALUATION)

    def rates(self, factor: float) -> tuple[WorkflowRate, ...]:
        """The proportions of the workload times a factor."""
        return tuple(
            WorkflowRate(WorkflowName(name), part * factor)
            for name, part in self.setting.rates.items()
        )

    def task(self, gpu: str, gpus: int, factor: float, own_spec_of: SpecOf = published) -> Task:
        """What every system is given."""
        return Task(
            demands=self.demands,
            profiles=self.profiles,
            cluster=h100s(gpu, gpus),
            rates=self.rates(factor),
            spec_of=own_spec_of,
        )

    def _read(self, workflow: str, part: str) -> tuple[Execution, ...]:
        with SqliteTraceStore.open(self._files.recording(workflow, part), create=False) as store:
            return tuple(store.executions())

    def _scripts(self, part: str) -> Mapping[WorkflowName, tuple[Script, ...]]:
        return {WorkflowName(n): scripts(self._read(n, part)) for n in self.setting.rates}


def streams(
    recorded: Mapping[WorkflowName, tuple[Script, ...]], rates: Iterable[WorkflowRate]
) -> list[Stream]:
    """Recorded executions that arrive at rates."""
    return [Stream(scripts=recorded[r.workflow], rate_per_s=r.rate_per_s) for r in rates]


def make_recording(files: Files, workflow: str, part: str, setting: Setting) -> None:
    """Record an example, or read what is public and take a half, unless it was done before."""
    path = files.recording(workflow, part)
    if path.exists():
        return
    if workflow in PUBLIC:
        recorded = _split(_chatdev() if workflow == "chatdev" else _coding(), workflow)[part]
    else:
        counts = dict(zip(PARTS, setting.recorded[workflow], strict=True))
        seed = PARTS.index(part)
        recorded = list(record(EXAMPLES[workflow], executions=counts[part], seed=seed))
    partial = path.with_suffix(".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial.unlink(missing_ok=True)
    with SqliteTraceStore.open(partial) as store:
        store.append([call for execution in recorded for call in execution.calls])
    partial.replace(path)


def make_recordings(files: Files, workflow: str, setting: Setting) -> None:
    """Both parts of a workflow's recordings."""
    for part in PARTS:
        make_recording(files, workflow, part, setting)


def _chatdev() -> list[Execution]:
    """With one role for all that share the third LLM, and without its longest gaps."""
    return [
        replace(run, calls=tuple(map(_with_few_roles, _gaps_cut(run.calls)))) for run in chatdev()
    ]


def _with_few_roles(call: Call) -> Call:
    return call if call.role in CHATDEV_LLMS else replace(call, role=Role("others"))


def _gaps_cut(calls: Sequence[Call]) -> Iterator[Call]:
    """Each gap between calls that come one after the other is at most so long."""
    end_s, earlier_s = calls[0].start_s, 0.0
    for call in calls:
        earlier_s += max(0.0, call.start_s - end_s - MAX_CHATDEV_GAP_S)
        end_s = max(end_s, call.end_s)
        yield replace(call, start_s=call.start_s - earlier_s, end_s=call.end_s - earlier_s)


def _coding() -> list[Execution]:
    """With LLMs that fit on few GPUs."""
    return [
        replace(part, calls=tuple(replace(c, llm=LlmName(CODING_LLMS[c.role])) for c in part.calls))
        for part in coding(STRETCHES)
    ]


def _split(recorded: Sequence[Execution], workflow: str) -> Mapping[str, list[Execution]]:
    """Every other session for training; parts of one session stay together."""
    sessions = sorted({_session(execution) for execution in recorded})
    training = set(sessions[::2])
    found: dict[str, list[Execution]] = {TRAINING: [], EVALUATION: []}
    for execution in recorded:
        part = TRAINING if _session(execution) in training else EVALUATION
        found[part].append(_named(execution, WorkflowName(workflow)))
    return found


def _session(execution: Execution) -> str:
    return execution.id.partition("@")[0]


def _named(execution: Execution, workflow: WorkflowName) -> Execution:
    calls: Iterator[Call] = (
        replace(call, workflow=workflow, execution=execution.id, id=CallId(f"{execution.id}/{at}"))
        for at, call in enumerate(execution.calls)
    )
    return Execution(execution.id, workflow, tuple(calls))


ProfileJob = tuple[Stage, ProfileKey, EngineSpec]


def profile_jobs(files: Files, workflow: str, setting: Setting) -> list[ProfileJob]:
    """What to profile of a workflow's stages; nothing where it was done before."""
    if files.profiles(workflow).exists():
        return []
    executions = _training(files, workflow)
    jobs: list[ProfileJob] = []
    for stage in sorted({call.stage for each in executions for call in each.calls}):
        workload = stage_workload(executions, stage)
        for shape in profile_shapes(workload, stage.llm, setting.gpu):
            for replicas in setting.replicas:
                key = ProfileKey(
                    stage=stage,
                    gpu_type=find_gpu_type(setting.gpu).name,
                    tensor_parallel=shape.tensor_parallel,
                    gpu_fraction=shape.gpu_fraction,
                    replicas=replicas,
                )
                jobs.append((stage, key, shape.spec))
    return jobs


def profile(files: Files, workflow: str, job: ProfileJob, min_calls: int) -> ProfileCurve:
    """One curve."""
    stage, key, spec = job
    workload = _stage_workload(files, workflow, stage)
    arrivals = poisson_arrivals(workload, min_calls=min_calls, seed=0)
    return profile_workload(workload, arrivals, spec, key)


@lru_cache(maxsize=4)
def _stage_workload(files: Files, workflow: str, stage: Stage) -> StageWorkload:
    return stage_workload(_training(files, workflow), stage)


def keep_profiles(files: Files, workflow: str, curves: Iterable[ProfileCurve]) -> None:
    """Write a workflow's profile file."""
    path = files.profiles(workflow)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_profiles(path, ProfileSet(tuple(curves)))


def _training(files: Files, workflow: str) -> tuple[Execution, ...]:
    with SqliteTraceStore.open(files.recording(workflow, TRAINING), create=False) as store:
        return tuple(store.executions())
