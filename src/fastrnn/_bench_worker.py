"""The process that measures: it gets a request as JSON, and gives one line of JSON for each row.

A process of its own, because BLAS, OpenMP and the peers read their number of threads and their CPUs when they are
loaded, and because a peer that crashes should not take the caller with it. Started by `_bench.events`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from . import backends
from ._bench_cases import Case
from ._bench_measure import Limits, WrongResult, measure
from ._bench_systems import SYSTEMS, set_up
from ._config import show_config

GRACE = 1.2  # times the wanted time, after which cases are left out: some cannot be short, however little time they get


def main() -> int:
    """Read a request from stdin, write events to stdout; the exit code."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a peer prints must not come between the events

    def emit(event: str, **values: Any) -> None:
        print(json.dumps({"event": event, **values}), file=events, flush=True)

    request = json.load(sys.stdin)
    start = time.perf_counter()
    versions, absent = {}, {}
    for name in request["systems"]:
        versions[name], why = set_up(name, request["threads"])
        if why:
            absent[name] = why
            del versions[name]
    limits = Limits(request["threads"])
    emit("start", versions=versions, absent=absent, config=dict(show_config("dicts") or {}))
    end = start + request["seconds"]
    latest = start + GRACE * request["seconds"]
    cases = [Case(**case) for case in request["cases"]]
    systems = [name for name in SYSTEMS if name in versions]
    for done, case in enumerate(cases):
        now = time.perf_counter()
        if now > latest:
            emit("late", case=case.as_dict())
            continue
        try:
            emit("row", **measure(case, systems, limits, max(end - now, 0.0) / (len(cases) - done)))
        except (WrongResult, MemoryError) as error:
            emit("wrong", message=str(error) or f"not enough memory for {case}")
            return 1
    emit("end", backend=backends.current().NAME)
    return 0


if __name__ == "__main__":
    sys.exit(main())
