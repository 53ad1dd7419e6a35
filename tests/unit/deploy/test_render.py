from dataclasses import replace
from pathlib import Path

from scepsy.deploy.local import GatewayOptions, ListeningReplica, gateway_arguments
from scepsy.deploy.render import emulated_engines
from scepsy.model.cluster import GpuType, GpuTypeName, regular_cluster
from scepsy.model.execution import ReplicaName
from scepsy.model.plan import Allocation, PlacedReplica, Placement, Plan, Prediction, ReplicaGroup
from scepsy.model.workflow import LlmName
from scepsy.units import GIB

H100 = GpuType(name=GpuTypeName("h100"), memory_bytes=80 * 1024**3)


def plan() -> Plan:
    cluster = regular_cluster(H100, nodes=1, gpus_per_node=2)
    both = tuple(gpu.id for gpu in cluster.gpus)
    big, small = LlmName("big"), LlmName("small")
    groups = (
        ReplicaGroup(llm=big, gpu_type=H100.name, tensor_parallel=2, gpu_fraction=0.7),
        ReplicaGroup(
            llm=small, gpu_type=H100.name, tensor_parallel=1, replicas=2, gpu_fraction=0.3
        ),
    )
    placed = (
        PlacedReplica(ReplicaName("big-0"), big, both, 0.7),
        PlacedReplica(ReplicaName("small-0"), small, both[:1], 0.3),
        PlacedReplica(ReplicaName("small-1"), small, both[1:], 0.3),
    )
    return Plan(
        cluster=cluster,
        rates=(),
        slo=None,
        allocation=Allocation(groups),
        placement=Placement(placed),
        prediction=Prediction("pipeline", ()),
    )


def test_each_replica_becomes_one_engine_of_its_shape() -> None:
    commands = emulated_engines(plan(), speedup=4, scripts=(Path("a.py"),))
    assert [command.replica for command in commands] == ["big-0", "small-0", "small-1"]
    assert commands[0].arguments == (
        "engine",
        "--model=big",
        "--gpu=h100",
        "--tp=2",
        "--gpu-fraction=0.7",
        "--speedup=4",
        "--port=0",
        "--script=a.py",
    )
    assert "--tp=1" in commands[1].arguments
    assert "--gpu-fraction=0.3" in commands[1].arguments


def test_replicas_that_take_turns_have_one_process_named_by_the_widest() -> None:
    both = plan()
    groups = [replace(group, replicas=1) for group in both.allocation.groups]
    turns = (tuple(group.llm for group in groups),)
    placement = Placement(both.placement.replicas[:2])
    taking = replace(both, allocation=Allocation(tuple(groups), turns), placement=placement)

    (command,) = emulated_engines(taking, speedup=4)

    assert (command.replica, command.llm) == ("big-0", "big")
    assert command.beside == (("small-0", "small"),)
    assert command.arguments == (
        "engine",
        "--model=big",
        "--gpu=h100",
        "--tp=2",
        "--gpu-fraction=0.7",
        "--beside=small=1@0.3",
        "--speedup=4",
        "--port=0",
    )


def test_engines_that_offload_to_host_memory_are_told_how_much() -> None:
    host_bytes = {LlmName("big"): 512 * GIB}
    first, *others = emulated_engines(plan(), speedup=4, host_bytes=host_bytes)

    assert "--host-gib=512" in first.arguments
    assert not any("--host-gib" in argument for each in others for argument in each.arguments)


def test_engines_that_take_turns_have_host_memory_each() -> None:
    both = plan()
    groups = tuple(replace(group, replicas=1) for group in both.allocation.groups)
    allocation = Allocation(groups, turns=(tuple(group.llm for group in groups),))
    placement = Placement(both.placement.replicas[:2])
    taking = replace(both, allocation=allocation, placement=placement)

    (command,) = emulated_engines(taking, speedup=4, host_bytes={LlmName("small"): 0.5 * GIB})

    assert "--beside=small=1@0.3+0.5" in command.arguments
    assert not any("--host-gib" in argument for argument in command.arguments)


LISTENING = (
    ListeningReplica(ReplicaName("big-0"), LlmName("big"), "http://127.0.0.1:1"),
    ListeningReplica(ReplicaName("small-3"), LlmName("small"), "http://127.0.0.1:2"),
)


def test_a_gateway_in_front_of_a_plan_knows_it_and_its_replicas_by_name() -> None:
    arguments = gateway_arguments(LISTENING, GatewayOptions(plan=Path("plan.json")))
    assert "--plan=plan.json" in arguments
    assert "--replica=small-3=http://127.0.0.1:2" in arguments


def test_the_gateway_gets_every_replica_and_stays_on_loopback() -> None:
    arguments = gateway_arguments(LISTENING, GatewayOptions(speedup=4, port=0, record=Path("t.db")))
    assert not any(a.startswith("--plan") for a in arguments)
    assert "--replica=big=http://127.0.0.1:1" in arguments
    assert "--replica=small=http://127.0.0.1:2" in arguments
    assert "--host=127.0.0.1" in arguments
    assert "--record=t.db" in arguments
    assert not any(a.startswith("--record") for a in gateway_arguments([], GatewayOptions()))
