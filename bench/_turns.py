"""Calls measured in turn: whatever slows the machine for a while slows all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any


def medians(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Seconds of each call: the median of `rounds` rounds, after one that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if number:
                taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in taken.items()}


def verdict(ratio: float, bar: float) -> str:
    """A ratio that is to be at least `bar`."""
    return f"{ratio:6.2f}   at least {bar:.2f}: {'pass' if ratio >= bar else 'FAIL'}"


def close(ratio: float, bar: float = 1.1) -> str:
    """A ratio that is to be at most `bar`."""
    return f"{ratio:6.2f}   at most  {bar:.2f}: {'pass' if ratio <= bar else 'FAIL'}"
