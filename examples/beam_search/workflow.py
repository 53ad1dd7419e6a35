"""Search for a solution step by step, keeping only the partial solutions that a verifier likes.

Each round extends every live beam by several candidate steps (generator LLM, in parallel), scores
every candidate (verifier LLM, in parallel), and keeps the best. How many are kept depends on how
close the scores are, and how many rounds there are on when a solution is good enough: the number
of calls is known only afterwards.
"""

import asyncio
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from openai import AsyncOpenAI

from examples.connect import chat
from examples.workflow import Run, read_rows, replaced

GENERATOR_PROMPT = (
    "You solve word problems one step at a time. Continue the solution with exactly one more step: "
    "explain it in a short paragraph and do its arithmetic. When that step completes the solution, "
    "end it with a line `FINAL ANSWER: <number>`."
)
VERIFIER_PROMPT = (
    "You grade partial solutions of word problems. Judge only whether the last step is right and "
    'brings the solution forward. Reply with JSON alone: {"score": <number from 0 to 1>}.'
)
MODELS = {"generator": "qwen3-32b", "verifier": "qwen3-8b"}
UNREADABLE_SCORE = 0.0
"""What a verdict that names no score counts for: such a candidate is only kept for want of any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A word problem, and the number that answers it."""

    id: str
    text: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchConfig:
    """How wide and how deep to search."""

    expand: int = 4
    """Candidates sampled for each live beam in a round."""
    width: int = 4
    """Beams that may live on after a round, at most."""
    depth: int = 8
    """Rounds, at most."""
    margin: float = 0.08
    """A beam lives on only with a score this close to the round's best."""
    accept: float = 0.8
    """A finished solution with at least this score ends the search."""
    step_max_tokens: int = 320

    def __post_init__(self) -> None:
        if min(self.expand, self.width, self.depth) < 1:
            raise ValueError("expand, width and depth must be at least 1")


@dataclass(frozen=True, slots=True)
class Beam:
    """A partial solution."""

    steps: tuple[str, ...] = ()
    score: float = 1.0

    @property
    def final_answer(self) -> str | None:
        """The number that the last step ends with; None while the solution goes on."""
        found = (
            re.search(r"FINAL ANSWER:\s*\$?(-?[\d.,/]+)", self.steps[-1]) if self.steps else None
        )
        return found[1].rstrip(".,").replace(",", "") if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """The best solution found, and what it took."""

    task: str
    answer: str
    correct: bool
    score: float
    rounds: int
    calls: int
    """Generator calls; there are as many of the verifier."""


async def run(
    client: AsyncOpenAI,
    problem: Problem,
    *,
    models: Mapping[str, str] = MODELS,
    config: SearchConfig | None = None,
    seed: int = 0,
) -> SearchResult:
    """Solve one problem."""
    config = config or SearchConfig()
    rng = random.Random(seed)
    live: tuple[Beam, ...] = (Beam(),)
    finished: list[Beam] = []
    rounds = calls = 0
    while live and rounds < config.depth:
        parents = [beam for beam in live for _ in range(config.expand)]
        seeds = [rng.getrandbits(31) for _ in parents]
        steps = await asyncio.gather(
            *(
                _next_step(client, models["generator"], problem, beam, config, at)
                for beam, at in zip(parents, seeds, strict=True)
            )
        )
        candidates = [Beam((*beam.steps, step)) for beam, step in zip(parents, steps, strict=True)]
        scores = await asyncio.gather(
            *(
                _score(client, models["verifier"], problem, beam, at)
                for beam, at in zip(candidates, seeds, strict=True)
            )
        )
        scored = [replace(b, score=score) for b, score in zip(candidates, scores, strict=True)]
        rounds, calls = rounds + 1, calls + len(candidates)
        finished += [beam for beam in scored if beam.final_answer is not None]
        live = survivors(scored, config)
    best = max(finished or live, key=lambda beam: beam.score)
    answer = best.final_answer or ""
    return SearchResult(
        task=problem.id,
        answer=answer,
        correct=answer == problem.answer,
        score=best.score,
        rounds=rounds,
        calls=calls,
    )


def survivors(scored: Sequence[Beam], config: SearchConfig) -> tuple[Beam, ...]:
    """The beams to extend in the next round, best first; none when the search is over.

    It is over when the best candidate is a finished solution of a high score, or when all that
    come close to the best are finished.
    """
    ranked = sorted(scored, key=lambda beam: -beam.score)
    best = ranked[0]
    if best.final_answer is not None and best.score >= config.accept:
        return ()
    close = [
        beam
        for beam in ranked
        if beam.final_answer is None and beam.score >= best.score - config.margin
    ]
    return tuple(close[: config.width])


def parse_score(verdict: str) -> float:
    """The score in a verifier's reply, in [0, 1], whatever else it says."""
    found = re.search(r"score\W*(\d*\.?\d+)", verdict) or re.search(r"(\d*\.?\d+)", verdict)
    return min(float(found[1]), 1.0) if found else UNREADABLE_SCORE


def solution_text(problem: Problem, steps: Sequence[str]) -> str:
    """The problem and its solution so far: a prefix of the text of any continuation."""
    return "\n\n".join([f"Problem: {problem.text}", "Solution so far:", *steps])


async def _next_step(
    client: AsyncOpenAI, model: str, problem: Problem, beam: Beam, config: SearchConfig, seed: int
) -> str:
    step = await chat(
        client,
        role="generator",
        model=model,
        messages=[
            {"role": "system", "content": GENERATOR_PROMPT},
            {"role": "user", "content": solution_text(problem, beam.steps)},
        ],
        temperature=0.8,
        max_tokens=config.step_max_tokens,
        seed=seed,
    )
    return step.strip()


async def _score(client: AsyncOpenAI, model: str, problem: Problem, beam: Beam, seed: int) -> float:
    verdict = await chat(
        client,
        role="verifier",
        model=model,
        messages=[
            {"role": "system", "content": VERIFIER_PROMPT},
            {"role": "user", "content": solution_text(problem, beam.steps)},
        ],
        max_tokens=16,
        seed=seed,
    )
    return parse_score(verdict)


def read_problems() -> tuple[Problem, ...]:
    """The shipped problems."""
    rows = read_rows(Path(__file__).parent / "problems.jsonl")
    return tuple(Problem(id=row["id"], text=row["text"], answer=row["answer"]) for row in rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class BeamSearch:
    """Beam search as an example workflow."""

    models: Mapping[str, str] = field(default_factory=lambda: MODELS)
    config: SearchConfig = field(default_factory=SearchConfig)
    problems: tuple[Problem, ...] = field(default_factory=read_problems)
    name: str = "beam_search"

    @property
    def tasks(self) -> tuple[str, ...]:
        """The ids of the problems."""
        return tuple(problem.id for problem in self.problems)

    def with_models(self, models: Mapping[str, str]) -> "BeamSearch":
        """The same with other LLMs for the roles given."""
        return replace(self, models=replaced(self.models, models))

    async def prepare(self, _client: AsyncOpenAI) -> Run:
        """Nothing is shared between executions."""

        async def run_one(client: AsyncOpenAI, task: int, seed: int) -> SearchResult:
            return await run(
                client, self.problems[task], models=self.models, config=self.config, seed=seed
            )

        return run_one
