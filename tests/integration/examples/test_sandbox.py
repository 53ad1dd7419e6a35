import asyncio
import time

import pytest

from examples.coding_agent import sandbox
from examples.coding_agent.sandbox import run_tests


async def test_a_right_program_passes() -> None:
    assert (await run_tests("x = 1", "from solution import x\nassert x == 1")).passed


async def test_a_wrong_program_fails_and_its_output_says_where() -> None:
    tested = await run_tests("x = 1", "from solution import x\nassert x == 2, 'x is 2'")

    assert not tested.passed
    assert "AssertionError: x is 2" in tested.output


async def test_long_output_is_cut_to_its_end() -> None:
    tested = await run_tests("", "print('a' * 9999)\nraise SystemExit('the end')")

    assert len(tested.output) <= sandbox.OUTPUT_CHARACTERS
    assert tested.output.endswith("the end")


async def test_an_endless_program_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "SECONDS", 0.3)
    begin_s = time.monotonic()

    tested = await run_tests("while True: pass", "import solution")

    assert not tested.passed
    assert tested.output == "stopped after 0.3 s"
    assert time.monotonic() - begin_s < 3


async def test_a_greedy_program_gets_no_more_memory() -> None:
    tested = await run_tests("x = bytearray(2 * 1024**3)", "import solution")

    assert not tested.passed
    assert "MemoryError" in tested.output


async def test_programs_run_side_by_side_and_leave_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    tested = await asyncio.gather(
        *(run_tests(f"x = {at}", f"import solution\nassert solution.x == {at}") for at in range(4))
    )

    assert all(each.passed for each in tested)
    assert list(tmp_path.iterdir()) == []
