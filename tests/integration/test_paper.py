"""The published evaluation from end to end, on a tiny setting."""

from pathlib import Path

import pytest

from benchmarks.paper.chain import Point
from benchmarks.paper.evaluate import evaluate, read_all
from benchmarks.paper.measure import Latency, Run
from benchmarks.paper.page import filled, write
from benchmarks.paper.record import record
from benchmarks.paper.results import Field
from benchmarks.paper.settings import TINY
from benchmarks.paper.statistics import mean_of
from benchmarks.paper.tables import beaten
from benchmarks.paper.workloads import EXAMPLES, Files
from examples.beam_search.workflow import BeamSearch, SearchConfig
from scepsy.model.workflow import WorkflowName


def silent(_: str) -> None:
    pass


def written(folder: Path) -> dict[str, bytes]:
    files = Files(folder)
    points = evaluate(TINY, files, jobs=1, tell=silent)
    write(TINY, files, points, docs=False)
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".db"
    }


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("paper")
    written(folder)
    return folder


def test_equal_seeds_give_equal_bytes(tiny: Path, tmp_path: Path) -> None:
    first = written(tiny)  # all is there already

    assert first == written(tmp_path)
    assert {"evaluation.md", "evaluation/peaks.svg", "points/main-rag_rerank-4-even.jsonl"} <= set(
        first
    )


def test_every_system_has_a_point_at_every_rate_and_seed(tiny: Path) -> None:
    points = read_all(TINY, Files(tiny), silent)

    assert {(p.system, p.load) for p in points} == {("ours", 0.3), ("even", 0.3)}
    assert all(point.keeps_up and len(point.runs) == 2 for point in points)


def test_a_line_that_broke_off_is_evaluated_again(tiny: Path) -> None:
    files = Files(tiny)
    points = read_all(TINY, files, silent)
    path = files.points / "main-rag_rerank-4-even.jsonl"
    path.write_text(path.read_text()[:100])

    assert evaluate(TINY, files, jobs=1, tell=silent) == points


def test_in_virtual_time_the_program_is_the_same_and_only_the_clock_is_not() -> None:
    """Rounds of a beam search wait for one another, and answers depend on the seed alone."""
    search = BeamSearch(config=SearchConfig(expand=3, width=2, depth=2, margin=0.5))

    (one,) = record(search, executions=1, seed=3)

    assert one.calls == record(search, executions=1, seed=3)[0].calls
    first = [call for call in one.calls if call.role == "generator"][:3]
    assert len({call.start_s for call in first}) == 1
    verified = next(call for call in one.calls if call.role == "verifier")
    assert verified.start_s == max(call.end_s for call in first)


def test_another_seed_gives_other_executions() -> None:
    def lengths(seed: int) -> list[int]:
        recorded = record(EXAMPLES["rag_rerank"], executions=3, seed=seed)
        return [call.output_tokens for each in recorded for call in each.calls]

    assert lengths(1) == lengths(1)
    assert lengths(1) != lengths(2)


W = WorkflowName("rag_rerank")


def a_point(system: str, load: float, *p95s_s: float) -> Point:
    runs = tuple(
        Run(
            seed=seed,
            saturated=p95_s == float("inf"),
            ended_per_s=1.0,
            latencies=()
            if p95_s == float("inf")
            else (
                Latency(
                    workflow=W, executions=9, mean_s=p95_s, p50_s=p95_s, p95_s=p95_s, p99_s=p95_s
                ),
            ),
        )
        for seed, p95_s in enumerate(p95s_s)
    )
    return Point(
        part="main",
        workload=W,
        gpus=4,
        system=system,
        variant="",
        load=load,
        rate_per_s=10 * load,
        candidates=1,
        chosen="",
        runs=runs,
    )


INF = float("inf")


def test_the_peak_lies_where_p95_crosses_the_slo() -> None:
    field = Field(
        [
            a_point("ours", 0.1, 1.0, 1.0),
            a_point("ours", 0.5, 2.0, 2.0),
            a_point("ours", 0.9, INF, INF),
            a_point("slow", 0.1, 4.0, 4.0),
            a_point("slow", 0.5),
            a_point("slow", 0.9),
            a_point("none", 0.1),
            a_point("none", 0.5),
            a_point("none", 0.9),
            a_point("half done", 0.1, 1.0, 1.0),
        ]
    )

    ours, slow, none = (field.peak(name, 3.0) for name in ("ours", "slow", "none"))
    assert field.peak("half done", 3.0) is None

    assert ours is not None
    assert ours.rate_per_s.value == pytest.approx(5 + (1.5 - 1) / 1.5 * 4)
    assert not ours.is_bound
    assert slow is not None
    assert slow.is_bound
    assert none is not None
    assert none.is_bound


def test_a_faster_baseline_is_told() -> None:
    ours = [a_point("ours", 0.1, 2.0, 2.0), a_point("ours", 0.5, INF, INF)]
    other = [a_point("other", 0.1, 1.0, 1.0), a_point("other", 0.5, 3.0, 3.0)]

    text = beaten({("rag_rerank", 4): Field([*ours, *other])})

    assert "| 10% | other | 0.50 ± 0.00 |" in text
    assert "| 50% | other | ours does not keep up |" in text
    assert "Nowhere" in beaten({("rag_rerank", 4): Field(ours)})


def test_an_interval_is_students() -> None:
    mean = mean_of([1.0, 2.0, 3.0, 4.0, 5.0])

    assert (mean.value, mean.half) == (3.0, pytest.approx(2.776 * 2.5**0.5 / 5**0.5))
    assert mean_of([1.0, INF]).value == INF


def test_only_the_marked_part_of_a_page_is_exchanged() -> None:
    page = "a\n<!-- x: written by `make paper` -->\nold\n<!-- x: end -->\nb"

    assert filled(page, "x", "new") == page.replace("old", "new")
    assert filled(page, "y", "new") == page
