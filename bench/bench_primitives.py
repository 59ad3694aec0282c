"""What this machine can do at most, and what our own overheads are: the denominators of every other table.

    python bench/bench_primitives.py --json bench/results/primitives.json

FMA peak by instruction set and dtype; bandwidth of reading a buffer again and again, by its size; a call of the thread
pool and a phase of a team, all threads taking part; the shortest calls from Python. Best of many short looks for peaks
and bandwidths, medians for overheads.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import _results
import fastrnn
from fastrnn import _bench
from fastrnn._bench_measure import Limits
from fastrnn._bench_table import heading
from fastrnn.backends import _core  # type: ignore[import-not-found,unused-ignore]

LOOKS = 15
READS = [1 << k for k in range(13, 29)]  # 8 KB, in L1 everywhere, to 256 MB, beyond any L3 but the largest


def best(look: Callable[[], float | None]) -> float:
    return max(found for _ in range(LOOKS) if (found := look()) is not None)


def median_us(call: Callable[[], Any], repeats: int) -> float:
    """Microseconds of one call: the median of rounds of that many calls."""
    rounds = []
    for _ in range(LOOKS):
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        rounds.append((time.perf_counter() - start) / repeats * 1e6)
    return statistics.median(rounds)


def peaks(threads: list[int]) -> list[dict[str, Any]]:
    """Operations per second for each instruction set that can run, dtype and number of threads."""
    rows = []
    try:
        for isa in _core.config()["isas_runnable"]:
            _core.force_isa(isa)
            for count in threads:
                limits = Limits(count)
                for dtype in ("float32", "float64"):
                    flops = best(partial(limits.flops, dtype))
                    rows.append({"isa": isa, "dtype": dtype, "threads": count, "flops": flops})
    finally:
        _core.force_isa(None)
    return rows


def bandwidths(threads: list[int]) -> list[dict[str, Any]]:
    rows = []
    for count in threads:
        limits = Limits(count)
        for nbytes in READS:
            found = best(partial(limits.bandwidth, nbytes))
            rows.append({"bytes": nbytes, "threads": count, "bytes_per_s": found})
    return rows


def overheads(threads: list[int]) -> list[dict[str, Any]]:
    """Microseconds of what is around the arithmetic."""
    rows = []
    for count in threads:
        for kind, what in (("call", "a call that all take part in"), ("phase", "a phase of a team")):
            if count > 1:
                repeats = 2000
                us = median_us(partial(_core.probe, kind, repeats, threads=count), 1) / repeats
                rows.append({"what": f"thread pool, {count} threads: {what}", "us": us})
    layer = fastrnn.RNN(1, 1, rng=0)
    x = np.zeros((1, 1, 1), np.float32)
    out, step, stream = np.empty_like(x), x[0], layer.stream()
    y = out[0]
    rows.append({"what": "layer(x), RNN with I=H=T=N=1", "us": median_us(lambda: layer(x), 2000)})
    rows.append({"what": "layer(x, out=y), the same", "us": median_us(lambda: layer(x, out=out), 2000)})
    rows.append({"what": "stream.step(x, out=y), the same", "us": median_us(lambda: stream.step(step, out=y), 2000)})
    return rows


def run() -> dict[str, Any]:
    count = len(_bench.available_cpus())
    threads = sorted({1, count})
    document = _results.new("primitives", count)
    document.update(peaks=peaks(threads), reads=bandwidths(threads), overheads=overheads(list(range(1, count + 1))))
    return document


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    document = run()
    print(heading(document), "\n")
    _results.print_table(
        ["multiply-adds", "dtype", "threads", "GFLOP/s"],
        [[r["isa"], r["dtype"], str(r["threads"]), f"{r['flops'] / 1e9:.1f}"] for r in document["peaks"]],
    )
    print()
    _results.print_table(
        ["buffer", "threads", "GB/s"],
        [[f"{r['bytes'] >> 10} KB", str(r["threads"]), f"{r['bytes_per_s'] / 1e9:.1f}"] for r in document["reads"]],
    )
    print()
    _results.print_table(["overhead", "us"], [[r["what"], f"{r['us']:.2f}"] for r in document["overheads"]])
    _results.save(document, options.json)


if __name__ == "__main__":
    main()
