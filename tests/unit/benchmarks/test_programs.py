"""The comparison on recorded sessions: on made-up ones in the recorded formats."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean, pstdev

import pytest

from benchmarks.programs import page, results, scenario, sessions, tables, tenants
from benchmarks.programs.measure import Run, measure
from benchmarks.programs.optimum import Admission, over_optimum
from benchmarks.programs.scenario import Scenario, Users, spec_of
from benchmarks.programs.systems import SYSTEMS, find_system
from scepsy.errors import UnknownNameError
from scepsy.model.execution import ReplicaName
from tests.unit.benchmarks.made_up_sessions import data, swe

__all__ = ["data"]
pytestmark = pytest.mark.usefixtures("data")


def test_pauses_cut_sessions_and_answers_begin_the_next_prompt() -> None:
    halves = [sessions.workload("coding", half).scripts for half in sessions.HALVES]
    assert [len(each) for each in halves] == [4, 4]
    long = next(script for script in halves[0] if len(script.stages) == 3)
    calls = long.segment.calls
    assert [call.after_s for call in calls] == [0.0, 15.0, 15.0]
    assert [call.prefix_blocks for call in calls] == [4, 6, 8]
    assert [call.shared_blocks for call in calls] == [2, 2, 2]
    assert list(map(str, long.tools)) == ["tool", "tool", ""]


def test_tools_are_named_and_what_a_provider_had_cached_is_shared() -> None:
    script = sessions.workload("swe", "tuning").scripts[0]
    assert list(map(str, script.tools)) == ["Read", "Read", "Read", ""]
    assert {call.shared_blocks for call in script.segment.calls} == {1024 // sessions.BLOCK_TOKENS}
    first, second = (call.blocks for call in script.segment.calls[:2])
    assert second[: len(first)] == first


def test_conversations_are_found_by_what_their_prompts_begin_with() -> None:
    for half in sessions.HALVES:
        scripts = sessions.workload("chat", half).scripts
        assert len(scripts) == 3
        assert all(len(script.segment.calls) == 2 for script in scripts)
        assert all(script.segment.calls[1].after_s > 50 for script in scripts)


def test_users_begin_within_a_time_and_go_on_at_once() -> None:
    scripts = sessions.workload("swe", "tuning").scripts
    users = Users(scripts, users=3, within_s=10.0, seed=1)
    assert 0 <= users.next_s <= 10
    for _ in range(3):
        users.take()
    assert users.next_s == float("inf")
    users.ended(20.0)
    assert users.take().at_s == 20.0


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_serves_what_counts(name: str) -> None:
    each = Scenario(workload="swe", replicas=2, pressure=0.1)
    run = measure(name, find_system(name), each, 0, belady=True)

    assert (run.executions, run.unfinished) == (6, 0)
    assert len(run.tasks_s) == 6
    assert run.task_p99_s == pytest.approx(max(run.tasks_s), abs=0.01)
    assert 0 < run.served_s < run.task_s
    assert 0 < run.computed_fraction <= 1
    assert run.misses_over_belady == pytest.approx(1.0)


def test_every_yardstick_has_a_page() -> None:
    pages = (Path(page.__file__).parents[2] / "docs/reference/yardsticks.md").read_text()
    undescribed = {name for name in SYSTEMS if f"`{name}`" not in pages}
    assert undescribed <= {"prefix-aware", "ours", "ours-lru"}  # described elsewhere


def test_more_pressure_is_more_users() -> None:
    users = [Scenario(workload="coding", pressure=pressure).users for pressure in (0.5, 1.0, 2.0)]
    assert users[1] == pytest.approx(2 * users[0], abs=1)
    assert users[2] == pytest.approx(2 * users[1], abs=1)


def test_host_memory_is_named_and_all_systems_get_as_much() -> None:
    cells = scenario.grid(workloads=("swe",), pressures=(4.0,), host_gib=(0.0, 256.0))
    without, beside = cells["swe-h100-4-4"], cells["swe-h100-4-4-host256"]
    spec = beside.spec

    assert (without.spec.host_blocks, without.spec.host_block_s) == (0, 0.0)
    block_bytes = scenario.kv_bytes_per_token() * spec.block_tokens
    assert spec.host_blocks == int(256 * 2**30 / block_bytes)
    assert 0 < spec.host_block_s < spec.block_tokens * 1e-5
    assert beside.users == without.users  # pressure is of what GPUs hold
    run = measure("ours", SYSTEMS["ours"], replace(beside, pressure=1.0), 0)
    assert (run.scenario, run.host_gib) == ("swe-h100-4-1-host256", 256.0)


def test_gaps_are_drawn_with_the_mean_of_those_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Scenario(workload="swe").executions
    monkeypatch.setattr(
        scenario, "workload", lambda *_: replace(recorded, scripts=recorded.scripts * 300)
    )
    gaps = [
        call.after_s
        for script in scenario.with_gaps("swe", "tuning", 0.5).scripts
        for call in script.segment.calls
        if call.waits_for
    ]
    scenario.with_gaps.cache_clear()
    assert fmean(gaps) == pytest.approx(6.0, rel=0.1)
    assert pstdev(gaps) == pytest.approx(3.0, rel=0.2)


def test_nothing_is_lost_with_a_replica() -> None:
    clean, faulty = (
        Scenario(workload="swe", replicas=2, pressure=0.05, loses=loses) for loses in (False, True)
    )
    assert faulty.name == f"{clean.name}-loss"
    runs = [measure("ours", find_system("ours"), each, 0) for each in (clean, faulty)]
    assert [run.unfinished for run in runs] == [0, 0]
    assert runs[0].task_s != runs[1].task_s


def test_ten_tenants_ask_for_so_much_of_the_gpus(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gzip.open(data / "agentcgroup" / "sessions.jsonl.gz", "wt") as lines:
        for number in range(12):
            made = swe(number)
            lines.write(json.dumps({**made, "steps": made["steps"][: 2 + number % 3]}) + "\n")
    monkeypatch.setattr(tenants, "WARM_UP", 5)
    monkeypatch.setattr(tenants, "COUNTED", 30)
    each = Scenario(workload="swe", replicas=1)
    script = each.executions.scripts
    whole = tenants.rate_at(1.0, script, each.spec, replicas=2)
    assert tenants.rate_at(0.5, script, each.spec, replicas=4) == pytest.approx(whole)

    got = tenants.attained("fcfs", find_system("fcfs"), each, 0.1, 0)

    assert (got.executions, got.unfinished) == (30, 0)
    assert got.in_time == got.worst_tenant_in_time == 1.0
    assert (got.late, got.apart_s) == ((), 0.0)
    assert got.in_flight_s > 0
    assert all(slowdown < tenants.SLACK for slowdown in got.slowdown_by_tenant.values())

    monkeypatch.setattr(tenants, "SLACK", 0.0)
    (first, *_) = tenants.attained("ours", find_system("ours"), each, 0.1, 0).late
    assert (first.door_s, first.cold_calls) == (0.0, 0)
    assert abs(first.answers_s) < 1.0


def test_a_system_that_is_not_known_is_named() -> None:
    with pytest.raises(UnknownNameError, match="fastest"):
        find_system("fastest")


def test_the_optimum_keeps_what_is_used_next() -> None:
    """Room for two chains of three."""
    spec = spec_of("h100", 256)
    size = spec.kv_blocks // 2
    chains = [tuple(range(n * size, n * size + size - 1)) for n in range(3)]

    def call(at: int, which: int, cached: int) -> Admission:
        return Admission(
            replica=ReplicaName("a"),
            start_s=2.0 * at,
            end_s=2.0 * at + 1,
            prompt_tokens=size * 256,
            cached_tokens=cached,
            blocks=size,
            prompt=chains[which],
            chain=chains[which],
            counts=True,
        )

    order = [0, 1, 2, 0, 1]
    calls = [call(at, which, 0) for at, which in enumerate(order)]
    tokens, seconds = over_optimum(calls, spec)

    # The optimum drops the second for the third, and so finds the first again.
    assert tokens == pytest.approx(5 / 4, rel=0.01)
    assert seconds > 1


def run_of(system: str, seed: int, task_s: float) -> Run:
    fields = dict.fromkeys(Run.__dataclass_fields__, 1.0)
    del fields["host_gib"]  # as in rows that were recorded before there was any
    names = {"system": system, "scenario": "swe-h100-4-1", "half": "tuning", "seed": seed}
    return results.as_run(
        {**fields, **names, "task_s": task_s, "tasks_s": (task_s,), "unfinished": 0}
    )


def test_results_are_read_as_they_were_written_and_the_last_counts(tmp_path: Path) -> None:
    path = tmp_path / "out" / "runs.jsonl"
    assert results.read(path) == {}
    for task_s in (3.0, 4.0):
        results.add(path, run_of("fcfs", 0, task_s))
    assert results.read(path) == {("tuning", "swe-h100-4-1", "fcfs", 0): run_of("fcfs", 0, 4.0)}


def test_systems_are_compared_seed_by_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [run_of(tables.BASE, seed, 10.0 + seed) for seed in range(3)]
    runs += [run_of("fcfs", seed, 2 * (10.0 + seed)) for seed in range(3)]
    cells = tables.by_cell(runs)
    ratio = tables.faster(cells["swe-h100-4-1"], "fcfs", tables.BASE)
    assert ratio is not None
    assert (ratio.value, ratio.half) == (pytest.approx(0.5), pytest.approx(0.0))
    assert "| h100-4-1 (1) | 1.00 | 0.50 |" in tables.over_workloads(cells, [tables.BASE, "fcfs"])

    monkeypatch.setattr(page, "PAGE", tmp_path / "page.md")
    begin = "<!-- {}: written by `python -m benchmarks.programs --page` -->\n"
    marks = [begin.format(name) + f"<!-- {name}: end -->" for name in ("workloads", "results")]
    page.PAGE.write_text("# Page\n\n" + "\n\n".join(marks) + "\n\nThe end.\n")
    for _ in range(2):
        page.write(runs, ["fcfs"])
    text = page.PAGE.read_text()
    assert text.count("### On the `tuning` half") == 1
    assert text.endswith("The end.\n")
    assert "`coding`, tuning | 4 | 2.0" in text


def test_cells_with_host_memory_are_compared_with_and_without_it() -> None:
    def with_host(system: str, task_s: float) -> Run:
        return replace(run_of(system, 0, task_s), scenario="swe-h100-4-1-host512")

    bare = [run_of(tables.BASE, 0, 12.0), run_of("ours", 0, 9.0)]
    cells = tables.by_cell([*bare, with_host(tables.BASE, 8.0), with_host("ours", 4.0)])
    table = tables.over_workloads(cells, [tables.BASE, "ours"])
    assert "| h100-4-1 (1) | 1.00 | 1.33 |" in table
    assert "| h100-4-1-host512 (1) | 1.00 | 2.00 |" in table
    table = tables.over_bare(cells, [tables.BASE, "ours"])
    assert (
        table.splitlines()[0] == f"| cells (workloads) | {tables.BASE}, with host memory | ours |"
    )
    assert table.splitlines()[2:] == ["| h100-4-1-host512 (1) | 1.50 | 3.00 |"]
    assert list(tables.with_host(cells)) == ["swe-h100-4-1-host512"]
