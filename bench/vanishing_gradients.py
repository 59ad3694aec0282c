"""The vanishing gradient, measured: who can learn to remember the first symbol of a sequence, and why not.

python bench/vanishing_gradients.py                       # prints the tables of docs/vanishing-gradients.md
python bench/vanishing_gradients.py --images docs/img     # and draws its pictures

T symbols of 8, drawn at random; after the last one the network shall say which the first was. All that the loss can
teach about the first symbol has to come back through T steps. The networks differ in nothing but the cell and, where it
says "open", in the bias of the gate that keeps the state, log(T) more, so that it forgets over about T steps.
"""

from __future__ import annotations

import argparse
import platform
from datetime import datetime, timezone
from math import log
from pathlib import Path
from typing import Any

import _common  # isort: skip - first: pins the process before NumPy is loaded
import numpy as np

import fastrnn
from _drawing import GREY, svg
from fastrnn import backends
from fastrnn.diagnostics import plot_gradient_flow, plot_unroll
from fastrnn.training import Adam, Linear, clip_grad_norm, softmax_cross_entropy

SYMBOLS, BATCH, HIDDEN, RATE = 8, 32, 32, 3e-3
# label: class, whether the keeping gate is opened, colour and style of its line
NETWORKS = {
    "RNN (tanh)": (fastrnn.RNN, False, ("#e8590c", "-")),
    "LSTM": (fastrnn.LSTM, False, ("#228be6", "--")),
    "LSTM, open": (fastrnn.LSTM, True, ("#228be6", "-")),
    "GRU": (fastrnn.GRU, False, ("#2f9e44", "--")),
    "GRU, open": (fastrnn.GRU, True, ("#2f9e44", "-")),
}


class Memory:
    """One network and its training."""

    def __init__(self, kind: Any, opened: bool, steps: int, seed: int) -> None:
        self.layer = kind(SYMBOLS, HIDDEN, rng=seed)
        self.head = Linear(HIDDEN, SYMBOLS, rng=seed + 1)
        self.optimizer = Adam([self.layer, self.head], RATE)
        self.steps, self.rng = steps, np.random.default_rng(seed + 2)
        if opened:  # f of the LSTM and z of the GRU are both the second gate
            with self.layer.edit() as weights:
                weights["bias_ih_l0"][HIDDEN : 2 * HIDDEN] += log(steps)

    def batch(self) -> tuple[Any, Any]:
        """x (T, N, 8), one-hot, and the first symbols (N,)."""
        symbols = self.rng.integers(0, SYMBOLS, (self.steps, BATCH))
        return np.eye(SYMBOLS, dtype=np.float32)[symbols], symbols[0]

    def backward(self, x: Any, first: Any) -> tuple[Any, Any, Any, Any]:
        """Scores, tape, dy and the gradients of the head: what both training and looking need."""
        y, _, tape = self.layer.forward(x)
        scores, head_tape = self.head.forward(y[-1])
        _, dscores = softmax_cross_entropy(scores, first)
        head_grads = self.head.backward(head_tape, dscores)
        dy = np.zeros(y.shape, np.float32)
        dy[-1] = head_grads.x
        return scores, tape, dy, head_grads

    def flow(self) -> Any:
        """The gradient flow of a batch that is not trained on."""
        _, tape, dy, _ = self.backward(*self.batch())
        return fastrnn.diagnostics.gradient_flow(self.layer, tape, dy)

    def train(self, count: int) -> np.ndarray:
        """`count` steps of Adam; the share of right answers of every one, before it."""
        right = np.empty(count)
        for k in range(count):
            x, first = self.batch()
            scores, tape, dy, head_grads = self.backward(x, first)
            right[k] = (scores.argmax(1) == first).mean()
            grads = self.layer.backward(tape, dy)
            clip_grad_norm([grads, head_grads], 1.0)
            self.optimizer.step([grads, head_grads])
        return right


def smooth(right: np.ndarray, width: int = 100) -> np.ndarray:
    """Means over `width` steps."""
    return right[: len(right) // width * width].reshape(-1, width).mean(axis=1)


def table(before: dict[str, Any], after: dict[str, Any], right: dict[str, np.ndarray]) -> str:
    """Norms at the first step relative to the last, and how the training went, in Markdown."""

    def ratio(flow: Any) -> str:
        norms = flow.norms["h_l0"]
        return f"{norms[0] / norms[-1]:.1e}"

    lines = [
        "| network | dL/dh[0] / dL/dh[T-1], untrained | trained | right answers at the end | over 90 % after |",
        "|---|--:|--:|--:|--:|",
    ]
    for label in before:
        means = smooth(right[label])
        over = np.flatnonzero(means > 0.9)
        when = f"{100 * (int(over[0]) + 1)} batches" if over.size else "-"
        last = f"{100 * means[-1]:.0f} %"
        lines.append(f"| {label} | {ratio(before[label])} | {ratio(after[label])} | {last} | {when} |")
    return "\n".join(lines)


def draw(folder: Path, before: dict[str, Any], right: dict[str, np.ndarray], steps: int, seen: Any) -> None:
    """The pictures of the page."""
    from matplotlib.figure import Figure

    styles = {
        label: {"color": hue, "linestyle": dash, "linewidth": 2} for label, (_, _, (hue, dash)) in NETWORKS.items()
    }
    figure = plot_gradient_flow(before, figure=Figure(figsize=(8, 4.2), layout="constrained"))
    axes = figure.axes[0]
    for line in list(axes.lines):
        label, _, name = line.get_label().rpartition(" ")
        if name.startswith("c_"):  # dL/dc of the LSTM: its dL/dh tells the same
            line.remove()
        line.set(label=label, **styles[label])
    axes.set_title("Before training: what of the gradient arrives at step t", color=GREY)
    axes.set_xlim(0, steps - 1)
    _legend(axes, "lower right")
    save(figure, folder / "vanishing_gradients.svg")

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    for label, shares in right.items():
        means = smooth(shares)
        axes.plot(100 * np.arange(1, len(means) + 1), 100 * means, label=label, **styles[label])
    axes.axhline(100 / SYMBOLS, color=GREY, linewidth=1, linestyle=":")
    axes.set(ylim=(0, 104), xlim=(0, None))
    axes.set_xlabel("batches trained on (dotted: guessing)", color=GREY)
    axes.set_ylabel("right answers, %", color=GREY)
    axes.set_title("Training: who remembers the first symbol", color=GREY)
    axes.grid(True, color=GREY, alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=GREY)
    _legend(axes, "center right")
    save(figure, folder / "vanishing_learning.svg")

    figure = plot_unroll(seen, names=["z_l0", "h_l0"], figure=Figure(figsize=(8, 4), layout="constrained"))
    figure.suptitle("The trained GRU reads one sequence: update gate z and state h", color=GREY)
    figure.axes[0].set_title("")
    save(figure, folder / "vanishing_unrolled.svg")


def _legend(axes: Any, place: str) -> None:
    legend = axes.legend(frameon=False, loc=place)
    for text in legend.get_texts():
        text.set_color(GREY)


def save(figure: Any, path: Path) -> None:
    """A small SVG that is the same each time it is drawn."""
    text = svg(figure)
    path.write_text(text, encoding="utf-8")
    print(f"{path}: {len(text):,} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50, help="T")
    parser.add_argument("--batches", type=int, default=6000, help="to train on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=Path, help="folder for the pictures")
    options = parser.parse_args()
    fastrnn.set_num_threads(1)
    before, after, right = {}, {}, {}
    for label, (kind, opened, _) in NETWORKS.items():
        memory = Memory(kind, opened, options.steps, options.seed)
        if label.startswith("RNN"):
            radius = fastrnn.diagnostics.spectral_radius(memory.layer)["h_l0"]
        before[label] = memory.flow()
        right[label] = memory.train(options.batches)
        after[label] = memory.flow()
        if label == "GRU, open":
            seen = fastrnn.diagnostics.unroll(memory.layer, memory.batch()[0])
    module = backends.current()
    isa = backends.active_isa(module)
    print(
        f"{_common.cpu_name()}, {module.NAME} {isa} kernels, one thread, float32, T={options.steps} N={BATCH} "
        f"H={HIDDEN}, {options.batches} batches, seed {options.seed}; fastrnn {fastrnn.__version__}, "
        f"NumPy {np.__version__}, Python {platform.python_version()}; {datetime.now(timezone.utc).date()}\n"
    )
    print(table(before, after, right))
    power = radius ** (options.steps - 1)
    print(f"\nspectral radius of U of the untrained RNN: {radius:.3f}; to the power of T-1: {power:.1e}")
    if options.images:
        draw(options.images, before, right, options.steps, seen)


if __name__ == "__main__":
    main()
