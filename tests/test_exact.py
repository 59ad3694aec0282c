"""Exact mode: with clamps for activations and small integers everywhere, float32 arithmetic rounds nothing.

Then the order of a sum does not matter, and every backend, instruction set and dtype must give the same numbers. Any
difference is a wrong index, a lost term or a term too many, however small its share of the result. Backward stays exact
too: every gate's U is a signed permutation, so a step back multiplies dh by no more than G, and the precondition (all
sums below 2**24) is checked on the reference.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from conftest import System
from problems import BY_NAME, CELLS, DTYPES, PROBLEMS, Problem, make_case, reference, run

LIMIT = 2**24  # integers up to here are float32 numbers
TOO_LONG = {"long", "long_ragged"}  # back-propagated integers may grow beyond the limit

# A dropout rate of 0.5 doubles what it keeps, an integer; other rates become that.
EXACT = [replace(p, dropout=0.5 if p.dropout else 0.0) for p in PROBLEMS if p.name not in TOO_LONG]


def parameters(problems: list[Problem]) -> list[object]:
    return [pytest.param(p, id=p.name, marks=[pytest.mark.smoke] if p.name == "everything" else []) for p in problems]


@pytest.mark.parametrize("cell", list(CELLS))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("problem", parameters(EXACT))
def test_every_system_agrees_exactly(system: System, cell: str, dtype: str, problem: Problem) -> None:
    want = reference(problem, cell, train=True, exact=True)
    assert max((float(np.abs(a).max()) for a in want.values() if a.size), default=0.0) < LIMIT / 8, "not exact any more"
    got = run(system.module, make_case(problem, cell, dtype, exact=True), train=True)
    assert got.keys() == want.keys()
    for name, result in got.items():
        wrong = np.argwhere(result != want[name])
        assert not wrong.size, f"{name} differs in {len(wrong)} of {result.size} elements, first at {wrong[0].tolist()}"


@pytest.mark.parametrize("cell", list(CELLS))
@pytest.mark.parametrize("name", ["long", "long_ragged", "everything"])
def test_forward_agrees_exactly_for_any_length(system: System, cell: str, name: str) -> None:
    problem = BY_NAME[name]
    want = reference(problem, cell, train=False, exact=True)
    got = run(system.module, make_case(problem, cell, "float32", exact=True), train=False)
    for output, result in got.items():
        assert np.array_equal(result, want[output]), output
