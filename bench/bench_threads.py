"""What threads gain, by the way a call is shared, on an idle machine and beside a process that keeps one CPU busy.

    python bench/bench_threads.py --json bench/results/threads.json

Batch: slices of the rows; direction: one direction per thread; hidden: each thread computes some of the hidden units of
every step; layers: one layer per thread, a block of steps behind the one below. Numbers of threads take turns within
each round, medians are compared with one thread's on the idle machine.
Beside a busy neighbour K threads on K CPUs have K - 1/2 CPUs, since two share one: that is the bound.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # NumPy's BLAS does nothing here, and must not spin
import _results
import fastrnn
from fastrnn import _bench
from fastrnn._bench_cases import MODES, Case
from fastrnn._bench_systems import SYSTEMS
from fastrnn._bench_table import duration, heading

SPLITS = {  # the plan chooses these ways for these shapes
    "batch": (64, 50, 256, 256, 1, False),
    "direction": (1, 100, 256, 256, 1, True),
    "hidden": (1, 100, 512, 512, 1, False),
    "layers": (1, 200, 128, 128, 2, False),
}
ROUNDS = 9


@contextmanager
def neighbour(cpu: int) -> Iterator[None]:
    """Inside, another process keeps that CPU busy."""
    spinning = f"import os; os.sched_setaffinity(0, [{cpu}])\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", spinning])
    time.sleep(0.3)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def rounds(call: Callable[[], Any], threads: list[int], seconds: float) -> dict[int, float]:
    """Median seconds of a call by number of threads."""
    times: dict[int, list[float]] = {count: [] for count in threads}
    call()
    for _ in range(ROUNDS):
        for count in threads:
            fastrnn.set_num_threads(count)
            call()
            start = now = time.perf_counter()
            done = 0
            while not done or now < start + seconds / ROUNDS / len(threads):
                call()
                done += 1
                now = time.perf_counter()
            times[count].append((now - start) / done)
    return {count: statistics.median(values) for count, values in times.items()}


def run(seconds: float) -> dict[str, Any]:
    cpus = _bench.available_cpus()
    threads = list(range(1, len(cpus) + 1))
    document = _results.new("threads", len(cpus))
    work = [(split, Case("lstm", mode, *shape)) for split, shape in SPLITS.items() for mode in MODES]
    for busy in (False, True):
        for split, case in work:
            prepared = SYSTEMS["fastrnn"].prepare(case)
            assert prepared is not None
            share = seconds / 2 / len(work)
            if busy:
                with neighbour(cpus[-1]):
                    found = rounds(prepared.call, threads, share)
            else:
                found = rounds(prepared.call, threads, share)
            document["rows"].append({"split": split, "case": case.as_dict(), "busy": busy, "seconds": found})
    return document


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="of measuring in all")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    document = run(options.seconds)
    print(heading(document), "\n")
    rows = [
        [
            f"{row['split']}: {row['case']}",
            "busy" if row["busy"] else "idle",
            str(count),
            duration(seconds),
            f"{ratio:.2f}",
        ]
        for row in _results.gains(document)
        for (count, seconds), ratio in zip(row["seconds"].items(), row["ratios"].values(), strict=True)
    ]
    _results.print_table(["shared by", "neighbour", "threads", "a call", "x one thread, idle"], rows)
    _results.save(document, options.json)


if __name__ == "__main__":
    main()
