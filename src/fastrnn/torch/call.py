"""What a recurrent call on tensors is, besides the tensors."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from .. import _validate
from .._packing import Packing
from .._spec import Spec
from . import draws
from .cache import Snapshot
from .draws import Drawn, Rates

Array = npt.NDArray[Any]


class Call:
    """What a call is besides its tensors.

    Attributes
    ----------
    layout : {"TNI", "NTI", "rows", "NI"}
        Of the input: time-major, batch first, the data of a PackedSequence, or one step of a cell.
    packing : Packing or None
        Of a PackedSequence, whose data (M, X) are (M, 1, X) here.
    lengths, reset : ndarray or None
        As the backends take them, time-major.
    p, rates
        Of dropout between layers, and of what regularises the recurrence, if anything does.
    seen : tuple of ndarray or None
        Of an ordinary call x, h0 and c0 as `Snapshot.calls` saw them, for the one use right after.
    """

    __slots__ = (
        "batch",
        "double",
        "layout",
        "lengths",
        "p",
        "packing",
        "rates",
        "reset",
        "seen",
        "snapshot",
        "spec",
        "steps",
    )

    def __init__(
        self, snapshot: Snapshot, layout: str, steps: int, batch: int, p: float = 0.0,
        lengths: Array | None = None, reset: Array | None = None, packing: Packing | None = None,
        rates: Rates | None = None, seen: tuple[Array, Array | None, Array | None] | None = None,
    ) -> None:  # fmt: skip
        self.snapshot, self.layout, self.steps, self.batch, self.p = snapshot, layout, steps, batch, p
        self.lengths, self.reset, self.packing, self.rates = lengths, reset, packing, rates
        self.seen = seen
        self.spec: Spec = snapshot.spec
        self.double = snapshot.double

    def sequence(self, tensor: Tensor) -> Array:
        """(T, N, features) of a tensor in the layout of the call, as kernels can walk through it."""
        given = self.snapshot.see(tensor, self.double, self.layout == "NI")
        if self.packing is not None:
            given = given[:, None]
        elif self.layout == "NTI":
            given = given.transpose(1, 0, 2)
        return given if _validate.fits(given) else given.copy()

    def new(self, like: Tensor, features: int) -> Tensor:
        """A tensor in the layout of the call that `sequence` gives without a copy.

        Of batch-first calls it is (N, T, features) on time-major memory, as PyTorch's outputs are, and no view: such an
        output of a node could not be changed in place.
        """
        if self.packing is not None:
            return like.new_empty((self.packing.rows, features))
        if self.layout == "NI":
            return like.new_empty((self.batch, features))
        if self.layout == "NTI":
            strides = features, self.batch * features, 1
            return like.new_empty_strided((self.batch, self.steps, features), strides)
        return like.new_empty((self.steps, self.batch, features))

    def state(self, tensor: Tensor | None) -> Array | None:
        """(L*D, N, H), dense."""
        if tensor is None:
            return None
        given = self.snapshot.see(tensor, self.double, self.layout == "NI")
        return given if given.flags.c_contiguous and given.flags.aligned else given.copy()

    def new_state(self, like: Tensor, state: Tensor | None) -> Tensor:
        """As PyTorch gives it: (N, H) of a cell, else (L*D, N, H)."""
        if state is not None and state.is_contiguous():
            return torch.empty_like(state)  # 0.9 us, by the shape 1.5
        spec = self.spec
        if self.layout == "NI":
            return like.new_empty((self.batch, spec.hidden_size))
        return like.new_empty((spec.num_layers * spec.directions, self.batch, spec.hidden_size))

    def draw(self) -> Drawn:
        """What is random in this call."""
        if not self.p and self.rates is None:
            return draws.NOTHING
        return draws.draw(self.spec, self.steps, self.batch, self.p, self.rates, self.packing)
