"""Packed input of layers, by rows (Ragged) and by steps (PackedSequence): the bits of padded calls, and bad input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fastrnn
from conftest import System
from fastrnn import functional
from fastrnn._spec import Spec
from fastrnn.sequences import PackedSequence, Ragged, pack, ragged
from problems import CELLS, DTYPES

Array = NDArray[Any]
LAYOUTS: dict[str, Callable[[Array, Array], Any]] = {
    "rows": lambda padded, lengths: ragged(padded, lengths),
    "steps": lambda padded, lengths: pack(padded, lengths),
}


def spec_of(cell: str, dtype: str = "float32", **options: Any) -> Spec:
    given = {"input_size": 5, "hidden_size": 17, "num_layers": 2, "bias": True, "bidirectional": True, **options}
    return Spec(dtype_name=dtype, **given, **CELLS[cell])


def arrays(spec: Spec, lengths: Array, seed: int = 0, nan: bool = True) -> dict[str, Any]:
    """Padded arrays of one call; NaN in the padding, which nobody may read."""
    rng = np.random.default_rng(seed)
    steps, batch, width = int(lengths.max(initial=0)), len(lengths), spec.directions * spec.hidden_size

    def values(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(spec.dtype)

    states = (spec.num_layers * spec.directions, batch, spec.hidden_size)
    made = {
        "x": values(steps, batch, spec.input_size),
        "dy": values(steps, batch, width),
        "dropout": 2 * (rng.random((spec.num_layers - 1, steps, batch, width)) < 0.5).astype(spec.dtype),
        "reset": rng.random((steps, batch)) < 0.2,
        "mask": rng.random((steps, batch)) < 0.7,
    }
    if nan:
        padding = np.arange(steps)[:, None] >= lengths
        made["x"][padding] = made["dy"][padding] = np.nan
    pairs = spec.cell == "lstm"
    made["state"] = (values(*states), values(*states)) if pairs else values(*states)
    made["dstate"] = (values(*states), values(*states)) if pairs else values(*states)
    return made


def train(spec: Spec, given: dict[str, Any], lengths: Array | None, weights: Array, save: str = "all") -> list[Any]:
    """Everything forward and backward give: y, state, dx, dstate, dweights, inference's y; arrays or layouts."""
    packed = functional.pack(spec, weights)
    masks = {name: given[name] for name in ("reset", "mask")}
    y, state, tape = functional.forward(
        packed, given["x"], given["state"], lengths=lengths, dropout=given["dropout"], save=save, **masks
    )
    grads = functional.backward(tape, given["dy"], given["dstate"])
    inferred = functional.infer(packed, given["x"], given["state"], lengths=lengths, **masks)
    return [y, state, grads.x, grads.state, grads.flat, *inferred]


def compare(spec: Spec, lengths: Array, kind: str, seed: int = 0, save: str = "all", **absent: None) -> None:
    """The packed call has the bits of the padded one."""
    layout = LAYOUTS[kind]
    padded = {**arrays(spec, lengths, seed), **absent}
    weights = np.random.default_rng(seed + 1).uniform(-0.4, 0.4, spec.weight_count).astype(spec.dtype)
    inside = {
        name: value if value is None or name in ("state", "dstate") else layout(value, lengths)
        for name, value in padded.items()
        if name != "dropout"
    }
    factors = padded["dropout"] if spec.num_layers > 1 else None
    padded["dropout"] = factors
    inside["dropout"] = None if factors is None else np.stack([layout(f, lengths).data for f in factors])
    wanted, got = train(spec, padded, lengths, weights, save), train(spec, inside, None, weights, save)
    for expected, found in zip(wanted, got, strict=True):
        if isinstance(found, Ragged | PackedSequence):
            assert type(found) is type(inside["x"])
            np.testing.assert_array_equal(found.data, layout(expected, lengths).data)
            for name in found._fields[1:]:
                np.testing.assert_array_equal(getattr(found, name), getattr(inside["x"], name))
        elif isinstance(found, tuple):
            for part, other in zip(expected, found, strict=True):
                np.testing.assert_array_equal(other, part)
        else:
            np.testing.assert_array_equal(found, expected)


MIXED = np.array([3, 0, 7, 7, 1, 2, 7, 0, 5, 4, 6, 3, 2])


@pytest.mark.parametrize("save", ["all", "recompute"])
@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_packed_is_padded(system: System, cell: str, dtype: str, kind: str, save: str) -> None:
    """Layers, both directions, dropout, resets and masks at once."""
    compare(spec_of(cell, dtype), MIXED, kind, save=save)


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize(
    "lengths", [[4], [0], [0, 0, 0], [1] * 9, [5, 4, 3, 2, 1], [1, 2, 3, 4, 5], [0, 9, 0], []], ids=str
)
def test_shapes(system: System, lengths: list[int], kind: str) -> None:
    compare(spec_of("lstm"), np.array(lengths, np.int64), kind)
    compare(spec_of("gru_after", num_layers=1, bidirectional=False), np.array(lengths, np.int64), kind, mask=None)


@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=30),
    cell=st.sampled_from(sorted(CELLS)),
    kind=st.sampled_from(sorted(LAYOUTS)),
    hidden=st.integers(1, 40),
    layers=st.integers(1, 3),
    both=st.booleans(),
    save=st.sampled_from(["all", "recompute"]),
    absent=st.sets(st.sampled_from(["reset", "mask", "dropout", "dy", "state"])),
    threads=st.integers(1, 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_any_packed_is_padded(
    lengths: list[int], cell: str, kind: str, hidden: int, layers: int, both: bool, save: str, absent: set[str],
    threads: int, seed: int,
) -> None:  # fmt: skip
    spec = spec_of(cell, hidden_size=hidden, num_layers=layers, bidirectional=both)
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(threads)
    try:
        compare(spec, np.array(lengths), kind, seed, save, **dict.fromkeys(absent))
    finally:
        fastrnn.set_num_threads(before)
