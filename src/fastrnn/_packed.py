"""Packed sequences as a layer's input: a `Ragged`, a `PackedSequence` or PyTorch's own, and results in the same layout.

Inside, packed data (M, X) are (M, 1, X), like a sequence without a batch; only states have the N of the rows.

Letters: T steps, N batch, M rows of packed data.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import _layouts, _validate
from ._layouts import PackedSequence, Ragged
from ._packing import Packing
from ._spec import Spec

Array = npt.NDArray[Any]


class PackedLayout:
    """How the rows of an x were packed.

    Attributes
    ----------
    packing : Packing
        For the backends.
    """

    __slots__ = ("_given", "_x", "packing")

    def __init__(self, given: Ragged | PackedSequence) -> None:
        self._given = given
        self._x: Array | None = given.data
        if isinstance(given, Ragged):
            lengths = given.lengths
            self.packing = Packing(int(lengths.max(initial=0)), lengths, offsets=given.offsets)
        else:
            sizes, places = given.batch_sizes, given.unsorted_indices
            self.packing = Packing(len(sizes), given.lengths, batch_sizes=sizes, places=places)

    def input(self, spec: Spec) -> tuple[Array, bool]:
        """x as (M, 1, I) that fits, once: it is forgotten here. As `_validate.sequence`."""
        data, self._x = self._x, None
        assert data is not None
        self._given = self._given._replace(data=data[:0])
        if data.ndim != 2 or data.shape[1] != spec.input_size:
            message = (
                f"x.data has shape {data.shape}; it must be (rows, input_size), where input_size is {spec.input_size}"
            )
            raise ValueError(message)
        x = _validate.real_array("x.data", data, spec.dtype)[:, None]
        return x if _validate.fits(x) else x.copy(), False

    def data(self, name: str, value: Any) -> Any:
        """What was given beside x: rows in its order as they are, or out of a layout that must be the same."""
        other = None if value is None else layout(value)
        if other is None:
            return value
        mine, theirs = self.packing, other.packing
        same = (
            (mine.offsets is None) == (theirs.offsets is None)
            and np.array_equal(mine.lengths, theirs.lengths)
            and np.array_equal(_places(mine), _places(theirs))
        )
        if not same:
            message = f"{name} is packed in another way than x; it must have the same rows in the same order"
            raise ValueError(message)
        return other._given.data

    def wrap(self, data: Array) -> Any:
        """Results (M, ...) in the layout of x: a Ragged or a PackedSequence."""
        return self._given._replace(data=data)


def layout(x: Any, lengths: Any = None) -> PackedLayout | None:
    """What packs an x; None if it is an array or what becomes one.

    Raises
    ------
    TypeError, ValueError
        Offsets that fall, batch_sizes that grow, totals that are not those of the data, no permutation; lengths too.
    """
    if type(x) is np.ndarray or not isinstance(x, tuple) or not (hasattr(x, "offsets") or hasattr(x, "batch_sizes")):
        return None
    if lengths is not None:
        message = "lengths is given, but x is packed; a packed x has its own, so it must be None"
        raise ValueError(message)
    given = _layouts.checked(x)
    if isinstance(given, Ragged) and len(given.offsets):  # a part of longer data: Arrow's slices are such
        first, last = given.offsets[0], given.offsets[-1]
        given = Ragged(given.data[first:last], given.offsets - first)
    return PackedLayout(given)


def _places(packing: Packing) -> Array:
    return np.arange(packing.batch) if packing.places is None else packing.places
