"""What the demonstration leaves in files: the record of its training as a table, and a picture."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Point:
    """One training step: losses in bits per character, held out only where it was measured."""

    step: int
    characters: int  # seen so far
    seconds: float  # spent in training steps so far
    train: float
    held_out: float | None = None


def write_record(record: Sequence[Point], path: Path) -> None:
    """One line for each step, as comma-separated values."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", "characters", "seconds", "train_bits", "held_out_bits"])
        for point in record:
            held_out = "" if point.held_out is None else f"{point.held_out:.4f}"
            writer.writerow([point.step, point.characters, f"{point.seconds:.3f}", f"{point.train:.4f}", held_out])


def write_picture(record: Sequence[Point], rates: dict[str, float], title: str, folder: Path) -> str:
    """Loss curve and speeds as demo.png; without matplotlib the speeds as speed.csv. Tells what was written."""
    with (folder / "speed.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["backend", "characters_per_second"])
        writer.writerows([name, f"{rate:.0f}"] for name, rate in rates.items())
    tables = f"the numbers are in {folder / 'training.csv'} and {folder / 'speed.csv'}"
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return f'no picture without matplotlib (pip install "fastrnn[demo]"); {tables}'
    try:
        figure = Figure(figsize=(10, 4), layout="constrained")
        FigureCanvasAgg(figure)
        _draw(figure, record, rates, title)
        figure.savefig(folder / "demo.png", dpi=120)
    except Exception as error:  # a run of minutes must not end in a traceback for want of a font or a cache folder
        return f"no picture, because matplotlib failed ({error}); {tables}"
    return f"the picture is {folder / 'demo.png'}; {tables}"


def _draw(figure: Any, record: Sequence[Point], rates: dict[str, float], title: str) -> None:
    curve, bars = figure.subplots(1, 2, width_ratios=[2, 1])
    seconds = [point.seconds for point in record]
    curve.plot(seconds, [point.train for point in record], color="0.75", linewidth=0.8, label="training chunk")
    held = [point for point in record if point.held_out is not None]
    curve.plot([p.seconds for p in held], [p.held_out for p in held], "o-", color="C0", label="held-out text")
    last = held[-1]
    curve.annotate(
        f"{last.held_out:.2f}", (last.seconds, last.held_out), (0, 8), textcoords="offset points", ha="right"
    )
    curve.set(xlabel="seconds of training", ylabel="bits per character", title=title)
    curve.set_ylim(bottom=0)
    curve.legend()
    drawn = bars.bar(list(rates), list(rates.values()), color=["C0", "0.6"][-len(rates) :], width=0.6)
    bars.bar_label(drawn, [f"{rate:,.0f}" for rate in rates.values()], padding=2)
    bars.set(ylabel="characters per second", title="the same training step")
    bars.margins(y=0.12)
    bars.set_xlim(-0.7, 1.7)
    for axes in (curve, bars):
        axes.spines[["top", "right"]].set_visible(False)
