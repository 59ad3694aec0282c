"""The pictures of `diagnostics`. Matplotlib is imported when one is drawn; no window is opened and no state is kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from . import _validate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array: TypeAlias = npt.NDArray[Any]


class Flow(Protocol):
    """What is drawn of a `GradientFlow`."""

    @property
    def norms(self) -> Mapping[str, Array]: ...


GREY = "#7d8590"  # read on white and on black
# Hues that are told apart also by those who see few of them, each on white and on black.
COLOURS = ("#e8590c", "#228be6", "#2f9e44", "#ae3ec9", "#f59f00", "#0ca678", "#d6336c", "#7048e8")


def plot_unroll(
    unrolled: Mapping[str, Array], *, row: int = 0, names: Iterable[str] | None = None, figure: Figure | None = None
) -> Figure:
    """Every intermediate of one row as a picture of units against steps.

    Parameters
    ----------
    unrolled : Unrolled
        From `unroll`.
    row : int
        Which one of the batch.
    names : iterable of str, optional
        The arrays to show, in this order; all if not given.
    figure : matplotlib.figure.Figure, optional
        An empty one to draw into.

    Returns
    -------
    matplotlib.figure.Figure
        `figure.savefig(path)` writes it. A column for each layer and direction. Sigmoid gates go from 0 (white) to 1,
        everything else from blue (negative) over white to red, its scale to the right of it.

    Raises
    ------
    ImportError
        Without Matplotlib.
    TypeError, ValueError
        A name or a row that is not there.
    """
    chosen = list(unrolled) if names is None else list(names)
    for name in chosen:
        if name not in unrolled:
            message = f"names holds {name!r}; it must be of {', '.join(unrolled)}"
            raise ValueError(message)
    if not chosen:
        message = "names is empty; it must hold at least one name"
        raise ValueError(message)
    arrays = [unrolled[name] if unrolled[name].ndim == 2 else _row(unrolled[name], row) for name in chosen]
    suffixes = list(dict.fromkeys(name.split("_", 1)[1] for name in chosen))
    letters = list(dict.fromkeys(name.split("_", 1)[0] for name in chosen))
    figure = _figure(figure, 4.5 * len(suffixes) + 1, 1.2 * len(letters) + 0.6)
    grid = figure.subplots(len(letters), len(suffixes), squeeze=False, sharex=True)
    for axes in grid.flat:
        axes.set_visible(False)
    for name, array in zip(chosen, arrays, strict=True):
        letter, suffix = name.split("_", 1)
        axes = grid[letters.index(letter), suffixes.index(suffix)]
        axes.set_visible(True)
        gate = letter in "ifo" or letter in "rz"
        bound = 1.0 if gate else _bound(array)
        colours = {"cmap": "Greys", "vmin": 0.0} if gate else {"cmap": "RdBu_r", "vmin": -bound}
        shown = axes.imshow(
            array.T, aspect="auto", interpolation="nearest", origin="lower", vmax=bound, rasterized=True, **colours
        )
        bar = figure.colorbar(shown, ax=axes, pad=0.01)
        bar.ax.tick_params(colors=GREY)
        bar.outline.set_visible(False)
        axes.set_ylabel(f"{letter}\nunit", color=GREY)
        if letter == letters[0]:
            axes.set_title(suffix, color=GREY)
        _quiet(axes)
    for axes in grid[-1]:
        axes.set_xlabel("step", color=GREY)
    return figure


def plot_gradient_flow(flow: Flow | Mapping[str, Flow], *, title: str = "", figure: Figure | None = None) -> Figure:
    """Norms of dL/dh[t] against t on a logarithmic axis, a line for each layer and direction.

    Parameters
    ----------
    flow : GradientFlow, or a mapping of labels to several
        From `gradient_flow`.
    title : str
    figure : matplotlib.figure.Figure, optional
        An empty one to draw into.

    Returns
    -------
    matplotlib.figure.Figure
        Norms that are 0 leave a gap. dL/dc[t] of an LSTM is dashed.

    Raises
    ------
    ImportError
        Without Matplotlib.
    """
    flows = flow if isinstance(flow, Mapping) else {"": flow}
    lines = [(f"{label} {name}".strip(), norms) for label, one in flows.items() for name, norms in one.norms.items()]
    figure = _figure(figure, 7.5, 4)
    axes = figure.subplots()
    hues: dict[str, str] = {}
    for label, norms in lines:
        head, _, name = label.rpartition(" ")
        key = f"{head} {name.split('_', 1)[1]}"  # c and h of one layer share a colour
        hue = hues.setdefault(key, COLOURS[len(hues) % len(COLOURS)])
        style = "--" if name.startswith("c_") else "-"
        axes.plot(np.where(norms > 0, norms, np.nan), style, color=hue, label=label, linewidth=1.6)
    axes.set_yscale("log")
    axes.set_xlabel("step t", color=GREY)
    axes.set_ylabel("norm of dL/dh[t]", color=GREY)
    axes.set_title(title, color=GREY)
    axes.grid(True, color=GREY, alpha=0.25, linewidth=0.6)
    _legend(axes)
    _quiet(axes)
    return figure


def plot_spectral_radius(radii: Mapping[str, float], *, title: str = "", figure: Figure | None = None) -> Figure:
    """A bar for each recurrent matrix, and the line at 1 where a linear recurrence neither grows nor dies out.

    Parameters
    ----------
    radii : dict of float
        From `spectral_radius`.
    title : str
    figure : matplotlib.figure.Figure, optional
        An empty one to draw into.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        Without Matplotlib.
    """
    figure = _figure(figure, 1.5 + 0.6 * max(len(radii), 3), 3.5)
    axes = figure.subplots()
    bars = axes.bar(list(radii), list(radii.values()), color=COLOURS[1], width=0.6)
    axes.bar_label(bars, [f"{value:.2f}" for value in radii.values()], padding=2, color=GREY)
    axes.axhline(1, color=COLOURS[0], linewidth=1.2, linestyle="--")
    axes.set_ylabel("spectral radius of U", color=GREY)
    axes.set_title(title, color=GREY)
    axes.margins(y=0.12)
    _quiet(axes)
    return figure


def _figure(given: Figure | None, width: float, height: float) -> Figure:
    """The given figure, or a new one that pyplot knows nothing of."""
    if given is not None:
        return given
    try:
        from matplotlib.figure import Figure as Made
    except ImportError as error:
        message = 'plots need Matplotlib, which is not installed: pip install "fastrnn[plot]"'
        raise ImportError(message) from error
    return Made(figsize=(width, height), layout="constrained")


def _row(array: Array, row: int) -> Array:
    if _validate.natural_int("row", row) >= array.shape[1]:
        message = f"row is {row}; it must be from 0 to {array.shape[1] - 1}"
        raise ValueError(message)
    return array[:, row]


def _bound(array: Array) -> float:
    """Of a scale that is the same to both sides."""
    finite = np.abs(array[np.isfinite(array)])
    return float(finite.max(initial=0.0)) or 1.0


def _quiet(axes: Any) -> None:
    """Thin grey axes on two sides."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=GREY)


def _legend(axes: Any) -> None:
    legend = axes.legend(frameon=False)
    for text in legend.get_texts():
        text.set_color(GREY)
