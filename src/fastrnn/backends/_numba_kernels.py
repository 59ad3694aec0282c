"""Compiled loops of the Numba backend: activations, one matrix product, the cells, the time loops.

They stand in one file because Numba's cache asks only whether the file of the called function has changed, not those
of the functions that it calls. All arrays are C-contiguous and writeable, so that each function is compiled once per
dtype; an array that is not there has length 0. One function serves all cells: the bookkeeping is written once.

An inner loop stores to one array only: with more, LLVM gives up on proving that they do not overlap and does not
vectorise. Sums may become fused multiply-adds but are not reordered: a row's result does not depend on its batch mates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
from numba.core import types
from numba.extending import intrinsic, overload

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Array = npt.NDArray[Any]
_Flags = npt.NDArray[np.bool_]

# fastmath only as far as it leaves NaN and Inf alone; without error_model every division tests for zero and raises
_OPTIONS: Any = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}

RNN, LSTM, GRU, GRU_BEFORE = range(4)
TANH, SIGMOID, RELU, CLAMP = range(4)

# Columns of a panel of the right-hand matrix; a constant, so that the distance between panel rows is one. On a Zen 4
# 256 columns gave 90 GFLOP/s at M = 32, K = 256, J = 1024 in float32, 128 columns 73; in float64 45 and 51.
TILE = 256
# Rows that a weight gradient sums at a time: 128 rows of 1024 gates are transposed within the L2 cache.
DEPTH = 128


def jit(function: _Function) -> _Function:
    """Compile at the first call and cache on disk; where no cache directory can be written, only compile."""
    compiled: Any
    try:
        compiled = numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:
        compiled = numba.njit(**_OPTIONS)(function)
    return cast(_Function, compiled)


def _build_power_of_two(typing: Any, shifted: Any) -> Any:
    """2^n from n + 1.5 * 2^m, m the length of the mantissa: the lowest bits of that sum are n, the exponent wanted."""
    bits, mantissa, bias = (32, 23, 127) if shifted == types.float32 else (64, 52, 1023)

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integer = context.get_value_type(types.int32 if bits == 32 else types.int64)
        value = builder.bitcast(arguments[0], integer)
        value = builder.add(builder.shl(value, integer(mantissa)), integer(bias << mantissa))
        return builder.bitcast(value, context.get_value_type(shifted))

    return shifted(shifted), build


_power_of_two: Any = intrinsic(_build_power_of_two)


def tanh(x: float) -> float:
    """Hyperbolic tangent; compiled to a form without calls and branches, which vectorises."""
    return math.tanh(x)


def _compile_tanh(x: Any) -> Any:
    """tanh |x| = e / (e + 2) with e = exp(2 |x|) - 1 = 2^n (exp(r) - 1) + (2^n - 1), where 2 |x| = n ln 2 + r.

    |r| <= ln(2) / 2, so the Taylor series of exp(r) - 1 ends below half an ulp after r^7 (float32) or r^13 (float64).
    Beyond the limit tanh is 1. A NaN passes the comparison with the limit and stays.
    """
    single = x == types.float32
    real = np.float32 if single else np.float64
    degree = 7 if single else 13
    series = tuple(real(1 / math.factorial(k)) for k in range(degree, 0, -1))
    limit, two, zero = real(10 if single else 20), real(2), real(0)
    inverse, shift = real(1 / math.log(2)), real(1.5 * 2 ** (23 if single else 52))
    # the high part of ln 2 has so few bits that n times it is exact
    step = 2.0 ** (10 if single else 32)
    high = real(math.floor(math.log(2) * step) / step)
    low = real(math.log(2) - float(high))
    one = real(1)

    def compiled(x: Any) -> Any:
        size = abs(x)
        size = limit if size > limit else size
        doubled = size + size
        shifted = doubled * inverse + shift
        n = shifted - shift
        r = doubled - n * high - n * low
        p = series[0]
        for k in range(1, degree):
            p = p * r + series[k]
        scale = _power_of_two(shifted)
        e = scale * (p * r) + (scale - one)
        value = e / (e + two)
        return -value if x < zero else value

    return compiled


overload(tanh, jit_options=_OPTIONS)(_compile_tanh)


@jit
def activate(a: _Array, kind: int) -> None:
    """a (K,) = act(a) in place; the logistic function as (1 + tanh(a / 2)) / 2."""
    zero, half, one = a.dtype.type(0), a.dtype.type(0.5), a.dtype.type(1)
    if kind == TANH:
        for j in range(len(a)):
            a[j] = tanh(a[j])
    elif kind == SIGMOID:
        for j in range(len(a)):
            a[j] = half * tanh(half * a[j]) + half
    elif kind == RELU:
        for j in range(len(a)):
            a[j] = zero if a[j] < zero else a[j]
    else:
        for j in range(len(a)):
            a[j] = -one if a[j] < -one else one if a[j] > one else a[j]


@jit
def times_slope(out: _Array, a: _Array, kind: int) -> None:
    """out (K,) *= derivative of the activation, from its value a."""
    zero, one = a.dtype.type(0), a.dtype.type(1)
    if kind == TANH:
        for j in range(len(a)):
            out[j] *= one - a[j] * a[j]
    elif kind == SIGMOID:
        for j in range(len(a)):
            out[j] *= a[j] * (one - a[j])
    elif kind == RELU:
        for j in range(len(a)):
            out[j] *= one if a[j] > zero else zero
    else:
        for j in range(len(a)):
            out[j] *= one if abs(a[j]) < one else zero


@jit
def pack(b: _Array) -> _Array:
    """b (K, J) as panels (ceil(J / TILE), K, TILE); what is beyond J is never read."""
    depth, width = b.shape
    panels = np.empty(((width + TILE - 1) // TILE, depth, TILE), b.dtype)
    for q in range(len(panels)):
        used = min(TILE, width - q * TILE)
        for k in range(depth):
            panels[q, k, :used] = b[k, q * TILE : q * TILE + used]
    return panels


@jit
def multiply_add(a: _Array, panels: _Array, out: _Array, tile: _Array) -> None:
    """out (M, J) += a (M, K) b, for the panels of b (K, J), summed in the order of k. tile (4, TILE): scratch."""
    rows, width = out.shape
    for q in range(len(panels)):
        used = min(TILE, width - q * TILE)
        m = 0
        while m < rows:
            count = 4 if m + 4 <= rows else 1
            for r in range(count):
                for j in range(used):
                    tile[r, j] = out[m + r, q * TILE + j]
            if count == 4:
                _four_rows(a[m : m + 4], panels[q], tile, used)
            else:
                _one_row(a[m], panels[q], tile, used)
            for r in range(count):
                for j in range(used):
                    out[m + r, q * TILE + j] = tile[r, j]
            m += count


@jit
def _four_rows(a: _Array, b: _Array, tile: _Array, used: int) -> None:
    """tile (4, TILE) += a (4, K) b (K, TILE): 16 products for each 4 numbers of b loaded and 4 of tile stored."""
    depth = a.shape[1]
    for k in range(0, depth - 3, 4):
        a00, a01, a02, a03 = a[0, k], a[0, k + 1], a[0, k + 2], a[0, k + 3]
        a10, a11, a12, a13 = a[1, k], a[1, k + 1], a[1, k + 2], a[1, k + 3]
        a20, a21, a22, a23 = a[2, k], a[2, k + 1], a[2, k + 2], a[2, k + 3]
        a30, a31, a32, a33 = a[3, k], a[3, k + 1], a[3, k + 2], a[3, k + 3]
        for j in range(used):
            b0, b1, b2, b3 = b[k, j], b[k + 1, j], b[k + 2, j], b[k + 3, j]
            tile[0, j] = tile[0, j] + a00 * b0 + a01 * b1 + a02 * b2 + a03 * b3
            tile[1, j] = tile[1, j] + a10 * b0 + a11 * b1 + a12 * b2 + a13 * b3
            tile[2, j] = tile[2, j] + a20 * b0 + a21 * b1 + a22 * b2 + a23 * b3
            tile[3, j] = tile[3, j] + a30 * b0 + a31 * b1 + a32 * b2 + a33 * b3
    for k in range(depth - depth % 4, depth):
        for r in range(4):
            a0 = a[r, k]
            for j in range(used):
                tile[r, j] += a0 * b[k, j]


@jit
def _one_row(a: _Array, b: _Array, tile: _Array, used: int) -> None:
    """tile (1, TILE) += a (K,) b (K, TILE), rounded like `_four_rows`."""
    depth = len(a)
    for k in range(0, depth - 3, 4):
        a0, a1, a2, a3 = a[k], a[k + 1], a[k + 2], a[k + 3]
        for j in range(used):
            tile[0, j] = tile[0, j] + a0 * b[k, j] + a1 * b[k + 1, j] + a2 * b[k + 2, j] + a3 * b[k + 3, j]
    for k in range(depth - depth % 4, depth):
        a0 = a[k]
        for j in range(used):
            tile[0, j] += a0 * b[k, j]


@jit
def project(x: _Array, panels: _Array, bias: _Array, out: _Array) -> None:
    """out (M, J) = x (M, K) b + bias (J,)."""
    for m in range(len(out)):
        out[m] = bias
    multiply_add(x, panels, out, np.empty((4, TILE), x.dtype))


@jit
def add_product(out: _Array, left: _Array, right: _Array) -> None:
    """out (J, K) += left (M, J)' right (M, K), DEPTH rows at a time, transposed for `multiply_add`."""
    tile = np.empty((4, TILE), out.dtype)
    for start in range(0, len(left), DEPTH):
        stop = min(start + DEPTH, len(left))
        multiply_add(left[start:stop].T.copy(), pack(right[start:stop]), out, tile)


@jit
def _lstm_row(a: _Array, h: _Array, c: _Array, exact: bool) -> None:
    """Gates a (4H,) from pre-activations to values; h, c (H,) from the state before to the state after."""
    size = len(h)
    i, f, g, o = a[:size], a[size : 2 * size], a[2 * size : 3 * size], a[3 * size :]
    activate(a[: 2 * size], CLAMP if exact else SIGMOID)
    activate(g, CLAMP if exact else TANH)
    activate(o, CLAMP if exact else SIGMOID)
    for j in range(size):
        c[j] = f[j] * c[j] + i[j] * g[j]
    h[:] = c
    activate(h, CLAMP if exact else TANH)
    for j in range(size):
        h[j] *= o[j]


@jit
def _gru_gates(a: _Array, product: _Array, exact: bool) -> None:
    """Reset and update gate: the first 2H of a (3H,) from the input product, given the recurrent one (>= 2H,)."""
    gates = a[: 2 * (len(a) // 3)]
    for j in range(len(gates)):
        gates[j] += product[j]
    activate(gates, CLAMP if exact else SIGMOID)


@jit
def _gru_mix(a: _Array, h: _Array, q: _Array, scale: bool, exact: bool) -> None:
    """Candidate a[2H:] += (r if scale) * q (H,), activated; h (H,) = n + z * (h - n)."""
    size = len(h)
    r, z, n = a[:size], a[size : 2 * size], a[2 * size :]
    if scale:
        for j in range(size):
            n[j] += r[j] * q[j]
    else:
        for j in range(size):
            n[j] += q[j]
    activate(n, CLAMP if exact else TANH)
    for j in range(size):
        h[j] = n[j] + z[j] * (h[j] - n[j])


@jit
def _clear(values: _Array, rows: _Flags) -> None:
    """Zero in the rows of values (N, H) that are set; (0, 0) has none."""
    for n in range(len(values)):
        if rows[n]:
            values[n] = 0


@jit
def _gru_products(
    cell: int, a: _Array, h: _Array, u: _Array, u_n: _Array, bias_n: _Array, recurrent: _Array, q: _Array,
    tile: _Array, exact: bool,
) -> None:  # fmt: skip
    """Reset and update gates in a (N, 3H); q (N, H) = U_n h + c_n, or for GRU_BEFORE U_n (r * h).

    recurrent (N, 3H): scratch.
    """
    batch, size = h.shape
    recurrent[:] = 0
    recurrent[:, 2 * size :] = bias_n
    multiply_add(h, u, recurrent, tile)
    for n in range(batch):
        _gru_gates(a[n], recurrent[n], exact)
    q[:] = recurrent[:, 2 * size :]
    if cell == GRU_BEFORE:
        gated = np.empty_like(h)
        for n in range(batch):
            for j in range(size):
                gated[n, j] = a[n, j] * h[n, j]
        q[:] = 0
        multiply_add(gated, u_n, q, tile)


@jit
def forward_steps(
    cell: int, act: int, exact: bool, gates: _Array, u: _Array, u_n: _Array, bias_n: _Array, y: _Array, h: _Array,
    c: _Array, aux: _Array, reverse: bool, zero: _Flags, run: _Flags, drop: _Array, zone_h: _Array, zone_c: _Array,
) -> None:  # fmt: skip
    """Time loop of one direction: see `_stack.Kernels.forward_steps`.

    u: panels of U' (H, G*H), for GRU_BEFORE of its first 2H columns, the rest in u_n. h, c (N, H): state, in place.
    """
    steps, batch, size = y.shape
    tile = np.empty((4, TILE), y.dtype)
    recurrent = np.empty((batch, 3 * size if cell >= GRU else 0), y.dtype)
    q = np.empty_like(h)
    entering = np.empty_like(h) if len(drop) > 0 else h
    one = h.dtype.type(1)
    for s in range(steps):
        t = steps - 1 - s if reverse else s
        a = gates[t]
        if len(zero) > 0:
            _clear(h, zero[t])
            _clear(c, zero[t])
        if len(drop) > 0:
            entering[:] = h * drop
        if cell >= GRU:
            _gru_products(cell, a, entering, u, u_n, bias_n, recurrent, q, tile, exact)
        else:
            multiply_add(entering, u, a, tile)
        for n in range(batch):
            if len(run) > 0 and not run[t, n]:
                continue
            past_h = zone_h[t, n] * h[n] if len(zone_h) > 0 else h[n]
            past_c = zone_c[t, n] * c[n] if len(zone_c) > 0 else c[n]
            if cell == RNN:
                h[n] = a[n]
                activate(h[n], act)
            elif cell == LSTM:
                _lstm_row(a[n], h[n], c[n], exact)
            else:
                _gru_mix(a[n], h[n], q[n], cell == GRU, exact)
            if len(zone_h) > 0:
                h[n] = past_h + (one - zone_h[t, n]) * h[n]
            if len(zone_c) > 0:
                c[n] = past_c + (one - zone_c[t, n]) * c[n]
        y[t] = h
        if len(aux) > 0:
            aux[t] = c if cell == LSTM else q


@jit
def _lstm_row_back(
    a: _Array, tanh_c: _Array, c_before: _Array, dh: _Array, dc: _Array, grad: _Array, exact: bool
) -> None:
    """grad (4H,) and the gradient dc (H,) of c before the step, from dh (H,) and the dc of c after it.

    tanh_c (H,) comes as c after the step and is overwritten.
    """
    size = len(dh)
    squash, sigmoid = CLAMP if exact else TANH, CLAMP if exact else SIGMOID
    i, f, g, o = a[:size], a[size : 2 * size], a[2 * size : 3 * size], a[3 * size :]
    d_i, d_f, d_g, d_o = grad[:size], grad[size : 2 * size], grad[2 * size : 3 * size], grad[3 * size :]
    activate(tanh_c, squash)
    for j in range(size):
        d_o[j] = dh[j] * tanh_c[j]
    # d_i is borrowed for what flows from h into c
    for j in range(size):
        d_i[j] = dh[j] * o[j]
    times_slope(d_i, tanh_c, squash)
    for j in range(size):
        dc[j] += d_i[j]
    for j in range(size):
        d_i[j] = dc[j] * g[j]
    for j in range(size):
        d_f[j] = dc[j] * c_before[j]
    for j in range(size):
        d_g[j] = dc[j] * i[j]
    times_slope(grad[: 2 * size], a[: 2 * size], sigmoid)
    times_slope(d_g, g, squash)
    times_slope(d_o, o, sigmoid)
    for j in range(size):
        dc[j] *= f[j]


@jit
def _made(share: _Array, before: _Array, state: _Array) -> None:
    """What the cell gave in the place of the state (H,) that zoneout left; where the share is 1 it did not count."""
    past = share * before  # by itself: fused with what follows, a zero of relu would not come out as one
    one = state.dtype.type(1)
    for j in range(len(state)):
        state[j] = state[j] if share[j] == one else (state[j] - past[j]) / (one - share[j])


@jit
def _gru_row_back(a: _Array, h_before: _Array, dh: _Array, grad: _Array, exact: bool) -> None:
    """d_z and d_n of the pre-activations in grad (3H,), from dh (H,), which becomes its direct part dh * z."""
    size = len(dh)
    z, n = a[size : 2 * size], a[2 * size :]
    d_z, d_n = grad[size : 2 * size], grad[2 * size :]
    for j in range(size):
        d_z[j] = dh[j] * (h_before[j] - n[j])
    times_slope(d_z, z, CLAMP if exact else SIGMOID)
    for j in range(size):
        d_n[j] = dh[j] - dh[j] * z[j]
    times_slope(d_n, n, CLAMP if exact else TANH)
    for j in range(size):
        dh[j] *= z[j]


@jit
def _reset_row_back(r: _Array, factor: _Array, flow: _Array, d_r: _Array, exact: bool) -> None:
    """Back through r * factor (H,): from its gradient flow (H,) d_r of the pre-activation; flow becomes factor's."""
    for j in range(len(r)):
        d_r[j] = flow[j] * factor[j]
    times_slope(d_r, r, CLAMP if exact else SIGMOID)
    for j in range(len(r)):
        flow[j] *= r[j]


@jit
def _gru_before_back(
    a: _Array, h_before: _Array, grad: _Array, u: _Array, u_n: _Array, back: _Array, tile: _Array, exact: bool
) -> None:
    """d_r in grad (N, 3H) from its d_n, and back (N, H), what flows through U into h before the step."""
    batch, size = h_before.shape
    d_rh = np.zeros_like(h_before)
    multiply_add(grad[:, 2 * size :].copy(), u_n, d_rh, tile)
    for n in range(batch):
        _reset_row_back(a[n, :size], h_before[n], d_rh[n], grad[n, :size], exact)
    multiply_add(grad[:, : 2 * size].copy(), u, back, tile)
    back += d_rh


@jit
def backward_steps(
    cell: int, act: int, exact: bool, gates: _Array, aux: _Array, y: _Array, h_before: _Array, c_before: _Array,
    dy: _Array, dh: _Array, dc: _Array, grads: _Array, dnew: _Array, u: _Array, u_n: _Array, reverse: bool,
    zero: _Flags, run: _Flags, live: _Flags, drop: _Array, zone_h: _Array, zone_c: _Array,
) -> None:  # fmt: skip
    """Time loop of one direction backwards: see `_stack.Kernels.backward_steps`.

    u: panels of U (G*H, H), for GRU_BEFORE of its first 2H rows, the rest in u_n. grads (T, N, G*H), dnew (T, N, H):
    out. dh, dc (N, H): from the final to the initial state, in place.
    """
    steps, batch, size = h_before.shape
    tile = np.empty((4, TILE), dh.dtype)
    back, tanh_c = np.empty_like(dh), np.empty(size, dh.dtype)
    past_h, past_c = np.empty_like(dh), np.empty_like(dc)
    entering, one = np.empty_like(dh), dh.dtype.type(1)
    for s in range(steps):
        t = s if reverse else steps - 1 - s
        grad = grads[t]
        for n in range(batch):
            if len(dy) > 0 and (len(live) == 0 or live[t, n]):
                dh[n] += dy[t, n]
            if len(run) > 0 and not run[t, n]:
                grad[n] = 0
                continue
            if len(zone_h) > 0:
                past_h[n] = zone_h[t, n] * dh[n]
                dh[n] *= one - zone_h[t, n]
            if len(zone_c) > 0:
                past_c[n] = zone_c[t, n] * dc[n]
                dc[n] *= one - zone_c[t, n]
            if cell == RNN:
                grad[n] = dh[n]
                tanh_c[:] = y[t, n]
                if len(zone_h) > 0:
                    _made(zone_h[t, n], h_before[t, n], tanh_c)
                times_slope(grad[n], tanh_c, act)
                dh[n] = 0
            elif cell == LSTM:
                tanh_c[:] = aux[t, n]
                if len(zone_c) > 0:
                    i, f, g = gates[t, n, :size], gates[t, n, size : 2 * size], gates[t, n, 2 * size : 3 * size]
                    tanh_c[:] = f * c_before[t, n] + i * g
                _lstm_row_back(gates[t, n], tanh_c, c_before[t, n], dh[n], dc[n], grad[n], exact)
                dh[n] = 0
            else:
                _gru_row_back(gates[t, n], h_before[t, n], dh[n], grad[n], exact)
            if cell == GRU:
                dnew[t, n] = grad[n, 2 * size :]
                _reset_row_back(gates[t, n, :size], aux[t, n], grad[n, 2 * size :], grad[n, :size], exact)
        back[:] = 0
        entering[:] = h_before[t]
        if len(drop) > 0:
            entering *= drop
        if cell == GRU_BEFORE:
            _gru_before_back(gates[t], entering, grad, u, u_n, back, tile, exact)
        else:
            multiply_add(grad, u, back, tile)
        if len(drop) > 0:
            back *= drop
        for n in range(batch):
            if len(run) > 0 and not run[t, n]:
                continue
            dh[n] += back[n]
            if len(zone_h) > 0:
                dh[n] += past_h[n]
            if len(zone_c) > 0:
                dc[n] += past_c[n]
        if len(zero) > 0:
            _clear(dh, zero[t])
            _clear(dc, zero[t])
