"""One row, one thread, through the C interface from compiled code: steps one by one, and blocks of samples.

    python bench/bench_embedding.py         # needs Numba

float32, the best of interleaved rounds, nanoseconds a step. The loop is a function of Numba; `step` is fastrnn_step,
`block` fastrnn_forward over 64 steps, as an audio callback calls it. The marks are those of bench_batch1.py.
"""

from __future__ import annotations

import time
from typing import Any

import _common  # noqa: F401  # isort: skip - first: pins the process before NumPy is loaded

import numba
import numpy as np

import fastrnn
import fastrnn.numba as frn
from bench_batch1 import MARKS

STEPS, BLOCK, ROUNDS = 1024, 64, 40


@numba.njit(nogil=True)
def steps(bound: Any, x: Any, y: Any, state: Any, work: Any) -> None:
    for t in range(len(x)):
        frn.step(bound, x[t], state, y[t], work)


@numba.njit(nogil=True)
def blocks(bound: Any, x: Any, y: Any, state: Any, work: Any) -> None:
    none = np.empty(0, np.uint8)
    for t in range(0, len(x), BLOCK):
        frn.forward(bound, x[t : t + BLOCK], state, y[t : t + BLOCK], work, none, state)


def main() -> None:
    print("ns/step                  step    block     mark   mark/step   mark/block")
    for (cell, inputs, hidden), mark in MARKS.items():
        bound = frn.bind({"lstm": fastrnn.LSTM, "gru": fastrnn.GRU}[cell](inputs, hidden, rng=0))
        x = np.random.default_rng(0).standard_normal((STEPS, 1, inputs)).astype(np.float32)
        y, state = np.empty((STEPS, 1, hidden), np.float32), frn.new_state(bound)
        work = frn.new_workspace(bound, BLOCK)
        best = {steps: float("inf"), blocks: float("inf")}
        for _ in range(ROUNDS):
            for call in best:
                start = time.perf_counter()
                call(bound, x, y, state, work)
                best[call] = min(best[call], (time.perf_counter() - start) / STEPS * 1e9)
        one, many = best[steps], best[blocks]
        print(f"{cell:5}{inputs:5} -> {hidden:4} {one:12.1f}{many:9.1f}{mark:9}{mark / one:12.2f}{mark / many:13.2f}")


if __name__ == "__main__":
    main()
