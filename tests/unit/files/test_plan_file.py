"""Plan files: what is written is read back; what is no plan is refused."""

from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from scepsy.errors import InputError, MissingError
from scepsy.files.plan_file import dump_plan, load_plan, save_plan
from scepsy.model.cluster import GpuType, GpuTypeName, regular_cluster
from scepsy.model.plan import (
    Allocation,
    Plan,
    Prediction,
    ReplicaGroup,
    StagePrediction,
    WorkflowPrediction,
    WorkflowRate,
)
from scepsy.model.provenance import Provenance
from scepsy.model.slo import parse_slo
from scepsy.model.workflow import LlmName, Role, Stage, WorkflowName
from scepsy.place.pack import Unplaced, pack

LLM, WORKFLOW = LlmName("llm"), WorkflowName("w")


def a_plan() -> Plan:
    gpu = GpuType(name=GpuTypeName("h100"), memory_bytes=80 * 1024**3)
    cluster = regular_cluster(gpu, nodes=1, gpus_per_node=2)
    allocation = Allocation(
        (ReplicaGroup(llm=LLM, gpu_type=gpu.name, tensor_parallel=2, replicas=3, gpu_fraction=0.3),)
    )
    placement = pack(allocation, cluster)
    assert not isinstance(placement, Unplaced)
    stage = StagePrediction(
        stage=Stage(WORKFLOW, LLM, Role("planner")),
        utilization=1 / 3,
        call_s=0.1,
        contribution_s=0.7,
        provenance=Provenance.INTERPOLATED,
    )
    workflow = WorkflowPrediction(
        workflow=WORKFLOW,
        rate_per_s=2.0,
        execution_s_mean=0.9,
        execution_s_p50=0.8,
        execution_s_p95=1.5,
        execution_s_p99=2.5,
        gap_s_mean=0.2,
        capacity_per_s=6.0,
        capacity_alone_per_s=6.0,
        bottleneck=LLM,
        bottleneck_alone=LLM,
        stages=(stage,),
    )
    return Plan(
        cluster=cluster,
        rates=(WorkflowRate(WORKFLOW, 2.0),),
        slo=parse_slo("p95 <= 2s"),
        allocation=allocation,
        placement=placement,
        prediction=Prediction("pipeline", (workflow,)),
        objective_s=0.9,
        bound_s=0.85,
        passed_over=4,
    )


def turns_plan() -> Plan:
    """Twice two LLMs by turns, the wide one on two GPUs, and a third LLM for itself."""
    gpu = GpuType(name=GpuTypeName("h100"), memory_bytes=80 * 1024**3)
    cluster = regular_cluster(gpu, nodes=1, gpus_per_node=5)
    alone, small, wide = LlmName("alone"), LlmName("small"), LlmName("wide")
    allocation = Allocation(
        (
            ReplicaGroup(llm=alone, gpu_type=gpu.name, tensor_parallel=1),
            ReplicaGroup(
                llm=small, gpu_type=gpu.name, tensor_parallel=1, replicas=2, gpu_fraction=0.3
            ),
            ReplicaGroup(
                llm=wide, gpu_type=gpu.name, tensor_parallel=2, replicas=2, gpu_fraction=0.7
            ),
        ),
        turns=((small, wide),),
    )
    placement = pack(allocation, cluster)
    assert not isinstance(placement, Unplaced)
    return replace(a_plan(), cluster=cluster, allocation=allocation, placement=placement)


@pytest.mark.parametrize("plan", [a_plan(), turns_plan()])
def test_a_plan_survives_the_file(tmp_path: Path, plan: Plan) -> None:
    path = tmp_path / "plan.json"

    save_plan(path, plan)

    assert load_plan(path) == plan
    assert path.read_bytes() == dump_plan(load_plan(path))
    assert [file.name for file in tmp_path.iterdir()] == ["plan.json"]


def test_a_plan_of_before_there_were_turns_has_none(tmp_path: Path) -> None:
    content = orjson.loads(dump_plan(a_plan()))
    del content["plan"]["allocation"]["turns"]
    path = tmp_path / "plan.json"
    path.write_bytes(orjson.dumps(content))

    assert load_plan(path) == a_plan()


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([["small"]], "to take turns needs two LLMs of the plan"),
        ([["nobody", "small"]], "to take turns needs two LLMs of the plan"),
        ([["wide", "small"]], "to take turns needs two LLMs of the plan, sorted"),
        ([["alone", "small"]], "alone, small take turns, but not on the same GPUs"),
        ([["small", "wide"], ["small", "wide"]], "takes turns with one set of others"),
        ("small", "allocation.turns: input should be a valid tuple"),
    ],
)
def test_turns_that_make_no_sense_are_refused(tmp_path: Path, turns: object, message: str) -> None:
    content = orjson.loads(dump_plan(turns_plan()))
    content["plan"]["allocation"]["turns"] = turns
    path = tmp_path / "plan.json"
    path.write_bytes(orjson.dumps(content))

    with pytest.raises(InputError, match=f"plan.json is a broken plan: .*{message}"):
        load_plan(path)


@pytest.mark.parametrize(
    ("replica", "where", "message"),
    [
        ("small-0", ["node-0/4"], "small, wide take turns, but on GPU .* there is"),
        ("wide-0", ["node-0/1", "node-0/0"], "small, wide take turns, but on GPU .* there is"),
        ("alone-0", ["node-0/0"], "alone-0 shares a GPU with small-0, wide-0"),
    ],
)
def test_those_that_take_turns_must_sit_together_and_alone(
    tmp_path: Path, replica: str, where: list[str], message: str
) -> None:
    content = orjson.loads(dump_plan(turns_plan()))
    gpus = [gpu["id"] for gpu in content["plan"]["cluster"]["gpus"]]
    for placed in content["plan"]["placement"]["replicas"]:
        if placed["name"] == replica:
            placed["gpus"] = [gpus[int(at.rpartition("/")[2])] for at in where]
    path = tmp_path / "plan.json"
    path.write_bytes(orjson.dumps(content))

    with pytest.raises(InputError, match=message):
        load_plan(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "is not a plan: "),
        (b"[]", "is not a plan file"),
        (b'{"format": "scepsy-profiles", "version": 1}', "is not a plan file"),
        (b'{"format": "scepsy-plan", "version": 99}', "version 99; this Scepsy reads version 1"),
        (b'{"format": "scepsy-plan", "version": 1}', "is a broken plan"),
    ],
)
def test_what_is_no_plan_is_refused(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(text)

    with pytest.raises(InputError, match=message):
        load_plan(path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("replicas", -1, "replicas must be >= 1"),
        ("gpu_fraction", 1.5, "gpu_fraction 1.5 is not in"),
        ("tensor_parallel", "wide", "allocation.groups.0.tensor_parallel: input should be"),
    ],
)
def test_a_plan_changed_into_nonsense_is_refused(
    tmp_path: Path, key: str, value: object, message: str
) -> None:
    content = orjson.loads(dump_plan(a_plan()))
    content["plan"]["allocation"]["groups"][0][key] = value
    path = tmp_path / "plan.json"
    path.write_bytes(orjson.dumps(content))

    with pytest.raises(InputError, match=message):
        load_plan(path)


def test_a_missing_plan_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(MissingError) as error:
        load_plan(tmp_path / "plan.json")
    assert "scepsy plan --output" in (error.value.hint or "")


def test_a_plan_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot write the plan to .*No such file or directory"):
        save_plan(tmp_path / "none" / "plan.json", a_plan())
