"""Training calls on weights that were not packed for them: the same bits as on packed ones.

The plan takes this way where rows are few. Forced either way, every problem of the table must give the same numbers, on
every instruction set and however threads share the call.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import fastrnn
from conftest import SYSTEMS, System, make_layer
from problems import BY_NAME, CELLS, DTYPES, PROBLEMS, make_case, reference, run
from test_exact import EXACT

cells = pytest.mark.parametrize("cell", list(CELLS))
compiled = pytest.mark.parametrize("core", [param for param in SYSTEMS if param.values[0].backend == "cpp"])
SHORT = [p.name for p in PROBLEMS if p.steps < 100]


@contextmanager
def packing_of(module: ModuleType, packing: bool | None) -> Iterator[None]:
    """Training calls inside use packed weights (True), or those of the user (False)."""
    module.force_packing(packing)
    try:
        yield
    finally:
        module.force_packing(None)


def both_ways(module: ModuleType, case: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    results = []
    for packing in (True, False):
        with packing_of(module, packing):
            results.append(run(module, case, train=True))
    return results[0], results[1]


@cells
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHORT)
@compiled
def test_it_gives_the_same_bits(core: System, cell: str, dtype: str, name: str) -> None:
    with core.active():
        packed, unpacked = both_ways(core.module, make_case(BY_NAME[name], cell, dtype))
    assert packed.keys() == unpacked.keys()
    for output, result in unpacked.items():
        assert np.array_equal(result, packed[output], equal_nan=True), output


@cells
@pytest.mark.parametrize("problem", EXACT, ids=lambda p: p.name)
@compiled
def test_it_is_exact(core: System, cell: str, problem: Any) -> None:
    want = reference(problem, cell, train=True, exact=True)
    with core.active(), packing_of(core.module, False):
        got = run(core.module, make_case(problem, cell, "float32", exact=True), train=True)
    for name, result in got.items():
        assert np.array_equal(result, want[name]), name


@cells
@pytest.mark.parametrize("name", ["row", "everything", "wide"])
@pytest.mark.parametrize("split", ["none", "batch", "hidden", "layers"])
def test_threads_change_nothing(split: str, name: str, cell: str) -> None:
    core = pytest.importorskip("fastrnn.backends._core")
    case = make_case(BY_NAME[name], cell, "float32")
    before = core.get_num_threads()
    try:
        core.set_num_threads(1)
        alone, _ = both_ways(core, case)
        core.force_split(split)
        core.set_num_threads(2)
        _, got = both_ways(core, case)
    finally:
        core.force_split(None)
        core.set_num_threads(before)
    for output, result in got.items():
        assert np.array_equal(result, alone[output]), output


@cells
@pytest.mark.parametrize("width", [1, 15, 64, 100, 1024 + 33, 2048 + 1])
def test_columns_in_parts(cell: str, width: int) -> None:
    """Sums of more than 1024 columns go in parts, the last of any width: inputs as wide, and hidden units."""
    core = pytest.importorskip("fastrnn.backends._core")
    rng = np.random.default_rng(width)
    for sizes in ((width, 9), (9, width)):
        layer = make_layer(cell, *sizes)
        x = rng.standard_normal((2, 2, sizes[0])).astype(np.float32)
        results = []
        with fastrnn.backend("cpp"):
            for packing in (True, False):
                with packing_of(core, packing):
                    y, _, tape = layer.forward(x)
                    grads = layer.backward(tape, np.cos(y))
                    results.append((y, grads.x, grads.flat))
                with layer.edit() as weights:  # the same values, not packed yet
                    weights.flat += 0
        for one, other in zip(*results, strict=True):
            assert np.array_equal(one, other)
