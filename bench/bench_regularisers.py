"""What recurrent dropout, zoneout and dropout between layers cost, one thread, and what PyTorch's users write for them.

    python bench/bench_regularisers.py
    python bench/bench_regularisers.py --quick          # fewer rounds

float32, a training forward ("forward") and forward and backward with all gradients ("training"), random numbers drawn
within the clock: each call draws its own, as training does. "given" is the same call with factors that were drawn
before, what is left is the kernels' share. Dropout between layers is that of two layers beside two layers without.
PyTorch has neither of the first two in nn.LSTM; its users loop over nn.LSTMCell, multiply h by a mask (recurrent
dropout) or choose between the old state and the new one (zoneout). Medians of interleaved rounds. The exit status is 1
if one of the two, its random numbers apart, takes more than 1.15 of the call without (zoneout's factors are as many as
the outputs, and are read once), or both more than 1.2, or if the loop is not slower.
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
from fastrnn import functional
from fastrnn.backends import _core  # type: ignore[import-not-found,unused-ignore]

RATE, KEPT = 0.25, 0.1  # of recurrent dropout and dropout; of zoneout
CASES = ((32, 100, 128, 15), (16, 128, 64, 30))  # N, T, I=H, rounds
OPTIONS: dict[str, dict[str, Any]] = {
    "without": {},
    "recurrent dropout": {"recurrent_dropout": RATE},
    "zoneout": {"zoneout": KEPT},
    "both": {"recurrent_dropout": RATE, "zoneout": KEPT},
}
Call = Callable[[], Any]


def drawn(cell: str, mode: str, x: Any, dy: Any, **options: Any) -> Call:
    """A layer that draws; memory is used again where it takes it."""
    layer = _common.CELLS[cell][0](x.shape[2], x.shape[2], rng=1, **options)
    tape = layer.forward(x)[2]
    gradients = layer.backward(tape, dy)

    def run() -> Any:
        nonlocal tape, gradients
        tape = layer.forward(x, tape=tape)[2]
        if mode == "training":
            gradients = layer.backward(tape, dy, out=gradients)
        return gradients

    return run


def given(cell: str, mode: str, x: Any, dy: Any, **options: Any) -> Call:
    """The same with factors drawn before."""
    steps, batch, width = x.shape
    rng = np.random.default_rng(2)
    packed = _common.CELLS[cell][0](width, width, rng=1)._bind()
    fixed: dict[str, Any] = {}
    if "recurrent_dropout" in options:
        fixed["recurrent_dropout"] = (rng.random((1, batch, width)) >= RATE) * np.float32(1 / (1 - RATE))
    if "zoneout" in options:
        h, c = ((rng.random((1, steps, batch, width)) < KEPT).astype(np.float32) for _ in "hc")
        fixed["zoneout"] = (h, c) if cell == "lstm" else h
    tape = functional.forward(packed, x, **fixed)[2]
    gradients = functional.backward(tape, dy)

    def run() -> Any:
        nonlocal tape, gradients
        tape = functional.forward(packed, x, tape=tape, **fixed)[2]
        if mode == "training":
            gradients = functional.backward(tape, dy, out=gradients)
        return gradients

    return run


def loop(cell: str, mode: str, x: Any, dy: Any, **options: Any) -> Call:
    """PyTorch: a step at a time."""
    made = {"lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}[cell](x.shape[2], x.shape[2])
    source = torch.from_numpy(x).requires_grad_()
    wanted = torch.from_numpy(dy)

    def kept(new: Any, old: Any) -> Any:
        return torch.where(torch.rand_like(new) < KEPT, old, new) if "zoneout" in options else new

    def run() -> Any:
        made.zero_grad()
        source.grad = None
        h = c = torch.zeros(x.shape[1:])
        mask = torch.nn.functional.dropout(torch.ones_like(h), RATE) if "recurrent_dropout" in options else None
        outputs = []
        for step in source:
            entering = h if mask is None else h * mask
            if cell == "lstm":
                new, cell_state = made(step, (entering, c))
                c = kept(cell_state, c)
            else:
                new = made(step, entering)
            h = kept(new, h)
            outputs.append(h)
        y = torch.stack(outputs)
        if mode == "training":
            y.backward(wanted)
        return y

    return run


def measure(cell: str, mode: str, batch: int, steps: int, width: int, rounds: int) -> bool:
    x, dy = np.random.default_rng(0).standard_normal((2, steps, batch, width), np.float32)
    calls: dict[str, Call] = {}
    for name, options in OPTIONS.items():
        calls[name] = drawn(cell, mode, x, dy, **options)
        calls[f"{name}, given"] = given(cell, mode, x, dy, **options)
    calls["two layers"] = drawn(cell, mode, x, dy, num_layers=2)
    calls["two layers, dropout"] = drawn(cell, mode, x, dy, num_layers=2, dropout=RATE)
    seconds = _turns.medians(calls, rounds)
    loops = {name: loop(cell, mode, x, dy, **options) for name, options in OPTIONS.items()}
    theirs = _turns.medians(loops, max(2, rounds // 5))
    print(f"\n{cell} {mode}, N={batch} T={steps} I=H={width}")
    print(f"  {'':20}{'ms':>8}{'/ without':>11}{'given, ms':>11}{'/ without':>11}{'loop, ms':>10}{'loop / ours':>13}")
    good = True
    for name in OPTIONS:
        mine, fixed = seconds[name], seconds[f"{name}, given"]
        beside, peer = fixed / seconds["without, given"], theirs[name] / mine
        good = good and beside <= (1.2 if name == "both" else 1.15) and peer > 1
        print(
            f"  {name:20}{mine * 1e3:8.2f}{mine / seconds['without']:11.2f}{fixed * 1e3:11.2f}{beside:11.2f}"
            f"{theirs[name] * 1e3:10.1f}{peer:13.1f}"
        )
    plain, dropped = seconds["two layers"], seconds["two layers, dropout"]
    print(f"  {'two layers':20}{plain * 1e3:8.2f}")
    print(f"  {'... and dropout':20}{dropped * 1e3:8.2f}{dropped / plain:11.2f}")
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    print(
        f"{_common.cpu_name()}, fastrnn {fastrnn.__version__} {_core.isa_active()}, PyTorch {torch.__version__}, "
        f"one thread, {date.today()}"
    )
    good = [
        measure(cell, mode, *sizes, max(3, rounds // 5) if quick else rounds)
        for *sizes, rounds in CASES
        for cell in ("lstm", "gru")
        for mode in ("forward", "training")
    ]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
