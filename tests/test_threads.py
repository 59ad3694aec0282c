"""Results are the same bits however threads share a call: every way is forced, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fastrnn._spec import Spec

_core = pytest.importorskip("fastrnn.backends._core", reason="the compiled backend is not built")

Arrays = dict[str, np.ndarray[Any, Any]]

# T, N, I, H, L, D: units that fill no whole share, rows that fill no whole slice, inputs projected and not.
SIZES = [
    (7, 13, 20, 130, 1, 1),
    (9, 1, 40, 200, 2, 1),
    (6, 25, 10, 70, 2, 2),
    (5, 3, 300, 140, 1, 2),
    (3, 2, 5, 7, 1, 1),
]
CELLS = [
    ("rnn", {"nonlinearity": "relu"}),
    ("lstm", {}),
    ("gru", {}),
    ("gru", {"reset_after": False}),
]


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    threads = _core.get_num_threads()
    yield
    _core.set_num_threads(threads)
    _core.force_split(None)


def problem(spec: Spec, steps: int, batch: int, feature: str) -> tuple[Any, ...]:
    rng = np.random.default_rng(steps * 1000 + batch)
    dtype = spec.dtype
    states = (spec.num_layers * spec.directions, batch, spec.hidden_size)

    def draw(*shape: int) -> np.ndarray[Any, Any]:
        return rng.standard_normal(shape).astype(dtype)

    def cell_state() -> np.ndarray[Any, Any] | None:
        return draw(*states) if spec.cell == "lstm" else None

    everything = feature == "everything"
    lengths = rng.integers(0, steps + 1, batch) if everything else None
    reset = rng.random((steps, batch)) < 0.3 if everything else None
    mask = rng.random((steps, batch)) < 0.7 if everything else None
    weights = (rng.uniform(-1, 1, spec.weight_count) / np.sqrt(spec.hidden_size)).astype(dtype)
    dy = draw(steps, batch, spec.directions * spec.hidden_size)
    x = draw(steps, batch, spec.input_size)
    return weights, x, draw(*states), cell_state(), dy, draw(*states), cell_state(), lengths, reset, mask


def run(spec: Spec, given: tuple[Any, ...]) -> Arrays:
    weights, x, h0, c0, dy, dhn, dcn, lengths, reset, mask = given
    packed = _core.pack(spec, weights)
    y, inferred = np.empty_like(dy), np.empty_like(dy)
    hn, cn = np.empty_like(h0), None if c0 is None else np.empty_like(c0)
    _core.forward(packed, x, inferred, h0, c0, hn, cn, lengths, reset, mask, None, None)
    tape = _core.make_tape(packed, *x.shape[:2])
    _core.forward(packed, x, y, h0, c0, hn, cn, lengths, reset, mask, None, tape)
    dx, dh0, dc0 = np.empty_like(x), np.empty_like(h0), None if c0 is None else np.empty_like(c0)
    dw = np.empty_like(weights)
    _core.backward(
        packed, tape, x, y, h0, c0, dy, dhn, dcn, dx, dh0, dc0, dw, lengths, reset, mask, None, False, False
    )  # fmt: skip
    named = {"inferred": inferred, "y": y, "hn": hn, "cn": cn, "dx": dx, "dh0": dh0, "dc0": dc0, "dw": dw}
    return {name: array for name, array in named.items() if array is not None}


@pytest.mark.parametrize("feature", ["dense", "everything"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize(("cell", "options"), CELLS, ids=["rnn", "lstm", "gru", "gru_reset_before"])
def test_every_split_gives_the_same_bits(
    cell: str, options: dict[str, Any], sizes: tuple[int, ...], feature: str
) -> None:
    steps, batch, inputs, hidden, layers, directions = sizes
    spec = Spec(cell, inputs, hidden, layers, bidirectional=directions == 2, **options)
    given = problem(spec, steps, batch, feature)
    _core.set_num_threads(1)
    expected = run(spec, given)
    for threads in (2, 3):
        _core.set_num_threads(threads)
        for split in _core.SPLITS:
            _core.force_split(split)
            got = run(spec, given)
            for name, array in expected.items():
                np.testing.assert_array_equal(got[name], array, err_msg=f"{name}, {threads} threads, split {split}")


def test_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="force_split"):
        _core.force_split("sideways")


@pytest.mark.parametrize("threads", [1, 2, 64])
def test_threads_are_what_was_set(threads: int) -> None:
    _core.set_num_threads(threads)
    assert _core.get_num_threads() == threads
