"""Streams: one step per call, the state in between, changes of weights, backend and state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastrnn
from conftest import make_layer, parts
from fastrnn import backends
from problems import CELLS

T, N, I, H = 5, 3, 4, 6  # noqa: E741 - the letters of the shapes
X = np.random.default_rng(0).standard_normal((T, N, I)).astype(np.float32)


def close(got: Any, want: Any) -> None:
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.smoke
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("cell", list(CELLS))
def test_steps_are_those_of_the_sequence(cell: str, batch_first: bool) -> None:
    layer = make_layer(cell, I, H, 2, batch_first=batch_first, dropout=0.5)
    y, last = layer(X.swapaxes(0, 1) if batch_first else X)
    y = y.swapaxes(0, 1) if batch_first else y
    stream = layer.stream(batch_size=N)
    for t in range(T):
        close(stream.step(X[t]), y[t])
    for got, want in zip(parts(stream.state), parts(last), strict=True):
        close(got, want)


def test_one_row_without_batch_axis() -> None:
    layer = make_layer("lstm", I, H)
    y, _ = layer(X[:, 0])
    flat, batched = layer.stream(), layer.stream()
    out, wide = np.empty(H, np.float32), np.empty((1, H), np.float32)
    for t in range(T):
        x_t = X[t, 0]
        got = flat.step(x_t, out=out) if t % 2 else flat.step(x_t)
        assert got.shape == (H,)
        assert got is out or not t % 2
        close(got, y[t])
        got = batched.step(x_t[None], out=wide) if t % 2 else batched.step(x_t[None])
        assert got.shape == (1, H)
        close(got[0], y[t])
    with pytest.raises(ValueError, match=r"out has shape \(1, 6\); it must be \(6,\)"):
        flat.step(X[0, 0], out=wide)


def test_unusual_arrays() -> None:
    layer = make_layer("gru_after", I, H)
    want = layer(X[:1])[0][0]
    wide = np.zeros((N, 2 * H), np.float32)
    for x_t in (X[0].tolist(), X[0].astype(np.float64), np.asfortranarray(X[0]), X[0][:, ::-1].copy()[:, ::-1]):
        for out in (
            None,
            np.empty((N, H), np.float32),
            np.empty((N, H), np.float32, order="F"),
            wide[:, ::2],
            wide[::-1, :H],
        ):
            close(layer.stream(N).step(x_t, out=out), want)
            if out is not None:
                close(out, want)


def test_out_that_overlaps_x() -> None:
    layer = make_layer("rnn_tanh", H, H)
    stream = layer.stream(N)
    x_t = np.ones((N, H), np.float32)
    with pytest.raises(ValueError, match="out shares memory with x_t"):
        stream.step(x_t, out=x_t)
    assert (x_t == 1).all()
    assert not stream.state.any()
    both = np.ones((N, 2 * H), np.float32)  # side by side, not overlapping
    stream.step(both[:, :H], out=both[:, H:])
    close(both[:, H:], layer(x_t[None])[0][0])


def test_returned_outputs_are_the_callers() -> None:
    stream = make_layer("lstm", I, H).stream(N)
    first = stream.step(X[0])
    kept = first.copy()
    stream.step(X[1])
    assert np.array_equal(first, kept)
    first[...] = 9
    h, c = stream.state
    h[...] = c[...] = 9
    assert not (stream.state[0] == 9).any()


@pytest.mark.parametrize("cell", list(CELLS))
def test_setting_the_state(cell: str) -> None:
    layer = make_layer(cell, I, H, 2)
    _, middle = layer(X[:3])
    stream = layer.stream(N)
    stream.state = middle
    close(stream.step(X[3]), layer(X[3:4], middle)[0][0])
    stream.state = None
    close(stream.step(X[0]), layer(X[:1])[0][0])
    before = [part.copy() for part in parts(stream.state)]
    for wrong in (parts(middle)[0][0], "zero", (middle, middle, middle)):
        with pytest.raises((TypeError, ValueError), match="state"):
            stream.state = wrong
    for got, want in zip(parts(stream.state), before, strict=True):
        assert np.array_equal(got, want)


@pytest.mark.parametrize(
    ("rows", "reset"),
    [(None, [0, 1, 2]), (1, [1]), ([0, 2], [0, 2]), ([True, False, True], [0, 2]), ([], []), (np.uint8(2), [2])],
)
def test_reset(rows: Any, reset: list[int]) -> None:
    stream = make_layer("lstm", I, H, 2).stream(N)
    stream.step(X[0])
    stream.reset(rows)
    for part in parts(stream.state):
        for row in range(N):
            assert part[:, row].any() == (row not in reset)


@pytest.mark.parametrize("rows", [3, -1, [0, 5], [[0]], 0.5, [True, False], "all"])
def test_reset_of_rows_that_are_not(rows: Any) -> None:
    stream = make_layer("gru_after", I, H).stream(N)
    stream.step(X[0])
    before = stream.state
    with pytest.raises((TypeError, ValueError), match="rows"):
        stream.reset(rows)
    assert np.array_equal(stream.state, before)


def test_changes_are_taken_up_at_the_next_step() -> None:
    layer = make_layer("gru_after", I, H)
    stream = layer.stream(N)
    stream.step(X[0])
    h = stream.state
    with layer.edit() as weights:
        weights["weight_hh_l0"] *= -1
    close(stream.step(X[1]), layer(X[1:2], h)[0][0])
    for name in (name for name in backends.available() if name != "numba"):  # which may compile for a minute
        h = stream.state
        with fastrnn.backend(name):
            close(stream.step(X[2]), layer(X[2:3], h)[0][0])


def test_refusals() -> None:
    with pytest.raises(ValueError, match="bidirectional"):
        make_layer("lstm", I, H, bidirectional=True).stream()
    layer = make_layer("lstm", I, H)
    for size, error in ((0, ValueError), (True, TypeError), (2.0, TypeError)):
        with pytest.raises(error, match="batch_size"):
            layer.stream(size)
    with pytest.raises(ValueError, match=r"x_t has shape \(4,\); it must be \(3, 4\)"):
        layer.stream(N).step(X[0, 0])
    with pytest.raises(ValueError, match=r"x_t has shape \(3,\); it must be \(1, 4\) or \(4,\)"):
        layer.stream().step(X[0, 0, 1:])
    assert repr(layer.stream(2)) == "<Stream of LSTM(4, 6), batch_size=2>"
