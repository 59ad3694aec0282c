"""Streams: one step per call, the state in between, changes of weights, backend and state."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn
from conftest import System, make_layer, parts
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


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("batch", [1, N])
@pytest.mark.parametrize("cell", list(CELLS))
def test_any_mix_of_steps_and_chunks_is_the_whole(system: System, cell: str, batch: int, batch_first: bool) -> None:
    layer = make_layer(cell, I, H, 2, batch_first=batch_first)
    rng = np.random.default_rng(5)
    x = rng.standard_normal((24, batch, I)).astype(np.float32)
    reset = rng.random((24, batch)) < 0.2

    def given(array: Any) -> Any:
        return array.swapaxes(0, 1) if batch_first else array

    y, last = layer(given(x), reset=given(reset))
    y = given(y)
    stream = layer.stream(batch)
    t = 0
    for length in (3, None, 0, 8, None, None, 1, 9):
        if length is None:
            stream.reset(reset[t])
            system.same(stream.step(x[t]), y[t])
            t += 1
            continue
        chunk = slice(t, t + length)
        out = np.empty_like(given(y[chunk])) if length % 2 else None
        got = stream.steps(given(x[chunk]), out, reset=given(reset[chunk]))
        assert out is None or got is out
        system.same(given(got), y[chunk])
        t += length
    assert t == len(x)
    for got, want in zip(parts(stream.state), parts(last), strict=True):
        system.same(got, want)


def test_chunks_of_one_row_without_batch_axis() -> None:
    layer = make_layer("lstm", I, H)
    x = X[:, 0]
    want = layer(x)[0]
    stream = layer.stream()
    out = np.empty((2, H), np.float32)
    assert stream.steps(x[:2], out=out) is out
    close(out, want[:2])
    close(stream.steps(x[2:].tolist(), reset=[False] * 3), want[2:])
    wide = np.zeros((2, 2 * H), np.float32)[:, ::2]
    stream.reset()
    assert stream.steps(np.asfortranarray(x[:2]), out=wide) is wide
    close(wide, want[:2])


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((X[:, :2],), {}, r"x has 2 rows; it must have batch_size = 3"),
        ((X[:, 0],), {}, r"x has 1 rows \(no batch axis\); it must have batch_size = 3"),
        ((X[..., :2],), {}, r"x has shape \(5, 3, 2\)"),
        ((X[0, 0],), {}, r"x has shape \(4,\)"),
        ((X + 1j,), {}, "x has dtype complex"),
        ((fastrnn.sequences.pack([X[:, 0]]),), {}, "x is a PackedSequence"),
        ((fastrnn.sequences.ragged([X[:, 0]]),), {}, "x is a Ragged"),
        ((X, np.empty((4, N, H), np.float32)), {}, r"out has shape \(4, 3, 6\); it must be \(5, 3, 6\)"),
        ((X, np.empty((T, N, H))), {}, "out has dtype float64"),
        ((X, [0]), {}, "out is a list"),
        ((X,), {"reset": np.zeros((T, 2), bool)}, r"reset has shape \(5, 2\)"),
        ((X,), {"reset": np.zeros((T, N))}, "reset has dtype float64"),
    ],
)
def test_bad_chunks_change_nothing(arguments: tuple[Any, ...], options: dict[str, Any], message: str) -> None:
    stream = make_layer("lstm", I, H).stream(N)
    stream.steps(X)
    before = stream.save()
    with pytest.raises((TypeError, ValueError), match=message):
        stream.steps(*arguments, **options)
    for got, want in zip(stream.state, before, strict=True):
        assert np.array_equal(got, want)


def test_out_of_a_chunk_that_overlaps_x() -> None:
    stream = make_layer("gru_after", H, H).stream(N)
    x = np.ones((T, N, H), np.float32)
    with pytest.raises(ValueError, match="out shares memory with x"):
        stream.steps(x, out=x)
    assert (x == 1).all()
    assert not stream.state.any()


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("cell", list(CELLS))
def test_saved_and_restored(cell: str, suffix: str, tmp_path: Path) -> None:
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    layer = make_layer(cell, I, H, 2)
    stream = layer.stream(N)
    stream.steps(X[:3])
    kept = stream.save()
    assert stream.save(tmp_path / f"state{suffix}") is None
    want = stream.steps(X[3:])
    other = layer.stream(N)
    for saved in (kept, tmp_path / f"state{suffix}", str(tmp_path / f"state{suffix}")):
        other.restore(saved)
        assert np.array_equal(other.steps(X[3:]), want)
    stream.restore(kept)
    assert np.array_equal(stream.steps(X[3:]), want)


def test_what_cannot_be_restored_changes_nothing(tmp_path: Path) -> None:
    stream = make_layer("lstm", I, H).stream(N)
    stream.steps(X)
    before = stream.save()
    path = tmp_path / "state.npz"
    make_layer("gru_after", I, H).stream(N).save(path)
    layer = tmp_path / "layer.npz"
    make_layer("lstm", I, H).save(layer)
    wide = tmp_path / "wide.npz"
    make_layer("lstm", I, H).stream(N + 1).save(wide)
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(path.read_bytes()[:100])
    for saved, message in (
        (path, "is not the saved state of a stream of an LSTM"),
        (layer, "is not the saved state"),
        (wide, r"saved\[0\] \(h\) has shape \(1, 4, 6\); it must be \(1, 3, 6\)"),
        (damaged, "is damaged"),
        (tmp_path / "state.txt", "must end in .npz or .safetensors"),
        (before[0], "saved is a ndarray"),
        ((before[0], before[1][:, :2]), r"saved\[1\] \(c\) has shape"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            stream.restore(saved)
        for got, want in zip(stream.state, before, strict=True):
            assert np.array_equal(got, want)
    with pytest.raises(FileNotFoundError):
        stream.restore(tmp_path / "none.npz")


def test_a_copy_has_a_state_of_its_own() -> None:
    layer = make_layer("lstm", I, H)
    stream = layer.stream(N)
    assert stream.batch_size == N
    stream.steps(X[:2])
    twins = [copy.copy(stream), copy.deepcopy(stream), pickle.loads(pickle.dumps(stream))]
    want = stream.steps(X[2:])
    for twin in twins:
        assert np.array_equal(twin.steps(X[2:]), want)
    stream.reset()
    assert twins[0].state[0].any()
    with layer.edit() as weights:
        weights.flat *= 2
    assert not np.array_equal(twins[0].step(X[0]), twins[1].step(X[0]))  # a shallow one shares the layer


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
