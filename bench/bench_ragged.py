"""Rows of different length, one thread: fastrnn beside PyTorch's PackedSequence and a dense call of the same work.

    python bench/bench_ragged.py
    python bench/bench_ragged.py --quick          # fewer rounds
    python bench/bench_ragged.py --shapes         # other shapes, beside dense calls alone, no bars

N=32, I=H=128, float32, lengths uniform in 10..200, in no order. All layouts of fastrnn are measured: padded with
`lengths`, rows one after the other with offsets, PyTorch's packed form. The dense call has as many steps as the rows
have on average. "training" is forward and backward with all gradients, dx among them. What PyTorch packs is packed
before the clock starts. Medians of interleaved rounds; the bars are those that the library holds itself to, and the
exit status is 1 if one fails.
"""

from __future__ import annotations

import _common  # isort: skip - first: pins the process before NumPy is loaded

import argparse
import sys
from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import torch

import _turns
import fastrnn
from fastrnn import sequences
from fastrnn.backends import _core  # type: ignore[import-not-found,unused-ignore]

BATCH, WIDTH = 32, 128
BARS = {  # PyTorch's time over fastrnn's, at least
    ("lstm", "forward"): 1.75,
    ("lstm", "training"): 5.0,
    ("gru", "forward"): 1.7,
    ("gru", "training"): 4.2,
}
ROUNDS = {"forward": 40, "training": 15}
Calls = dict[str, Callable[[], Any]]


def sample() -> Any:
    """Lengths (N,)."""
    return np.random.default_rng(0).integers(10, 201, BATCH)


def fastrnn_call(cell: str, mode: str, x: Any, dy: Any, width: int = WIDTH, **options: Any) -> Callable[[], Any]:
    """Memory is used again where the layer takes it."""
    layer = _common.CELLS[cell][0](width, width, rng=1)
    if mode == "forward":
        out = np.empty_like(dy if isinstance(dy, np.ndarray) else dy.data)
        return lambda: layer(x, out=out, **options)
    tape = layer.forward(x, **options)[2]
    gradients = layer.backward(tape, dy)

    def train() -> Any:
        nonlocal tape, gradients
        tape = layer.forward(x, tape=tape, **options)[2]
        gradients = layer.backward(tape, dy, out=gradients)
        return gradients

    return train


def torch_call(cell: str, mode: str, x: Any, dy: Any, lengths: Any) -> Callable[[], Any]:
    layer = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](WIDTH, WIDTH)
    pack = torch.nn.utils.rnn.pack_padded_sequence
    packed = pack(torch.from_numpy(x), torch.from_numpy(lengths), enforce_sorted=False)
    wanted = pack(torch.from_numpy(dy), torch.from_numpy(lengths), enforce_sorted=False).data
    if mode == "forward":

        def infer() -> Any:
            with torch.no_grad():
                return layer(packed)

        return infer
    data = packed.data.clone().requires_grad_()

    def train() -> Any:
        layer.zero_grad()
        data.grad = None
        y = layer(packed._replace(data=data))[0]
        y.data.backward(wanted)
        return data.grad

    return train


def measure(cell: str, mode: str, rounds: int) -> bool:
    """One block of the output; whether all its bars hold."""
    lengths = sample()
    rng = np.random.default_rng(1)
    steps, mean = int(lengths.max()), round(lengths.sum() / BATCH)
    x, dy = rng.standard_normal((2, steps, BATCH, WIDTH), np.float32)
    padding = np.arange(steps)[:, None] >= lengths
    x[padding] = dy[padding] = 0
    calls: Calls = {
        "PyTorch, PackedSequence": torch_call(cell, mode, x, dy, lengths),
        "fastrnn, dense": fastrnn_call(cell, mode, x[:mean].copy(), dy[:mean].copy()),
        "fastrnn, lengths": fastrnn_call(cell, mode, x, dy, lengths=lengths),
    }
    for name, pack in (("Ragged", sequences.ragged), ("PackedSequence", sequences.pack)):
        calls[f"fastrnn, {name}"] = fastrnn_call(cell, mode, pack(x, lengths), pack(dy, lengths))
    seconds = _turns.medians(calls, rounds)
    dense = seconds["fastrnn, dense"] * lengths.sum() / (mean * BATCH)
    peer = seconds.pop("PyTorch, PackedSequence")
    work = _common.flops(cell, "forward" if mode == "forward" else "train", int(lengths.sum()), BATCH, WIDTH, WIDTH)
    print(f"\n{cell} {mode}: PyTorch {peer * 1e3:.2f} ms")
    good = True
    for name, taken in seconds.items():
        if name == "fastrnn, dense":
            print(f"  {name:23} {taken * 1e3:8.2f} ms {work / dense / 1e9:6.1f} GFLOP/s")
            continue
        ratio, beside = peer / taken, taken / dense
        good &= ratio >= BARS[cell, mode] and beside <= 1.1
        print(
            f"  {name:23} {taken * 1e3:8.2f} ms {work / taken / 1e9:6.1f} GFLOP/s"
            f"   PyTorch / this {_turns.verdict(ratio, BARS[cell, mode])}   this / dense {_turns.close(beside)}"
        )
    return good


SHAPES: tuple[tuple[str, int, int, tuple[int, int], int], ...] = (  # cell, I=H, N, lengths, one row more of this length
    ("lstm", 16, 16, (10, 200), 0),
    ("gru", 64, 32, (10, 200), 0),
    ("lstm", 256, 32, (10, 100), 0),
    ("lstm", 128, 128, (1, 60), 0),
    ("lstm", 32, 500, (10, 10), 3000),
)


def compare(cell: str, width: int, batch: int, between: tuple[int, int], longest: int) -> None:
    """A line: training in each layout over the dense call of the same work."""
    rng = np.random.default_rng(0)
    lengths = np.append(rng.integers(between[0], between[1] + 1, batch), [longest] if longest else []).astype(np.int64)
    steps, mean = int(lengths.max()), round(lengths.mean())
    x, dy = rng.standard_normal((2, steps, len(lengths), width), np.float32)
    calls = {
        "dense": fastrnn_call(cell, "training", x[:mean].copy(), dy[:mean].copy(), width),
        "lengths": fastrnn_call(cell, "training", x, dy, width, lengths=lengths),
    }
    for name, pack in (("rows", sequences.ragged), ("steps", sequences.pack)):
        calls[name] = fastrnn_call(cell, "training", pack(x, lengths), pack(dy, lengths), width)
    seconds = _turns.medians(calls, 15)
    dense = seconds.pop("dense") * lengths.sum() / (mean * len(lengths))
    ratios = "   ".join(f"{name} {taken / dense:5.2f}" for name, taken in seconds.items())
    sizes = f"I=H={width} N={len(lengths)} lengths {lengths.min()}..{steps}"
    print(f"{cell} training {sizes:38} dense {dense * 1e3:7.2f} ms   {ratios}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a third of the rounds")
    parser.add_argument("--shapes", action="store_true", help="other shapes instead")
    options = parser.parse_args()
    if options.shapes:
        for shape in SHAPES:
            compare(*shape)
        return
    torch.set_num_threads(1)
    lengths = sample()
    print(
        f"{_common.cpu_name()}, fastrnn {fastrnn.__version__} {_core.isa_active()}, PyTorch {torch.__version__}, "
        f"one thread, {date.today()}\nN={BATCH}, I=H={WIDTH}, float32, lengths {lengths.min()}..{lengths.max()}, "
        f"{lengths.sum()} rows in all"
    )
    good = [measure(cell, mode, ROUNDS[mode] // (3 if options.quick else 1)) for cell, mode in BARS]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
