"""How a benchmark measures: results are checked; medians of interleaved rounds; the machine's limits beside them."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from . import backends
from ._bench_cases import Case
from ._bench_systems import SYSTEMS, Work, difference

ROUNDS = 7  # of each system; fewer if single calls take longer than twice its share of the time
BURST = 2e-3  # seconds of one look at the machine's peak: a hundred times what its threads may start apart
QUIET = 2e-3  # seconds in which idle threads must use less than a tenth of a CPU before the next system is timed
PATIENCE = 100  # such looks at most; OpenBLAS's threads spin for some 30 ms after a product
# Largest error relative to the largest element that a right result in float32 may have, against another order of sums.
TOLERANCE = {"inference": 3e-5, "training": 1e-4}


class WrongResult(Exception):
    """A system computes something else than the reference."""


class Limits:
    """What this machine can do at most on that many threads, in the instruction set in force.

    Each thread works by itself, as long as all others do; the best of all looks counts.
    """

    def __init__(self, threads: int) -> None:
        self.core: Any = backends.load("cpp") if "cpp" in backends.available() else None
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads)
        self._start = threading.Barrier(threads)
        self._repeats: dict[Any, int] = {}
        self._buffers: dict[int, list[Any]] = {}  # of the last size

    def flops(self, dtype: str = "float32") -> float | None:
        """Multiply-adds in registers, operations per second; None without the compiled backend."""
        return self._rate(dtype, lambda repeats, _: self.core.probe("fma", repeats, dtype=dtype))

    def bandwidth(self, nbytes: int) -> float | None:
        """Bytes per second of reading a buffer of that size again and again, each thread its share."""
        if nbytes not in self._buffers:
            share = max(nbytes // self.threads, 4096)
            self._buffers = {nbytes: [_aligned(share) for _ in range(self.threads)]}
        buffers = self._buffers[nbytes]
        return self._rate(nbytes, lambda repeats, i: self.core.probe("read", repeats, buffer=buffers[i]))

    def _rate(self, key: Any, work: Callable[[int, int], float]) -> float | None:
        """Sum over the threads, which start together, of what each does in a second."""
        if self.core is None:
            return None

        def timed(repeats: int, thread: int) -> tuple[float, float]:
            start = time.perf_counter()
            done = work(repeats, thread)
            return done, time.perf_counter() - start

        if key not in self._repeats:
            repeats = 1
            while timed(repeats, 0)[1] < BURST / 2:
                repeats *= 2
            self._repeats[key] = repeats
        repeats = self._repeats[key]
        if self.threads == 1:
            done, seconds = timed(repeats, 0)
            return done / seconds

        def together(thread: int) -> float:
            self._start.wait()
            done, seconds = timed(repeats, thread)
            return done / seconds

        return sum(self._pool.map(together, range(self.threads)))


def _aligned(nbytes: int) -> Any:
    """Bytes on a cache line's boundary, as packed weights are: else every load of 64 would touch two lines."""
    block = np.ones(nbytes + 64, np.uint8)
    return block[-block.ctypes.data % 64 :][:nbytes]


def measure(case: Case, systems: list[str], limits: Limits, seconds: float) -> dict[str, Any]:
    """One row: medians in seconds by system, spreads, errors, and the limits that were measured between the rounds.

    Raises
    ------
    WrongResult
        A result that is not that of the first system.
    """
    end = time.perf_counter() + seconds
    row: dict[str, Any] = {"case": case.as_dict(), "seconds": {}, "spread": {}, "errors": {}, "failed": {}}
    works = _checked(case, systems, row)
    once = {}
    for name, work in works.items():
        settle()
        once[name] = _time(work.call, 1)  # not the first call, which may have compiled
    # What is left after compiling and checking, but never less than half: a system's share is split into its rounds.
    share = max(end - time.perf_counter(), seconds / 2) / max(len(works), 1)
    times: dict[str, list[float]] = {name: [] for name in works}
    spent = dict.fromkeys(works, 0.0)
    peaks, bandwidths = [limits.flops()], [limits.bandwidth(case.recurrent_bytes)]
    for _ in range(ROUNDS):
        for name, work in works.items():
            if spent[name] > 2 * share:
                continue
            repeats = max(1, int(share / ROUNDS / once[name]))
            if limits.threads > 1:
                settle()
                if repeats > 1:
                    work.call()  # its own threads have gone to sleep meanwhile
            times[name].append(_time(work.call, repeats))
            spent[name] += times[name][-1] * repeats
        peaks.append(limits.flops())
        bandwidths.append(limits.bandwidth(case.recurrent_bytes))
    for name, values in times.items():
        row["seconds"][name] = statistics.median(values)
        row["spread"][name] = (max(values) - min(values)) / row["seconds"][name]
    best = [max((v for v in found if v is not None), default=None) for found in (peaks, bandwidths)]
    row["peak_flops"], row["read_bytes_per_s"] = best
    return row


def _checked(case: Case, systems: list[str], row: dict[str, Any]) -> dict[str, Work]:
    """The systems that can do the case; the result of each has been compared with that of the first."""
    works: dict[str, Work] = {}
    wanted = None
    for name in systems:
        try:
            work = SYSTEMS[name].prepare(case)
            if work is None:
                continue
            found = work.arrays(work.call())
        except Exception as error:
            if name == "fastrnn":
                raise
            row["failed"][name] = f"{type(error).__name__}: {error}"[:200]
            continue
        if wanted is None:
            wanted, reference = [np.array(a) for a in found], name
        row["errors"][name] = error_of = difference(found, wanted)
        if not error_of <= TOLERANCE[case.mode]:
            message = (
                f"{SYSTEMS[name].label} computes something else than {SYSTEMS[reference].label}: {case}, "
                f"largest error {error_of:.1e} of the largest element"
            )
            raise WrongResult(message)
        works[name] = work
    return works


def settle() -> None:
    """Wait until no thread of the systems before spins any more.

    A team that meets in every step loses a time slice of some ms a step to one spinning thread: on two CPUs PyTorch's
    LSTM then took 879 ms instead of 11.
    """
    for _ in range(PATIENCE):
        before = time.process_time()
        time.sleep(QUIET)
        if time.process_time() - before < QUIET / 10:
            return


def _time(call: Callable[[], Any], repeats: int) -> float:
    """Seconds of one call, from that many."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return max((time.perf_counter() - start) / repeats, 1e-9)
