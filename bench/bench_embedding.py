"""One row, one thread, through the C interface from compiled code: steps one by one, and blocks of samples.

    python bench/bench_embedding.py         # needs Numba

float32, the best of interleaved rounds, nanoseconds a step. The loop is a function of Numba: `C` calls fastrnn_step as
a program in C does, `njit` is fastrnn.numba.step, `block` fastrnn_forward over 64 steps, as an audio callback calls it,
`loop` one call over all of them. `read` is the time to read the packed weights once, which a step by itself cannot do
without; a call of many steps reads the input's part of them once for several. The marks are those of bench_batch1.py.
"""

from __future__ import annotations

import functools
import time
from typing import Any

import _common  # noqa: F401  # isort: skip - first: pins the process before NumPy is loaded

import numba
import numpy as np

import fastrnn
import fastrnn.numba as frn
from bench_batch1 import MARKS
from fastrnn.backends import load

STEPS, BLOCK, ROUNDS = 1024, 64, 40


@numba.njit(nogil=True)
def steps(bound: Any, x: Any, y: Any, state: Any, work: Any) -> None:
    for t in range(len(x)):
        frn.step(bound, x[t], state, y[t], work)


_STEP = frn._external("fastrnn_step", 2)


@numba.njit(nogil=True)
def steps_in_c(bound: Any, x: Any, y: Any, state: Any, work: Any) -> None:
    args = np.zeros(9, np.int64)  # fastrnn_step_args
    args[0], args[1], args[3], args[5] = 72, bound.packed.ctypes.data, x.shape[2], y.shape[2]
    args[6], args[8] = state.ctypes.data, work.ctypes.data
    if bound.states == 2:
        args[7] = state.ctypes.data + state.nbytes // 2
    for t in range(len(x)):
        args[2] = x.ctypes.data + t * x.strides[0]
        args[4] = y.ctypes.data + t * y.strides[0]
        if _STEP(bound.stepper.ctypes.data, args.ctypes.data) != 0:
            raise ValueError("a step was refused")  # noqa: EM101


@numba.njit(nogil=True)
def whole(bound: Any, x: Any, y: Any, state: Any, work: Any) -> None:
    frn.forward(bound, x, state, y, work, np.empty(0, np.uint8), state)


@numba.njit(nogil=True)
def blocks(bound: Any, x: Any, y: Any, state: Any, work: Any) -> None:
    none = np.empty(0, np.uint8)
    for t in range(0, len(x), BLOCK):
        frn.forward(bound, x[t : t + BLOCK], state, y[t : t + BLOCK], work, none, state)


def main() -> None:
    probe = load("cpp").probe  # type: ignore[attr-defined]
    print("ns/step                   C    njit   block    loop    read    mark   C/loop  C/read  mark/C  mark/block")
    for (cell, inputs, hidden), mark in MARKS.items():
        bound = frn.bind({"lstm": fastrnn.LSTM, "gru": fastrnn.GRU}[cell](inputs, hidden, rng=0))
        x = np.random.default_rng(0).standard_normal((STEPS, 1, inputs)).astype(np.float32)
        y, state = np.empty((STEPS, 1, hidden), np.float32), frn.new_state(bound)
        work = frn.new_workspace(bound, STEPS)
        calls = {call: functools.partial(call, bound, x, y, state, work) for call in (steps_in_c, steps, blocks, whole)}
        calls[probe] = functools.partial(probe, "read", STEPS, buffer=bound.packed)
        best = dict.fromkeys(calls, float("inf"))
        for _ in range(ROUNDS):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                best[name] = min(best[name], (time.perf_counter() - start) / STEPS * 1e9)
        c, njit, many, loop, read = best.values()
        print(
            f"{cell:5}{inputs:5} -> {hidden:4} {c:9.1f}{njit:8.1f}{many:8.1f}{loop:8.1f}{read:8.1f}{mark:8}"
            f"{c / loop:9.2f}{c / read:8.2f}{mark / c:8.2f}{mark / many:12.2f}"
        )


if __name__ == "__main__":
    main()
