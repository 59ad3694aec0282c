"""A layer fed one time step, or a few, at a time."""

from __future__ import annotations

import os
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from . import _io, _validate, functional
from .backends import Packed, load

Array = npt.NDArray[Any]


class _Layer(Protocol):
    @property
    def batch_first(self) -> bool: ...

    def _bind(self) -> Packed: ...


class Stream:
    """A sequence that comes piece by piece, the state kept in between: what `layer.stream()` returns.

    Steps, one at a time or in chunks of any length, give what the whole sequence gives there: bit for bit on the
    compiled backend, elsewhere to rounding. Changed weights, another backend or instruction set are taken up at the
    next step. A stream belongs to one thread at a time; a layer can have any number of streams. A copy has a state of
    its own.

    For a thread that must not wait: `step` with contiguous `x_t` and `out` of the layer's dtype makes no array (of a
    layer with zoneout, views), and a step of the compiled core allocates nothing and, on one thread, makes no system
    call.
    """

    __slots__ = ("_batch", "_bind", "_c", "_dtype", "_h", "_layer", "_regular", "_spec", "_x_shape", "_y_shape")

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
        self._regular = spec.expected(1, batch)

    @property
    def batch_size(self) -> int:
        """N: the rows of every step."""
        return self._batch

    def step(self, x_t: Any, out: Array | None = None) -> Array:
        """Advance by one time step.

        Parameters
        ----------
        x_t : array_like, shape (N, input_size), or (input_size,) if batch_size is 1
        out : ndarray, shape (N, hidden_size), or (hidden_size,) for an x_t without N; optional
            Where the output is written to; must share no memory with x_t. Then no array is made. With a projection
            the width is proj_size, here and of what is returned.

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
        load(packed.backend).forward(packed, x, target, h, c, h, c, None, None, None, None, None, regular=self._regular)
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

    def steps(self, x: Any, out: Array | None = None, *, reset: Any = None) -> Array:
        """Advance by the steps of a chunk: what as many calls of `step` give, in one.

        Parameters
        ----------
        x : array_like, shape (T, N, input_size)
            (N, T, input_size) if batch_first, or (T, input_size) if batch_size is 1. T may be 0.
        out : ndarray, shape of what is returned, optional
            Where the outputs are written to; must share no memory with x.
        reset : array_like of bool, shape (T, N), (N, T) if batch_first, or (T,), optional
            Rows whose state is zeroed before a step, as by `reset(rows)`.

        Returns
        -------
        ndarray, shape (T, N, hidden_size), (N, T, hidden_size) or (T, hidden_size)
            The outputs of the last layer; `out` if given.

        Raises
        ------
        TypeError, ValueError
            An argument that does not fit; the state is as before.
        """
        packed, batch_first = self._bind(), self._layer.batch_first
        if hasattr(x, "batch_sizes") or hasattr(x, "offsets"):
            message = f"x is a {type(x).__name__}; a stream has steps of all its rows, so it must be an array"
            raise TypeError(message)
        x = _validate.plain_array("x", x)
        rows = 1 if x.ndim == 2 else x.shape[0 if batch_first else 1] if x.ndim == 3 else None
        if rows is not None and rows != self._batch:
            without = " (no batch axis)" if x.ndim == 2 else ""
            message = f"x has {rows} rows{without}; it must have batch_size = {self._batch}"
            raise ValueError(message)
        h, c = self._h, self._c
        if x.ndim == 2:
            h, c = h[:, 0], None if c is None else c[:, 0]
        y, last = functional.infer(packed, x, h if c is None else (h, c), reset=reset, out=out, batch_first=batch_first)
        if c is None:
            h[...] = last
        else:
            h[...], c[...] = last
        return y

    @property
    def state(self) -> Any:
        """(h, c) for an LSTM, h for the others, each (num_layers, N, hidden_size): copies. Can be set."""
        return self._h.copy() if self._c is None else (self._h.copy(), self._c.copy())

    @state.setter
    def state(self, value: Any) -> None:
        self._set("state", value)

    def _set(self, name: str, value: Any) -> None:
        h, c = _validate.state(name, value, self._spec, self._batch)
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

    def save(self, path: str | os.PathLike[str] | None = None) -> Any:
        """The state as `restore` takes it back: a copy, or a file.

        Parameters
        ----------
        path : str or path-like, optional
            Ends in .npz, or in .safetensors if that package is installed. The weights are not written: `layer.save`
            does that.

        Returns
        -------
        As `state`, or None if there is a path

        Raises
        ------
        ValueError, ImportError
            Another suffix, or .safetensors without the package.
        """
        if path is None:
            return self.state
        arrays = {"h": self._h} if self._c is None else {"h": self._h, "c": self._c}
        _io.write(path, arrays, {"stream": self._spec.cell, "format": 1})
        return None

    def restore(self, saved: Any) -> None:
        """Go on from where `save` was called, of this stream or of another of the same sizes.

        Parameters
        ----------
        saved : what `save()` returned, or the path of a file that `save(path)` wrote
            Nothing in the file is executed.

        Raises
        ------
        TypeError, ValueError
            A state of another cell, of other sizes or another batch_size, or a damaged file; the state is as before.
        OSError, ImportError
            The file cannot be read; .safetensors without the package.
        """
        if not isinstance(saved, str | os.PathLike):
            self._set("saved", saved)
            return
        arrays, header = _io.read(saved)
        names = {"h"} if self._c is None else {"h", "c"}
        if header != {"stream": self._spec.cell, "format": 1} or arrays.keys() != names:
            message = f"{os.fspath(saved)} is not the saved state of a stream of an {self._spec.cell.upper()}"
            raise ValueError(message)
        try:
            self._set("saved", arrays["h"] if self._c is None else (arrays["h"], arrays["c"]))
        except TypeError as error:
            message = f"{os.fspath(saved)} does not hold real numbers: {error}"
            raise ValueError(message) from error

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self._layer, self._batch, self.state)  # copies share the layer, not the state

    def __repr__(self) -> str:
        return f"<Stream of {self._layer!r}, batch_size={self._batch}>"


def _restored(kind: type[Stream], layer: _Layer, batch_size: int, state: Any) -> Stream:
    stream = kind(layer, batch_size)
    stream.state = state
    return stream
