"""Sequences of different length in four layouts, and every way from one to another.

    list of arrays    N arrays (T_n, ...)
    Padded            data (T, N, ...) or (N, T, ...) if batch_first, and lengths (N,)
    Ragged            data (sum of lengths, ...), row after row, and offsets (N + 1,): the layout of Arrow's lists
    PackedSequence    data (sum of lengths, ...), step after step, and batch_sizes (T,): the layout of PyTorch

    rows  a0 a1 a2    padded (T, N)   a0 b0 c0      ragged  a0 a1 a2 b0 c0 c1      packed  a0 c0 b0 a1 c1 a2
          b0          with lengths    a1 .  c1      with offsets  0 3 4 6          with batch_sizes  3 2 1
          c0 c1       3 1 2           a2 .  .                                      and sorted_indices  0 2 1

Both packed layouts have an order in which they hold their elements and an address for the element (t, n). A conversion
takes the order of one and the address of the other, so it is one fancy index: each element is copied once, and there is
no loop over steps. What needs no copy is a view: rows of ragged and padded data, and padded data without padding.

Letters: T steps, N batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from . import _validate
from . import _validate_sequences as _check

Array: TypeAlias = npt.NDArray[Any]
Indices: TypeAlias = npt.NDArray[np.int64]


class Padded(NamedTuple):
    """Rows side by side, filled up to the longest.

    Attributes
    ----------
    data : ndarray, shape (T, N, ...), or (N, T, ...) if made with batch_first
    lengths : ndarray of int64, shape (N,)
        Row n is data[: lengths[n], n]: what a layer takes as `lengths=`.
    """

    data: Array
    lengths: Indices


class Ragged(NamedTuple):
    """Rows one after the other.

    Attributes
    ----------
    data : ndarray, shape (M, ...)
    offsets : ndarray of int64, shape (N + 1,)
        Row n is data[offsets[n] : offsets[n + 1]].
    """

    data: Array
    offsets: Indices

    @property
    def lengths(self) -> Indices:
        """ndarray of int64, shape (N,): steps of each row."""
        return np.diff(self.offsets)


class PackedSequence(NamedTuple):
    """Steps one after the other, the longest row first in each: the fields of PyTorch's PackedSequence.

    Attributes
    ----------
    data : ndarray, shape (sum of batch_sizes, ...)
    batch_sizes : ndarray of int64, shape (T,)
        How many rows have a step t; it never grows.
    sorted_indices : ndarray of int64, shape (N,), or None
        The rows from the longest to the shortest; None: in the order given. Rows without any step come last.
    unsorted_indices : ndarray of int64, shape (N,), or None
        The inverse: where row n stands among the sorted.
    """

    data: Array
    batch_sizes: Indices
    sorted_indices: Indices | None = None
    unsorted_indices: Indices | None = None

    @property
    def lengths(self) -> Indices:
        """ndarray of int64, shape (N,): steps of each row, in the order before sorting."""
        sizes, order = self.batch_sizes, self.sorted_indices
        count = len(order) if order is not None else int(sizes[0]) if len(sizes) else 0
        # The row at place j has a step t if batch_sizes[t] > j; they fall, so these t are the first ones.
        lengths = np.searchsorted(-sizes, -np.arange(count), side="left").astype(np.int64)
        if order is None:
            return lengths
        unsorted = np.empty_like(lengths)
        unsorted[order] = lengths
        return unsorted


Sequences: TypeAlias = Iterable[npt.ArrayLike] | Padded | Ragged | PackedSequence


def pad(
    sequences: Sequences,
    *,
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: int | None = None,
) -> Padded:
    """Sequences side by side in one array, as `torch.nn.utils.rnn.pad_sequence` and `pad_packed_sequence`.

    Parameters
    ----------
    sequences : list of array_like (T_n, ...), Ragged or PackedSequence
        Of any real dtype; a list of several dtypes takes the one that holds them all.
    batch_first : bool
        Whether the result is (N, T, ...).
    padding_value : float
        What stands after the end of a row. For integer data it must be an integer of their dtype.
    total_length : int, optional
        T; the longest row if not given.

    Returns
    -------
    Padded
        `data, lengths`: `layer(data, lengths=lengths)`.

    Raises
    ------
    TypeError, ValueError
        An argument that does not fit, named.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.sequences import pad
    >>> data, lengths = pad([[1, 2, 3], [4]], batch_first=True)
    >>> data.tolist(), lengths.tolist()
    ([[1, 2, 3], [4, 0, 0]], [3, 1])
    """
    batch_first = _validate.flag("batch_first", batch_first)
    source = _source(sequences, None, batch_first)
    lengths = source.lengths if not isinstance(source, list) else _lengths_of(source)
    steps = int(lengths.max(initial=0))
    if total_length is not None:
        why = "the steps of the longest row"
        steps = _check.at_least("total_length", _validate.natural_int("total_length", total_length), steps, why)
    dtype = np.result_type(*source) if isinstance(source, list) else source.data.dtype
    rest = source[0].shape[1:] if isinstance(source, list) else _rest(source)
    value = _check.filler(padding_value, dtype)
    batch = len(lengths)
    shape = (batch, steps, *rest) if batch_first else (steps, batch, *rest)
    try:
        out = np.full(shape, value, dtype)
    except ValueError as error:
        message = f"total_length is {steps}; an array of shape {shape} is more than this machine can address"
        raise ValueError(message) from error
    rows = out if batch_first else out.swapaxes(0, 1)  # (N, T, ...)
    if isinstance(source, list):
        for n, array in enumerate(source):
            rows[n, : len(array)] = array
    elif isinstance(source, PackedSequence):
        rows[_packed_order(source)] = source.data
    else:
        order = _ragged_order(lengths)
        if isinstance(source, Padded):
            rows[order] = source.data.swapaxes(0, 1)[order]
        else:
            rows[order] = source.data[source.offsets[0] : source.offsets[-1]]
    return Padded(out, lengths)


def unpad(padded: Any, lengths: npt.ArrayLike | None = None, *, batch_first: bool = False) -> list[Array]:
    """The rows of a padded array without their padding, as `torch.nn.utils.rnn.unpad_sequence`.

    Parameters
    ----------
    padded : array_like, shape (T, N, ...), or (N, T, ...) if batch_first; or a Padded
    lengths : array_like of int, shape (N,)
        0 to T; not given with a Padded, which has its own.
    batch_first : bool

    Returns
    -------
    list of N ndarrays, shapes (lengths[n], ...)
        Views of `padded`.

    Raises
    ------
    TypeError, ValueError
        An argument that does not fit, named.
    """
    batch_first = _validate.flag("batch_first", batch_first)
    data, own = padded if isinstance(padded, Padded) and lengths is None else (padded, lengths)
    found = _padded(data, own, batch_first, "padded")
    return [found.data[:length, n] for n, length in enumerate(found.lengths)]


def pack(
    sequences: Any, lengths: npt.ArrayLike | None = None, *, batch_first: bool = False, enforce_sorted: bool = False
) -> PackedSequence:
    """Sequences step by step, as `torch.nn.utils.rnn.pack_sequence` and `pack_padded_sequence`.

    Parameters
    ----------
    sequences : list of array_like (T_n, ...), Padded or Ragged, or with `lengths` a padded array
    lengths : array_like of int, shape (N,), optional
        Of a padded array: 0 to T, in any order.
    batch_first : bool
        Whether the padded array is (N, T, ...).
    enforce_sorted : bool
        Whether the rows must come longest first already; then there are no indices.

    Returns
    -------
    PackedSequence
        `torch.nn.utils.rnn.PackedSequence(*map(torch.from_numpy, packed))` is PyTorch's. Rows of one length keep their
        order. The data of a padded array without padding are a view of it where its strides allow.

    Raises
    ------
    TypeError, ValueError
        An argument that does not fit, named.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.sequences import pack
    >>> packed = pack([[1, 2, 3], [4], [5, 6]])
    >>> packed.data.tolist(), packed.batch_sizes.tolist(), packed.sorted_indices.tolist()
    ([1, 5, 4, 2, 6, 3], [3, 2, 1], [0, 2, 1])
    """
    batch_first = _validate.flag("batch_first", batch_first)
    enforce_sorted = _validate.flag("enforce_sorted", enforce_sorted)
    source = _source(sequences, lengths, batch_first)
    found = _lengths_of(source) if isinstance(source, list) else source.lengths
    if enforce_sorted:
        _check.descending(found)
    order = np.argsort(-found, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    steps = int(found.max(initial=0))
    # rows longer than t: all but those that come before t + 1 in rising order
    sizes = len(found) - np.searchsorted(found[order[::-1]], np.arange(1, steps + 1), side="left").astype(np.int64)
    made = PackedSequence(np.empty(0), sizes, order, rank)
    if isinstance(source, list):
        first = _starts(sizes)
        data = np.empty((int(found.sum()), *source[0].shape[1:]), np.result_type(*source))
        for place, array in zip(rank, source, strict=True):
            data[first[: len(array)] + place] = array
    elif isinstance(source, Padded) and len(found) and bool((found == len(source.data)).all()):
        data = source.data.reshape(source.data.shape[0] * source.data.shape[1], *_rest(source))
    else:
        n, t = _packed_order(made)
        if isinstance(source, Padded):
            data = source.data[t, n]
        elif isinstance(source, Ragged):
            data = source.data[source.offsets[n] + t]
        else:
            assert source.unsorted_indices is not None
            data = source.data[_starts(source.batch_sizes)[t] + source.unsorted_indices[n]]
    return made._replace(data=data) if not enforce_sorted else PackedSequence(data, sizes)


def unpack(packed: PackedSequence | Ragged) -> list[Array]:
    """The rows of packed or ragged data, as `torch.nn.utils.rnn.unpack_sequence`.

    Parameters
    ----------
    packed : PackedSequence or Ragged
        PyTorch's own PackedSequence (on the CPU) will do.

    Returns
    -------
    list of N ndarrays, shapes (T_n, ...)
        In the order before sorting; views of the data of a Ragged, copies of packed data, whose rows lie scattered.

    Raises
    ------
    TypeError, ValueError
        Anything else, batch_sizes that grow, offsets that fall, indices that are no permutation.
    """
    source = _source(packed, None, False)
    if isinstance(source, Ragged):
        return [source.data[i:j] for i, j in zip(source.offsets[:-1], source.offsets[1:], strict=True)]
    if not isinstance(source, PackedSequence):
        message = f"packed is a {type(packed).__name__}; it must be a PackedSequence or a Ragged"
        raise TypeError(message)
    assert source.unsorted_indices is not None
    first = _starts(source.batch_sizes)
    places = zip(source.lengths, source.unsorted_indices, strict=True)
    return [source.data[first[:length] + place] for length, place in places]


def ragged(sequences: Any, lengths: npt.ArrayLike | None = None, *, batch_first: bool = False) -> Ragged:
    """Sequences one after the other in one array, and where each begins.

    Parameters
    ----------
    sequences : list of array_like (T_n, ...), Padded or PackedSequence, or with `lengths` a padded array
    lengths : array_like of int, shape (N,), optional
        Of a padded array: 0 to T.
    batch_first : bool
        Whether the padded array is (N, T, ...).

    Returns
    -------
    Ragged
        The data of a batch_first array without padding are a view of it where its strides allow.

    Raises
    ------
    TypeError, ValueError
        An argument that does not fit, named.

    Examples
    --------
    >>> from fastrnn.sequences import ragged
    >>> data, offsets = ragged([[1, 2, 3], [4], [5, 6]])
    >>> data.tolist(), offsets.tolist()
    ([1, 2, 3, 4, 5, 6], [0, 3, 4, 6])
    """
    batch_first = _validate.flag("batch_first", batch_first)
    source = _source(sequences, lengths, batch_first)
    if isinstance(source, Ragged):
        return source
    found = _lengths_of(source) if isinstance(source, list) else source.lengths
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(found)])
    if isinstance(source, list):
        return Ragged(np.concatenate(source), offsets)
    n, t = _ragged_order(found)
    if isinstance(source, Padded):
        rows = source.data.swapaxes(0, 1)
        dense = len(found) > 0 and bool((found == len(source.data)).all())
        return Ragged(rows.reshape(len(n), *_rest(source)) if dense else rows[n, t], offsets)
    assert source.unsorted_indices is not None
    return Ragged(source.data[_starts(source.batch_sizes)[t] + source.unsorted_indices[n]], offsets)


# ---------------------------------------------------------------------------------------------------------------------


def _source(value: Any, lengths: Any, batch_first: bool) -> list[Array] | Padded | Ragged | PackedSequence:
    """What was given, checked: a Padded is time-major, a PackedSequence has both its indices."""
    if lengths is not None:
        return _padded(value, lengths, batch_first, "sequences")
    if isinstance(value, Padded):
        return _padded(value.data, value.lengths, batch_first, "data")
    if isinstance(value, Ragged):
        data = _check.rows("data", value.data)
        return Ragged(data, _check.offsets(value.offsets, len(data)))
    if isinstance(value, tuple) and hasattr(value, "batch_sizes"):  # ours or PyTorch's
        return _packed(cast(PackedSequence, value))
    return _check.arrays(value)


def checked(value: Any) -> Ragged | PackedSequence:
    """A packed x of a layer; of a PackedSequence without indices they stay away."""
    source = _source(value, None, False)
    assert isinstance(source, Ragged | PackedSequence)
    if isinstance(source, PackedSequence) and value.sorted_indices is None and value.unsorted_indices is None:
        return PackedSequence(source.data, source.batch_sizes)
    return source


def _padded(value: Any, lengths: Any, batch_first: bool, name: str) -> Padded:
    data = _check.rows(name, value, axes=2)
    if batch_first:
        data = data.swapaxes(0, 1)
    if lengths is None:
        message = "lengths is missing; a padded array needs it, one integer for each row"
        raise TypeError(message)
    return Padded(data, _validate.lengths(lengths, data.shape[0], data.shape[1], True))


def _packed(value: PackedSequence) -> PackedSequence:
    data = _check.rows("data", value.data)
    sizes = _check.batch_sizes(value.batch_sizes, len(data))
    alive = int(sizes[0]) if len(sizes) else 0
    order, rank = value.sorted_indices, value.unsorted_indices
    if order is None and rank is None:
        same = np.arange(alive)
        return PackedSequence(data, sizes, same, same)
    if order is not None:  # each is the inverse of the other, and argsort inverts a permutation
        order = _check.permutation("sorted_indices", order, alive)
    rank = np.argsort(cast(Indices, order)) if rank is None else _check.permutation("unsorted_indices", rank, alive)
    order = np.argsort(rank) if order is None else order
    _check.inverse(order, rank)
    return PackedSequence(data, sizes, order, rank)


def _lengths_of(arrays: list[Array]) -> Indices:
    return np.array([len(array) for array in arrays], dtype=np.int64)


def _rest(source: Padded | Ragged | PackedSequence) -> tuple[int, ...]:
    """Shape of one element."""
    return source.data.shape[2 if isinstance(source, Padded) else 1 :]


def _starts(counts: Indices) -> Indices:
    """Where each of consecutive blocks begins."""
    return np.cumsum(counts) - counts


def _ragged_order(lengths: Indices) -> tuple[Indices, Indices]:
    """n and t of every element, row after row."""
    n = np.repeat(np.arange(len(lengths)), lengths)
    t = np.arange(len(n)) - np.repeat(_starts(lengths), lengths)
    return n, t


def _packed_order(packed: PackedSequence) -> tuple[Indices, Indices]:
    """n and t of every element, step after step, the longest row first."""
    assert packed.sorted_indices is not None
    sizes = packed.batch_sizes
    t = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(len(t)) - np.repeat(_starts(sizes), sizes)
    return packed.sorted_indices[place], t
