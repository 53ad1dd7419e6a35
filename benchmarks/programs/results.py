"""Runs as JSON lines: read what is there, add what is new."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from benchmarks.programs.measure import Run

Key = tuple[str, str, str, int]


def key(run: Run) -> Key:
    return run.half, run.scenario, run.system, run.seed


def read(path: Path) -> dict[Key, Run]:
    """Of the same run the last one counts."""
    if not path.exists():
        return {}
    found = (as_run(json.loads(line)) for line in path.read_text().splitlines())
    return {key(run): run for run in found}


def as_run(fields: Mapping[str, object]) -> Run:
    return Run(**{**fields, "tasks_s": tuple(fields["tasks_s"])})  # type: ignore[arg-type]


def add(path: Path, run: Run) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lines:
        lines.write(json.dumps(_rounded(asdict(run))) + "\n")


def _rounded(fields: dict[str, object]) -> dict[str, object]:
    return {
        name: float(f"{value:.6g}") if isinstance(value, float) else value
        for name, value in fields.items()
    }
