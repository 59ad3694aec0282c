"""Numba backend: the functions of the NumPy backend with compiled time loops, for where the C++ core is missing.

The equations and their sources are in `_numpy`; the loops are in `_numba_kernels`. They run on one thread without the
GIL. Importing this module without Numba raises ImportError.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._spec import Spec
from . import _numba_kernels as compiled
from ._schedule import Array, Flags, Schedule
from ._stack import Packed, Saved, Twin, force_segment

__all__ = ["NAME", "Packed", "backward", "config", "force_segment", "forward", "make_tape", "pack"]

NAME = "numba"

_NO_FLAGS: Flags = np.empty((0, 0), np.bool_)


def _plain(a: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array if C-contiguous and writeable, else a copy: a loop is compiled anew for every other kind."""
    return a if a.flags.c_contiguous and a.flags.writeable else a.copy(order="C")


def _factors(factors: Array | None, ndim: int, dtype: npt.DTypeLike) -> Array:
    """What regularises, or an array of length 0."""
    return np.empty((0,) * ndim, dtype) if factors is None else _plain(factors)


def _flags(flags: Flags | None) -> Flags:
    return _NO_FLAGS if flags is None else _plain(flags)


@dataclass(frozen=True, eq=False)
class _Weights:
    """One direction: weights in panels (see `_numba_kernels.pack`), and the codes that name the cell to the loops."""

    spec: Spec
    cell: int
    act: int
    input_forward: Array  # W' (I, G*H)
    input_backward: Array  # W (G*H, I)
    forward: tuple[Array, Array]  # U' (H, G*H); GRU with reset before the product: its gates, its candidate
    backward: tuple[Array, Array]  # U (G*H, H), split likewise
    bias: Array  # (G*H,): what is added before the loop
    bias_n: Array  # (H,): c of the candidate of GRU with reset_after, which the reset gate multiplies


class _NumbaKernels:
    """See `_stack.Kernels`."""

    def prepare(self, spec: Spec, k: int, tensors: dict[str, Array]) -> _Weights:
        w, u, b, c = tensors["weight_ih"], tensors["weight_hh"], tensors.get("bias_ih"), tensors.get("bias_hh")
        size, rows = spec.hidden_size, spec.gates * spec.hidden_size
        bias: Array = np.zeros(rows, spec.dtype)
        bias_n: Array = np.zeros(size, spec.dtype)
        cell = {"rnn": compiled.RNN, "lstm": compiled.LSTM, "gru": compiled.GRU}[spec.cell]
        split = rows
        if cell == compiled.GRU and not spec.reset_after:
            cell, split = compiled.GRU_BEFORE, 2 * size
        if b is not None and c is not None:
            bias = b + c
            if cell == compiled.GRU:
                bias[2 * size :] = b[2 * size :]
                bias_n = c[2 * size :].copy()
        act = compiled.RELU if spec.nonlinearity == "relu" else compiled.TANH
        return _Weights(
            spec,
            cell,
            compiled.CLAMP if spec.exact else act,
            compiled.pack(w.T.copy()),
            compiled.pack(w.copy()),
            (compiled.pack(u[:split].T.copy()), compiled.pack(u[split:].T.copy())),
            (compiled.pack(u[:split].copy()), compiled.pack(u[split:].copy())),
            bias,
            bias_n,
        )

    def project(self, weights: _Weights, x: Array, gates: Array) -> None:
        rows = _plain(x).reshape(-1, x.shape[2])
        compiled.project(rows, weights.input_forward, weights.bias, gates.reshape(-1, gates.shape[2]))

    def forward_steps(
        self,
        weights: _Weights,
        gates: Array,
        aux: Array | None,
        y: Array,
        h: Array,
        c: Array | None,
        schedule: Schedule,
    ) -> tuple[Array, Array | None]:
        spec = weights.spec
        out = y if y.flags.c_contiguous else np.empty(y.shape, y.dtype)
        compiled.forward_steps(
            weights.cell,
            weights.act,
            spec.exact,
            gates,
            *weights.forward,
            weights.bias_n,
            out,
            h,
            np.empty((0, 0), spec.dtype) if c is None else c,
            np.empty((0, 0, 0), spec.dtype) if aux is None else aux,
            schedule.reverse,
            _flags(schedule.zero),
            _flags(schedule.run),
            _factors(schedule.drop, 2, spec.dtype),
            _factors(schedule.zone_h, 3, spec.dtype),
            _factors(schedule.zone_c, 3, spec.dtype),
        )
        if out is not y:
            y[...] = out
        return h, c

    def backward_steps(
        self, weights: _Weights, saved: Saved, dy: Array | None, dh: Array, dc: Array | None, schedule: Schedule
    ) -> tuple[Array, Array | None]:
        spec = weights.spec
        nothing = np.empty((0, 0, 0), spec.dtype)
        steps, batch, size = saved.h_before.shape
        grads = np.empty((steps, batch, spec.gates * size), spec.dtype)
        dnew = np.empty(saved.h_before.shape, spec.dtype) if weights.cell == compiled.GRU else None
        compiled.backward_steps(
            weights.cell,
            weights.act,
            spec.exact,
            nothing if saved.gates is None else saved.gates,
            nothing if saved.aux is None else saved.aux,
            _plain(saved.y) if weights.cell == compiled.RNN else nothing,
            saved.h_before,
            nothing if saved.c_before is None else saved.c_before,
            nothing if dy is None else _plain(dy),
            dh,
            np.empty((0, 0), spec.dtype) if dc is None else dc,
            grads,
            nothing if dnew is None else dnew,
            *weights.backward,
            schedule.reverse,
            _flags(schedule.zero),
            _flags(schedule.run),
            _flags(schedule.live),
            _factors(schedule.drop, 2, spec.dtype),
            _factors(schedule.zone_h, 3, spec.dtype),
            _factors(schedule.zone_c, 3, spec.dtype),
        )
        return grads, dnew

    def input_gradient(self, weights: _Weights, dgates: Array) -> Array:
        width = weights.input_forward.shape[1]
        out = np.empty((len(dgates), width), dgates.dtype)
        compiled.project(_plain(dgates), weights.input_backward, np.zeros(width, dgates.dtype), out)
        return out

    def add_product(self, out: Array, left: Array, right: Array) -> None:
        compiled.add_product(out, _plain(left), _plain(right))


_twin = Twin(NAME, _NumbaKernels())
pack = _twin.pack
make_tape = _twin.make_tape
forward = _twin.forward
backward = _twin.backward


def config() -> dict[str, object]:
    """Facts for `show_config`: none of its own."""
    return {}
