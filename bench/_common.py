"""What the benchmarks share: one pinned thread, the layers, the amount of work, how long to measure.

Import this before NumPy: BLAS reads its number of threads when it is loaded.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def pin() -> None:
    """One thread for everybody, on one CPU, so that a system which ignores its setting gains nothing."""
    if "numpy" in sys.modules:
        message = "run a benchmark in a process of its own: NumPy was imported before the thread count was set"
        raise RuntimeError(message)
    for variable in (*THREAD_VARIABLES, "FASTRNN_NUM_THREADS"):
        os.environ[variable] = "1"
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


pin()

import numpy as np  # noqa: E402

import fastrnn  # noqa: E402
from fastrnn import backends  # noqa: E402
from fastrnn._bench_table import cpu_name  # noqa: E402

CELLS: dict[str, tuple[Any, int]] = {"lstm": (fastrnn.LSTM, 4), "gru": (fastrnn.GRU, 3), "rnn": (fastrnn.RNN, 1)}


def flops(cell: str, mode: str, rows: int, batch: int, inputs: int, hidden: int) -> int:
    """Multiplications and additions of the matrix products: W x and U h forward; dx, dh, dW and dU are twice that.

    Of `rows` (t, n) in all, the first `batch` have no state for U to multiply.
    """
    forward = 2 * CELLS[cell][1] * hidden * (rows * inputs + (rows - batch) * hidden)
    return forward if mode == "forward" else 3 * forward


def work(cell: str, mode: str, sizes: tuple[int, int, int, int]) -> tuple[Callable[[], Any], Any]:
    """A call that does the work once on the backend in force, and y of inference for comparison.

    Memory is given where the layer takes it, for every system alike: `out=` and the tape of the call before.
    """
    steps, batch, inputs, hidden = sizes
    rng = np.random.default_rng(0)
    x = rng.standard_normal((steps, batch, inputs), np.float32)
    dy = rng.standard_normal((steps, batch, hidden), np.float32)
    layer = CELLS[cell][0](inputs, hidden, rng=1)
    y = np.empty_like(dy)
    layer(x, out=y)
    if mode == "forward":
        return (lambda: layer(x, out=y)), y
    tape = layer.forward(x)[2]
    gradients = layer.backward(tape, dy)

    def train() -> Any:
        nonlocal tape, gradients
        tape = layer.forward(x, tape=tape)[2]
        gradients = layer.backward(tape, dy, out=gradients)
        return gradients

    return train, y


def rounds(call: Callable[[], Any], budget: float) -> tuple[int, int]:
    """(rounds, iterations) that take about `budget` seconds, each round long against the timer, 3 rounds at least."""
    call()
    start = time.perf_counter()
    call()
    once = max(time.perf_counter() - start, 1e-7)
    iterations = max(1, round(5e-4 / once))
    return min(200, max(3, round(budget / (once * iterations)))), iterations


def sgemm_gflops() -> float:
    """Speed of the BLAS under NumPy on a large float32 product: what a good kernel reaches on this machine."""
    a = np.ones((768, 768), np.float32)
    out = np.empty_like(a)
    best = float("inf")
    for _ in range(12):
        start = time.perf_counter()
        np.matmul(a, a, out=out)
        best = min(best, time.perf_counter() - start)
    return 2 * 768**3 / best / 1e9


def facts() -> dict[str, Any]:
    """What a result depends on besides the code: goes into the JSON."""
    versions = {"fastrnn": fastrnn.__version__, "numpy": np.__version__, "python": platform.python_version()}
    found: dict[str, Any] = {"cpu_name": cpu_name(), "sgemm_gflops": sgemm_gflops()}
    if "numba" in backends.available():
        import numba

        versions["numba"] = numba.__version__
    if "cpp" in backends.available():
        found["isa"] = backends.active_isa(backends.load("cpp"))
    return found | {"versions": versions}
