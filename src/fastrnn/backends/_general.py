"""The general path: every option that the fast kernels do not have, forward and backward, for all backends.

    projection      h[t] = W_hr m[t], m = o * h(c)                              LSTM (Sak, Senior and Beaufays 2014)
    peepholes       i and f see c[t-1], o sees c[t], each unit its own          LSTM (Gers and Schmidhuber 2000)
    input_forget    f = 1 - i                                                   LSTM
    clip            z is clipped to [-clip, clip] before f and g                all cells
    activations     any of `_activations`, in each direction its own            all cells

`Spec.general` says that a stack has one of them. It is NumPy: the loops over layers, directions and steps are those of
the NumPy backend (`_stack`, `_numpy`), and so are lengths, resets, masks, dropout and tapes; here are the equations of
the cells, with f, g and h for the functions that the fast kernels fix as sigmoid and tanh, and z for what enters them.

Unlike the other backends' tapes, the one of this path keeps z, not what the functions make of it: not every function
can be turned around to have its slope from its value. They are computed again for all steps at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._spec import Spec
from ._activations import Function
from ._numpy import Cell, NumpyKernels, Weights
from ._schedule import Array, Flags
from ._stack import Packed, Saved, Twin, force_segment, rows_that_ran

__all__ = ["NAME", "Packed", "backward", "config", "force_segment", "forward", "make_tape", "pack", "twin"]

NAME = "general"


@dataclass(frozen=True, eq=False)
class _Weights(Weights):
    """One direction: its functions in ONNX's order, and the weights that other paths do not have."""

    functions: tuple[Function, ...]
    projection: Array | None  # W_hr (P, H)
    peepholes: Array | None  # p_i, p_f, p_o (3, H)


class _Rnn(Cell):
    """h[t] = f(z), z = W x[t] + U h[t-1] + b + c."""

    weights: _Weights

    def __init__(self, weights: _Weights) -> None:
        super().__init__(weights)
        self.functions = weights.functions

    def blocks(self, gates: Array) -> list[Array]:
        """Views (..., H) of the gates in (..., G*H)."""
        return [gates[..., start : start + self.size] for start in range(0, gates.shape[-1], self.size)]

    def step(self, pre: Array, act: Array, z: Array, h: Array, c: Array | None, y: Array, aux: Array | None) -> None:
        """As in `Cell`, but pre (N, G*H) becomes z, and act is not used."""
        pre += np.matmul(self.schedule.entering(h), self.weights.u_t, out=z)
        y[...] = self.functions[0](pre)

    def slopes(self, saved: Saved, grads: Array) -> Any:
        assert saved.gates is not None
        grads[...] = self.functions[0].slope(saved.gates)


@dataclass
class _LstmSlopes:
    """What `_Lstm.step_back` and the gradients of its own weights read, each (T, N, H) or (T, N, P)."""

    forget: Array  # f[t]
    through: Array  # o * h'(c[t]): dm[t] to dc[t]
    c: Array  # c[t] before zoneout
    m: Array  # o * h(c[t])
    dh: Array  # (T, N, P): dL/dh[t]


class _Lstm(_Rnn):
    """The LSTM with everything.

    z_i = W_i x[t] + U_i h[t-1] + b_i + c_i + p_i * c[t-1]      i = f(z_i)
    z_f = the same for f, with p_f * c[t-1]                     f = f(z_f), or 1 - i
    z_g = the same for g, without peephole                      g = g(z_g)
    c[t] = f * c[t-1] + i * g
    z_o = the same for o, with p_o * c[t]                       o = f(z_o)
    m = o * h(c[t])                                             h[t] = W_hr m, or m
    """

    def step(self, pre: Array, act: Array, z: Array, h: Array, c: Array | None, y: Array, aux: Array | None) -> None:
        assert c is not None
        assert aux is not None
        weights, (f, g, out) = self.weights, self.functions
        pre += np.matmul(self.schedule.entering(h), weights.u_t, out=z)
        z_i, z_f, z_g, z_o = self.blocks(pre)
        if weights.peepholes is not None:
            z_i += weights.peepholes[0] * c
            z_f += weights.peepholes[1] * c
        i = f(z_i)
        forget = 1 - i if weights.spec.input_forget else f(z_f)
        np.multiply(forget, c, out=aux)
        aux += i * g(z_g)
        if weights.peepholes is not None:
            z_o += weights.peepholes[2] * aux
        m = f(z_o) * out(aux)
        y[...] = m if weights.projection is None else m @ weights.projection.T

    def slopes(self, saved: Saved, grads: Array) -> _LstmSlopes:
        """With dm and dc the gradients of m and, from everywhere, of c[t].

        d_i = dc * g * f'(z_i)          d_f = dc * c[t-1] * f'(z_f)      if f is 1 - i: dc * (g - c[t-1]) * f'(z_i), 0
        d_g = dc * i * g'(z_g)          d_o = dm * h(c[t]) * f'(z_o)
        dc = dc[t] + dm * o * h'(c[t]) + d_o * p_o
        """
        assert saved.gates is not None
        assert saved.aux is not None
        assert saved.c_before is not None
        f, g, out = self.functions
        z_i, z_f, z_g, z_o = self.blocks(saved.gates)
        d_i, d_f, d_g, d_o = self.blocks(grads)
        i, o, candidate = f(z_i), f(z_o), g(z_g)
        if self.weights.spec.input_forget:
            forget = 1 - i
            np.multiply(candidate - saved.c_before, f.slope(z_i), out=d_i)
            d_f[...] = 0
        else:
            forget = f(z_f)
            np.multiply(candidate, f.slope(z_i), out=d_i)
            np.multiply(saved.c_before, f.slope(z_f), out=d_f)
        c = saved.aux if self.schedule.zone_c is None else forget * saved.c_before + i * candidate
        h_c = out(c)
        np.multiply(i, g.slope(z_g), out=d_g)
        np.multiply(h_c, f.slope(z_o), out=d_o)
        return _LstmSlopes(forget, o * out.slope(c), c, o * h_c, np.empty_like(saved.y))

    def step_back(self, t: int, saved: Saved, grads: Array, extra: _LstmSlopes, dh: Array, dc: Array | None) -> Array:
        """dm = dh W_hr; dc[t-1] = dc * f + d_i * p_i + d_f * p_f; dh[t-1] = dG[t] U."""
        assert dc is not None
        projection, peepholes = self.weights.projection, self.weights.peepholes
        d_i, d_f, d_g, d_o = self.blocks(grads[t])
        extra.dh[t] = dh
        dm = dh if projection is None else dh @ projection
        d_o *= dm
        dc += dm * extra.through[t]
        if peepholes is not None:
            dc += d_o * peepholes[2]
        if self.noted is not None:
            self.noted[t] = dc
        for gate in (d_i, d_f, d_g):
            gate *= dc
        dc *= extra.forget[t]
        if peepholes is not None:
            dc += d_i * peepholes[0]
            dc += d_f * peepholes[1]
        return self.leaving(grads[t] @ self.weights.u)


@dataclass
class _GruSlopes:
    """What `_Gru.step_back` and the products read, each (T, N, H)."""

    r: Array
    update: Array  # z, the gate
    d_n: Array  # at first without dh


class _Gru(_Rnn):
    """The GRU of `_numpy` with f for the gates and g for the candidate, the reset gate after or before the product.

    r = f(z_r)    z = f(z_z)    n = g(z_n)    h[t] = n + z * (h[t-1] - n)
    z_n = W_n x[t] + b_n + r * q, q = U_n h[t-1] + c_n          reset_after; the tape's aux keeps q
    z_n = W_n x[t] + b_n + c_n + U_n (r * h[t-1])               else
    """

    def step(self, pre: Array, act: Array, z: Array, h: Array, c: Array | None, y: Array, aux: Array | None) -> None:
        weights, (f, g), split = self.weights, self.functions, 2 * self.size
        entering = self.schedule.entering(h)
        pre[:, :split] += np.matmul(entering, weights.u_t[:, :split], out=z[:, :split])
        z_r, z_z, z_n = self.blocks(pre)
        r, update = f(z_r), f(z_z)
        if weights.spec.reset_after:
            q = entering @ weights.u_t[:, split:]
            if weights.bias_n is not None:
                q += weights.bias_n
            if aux is not None:
                aux[...] = q
            z_n += r * q
        else:
            z_n += (r * entering) @ weights.u_t[:, split:]
        n = g(z_n)
        y[...] = n + update * (h - n)

    def slopes(self, saved: Saved, grads: Array) -> _GruSlopes:
        """The whole of dG is dh times a factor, but for d_r where the reset gate stands before the product.

        d_n = dh * (1 - z) * g'(z_n)      d_z = dh * (h[t-1] - n) * f'(z_z)
        d_r = d_n * q * f'(z_r)           d_q = d_n * r                        reset_after
        d_r = (d_n U_n) * h[t-1] * f'(z_r)                                     else
        """
        assert saved.gates is not None
        f, g = self.functions
        z_r, z_z, z_n = self.blocks(saved.gates)
        d_r, d_z, d_last = self.blocks(grads)
        r, update, n = f(z_r), f(z_z), g(z_n)
        d_n = (1 - update) * g.slope(z_n)
        np.multiply(saved.h_before - n, f.slope(z_z), out=d_z)
        if saved.aux is None:
            np.multiply(self.schedule.entering(saved.h_before), f.slope(z_r), out=d_r)
            d_last[...] = d_n
        else:
            np.multiply(d_n * saved.aux, f.slope(z_r), out=d_r)
            np.multiply(d_n, r, out=d_last)
        return _GruSlopes(r, update, d_n)

    def step_back(self, t: int, saved: Saved, grads: Array, extra: _GruSlopes, dh: Array, dc: Array | None) -> Array:
        """dh[t-1] = dh * z + (d_r, d_z, d_q) U, or dh * z + (d_r, d_z) U + (d_n U_n) * r."""
        u, split = self.weights.u, 2 * self.size
        d_r, d_z, d_last = self.blocks(grads[t])
        d_z *= dh
        d_last *= dh
        extra.d_n[t] *= dh
        behind = d_last @ u[split:]
        if saved.aux is None:
            d_r *= behind
            behind *= extra.r[t]
        else:
            d_r *= dh
        before: Array = grads[t, :, :split] @ u[:split]
        before += behind
        before = self.leaving(before)
        before += dh * extra.update[t]
        return before


class GeneralKernels(NumpyKernels):
    """See `_stack.Kernels`: NumPy's products and time loops around the cells above."""

    def prepare(self, spec: Spec, k: int, tensors: dict[str, Array]) -> _Weights:
        plain = super().prepare(spec, k, tensors)
        functions = [Function(activation, spec.clip) for activation in spec.functions(k % spec.directions)]
        if spec.cell == "lstm":  # the third is not one of what enters a gate
            functions[2] = Function(functions[2].activation)
        projection, peepholes = tensors.get("weight_hr"), tensors.get("weight_ph")
        return _Weights(
            **vars(plain),
            functions=tuple(functions),
            projection=None if projection is None else projection.copy(),
            peepholes=None if peepholes is None else peepholes.reshape(3, -1).copy(),
        )

    def cell(self, weights: Weights) -> Cell:
        assert isinstance(weights, _Weights)
        return {"rnn": _Rnn, "lstm": _Lstm, "gru": _Gru}[weights.spec.cell](weights)


class GeneralTwin(Twin):
    def _products(
        self, packed: Packed, k: int, x: Array, saved: Saved, dgates: Array, extra: _LstmSlopes | _GruSlopes | None,
        run: Flags | None, dx: Array | None, dweights: dict[str, Array] | None,
    ) -> None:  # fmt: skip
        """As in `Twin`, and with it the gradients of W_hr and of the peepholes."""
        if isinstance(extra, _GruSlopes):  # what it takes for the reset gate is z here
            saved = replace(saved, gates=extra.r)
        d_n = extra.d_n if isinstance(extra, _GruSlopes) and packed.spec.reset_after else None
        super()._products(packed, k, x, saved, dgates, d_n, run, dx, dweights)
        if dweights is None or not isinstance(extra, _LstmSlopes):
            return
        if packed.spec.proj_size:
            self.kernels.add_product(dweights["weight_hr"], rows_that_ran(extra.dh, run), rows_that_ran(extra.m, run))
        if packed.spec.peephole:
            assert saved.c_before is not None
            size = packed.spec.hidden_size
            d_i, d_f, _, d_o = (dgates[..., start : start + size] for start in range(0, 4 * size, size))
            for part, grad, c in zip(
                dweights["weight_ph"].reshape(3, -1),
                (d_i, d_f, d_o),
                (saved.c_before, saved.c_before, extra.c),
                strict=True,
            ):
                part += (rows_that_ran(grad, run) * rows_that_ran(c, run)).sum(axis=0)

    def activated(self, packed: Packed, k: int, gates: Array) -> Array:
        cell = _Rnn(packed.weights[k])
        out = np.empty_like(gates)
        # LSTM i f g o and GRU r z n: the third is the candidate.
        for g, (block, target) in enumerate(zip(cell.blocks(gates), cell.blocks(out), strict=True)):
            target[...] = cell.functions[g == 2](block)
        if packed.spec.input_forget:
            i, forget = cell.blocks(out)[:2]
            np.subtract(1, i, out=forget)
        return out


def twin() -> Twin:
    """The functions below as one object with kernels of its own."""
    return GeneralTwin(NAME, GeneralKernels())


_twin = twin()
pack = _twin.pack
make_tape = _twin.make_tape
forward = _twin.forward
backward = _twin.backward


def config() -> dict[str, object]:
    """Facts for `show_config`: none of its own."""
    return {}
