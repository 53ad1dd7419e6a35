"""What a real vLLM finds in its KV cache, by its own order of eviction and by ours.

    make vllm; SCEPSY_DATA=../shared/data python -m benchmarks.vllm_eviction    # JSON lines

vLLM runs on the CPU in an environment of its own, with a tiny random model: what is cached does not
depend on the weights. Made-up agents and, where the data is there, coding-agent sessions with their
tokens scaled down (callanjfox/kv-cache-tester on GitHub) go through it: without the plugin, with
it, with it and told which call is a program's last, and with it and told nothing at all. Answers
are greedy, and compared token for token with those of vLLM without the plugin. What the plugin
costs vLLM's scheduler comes first.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.host import report
from benchmarks.retention import CONTEXT_TOKENS, DATA, halves, sessions
from scepsy.errors import InputError

ROOT = Path(__file__).parents[1]
ENVIRONMENT = Path(os.environ.get("SCEPSY_VLLM", ROOT / ".venv" / "vllm"))
LIMIT_S = 900
SEEDS = range(3)
MOST_TOKENS = 2048
"""That the tiny model takes."""
TOKENS_LESS = CONTEXT_TOKENS // MOST_TOKENS
"""Real sessions' tokens over those that go through the tiny model."""
MOST_CALLS = 16
"""Of an agent of a real session."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One call."""

    gap_s: float
    """After the one before it."""
    new_tokens: int
    """Of its prompt, after what the program has said and heard so far."""
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Program:
    """An agent: its prompts grow."""

    name: str
    """Before the last slash, what all of its kind have in common."""
    start_s: float
    turns: tuple[Turn, ...]
    shared_tokens: int
    """That the prompts of its kind begin with."""

    @property
    def kind(self) -> str:
        return self.name.rpartition("/")[0]


def made_up(seed: int, programs: int = 70) -> list[Program]:
    """Coding agents that wait for tools, between calls of helpers that are asked only once."""
    rng = Random(seed)
    found, start_s = [], 0.0
    for number in range(programs):
        start_s += rng.expovariate(1 / 3.0)
        if rng.random() < 0.3:
            name, shared = f"code/coder/{number}", 200
            turns = [
                Turn(
                    rng.lognormvariate(2.0, 0.8),
                    rng.randint(40, 160) if at else 300,
                    rng.randint(8, 24),
                )
                for at in range(rng.randint(5, 10))
            ]
        else:
            name, shared = f"code/helper/{number}", 64
            turns = [Turn(0.0, rng.randint(300, 900), 12)]
        found.append(Program(name, start_s, tuple(turns), shared))
    return found


def real(path: Path, seed: int, live: int = 8, agents: int = 45) -> list[Program]:
    """Agents of coding sessions in a shuffled order, ``live`` at a time but for their queueing.

    Of a long one some successive calls, from anywhere in it.
    """
    found: list[Program] = []
    ready_s = [0.0] * live
    rng = Random(seed)
    recorded = halves(sessions(path, coarse=1))[1]
    for number, agent in enumerate(rng.sample(recorded, agents)):
        first = rng.randrange(max(1, len(agent.turns) - MOST_CALLS + 1))
        taken = agent.turns[first : first + MOST_CALLS]
        shared = agent.shared * 64 // TOKENS_LESS
        turns, said = list[Turn](), shared
        for turn in taken:
            answer = min(24, max(1, turn.output_tokens // TOKENS_LESS))
            prompt = max(said + 1, turn.blocks * 64 // TOKENS_LESS - answer)
            if prompt + answer >= MOST_TOKENS:
                break
            turns.append(Turn(turn.gap_s, prompt - said, answer))
            said = prompt + answer
        if turns:
            role = "subagent" if "subagent" in agent.name else "main"
            at = ready_s.index(min(ready_s))
            name = f"claude-code/{role}/{number}"
            found.append(Program(name, ready_s[at], tuple(turns), shared))
            ready_s[at] += sum(turn.gap_s + turn.held_s for turn in taken[: len(turns)])
    return found


def replay(programs: list[Program], *, blocks: int, plugin: bool, **tells: bool) -> dict[str, Any]:
    """Send programs through vLLM.

    Args:
        programs: in any order.
        blocks: of 32 tokens that the KV cache has.
        plugin: evict by value.
        **tells: ``tells_ends``, ``is_anonymous``.

    Raises:
        InputError: vLLM is not there, or failed.
    """
    workload = {
        "blocks": blocks, "step_s": 0.05, **tells,
        "programs": [{**asdict(each), "shared": each.kind} for each in programs],
    }  # fmt: skip
    with TemporaryDirectory() as folder:
        path = Path(folder, "workload.json")
        path.write_text(json.dumps(workload))
        return in_vllm("vllm_replay", path, folder, plugin="scepsy" if plugin else "none")


def in_vllm(script: str, *arguments: str | Path, plugin: str = "none") -> dict[str, Any]:
    """What a script prints last, as JSON, in vLLM's environment.

    Raises:
        InputError: vLLM is not there, or failed.
    """
    if problem := missing():
        raise InputError(problem)
    done = subprocess.run(
        [ENVIRONMENT / "bin" / "python", ROOT / "benchmarks" / f"{script}.py", *arguments],
        env=environment(plugin), capture_output=True, text=True, check=False, timeout=LIMIT_S,
    )  # fmt: skip
    if done.returncode:
        raise InputError(f"vLLM failed: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def environment(plugin: str) -> dict[str, str]:
    """Variables for a vLLM on this machine's CPU, in one process and on one core."""
    return {
        **os.environ, "VLLM_PLUGINS": plugin, "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "WARNING", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip


def missing() -> str | None:
    """Why vLLM cannot run; None if it can."""
    if not (ENVIRONMENT / "bin" / "python").exists():
        return f"there is no vLLM in {ENVIRONMENT}; `make vllm` installs it there (2 GB)"
    return None


def variants() -> Iterator[tuple[str, dict[str, bool]]]:
    yield "lru", {"plugin": False}
    yield "value", {"plugin": True}
    yield "value-ends-told", {"plugin": True, "tells_ends": True}
    yield "value-anonymous", {"plugin": True, "is_anonymous": True}


def main() -> None:
    for policy, figures in in_vllm("vllm_cost").items():
        report("vllm_eviction_cost", repeats=1, seed=0, policy=policy, **figures)
    path = DATA / "claude_code" / "sessions.jsonl.gz"
    workloads = [("made-up", seed, made_up(seed), 160) for seed in SEEDS]
    if path.exists():
        workloads += [("claude-code", seed, real(path, seed), 128) for seed in SEEDS]
    for name, seed, programs, blocks in workloads:
        answers: dict[str, str] = {}
        for variant, how in variants():
            found = replay(programs, blocks=blocks, **how)
            given = found.pop("answers")
            answers = answers or given
            differ = sum(given[call] != answer for call, answer in answers.items())
            report(
                "vllm_eviction", repeats=1, seed=seed, workload=name, policy=variant,
                answers_that_differ=differ, **found,
            )  # fmt: skip


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
