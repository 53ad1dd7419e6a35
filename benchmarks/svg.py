"""How figures of the docs look, as SVG: on white, for dark pages too. Same figure, same bytes."""

import io

from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart under all common colour blindness; black is for ours.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999")
MARKERS = "osD^vPX"


def drawn(figure: Figure) -> str:
    """Its SVG, within the style."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=False)
    text = buffer.getvalue()
    return "\n".join(line.rstrip() for line in text[text.index("<svg") :].splitlines()) + "\n"
