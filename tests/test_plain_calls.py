"""The short way of training calls: the same numbers as the general way, and the same rules for tapes."""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np
import pytest

import fastrnn
from conftest import make_layer
from fastrnn import functional
from problems import CELLS

cells = pytest.mark.parametrize("cell", list(CELLS))
Array = Any


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def state_of(layer: Any, batch: int) -> Any:
    _, state = layer(draw(1, batch, layer.input_size, seed=5))
    return state


def arrays(y: Array, state: Any, grads: Any) -> list[Array]:
    pairs = [part if isinstance(part, tuple) else (part,) for part in (state, grads.state)]
    return [y, grads.x, grads.flat, *pairs[0], *pairs[1], *grads.weights.values()]


def pairs_of(plain: Array, twisted: Array) -> tuple[Array, Array]:
    """An array as it is, and the same values in a form that the short way leaves alone."""
    room = np.empty((*twisted.shape[:-1], 2 * twisted.shape[-1]), twisted.dtype)
    room[..., ::2] = twisted
    return plain, room[..., ::2]


@cells
@pytest.mark.parametrize("sizes", [(1, 1, 8, 16), (3, 5, 7, 33), (1, 4, 20, 100)])
@pytest.mark.parametrize("stateful", [False, True])
def test_it_gives_the_same_numbers(cell: str, sizes: tuple[int, int, int, int], stateful: bool) -> None:
    steps, batch, inputs, hidden = sizes
    layer = make_layer(cell, inputs, hidden, num_layers=2, bidirectional=True)
    x, dy = draw(steps, batch, inputs), draw(steps, batch, 2 * hidden, seed=1)
    state = state_of(layer, batch) if stateful else None
    results = []
    for x_form, dy_form in zip(pairs_of(x, x), pairs_of(dy, dy), strict=True):
        y, last, tape = layer.forward(x_form, state)
        results.append(arrays(y, last, layer.backward(tape, dy_form)))
    for plain, general in zip(*results, strict=True):
        np.testing.assert_array_equal(plain, general)
        assert plain.flags.writeable == general.flags.writeable


@cells
def test_other_forms_of_dy_and_options(cell: str) -> None:
    layer, x, dy = make_layer(cell, 5, 9), draw(4, 2, 5), draw(4, 2, 9, seed=1)
    y, last, tape = layer.forward(x)
    want = arrays(y, last, layer.backward(tape, dy))
    spare = layer.backward(layer.forward(x)[2], dy)

    def zeros() -> Any:
        return tuple(np.zeros_like(part) for part in last) if isinstance(last, tuple) else np.zeros_like(last)

    for given, options in (
        (dy.tolist(), {}), (dy.astype(np.float64), {}), (dy, {"retain": True}), (dy, {"out": spare}),
        (dy, {"dstate": zeros()}),
    ):  # fmt: skip
        tape = layer.forward(x)[2]
        grads = layer.backward(tape, given, **options)
        assert tape.consumed is ("retain" not in options)
        for one, other in zip(arrays(y, last, grads), want, strict=True):
            np.testing.assert_array_equal(one, other)
    nothing = layer.backward(layer.forward(x)[2])
    assert not nothing.flat.any()
    assert not nothing.x.any()


@cells
def test_gradients_in_old_memory(cell: str) -> None:
    """Of whatever layout the old ones were, and also where they are what is read."""
    layer, x, dy = make_layer(cell, 9, 9), draw(4, 1, 9), draw(4, 1, 9, seed=1)
    want = layer.backward(layer.forward(x)[2], dy)
    old = [
        layer.backward(layer.forward(x)[2], dy), layer.backward(layer.forward(x[:, 0])[2], dy[:, 0]),
        layer.backward(layer.forward(draw(2, 3, 9))[2], draw(2, 3, 9)),
    ]  # fmt: skip
    for out in old:
        for accumulate in (False, True):
            before = out.flat.copy()
            got = layer.backward(layer.forward(x)[2], dy, out=out, accumulate=accumulate)
            assert got is out
            assert got.x.shape == x.shape
            np.testing.assert_array_equal(got.x, want.x)
            np.testing.assert_allclose(got.flat, want.flat + before if accumulate else want.flat, rtol=1e-5, atol=1e-5)
            for one, other in zip(np.atleast_1d(got.state), np.atleast_1d(want.state), strict=True):
                np.testing.assert_array_equal(one, other)
    out = old[0]
    out.x[...] = x  # the input of this call is memory of its gradients
    got = layer.backward(layer.forward(out.x)[2], dy, out=out)
    np.testing.assert_array_equal(got.x, want.x)
    np.testing.assert_array_equal(got.flat, want.flat)
    out.x[...] = dy
    got = layer.backward(layer.forward(x)[2], out.x, out=out)
    np.testing.assert_array_equal(got.flat, want.flat)
    with pytest.raises(ValueError, match="accumulate"):
        layer.backward(layer.forward(x)[2], dy, accumulate=True)
    with pytest.raises(TypeError, match="out"):
        layer.backward(layer.forward(x)[2], dy, out=7)


def test_a_tape_is_used_once() -> None:
    layer, x = make_layer("lstm", 5, 9), draw(4, 2, 5)
    y, _, tape = layer.forward(x)
    with pytest.raises(ValueError, match="dy"):
        layer.backward(tape, np.zeros((4, 2, 8), np.float32))
    assert not tape.consumed
    layer.backward(tape, np.cos(y))
    with pytest.raises(ValueError, match="has been used"):
        layer.backward(tape, np.cos(y))
    again = layer.forward(x, tape=tape)[2]
    layer.backward(again, np.cos(y))
    with pytest.raises(TypeError, match="pack"):
        functional.forward(None, x)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="save"):
        layer.forward(x, save="some")


def test_the_state_that_was_given_is_copied() -> None:
    layer, x, dy = make_layer("lstm", 5, 9), draw(4, 2, 5), draw(4, 2, 9, seed=1)
    h, c = state_of(layer, 2)
    want = layer.backward(layer.forward(x, (h, c))[2], dy).flat
    tape = layer.forward(x, (h, c))[2]
    h[...] = c[...] = 7
    np.testing.assert_array_equal(layer.backward(tape, dy).flat, want)


@cells
@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("hidden", [5, 33, 70, 272])
@pytest.mark.parametrize("steps", [1, 3])
def test_no_state_is_a_state_of_zeros(cell: str, batch: int, hidden: int, steps: int) -> None:
    """Where it is absent the first step does not multiply it."""
    layer, x = make_layer(cell, 6, hidden), draw(steps, batch, 6)
    zeros = np.zeros((1, batch, hidden), np.float32)
    state = (zeros, zeros) if cell == "lstm" else zeros
    for call in (layer.__call__, layer.forward):
        for one, other in zip(np.atleast_1d(call(x)[0]), np.atleast_1d(call(x, state)[0]), strict=True):
            np.testing.assert_array_equal(one, other)
    stream = layer.stream(batch)
    np.testing.assert_array_equal(np.stack([stream.step(x_t) for x_t in x]), layer(x)[0])


def test_packing_as_it_goes_and_before_give_the_same_bits() -> None:
    """The first training call of one step packs panel by panel; the second that meets these weights packs them all."""
    pytest.importorskip("fastrnn.backends._core")
    with fastrnn.backend("cpp"):
        layer, x, dy = make_layer("lstm", 40, 100), draw(1, 2, 40), draw(1, 2, 100)
        results = []
        for _ in range(3):
            y, state, tape = layer.forward(x)
            results.append(arrays(y, state, layer.backward(tape, dy)))
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


def test_two_threads_and_one_tape() -> None:
    """One of them gets it, the other an error, however closely they follow each other."""
    layer, x = make_layer("lstm", 4, 8), draw(1, 1, 4)
    turn, tapes, told = threading.Barrier(2), [layer.forward(x)[2] for _ in range(300)], []

    def use() -> None:
        for tape in tapes:
            turn.wait()
            try:
                layer.backward(tape)
            except ValueError as error:
                told.append(str(error))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=use) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(told) == len(tapes)
    assert all("tape" in text for text in told)
    assert all(tape.consumed for tape in tapes)


def test_a_tape_used_in_between_is_refused() -> None:
    layer, x = make_layer("lstm", 4, 8), draw(1, 1, 4)
    tape = layer.forward(x)[2]
    layer.backward(tape)
    for _ in range(2):
        with pytest.raises(ValueError, match="has been used"):
            tape.take_ready()
    layer.backward(layer.forward(x, tape=tape)[2])  # its memory is still there


def test_gradients_whose_buffer_was_replaced() -> None:
    layer, x = make_layer("lstm", 4, 8), draw(2, 1, 4)
    grads = layer.backward(layer.forward(x)[2])
    for flat in (np.zeros(3, np.float32), np.zeros(grads.flat.size), np.zeros(2 * grads.flat.size, np.float32)[::2]):
        grads.flat = flat
        with pytest.raises(ValueError, match=r"out\.flat"):
            layer.backward(layer.forward(x)[2], out=grads)


def test_views_stay_within_their_buffer() -> None:
    core = pytest.importorskip("fastrnn.backends._core")
    flat = np.arange(10.0)
    made = core.views({"a": (2, 3), "b": (4,)}, flat, True)
    np.testing.assert_array_equal(made["a"], flat[:6].reshape(2, 3))
    np.testing.assert_array_equal(made["b"], flat[6:])
    made["b"][0] = 70
    assert flat[6] == 70
    assert not core.views({"a": (2, 3)}, flat, False)["a"].flags.writeable
    flat.flags.writeable = False
    assert not core.views({"a": (2, 3)}, flat, True)["a"].flags.writeable
    for shapes in ({"a": (11,)}, {"a": (6,), "b": (5,)}, {"a": (-1,)}, {"a": (1,) * 5}, {"a": (2**32, 2**32)}):
        with pytest.raises(ValueError, match="views"):
            core.views(shapes, flat, False)
    with pytest.raises(ValueError, match="contiguous"):
        core.views({"a": (2,)}, flat[::2], False)
