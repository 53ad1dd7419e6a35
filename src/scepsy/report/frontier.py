"""The throughput-latency frontier as a picture."""

from collections.abc import Sequence
from io import StringIO
from pathlib import Path

from scepsy.errors import InputError

_KINDS = (".svg", ".png", ".html")


def draw_frontier(path: Path, workflow: str, points: Sequence[tuple[float, float, int]]) -> None:
    """Draw latency against throughput to a file, by its ending.

    Args:
        path: a .svg, .png or .html file; one that is there is replaced.
        workflow: whose rates are on the axis; the others grow in proportion.
        points: rate (executions/s), mean execution latency (s), GPUs touched; by rising rate.

    Raises:
        InputError: another ending, or the file cannot be written.
    """
    if path.suffix not in _KINDS:
        raise InputError(f"cannot draw to {path}", hint=f"let it end in {', '.join(_KINDS)}")
    import matplotlib as mpl  # noqa: PLC0415  (takes half a second)
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    rates = [rate for rate, _, _ in points]
    axes.plot(rates, [latency_s for _, latency_s, _ in points], marker="o")
    for rate, latency_s, gpus in points:
        axes.annotate(f"{gpus}", (rate, latency_s), xytext=(0, 6), textcoords="offset points")
    axes.set(
        xlabel=f"{workflow} executions/s",
        ylabel="mean execution latency (s), predicted",
        title="Best plan at each rate; figures are GPUs touched",
        ylim=(0, None),
    )
    axes.grid(alpha=0.3)
    try:
        with mpl.rc_context({"svg.hashsalt": "scepsy", "svg.fonttype": "none"}):
            if path.suffix == ".png":
                figure.savefig(path, dpi=150)
                return
            text = StringIO()
            figure.savefig(text, format="svg", metadata={"Date": None})
        svg = text.getvalue()
        if path.suffix == ".html":
            head = "<!doctype html><meta charset=utf-8><title>Frontier</title>"
            svg = head + svg[svg.index("<svg") :]
        path.write_text(svg, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write the picture to {path}: {error.strerror}") from error
