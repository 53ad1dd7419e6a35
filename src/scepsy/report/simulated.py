"""Files of a simulation: executions as Parquet, and plots of their latencies."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from scepsy.errors import InputError, MissingError
from scepsy.model.workflow import WorkflowName
from scepsy.sim.run import ServedExecution

_LONG_TAIL = 10
"""Times the median: from there on a linear axis would show nothing but the tail."""
_STYLE: Any = {"svg.hashsalt": "scepsy", "svg.fonttype": "none"}


def write_executions(path: Path, executions: Sequence[ServedExecution]) -> None:
    """One row for each execution.

    Raises:
        MissingError: pyarrow is not installed.
        InputError: the file cannot be written.
    """
    try:
        import pyarrow  # noqa: PLC0415  (optional)
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError:
        raise MissingError(
            "Parquet needs pyarrow, which is not installed", hint="pip install 'scepsy[parquet]'"
        ) from None
    table = pyarrow.table(
        {
            "execution": [f"simulated-{each.number:07}" for each in executions],
            "workflow": [str(each.workflow) for each in executions],
            "start_s": [each.start_s for each in executions],
            "end_s": [each.end_s for each in executions],
            "execution_s": [each.execution_s for each in executions],
            "calls": [len(each.calls) for each in executions],
            "prompt_tokens": [sum(c.prompt_tokens for c in each.calls) for each in executions],
            "cached_tokens": [sum(c.cached_tokens for c in each.calls) for each in executions],
            "output_tokens": [sum(c.output_tokens for c in each.calls) for each in executions],
        }
    )
    try:
        parquet.write_table(table, path, compression="zstd")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error}") from error


def draw_latencies(path: Path, variants: Mapping[str, Sequence[ServedExecution]]) -> None:
    """Draw, for each workflow, which part of its executions took no longer than that.

    Args:
        path: an .svg file; one that is there is replaced. Equal executions give equal bytes.
        variants: executions to compare, by the name of what served them.

    Raises:
        InputError: the file cannot be written.
    """
    workflows = sorted({each.workflow for several in variants.values() for each in several})
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.6 * len(workflows), 3.4), layout="constrained")
        plots = figure.subplots(1, len(workflows), squeeze=False)[0]
        for axes, workflow in zip(plots, workflows, strict=True):
            for name, several in variants.items():
                latencies_s = _sorted_s(several, workflow)
                parts = np.arange(1, len(latencies_s) + 1) / max(1, len(latencies_s))
                axes.step(latencies_s, parts, where="post", label=name)
            axes.set(
                title=str(workflow),
                xlabel="execution latency (s)",
                ylabel="part of executions",
                ylim=(0, 1.02),
            )
            every_s = [s for several in variants.values() for s in _sorted_s(several, workflow)]
            if max(every_s) > _LONG_TAIL * np.median(every_s) > 0:
                axes.set_xscale("log")
            axes.grid(alpha=0.3)
            axes.legend()
        try:
            figure.savefig(path, format="svg", metadata={"Date": None})
        except OSError as error:
            raise InputError(f"cannot write the plot to {path}: {error.strerror}") from error


def _sorted_s(
    executions: Sequence[ServedExecution], workflow: WorkflowName
) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    mine = [each.execution_s for each in executions if each.workflow == workflow]
    return np.sort(np.array(mine, dtype=float))
