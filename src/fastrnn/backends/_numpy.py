"""NumPy backend: the equations as they stand in the papers, one array operation per line.

In float64 it is the reference that the other backends are tested against, and in either precision the baseline that
they are measured against. Therefore it does what a careful NumPy user would: the input product of all steps is one
matrix product, each step has one more, elementwise work is done in place, and backward does everything that does not
depend on dh before its loop and everything that no step waits for after it.

Row vectors: x[t] (N, I), h[t] (N, H); W = weight_ih (G*H, I), U = weight_hh (G*H, H), b = bias_ih, c = bias_hh (G*H,),
' transposes. s is the logistic function, * the elementwise product.

Forward. Every cell computes h[t] from x[t] and h[t-1]; the plain one (Elman 1990) is
    h[t] = act(W x[t] + U h[t-1] + b + c),  act = tanh or relu.

Backward is back-propagation through time (Werbos 1990, "Backpropagation through time: what it does and how to do it";
for the LSTM with the full gradient Graves and Schmidhuber 2005). With dL/dy[t] the gradient that reaches the output of
step t from outside and dG[t] that of the pre-activations, for t = T-1 .. 0
    dh[t]   = dL/dy[t] + (part of dG[t+1] U and of the cell's direct paths)      the recursion, the only serial part
    dG[t]   = dh[t] * (slope of the cell at t)
    dx[t]   = dG[t] W
    dW      = sum over t, n of dG[t]' x[t]
    dU      = sum over t, n of dG[t]' h[t-1]
    db = dc = sum over t, n of dG[t].

Two regularisers change what goes from step to step, given factors that somebody has drawn. Recurrent dropout (Gal and
Ghahramani 2016, "A theoretically grounded application of dropout in recurrent neural networks"): U multiplies
m * h[t-1], m (N, H) the same at every step; h[t-1] itself, which a GRU mixes with its candidate, is not dropped.
Zoneout (Krueger et al. 2016, "Zoneout: regularizing RNNs by randomly preserving hidden activations"), with h~ and c~
what the cell gives and z[t] (N, H) from 0 to 1:
    h[t] = z_h[t] * h[t-1] + (1 - z_h[t]) * h~[t]          c[t] = z_c[t] * c[t-1] + (1 - z_c[t]) * c~[t]
where an LSTM's h~ = o * tanh(c~). Backward, dh~ = (1 - z_h) * dh goes through the cell, z_h * dh to the step before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._spec import Spec
from ._schedule import Array, Flags, Schedule, made, zone
from ._stack import Packed, Saved, Twin, force_segment

__all__ = ["NAME", "Packed", "backward", "config", "force_segment", "forward", "make_tape", "pack", "twin"]

NAME = "numpy"


def _sigmoid(a: Array, exact: bool) -> None:
    """a = 1 / (1 + exp(-a)) in place, as (1 + tanh(a / 2)) / 2, which cannot overflow. Exact mode: clamp to [-1, 1]."""
    if exact:
        np.clip(a, -1, 1, out=a)
        return
    a *= 0.5
    np.tanh(a, out=a)
    a += 1
    a *= 0.5


def _tanh(a: Array, exact: bool) -> None:
    """a = tanh(a) in place. Exact mode: clamp to [-1, 1]."""
    if exact:
        np.clip(a, -1, 1, out=a)
    else:
        np.tanh(a, out=a)


def _relu(a: Array, exact: bool) -> None:
    """a = max(a, 0) in place. Exact mode: clamp to [-1, 1]."""
    np.clip(a, -1 if exact else 0, 1 if exact else None, out=a)


def _sigmoid_slope(a: Array, exact: bool) -> Array:
    """Derivative of the logistic function from its value a: a (1 - a). Exact mode: 1 inside (-1, 1), else 0."""
    return _clamp_slope(a) if exact else a * (1 - a)


def _tanh_slope(a: Array, exact: bool) -> Array:
    """Derivative of tanh from its value a: 1 - a^2. Exact mode: 1 inside (-1, 1), else 0."""
    return _clamp_slope(a) if exact else 1 - a * a


def _relu_slope(a: Array, exact: bool) -> Array:
    """Derivative of max(a, 0) from its value a: 1 where a > 0, else 0. Exact mode: 1 inside (-1, 1), else 0."""
    return _clamp_slope(a) if exact else (a > 0).astype(a.dtype)


def _clamp_slope(a: Array) -> Array:
    return (np.abs(a) < 1).astype(a.dtype)


@dataclass(frozen=True, eq=False)
class Weights:
    """One direction: what the products need, transposed once so that no step has to."""

    spec: Spec
    w: Array  # (G*H, I)
    w_t: Array  # (I, G*H)
    u: Array  # (G*H, H)
    u_t: Array  # (H, G*H)
    bias: Array | None  # (G*H,): b + c, what may be added before the loop
    bias_n: Array | None  # (H,): c of the candidate of GRU with reset_after, which the reset gate multiplies


class Cell:
    """Elman's network: h[t] = act(W x[t] + U h[t-1] + b + c) (Elman 1990, "Finding structure in time")."""

    noted: Array | None = None  # (T, N, H), if dL/dc[t] of each step is wanted, c as the cell makes it
    schedule = Schedule(
        False, None, None, None
    )  # of the steps that are run; what of it regularises is of interest here

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.size = weights.spec.hidden_size
        self.exact = weights.spec.exact
        relu = weights.spec.nonlinearity == "relu"
        self.act = _relu if relu else _tanh
        self.slope = _relu_slope if relu else _tanh_slope

    def step(self, pre: Array, act: Array, z: Array, h: Array, c: Array | None, y: Array, aux: Array | None) -> None:
        """One step for all rows.

        pre (N, G*H): W x + biases; act (N, G*H): activated gates, may be pre or z; z (N, G*H): scratch;
        h, c (N, H): state before; y (N, H): h after; aux (N, H): LSTM the c after, may be c; GRU see there.
        """
        np.matmul(self.schedule.entering(h), self.weights.u_t, out=z)
        np.add(z, pre, out=y)
        self.act(y, self.exact)

    def slopes(self, saved: Saved, grads: Array) -> Any:
        """Fill grads (T, N, G*H) with everything of dG that does not depend on dh; give what else `step_back` reads.

        dG[t] = dh[t] * act'(.)
        """
        grads[...] = self.slope(made(saved.y, saved.h_before, self.schedule.zone_h), self.exact)
        return None

    def leaving(self, gradient: Array) -> Array:
        """That of h, from the gradient (N, H) of what U multiplied; the array itself."""
        if self.schedule.drop is not None:
            gradient *= self.schedule.drop
        return gradient

    def step_back(self, t: int, saved: Saved, grads: Array, extra: Any, dh: Array, dc: Array | None) -> Array:
        """Make grads[t] dG[t]; replace dc by that of the step before; give dh of the step before.

        dh[t-1] = dG[t] U
        """
        grads[t] *= dh
        return self.leaving(grads[t] @ self.weights.u)


class _Lstm(Cell):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), with the forget gate of Gers et al. 2000.

    i = s(W_i x[t] + U_i h[t-1] + b_i + c_i)        input gate
    f = s(W_f x[t] + U_f h[t-1] + b_f + c_f)        forget gate
    g = tanh(W_g x[t] + U_g h[t-1] + b_g + c_g)     candidate
    o = s(W_o x[t] + U_o h[t-1] + b_o + c_o)        output gate
    c[t] = f * c[t-1] + i * g
    h[t] = o * tanh(c[t])
    """

    def step(self, pre: Array, act: Array, z: Array, h: Array, c: Array | None, y: Array, aux: Array | None) -> None:
        assert c is not None
        assert aux is not None
        size = self.size
        np.matmul(self.schedule.entering(h), self.weights.u_t, out=z)
        np.add(z, pre, out=act)
        _sigmoid(act[:, : 2 * size], self.exact)
        _tanh(act[:, 2 * size : 3 * size], self.exact)
        _sigmoid(act[:, 3 * size :], self.exact)
        i, f, g, o = (act[:, k * size : (k + 1) * size] for k in range(4))
        np.multiply(f, c, out=aux)
        product = np.multiply(i, g, out=z[:, 2 * size : 3 * size])
        aux += product
        y[...] = aux
        _tanh(y, self.exact)
        y *= o

    def slopes(self, saved: Saved, grads: Array) -> Array:
        """With dc the gradient of c[t] (what comes from t+1 and from h[t]).

        d_i = dc * g * s'(i)     d_f = dc * c[t-1] * s'(f)     d_g = dc * i * tanh'(g)     d_o = dh * tanh(c[t]) * s'(o)
        dc  = dc[t] + dh * o * tanh'(c[t])

        The last factor is given back.
        """
        assert saved.gates is not None
        assert saved.aux is not None
        assert saved.c_before is not None
        size = self.size
        i, f, g, o = (saved.gates[:, :, k * size : (k + 1) * size] for k in range(4))
        d_i, d_f, d_g, d_o = (grads[:, :, k * size : (k + 1) * size] for k in range(4))
        tanh_c = saved.aux.copy() if self.schedule.zone_c is None else f * saved.c_before + i * g
        _tanh(tanh_c, self.exact)
        np.multiply(g, _sigmoid_slope(i, self.exact), out=d_i)
        np.multiply(saved.c_before, _sigmoid_slope(f, self.exact), out=d_f)
        np.multiply(i, _tanh_slope(g, self.exact), out=d_g)
        np.multiply(tanh_c, _sigmoid_slope(o, self.exact), out=d_o)
        factor = _tanh_slope(tanh_c, self.exact)
        factor *= o
        return factor

    def step_back(self, t: int, saved: Saved, grads: Array, extra: Array | None, dh: Array, dc: Array | None) -> Array:
        """dc[t-1] = dc * f, dh[t-1] = dG[t] U."""
        assert saved.gates is not None
        assert extra is not None
        assert dc is not None
        size = self.size
        grad = grads[t]
        dc += dh * extra[t]
        if self.noted is not None:
            self.noted[t] = dc
        through_c = grad.reshape(-1, 4, size)[:, :3]
        through_c *= dc[:, None]
        grad[:, 3 * size :] *= dh
        dc *= saved.gates[t, :, size : 2 * size]
        return self.leaving(grad @ self.weights.u)


class _Gru(Cell):
    """Gated recurrent unit (Cho et al. 2014), with the reset gate after the product, as cuDNN and PyTorch have it.

    r = s(W_r x[t] + U_r h[t-1] + b_r + c_r)                reset gate
    z = s(W_z x[t] + U_z h[t-1] + b_z + c_z)                update gate
    q = U_n h[t-1] + c_n
    n = tanh(W_n x[t] + b_n + r * q)                        candidate
    h[t] = (1 - z) * n + z * h[t-1] = n + z * (h[t-1] - n)
    """

    def step(self, pre: Array, act: Array, z: Array, h: Array, c: Array | None, y: Array, aux: Array | None) -> None:
        """aux keeps q, if given."""
        size = self.size
        np.matmul(self.schedule.entering(h), self.weights.u_t, out=z)
        q = z[:, 2 * size :]
        if self.weights.bias_n is not None:
            q += self.weights.bias_n
        if aux is not None:
            aux[...] = q
        gates = np.add(z[:, : 2 * size], pre[:, : 2 * size], out=act[:, : 2 * size])
        _sigmoid(gates, self.exact)
        q *= gates[:, :size]
        n = np.add(q, pre[:, 2 * size :], out=act[:, 2 * size :])
        _tanh(n, self.exact)
        self.mix(gates[:, size:], n, h, y)

    @staticmethod
    def mix(z: Array, n: Array, h: Array, y: Array) -> None:
        """y = n + z * (h - n)."""
        np.subtract(h, n, out=y)
        y *= z
        y += n

    def slopes(self, saved: Saved, grads: Array) -> Array | None:
        """The whole of dG is dh times a factor that the tape gives.

        d_n = dh * (1 - z) * tanh'(n)         d_z = dh * (h[t-1] - n) * s'(z)
        d_r = d_n * q * s'(r)                 d_q = d_n * r

        grads gets (d_r, d_z, d_q), the gradient of U h + c; d_n, that of W_n x + b_n, is given back.
        """
        assert saved.gates is not None
        assert saved.aux is not None
        size = self.size
        r, z, n = (saved.gates[:, :, k * size : (k + 1) * size] for k in range(3))
        d_r, d_z, d_q = (grads[:, :, k * size : (k + 1) * size] for k in range(3))
        d_n = _tanh_slope(n, self.exact)
        d_n *= 1 - z
        np.subtract(saved.h_before, n, out=d_z)
        d_z *= _sigmoid_slope(z, self.exact)
        np.multiply(saved.aux, _sigmoid_slope(r, self.exact), out=d_r)
        d_r *= d_n
        np.multiply(r, d_n, out=d_q)
        return d_n

    def step_back(self, t: int, saved: Saved, grads: Array, extra: Array | None, dh: Array, dc: Array | None) -> Array:
        """dh[t-1] = dh * z + (d_r, d_z, d_q) U."""
        assert saved.gates is not None
        assert extra is not None
        size = self.size
        by_gate = grads[t].reshape(-1, 3, size)
        by_gate *= dh[:, None]
        extra[t] *= dh
        before = self.leaving(grads[t] @ self.weights.u)
        before += dh * saved.gates[t, :, size : 2 * size]
        return before


class _GruBefore(_Gru):
    """Gated recurrent unit with the reset gate before the product: n = tanh(W_n x[t] + b_n + c_n + U_n (r * h[t-1])).

    r, z and h[t] are those of `_Gru` (Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder").
    """

    def step(self, pre: Array, act: Array, z: Array, h: Array, c: Array | None, y: Array, aux: Array | None) -> None:
        size = self.size
        entering = self.schedule.entering(h)
        gates = np.matmul(entering, self.weights.u_t[:, : 2 * size], out=z[:, : 2 * size])
        gates = np.add(gates, pre[:, : 2 * size], out=act[:, : 2 * size])
        _sigmoid(gates, self.exact)
        np.multiply(gates[:, :size], entering, out=y)
        n = np.matmul(y, self.weights.u_t[:, 2 * size :], out=z[:, 2 * size :])
        n = np.add(n, pre[:, 2 * size :], out=act[:, 2 * size :])
        _tanh(n, self.exact)
        self.mix(gates[:, size:], n, h, y)

    def slopes(self, saved: Saved, grads: Array) -> None:
        """d_n and d_z as in `_Gru`; d_r = (d_n U_n) * h[t-1] * s'(r)."""
        assert saved.gates is not None
        size = self.size
        r, z, n = (saved.gates[:, :, k * size : (k + 1) * size] for k in range(3))
        d_r, d_z, d_n = (grads[:, :, k * size : (k + 1) * size] for k in range(3))
        np.multiply(self.schedule.entering(saved.h_before), _sigmoid_slope(r, self.exact), out=d_r)
        np.subtract(saved.h_before, n, out=d_z)
        d_z *= _sigmoid_slope(z, self.exact)
        np.multiply(1 - z, _tanh_slope(n, self.exact), out=d_n)

    def step_back(self, t: int, saved: Saved, grads: Array, extra: Array | None, dh: Array, dc: Array | None) -> Array:
        """dh[t-1] = dh * z + (d_n U_n) * r + (d_r, d_z) U_rz."""
        assert saved.gates is not None
        size = self.size
        gates, grad = saved.gates[t], grads[t]
        by_gate = grad[:, size:].reshape(-1, 2, size)
        by_gate *= dh[:, None]
        d_rh = grad[:, 2 * size :] @ self.weights.u[2 * size :]
        grad[:, :size] *= d_rh
        before: Array = grad[:, : 2 * size] @ self.weights.u[: 2 * size]
        before += d_rh * gates[:, :size]
        before = self.leaving(before)
        before += dh * gates[:, size : 2 * size]
        return before


def _hold(run: Flags, new: Array, old: Array) -> None:
    """new (N, H) = old in the rows that do not run (N,); NaN and Inf in what is dropped leave no trace."""
    np.copyto(new, old, where=~run[:, None])


class NumpyKernels:
    """See `_stack.Kernels`."""

    # A list: every backward pass of a direction adds dL/dh[t] and, of an LSTM, dL/dc[t] (T, N, H) of its steps to it.
    seen: list[tuple[Array, Array | None]] | None = None

    def prepare(self, spec: Spec, k: int, tensors: dict[str, Array]) -> Weights:
        w, u, b, c = tensors["weight_ih"], tensors["weight_hh"], tensors.get("bias_ih"), tensors.get("bias_hh")
        bias = bias_n = None
        if b is not None and c is not None:
            bias = b + c
            if spec.cell == "gru" and spec.reset_after:
                size = spec.hidden_size
                bias[2 * size :] = b[2 * size :]
                bias_n = c[2 * size :].copy()
        w, u = w.copy(), u.copy()
        return Weights(spec, w, np.ascontiguousarray(w.T), u, np.ascontiguousarray(u.T), bias, bias_n)

    def cell(self, weights: Weights) -> Cell:
        """The equations of one direction."""
        spec = weights.spec
        if spec.cell == "gru":
            return _Gru(weights) if spec.reset_after else _GruBefore(weights)
        return _Lstm(weights) if spec.cell == "lstm" else Cell(weights)

    def project(self, weights: Weights, x: Array, gates: Array) -> None:
        np.matmul(x.reshape(-1, x.shape[2]), weights.w_t, out=gates.reshape(-1, gates.shape[2]))
        if weights.bias is not None:
            gates += weights.bias

    def forward_steps(
        self,
        weights: Weights,
        gates: Array,
        aux: Array | None,
        y: Array,
        h: Array,
        c: Array | None,
        schedule: Schedule,
    ) -> tuple[Array, Array | None]:
        cell = self.cell(weights)
        cell.schedule = schedule
        apart = schedule.run is not None or schedule.zone_c is not None
        keep = aux is not None or weights.spec.cell == "gru"
        z = np.empty(gates.shape[1:], gates.dtype)
        zero, run = schedule.zero, schedule.run
        for t in schedule.steps(len(gates)):
            if zero is not None and zero[t].any():
                h = np.where(zero[t, :, None], h.dtype.type(0), h)
                c = None if c is None else np.where(zero[t, :, None], c.dtype.type(0), c)
            new = aux[t] if aux is not None else np.empty_like(c) if apart and c is not None else c
            pre = gates[t]
            cell.step(pre, pre if keep else z, z, h, c, y[t], new)
            zone(schedule.zone_h, t, y[t], h)
            if c is not None and new is not None:
                zone(schedule.zone_c, t, new, c)
            if run is not None:
                _hold(run[t], y[t], h)
                if c is not None and new is not None:
                    _hold(run[t], new, c)
            h = y[t]
            if c is not None:
                c = new
        return h, c

    def backward_steps(
        self, weights: Weights, saved: Saved, dy: Array | None, dh: Array, dc: Array | None, schedule: Schedule
    ) -> tuple[Array, Any]:
        spec = weights.spec
        steps, batch = saved.y.shape[:2]
        grads = np.empty((steps, batch, spec.gates * spec.hidden_size), saved.y.dtype)
        cell = self.cell(weights)
        cell.schedule = schedule
        extra = cell.slopes(saved, grads)
        zero, run, live = schedule.zero, schedule.run, schedule.live
        zone_h, zone_c = schedule.zone_h, schedule.zone_c
        seen_h = seen_c = None
        if self.seen is not None:
            seen_h = np.zeros_like(saved.y)
            seen_c = cell.noted = None if dc is None else np.zeros((steps, batch, spec.hidden_size), dc.dtype)
            self.seen.append((seen_h, seen_c))
        for t in reversed(schedule.steps(steps)):
            if dy is not None:
                np.add(dh, dy[t], out=dh, where=True if live is None else live[t, :, None])
            if seen_h is not None:
                np.copyto(seen_h[t], dh, where=True if live is None else live[t, :, None])
            held = None if dc is None or run is None else dc.copy()
            past_c = None if dc is None or zone_c is None else dc * zone_c[t]
            if dc is not None and zone_c is not None:
                dc *= 1 - zone_c[t]
            before = cell.step_back(t, saved, grads, extra, dh if zone_h is None else dh * (1 - zone_h[t]), dc)
            if zone_h is not None:
                before += dh * zone_h[t]
            if dc is not None and past_c is not None:
                dc += past_c
            np.copyto(dh, before, where=True if run is None else run[t, :, None])
            if held is not None and dc is not None and run is not None:
                _hold(run[t], dc, held)
                if seen_c is not None:
                    _hold(run[t], seen_c[t], held)
            if zero is not None:
                dh[zero[t]] = 0
                if dc is not None:
                    dc[zero[t]] = 0
        if seen_c is not None and live is not None:
            seen_c[~live] = 0
        return grads, extra

    def input_gradient(self, weights: Weights, dgates: Array) -> Array:
        gradient: Array = dgates @ weights.w
        return gradient

    def add_product(self, out: Array, left: Array, right: Array) -> None:
        out += left.T @ right


def twin() -> Twin:
    """The functions below as one object with kernels of its own."""
    return Twin(NAME, NumpyKernels())


_twin = twin()
pack = _twin.pack
make_tape = _twin.make_tape
forward = _twin.forward
backward = _twin.backward


def config() -> dict[str, object]:
    """Facts for `show_config`: none of its own."""
    return {}
