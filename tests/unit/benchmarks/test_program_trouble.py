"""What is measured beside the comparison: trouble, ablation, prefix reuse, fair shares."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from benchmarks.programs import ablation, prefix_reuse, robustness, scenario, shares
from benchmarks.programs.measure import measure
from benchmarks.programs.scenario import Scenario
from benchmarks.programs.systems import find_system
from benchmarks.programs.trouble import TROUBLES, Clients
from scepsy.policy.dispatch_settings import Settings
from scepsy.policy.program import NO_HINTS, TenantName
from tests.unit.benchmarks.made_up_sessions import data

__all__ = ["data"]
pytestmark = pytest.mark.usefixtures("data")
SMALL = Scenario(workload="swe", replicas=2, pressure=0.1)


@pytest.mark.parametrize("trouble", TROUBLES)
def test_nothing_is_lost_in_trouble(trouble: str) -> None:
    each = replace(SMALL, trouble=trouble)
    run = measure("ours", find_system("ours"), each, 0)
    assert run.scenario == f"{SMALL.name}-{trouble}"
    assert (run.executions, run.unfinished) == (6, 0)


def test_clients_say_what_happens_or_what_happens_elsewhere() -> None:
    script = SMALL.executions.scripts[0]
    clients = Clients([script], SMALL.executions.scripts, 0)
    hints, tool = clients.right("0-1")
    assert (hints.next_tool, tool) == ("Read", "Read")
    assert (hints.gap_s, hints.output_tokens) == (6.0, 100)
    assert clients.right("0-3") == (NO_HINTS, "")
    assert clients.wrong("0-1") == clients.wrong("0-1")
    assert {clients.wrong(f"0-{at}")[1] for at in range(20)} == {"Read", ""}


def test_trouble_is_told_over_runs_without() -> None:
    runs = {
        name: [replace(measure("fcfs", find_system("fcfs"), SMALL, 0), task_s=task_s)]
        for name, task_s in (("clean", 100.0), ("late", 109.0), ("cv1", 150.0), ("cv3", 166.0))
    }
    lines = robustness.table({"cell": runs}).splitlines()
    assert "| 1.090 |" in lines[3]
    assert lines[3].endswith("yes |")
    assert "| 1.660 | 1.107 |" in lines[5]  # other gaps, over gaps of the same mean
    assert lines[5].endswith("**no** |")
    assert len(robustness.variants(SMALL)) == 2 + len(TROUBLES) + len(robustness.GAP_CVS)


def test_each_mechanism_is_left_out_and_left_alone() -> None:
    whole = Settings()
    without, alone = ablation.mechanisms(whole), ablation.alone(whole)
    assert set(without) == set(alone) - {ablation.NONE}
    assert {"routes", "levels", "bound"} <= set(without)

    def unlike(one: Settings, other: Settings) -> int:
        return sum(getattr(one, each.name) != getattr(other, each.name) for each in fields(one))

    for name in without:
        assert unlike(whole, without[name]) == 1
        assert unlike(alone[ablation.NONE], alone[name]) == 1
    assert unlike(whole, alone[ablation.NONE]) == len(without)


def test_an_ablation_has_a_line_for_each_system() -> None:
    systems = ablation.systems()
    runs = {
        name: [measure(name, systems[name], SMALL, 0)]
        for name in (ablation.OURS, "without routes", ablation.NONE)
    }
    assert ablation.table({"cell": runs}).count("\n| ") == len(runs)


def test_a_trace_for_dynamo_has_the_same_calls(data: Path) -> None:
    scripts = prefix_reuse.recorded(data, seed=1)
    header, *rows = prefix_reuse.rows(scripts)
    assert header["block_size"] == prefix_reuse.BLOCK_TOKENS
    calls = [call for script in scripts for call in script.segment.calls]
    assert len(rows) == len(calls) == 16
    assert [row["input_length"] for row in rows] == [call.prompt_tokens for call in calls]
    first, second = rows[0], rows[1]
    assert first["dependencies"] == []
    assert second["dependencies"] == [
        {
            "request_id": "0-0",
            "trigger": "completion",
            "delay_ms": pytest.approx(15_000.0),
            "relation": "sequence",
        }
    ]
    assert second["hash_ids"][:16] == first["hash_ids"][:16]  # type: ignore[index]
    others = [row["hash_ids"] for row in rows if row["request_id"] == "1-0"]
    assert others[0][:8] == first["hash_ids"][:8]  # type: ignore[index]
    assert others[0][8] != first["hash_ids"][8]  # type: ignore[index]


def test_no_more_is_cached_than_an_earlier_call_had(data: Path) -> None:
    scripts = prefix_reuse.recorded(data, seed=0)
    best = prefix_reuse.most(scripts)
    got = prefix_reuse.ours(scripts, find_system("ours"), prefix_reuse.spec(16_384))
    assert got.calls == 16
    assert 0.5 < got.cached_fraction <= best < 1
    assert "| ours | 16 |" in prefix_reuse.table({"ours": got}, best)
    assert scenario.spec_of("h100", 64).block_tokens == 64


def test_service_is_compared_while_two_tenants_wait() -> None:
    found = shares.Shares()
    one, other = TenantName("a"), TenantName("b")
    for tenant in (one, other, one, other):
        found.waits(tenant)
    found.goes(one)
    found.served(one, 0.0, 2.0, 5.0)
    found.served(one, 1.0, 3.0, 4.0)
    assert found.largest_s == 9.0
    found.served(other, 0.0, 4.0, 20.0)  # 20 s from there, 11 s from the start
    assert found.largest_s == 20.0
    assert found.in_flight_s == 20.0
    found.goes(one)
    found.goes(other)
    found.goes(other)
    found.served(one, 5.0, 6.0, 50.0)  # neither waits
    assert found.largest_s == 20.0
    assert found.in_flight_s == 50.0
