"""The one knob: on made-up runs, and on made-up sessions."""

import sys
from dataclasses import fields
from math import inf
from pathlib import Path

import pytest

from benchmarks.programs import frontier, page, results, side_runs
from benchmarks.programs.frontier import DEFAULT, NEVER
from benchmarks.programs.measure import Run
from benchmarks.programs.systems import find_system
from scepsy.policy.dispatch_program import ByProgram
from scepsy.policy.dispatch_settings import Settings
from tests.unit.benchmarks.made_up_sessions import data

__all__ = ["data"]


def run_of(patience: float, seed: int, an_hour: float, *, unfinished: int = 0) -> Run:
    given = dict.fromkeys(Run.__dataclass_fields__, 1.0)
    names = {"system": frontier.name(patience), "scenario": "swe-h100-4-4", "half": "tuning"}
    measured = {
        "executions_per_s": an_hour / 3600,
        "ttft_p99_s": 100 + min(patience, 500.0),
        "seed": seed,
    }
    other = {"tasks_s": (1.0,), "unfinished": unfinished}
    return results.as_run({**given, **names, **measured, **other})


def cell(*runs: Run) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.system, []).append(run)
    return found


CELL = cell(
    run_of(5.0, 1, 400.0),
    run_of(5.0, 0, 200.0),
    run_of(DEFAULT, 0, 190.0),
    run_of(DEFAULT, 1, 360.0),
    run_of(inf, 0, 100.0, unfinished=2),
    run_of(inf, 1, 200.0),
    run_of(inf, 2, 9000.0),  # the others lack this seed
)


def test_throughput_is_told_over_the_most_seed_by_seed() -> None:
    points = frontier.frontier(CELL)
    assert [point.patience for point in points] == [DEFAULT, 5.0, inf]
    assert [[run.seed for run in point.runs] for point in points] == [[0, 1]] * 3
    assert [point.part.value for point in points] == pytest.approx([0.925, 1.0, 0.5])
    assert points[0].part.half == pytest.approx(12.706 * 0.025)
    assert [point.part.half for point in points[1:]] == [0.0, 0.0]


def test_a_table_has_a_line_for_each_value_and_marks_the_default() -> None:
    lines = frontier.table(frontier.frontier(CELL)).splitlines()
    assert lines[2].startswith(f"| **{DEFAULT:g}** | 275 ± 1,080 | 92.5% ± 31.8% | 1 ± 0 |")
    assert lines[3].endswith("| 105.0 ± 0.0 |")
    assert "(2 unfinished)" in lines[4]
    single = frontier.table(frontier.frontier(cell(run_of(2.5, 0, 90.0), run_of(inf, 0, 60.0))))
    assert single.splitlines()[2:] == [
        "| 2.5 | 90 | 100.0% | 1 | 1 | 102.5 |",
        "| never ends | 60 | 66.7% | 1 | 1 | 600.0 |",
    ]


def test_nothing_but_patience_differs() -> None:
    for patience, set_to in ((0.0, 0.0), (2.5, 2.5), (inf, NEVER)):
        made = frontier.system(patience).dispatcher()
        assert isinstance(made, ByProgram)
        assert made.settings.patience == set_to
        for each in fields(Settings):
            if each.name != "patience":
                assert getattr(made.settings, each.name) == getattr(Settings(), each.name)
    assert frontier.system(2.5).retention is find_system("ours").retention
    assert DEFAULT in frontier.VALUES


def test_equal_runs_give_an_equal_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "PAGE", tmp_path / "page.md")
    mark = f"<!-- frontier: written by `{frontier.COMMAND}` -->"
    page.PAGE.write_text(f"# Page\n\n{mark}\nold\n<!-- frontier: end -->\n\nThe end.\n")
    points = frontier.frontier(CELL)
    found = {"swe-h100-4-4": points, "swe-h100-4-4-host512": points, "chat-h100-4-4": points}
    pictures, texts = [], []
    for _ in range(2):
        frontier.write(found, "reporting")
        pictures.append((tmp_path / frontier.PICTURE).read_bytes())
        texts.append(page.PAGE.read_text())
    assert pictures[0] == pictures[1]
    assert texts[0] == texts[1]
    assert "old" not in texts[0]
    assert texts[0].endswith("<!-- frontier: end -->\n\nThe end.\n")
    assert f"]({frontier.PICTURE})" in texts[0]
    assert texts[0].count("2 seeds\n") == 3
    drawn = pictures[0].decode()
    assert drawn.startswith("<svg")
    for text in ("chat", "swe", "h100-4-4-host512", f"the default, {DEFAULT:g}", "∞"):
        assert f">{text}</text>" in drawn


@pytest.mark.usefixtures("data")
def test_the_command_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = "--workloads swe --pressures 0.1 --replicas 2 --host-gib 0,64 --patience inf,1 --out"

    def told(*more: str) -> str:
        monkeypatch.setattr(sys, "argv", ["frontier", *asked.split(), str(tmp_path / "out"), *more])
        frontier.main()
        return capsys.readouterr().out

    first = told()
    assert "**swe-h100-2-0.1**, 1 seed\n" in first
    assert "**swe-h100-2-0.1-host64**, 1 seed\n" in first
    assert first.count("| never ends |") == 2
    written = (tmp_path / "out" / frontier.FILE).read_text()
    assert written.count("\n") == 4
    monkeypatch.setattr(side_runs, "measure", None)  # nothing is run again
    assert told() == first
    assert (tmp_path / "out" / frontier.FILE).read_text() == written
    monkeypatch.setattr(page, "PAGE", tmp_path / "page.md")
    page.PAGE.write_text("")
    assert told("--page") == ""
    assert page.PAGE.read_text().count("| never ends |") == 2


def test_patience_is_not_negative(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["frontier", "--patience", "1,-2"])
    with pytest.raises(SystemExit):
        frontier.main()
    assert "patience is 0 or more, or inf, not 1,-2" in capsys.readouterr().err
