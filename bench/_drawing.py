"""What all pictures in docs/ have in common."""

from __future__ import annotations

import io
from typing import Any

GREY = "#7d8590"  # of text and axes; like every colour here it is read on white and on black
STYLE = {
    "svg.hashsalt": "fastrnn",  # the same numbers make the same file
    "svg.fonttype": "none",  # text stays text: a third of the size, and it can be searched
    "font.size": 10,
    "text.color": GREY,
    "axes.labelcolor": GREY,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def subplots(rows: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Any, Any]:
    """A figure and its axes (rows, columns)."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update(STYLE)
    import matplotlib.pyplot as plt

    return plt.subplots(rows, columns, figsize=size, squeeze=False, **options)


def svg(figure: Any) -> str:
    """The figure as a text without date, and then closed."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    buffer = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"
