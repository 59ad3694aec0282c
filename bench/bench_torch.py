"""PyTorch's recurrent modules with and without `fastrnn.torch.patch`, one thread: `python bench/bench_torch.py`.

`--what calls` (as without it) measures all modules at a few shapes, dense and packed; `grid` nn.LSTM at the shapes of
`python -m fastrnn bench --grid core`, with the smallest quotient, or some of them (`--cells 0:10`); `fixed` what a
training step of one row costs besides the arithmetic; `projection` nn.LSTM(proj_size=) against fastrnn's own layer;
`programs` runs those of examples/torch.

The same module on the same input, the two in turn; a row has the median of all rounds of each and the quotient.
"infer" is a call under no_grad; "train" is zero_grad, a call, a sum and backward, as in a training loop but for the
optimiser's step.
"""

from __future__ import annotations

import _common  # first: it pins the thread

# isort: split
import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fastrnn
import fastrnn.torch
from fastrnn._bench_cases import CORE

KINDS: dict[str, Any] = {"LSTM": torch.nn.LSTM, "GRU": torch.nn.GRU, "RNN": torch.nn.RNN}
# T, N, I, H: one step of one row, one row, the middle, the middle of a larger net, a long sequence
SHAPES = [(1, 1, 64, 64), (100, 1, 32, 32), (50, 16, 64, 64), (50, 32, 256, 256), (200, 16, 128, 128)]
ROUND = 0.05  # seconds that one round of one variant lasts


def infer(net: Any, x: Any) -> Callable[[], None]:
    def call() -> None:
        with torch.no_grad():
            net(x)

    return call


def train(net: Any, x: Any) -> Callable[[], None]:
    def call() -> None:
        net.zero_grad()
        out = net(x)[0]
        (out.data if isinstance(out, torch.nn.utils.rnn.PackedSequence) else out).sum().backward()

    return call


def packed(steps: int, batch: int, inputs: int) -> Any:
    """Lengths spread evenly from T/batch to T."""
    lengths = torch.from_numpy(np.linspace(steps, max(steps // batch, 1), batch).astype(np.int64))
    return torch.nn.utils.rnn.pack_padded_sequence(torch.randn(steps, batch, inputs), lengths)


def seconds(call: Callable[[], None], times: int) -> float:
    begin = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - begin) / times


def measure(call: Callable[[], None], rounds: int) -> tuple[float, float]:
    """Seconds of a call, unpatched and patched: medians of rounds that take turns."""
    taken: tuple[list[float], list[float]] = ([], [])
    switches = (fastrnn.torch.unpatch, fastrnn.torch.patch)
    for switch in switches:
        switch()
        seconds(call, 3)
    times = max(1, int(ROUND / seconds(call, 3)))
    for _ in range(rounds):
        for switch, into in zip(switches, taken, strict=True):
            switch()
            call()
            into.append(seconds(call, times))
    fastrnn.torch.unpatch()
    return statistics.median(taken[0]), statistics.median(taken[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--what", choices=tuple(WHAT), default="calls")
    parser.add_argument("--cells", default=":", help="of the grid: which of its rows, as a slice")
    parser.add_argument("--small", action="store_true", help="of programs: a few seconds each")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(
        f"{_common.cpu_name()}, one thread, float32; fastrnn {fastrnn.__version__}, PyTorch {torch.__version__}; "
        f"{date.today()}\n"
    )
    WHAT[options.what](options)


def calls(options: argparse.Namespace) -> None:
    print("| module | mode | T, N, I, H | PyTorch us | patched us | x |\n|---|---|---|--:|--:|--:|")
    for name, kind in KINDS.items():
        for steps, batch, inputs, hidden in SHAPES:
            inputs_of = {"": torch.randn(steps, batch, inputs)}
            if batch > 1:
                inputs_of[" packed"] = packed(steps, batch, inputs)
            net = kind(inputs, hidden)
            for what, x in inputs_of.items():
                for mode in (infer, train):
                    before, after = measure(mode(net, x), options.rounds)
                    label = f"{name}{what} | {mode.__name__} | {steps}, {batch}, {inputs}, {hidden}"
                    print(f"| {label} | {before * 1e6:.1f} | {after * 1e6:.1f} | {before / after:.2f} |", flush=True)


def grid(options: argparse.Namespace) -> None:
    print("| nn.LSTM | N, T, I, H, L, directions | PyTorch ms | patched ms | x |\n|---|---|--:|--:|--:|")
    quotients = []
    begin, end = (int(text) if text else None for text in options.cells.split(":"))
    for batch, steps, inputs, hidden, layers, both in CORE[begin:end]:
        net = torch.nn.LSTM(inputs, hidden, layers, bidirectional=both)
        x = torch.randn(steps, batch, inputs)
        for mode in (infer, train):
            before, after = measure(mode(net, x), options.rounds)
            quotients.append(before / after)
            label = f"{mode.__name__} | {batch}, {steps}, {inputs}, {hidden}, {layers}, {1 + both}"
            print(f"| {label} | {before * 1e3:.3f} | {after * 1e3:.3f} | {before / after:.2f} |", flush=True)
    print(f"\nsmallest {min(quotients):.2f}, geometric mean {statistics.geometric_mean(quotients):.2f}")


class _Nothing(torch.autograd.Function):
    """The node of a recurrent call that computes nothing: what autograd and the module cost whoever does the rest."""

    @staticmethod
    def forward(ctx: Any, shape: tuple[int, ...], x: Any, h0: Any, c0: Any, *params: Any) -> Any:
        ctx.shapes = [p.shape for p in params]
        return x.new_empty(shape), torch.empty_like(h0), torch.empty_like(c0)

    @staticmethod
    def backward(ctx: Any, *given: Any) -> Any:
        return (*[None] * 4, *[torch.empty(shape) for shape in ctx.shapes])


def fixed(options: argparse.Namespace) -> None:
    """Ways through nn.LSTM in turn: PyTorch's, fastrnn's, that under PyTorch's forward, and nothing under it."""
    net, x = torch.nn.LSTM(64, 64), torch.randn(1, 1, 64)
    function, forward = torch._VF.lstm, torch.nn.LSTM.forward

    def nothing(x: Any, hx: Any, params: Any, *_: Any) -> Any:
        return _Nothing.apply((1, 1, 64), x, *hx, *params)

    call = train(net, x)
    with fastrnn.torch.patched():
        ours, shorter = torch._VF.lstm, torch.nn.LSTM.forward
        ways = {
            "PyTorch": (function, forward), "patched": (ours, shorter),
            "patched, with PyTorch's forward": (ours, forward), "nothing under PyTorch's forward": (nothing, forward),
        }  # fmt: skip
        taken: dict[str, list[float]] = {name: [] for name in ways}
        try:
            for _ in range(options.rounds):
                for name, way in ways.items():
                    torch._VF.lstm, torch.nn.LSTM.forward = way
                    call()
                    taken[name].append(seconds(call, 300))
        finally:
            torch._VF.lstm, torch.nn.LSTM.forward = ours, shorter
    base = statistics.median(taken["PyTorch"])
    print("| nn.LSTM, train, 1, 1, 64, 64 | us | x |\n|---|--:|--:|")
    for name, times in taken.items():
        print(f"| {name} | {statistics.median(times) * 1e6:.1f} | {base / statistics.median(times):.2f} |")


def projection(options: argparse.Namespace) -> None:
    """fastrnn's layer by itself: what a patched call could be at most. Its general path is in NumPy."""
    print("| mode | T, N, I, H, P | PyTorch ms | fastrnn ms | x |\n|---|--:|--:|--:|--:|")
    for steps, batch, inputs, hidden, width in ((50, 16, 64, 64, 32), (100, 1, 64, 64, 32), (50, 32, 256, 512, 128)):
        net, x = torch.nn.LSTM(inputs, hidden, proj_size=width), torch.randn(steps, batch, inputs)
        layer = fastrnn.LSTM(inputs, hidden, proj_size=width, rng=0)
        given, dy = x.numpy(), np.ones((steps, batch, width), np.float32)
        ways: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
            "infer": (infer(net, x), lambda: layer(given)),  # noqa: B023 - used up within the round
            "train": (train(net, x), lambda: layer.backward(layer.forward(given)[2], dy)),  # noqa: B023
        }
        for mode, pair in ways.items():
            taken: tuple[list[float], list[float]] = ([], [])
            times = max(1, int(ROUND / seconds(pair[0], 3)))
            for _ in range(options.rounds):
                for call, into in zip(pair, taken, strict=True):
                    call()
                    into.append(seconds(call, times))
            before, after = map(statistics.median, taken)
            label = f"{mode} | {steps}, {batch}, {inputs}, {hidden}, {width}"
            print(f"| {label} | {before * 1e3:.3f} | {after * 1e3:.3f} | {before / after:.2f} |", flush=True)


def programs(options: argparse.Namespace) -> None:
    """Each in a process of its own; what cannot be imported is said and left out."""
    print("| program | PyTorch s | patched s | x | sb3=True s | x | largest difference of the curves |")
    print("|---|--:|--:|--:|--:|--:|--:|", flush=True)
    for path in sorted((Path(__file__).parents[1] / "examples" / "torch").glob("[!_]*.py")):
        command = [sys.executable, str(path), "--json", *(["--small"] if options.small else [])]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
        if done.returncode:
            print(f"{path.name}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            continue
        result = json.loads(done.stdout.splitlines()[-1])
        base, *rest = result["seconds"].values()
        want, *curves = result["curves"].values()
        apart = max(abs(a - b) / max(abs(b), 1.0) for curve in curves for a, b in zip(curve, want, strict=True))
        cells = [f"{base:.2f}", *(cell for taken in rest for cell in (f"{taken:.2f}", f"{base / taken:.2f}"))]
        cells += ["", ""] * (2 - len(rest))
        print(f"| {path.stem} | {' | '.join(cells)} | {apart:.1e} |", flush=True)


WHAT = {"calls": calls, "grid": grid, "fixed": fixed, "projection": projection, "programs": programs}

if __name__ == "__main__":
    main()
