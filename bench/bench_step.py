"""Latency of one step, batch 1: median and 99th percentile of single calls.

    python bench/bench_step.py --json bench/results/step.json

A stream's step, a plain call with T=1 that starts from zeros, and what the peers offer for the same: one call of a
session, of a compiled graph, of a layer or of a cell. One thread; calls are timed one by one in interleaved blocks, so
that the 99th percentile shows what a control loop would see. The clock's own cost, some 0.05 us, is in every figure.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import _common  # noqa: F401  isort: skip - first: pins the process before NumPy is loaded
import numpy as np

import _results
import fastrnn
from _pages import STEP_NAMES
from fastrnn._bench_cases import CELLS, NAMES, Case
from fastrnn._bench_measure import TOLERANCE
from fastrnn._bench_systems import DEFAULT, SYSTEMS, difference, set_up
from fastrnn._bench_table import heading

SIZES = (32, 128, 256, 512)  # of I and H
BLOCKS = 8  # of each system, in turn


def stream(case: Case) -> tuple[Callable[[], Any], Any]:
    """A step of a stream, and its first output."""
    layer = getattr(fastrnn, NAMES[case.cell])(case.I, case.H)
    layer.load_state_dict(case.weights())
    steps, x = layer.stream(), case.arrays()[0][0]
    y = np.empty((1, case.H), np.float32)
    steps.step(x, out=y)
    return (lambda: steps.step(x, out=y)), [y.copy()[None]]


def torch_cell(case: Case) -> tuple[Callable[[], Any], Any]:
    """A step of torch.nn.LSTMCell and the like, the state carried along."""
    import torch

    cell = getattr(torch.nn, {"lstm": "LSTMCell", "gru": "GRUCell", "rnn": "RNNCell"}[case.cell])(case.I, case.H)
    cell.load_state_dict({name[: -len("_l0")]: torch.from_numpy(a) for name, a in case.weights().items()})
    x, state = torch.from_numpy(case.arrays()[0][0]), None

    def step() -> Any:
        nonlocal state
        with torch.inference_mode():
            state = cell(x, state)
        return state[0] if case.cell == "lstm" else state

    return step, [step().numpy()[None]]


def calls(case: Case, systems: list[str]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Name and call of everything that is timed; each result has been compared with NumPy's."""
    work = SYSTEMS["numpy"].prepare(case)
    assert work is not None
    wanted = [np.array(a) for a in work.arrays(work.call())]
    for name in ["stream", *systems, *(["torch_cell"] if "torch" in systems else [])]:
        if name in ("stream", "torch_cell"):
            call, found = stream(case) if name == "stream" else torch_cell(case)
        else:
            prepared = SYSTEMS[name].prepare(case)
            assert prepared is not None
            call, found = prepared.call, prepared.arrays(prepared.call())
        if not difference(found, wanted) <= TOLERANCE["inference"]:
            message = f"{name} computes something else than NumPy: {case}"
            raise SystemExit(message)
        yield name, call


def measure(case: Case, systems: list[str], seconds: float) -> dict[str, Any]:
    """Median and 99th percentile of each, in seconds."""
    named = dict(calls(case, systems))
    times: dict[str, list[float]] = {name: [] for name in named}
    block = seconds / BLOCKS / len(named)
    clock = time.perf_counter
    gc.collect()
    gc.disable()
    try:
        for _ in range(BLOCKS):
            for name, call in named.items():
                for _ in range(20):
                    call()  # caches and branches of the system before are gone
                end = clock() + block
                while (start := clock()) < end:
                    call()
                    times[name].append(clock() - start)
    finally:
        gc.enable()
    return {
        "case": case.as_dict(),
        "calls": {name: len(values) for name, values in times.items()},
        "median": {name: float(np.median(values)) for name, values in times.items()},
        "p99": {name: float(np.percentile(values, 99)) for name, values in times.items()},
    }


def run(seconds: float) -> dict[str, Any]:
    document = _results.new("step")
    for name in DEFAULT:
        found, why = set_up(name, 1)
        document["absent" if why else "versions"][name] = why or found or fastrnn.__version__
    systems = [name for name in DEFAULT if name not in document["absent"]]
    cases = [Case(cell, "inference", 1, 1, size, size) for cell in CELLS for size in SIZES]
    document["rows"] = [measure(case, systems, seconds / len(cases)) for case in cases]
    return document


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="of measuring in all")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    document = run(options.seconds)
    print(heading(document), "\n")
    rows = []
    for row in document["rows"]:
        case = Case(**row["case"])
        for name, median in row["median"].items():
            label = STEP_NAMES.get(name) or SYSTEMS[name].label
            rows.append(
                [f"{NAMES[case.cell]} I=H={case.H}", label, f"{median * 1e6:.2f}", f"{row['p99'][name] * 1e6:.2f}"]
            )
    _results.print_table(["one step, N=1", "system", "median us", "p99 us"], rows)
    _results.save(document, options.json)


if __name__ == "__main__":
    main()
