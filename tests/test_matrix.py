"""The matrix: every backend and instruction set x cell x dtype x problem, against NumPy in float64.

One test of inference and one of training (forward with tape, backward) per cell of the matrix. The float64 row of the
NumPy backend is the reference itself, there in the layouts of the problem; what ties the reference to the truth are
test_oracle.py (definitions and finite differences) and test_torch.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conftest import System
from problems import BY_NAME, CELLS, DTYPES, PROBLEMS, TOLERANCE, Case, Problem, error, make_case, reference, run

FORWARD = ("y", "hn", "cn")
SMOKE = {"h17", "everything", "no_steps"}

problems = pytest.mark.parametrize(
    "problem",
    [pytest.param(p, id=p.name, marks=[pytest.mark.smoke] if p.name in SMOKE else []) for p in PROBLEMS],
)
cells = pytest.mark.parametrize("cell", list(CELLS))
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def compare(got: dict[str, Any], want: dict[str, Any], dtype: str) -> None:
    assert got.keys() == want.keys()
    for name, result in got.items():
        limit = TOLERANCE[dtype, "forward" if name in FORWARD else "backward"]
        found = error(result, want[name])
        assert found <= limit, f"{name}: {found:.2e} of scale, at most {limit:.0e} is accepted"


def check_padding(case: Case, got: dict[str, Any]) -> None:
    """Outputs and gradients of padded steps are exactly zero, not merely small."""
    if case.lengths is None:
        return
    padded = np.arange(case.problem.steps)[:, None] >= case.lengths[None, :]
    for name in ("y", "dx"):
        if name in got:
            assert not got[name][padded].any(), f"{name} is not zero beyond lengths"


@cells
@dtypes
@problems
def test_inference(system: System, cell: str, dtype: str, problem: Problem) -> None:
    case = make_case(problem, cell, dtype)
    got = run(system.module, case, train=False)
    compare(got, reference(problem, cell, train=False), dtype)
    check_padding(case, got)


@cells
@dtypes
@problems
def test_training(system: System, cell: str, dtype: str, problem: Problem) -> None:
    case = make_case(problem, cell, dtype)
    got = run(system.module, case, train=True)
    compare(got, reference(problem, cell, train=True), dtype)
    check_padding(case, got)


@cells
def test_state_in_place(system: System, cell: str) -> None:
    """The final state may be written where the initial one is read."""
    problem = BY_NAME["everything"]
    case = make_case(problem, cell, "float32")
    want = reference(problem, cell, train=False)
    packed = system.module.pack(case.spec, case.weights)
    y = np.empty(want["y"].shape, np.float32)
    assert case.h0 is not None
    h, c = case.h0.copy(), None if case.c0 is None else case.c0.copy()
    system.module.forward(packed, case.x, y, h, c, h, c, case.lengths, case.reset, case.mask, None, None)
    got = {"y": y, "hn": h} | ({} if c is None else {"cn": c})
    compare(got, want, "float32")


@cells
def test_tape_memory_is_reused(system: System, cell: str) -> None:
    """A buffer of a larger call serves a smaller one and gives what a new buffer gives."""
    module = system.module
    large, small = (BY_NAME[name] for name in ("h33", "row"))
    results = []
    for reuse in (False, True):
        case = make_case(small, cell, "float32")
        packed = module.pack(case.spec, case.weights)
        old = None
        if reuse:
            big = make_case(large, cell, "float32")
            old = module.make_tape(module.pack(big.spec, big.weights), large.steps, large.batch)
        tape = module.make_tape(packed, small.steps, small.batch, old)
        y, hn = np.empty((7, 1, 33), np.float32), np.empty((1, 1, 33), np.float32)
        cn = np.empty_like(hn) if case.c0 is not None else None
        module.forward(packed, case.x, y, case.h0, case.c0, hn, cn, None, None, None, None, tape)
        dweights = np.empty(case.spec.weight_count, np.float32)
        states = (case.h0, case.c0, case.dy, case.dhn, case.dcn)
        module.backward(packed, tape, case.x, y, *states, None, None, None, dweights, *[None] * 4, False, False)
        results.append((y, hn, dweights))
    for fresh, reused in zip(*results, strict=True):
        assert np.array_equal(fresh, reused)


@cells
@pytest.mark.parametrize(
    "name",
    [
        "h33",
        "row",
        "bidirectional",
        "everything",
        "everything_bare",
        "everything_regular",
        "regular",
        "long_ragged",
        "wide",
    ],
)
@pytest.mark.parametrize("split", ["none", "batch", "hidden"])
def test_how_threads_share_a_call_changes_nothing(split: str, name: str, cell: str) -> None:
    """Bit for bit, outputs and all gradients, however the plan divides the work."""
    core = pytest.importorskip("fastrnn.backends._core")
    case = make_case(BY_NAME[name], cell, "float32")
    before = core.get_num_threads()
    try:
        core.set_num_threads(1)
        alone = [run(core, case, train) for train in (False, True)]
        core.force_split(split)
        core.set_num_threads(3)
        shared = [run(core, case, train) for train in (False, True)]
    finally:
        core.force_split(None)
        core.set_num_threads(before)
    for got, want in zip(shared, alone, strict=True):
        for output, result in got.items():
            assert np.array_equal(result, want[output]), output
