"""Resets and masks, one thread: fastrnn beside PyTorch's loop of T=1 calls, and beside the same call without them.

    python bench/bench_reset.py

An LSTM, float32, forward and backward with all gradients, 3 % of the steps of every row resets: the recurrent policy of
reinforcement learning, whose episodes end in the middle of a rollout. PyTorch has no such argument; the usual loop
multiplies the state by 1 - reset[t] and calls the module for one step. Of a mask half of the steps are off, and the
call beside it is one of half as many steps. Medians of interleaved rounds; the bars are those that the library holds
itself to, and the exit status is 1 if one fails.
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
from bench_ragged import fastrnn_call as call_of
from fastrnn.backends import _core  # type: ignore[import-not-found,unused-ignore]

SHARE = 0.03
CASES = ((128, 128, 256, 1.8, 5), (16, 128, 64, 8.0, 30))  # N, T, I=H, PyTorch's loop over fastrnn at least, rounds


def loop(x: Any, dy: Any, reset: Any) -> Callable[[], Any]:
    """PyTorch: one call for each step."""
    layer = torch.nn.LSTM(x.shape[2], x.shape[2])
    given = torch.from_numpy(x).requires_grad_()
    wanted = torch.from_numpy(dy)
    keep = torch.from_numpy(1 - reset.astype(np.float32))[..., None]

    def train() -> Any:
        layer.zero_grad()
        given.grad = None
        h = torch.zeros(1, x.shape[1], x.shape[2])
        c = torch.zeros_like(h)
        outputs = []
        for t in range(len(x)):
            y, (h, c) = layer(given[t : t + 1], (h * keep[t], c * keep[t]))
            outputs.append(y)
        torch.cat(outputs).backward(wanted)
        return given.grad

    return train


def measure(batch: int, steps: int, width: int, bar: float, rounds: int) -> bool:
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, steps, batch, width), np.float32)
    reset = rng.random((steps, batch)) < SHARE
    mask = rng.random((steps, batch)) < 0.5
    half = steps // 2
    options = {"width": width}
    calls = {
        "loop": loop(x, dy, reset),
        "plain": call_of("lstm", "training", x, dy, **options),
        "reset": call_of("lstm", "training", x, dy, reset=reset, **options),
        "half": call_of("lstm", "training", x[:half].copy(), dy[:half].copy(), **options),
        "mask": call_of("lstm", "training", x, dy, mask=mask, **options),
    }
    seconds = _turns.medians(calls, rounds)
    peer = seconds["loop"] / seconds["reset"]
    beside = seconds["reset"] / seconds["plain"]
    masked = seconds["mask"] / seconds["half"] * half * batch / mask.sum()
    print(f"\nlstm training, N={batch} T={steps} I=H={width}, {reset.sum()} resets")
    print(f"  PyTorch's loop {seconds['loop'] * 1e3:8.2f} ms   fastrnn {seconds['plain'] * 1e3:8.2f} ms without resets")
    print(f"  fastrnn, reset {seconds['reset'] * 1e3:8.2f} ms   the loop / this {_turns.verdict(peer, bar)}")
    print(f"  {'':32}this / without  {_turns.close(beside)}")
    print(f"  fastrnn, mask  {seconds['mask'] * 1e3:8.2f} ms   this / half the steps {_turns.close(masked)}")
    return peer >= bar and beside <= 1.1 and masked <= 1.1


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    print(
        f"{_common.cpu_name()}, fastrnn {fastrnn.__version__} {_core.isa_active()}, PyTorch {torch.__version__}, "
        f"one thread, {date.today()}"
    )
    good = [measure(*case) for case in CASES]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
