"""Peak memory of a training step, measured, beside what the arithmetic says, and PyTorch's for the same.

    python bench/bench_memory.py --json bench/results/memory.json

Each figure comes from a fresh process: it imports, runs a tiny step so that everything is loaded, makes x, dy and the
layer, resets the kernel's high-water mark (/proc/self/clear_refs), runs one forward and backward, reads the mark again.
The increase is what the step adds to what the user already holds: tape, y, gradients, packed weights, workspaces. The
tape alone is 6 H numbers for each step and row of an LSTM (4 gates, c, y), 5 H of a GRU, H of an RNN. Linux only.
"""

from __future__ import annotations

import argparse
import gc
import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _common  # noqa: F401  isort: skip - first: pins the process before NumPy is loaded
import _results
import fastrnn
from fastrnn._bench_cases import CELLS, NAMES, Case
from fastrnn._bench_table import heading

TAPE_NUMBERS = {"lstm": 6, "gru": 5, "rnn": 1}  # times H for each step and row; docs/kernels.md
SHAPES = ((16, 250, 128, 128), (16, 1000, 128, 128), (16, 1000, 256, 256))  # N, T, I, H


def fastrnn_step(case: Case, **options: Any) -> Callable[[], Any]:
    layer = getattr(fastrnn, NAMES[case.cell])(case.I, case.H)
    x, dy = case.arrays()

    def step() -> Any:
        y, _, tape = layer.forward(x, **options)
        return y, layer.backward(tape, dy)

    return step


def torch_step(case: Case) -> Callable[[], Any]:
    import torch

    torch.set_num_threads(1)
    layer = getattr(torch.nn, NAMES[case.cell])(case.I, case.H)
    x, dy = map(torch.from_numpy, case.arrays())
    x.requires_grad_()

    def step() -> Any:
        y = layer(x)[0]
        y.backward(dy)
        return y, x.grad

    return step


STEPS: dict[str, Callable[[Case], Callable[[], Any]]] = {
    "fastrnn": fastrnn_step,
    "fastrnn, recompute": lambda case: fastrnn_step(case, save="recompute"),
    "PyTorch": torch_step,
}


def systems() -> list[str]:
    """Those of this installation."""
    found = ["fastrnn"]
    if "save" in inspect.signature(fastrnn.LSTM.forward).parameters:
        found.append("fastrnn, recompute")
    try:
        import torch  # noqa: F401
    except ImportError:
        return found
    return [*found, "PyTorch"]


def status(field: str) -> int:
    """A field of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    message = f"/proc/self/status has no {field}"
    raise SystemExit(message)


def one(system: str, case: Case) -> int:
    """Bytes by which one step raises the peak of this process."""
    STEPS[system](Case(case.cell, case.mode, 1, 2, case.I, case.H))()
    step = STEPS[system](case)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # VmHWM := VmRSS
    before = status("VmRSS")
    kept = step()
    peak = status("VmHWM")
    del kept
    return peak - before


def run() -> dict[str, Any]:
    document = _results.new("memory")
    document["rows"] = []
    for cell in CELLS:
        for shape in SHAPES:
            case = Case(cell, "training", *shape)
            arithmetic = 4 * TAPE_NUMBERS[cell] * case.T * case.N * case.H
            row = {"case": case.as_dict(), "tape": arithmetic, "bytes": {}}
            for system in systems():
                command = [sys.executable, __file__, "--one", json.dumps([system, case.as_dict()])]
                row["bytes"][system] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            document["rows"].append(row)
    if "PyTorch" in systems():
        from importlib.metadata import version

        document["versions"]["torch"] = version("torch")
    return document


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        system, case = json.loads(options.one)
        print(one(system, Case(**case)))
        return
    document = run()
    print(heading(document), "\n")
    rows = []
    for row in document["rows"]:
        case = Case(**row["case"])
        unit = case.T * case.N * case.H * 4
        for system, count in row["bytes"].items():
            sizes = [str(case), system, f"{count / 2**20:.1f}", f"{count / (case.T * case.N):.0f}"]
            rows.append([*sizes, f"{count / unit:.1f} H", f"{row['tape'] / unit:.0f} H"])
    _results.print_table(["case", "system", "MB", "bytes a (t, n)", "numbers a (t, n)", "tape alone"], rows)
    _results.save(document, options.json)


if __name__ == "__main__":
    main()
