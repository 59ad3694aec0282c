"""What a look inside costs: `unroll` beside a training forward, `gradient_flow` beside backward, in one process.

python bench/bench_diagnostics.py            # one thread, interleaved, medians of 9
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import _common  # isort: skip - first: pins the process before NumPy is loaded
import numpy as np

import fastrnn
from fastrnn.diagnostics import gradient_flow, unroll

STEPS, BATCH, INPUTS, HIDDEN, ROUNDS = 128, 16, 64, 128, 9


def main() -> None:
    fastrnn.set_num_threads(1)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((STEPS, BATCH, INPUTS), np.float32)
    dy = rng.standard_normal((STEPS, BATCH, HIDDEN), np.float32)
    print(f"{_common.cpu_name()}, fastrnn {fastrnn.__version__}, one thread, float32")
    print(f"T={STEPS} N={BATCH} I={INPUTS} H={HIDDEN}; milliseconds: forward, unroll, backward, gradient_flow")
    for name in ("RNN", "LSTM", "GRU"):
        layer: Any = getattr(fastrnn, name)(INPUTS, HIDDEN, rng=1)
        tape = layer.forward(x)[2]
        calls: list[Callable[[], Any]] = [
            lambda layer=layer: layer.forward(x),
            lambda layer=layer: unroll(layer, x),
            lambda layer=layer, tape=tape: layer.backward(tape, dy, retain=True),
            lambda layer=layer, tape=tape: gradient_flow(layer, tape, dy, retain=True),
        ]
        times: list[list[float]] = [[] for _ in calls]
        for _ in range(ROUNDS):
            for call, found in zip(calls, times, strict=True):
                start = time.perf_counter()
                call()
                found.append(1e3 * (time.perf_counter() - start))
        middle = [statistics.median(found) for found in times]
        shown = "  ".join(f"{value:7.2f}" for value in middle)
        print(
            f"{name:5}{shown}   unroll/forward {middle[1] / middle[0]:.1f}, flow/backward {middle[3] / middle[2]:.1f}"
        )


if __name__ == "__main__":
    main()
