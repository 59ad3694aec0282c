"""Large blocks are kept for the next call: a bounded amount, and only a block that fits is used again."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

import fastrnn

_core = pytest.importorskip("fastrnn.backends._core", reason="the compiled backend is not built")

MB = 1 << 20


@pytest.fixture(autouse=True)
def _start_with_none() -> None:
    _core.release_memory()
    assert _core.spare_memory() == 0


def test_a_large_block_is_used_again() -> None:
    block = _core.Buffer(40 * MB)
    del block
    assert _core.spare_memory() == 40 * MB
    again = _core.Buffer(39 * MB)
    assert _core.spare_memory() == 0
    assert again.nbytes == 39 * MB
    del again
    assert _core.spare_memory() == 40 * MB, "it kept its size"


def test_no_block_is_used_for_much_less() -> None:
    block = _core.Buffer(64 * MB)
    del block
    small = _core.Buffer(2 * MB)
    assert _core.spare_memory() == 64 * MB
    del small


def test_what_is_kept_is_bounded() -> None:
    blocks = [_core.Buffer((30 + i) * MB) for i in range(24)]
    del blocks
    assert _core.spare_memory() <= 256 * MB
    huge = _core.Buffer(257 * MB)
    del huge
    assert _core.spare_memory() <= 256 * MB


def test_large_arrays_are_blocks_too() -> None:
    array = _core.empty((3, 1000, 1000), np.float32)
    assert array.shape == (3, 1000, 1000)
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    assert array.flags.writeable
    address = array.ctypes.data
    part = array[1:]
    del array
    assert _core.spare_memory() == 0, "a view keeps the block"
    del part
    assert _core.spare_memory() == 12_000_000
    assert _core.empty((2_900_000,), np.float32).ctypes.data == address


@pytest.mark.parametrize("shape", [(), (0, 5), (3,), (2, 2, 2, 2), (1 << 12,)])
def test_other_arrays_are_numpys(shape: tuple[int, ...]) -> None:
    array = _core.empty(shape, np.float64)
    assert array.shape == shape
    assert array.flags.owndata
    assert _core.spare_memory() == 0


@pytest.mark.parametrize("shape", [(1 << 62, 1 << 62), (-1,)])
def test_what_numpy_refuses_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - NumPy's words
        _core.empty(shape, np.float32)


def test_a_training_step_finds_its_blocks_again() -> None:
    """Every large array of the second step lies where one of the first lay."""
    with fastrnn.backend("cpp"):
        layer = fastrnn.LSTM(300, 300, rng=0)
        x = np.ones((30, 40, 300), np.float32)

        def step() -> set[int]:
            with layer.edit() as weights:
                weights.flat += 0
            y, _, tape = layer.forward(x)
            grads = layer.backward(tape, y)
            return {a.ctypes.data for a in (weights.flat, y, grads.x, grads.flat)}

        step()
        known = step() | step()
        assert step() <= known


def test_weights_in_a_block_are_not_copied_by_packing() -> None:
    with fastrnn.backend("cpp"):
        layer = fastrnn.RNN(512, 512)
        with layer.edit() as weights:
            weights.flat += 1
        flat: Any = layer.weights.flat
        assert not flat.flags.writeable
        layer(np.ones((1, 1, 512), np.float32))
        with pytest.raises(ValueError, match="WRITEABLE"):
            flat.flags.writeable = True
        gone = weakref.ref(flat)
        del flat, layer, weights
        gc.collect()
        assert gone() is None
