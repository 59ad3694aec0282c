"""What a forward pass leaves for the backward pass, and what the backward pass gives."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt

from . import _validate
from ._packed import PackedLayout
from ._spec import Regularisers, Spec
from ._weights import Weights
from .backends import Packed, empty

Array = npt.NDArray[Any]


class Tape:
    """What `backward` needs from one `forward`.

    It holds the packed weights (so backward runs on the same backend and instruction set), the call's inputs, y, and
    the backend's buffer: per (t, n), layer and direction 6H values for an LSTM, 5H for a GRU, H for an RNN, y included.
    x is held, not copied: it must not change until backward.

    Of a forward with `save="recompute"` the buffer has no gates: H values for every cell, and for an LSTM H more every
    S steps. Backward goes through time S steps at a time, from the end, and first runs them forward again, which adds a
    third to the arithmetic of a training step. S is about the larger of 256/N and sqrt(T/5). Outputs, dx and the
    gradient of the state are those of `save="all"` (bit for bit on the compiled backend); weight gradients differ by
    rounding, since their sums go through the steps in another order.

    A tape is used once. `backward(tape, retain=True)` keeps it for another time; `forward(..., tape=old)` takes its
    memory for a new tape, after which the old one is void.

    Attributes
    ----------
    spec : Spec
        Cell, sizes and options.
    steps, batch : int
        T and N (1 without a batch axis).
    consumed : bool
        Whether `backward` can no longer use it.
    """

    __slots__ = (
        "_buffer", "_ready", "batch", "batch_first", "batched", "c0", "dropout", "h0", "layout", "lengths", "mask",
        "owner", "packed", "plain", "regular", "reset", "spec", "steps", "x", "y",
    )  # fmt: skip

    def __init__(
        self, packed: Packed, buffer: object, x: Array, y: Array, h0: Array | None, c0: Array | None,
        lengths: Array | None = None, reset: Array | None = None, mask: Array | None = None,
        dropout: Array | None = None, regular: Regularisers | None = None, batched: bool = True,
        batch_first: bool = False, layout: PackedLayout | None = None, plain: bool = False,
    ) -> None:  # fmt: skip
        self.packed = packed
        self.spec = packed.spec
        self.x: Array | None = x
        self.y: Array | None = y
        self.h0, self.c0 = h0, c0
        self.lengths, self.reset, self.mask, self.dropout = lengths, reset, mask, dropout
        self.regular = regular
        self.batched, self.batch_first = batched, batch_first
        self.layout = layout  # of a packed x
        self.plain = plain  # of a `forward_plain`
        self.steps, self.batch = x.shape[:2] if layout is None else (layout.packing.steps, layout.packing.batch)
        self.owner: object = None  # set by a layer, to know its tapes again
        # One element or none. Taking it is a single list operation, so of two threads only one gets the buffer.
        self._buffer = [buffer]
        self._ready = True

    @property
    def consumed(self) -> bool:
        return not self._ready

    def check(self) -> None:
        """Raise ValueError if the tape has been used."""
        if not self._ready:
            message = "tape has been used: backward consumes it unless retain=True, and so does forward(..., tape=it)"
            raise ValueError(message)

    def take(self) -> object:
        """The buffer, for one user at a time."""
        try:
            return self._buffer.pop()
        except IndexError:
            message = (
                "tape is in use by another call" if self._ready else "tape has already given its memory to another"
            )
            raise ValueError(message) from None

    def take_ready(self) -> object:
        """The buffer for a backward: of two threads that both found the tape unused, one may have used it since."""
        buffer = self.take()
        if not self._ready:
            self._buffer.append(buffer)
        self.check()
        return buffer

    def give_back(self, buffer: object, ready: bool) -> None:
        """Return the buffer; unless `ready`, only its memory is of use, and nothing else is kept alive."""
        if not ready:
            self.void()
        self._buffer.append(buffer)

    def void(self) -> None:
        """Forget the inputs: this tape is not for backward any more."""
        self._ready = False
        self.x = self.y = self.h0 = self.c0 = self.lengths = self.reset = self.mask = self.dropout = self.regular = None

    def memory_for(self, backend: str) -> object | None:
        """Give the buffer away to a new tape of a backend; None if that cannot use it."""
        buffer = self.take()
        self.void()
        return buffer if self.packed.backend == backend else None

    def __repr__(self) -> str:
        where = f"{self.packed.backend} {self.packed.isa}".rstrip()
        used = ", consumed" if self.consumed else ""
        return f"<Tape of {self.spec.cell}, T={self.steps}, N={self.batch}, {where}{used}>"


def check_tape(tape: Tape) -> None:
    """Raise TypeError or ValueError unless it is a tape that has not been used."""
    if not isinstance(tape, Tape):
        message = f"tape is a {type(tape).__name__}; it must be a Tape from forward"
        raise TypeError(message)
    tape.check()


class Gradients:
    """Gradients of one backward pass: the memory of one can be given to the next as `out`.

    Attributes
    ----------
    x : ndarray, shaped like the input of `forward`; of packed input in its layout
    state : (dh0, dc0) for an LSTM, dh0 for the others; shaped like the state
        Gradient with respect to the initial state, also if none was given.
    weights : Weights
        Mapping of PyTorch's names to read-only views of `flat`.
    flat : ndarray, shape (weight_count,)
        All weight gradients in `state_dict` order, writeable (clipping, averaging over processes).
    """

    __slots__ = ("dc0", "dh0", "dx", "flat", "spec", "state", "weights", "x")

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.flat: Array = empty((spec.weight_count,), spec.dtype)
        self.weights = Weights(spec, self.flat)
        self.dx: Array = np.empty((0, 0, spec.input_size), spec.dtype)  # (T, N, I)
        self.dh0: Array = np.empty((0, 0, 0), spec.dtype)  # (L*D, N, H)
        self.dc0: Array | None = None
        self.x: Any = self.dx
        self.state: Any = self.dh0

    @classmethod
    def of(cls, spec: Spec, dx: Array, dh0: Array, dc0: Array | None, flat: Array) -> Gradients:
        """What was computed, in the layout (T, N, I)."""
        made = cls.__new__(cls)
        made.spec, made.flat, made.weights = spec, flat, Weights(spec, flat)
        made.dx, made.dh0, made.dc0 = dx, dh0, dc0
        return made.plain()

    def plain(self) -> Gradients:
        """These, with x and state as of a call in the layout (T, N, I)."""
        self.x = self.dx
        self.state = self.dh0 if self.dc0 is None else (self.dh0, self.dc0)
        return self

    def fit(self, tape: Tape) -> None:
        """Make x and state the right size for a tape, in new memory where the old does not fit or is the tape's x."""
        spec, batched, batch_first = self.spec, tape.batched, tape.batch_first
        x = cast(Array, tape.x)
        shape = x.shape
        dense = self.dx.swapaxes(0, 1) if batched and batch_first else self.dx
        if self.dx.shape != shape or not dense.flags.c_contiguous or _validate.overlap(self.dx, x):
            if batched and batch_first:
                self.dx = empty((tape.batch, tape.steps, spec.input_size), spec.dtype).swapaxes(0, 1)
            else:
                self.dx = empty(shape, spec.dtype)
        states = _validate.state_shape(spec, tape.batch)
        if self.dh0.shape != states:
            self.dh0 = np.empty(states, spec.dtype)
            self.dc0 = None
            if spec.cell == "lstm":
                self.dc0 = np.empty(_validate.state_shape(spec, tape.batch, cell=True), spec.dtype)
        self.x = self.dx[:, 0] if not batched else self.dx.swapaxes(0, 1) if batch_first else self.dx
        if tape.layout is not None:
            self.x, batched = tape.layout.wrap(self.x), True
        h = self.dh0 if batched else self.dh0[:, 0]
        self.state = h if self.dc0 is None else (h, self.dc0 if batched else self.dc0[:, 0])

    @property
    def parts(self) -> tuple[Array, Array, Array | None, Array]:
        """dx (T, N, I), dh0 and dc0 (L*D, N, H), and flat: what a backend writes."""
        return self.dx, self.dh0, self.dc0, self.flat

    def shares(self, array: Array) -> bool:
        """Whether the array may be memory of these gradients."""
        return any(np.may_share_memory(part, array) for part in self.parts if part is not None)

    def __repr__(self) -> str:
        shape = self.x.shape if isinstance(self.x, np.ndarray) else self.dx[:, 0].shape
        return f"<Gradients of {self.spec.cell}: x {shape}, {self.flat.size} weights of {self.spec.dtype}>"
