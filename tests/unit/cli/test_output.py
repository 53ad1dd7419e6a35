"""How commands talk."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import typer

from scepsy.cli.output import fail, print_json, print_json_line, print_table, progress, say
from scepsy.errors import InputError
from scepsy.model.provenance import Provenance
from scepsy.model.workflow import LlmName, Stage, WorkflowName


@dataclass(frozen=True, slots=True)
class Row:
    stage: Stage
    provenance: Provenance
    path: Path
    tags: frozenset[str]
    bound_s: float


def test_json_holds_our_values(capsys: pytest.CaptureFixture[str]) -> None:
    stage = Stage(WorkflowName("w"), LlmName("m"))
    print_json([Row(stage, Provenance.ASSUMED, Path("a/b"), frozenset("ba"), float("inf"))])
    printed = capsys.readouterr()
    assert json.loads(printed.out) == [
        {
            "stage": {"workflow": "w", "llm": "m", "role": ""},
            "provenance": "assumed",
            "path": "a/b",
            "tags": ["a", "b"],
            "bound_s": None,
        }
    ]
    assert printed.err == ""


def test_json_holds_arrays_and_keys_that_are_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({3: np.array([0.5, 2.0])})
    assert json.loads(capsys.readouterr().out) == {"3": [0.5, 2.0]}


def test_a_json_line_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_json_line({"url": "http://x", "tags": {"b", "a"}})
    assert capsys.readouterr().out == '{"url":"http://x","tags":["a","b"]}\n'


def test_json_refuses_what_it_does_not_know() -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        print_json(object())


def test_a_piped_table_is_neither_cut_nor_read_as_markup(
    capsys: pytest.CaptureFixture[str],
) -> None:
    wide = "x" * 150
    print_table("Stages", ["LLM", "share"], [[f"[bold]{wide}[/bold]", "0.5"], ["[/]", "10"]])
    title, header, first, second = capsys.readouterr().out.splitlines()
    assert title.strip() == "Stages"
    assert header.split() == ["LLM", "share"]
    assert first.split() == [f"[bold]{wide}[/bold]", "0.5"]
    assert second.split() == ["[/]", "10"]
    assert header.endswith("share")
    assert second.endswith("   10")


def test_failure_says_what_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as caught:
        fail(InputError("port [red] is not in [0, 65535]", hint="choose [another]"))
    printed = capsys.readouterr()
    assert caught.value.exit_code == 1
    assert printed.out == ""
    assert printed.err.splitlines() == [
        "error: port [red] is not in [0, 65535]",
        "hint: choose [another]",
    ]


def test_failure_without_a_hint_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        fail(InputError("no"))
    assert capsys.readouterr().err == "error: no\n"


def test_talk_and_progress_leave_stdout_to_data(capsys: pytest.CaptureFixture[str]) -> None:
    say("started")
    with progress("working", total=4) as advance:
        advance()
        advance.at(3.0, total=5.0)
        advance(2.0)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("started")
