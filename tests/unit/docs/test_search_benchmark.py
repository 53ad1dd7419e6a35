"""The search benchmark's page says what was measured, and leaves the rest of the page alone."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.process import Process, measured
from benchmarks.search_results import BEGIN, END, PAGE, PICTURE, Measured, Target, write_page

TARGET = Target(llms=5, gpus=16, search_s=0.05, peak_bytes=2 * 1024**3)
GOT = Measured(
    llms=5,
    gpus=16,
    repeats=5,
    search_s=0.0123,
    search_cpu_s=0.0111,
    plan_s=0.234,
    plan_cpu_s=0.222,
    above_bound=0.0125,
    process=Process(wall_s=1.76, cpu_s=0.5, peak_bytes=60 * 1024**2),
)


def a_page(folder: Path, got: Measured, *, load: float = 0.0) -> str:
    page = folder / PAGE
    page.write_text(f"# Before\n{BEGIN}\nold\n{END}\nafter\n")
    more = [replace(got, llms=n, search_cpu_s=n / 100) for n in (5, 10)]
    write_page([(TARGET, got)], more, [replace(got, gpus=n) for n in (16, 1024)], load, folder)
    return page.read_text()


def test_figures_of_the_run_stand_between_the_marks(tmp_path: Path) -> None:
    text = a_page(tmp_path, GOT)

    assert text.startswith(f"# Before\n{BEGIN}\n")
    assert text.endswith(f"\n{END}\nafter\n")
    assert "old" not in text
    assert "| 5 / 16 | 50 ms, 2,048 MiB | 12 ms | met | 11 ms | 0.23 s | 0.22 s | 1.8 s |" in text
    assert "| 10 / 16 | 0.10 s | 0.22 s | 1.2 % |" in text
    assert "quiet" in text
    assert "busy with other work" in a_page(tmp_path, GOT, load=2.0)


@pytest.mark.parametrize(
    "worse",
    [
        replace(GOT, search_s=0.06),
        replace(GOT, process=Process(wall_s=1.0, cpu_s=1.0, peak_bytes=3 * 1024**3)),
    ],
)
def test_a_missed_target_is_said(tmp_path: Path, worse: Measured) -> None:
    assert "**missed**" in a_page(tmp_path, worse)


def test_equal_figures_give_an_equal_picture(tmp_path: Path) -> None:
    a_page(tmp_path, GOT)
    first = (tmp_path / PICTURE).read_bytes()
    a_page(tmp_path, GOT)

    assert (tmp_path / PICTURE).read_bytes() == first


def test_a_page_without_the_marks_is_refused(tmp_path: Path) -> None:
    (tmp_path / PAGE).write_text("# Nothing to replace\n")

    with pytest.raises(ValueError, match="must have"):
        write_page([(TARGET, GOT)], [GOT], [GOT], 0.0, tmp_path)


def test_a_process_is_charged_its_own_memory_only() -> None:
    """Not what this process holds, nor what others before it did."""
    ballast = b"x" * (200 * 1024**2)
    measured([sys.executable, "-c", "b'x' * (150 * 1024**2)"])

    small = measured([sys.executable, "-c", "pass"])

    assert len(ballast) > small.peak_bytes
    assert small.peak_bytes < 50 * 1024**2
    assert small.cpu_s > 0
