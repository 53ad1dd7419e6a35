"""Run a program that an LLM wrote, with its tests, in a process of its own with limits.

The limits keep an endless loop or a greedy list from hurting this machine. They are no protection
from a program that means harm: run the agent in a container when the model is not trusted.
"""

import asyncio
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

SECONDS = 5.0
MEMORY_BYTES = 512 * 1024**2
OUTPUT_CHARACTERS = 1500

_RUN_LIMITED = f"""
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_AS, ({MEMORY_BYTES}, {MEMORY_BYTES}))
resource.setrlimit(resource.RLIMIT_CPU, ({int(SECONDS)}, {int(SECONDS)}))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
sys.path.insert(0, ".")
runpy.run_path("check.py", run_name="__main__")
"""


@dataclass(frozen=True, slots=True)
class TestRun:
    """How a program did in its tests."""

    __test__ = False  # not a test, whatever pytest makes of the name

    passed: bool
    output: str
    """What it printed, cut to the last part; says so when it ran out of time."""


async def run_tests(program: str, tests: str) -> TestRun:
    """Run the tests against the program, in a directory that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="coding-agent-") as directory:
        (Path(directory) / "solution.py").write_text(program, encoding="utf-8")
        (Path(directory) / "check.py").write_text(tests, encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-I", "-S", "-B", "-c", _RUN_LIMITED),
            cwd=directory,
            env={"PATH": os.defpath},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
            return TestRun(False, f"stopped after {SECONDS:g} s")
        finally:
            if process.returncode is None:  # cancelled while the tests ran
                process.kill()
    text = output.decode(errors="replace")[-OUTPUT_CHARACTERS:].strip()
    return TestRun(process.returncode == 0, text)
