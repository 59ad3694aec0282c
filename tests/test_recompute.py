"""`save="recompute"`: no gates on the tape, which backward computes again a segment at a time.

Outputs, dx and the gradients of the states must be those of `save="all"`, bit for bit where a row's arithmetic is
promised not to depend on the shape of the call. Weight gradients are sums over the steps in another order: equal to
rounding. Segments are forced short, so that small T has several of them and a shorter last one; rows end, begin, are
cut and held within them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import fastrnn
from conftest import System, make_layer, parts
from problems import BY_NAME, CELLS, DTYPES, TOLERANCE, error, make_case, reference, run
from test_exact import EXACT

NAMES = (
    "one", "h1", "h33", "row", "no_steps", "no_steps_deep", "no_rows", "no_state", "strided", "bidirectional",
    "dropout", "deep", "ragged", "ragged_deep", "ragged_empty", "reset", "reset_deep", "reset_every", "mask",
    "mask_deep", "mask_never", "reset_mask", "everything", "everything_bare", "only_dx", "only_dweights",
    "only_dstate", "accumulate", "long_ragged", "wide", "masked", "zoneout", "regular", "everything_regular",
)  # fmt: skip
WEIGHTS = {
    "h33",
    "deep",
    "ragged_deep",
    "reset_deep",
    "mask_deep",
    "everything",
    "everything_bare",
    "accumulate",
    "wide",
}
cells = pytest.mark.parametrize("cell", list(CELLS))


@contextmanager
def segments_of(module: ModuleType, steps: int | None) -> Iterator[None]:
    """Tapes made inside have their checkpoints that far apart."""
    module.force_segment(steps)
    try:
        yield
    finally:
        module.force_segment(None)


def check(system: System, got: dict[str, Any], want: dict[str, Any], dtype: str) -> None:
    assert got.keys() == want.keys()
    for name, result in got.items():
        if name == "dweights":
            assert error(result, want[name]) <= TOLERANCE[dtype, "backward"], name
        else:
            system.same(result, want[name])


@cells
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_it_gives_what_a_whole_tape_gives(system: System, cell: str, dtype: str, name: str) -> None:
    problem = BY_NAME[name]
    want = run(system.module, make_case(problem, cell, dtype), train=True)
    for steps in (1, 3, None) if problem.steps < 100 else (7, 50, None):
        with segments_of(system.module, steps):
            got = run(system.module, make_case(problem, cell, dtype), train=True, recompute=True)
        check(system, got, want, dtype)


@cells
@pytest.mark.parametrize("problem", [p for p in EXACT if p.name in WEIGHTS], ids=lambda p: p.name)
def test_it_is_exact(system: System, cell: str, problem: Any) -> None:
    """With integers no sum depends on its order, so weight gradients too are the same numbers."""
    want = reference(problem, cell, train=True, exact=True)
    with segments_of(system.module, 2):
        got = run(system.module, make_case(problem, cell, "float32", exact=True), train=True, recompute=True)
    for name, result in got.items():
        assert np.array_equal(result, want[name]), name


@cells
@pytest.mark.parametrize("name", ["row", "everything", "everything_bare", "long_ragged", "wide"])
@pytest.mark.parametrize("split", ["none", "batch", "hidden"])
def test_threads_change_nothing(split: str, name: str, cell: str) -> None:
    """Weight gradients included: segments, and so the order of the sums, do not depend on threads."""
    core = pytest.importorskip("fastrnn.backends._core")
    case = make_case(BY_NAME[name], cell, "float32")
    before = core.get_num_threads()
    for steps in (1, 3, None):
        with segments_of(core, steps):
            try:
                core.set_num_threads(1)
                alone = run(core, case, train=True, recompute=True)
                core.force_split(split)
                for threads in (2, 3):
                    core.set_num_threads(threads)
                    got = run(core, case, train=True, recompute=True)
                    for output, result in got.items():
                        assert np.array_equal(result, alone[output]), (output, threads, steps)
            finally:
                core.force_split(None)
                core.set_num_threads(before)


# -- through the layers ----------------------------------------------------------------------------------------------

T, N, I, H = 40, 3, 5, 17  # noqa: E741 - the letters of the shapes


def data(rng: np.random.Generator, directions: int = 1) -> tuple[Any, Any]:
    shapes = (T, N, I), (T, N, directions * H)
    return tuple(rng.standard_normal(shape).astype(np.float32) for shape in shapes)  # type: ignore[return-value]


def test_layers_and_functions_take_it(system: System, rng: np.random.Generator) -> None:
    for cell in CELLS:
        layer = make_layer(cell, I, H, 2, bidirectional=True, dropout=0.5, rng=3)
        same = make_layer(cell, I, H, 2, bidirectional=True, dropout=0.5, rng=3)
        x, dy = data(rng, 2)
        control = {"lengths": [T, 0, 21], "reset": rng.random((T, N)) < 0.1, "mask": rng.random((T, N)) < 0.9}
        y, last, tape = layer.forward(x, **control)
        want = layer.backward(tape, dy, last)
        with segments_of(system.module, 6):
            got_y, got_last, tape = same.forward(x, save="recompute", **control)
        got = same.backward(tape, dy, last)  # the tape knows its segments
        system.same(got_y, y)
        system.same(got.x, want.x)
        for a, b in zip((*parts(got_last), *parts(got.state)), (*parts(last), *parts(want.state)), strict=True):
            system.same(a, b)
        np.testing.assert_allclose(got.flat, want.flat, rtol=1e-4, atol=1e-4)


@cells
def test_memory_goes_from_tape_to_tape(system: System, cell: str, rng: np.random.Generator) -> None:
    """Of either kind to either kind, retained and accumulated."""
    layer = make_layer(cell, I, H, 2)
    x, dy = data(rng)
    want = layer.backward(layer.forward(x)[2], dy)
    tape = layer.forward(x)[2]
    for save in ("recompute", "all", "recompute", "recompute"):
        with segments_of(system.module, 7):
            tape = layer.forward(x, tape=tape, save=save)[2]
        got = layer.backward(tape, dy, retain=True)
        again = layer.backward(tape, dy, retain=True)
        assert np.array_equal(got.flat, again.flat)
        np.testing.assert_allclose(got.flat, want.flat, rtol=1e-4, atol=1e-4)
        system.same(got.x, want.x)
        twice = layer.backward(tape, dy, out=again, accumulate=True)
        np.testing.assert_allclose(twice.flat, 2 * got.flat, rtol=1e-5, atol=1e-5)


@cells
def test_the_tape_is_small(cell: str) -> None:
    """H values a row in y, and one c of the LSTM for each segment; nothing more."""
    core = pytest.importorskip("fastrnn.backends._core")
    case = make_case(BY_NAME["long"], cell, "float32")
    packed = core.pack(case.spec, case.weights)
    steps, batch, width = 1000, 4, 16
    with segments_of(core, 50):
        small = core.make_tape(packed, steps, batch, None, True).nbytes
    assert small == (20 * batch * width * 4 if case.spec.cell == "lstm" else 0)
    whole = core.make_tape(packed, steps, batch).nbytes
    assert whole == steps * batch * width * 4 * {"lstm": 5, "gru": 4, "rnn": 0}[case.spec.cell]


@pytest.mark.parametrize("save", ["none", "ALL", "", None, 1, True, b"all", ["all"]])
def test_another_value_is_refused(save: Any, rng: np.random.Generator) -> None:
    layer = make_layer("lstm", I, H)
    x, dy = data(rng)
    tape = layer.forward(x)[2]
    with pytest.raises(ValueError, match=r"save is .*; it must be one of 'all', 'recompute'"):
        layer.forward(x, save=save, tape=tape)
    assert np.isfinite(layer.backward(tape, dy).x).all(), "a refused call leaves the tape usable"
    with pytest.raises(ValueError, match="save is"):
        fastrnn.functional.forward(tape.packed, x, save=save)


@cells
@pytest.mark.parametrize(("steps", "batch"), [(2000, 512), (2005, 512), (80, 512), (300, 4), (7, 3)])
def test_twins_have_as_many_checkpoints_as_the_core(cell: str, steps: int, batch: int) -> None:
    layer = make_layer(cell, 4, 512)
    sizes = {}
    for name in ("cpp", "numpy"):
        if name not in fastrnn.backends.available():
            pytest.skip(f"no backend {name!r}")
        module: Any = fastrnn.backends.load(name)
        tape = module.make_tape(module.pack(layer._spec, layer.weights.flat), steps, batch, None, True)
        sizes[name] = tape.nbytes if name == "cpp" else tape.memory.nbytes
    assert sizes["cpp"] == sizes["numpy"]
