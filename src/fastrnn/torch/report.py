"""How many calls went where, and why."""

from __future__ import annotations

import itertools
import os
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

OURS = ""  # the reason of a call that fastrnn did itself

_counts: Counter[tuple[str, str]] = Counter()
_lock = threading.Lock()


def _after_fork() -> None:
    """Another thread may have held the lock when the process was copied."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    _register: Callable[..., Any] = os.register_at_fork
    _register(after_in_child=_after_fork)


def count(function: str, reason: str) -> None:
    """One more call of a function: `OURS`, or why it went to PyTorch."""
    with _lock:
        _counts[function, reason] += 1


class Tally:
    """How many calls of one function fastrnn did itself.

    `one_more` is a function in C that threads need no lock for: 0.03 us, where `count` takes 0.4 (2-vCPU Zen 4).
    """

    def __init__(self, function: str) -> None:
        self.one_more: Callable[[], int] = itertools.count().__next__
        self._passed = 0  # calls of `one_more` that were looks or belong to a report that was reset
        _tallies[function] = self

    def look(self, reset: bool) -> int:
        """The number of calls; the lock is held."""
        calls = self.one_more() - self._passed
        self._passed += 1 + calls * reset
        return calls


_tallies: dict[str, Tally] = {}


class Report(dict[str, dict[str, int]]):
    """function -> {where: calls}, where "fastrnn" or "PyTorch: " and the reason; printed as a table."""

    def __str__(self) -> str:
        if not self:
            return "no calls yet"
        width = max(len(function) for function in self)
        lines = [
            f"{function:<{width}} {calls:>10} {where}" for function, row in self.items() for where, calls in row.items()
        ]
        return "\n".join(lines)

    __repr__ = __str__


def report(*, reset: bool = False) -> Report:
    """How many calls of each recurrent function fastrnn did, how many PyTorch did, and why.

    Parameters
    ----------
    reset : bool
        Begin to count at zero again.

    Returns
    -------
    dict
        `report()["lstm"]` is, for instance, `{"fastrnn": 120, "PyTorch: autocast": 3}`. Calls inside a graph of
        `torch.compile` or a function of TorchScript do not pass through Python and are not counted.
    """
    with _lock:
        counts = _counts + Counter({(name, OURS): tally.look(reset) for name, tally in _tallies.items()})
        if reset:
            _counts.clear()
    table = Report()
    for (function, reason), calls in sorted(counts.items()):
        table.setdefault(function, {})[f"PyTorch: {reason}" if reason else "fastrnn"] = calls
    return table
