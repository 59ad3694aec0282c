"""fastrnn.numba: the kernels inside Numba's functions give the layer's bits, also from a cache in another process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn import sequences

numba = pytest.importorskip("numba")
pytest.importorskip("fastrnn.backends._core")

import fastrnn.numba as frn  # noqa: E402


def layers(dtype: Any) -> list[Any]:
    return [
        fastrnn.LSTM(3, 16, 2, dtype=dtype, rng=0),
        fastrnn.GRU(3, 5, dtype=dtype, rng=0),
        fastrnn.RNN(3, 7, bidirectional=True, dtype=dtype, rng=0),
    ]


@numba.njit(nogil=True)
def walk(bound, x):  # type: ignore[no-untyped-def]
    state, work = frn.new_state(bound), frn.new_workspace(bound, 1)
    y = np.empty((len(x), bound.batch_size, bound.output_size), x.dtype)
    for t in range(len(x)):
        frn.step(bound, x[t], state, y[t], work)
    return y, state


@numba.njit(nogil=True, parallel=True)
def many(bound, x):  # type: ignore[no-untyped-def]
    """x (paths, T, 1, I), each path on its own."""
    out = np.empty((len(x), bound.output_size), x.dtype)
    for i in numba.prange(len(x)):
        y, _ = walk(bound, x[i])
        out[i] = y[-1, 0]
    return out


@numba.njit(nogil=True)
def train(bound, x, dy):  # type: ignore[no-untyped-def]
    T = len(x)
    state, last = frn.new_state(bound), frn.new_state(bound)
    work, tape = frn.new_workspace(bound, T), frn.new_tape(bound, T)
    y, dx, dweights = np.empty_like(dy), np.empty_like(x), np.zeros(bound.weights, x.dtype)
    frn.forward(bound, x, state, y, work, tape, last)
    frn.backward(bound, x, state, y, dy, tape, work, dx, dweights)
    return y, last, dx, dweights


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_steps_and_sequences_are_the_layers_own(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((9, 2, 3)).astype(dtype)
    for layer in layers(dtype):
        bound = frn.bind(layer, batch_size=2)
        if not isinstance(layer, fastrnn.RNN):
            y, state = walk(bound, x)
            whole, last = layer(x)
            np.testing.assert_array_equal(y, whole)
            np.testing.assert_array_equal(state, np.stack(last if isinstance(last, tuple) else [last]))
        whole, last, tape = layer.forward(x)
        dy = rng.standard_normal(whole.shape).astype(dtype)
        grads = layer.backward(tape, dy=dy)
        y, hn, dx, dweights = train(bound, x, dy)
        np.testing.assert_array_equal(y, whole)
        np.testing.assert_array_equal(hn, np.stack(last if isinstance(last, tuple) else [last]))
        np.testing.assert_array_equal(dx, grads.x)
        flat = np.concatenate([grads.weights[name].ravel() for name in layer.state_dict()])
        np.testing.assert_array_equal(dweights, flat)


def test_paths_in_parallel() -> None:
    layer = fastrnn.LSTM(3, 16, rng=0)
    x = np.random.default_rng(1).standard_normal((50, 6, 1, 3)).astype(np.float32)
    found = many(frn.bind(layer), x)
    for path, y in zip(x, found, strict=True):
        np.testing.assert_array_equal(y, layer(path)[0][-1, 0])


def test_compiled_once_per_dtype() -> None:
    for layer in (fastrnn.LSTM(3, 16, rng=0), fastrnn.GRU(5, 9, 2, rng=0)):
        walk(frn.bind(layer), np.zeros((1, 1, layer.input_size), np.float32))
    kinds = [signature for signature in walk.signatures if "float32" in str(signature)]
    assert len({str(signature[0]) for signature in kinds}) == 1


def test_bad_arrays_are_refused() -> None:
    bound = frn.bind(fastrnn.LSTM(3, 16, rng=0))
    state, work = frn.new_state(bound), frn.new_workspace(bound, 1)
    x, y = np.zeros((1, 3), np.float32), np.zeros((1, 16), np.float32)
    frn.step(bound, x, state, y, work)
    for bad in (x[:, :2], np.zeros((2, 3), np.float32), np.zeros((1, 6), np.float32)[:, ::2]):
        with pytest.raises(ValueError, match=r"fastrnn\.numba"):
            frn.step(bound, bad, state, y, work)
    for dtype in (np.int32, np.bool_):
        with pytest.raises(TypeError, match="dtype"):
            frn.step(bound, x.astype(dtype), state, y, work)
    with pytest.raises(TypeError, match="dtype"):
        frn.step(bound, x, state.astype(np.float64), y, work)
    fixed = y.copy()
    fixed.flags.writeable = False
    with pytest.raises(numba.TypingError, match="read-only"):
        frn.step(bound, x, state, fixed, work)
    with pytest.raises(ValueError, match="state"):
        frn.step(bound, x, state[:1], y, work)
    with pytest.raises(ValueError, match="too small"):
        frn.step(bound, x, state, y, work[:64])
    with pytest.raises(ValueError, match="refused"):
        frn.step(bound, x, state, state[0, 0], work)
    with pytest.raises(ValueError, match="batch_size"):
        frn.bind(fastrnn.LSTM(3, 4), batch_size=0)
    with pytest.raises(TypeError, match="layer is a int"):
        frn.bind(3)  # type: ignore[arg-type]
    for options in ({"zoneout": 0.1}, {"clip": 1.0}):
        with pytest.raises(ValueError, match="options that these functions lack"):
            frn.bind(fastrnn.GRU(3, 4, **options))  # type: ignore[arg-type]


CACHED = """
import numpy as np, numba, fastrnn, fastrnn.numba as frn

@numba.njit(nogil=True, cache=True)
def last(bound, x):
    state, work = frn.new_state(bound), frn.new_workspace(bound, 1)
    y = np.empty((1, bound.output_size), x.dtype)
    for t in range(len(x)):
        frn.step(bound, x[t], state, y, work)
    return y

layer = fastrnn.LSTM(3, 16, rng=0)
x = np.ones((5, 1, 3), np.float32)
assert (last(frn.bind(layer), x) == layer(x)[0][-1]).all()
print(sum(last.stats.cache_hits.values()))
"""


def test_a_cached_caller_runs_in_another_process(tmp_path: Path) -> None:
    script = tmp_path / "cached.py"
    script.write_text(CACHED)
    hits = [
        subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout.strip()
        for _ in range(2)
    ]
    assert hits == ["0", "1"]


@numba.njit(nogil=True)
def run(bound, x, y, tape, work):  # type: ignore[no-untyped-def]
    frn.forward(bound, x, frn.new_state(bound), y, work, tape, frn.new_state(bound))


def test_room_for_many_steps_serves_fewer() -> None:
    layer = fastrnn.LSTM(3, 40, rng=0)
    bound = frn.bind(layer)
    tape, work = frn.new_tape(bound, 4), frn.new_workspace(bound, 4)
    for steps in (4, 3, 2, 1):
        x = np.random.default_rng(steps).standard_normal((steps, 1, 3)).astype(np.float32)
        y = np.empty((steps, 1, 40), np.float32)
        run(bound, x, y, tape, work)
        np.testing.assert_array_equal(y, layer.forward(x)[0])


def test_binding_does_not_depend_on_the_last_call() -> None:
    layer = fastrnn.LSTM(3, 4, recurrent_dropout=0.5, rng=0)
    want = frn.bind(layer).problem
    x = np.ones((5, 1, 3), np.float32)
    for call in (
        lambda: layer(sequences.ragged([x[:2, 0], x[:, 0]])), lambda: layer.forward(x), lambda: layer.forward(x[:1]),
    ):  # fmt: skip
        call()
        np.testing.assert_array_equal(frn.bind(layer).problem, want)
