"""One row, one thread: nanoseconds a step against compile-time code, and how near the stream of U is to a plain read.

    python bench/bench_batch1.py            # marks and bandwidth
    python bench/bench_batch1.py --grid     # also T=100 and T=1, I=H, inference and training

float32 on the compiled backend, medians of interleaved rounds. The marks are RTNeural's (Eigen, sizes known to the
compiler, -march=native, -ffast-math) on a 2-core Zen 4 at 3.7 GHz, in one call of 1000 steps. Bandwidth is that of U
alone, G*H*H numbers a step with I=1, beside reading a buffer of that size over and over in the same rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import _common  # isort: skip - first: pins the process before NumPy is loaded
import numpy as np

import fastrnn
from fastrnn.backends import _core  # type: ignore[import-not-found,unused-ignore]

MARKS = {  # cell, I, H: ns a step
    ("lstm", 1, 16): 75,
    ("lstm", 1, 32): 178,
    ("lstm", 32, 32): 257,
    ("lstm", 64, 64): 1315,
    ("lstm", 128, 128): 5309,
    ("gru", 1, 32): 141,
    ("gru", 64, 64): 978,
}
ROUNDS = 15


def seconds(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Median seconds of one call of each, in interleaved rounds of at least a millisecond."""
    repeats = {}
    for name, call in calls.items():
        call()
        start = time.perf_counter()
        call()
        repeats[name] = max(1, round(1e-3 / max(time.perf_counter() - start, 1e-7)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            times[name].append((time.perf_counter() - start) / repeats[name])
    return {name: statistics.median(values) for name, values in times.items()}


def marks() -> None:
    print("\nT=1000, one call           ns/step     mark    ratio")
    for (cell, inputs, hidden), mark in MARKS.items():
        call, _ = _common.work(cell, "forward", (1000, 1, inputs, hidden))
        ns = seconds({"call": call})["call"] * 1e6
        print(f"{cell:5} {inputs:4} -> {hidden:4}  {ns:15.1f} {mark:8} {ns / mark:8.2f}")


def bandwidth() -> None:
    probe = getattr(_core, "probe", None)
    print("\nI=1, T=100                 us/step     GB/s     read   per cent")
    for cell, (_, gates) in _common.CELLS.items():
        for hidden in (128, 256, 512):
            size = gates * hidden * hidden * 4
            calls = {"call": _common.work(cell, "forward", (100, 1, 1, hidden))[0]}
            if probe is not None:
                buffer = np.zeros(size // 4, np.float32)
                calls["read"] = lambda buffer=buffer: probe("read", 1, buffer=buffer)
            found = seconds(calls)
            rate = size * 100 / found["call"] / 1e9
            read = size / found["read"] / 1e9 if "read" in found else float("nan")
            print(
                f"{cell:5} H={hidden:4}  {found['call'] * 1e4:18.2f} {rate:8.1f} {read:8.1f} {100 * rate / read:10.0f}"
            )


def grid() -> None:
    print("\n                        inference   training   us/step")
    for cell in _common.CELLS:
        for steps, hidden in [(1, 64), *((100, size) for size in (32, 64, 128, 256, 512, 1024))]:
            sizes = (steps, 1, hidden, hidden)
            found = seconds({mode: _common.work(cell, mode, sizes)[0] for mode in ("forward", "train")})
            inference, training = (found[mode] / steps * 1e6 for mode in ("forward", "train"))
            print(f"{cell:5} T={steps:4} I=H={hidden:5} {inference:12.2f} {training:10.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", action="store_true", help="also I=H from 32 to 1024, inference and training")
    asked = parser.parse_args()
    print(f"{_common.cpu_name()}, fastrnn {fastrnn.__version__}, {_core.isa_active()}, one thread")
    marks()
    bandwidth()
    if asked.grid:
        grid()


if __name__ == "__main__":
    main()
