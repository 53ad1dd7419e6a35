"""Recorded agent sessions, made up in the recorded formats."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.programs import measure as measured
from benchmarks.programs import scenario, sessions


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(sessions, "DATA", tmp_path)
    monkeypatch.setattr(measured, "COUNTED", 6)
    made = [sessions.workload, scenario.demand, scenario.spec_of]
    for name, text in (
        ("claude_code", "\n".join(json.dumps(coding(n)) for n in range(4))),
        ("agentcgroup", "\n".join(json.dumps(swe(n)) for n in range(4))),
    ):
        (tmp_path / name).mkdir()
        with gzip.open(tmp_path / name / "sessions.jsonl.gz", "wt") as lines:
            lines.write(text)
    (tmp_path / "mooncake").mkdir()
    chats = [json.dumps(each) for n in range(6) for each in chat(n)]
    (tmp_path / "mooncake" / "conversation_trace.jsonl").write_text("\n".join(chats))
    for each in made:
        each.cache_clear()
    yield tmp_path
    for each in made:
        each.cache_clear()


def coding(number: int) -> dict[str, Any]:
    """Three calls in a row, a pause of ten minutes, and one more."""
    starts = [0, 20, 40, 660]
    return {
        "id": f"s{number}",
        "block_size": 64,
        "hash_id_scope": "local",
        "tool_tokens": 512,
        "system_tokens": 0,
        "requests": [
            {
                "type": "n",
                "t": t,
                "model": "m",
                "in": 1024 + 512 * at,
                "out": 100,
                "api_time": 5,
                "stop": "tool_use" if at < 2 else "end_turn",
                "nblk": 16 + 8 * at,
                "lcp": 16 + 8 * (at - 1) if at else 0,
                "new": [[16 + 8 * (at - 1), 8]] if at else [[0, 16]],
            }
            for at, t in enumerate(starts)
        ],
    }


def swe(number: int) -> dict[str, Any]:
    steps = [
        {
            "model": "m",
            "side": False,
            "t_req": 10.0 * at,
            "t_end": 10.0 * at + 4,
            "in": 10,
            "cache_read": 1024 + (0 if at == 0 else 1024 * at),
            "cache_new": 2048,
            "out_chars": 400,
            "tools": [{"name": "Read", "t0": 0, "t1": 1}] if at < 3 else [],
        }
        for at in range(4)
    ]
    return {"session": f"s{number}", "group": "g", "steps": steps}


def chat(number: int) -> list[dict[str, Any]]:
    """Two turns; the second begins with all of the first."""
    first = [number * 100 + at for at in range(6)]
    return [
        {
            "timestamp": 1000 * number,
            "input_length": 512 * 5,
            "output_length": 10,
            "hash_ids": first[:5],
        },
        {
            "timestamp": 1000 * number + 60_000,
            "input_length": 512 * 6,
            "output_length": 10,
            "hash_ids": first,
        },
    ]
