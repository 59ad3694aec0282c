"""What LSTM, GRU and RNN have in common."""

from __future__ import annotations

import math
import os
import threading
import warnings
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from . import _draws, _io, _validate, _validate_regularisers, backends, functional
from ._spec import Spec
from ._stream import Stream
from ._weights import Scratch, Weights
from .backends import Backend, Packed
from .functional import Gradients, Tape

Array = npt.NDArray[Any]
S = TypeVar("S")  # type of the state
R = TypeVar("R", bound="Recurrent[Any]")

# Defaults of the options, those of all cells and those of one.
COMMON = {
    "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False, "proj_size": 0,
    "dtype": "float32",
}  # fmt: skip
# Options that a file may lack, having been written before there were any.
REGULAR = {"recurrent_dropout": 0.0, "zoneout": 0.0}
LATER = {"clip": None, "activations": None, "peephole": False, "input_forget": False, **REGULAR}
DEFAULTS = {**COMMON, **LATER, "nonlinearity": "tanh", "reset_after": True}


class _Snapshot:
    """The weights between two changes. Never written: a change makes another snapshot."""

    __slots__ = ("bound", "owner", "packed", "weights")

    def __init__(self, spec: Spec, flat: Array) -> None:
        flat.flags.writeable = False
        self.weights = Weights(spec, flat)
        self.packed: dict[tuple[str, str], Packed] = {}  # by backend and instruction set
        # The one of them last used, by the choice of a backend, None for the automatic one: what a call looks into.
        self.bound: dict[Backend | None, Packed] = {}
        self.owner = object()  # what a tape remembers; not the snapshot itself, which would keep the weights alive


class _Edit(AbstractContextManager[Scratch]):
    """What `edit()` returns. A generator would say the same in four lines, and cost 1.5 microseconds a step."""

    __slots__ = ("_before", "_layer", "_scratch")

    def __init__(self, layer: Recurrent[Any]) -> None:
        self._layer = layer

    def __enter__(self) -> Scratch:
        self._before = self._layer._now
        self._scratch = Scratch(self._layer._spec, self._before.weights.flat)
        return self._scratch

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._layer._commit(self._scratch.release(), self._before)


class Recurrent(Generic[S]):
    """Base of the layers; not made by itself."""

    __slots__ = (
        "__weakref__", "_batch_first", "_draws", "_dropout", "_lock", "_now", "_options", "_recurrent_dropout", "_rng",
        "_spec",
    )  # fmt: skip

    # The constructor's arguments, read-only.
    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    batch_first: bool
    dropout: float
    bidirectional: bool
    proj_size: int
    recurrent_dropout: float
    zoneout: float | tuple[float, float]
    clip: float | None
    dtype: np.dtype[Any]

    _cell: ClassVar[str]
    _own: ClassVar[tuple[str, ...]] = ()  # options that not all cells have
    _batch_first: bool
    _draws: bool  # whether a training forward draws anything
    _dropout: float
    _lock: threading.Lock
    _now: _Snapshot
    _options: dict[str, Any]
    _recurrent_dropout: float
    _rng: np.random.Generator
    _spec: Spec

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int, bias: bool, batch_first: bool, dropout: float,
        bidirectional: bool, proj_size: int, dtype: npt.DTypeLike, rng: int | np.random.Generator | None, **own: Any,
    ) -> None:  # fmt: skip
        self._set_up(
            {
                "input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers, "bias": bias,
                "batch_first": batch_first, "dropout": dropout, "bidirectional": bidirectional,
                "proj_size": proj_size, "dtype": dtype, **own,
            }
        )  # fmt: skip
        self._rng = _validate.generator(rng)
        bound = 1 / math.sqrt(self._spec.hidden_size)
        self._commit(self._rng.uniform(-bound, bound, self._spec.weight_count).astype(self._spec.dtype))
        if self._dropout and self._spec.num_layers == 1:
            message = f"dropout is {self._dropout} but works between layers, and there is only one"
            warnings.warn(message, UserWarning, stacklevel=3)

    def _set_up(self, options: Mapping[str, Any]) -> None:
        """Check all options; called by the constructor and by whatever makes a layer from stored ones."""
        given = {**REGULAR, **options}
        self._batch_first = _validate.flag("batch_first", given.pop("batch_first"))
        self._dropout = _validate.fraction("dropout", given.pop("dropout"))
        self._recurrent_dropout = _validate.fraction("recurrent_dropout", given.pop("recurrent_dropout"))
        zoneout = _validate_regularisers.zoneout_rates(given.pop("zoneout"), self._cell)
        self._spec = replace(_validate.spec(self._cell, given), zoneout=zoneout)
        self._draws = any((self._dropout, self._recurrent_dropout, *zoneout))
        self._lock = threading.Lock()
        self._options = {**options, "batch_first": self._batch_first, "dropout": self._dropout}
        self._options |= {name: getattr(self._spec, name) for name in given if name not in ("dtype", "activations")}
        self._options["dtype"] = self._spec.dtype_name
        self._options["activations"] = self._spec.activation_options
        self._options["recurrent_dropout"] = self._recurrent_dropout
        self._options["zoneout"] = zoneout[0] if self._cell != "lstm" or zoneout[0] == zoneout[1] else zoneout

    # -- calls -------------------------------------------------------------------------------------------------------

    def _bind(self, now: _Snapshot | None = None) -> Packed:
        """Packed weights for the backend and instruction set in force; made once per change of the weights."""
        if now is None:
            now = self._now
        packed = now.bound.get(backends.chosen())
        return packed if packed is not None and packed.in_force() else self._pack(now)

    def _pack(self, now: _Snapshot) -> Packed:
        module = backends.module_for(self._spec)
        with self._lock:
            packed = now.packed.get((module.NAME, backends.active_isa(module))) if now.packed else None
            if packed is None:
                packed = module.pack(self._spec, now.weights.flat)
                now.packed[packed.backend, packed.isa] = packed
            now.bound[backends.chosen()] = packed
        return packed

    def __call__(
        self,
        x: Any,
        state: Any = None,
        *,
        lengths: Any = None,
        reset: Any = None,
        mask: Any = None,
        out: Array | None = None,
    ) -> tuple[Array, S]:
        """Inference: nothing is kept for a backward pass, and nothing is dropped; zoneout has its expectation.

        Parameters
        ----------
        x : array_like, shape (T, N, input_size), (N, T, input_size) if batch_first, or (T, input_size)
            Or packed: a `sequences.Ragged` or PackedSequence with data (M, input_size), never padded inside. Then y, dy
            and grads.x come in its layout, and out, reset and mask have (M, ...) in the order of its rows.
        state : (h, c) for an LSTM, h for the others; each shape (L*D, N, H), optional
            Initial state; zeros if not given.
        lengths : array_like of int, shape (N,), optional
            Row n runs lengths[n] steps, 0 to T, in any order; its later outputs are 0 and its final state is that
            of its last step.
        reset : array_like of bool, shape (T, N), optional
            Boundary between step t-1 and t: as if the sequence were cut there.
        mask : array_like of bool, shape (T, N), optional
            Where False the step copies the state and repeats the last output.
        out : ndarray, shape of y, optional
            Where y is written to; must share no memory with an input.

        Returns
        -------
        y : ndarray, shape (T, N, D*H)
            Output of the last layer: the forward half, then the reverse half.
        state : as the argument
            After each row's last step.

        Raises
        ------
        TypeError, ValueError
            An argument that does not fit, named, before anything is written.
        """
        packed, batch_first = self._bind(), self._batch_first
        # `infer` would ask the same first; asked here, a small call is done without its frame of eight arguments.
        done = packed.infer_small(x, state, lengths, reset, mask, out, batch_first)
        if done is not None:
            return done
        return functional.infer(
            packed, x, state, lengths=lengths, reset=reset, mask=mask, out=out, batch_first=batch_first
        )

    def forward(
        self,
        x: Any,
        state: Any = None,
        *,
        lengths: Any = None,
        reset: Any = None,
        mask: Any = None,
        tape: Tape | None = None,
        save: str = "all",
    ) -> tuple[Array, S, Tape]:
        """Run a sequence for training: as a call, with what regularises drawn, and a tape for `backward`.

        Drawn from the layer's generator, in this order and only what is on: dropout between layers, the masks of
        recurrent dropout, zoneout of h, zoneout of c. A layer made with a seed repeats its runs.

        Parameters
        ----------
        x, state, lengths, reset, mask
            As in a call. x is held by the tape and must not change until `backward`.
        tape : Tape, optional
            An old tape whose memory is taken over. It is void afterwards.
        save : {"all", "recompute"}
            Whether the tape holds the gates, or backward computes them again: a tape of a fifth of the size for an LSTM
            or a GRU, and a third more time for forward and backward. See `Tape`.

        Returns
        -------
        y : ndarray, shape (T, N, D*H), read-only
        state : as in a call
        tape : Tape

        Raises
        ------
        TypeError, ValueError
            An argument that does not fit, before anything is written.
        """
        now, drop, recurrent, zoneout = self._now, None, None, None
        if self._draws:
            drop, recurrent, zoneout = _draws.arguments(self._rng, self._spec, self._dropout, self._recurrent_dropout)
        y, last, new = functional.forward(
            self._bind(now), x, state, lengths=lengths, reset=reset, mask=mask, dropout=drop,
            recurrent_dropout=recurrent, zoneout=zoneout, tape=tape, save=save, batch_first=self._batch_first,
        )  # fmt: skip
        new.owner = now.owner
        return y, last, new

    def backward(
        self,
        tape: Tape,
        dy: Any = None,
        dstate: Any = None,
        *,
        retain: bool = False,
        out: Gradients | None = None,
        accumulate: bool = False,
    ) -> Gradients:
        """Back-propagation through time.

        Parameters
        ----------
        tape : Tape
            From `forward` of this layer; consumed unless `retain`.
        dy : array_like, shape of y, optional
            Gradient of the loss with respect to y; zero if not given.
        dstate : like the state, optional
            Gradient with respect to the final state; dh or dc of an LSTM may be None.
        retain : bool
            Keep the tape for another backward.
        out : Gradients, optional
            Gradients of an earlier backward, whose memory is used again and which is returned.
        accumulate : bool
            Add to the weight gradients in `out` instead of overwriting them.

        Returns
        -------
        Gradients
            `x`, `state`, `weights[name]`, and `flat`, the buffer of the weight gradients.

        Raises
        ------
        TypeError, ValueError
            A tape that has been used, that is another layer's, or whose weights have changed since; an argument that
            does not fit.
        """
        self._check_owner(tape)
        return functional.backward(tape, dy, dstate, retain=retain, out=out, accumulate=accumulate)

    def _check_owner(self, tape: Tape) -> None:
        """Raise if the tape is not one of this layer with its weights of now."""
        if getattr(tape, "owner", self._now.owner) is not self._now.owner:  # what is no tape is told so elsewhere
            message = (
                "tape does not belong to these weights: either the weights have changed since forward, "
                "or forward was called on another layer"
            )
            raise ValueError(message)

    def stream(self, batch_size: int = 1) -> Stream:
        """A state of its own and one time step per call: see `Stream`.

        Parameters
        ----------
        batch_size : int

        Raises
        ------
        TypeError, ValueError
            batch_size is no positive integer, or the layer is bidirectional.
        """
        return Stream(self, batch_size)

    # -- weights -----------------------------------------------------------------------------------------------------

    @property
    def weights(self) -> Weights:
        """Mapping of names to read-only views of one flat buffer, `weights.flat`.

        A change of the weights makes new arrays: those taken before keep their values.
        """
        return self._now.weights

    def state_dict(self) -> dict[str, Array]:
        """Copies of all weights by PyTorch's names, in PyTorch's order."""
        return {name: view.copy() for name, view in self._now.weights.items()}

    def load_state_dict(self, weights: Mapping[str, Any]) -> None:
        """Take over all weights.

        Parameters
        ----------
        weights : mapping of names to array_like
            Exactly the names and shapes of `state_dict()`; converted to the layer's dtype.

        Raises
        ------
        TypeError
            Not a mapping, or values that are no real numbers.
        ValueError
            Missing, unknown or misshapen names, all of them in one message. Nothing is changed.
        """
        if not hasattr(weights, "keys"):
            message = f"weights is a {type(weights).__name__}; it must be a mapping of names to arrays"
            raise TypeError(message)
        self._commit(_validate.flat_weights(weights, self._spec))

    def edit(self) -> AbstractContextManager[Scratch]:
        """Change weights in place: the block gets copies, which become the weights on leaving it without an exception.

        Raises
        ------
        RuntimeError
            The weights were changed elsewhere during the block; its changes are discarded.

        Examples
        --------
        >>> with lstm.edit() as weights:  # doctest: +SKIP
        ...     weights["weight_hh_l0"] *= 0.9
        ...     weights.flat -= 1e-3 * grads.flat
        """
        return _Edit(self)

    def _commit(self, flat: Array, before: _Snapshot | None = None) -> None:
        new = _Snapshot(self._spec, flat)
        with self._lock:
            if before is not None and self._now is not before:
                message = "the weights were changed by something else during edit(); its changes are discarded"
                raise RuntimeError(message)
            self._now = new

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_"):
            if name in self._now.weights:
                return self._now.weights[name]
            if name in self._options:
                return self._spec.dtype if name == "dtype" else self._options[name]
        message = f"{type(self).__name__!r} object has no attribute {name!r}"
        raise AttributeError(message)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            spec = getattr(self, "_spec", None)  # a subclass may set attributes before it calls our constructor
            if spec is not None and name in spec.weight_shapes:
                with self.edit() as weights:
                    weights[name] = value
                return
            if spec is not None and name in self._options:
                message = f"{name} is fixed when the layer is made"
                raise AttributeError(message)
        object.__setattr__(self, name, value)

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *self._options, *self._spec.weight_shapes]

    # -- copies and files --------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write options and weights to a file that `fastrnn.load` makes a layer from.

        Of a subclass, the LSTM, GRU or RNN that it is: what it adds is not written.

        Parameters
        ----------
        path : str or path-like
            Ends in .npz, or in .safetensors if that package is installed.

        Raises
        ------
        ValueError, ImportError
            Another suffix, or .safetensors without the package.
        """
        _io.write(path, self._now.weights, {"layer": self._cell.upper(), "format": 1, "options": self._options})

    @classmethod
    def _restore(cls: type[R], options: Mapping[str, Any], arrays: Mapping[str, Any]) -> R:
        """A layer from the contents of a file, none of which is trusted."""
        made = cls.__new__(cls)
        known = {"input_size", "hidden_size", *COMMON, *REGULAR, *cls._own}
        options = {**options, **{name: LATER[name] for name in LATER if name in known and name not in options}}
        if wrong := known ^ options.keys():
            message = f"the stored options lack, or have without need: {', '.join(sorted(wrong))}"
            raise ValueError(message)
        try:
            made._set_up(options)
        except TypeError as error:
            message = f"the stored options are wrong: {error}"
            raise ValueError(message) from error
        # Before anything of the stored sizes is made: one that was changed must not cost time and memory.
        spec = made._spec
        per = (4 if spec.bias else 2) + bool(spec.proj_size) + spec.peephole
        count = spec.num_layers * spec.directions * per
        if len(arrays) != count:
            message = f"there are {len(arrays)} stored weights; for the stored options there must be {count}"
            raise ValueError(message)
        made._rng = np.random.default_rng()
        try:
            made._commit(_validate.flat_weights(arrays, spec))
        except TypeError as error:
            message = f"the stored weights are wrong: {error}"
            raise ValueError(message) from error
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {
            "options": self._options,
            "flat": self._now.weights.flat,
            "rng": self._rng,
            "attributes": dict(getattr(self, "__dict__", {})),  # of a subclass
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._set_up(state["options"])
        self._rng = state["rng"]
        self._commit(_validate.flat_weights(state["flat"], self._spec))
        for name, value in state["attributes"].items():
            setattr(self, name, value)

    def __repr__(self) -> str:
        shown = dict(self._options)
        sizes = f"{shown.pop('input_size')}, {shown.pop('hidden_size')}"
        options = "".join(f", {name}={value!r}" for name, value in shown.items() if value != DEFAULTS[name])
        return f"{type(self).__name__}({sizes}{options})"
