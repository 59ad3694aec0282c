"""LSTM, GRU and RNN as their users see them: options, layouts, tapes, gradients, dropout, packing."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import numpy as np
import pytest

import fastrnn
from conftest import make_layer, parts
from problems import CELLS

T, N, I, H = 5, 3, 4, 6  # noqa: E741 - the letters of the shapes


def array(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


X = array(T, N, I)
LENGTHS = [3, 5, 0]
RESET = np.zeros((T, N), bool)
RESET[2, 1] = RESET[0, 0] = True
MASK = np.ones((T, N), bool)
MASK[1] = False


@pytest.fixture(params=list(CELLS))
def cell(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def state_of(cell: str, *shape: int) -> Any:
    h, c = array(*shape, seed=1), array(*shape, seed=2)
    return (h, c) if cell == "lstm" else h


def turned(state: Any, change: Any) -> Any:
    return tuple(map(change, state)) if isinstance(state, tuple) else change(state)


def close(got: Any, want: Any) -> None:
    for a, b in zip(parts(got), parts(want), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


# -- what a layer is ---------------------------------------------------------------------------------------------------


@pytest.mark.smoke
def test_repr() -> None:
    assert repr(fastrnn.LSTM(3, 5)) == "LSTM(3, 5)"
    lstm = fastrnn.LSTM(3, 5, 2, bias=False, batch_first=True, dropout=0.5, bidirectional=True, dtype=np.float64)
    assert repr(lstm) == (
        "LSTM(3, 5, num_layers=2, bias=False, batch_first=True, dropout=0.5, bidirectional=True, dtype='float64')"
    )
    assert repr(fastrnn.GRU(3, 5, reset_after=False)) == "GRU(3, 5, reset_after=False)"
    assert repr(fastrnn.RNN(3, 5, nonlinearity="relu")) == "RNN(3, 5, nonlinearity='relu')"
    assert "weight_hh_l0: (20, 5)" in repr(fastrnn.LSTM(3, 5).weights)


def test_options_are_attributes() -> None:
    gru = fastrnn.GRU(np.int64(3), 5, 2, dropout=0, bidirectional=np.True_, dtype="float64")
    assert (gru.input_size, gru.hidden_size, gru.num_layers, gru.bias) == (3, 5, 2, True)
    assert (gru.batch_first, gru.dropout, gru.bidirectional, gru.proj_size) == (False, 0.0, True, 0)
    assert gru.dtype == np.float64
    assert gru.reset_after is True
    assert fastrnn.RNN(3, 5, nonlinearity="relu").nonlinearity == "relu"
    assert {"input_size", "weight_hh_l0", "forward"} <= {*dir(gru)}


def test_dropout_between_no_layers_warns() -> None:
    with pytest.warns(UserWarning, match="only one") as caught:
        layer = fastrnn.LSTM(I, H, dropout=0.5)
    assert caught[0].filename == __file__
    assert layer.forward(X)[0].shape == (T, N, H)


# -- layouts -----------------------------------------------------------------------------------------------------------


@pytest.mark.smoke
def test_shapes(cell: str) -> None:
    layer = make_layer(cell, I, H, 2, bidirectional=True)
    y, last = layer(X)
    assert y.shape == (T, N, 2 * H)
    assert [part.shape for part in parts(last)] == [(4, N, H)] * (2 if cell == "lstm" else 1)
    assert isinstance(last, tuple) == (cell == "lstm")
    close(layer(X, turned(last, np.zeros_like))[0], y)


@pytest.mark.parametrize("both", [False, True])
def test_batch_first_is_the_same_with_axes_swapped(cell: str, both: bool) -> None:
    major = make_layer(cell, I, H, 2, bidirectional=both)
    first = make_layer(cell, I, H, 2, bidirectional=both, batch_first=True)
    d = 2 if both else 1
    h, dy = state_of(cell, 2 * d, N, H), array(T, N, d * H, seed=4)
    options = {"lengths": LENGTHS, "reset": RESET, "mask": MASK}
    swapped = {"lengths": LENGTHS, "reset": RESET.T, "mask": MASK.T}
    y, last = major(X, h, **options)
    got, got_last = first(X.swapaxes(0, 1), h, **swapped)
    close(got, y.swapaxes(0, 1))
    close(got_last, last)
    assert got.flags.c_contiguous
    out = np.empty((N, T, d * H), np.float32)
    assert first(X.swapaxes(0, 1), h, **swapped, out=out)[0] is out
    assert np.array_equal(out, got)
    want = major.backward(major.forward(X, h, **options)[2], dy, h)
    y, _, tape = first.forward(X.swapaxes(0, 1), h, **swapped)
    close(y, got)
    grads = first.backward(tape, dy.swapaxes(0, 1), h)
    close(grads.x, want.x.swapaxes(0, 1))
    close(grads.state, want.state)
    close(grads.flat, want.flat)


@pytest.mark.parametrize("batch_first", [False, True])
def test_without_a_batch_axis(cell: str, batch_first: bool) -> None:
    layer = make_layer(cell, I, H, 2, bidirectional=True, batch_first=batch_first)
    whole = make_layer(cell, I, H, 2, bidirectional=True)
    h, dy = state_of(cell, 4, 1, H), array(T, 1, 2 * H, seed=4)
    x, reset, mask = X[:, :1], RESET[:, :1], MASK[:, :1]
    one = turned(h, lambda part: part[:, 0])
    options = {"lengths": 3, "reset": reset[:, 0], "mask": mask[:, 0]}
    y, last, tape = whole.forward(x, h, lengths=[3], reset=reset, mask=mask)
    want = whole.backward(tape, dy, h)
    got, got_last = layer(x[:, 0], one, **options)
    close(got, y[:, 0])
    close(got_last, turned(last, lambda part: part[:, 0]))
    out = np.empty((T, 2 * H), np.float32)
    assert layer(x[:, 0], one, **options, out=out)[0] is out
    assert np.array_equal(out, got)
    got, _, tape = layer.forward(x[:, 0], one, **options)
    grads = layer.backward(tape, dy[:, 0], one)
    close(got, y[:, 0])
    close(grads.x, want.x[:, 0])
    close(grads.state, turned(want.state, lambda part: part[:, 0]))
    close(grads.flat, want.flat)


@pytest.mark.parametrize(("steps", "batch"), [(0, 2), (2, 0), (0, 0)])
def test_nothing_to_do(cell: str, steps: int, batch: int) -> None:
    layer = make_layer(cell, I, H, 2, dropout=0.5)
    h = state_of(cell, 2, batch, H)
    x = np.zeros((steps, batch, I), np.float32)
    y, last, tape = layer.forward(x, h, lengths=[0] * batch, reset=np.zeros((steps, batch), bool))
    assert y.shape == (steps, batch, H)
    close(last, h)
    grads = layer.backward(tape, np.zeros_like(y), h)
    assert grads.x.shape == x.shape
    close(grads.state, h)
    assert not grads.flat.any()


# -- tapes and gradients -----------------------------------------------------------------------------------------------


def test_forward_is_a_call_with_a_tape(cell: str) -> None:
    layer = make_layer(cell, I, H, 2, dropout=0.0)
    y, last, tape = layer.forward(X)
    close(y, layer(X)[0])
    close(last, layer(X)[1])
    assert not y.flags.writeable
    assert (tape.steps, tape.batch, tape.spec.cell, tape.consumed) == (T, N, layer._cell, False)
    layer.backward(tape)
    assert tape.consumed
    assert "consumed" in repr(tape)


def test_the_tape_keeps_what_may_change(cell: str) -> None:
    """x must not change until backward; states, lengths, reset and mask may."""
    layer = make_layer(cell, I, H)
    kept = {"lengths": np.array(LENGTHS), "reset": RESET.copy(), "mask": MASK.copy()}
    h, dy = state_of(cell, 1, N, H), array(T, N, H, seed=4)
    want = layer.backward(layer.forward(X, h, **kept)[2], dy)
    _, last, tape = layer.forward(X, h, **kept)
    for part in (*parts(h), *parts(last), *kept.values()):
        part[...] = 0
    got = layer.backward(tape, dy)
    close(got.x, want.x)
    close(got.state, want.state)
    close(got.flat, want.flat)


def test_memory_of_an_old_tape(cell: str) -> None:
    layer = make_layer(cell, I, H, 2)
    dy = array(T, N, H, seed=4)
    want = layer.backward(layer.forward(X)[2], dy)
    _, _, old = layer.forward(array(T + 2, N, I))
    _, _, tape = layer.forward(X, tape=old)
    with pytest.raises(ValueError, match="tape has been used"):
        layer.backward(old)
    close(layer.backward(tape, dy, retain=True).flat, want.flat)
    close(layer.backward(tape, dy).flat, want.flat)
    _, _, tape = layer.forward(X, tape=tape)
    close(layer.backward(tape, dy).flat, want.flat)
    with pytest.raises(TypeError, match="tape"):
        layer.forward(X, tape=3)
    _, _, tape = layer.forward(X)
    with pytest.raises(ValueError, match="x has shape"):
        layer.forward(X[..., 1:], tape=tape)
    close(layer.backward(tape, dy).flat, want.flat)


def test_a_used_tape_keeps_no_inputs() -> None:
    layer = make_layer("gru_after", I, H)
    x = X.copy()
    gone = weakref.ref(x)
    _, _, tape = layer.forward(x)
    del x
    gc.collect()
    assert gone() is not None
    layer.backward(tape)
    gc.collect()
    assert gone() is None


def test_memory_of_old_gradients(cell: str) -> None:
    layer = make_layer(cell, I, H, 2, bidirectional=True)
    dy = array(T, N, 2 * H, seed=4)
    want = layer.backward(layer.forward(X)[2], dy)
    out = layer.backward(layer.forward(X)[2])
    x, flat = out.x, out.flat
    assert layer.backward(layer.forward(X)[2], dy, out=out) is out
    assert out.x is not None
    assert np.shares_memory(out.x, x)
    assert out.flat is flat
    close(out.x, want.x)
    close(out.flat, want.flat)
    layer.backward(layer.forward(X[:2])[2], dy[:2], out=out)
    assert out.x.shape == (2, N, I)
    layer.backward(layer.forward(X[:, 0])[2], dy[:, 0], out=out)
    assert out.x.shape == (T, I)
    assert parts(out.state)[0].shape == (4, H)


def test_gradients_over_chunks(cell: str) -> None:
    """Two chunks, the later chunk's grads.state handed to the earlier one with the same `out`, equal the whole."""
    layer = make_layer(cell, I, H, 2)
    dy = array(T, N, H, seed=4)
    want = layer.backward(layer.forward(X)[2], dy)
    _, middle, first = layer.forward(X[:2])
    _, _, second = layer.forward(X[2:], middle)
    grads = layer.backward(second, dy[2:])
    grads = layer.backward(first, dy[:2], grads.state, out=grads, accumulate=True)
    close(grads.x, want.x[:2])
    close(grads.state, want.state)
    close(grads.flat, want.flat)


def test_gradient_arrays_that_overlap() -> None:
    """dy and x in the memory that the gradients are written to."""
    layer = make_layer("gru_after", H, H)
    x, dy = array(T, N, H), array(T, N, H, seed=4)
    want = layer.backward(layer.forward(x)[2], dy)
    out = layer.backward(layer.forward(x)[2])
    out.x[...] = dy
    close(layer.backward(layer.forward(x)[2], out.x, out=out).x, want.x)
    out.x[...] = x
    close(layer.backward(layer.forward(out.x)[2], dy, out=out).flat, want.flat)


def test_gradients_of_another_layer() -> None:
    layer, other = make_layer("gru_after", I, H), make_layer("gru_after", I, H + 1)
    grads = other.backward(other.forward(X)[2])
    for out, error in ((grads, ValueError), (grads.flat, TypeError)):
        _, _, tape = layer.forward(X)
        with pytest.raises(error, match="out"):
            layer.backward(tape, out=out)
    with pytest.raises(ValueError, match="accumulate"):
        layer.backward(tape, accumulate=True)
    layer.backward(tape)


def test_views_of_gradients(cell: str) -> None:
    layer = make_layer(cell, I, H)
    grads = layer.backward(layer.forward(X)[2], array(T, N, H))
    assert list(grads.weights) == list(layer.weights)
    assert not grads.weights["weight_hh_l0"].flags.writeable
    norm = np.sqrt(sum(np.square(g).sum() for g in grads.weights.values()))
    assert np.linalg.norm(grads.flat) == pytest.approx(norm)
    before = grads.weights["weight_hh_l0"].copy()
    grads.flat *= 2
    assert np.array_equal(grads.weights["weight_hh_l0"], before * 2)


def test_parts_of_dstate() -> None:
    layer = make_layer("lstm", I, H)
    h = array(1, N, H)
    zero = np.zeros_like(h)
    for given, full in (((h, None), (h, zero)), ((None, h), (zero, h)), ((None, None), (zero, zero)), (None, None)):
        want = layer.backward(layer.forward(X)[2], dstate=full)
        close(layer.backward(layer.forward(X)[2], dstate=given).x, want.x)
    with pytest.raises(TypeError, match=r"state\[1\] \(c\) is None"):
        layer(X, (h, None))


def test_two_threads_and_one_tape() -> None:
    """Exactly one of them gets it."""
    layer = make_layer("lstm", I, H)
    _, _, tape = layer.forward(X)
    outcomes: list[str] = []

    def use() -> None:
        try:
            layer.backward(tape)
            outcomes.append("done")
        except ValueError:
            outcomes.append("refused")

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["done"] + ["refused"] * 3


# -- dropout -----------------------------------------------------------------------------------------------------------


def test_dropout_is_drawn_from_the_layers_generator() -> None:
    plain = fastrnn.GRU(I, H, 2, rng=7)
    layer = fastrnn.GRU(I, H, 2, dropout=0.5, rng=7)
    same = fastrnn.GRU(I, H, 2, dropout=0.5, rng=7)
    assert np.array_equal(layer(X)[0], plain(X)[0]), "a call never drops"
    first = layer.forward(X)[0]
    assert np.array_equal(first, same.forward(X)[0])
    assert not np.array_equal(first, layer.forward(X)[0])
    for batch_first in (False, True):
        twin = fastrnn.GRU(I, H, 2, dropout=0.5, rng=7, batch_first=batch_first, dtype=np.float64)
        x = X.swapaxes(0, 1) if batch_first else X
        got = twin.forward(x)[0]
        np.testing.assert_allclose(got.swapaxes(0, 1) if batch_first else got, first, atol=1e-5)


def test_a_refused_call_draws_nothing() -> None:
    layer, same = (fastrnn.GRU(I, H, 2, dropout=0.5, rng=7) for _ in range(2))
    with pytest.raises(ValueError, match="lengths"):
        layer.forward(X, lengths=[9, 9, 9])
    assert np.array_equal(layer.forward(X)[0], same.forward(X)[0])


def test_dropout_factors() -> None:
    factors = fastrnn.LSTM(I, H, 3, dropout=0.25, rng=1).forward(array(50, 10, I))[2].dropout
    assert factors.shape == (2, 50, 10, H)
    assert {*np.unique(factors)} == {0, np.float32(4 / 3)}
    assert factors.dtype == np.float32
    assert abs((factors == 0).mean() - 0.25) < 0.03
    assert not fastrnn.LSTM(I, H, 2, dropout=1.0, rng=1).forward(array(2, 3, I))[2].dropout.any()


def test_backward_sees_the_same_dropout(cell: str) -> None:
    """The derivative along a direction by differences, with the generator wound back for each forward."""
    layer = make_layer(cell, I, H, 2, dropout=0.5, dtype=np.float64)
    state = layer._rng.bit_generator.state

    def y(x: Any) -> Any:
        layer._rng.bit_generator.state = state
        return layer.forward(x)

    x, direction, dy = X.astype(np.float64), array(T, N, I, seed=8), array(T, N, H, seed=4)
    grads = layer.backward(y(x)[2], dy)
    step = 1e-6
    slope = ((y(x + step * direction)[0] - y(x - step * direction)[0]) * dy).sum() / (2 * step)
    assert slope == pytest.approx((grads.x * direction).sum(), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("flag", ["retain", "accumulate"])
@pytest.mark.parametrize("value", [None, 1, "yes", np.ones(2, bool)])
def test_flags_of_backward_are_flags(flag: str, value: Any) -> None:
    layer = make_layer("gru_after", I, H)
    y, _, tape = layer.forward(X)
    with pytest.raises(TypeError, match=f"{flag} is .* it must be True or False"):
        layer.backward(tape, y, **{flag: value})
    assert not tape.consumed
    layer.backward(tape, y)


@pytest.mark.parametrize("path", [None, 3, b"layer.npz"])
def test_what_is_no_path(path: Any) -> None:
    for call in (make_layer("gru_after", I, H).save, fastrnn.load):
        with pytest.raises(TypeError, match=r"path is .* it must be a str or a path-like object"):
            call(path)
