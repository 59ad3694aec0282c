"""What `save="recompute"` saves and costs: peak memory and time of a training step beside those of `save="all"`.

    python bench/bench_recompute.py lstm,32,100,256,256 lstm,16,1000,128,128          # cell,N,T,I,H ...

One thread, float32, compiled backend. The peak is what the resident set of a fresh process grows by over one training
step (forward, then backward with all gradients), beyond x, dy and the packed weights: outputs, tape, workspace and
gradients. Times are medians of interleaved steps that use the tape and the gradients of the step before again.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _common  # isort: skip - first: pins the process before NumPy is loaded
import numpy as np

import fastrnn
from fastrnn.backends import _core  # type: ignore[import-not-found,unused-ignore]

SAVES = ("all", "recompute")
CASES = ["lstm,32,100,256,256", "lstm,16,1000,128,128", "gru,16,1000,128,128", "rnn,16,1000,128,128"]
ROUNDS = 15


def arrays(case: str) -> tuple[Any, Any, Any]:
    """The layer, x and dy of a case."""
    cell, *sizes = case.split(",")
    batch, steps, inputs, hidden = map(int, sizes)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((steps, batch, inputs), np.float32)
    dy = rng.standard_normal((steps, batch, hidden), np.float32)
    return _common.CELLS[cell][0](inputs, hidden, rng=1), x, dy


def resident(what: str) -> int:
    """A line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what + ":"))


def peak(case: str, save: str) -> None:
    """Print the growth of this process over one step, in bytes, and the size of the tape."""
    layer, x, dy = arrays(case)
    layer.backward(layer.forward(x[:1], save=save)[2], dy[:1])  # packs the weights, loads what is loaded once
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts here
    before = resident("VmRSS")
    y, _, tape = layer.forward(x, save=save)
    layer.backward(tape, dy)
    print(
        resident("VmHWM") - before,
        y.nbytes + _core.make_tape(tape.packed, *x.shape[:2], None, save == "recompute").nbytes,
    )


def step(layer: Any, x: Any, dy: Any, save: str) -> Callable[[], None]:
    tape = layer.forward(x, save=save)[2]
    gradients = layer.backward(tape, dy)

    def again() -> None:
        nonlocal tape, gradients
        tape = layer.forward(x, tape=tape, save=save)[2]
        gradients = layer.backward(tape, dy, out=gradients)

    return again


def measure(case: str) -> None:
    layer, x, dy = arrays(case)
    calls = {save: step(layer, x, dy, save) for save in SAVES}
    times: dict[str, list[float]] = {save: [] for save in SAVES}
    for _ in range(ROUNDS):
        for save, call in calls.items():
            start = time.perf_counter()
            call()
            times[save].append(time.perf_counter() - start)
    median = {save: statistics.median(values) for save, values in times.items()}
    cell, batch, steps, inputs, hidden = case.split(",")
    print(f"{cell} N={batch} T={steps} I={inputs} H={hidden}")
    for save in SAVES:
        command = [sys.executable, __file__, "--peak", save, case]
        grown, tape = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
        print(
            f"  {save:10} {median[save] * 1e3:8.2f} ms  x {median[save] / median['all']:.2f}"
            f"   peak {grown / 2**20:7.1f} MB   y and tape {tape / 2**20:7.1f} MB"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peak", choices=SAVES, help=argparse.SUPPRESS)  # what the script asks of itself
    parser.add_argument("cases", nargs="*", default=CASES)
    given = parser.parse_args()
    if given.peak:
        peak(given.cases[0], given.peak)
        return
    print(f"{_common.cpu_name()}, fastrnn {fastrnn.__version__}, {_core.isa_active()}, one thread")
    for case in given.cases:
        measure(case)


if __name__ == "__main__":
    main()
