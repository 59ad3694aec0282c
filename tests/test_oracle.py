"""The NumPy backend against finite differences, plain loops and hand-written numbers; the Numba backend against NumPy.

The backend modules are called directly, in float64, on tiny problems. Everything else is tested against NumPy.
"""

from __future__ import annotations

import importlib
import math
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fastrnn._spec import Regularisers, Spec
from fastrnn.backends import _numpy
from oracle import CELLS, OPTIONS, Option, Problem, Result, assert_same, check_gradients, make, run

try:
    from fastrnn.backends import _numba
except ImportError:
    _numba = None

needs_numba = pytest.mark.skipif(_numba is None, reason="numba is not installed")
BACKENDS = [pytest.param(_numpy, id="numpy"), pytest.param(_numba, id="numba", marks=needs_numba)]

# --- forward, against loops over single numbers ---------------------------------------------------------------------


def sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def cell_step(spec: Spec, w: list[np.ndarray], x: np.ndarray, h: np.ndarray, c: np.ndarray) -> tuple[Any, Any]:
    """One step of one row, straight from the definition."""
    squash, act = sigmoid, np.tanh
    if spec.exact:
        squash = act = lambda a: np.clip(a, -1, 1)
    elif spec.nonlinearity == "relu":
        act = lambda a: np.maximum(a, 0)  # noqa: E731
    zeros = [np.zeros(len(w[0]))] * 2
    b, d = w[2:] if spec.bias else zeros
    a, u = w[0] @ x + b, w[1] @ h + d
    if spec.cell == "rnn":
        return act(a + u), c
    if spec.cell == "lstm":
        i, f, g, o = np.split(a + u, 4)
        c = squash(f) * c + squash(i) * act(g)
        return squash(o) * act(c), c
    (a_r, a_z, a_n), (u_r, u_z, u_n) = np.split(a, 3), np.split(u, 3)
    r, z = squash(a_r + u_r), squash(a_z + u_z)
    size = spec.hidden_size
    n = act(a_n + r * u_n) if spec.reset_after else act(a_n + d[2 * size :] + w[1][2 * size :] @ (r * h))
    return (1 - z) * n + z * h, c


def regular_step(
    on: Regularisers, k: int, t: int, n: int, spec: Spec, w: list[np.ndarray], x: np.ndarray, h: np.ndarray,
    c: np.ndarray,
) -> tuple[Any, Any]:  # fmt: skip
    """One step of one row with recurrent dropout and zoneout, from their definitions."""
    # The mask stands before U alone, so masked columns of U do the same, and what passes by U stays as it is.
    masked = w if on.mask is None else [w[0], w[1] * on.mask[k, n], *w[2:]]
    new_h, new_c = cell_step(spec, masked, x, h, c)
    if on.zone_h is not None:
        new_h = on.zone_h[k, t, n] * h + (1 - on.zone_h[k, t, n]) * new_h
    if on.zone_c is not None:
        new_c = on.zone_c[k, t, n] * c + (1 - on.zone_c[k, t, n]) * new_c
    return new_h, new_c


def plain_direction(p: Problem, w: list[np.ndarray], x: np.ndarray, k: int, reverse: bool) -> tuple[Any, Any, Any]:
    """One direction, row by row and step by step, by the words of the user's guide."""
    spec = p.spec
    steps, batch = x.shape[:2]
    y = np.zeros((steps, batch, spec.hidden_size))
    hn, cn = np.zeros((2, batch, spec.hidden_size))
    for n in range(batch):
        length = steps if p.lengths is None else int(p.lengths[n])
        h = np.zeros(spec.hidden_size) if p.h0 is None else p.h0[k, n]
        c = np.zeros(spec.hidden_size) if p.c0 is None else p.c0[k, n]
        for t in reversed(range(length)) if reverse else range(length):
            boundary = t + 1 if reverse else t
            if p.reset is not None and boundary < length and p.reset[boundary, n]:
                h, c = 0 * h, 0 * c
            if p.mask is None or p.mask[t, n]:
                h, c = regular_step(p.regular or Regularisers(), k, t, n, spec, w, x[t, n], h, c)
            y[t, n] = h
        hn[n], cn[n] = h, c
    return y, hn, cn


def plain_forward(p: Problem) -> Result:
    """The whole stack in loops over rows and steps."""
    spec = p.spec
    tensors = list(spec.views(p.weights).values())
    per = 4 if spec.bias else 2
    x, hn, cn = p.x, [], []
    for layer in range(spec.num_layers):
        halves = []
        for direction in range(spec.directions):
            k = layer * spec.directions + direction
            y, h, c = plain_direction(p, tensors[k * per : (k + 1) * per], x, k, direction == 1)
            halves.append(y)
            hn.append(h)
            cn.append(c)
        x = np.concatenate(halves, axis=2)
        if layer < spec.num_layers - 1 and p.dropout is not None:
            x = x * p.dropout[layer]
    return Result(x, np.array(hn), np.array(cn) if spec.cell == "lstm" else None)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_forward_is_the_definition(cell: str, option: str) -> None:
    problem = make(CELLS[cell], OPTIONS[option])
    expected = plain_forward(problem)
    assert_same(run(_numpy, problem, False), expected, rtol=1e-12, atol=1e-14)
    assert_same(run(_numpy, problem, False, tape=False), expected, rtol=1e-12, atol=1e-14)


def one_number(spec: Spec, weights: list[float], x: float, h0: float, c0: float | None = None) -> Result:
    """T = N = I = H = 1."""
    state = np.full((1, 1, 1), h0)
    cell = None if c0 is None else np.full((1, 1, 1), c0)
    return run(
        _numpy,
        Problem(replace(spec, input_size=1, hidden_size=1), np.array(weights), np.full((1, 1, 1), x), state, cell),
        False,
    )


def test_rnn_by_hand() -> None:
    weights = [0.5, -0.25, 0.1, 0.2]  # W, U, b, c
    assert one_number(CELLS["tanh"], weights, 2.0, 0.4).y.item() == pytest.approx(math.tanh(1.0 - 0.1 + 0.3), abs=1e-15)
    assert one_number(CELLS["relu"], weights, 2.0, 0.4).y.item() == pytest.approx(1.2, abs=1e-15)
    assert one_number(CELLS["relu"], weights, -2.0, 0.4).y.item() == 0.0


def test_lstm_by_hand() -> None:
    # gates at ln 3, -ln 3, atanh(1/2), 0: i = 3/4, f = 1/4, g = 1/2, o = 1/2
    weights = [math.log(3), -math.log(3), math.atanh(0.5), 0.0, *[0.0] * 12]
    out = one_number(CELLS["lstm"], weights, 1.0, 0.7, 2.0)
    assert out.cn is not None
    assert out.cn.item() == pytest.approx(0.25 * 2 + 0.75 * 0.5, abs=1e-15)
    assert out.hn.item() == pytest.approx(0.5 * math.tanh(0.875), abs=1e-15)


def test_gru_by_hand() -> None:
    # r = 3/4, z = 1/4; candidate: U_n h + c_n = 0.8 * 0.5 + 0.2 = 0.6
    weights = [math.log(3), -math.log(3), 0.3, 0.0, 0.0, 0.8, 0.0, 0.0, 0.1, 0.0, 0.0, 0.2]
    after, before = math.tanh(0.3 + 0.1 + 0.75 * 0.6), math.tanh(0.3 + 0.1 + 0.2 + 0.8 * 0.75 * 0.5)
    assert one_number(CELLS["gru"], weights, 1.0, 0.5).y.item() == pytest.approx(0.75 * after + 0.125, abs=1e-15)
    assert one_number(CELLS["gru_before"], weights, 1.0, 0.5).y.item() == pytest.approx(
        0.75 * before + 0.125, abs=1e-15
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_huge_inputs_saturate_without_a_warning(backend: Any, cell: str) -> None:
    problem = make(CELLS[cell], Option())
    problem.x *= 1e300
    assert np.isfinite(run(backend, problem, False).y).all() or cell == "relu"


# --- backward, against finite differences ---------------------------------------------------------------------------


@pytest.mark.parametrize("save", ["all", "recompute"])
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_are_finite_differences(cell: str, option: str, save: str) -> None:
    check_gradients(_numpy, make(CELLS[cell], OPTIONS[option]), save == "recompute")


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_accumulate_retain_and_unwanted(backend: Any, cell: str) -> None:
    p = make(CELLS[cell], OPTIONS["bidirectional_everything"])
    whole = run(backend, p)
    packed = backend.pack(p.spec, p.weights)
    tape = backend.make_tape(packed, *p.x.shape[:2])
    rows = (p.lengths, p.reset, p.mask, p.dropout)
    y, hn = np.empty_like(whole.y), np.empty_like(whole.hn)
    cn = None if whole.cn is None else np.empty_like(whole.cn)
    backend.forward(packed, p.x, y, p.h0, p.c0, hn, cn, *rows, tape)
    dweights, dx = np.ones(p.spec.weight_count), np.full_like(p.x, 7)
    flows = (p.dy, p.dhn, p.dcn)
    backend.backward(packed, tape, p.x, y, p.h0, p.c0, *flows, None, None, None, dweights, *rows, True, True)
    backend.backward(packed, tape, p.x, y, p.h0, p.c0, *flows, dx, None, None, None, *rows, True, False)
    np.testing.assert_allclose(dweights, whole.dweights + 1, rtol=1e-12)
    np.testing.assert_array_equal(dx, whole.dx)


@pytest.mark.parametrize(("steps", "batch"), [(3, 2), (5, 5), (7, 6)])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_reused_tape_is_as_good_as_new(backend: Any, cell: str, steps: int, batch: int) -> None:
    p = make(CELLS[cell], OPTIONS["stack"], steps, batch)
    packed = backend.pack(p.spec, p.weights)
    old = backend.make_tape(packed, 5, 5)
    old.memory.fill(np.nan)
    assert_same(run(backend, p, reuse=old), run(backend, p), rtol=0, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_packed_is_a_snapshot(backend: Any) -> None:
    p = make(CELLS["lstm"], Option())
    expected = run(backend, p, False)
    packed = backend.pack(p.spec, p.weights)
    assert packed.spec == p.spec
    assert (packed.backend, packed.isa) == (backend.NAME, "")
    p.weights[...] = 0
    y = np.empty_like(expected.y)
    backend.forward(packed, p.x, y, p.h0, p.c0, p.h0, p.c0, None, None, None, None, None)  # states in place
    np.testing.assert_array_equal(y, expected.y)
    np.testing.assert_array_equal(p.h0, expected.hn)
    np.testing.assert_array_equal(p.c0, expected.cn)


# --- lengths, resets, masks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_ragged_is_row_by_row(backend: Any, cell: str) -> None:
    option = Option({"num_layers": 2, "bidirectional": True}, frozenset({"lengths"}))
    p = make(CELLS[cell], option)
    whole = run(backend, p)
    total = np.zeros(p.spec.weight_count)
    assert p.lengths is not None
    for n, length in enumerate(p.lengths):
        keep = slice(n, n + 1)
        states = {name: _pick(getattr(p, name), keep) for name in ("h0", "c0", "dhn", "dcn")}
        row = run(backend, Problem(p.spec, p.weights, p.x[:length, keep], dy=p.dy[:length, keep], **states))
        np.testing.assert_allclose(whole.y[:length, keep], row.y, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(whole.dx[:length, keep], row.dx, rtol=1e-12, atol=1e-13)
        assert not whole.y[length:, n].any()
        assert not whole.dx[length:, n].any()
        for name in ("hn", "cn", "dh0", "dc0"):
            if getattr(row, name) is not None:
                np.testing.assert_allclose(getattr(whole, name)[:, keep], getattr(row, name), rtol=1e-12, atol=1e-13)
        total += row.dweights
    np.testing.assert_allclose(whole.dweights, total, rtol=1e-10, atol=1e-12)


def _pick(states: np.ndarray | None, rows: slice) -> np.ndarray | None:
    return None if states is None else np.ascontiguousarray(states[:, rows])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_reset_is_cutting(backend: Any, cell: str) -> None:
    p = make(CELLS[cell], Option({"bidirectional": True}))
    p.reset = np.zeros((5, 5), bool)
    p.reset[3] = True
    whole = run(backend, p)
    spec = p.spec
    # the forward direction carries its initial state into the first piece only, the reverse one into the second
    first, second = Problem(spec, p.weights, p.x[:3], dy=p.dy[:3]), Problem(spec, p.weights, p.x[3:], dy=p.dy[3:])
    for name in ("h0", "c0"):
        if getattr(p, name) is not None:
            _give(first, second, name, getattr(p, name))
    for name in ("dhn", "dcn"):
        if getattr(p, name) is not None:
            _give(second, first, name, getattr(p, name))
    a, b = run(backend, first), run(backend, second)
    np.testing.assert_allclose(whole.y, np.concatenate([a.y, b.y]), rtol=1e-13)
    np.testing.assert_allclose(whole.dx, np.concatenate([a.dx, b.dx]), rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(whole.dweights, a.dweights + b.dweights, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(whole.hn, np.stack([b.hn[0], a.hn[1]]), rtol=1e-13)
    np.testing.assert_allclose(whole.dh0, np.stack([a.dh0[0], b.dh0[1]]), rtol=1e-11, atol=1e-14)


def _give(forward: Problem, reverse: Problem, name: str, states: np.ndarray) -> None:
    """The forward direction's state to one problem, the reverse direction's to the other."""
    for problem, k in ((forward, 0), (reverse, 1)):
        part = np.zeros_like(states)
        part[k] = states[k]
        setattr(problem, name, part)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_reset_at_zero_drops_the_initial_state(backend: Any, cell: str) -> None:
    p = make(CELLS[cell], Option({"bidirectional": True}))
    p.reset = np.zeros((5, 5), bool)
    p.reset[0] = True
    out = run(backend, p)
    assert not out.dh0[0].any()
    assert out.dh0[1].all() or cell == "relu"
    p.h0[0] = 0
    if p.c0 is not None:
        p.c0[0] = 0
    p.reset = None
    plain = run(backend, p)
    np.testing.assert_allclose(out.y, plain.y, rtol=1e-13)
    np.testing.assert_allclose(out.hn, plain.hn, rtol=1e-13)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_all_held_and_all_empty_rows(backend: Any, cell: str) -> None:
    p = make(CELLS[cell], Option({"bidirectional": True}))
    p.mask = np.zeros((5, 5), bool)
    held = run(backend, p)
    np.testing.assert_array_equal(held.hn, p.h0)
    np.testing.assert_array_equal(held.y, np.broadcast_to(np.concatenate([*p.h0], axis=1), held.y.shape))
    assert not held.dx.any()
    assert not held.dweights.any()
    np.testing.assert_allclose(held.dh0[0], p.dhn[0] + p.dy[:, :, :4].sum(axis=0), rtol=1e-13)
    p.mask, p.lengths = None, np.zeros(5, np.int64)
    empty = run(backend, p)
    for got, expected in ((empty.hn, p.h0), (empty.cn, p.c0), (empty.dh0, p.dhn), (empty.dc0, p.dcn)):
        if got is not None:
            np.testing.assert_array_equal(got, expected)
    assert not empty.y.any()
    assert not empty.dx.any()
    assert not empty.dweights.any()


@pytest.mark.parametrize(("steps", "batch"), [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize("option", ["plain", "no_state", "everything", "stack"])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_to_do(backend: Any, cell: str, option: str, steps: int, batch: int) -> None:
    p = make(CELLS[cell], replace(OPTIONS[option], rows=frozenset()), steps, batch)
    if "lengths" in OPTIONS[option].rows:
        p.lengths = np.zeros(batch, np.int64)
        p.reset = p.mask = np.ones((steps, batch), bool)
    out = run(backend, p)
    zeros = np.zeros_like(out.hn)
    np.testing.assert_array_equal(out.hn, zeros if p.h0 is None else p.h0)
    np.testing.assert_array_equal(out.dh0, p.dhn)
    if out.cn is not None:
        np.testing.assert_array_equal(out.cn, zeros if p.c0 is None else p.c0)
        np.testing.assert_array_equal(out.dc0, p.dcn)
    assert not out.dweights.any()


# --- NaN and Inf ----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_not_read_cannot_hurt(backend: Any, cell: str, bad: float) -> None:
    """NaN and Inf in padding, in held steps and in gradients of padding change nothing."""
    p = make(CELLS[cell], OPTIONS["stack"])
    expected = run(backend, p)
    live = np.arange(5)[:, None] < p.lengths
    p.x[~(live & p.mask)] = bad
    p.dy[~live] = bad
    assert_same(run(backend, p), expected, rtol=0, atol=0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_spreads_in_its_row_until_a_reset(backend: Any, cell: str) -> None:
    p = make(CELLS[cell], Option())
    p.reset = np.zeros((5, 5), bool)
    p.reset[3, 1] = True
    clean = run(backend, p)
    p.x[1, 1] = np.nan
    out = run(backend, p)
    assert np.isnan(out.y[1:3, 1]).all()
    assert np.isfinite(out.y[3:, 1]).all()
    others = [0, 2, 3, 4]
    np.testing.assert_array_equal(out.y[:, others], clean.y[:, others])
    np.testing.assert_array_equal(out.dx[:, others], clean.dx[:, others])
    assert np.isnan(out.dweights).any()
    p.x[1, 1] = 0
    p.dy[4, 1] = np.nan
    out = run(backend, p)
    assert np.isnan(out.dx[3, 1]).all() or cell == "relu"
    assert np.isfinite(out.dx[:3, 1]).all()
    assert np.isfinite(out.dh0).all()


# --- arrays of other layouts, and the Numba twin ----------------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_and_read_only_arrays(backend: Any, cell: str) -> None:
    p = make(CELLS[cell], OPTIONS["bidirectional_everything"])
    expected = run(backend, p)
    swapped = replace(
        p, x=np.ascontiguousarray(p.x.swapaxes(0, 1)).swapaxes(0, 1), dy=np.repeat(p.dy, 2, axis=1)[:, ::2]
    )
    for array in (swapped.x, swapped.weights):
        array.flags.writeable = False
    assert_same(run(backend, swapped), expected, rtol=0, atol=0)
    packed = backend.pack(p.spec, p.weights)
    y, dx = np.empty((5, 5, 10)), np.empty((5, 5, 9))
    tape = backend.make_tape(packed, 5, 5)
    hn, cn = np.empty_like(expected.hn), None if expected.cn is None else np.empty_like(expected.cn)
    rows = (p.lengths, p.reset, p.mask, p.dropout)
    out, dout = y.swapaxes(0, 1)[:, :, 1:9], dx.swapaxes(0, 1)[:, :, 3:6]
    backend.forward(packed, p.x, out, p.h0, p.c0, hn, cn, *rows, tape)
    out.flags.writeable = False
    flows = (p.dy, p.dhn, p.dcn, dout, None, None, None)
    backend.backward(packed, tape, p.x, out, p.h0, p.c0, *flows, *rows, False, False)
    np.testing.assert_array_equal(out, expected.y)
    np.testing.assert_array_equal(dout, expected.dx)


@needs_numba
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_numba_is_numpy(cell: str, option: str, dtype: str) -> None:
    p = make(replace(CELLS[cell], dtype_name=dtype, hidden_size=19), OPTIONS[option], batch=7)
    p.weights *= p.spec.dtype.type(0.5)
    tolerance = 1e-12 if dtype == "float64" else 2e-5
    assert_same(run(_numba, p), run(_numpy, p), rtol=tolerance, atol=10 * tolerance)
    assert_same(run(_numba, p, False, tape=False), run(_numpy, p, False), rtol=tolerance, atol=tolerance)


@needs_numba
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_exact_mode_is_exact(cell: str, steps: int, dtype: str) -> None:
    """Clamped gates and small integers: nothing rounds, so both twins agree bit for bit."""
    p = make(replace(CELLS[cell], dtype_name=dtype, hidden_size=37), OPTIONS["exact_stack"], steps=steps)
    for array in (p.weights, p.x, p.h0, p.c0, p.dy, p.dhn, p.dcn):
        if array is not None:
            np.rint(array, out=array)
    assert_same(run(_numba, p), run(_numpy, p), rtol=0, atol=0)


@needs_numba
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("cell", CELLS)
def test_numba_rows_are_independent_bit_for_bit(cell: str, dtype: str) -> None:
    p = make(replace(CELLS[cell], dtype_name=dtype, hidden_size=37), Option(), batch=7)
    whole = run(_numba, p)
    for n in range(7):
        keep = slice(n, n + 1)
        states = {name: _pick(getattr(p, name), keep) for name in ("h0", "c0", "dhn", "dcn")}
        row = run(_numba, Problem(p.spec, p.weights, p.x[:, keep], dy=p.dy[:, keep], **states))
        np.testing.assert_array_equal(row.y, whole.y[:, keep])
        np.testing.assert_array_equal(row.dx, whole.dx[:, keep])


@needs_numba
@pytest.mark.parametrize(("dtype", "smallest"), [(np.float32, 1e-30), (np.float64, 1e-300)])
def test_numba_tanh(dtype: Any, smallest: float) -> None:
    from fastrnn.backends import _numba_kernels

    magnitudes = np.concatenate([np.linspace(0, 30, 20001), np.geomspace(smallest, 1, 5001)])
    x = np.concatenate([magnitudes, -magnitudes]).astype(dtype)
    expected = np.tanh(x.astype(np.longdouble))
    got = x.copy()
    _numba_kernels.activate(got, _numba_kernels.TANH)
    assert (np.abs(got - expected) <= 3 * np.spacing(np.abs(expected).astype(dtype))).all()
    special = np.array([np.nan, np.inf, -np.inf, 0], dtype)
    _numba_kernels.activate(special, _numba_kernels.TANH)
    np.testing.assert_array_equal(special, np.array([np.nan, 1, -1, 0], dtype))


@needs_numba
def test_numba_without_a_place_for_its_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    import numba

    from fastrnn.backends import _numba_kernels

    original = numba.njit

    def no_locator(*args: Any, cache: bool = False, **options: Any) -> Any:
        if cache:
            message = "cannot cache function: no locator available"
            raise RuntimeError(message)
        return original(*args, **options)

    monkeypatch.setattr(numba, "njit", no_locator)
    assert _numba_kernels.jit(_add_one)(1) == 2


def _add_one(value: int) -> int:
    return value + 1


def test_without_numba_the_twin_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_numba", "_numba_kernels"):
        monkeypatch.delitem(sys.modules, f"fastrnn.backends.{name}", raising=False)
        monkeypatch.delattr(f"fastrnn.backends.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(ImportError):
        importlib.import_module("fastrnn.backends._numba")
