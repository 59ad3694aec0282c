"""Pictures of docs/performance.md as SVG: speed against T, N and H, the roofline, threads."""

from __future__ import annotations

from typing import Any

from _drawing import GREY, subplots, svg
from _results import gains
from fastrnn._bench_cases import MODES, SWEEPS, Case
from fastrnn._bench_systems import SYSTEMS
from fastrnn._bench_table import systems_of

Document = dict[str, Any]

# Every colour is read on white and on black.
COLOURS = {
    "fastrnn": "#e8590c",
    "torch": "#ae3ec9",
    "onnxruntime": "#228be6",
    "openvino": "#12b886",
    "jax": "#f0a000",
    "numpy": "#868e96",
}
MARKERS = {"fastrnn": "o", "torch": "s", "onnxruntime": "^", "openvino": "D", "jax": "v", "numpy": "x"}


def _caption(figure: Any, document: Document) -> None:
    threads = document["threads"]
    text = f"{document['cpu']}, {threads} thread{'s' if threads > 1 else ''}, float32, {document['date'][:10]}"
    figure.text(0.5, 0.008, text, ha="center", fontsize=7.5)


def _powers(axis: Any, which: str, values: list[int]) -> None:
    getattr(axis, f"set_{which}scale")("log", base=2)
    getattr(axis, f"set_{which}ticks")(values, [str(value) for value in values])
    axis.minorticks_off()


def _gigaflops(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.grid(True, color=GREY, alpha=0.25, lw=0.6)


def _lines_first(systems: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """Systems with the style of their lines, ours last and widest."""
    return [
        (
            name,
            {
                "color": COLOURS[name],
                "marker": MARKERS[name],
                "ms": 4.5 if name == "fastrnn" else 4,
                "lw": 2.4 if name == "fastrnn" else 1.3,
                "zorder": 4 if name == "fastrnn" else 3,
                "label": SYSTEMS[name].label,
            },
        )
        for name in systems
        if name in COLOURS
    ]


def _shape(case: Case) -> tuple[int, int, int, int, int, bool]:
    return case.N, case.T, case.I, case.H, case.L, case.bidirectional


def sweeps(document: Document) -> str:
    """A column for each of T, N and H, a row for each mode; the dashed line is the multiply-add peak."""
    rows = [(Case(**row["case"]), row) for row in document["rows"]]
    modes = [mode for mode in MODES if any(case.mode == mode for case, _ in rows)]
    figure, axes = subplots(len(modes), len(SWEEPS), (10.2, 0.9 + 2.6 * len(modes)), sharey="row", sharex="col")
    peak = max((row["peak_flops"] or 0 for _, row in rows), default=0) / 1e9
    for line, mode in enumerate(modes):
        for column, (size, shapes) in enumerate(SWEEPS.items()):
            axis = axes[line][column]
            found = [pair for pair in rows if pair[0].mode == mode and _shape(pair[0]) in shapes]
            found.sort(key=lambda pair: getattr(pair[0], size))
            for name, style in _lines_first(systems_of(document)):
                points = [
                    (getattr(case, size), case.flops / row["seconds"][name] / 1e9)
                    for case, row in found
                    if name in row["seconds"]
                ]
                if points:
                    axis.plot(*zip(*points, strict=True), **style)
            if peak:
                axis.axhline(peak, color=GREY, lw=1, ls="--", zorder=1)
            _gigaflops(axis)
            _powers(axis, "x", sorted({shape["NTIH".index(size)] for shape in shapes}))
            axis.tick_params(axis="x", labelsize=8)
        axes[line][0].set_ylabel(f"{mode}\nGFLOP/s")
    fixed = {"T": "N=16, I=H=128", "N": "T=50, I=H=128", "H": "N=16, T=50, I=H"}
    words = {"T": "T, steps", "N": "N, batch", "H": "H, hidden units"}
    for column, size in enumerate(SWEEPS):
        axes[0][column].set_title(f"LSTM, {fixed[size]}", fontsize=10, fontweight="bold")
        axes[-1][column].set_xlabel(words[size])
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=len(labels), frameon=False)
    _caption(figure, document)
    figure.tight_layout(rect=(0, 0.025, 1, 0.94))
    return svg(figure)


LEVELS = {"L1": 16 << 10, "L2": 256 << 10, "L3": 8 << 20, "memory": 256 << 20}  # sizes that lie in them on most CPUs


def roofline(primitives: Document, peers: Document) -> str:
    """Inference of the core grid: operations a second against operations per byte of weights."""
    figure, axes = subplots(1, 3, (10.2, 4.4), sharey=True, sharex=True)
    threads = peers["threads"]
    peak = max(row["peak_flops"] or 0 for row in peers["rows"])
    reads = {row["bytes"]: row["bytes_per_s"] for row in primitives["reads"] if row["threads"] == threads}
    for axis, cell in zip(axes[0], ("lstm", "gru", "rnn"), strict=True):
        _roofs(axis, peak, reads)
        rows = [(Case(**row["case"]), row) for row in peers["rows"]]
        rows = [(case, row) for case, row in rows if (case.cell, case.mode) == (cell, "inference") and case.T > 1]
        for name, style in _lines_first(systems_of(peers)):
            have = [(case, row["seconds"][name]) for case, row in rows if name in row["seconds"]]
            points = [(_intensity(case), case.flops / seconds / 1e9) for case, seconds in have]
            if points:
                ours = name == "fastrnn"
                face = style["color"] if ours or style["marker"] == "x" else "none"
                axis.scatter(
                    *zip(*points, strict=True), s=30 if ours else 20, marker=style["marker"], zorder=style["zorder"],
                    facecolors=face, edgecolors=None if style["marker"] == "x" else style["color"], linewidths=1.1,
                    label=style["label"],
                )  # fmt: skip
        _gigaflops(axis)
        axis.set_ylim(top=peak / 1e9 * 1.6)
        _powers(axis, "x", [1, 4, 16, 64, 256])
        axis.set_title({"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}[cell], fontsize=11, fontweight="bold")
        axis.set_xlabel("operations per byte of recurrent weights")
    axes[0][0].set_ylabel("inference, GFLOP/s")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=len(labels), frameon=False)
    _caption(figure, peers)
    figure.tight_layout(rect=(0, 0.025, 1, 0.93))
    return svg(figure)


def _intensity(case: Case) -> float:
    """Operations per byte of recurrent weights, which each step reads once: N where I = H, whatever the cell."""
    return case.flops / case.streamed_bytes


def _roofs(axis: Any, peak: float, reads: dict[int, float]) -> None:
    """The peak, and what reading from each level of memory allows."""
    left, right = 0.4, 400.0
    axis.set_xlim(left, right)
    axis.axhline(peak / 1e9, color=GREY, lw=1.2, zorder=1)
    axis.text(right, peak / 1e9 * 1.06, f"multiply-add peak, {peak / 1e9:.0f}", ha="right", fontsize=7.5)
    found = {name: reads[nbytes] / 1e9 for name, nbytes in LEVELS.items() if nbytes in reads}
    for slope in found.values():
        ridge = max(peak / 1e9 / slope, left)
        axis.plot([left, ridge], [slope * left, slope * ridge], color=GREY, lw=1, ls=":", zorder=1)
    levels = "\n".join(f"{name}: {slope:.0f} GB/s" for name, slope in found.items())
    axis.text(0.97, 0.04, f"dotted, from the left:\n{levels}", ha="right", transform=axis.transAxes, fontsize=7.5)


def threads(document: Document) -> str:
    """A panel for each way to share a call: speed against one thread on the idle machine."""
    found = gains(document)
    splits = list(dict.fromkeys(row["split"] for row in found))
    figure, axes = subplots(1, len(splits), (10.2, 3.6), sharey=True)
    colours = {"inference": "#e8590c", "training": "#228be6"}
    most = 1
    for axis, split in zip(axes[0], splits, strict=True):
        rows = [row for row in found if row["split"] == split]
        for row in rows:
            most = max(most, *row["ratios"])
            axis.plot(
                row["ratios"].keys(),
                row["ratios"].values(),
                marker="o",
                ms=4.5,
                color=colours[row["case"].mode],
                ls="--" if row["busy"] else "-",
                label=f"{row['case'].mode}, {'beside a busy process' if row['busy'] else 'idle machine'}",
            )
        ideal = list(range(1, most + 1))
        axis.plot(ideal, ideal, color=GREY, lw=1, ls=":", zorder=1, label="linear")
        case = rows[0]["case"]
        sizes = f"N={case.N}, T={case.T}, I=H={case.H}" + (", D=2" if case.bidirectional else "")
        sizes += f", L={case.L}" if case.L > 1 else ""
        axis.set_title(f"shared by {split}\n{sizes}", fontsize=9)
        axis.set_xticks(ideal)
        axis.set_ylim(0, most + 0.15)
        axis.set_xlim(0.85, most + 0.15)
        axis.grid(True, color=GREY, alpha=0.25, lw=0.6)
        axis.set_xlabel("threads")
    axes[0][0].set_ylabel("LSTM, times one thread")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="upper center",
        ncols=len(labels),
        frameon=False,
        fontsize=8,
        handlelength=3.2,
        columnspacing=1.4,
    )
    _caption(figure, document)
    figure.tight_layout(rect=(0, 0.03, 1, 0.92))
    return svg(figure)
