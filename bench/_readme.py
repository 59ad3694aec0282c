"""The README's table and picture of speed against T, from what bench_sequence_length.py wrote with --benchmark-json."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from _drawing import GREY, subplots, svg

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
NAMES = {"cpp": "fastrnn", "numpy": "NumPy", "numba": "Numba"}
PACKAGES = {"fastrnn": "fastrnn", "numpy": "NumPy", "numba": "Numba", "python": "Python"}
CELLS = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN (tanh)"}
MODES = ("forward", "forward+backward")

COLOURS = {"cpp": "#e8590c", "numba": "#228be6", "numpy": "#868e96"}

Key = tuple[str, str, str, int]  # cell, mode, system, T


class Results:
    """The measurements of one run by (cell, mode, system, T)."""

    def __init__(self, document: dict[str, Any], statistic: str = "median") -> None:
        self.statistic = statistic
        self.machine: dict[str, Any] = document["machine_info"]
        self.date = document["datetime"][:10]
        self.seconds: dict[Key, float] = {}
        self.info: dict[Key, dict[str, Any]] = {}
        for row in document["benchmarks"]:
            info = row["extra_info"]
            key = (info["cell"], info["mode"], info["system"], info["T"])
            self.seconds[key] = row["stats"][statistic]
            self.info[key] = info
        if not self.seconds:
            message = "the file has no benchmarks in it"
            raise SystemExit(message)

    def values(self, position: int) -> list[Any]:
        """The different cells (0), modes (1), systems (2) or T (3) in the order of the run."""
        return list(dict.fromkeys(key[position] for key in self.seconds))

    def row_steps(self, key: Key) -> float:
        """Steps of all rows per second: T*N / seconds."""
        return float(self.info[key]["row_steps"]) / self.seconds[key]

    def gflops(self, key: Key) -> float:
        return float(self.info[key]["flops"]) / self.seconds[key] / 1e9

    def ratio(self, key: Key, system: str) -> float | None:
        """How many times as long the other system takes."""
        other = self.seconds.get((key[0], key[1], system, key[3]))
        return None if other is None else other / self.seconds[key]

    def caption(self) -> str:
        """Machine, versions and date in one line."""
        info = next(iter(self.info.values()))
        versions = self.machine.get("versions", {})
        named = [f"{name} {versions[key]}" for key, name in PACKAGES.items() if key in versions]
        isa = f", {self.machine['isa']} kernels" if self.machine.get("isa") else ""
        sizes = f"N={info['N']} I={info['I']} H={info['H']}"
        cpu = re.sub(r"\((R|TM|tm|r)\)", "", self.machine.get("cpu_name", "unknown processor"))
        rounds = {"median": "median", "min": "fastest"}[self.statistic]
        return f"{cpu}{isa}, one thread, float32, {sizes}, {rounds} round; {', '.join(named)}; {self.date}"


def quantity(value: float) -> str:
    """Three significant digits with k or M."""
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.3g}"


def table(results: Results) -> str:
    """One row per cell and T: speed of fastrnn and its ratio to the others, for both modes."""
    others = [system for system in NAMES if system != "cpp" and system in results.values(2)]
    modes = results.values(1)
    head = ["cell", "T"]
    for mode in modes:
        head += [f"{mode}: row-steps/s", "GFLOP/s", *(f"x {NAMES[other]}" for other in others)]
    lines = ["| " + " | ".join(head) + " |", "|---" + "|--:" * (len(head) - 1) + "|"]
    for cell in results.values(0):
        for steps in results.values(3):
            row = [CELLS.get(cell, cell), str(steps)]
            for mode in modes:
                key = (cell, mode, "cpp", steps)
                if key not in results.seconds:
                    row += ["-"] * (2 + len(others))
                    continue
                row += [quantity(results.row_steps(key)), f"{results.gflops(key):.1f}"]
                ratios = [results.ratio(key, other) for other in others]
                row += ["-" if ratio is None else f"{ratio:.3g}" for ratio in ratios]
            lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def picture(results: Results) -> str:
    """The SVG: one column per cell, one row per mode, a line per system, both axes logarithmic."""
    cells, modes = results.values(0), results.values(1)
    size = (0.6 + 3.1 * len(cells), 0.9 + 2.5 * len(modes))
    figure, axes = subplots(len(modes), len(cells), size, sharex=True, sharey="row")
    for row, mode in enumerate(modes):
        for column, cell in enumerate(cells):
            _panel(axes[row][column], results, cell, mode)
        axes[row][0].set_ylabel(f"{mode}\nrow-steps per second")
    for column, cell in enumerate(cells):
        axes[0][column].set_title(CELLS.get(cell, cell), fontsize=11, fontweight="bold")
        axes[-1][column].set_xlabel("T, steps of a sequence")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=len(labels), frameon=False, bbox_to_anchor=(0.5, 1.0))
    figure.text(0.5, 0.008, results.caption(), ha="center", fontsize=6.5)
    figure.tight_layout(rect=(0, 0.025, 1, 0.95))
    return svg(figure)


def _panel(axis: Any, results: Results, cell: str, mode: str) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator

    for system in NAMES:
        points = [(t, (cell, mode, system, t)) for t in results.values(3) if (cell, mode, system, t) in results.seconds]
        if points:
            steps, keys = zip(*points, strict=True)
            wide = 2.4 if system == "cpp" else 1.6
            speed = [results.row_steps(key) for key in keys]
            colour, label = COLOURS[system], NAMES[system]
            axis.plot(steps, speed, "o-", color=colour, lw=wide, ms=4, label=label, zorder=2 + wide)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(results.values(3), [str(t) for t in results.values(3)])
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
    axis.yaxis.set_major_formatter(EngFormatter(sep=" "))
    axis.minorticks_off()
    axis.grid(True, color=GREY, alpha=0.25, lw=0.6)


def section(results: Results, image: str | None) -> str:
    """What goes between the markers of the README."""
    parts = [results.caption() + ".", table(results)]
    if image:
        parts.insert(0, f"![Row-steps per second against the length of the sequence]({image})")
    return "\n\n".join(parts)


def replace_section(readme: Path, text: str) -> None:
    """Put the text between the markers; everything else stays."""
    before, begin, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        message = f"{readme} has no lines {BEGIN} and {END}"
        raise SystemExit(message)
    readme.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
