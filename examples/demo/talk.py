"""What a demo says on its way: its steps, the commands it runs, and the comparison at the end."""

import shlex
import subprocess
import sys
import time
from collections.abc import Sequence

from rich.console import Console

from scepsy.cli.output import print_table
from scepsy.report.comparison import BottleneckComparison, Comparison
from scepsy.report.page import comparison_row

console = Console(highlight=False)

_BEGAN_S = time.monotonic()


def elapsed_s() -> float:
    """How long the demo has run."""
    return time.monotonic() - _BEGAN_S


def heading(text: str) -> None:
    """Start a step of the demo, and say how long the steps before took."""
    console.print(f"\n[bold]== {text}[/] [dim]({elapsed_s():.0f} s)[/]")


def scepsy(*arguments: str) -> None:
    """Run a command of Scepsy as a user would, and show it.

    Raises:
        SystemExit: it failed; it has said why.
    """
    console.print(f"[dim]$ scepsy {shlex.join(arguments)}[/]")
    done = subprocess.run([sys.executable, "-m", "scepsy", *arguments], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def show(comparisons: Sequence[Comparison], bottlenecks: Sequence[BottleneckComparison]) -> None:
    """Print the comparison."""
    header = ("", "condition", "predicted", "measured", "error", "promised", "")
    print_table("Predicted against measured", header, map(comparison_row, comparisons))
    for each in bottlenecks:
        verdict = "kept" if each.is_kept else "missed"
        console.print(
            f"bottleneck of {each.workflow}: predicted {each.predicted}, "
            f"measured {each.measured} ({verdict}); {each.evidence}"
        )
