"""A layer fed one time step at a time."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from . import _validate
from .backends import Packed, load

Array = npt.NDArray[Any]


class _Layer(Protocol):
    def _bind(self) -> Packed: ...


class Stream:
    """One time step per call, the state kept in between: what `layer.stream()` returns.

    A step gives exactly what the whole sequence gives at that step. Changed weights, another backend or instruction set
    are taken up at the next step. A stream belongs to one thread at a time; a layer can have any number of streams.
    """

    __slots__ = ("_batch", "_bind", "_c", "_dtype", "_h", "_layer", "_spec", "_x_shape", "_y_shape")

    def __init__(self, layer: _Layer, batch_size: int = 1) -> None:
        self._layer = layer
        self._bind = layer._bind  # looked up once: a tenth of a step's time
        self._batch = batch = _validate.positive_int("batch_size", batch_size)
        self._spec = spec = layer._bind().spec
        if spec.bidirectional:
            message = "a bidirectional layer has no stream: its reverse direction starts at the end of the sequence"
            raise ValueError(message)
        self._dtype = spec.dtype
        self._x_shape = (batch, spec.input_size)
        self._y_shape = (1, batch, spec.output_size)
        try:
            self._h: Array = np.zeros(_validate.state_shape(spec, batch), spec.dtype)
            self._c: Array | None = None
            if spec.cell == "lstm":
                self._c = np.zeros(_validate.state_shape(spec, batch, cell=True), spec.dtype)
        except ValueError as error:
            message = f"batch_size is {batch}; a state of that many rows is more than this machine can address"
            raise ValueError(message) from error

    def step(self, x_t: Any, out: Array | None = None) -> Array:
        """Advance by one time step.

        Parameters
        ----------
        x_t : array_like, shape (N, input_size), or (input_size,) if batch_size is 1
        out : ndarray, shape (N, hidden_size), or (hidden_size,) for an x_t without N; optional
            Where the output is written to; must share no memory with x_t. Then no array is made.

        Returns
        -------
        ndarray, shape as `out`
            The output of the last layer; `out` if given.

        Raises
        ------
        TypeError, ValueError
            An argument that does not fit; the state is as before.
        """
        packed = self._bind()
        done = packed.step_small(x_t, out, self._h, self._c)
        return self._step(packed, x_t, out) if done is None else done

    def _step(self, packed: Packed, x_t: Any, out: Array | None) -> Array:
        """A step with arguments of any kind."""
        if type(x_t) is not np.ndarray or x_t.dtype != self._dtype:
            x_t = _validate.real_array("x_t", x_t, self._dtype)
        x = x_t[None] if x_t.shape == self._x_shape else self._single(x_t)
        if not _validate.fits(x):
            x = x.copy()
        if out is None:
            y = target = np.empty(self._y_shape, self._dtype)
        else:
            shape = self._y_shape[1:] if x_t.ndim == 2 else self._y_shape[2:]
            given = _validate.output(out, self._dtype, shape)
            y = given[None] if x_t.ndim == 2 else given[None, None]
            _validate.apart(y, ("x_t", x))
            target = y if _validate.fits(y) else np.empty(self._y_shape, self._dtype)
        h, c = self._h, self._c
        load(packed.backend).forward(packed, x, target, h, c, h, c, None, None, None, None, None)
        if out is None:
            result: Array = y[0] if x_t.ndim == 2 else y[0, 0]
            return result
        if target is not y:
            y[...] = target
        return out

    def _single(self, x_t: Array) -> Array:
        """(1, 1, I) of a step without a batch axis."""
        if x_t.ndim != 1 or (1, *x_t.shape) != self._x_shape:
            also = f" or {self._x_shape[1:]}" if self._batch == 1 else ""
            message = f"x_t has shape {x_t.shape}; it must be {self._x_shape}{also}: (N, input_size)"
            raise ValueError(message)
        return x_t[None, None]

    @property
    def state(self) -> Any:
        """(h, c) for an LSTM, h for the others, each (num_layers, N, hidden_size): copies. Can be set."""
        return self._h.copy() if self._c is None else (self._h.copy(), self._c.copy())

    @state.setter
    def state(self, value: Any) -> None:
        h, c = _validate.state("state", value, self._spec, self._batch)
        self._h[...] = 0 if h is None else h
        if self._c is not None:
            self._c[...] = 0 if c is None else c

    def reset(self, rows: Any = None) -> None:
        """Set the state to zero.

        Parameters
        ----------
        rows : int, array_like of int, or array_like of bool with shape (N,), optional
            Rows of the batch; all if not given.

        Raises
        ------
        TypeError, ValueError
            No such rows.
        """
        which = slice(None) if rows is None else _validate.rows(rows, self._batch)
        self._h[:, which] = 0
        if self._c is not None:
            self._c[:, which] = 0

    def __repr__(self) -> str:
        return f"<Stream of {self._layer!r}, batch_size={self._batch}>"
