"""The engines of an allocation: their memory where LLMs take turns."""

from dataclasses import replace

import pytest

from scepsy.errors import InfeasibleError
from scepsy.model.cluster import GpuTypeName
from scepsy.model.plan import Allocation, ReplicaGroup
from scepsy.model.workflow import LlmName
from scepsy.profiles.catalog import find_llm, memory_move_s
from scepsy.profiles.step_time import EngineSpec
from scepsy.sim.specs import offloading, published, specs_of
from scepsy.units import GIB
from tests.property.made_up_times import DyadicTimes

BIG, SMALL, ALONE = map(LlmName, ("big", "small", "alone"))
H100 = GpuTypeName("h100")
BLOCKS = {BIG: 1000, SMALL: 4000, ALONE: 1000}
"""In all the memory, if there were no weights."""
WEIGHTS = {BIG: 0.5, SMALL: 0.1, ALONE: 0.2}


def spec_of(llm: LlmName, _gpu_type: GpuTypeName, _degree: int, fraction: float) -> EngineSpec:
    blocks = round(BLOCKS[llm] * (fraction - WEIGHTS[llm]))
    if blocks < 1:
        raise InfeasibleError(f"{llm} does not fit {fraction:g} of a GPU")
    return EngineSpec(times=DyadicTimes(), kv_blocks=blocks)


def group(llm: LlmName, fraction: float) -> ReplicaGroup:
    return ReplicaGroup(
        llm=llm, gpu_type=H100, tensor_parallel=1, replicas=1, gpu_fraction=fraction
    )


def by_turns(big: float = 0.6, small: float = 0.4) -> Allocation:
    groups = (group(ALONE, 0.5), group(BIG, big), group(SMALL, small))
    return Allocation(groups, turns=((BIG, SMALL),))


def test_at_its_turn_an_llm_has_all_memory_that_no_weights_take() -> None:
    specs = specs_of(by_turns(), spec_of)

    assert specs[BIG].kv_blocks == 400
    assert specs[SMALL].kv_blocks == 1600
    assert specs[ALONE] == spec_of(ALONE, H100, 1, 0.5)
    other = specs_of(by_turns(big=0.7, small=0.3), spec_of)
    assert [other[llm].kv_blocks for llm in (BIG, SMALL)] == [400, 1600], "whoever has which part"


def test_a_block_takes_as_long_to_move_as_its_part_of_the_memory() -> None:
    specs = specs_of(by_turns(), spec_of)

    assert specs[BIG].host_block_s == pytest.approx(memory_move_s(H100) / 1000)
    assert specs[SMALL].host_block_s == pytest.approx(memory_move_s(H100) / 4000)
    assert 1 < memory_move_s(H100) < memory_move_s(GpuTypeName("a100"))


def test_weights_must_fit_each_part() -> None:
    with pytest.raises(InfeasibleError, match="big does not fit"):
        specs_of(by_turns(big=0.5), spec_of)


def test_what_has_the_same_memory_on_every_part_keeps_it() -> None:
    same = EngineSpec(times=DyadicTimes(), kv_blocks=70)

    specs = specs_of(by_turns(), lambda *_: same)

    assert {spec.kv_blocks for spec in specs.values()} == {70}


def test_host_memory_goes_to_the_llms_that_have_it_at_their_turn_too() -> None:
    big, small = LlmName("qwen3-8b"), LlmName("qwen3-0.6b")
    groups = (group(small, 0.4), group(big, 0.6))
    host_bytes = 64 * GIB

    for turns in ((), ((small, big),)):
        allocation = Allocation(groups, turns=turns)
        plain = specs_of(allocation, published)
        specs = specs_of(allocation, offloading(published, {big: host_bytes}))

        assert specs[small] == plain[small]
        token_bytes = find_llm(big).replica_kv_bytes_per_token(1)
        assert specs[big].host_blocks == host_bytes // (token_bytes * specs[big].block_tokens)
        assert specs[big].host_block_s > 0
        assert replace(specs[big], host_blocks=0, host_block_s=0.0) == replace(
            plain[big], host_block_s=0.0
        )
