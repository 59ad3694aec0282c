"""Sequences of different length, long ones and many: layouts, batches of similar length, windows, chunks.

Layouts (`pad`, `unpad`, `pack`, `unpack`, `ragged`) come from `_layouts`. For training there are

    bucket_by_length    rows of similar length together, so that little of a batch is padding
    windows             one long series as many short rows, without a copy
    reverse             each row's steps from its last to its first
    truncated           one long sequence in chunks, the state carried from each to the next

Letters: T steps, N batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from . import _validate
from . import _validate_sequences as _check
from ._layouts import PackedSequence, Padded, Ragged, pack, pad, ragged, unpack, unpad

__all__ = [
    "Buckets",
    "PackedSequence",
    "Padded",
    "Ragged",
    "Truncated",
    "bucket_by_length",
    "pack",
    "pad",
    "ragged",
    "reverse",
    "truncated",
    "unpack",
    "unpad",
    "windows",
]

Array: TypeAlias = npt.NDArray[Any]
Indices: TypeAlias = npt.NDArray[np.int64]


class Buckets:
    """Epochs of batches of similar length: what `bucket_by_length` returns.

    Iterating over it is one epoch, and the next time it is the next epoch; `epoch(k)` gives any of them again.

    Attributes
    ----------
    lengths : ndarray of int64, shape (M,), read-only
    batch_size : int
    next_epoch : int
        Which one the next iteration gives. Can be assigned, to go on where training was interrupted.
    """

    def __init__(self, lengths: Indices, batch_size: int, shuffle: bool, drop_last: bool, pool: int, seed: int) -> None:
        self.lengths = lengths
        self.lengths.flags.writeable = False
        self.batch_size = batch_size
        self.next_epoch = 0
        self._shuffle, self._drop_last, self._pool, self._seed = shuffle, drop_last, pool, seed

    def epoch(self, number: int) -> list[Indices]:
        """The batches of one epoch, each the indices of its rows; the same for the same number and seed.

        Parameters
        ----------
        number : int
            From 0.

        Raises
        ------
        TypeError, ValueError
            No integer, or a negative one.
        """
        number = _validate.natural_int("number", number)
        size, count = self.batch_size, len(self.lengths)
        rng = np.random.default_rng([self._seed, number])
        order = rng.permutation(count) if self._shuffle else np.argsort(self.lengths, kind="stable")
        if self._drop_last:  # before sorting, so that it is not always the longest that are left out
            order = order[: len(self) * size]
        if not self._shuffle:
            return _cut(order, size)
        batches: list[Indices] = []
        for rows in _cut(order, size * self._pool):  # sorting keeps the order of equal lengths, which is random
            batches += _cut(rows[np.argsort(self.lengths[rows], kind="stable")], size)
        return [batches[k] for k in rng.permutation(len(batches))]

    def __iter__(self) -> Iterator[Indices]:
        batches = self.epoch(self.next_epoch)
        self.next_epoch += 1
        return iter(batches)

    def __len__(self) -> int:
        """Batches of an epoch."""
        count = len(self.lengths)
        return count // self.batch_size if self._drop_last else -(-count // self.batch_size)

    def __repr__(self) -> str:
        return f"<Buckets: {len(self.lengths)} rows in {len(self)} batches of {self.batch_size}>"


def bucket_by_length(
    lengths: npt.ArrayLike,
    batch_size: int,
    *,
    shuffle: bool = True,
    drop_last: bool = False,
    pool: int = 100,
    rng: int | np.random.Generator | None = None,
) -> Buckets:
    """Batches of rows of similar length, so that a padded batch holds little padding.

    The rows are shuffled, taken `pool` batches at a time, sorted by length inside such a pool, and cut; then the
    batches are shuffled. So every epoch has other batches in another order, and yet little of them is padding.

    Parameters
    ----------
    lengths : array_like of int, shape (M,)
        Steps of every row of the data set; not negative.
    batch_size : int
    shuffle : bool
        If False, every epoch is all rows from the shortest to the longest.
    drop_last : bool
        Whether to leave out what makes no whole batch: up to batch_size - 1 rows, others in each epoch; without
        shuffle the longest.
    pool : int
        Batches that are sorted together: more means less padding, fewer more chance. Of 100 000 lengths uniform in
        10..200 in batches of 32, padding is 46 % of the steps for 1, 8.1 % for 10, 0.9 % for 100, 0.1 % for 1000.
    rng : None, int or numpy.random.Generator
        Seed; of a generator one number is drawn.

    Returns
    -------
    Buckets
        Iterate over it once for each epoch: the index arrays of the batches, int64, of up to batch_size rows. Without
        `drop_last` every row is in exactly one batch.

    Raises
    ------
    TypeError, ValueError
        An argument that does not fit, named.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.sequences import bucket_by_length, pad
    >>> rows = [np.ones((n, 3)) for n in (5, 2, 6, 1, 5)]
    >>> for batch in bucket_by_length([len(row) for row in rows], 2, rng=0):
    ...     x, lengths = pad([rows[k] for k in batch])
    """
    found = _check.row_lengths(lengths)
    size = _validate.positive_int("batch_size", batch_size)
    shuffle, drop_last = _validate.flag("shuffle", shuffle), _validate.flag("drop_last", drop_last)
    pool = _validate.positive_int("pool", pool)
    return Buckets(found, size, shuffle, drop_last, pool, int(_validate.generator(rng).integers(1 << 62)))


def windows(series: npt.ArrayLike, size: int, *, stride: int = 1, batch_first: bool = False) -> Array:
    """Sliding windows over the first axis, as a batch of rows that share the memory of the series.

    Parameters
    ----------
    series : array_like, shape (S, ...)
        For instance (S, I), features over time.
    size : int
        Steps of a window: T of the result. At most S.
    stride : int
        Steps from the start of one window to that of the next.
    batch_first : bool

    Returns
    -------
    ndarray, shape (size, N, ...), or (N, size, ...) if batch_first; read-only
        N = 1 + (S - size) // stride windows: [t, n] is series[n * stride + t]. A view: no element is copied, and a
        layer reads it as it is. What is left over at the end of the series is in no window.

    Raises
    ------
    TypeError, ValueError
        An argument that does not fit, named.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.sequences import windows
    >>> windows(np.arange(7), 3, stride=2).T.tolist()
    [[0, 1, 2], [2, 3, 4], [4, 5, 6]]
    """
    array = _check.rows("series", series)
    size, stride = _validate.positive_int("size", size), _validate.positive_int("stride", stride)
    batch_first = _validate.flag("batch_first", batch_first)
    if size > len(array):
        message = f"size is {size}; it must be at most {len(array)}, the steps of series"
        raise ValueError(message)
    view = np.lib.stride_tricks.sliding_window_view(array, size, axis=0)[::stride]  # (N, ..., size)
    return np.moveaxis(view, -1, 1 if batch_first else 0)


def reverse(x: npt.ArrayLike, lengths: npt.ArrayLike | None = None, *, batch_first: bool = False) -> Array:
    """Each row's steps in reverse order; those beyond its length stay where they are.

    A layer runs forwards, or both ways; what runs in reverse only (some ONNX nodes, Keras's `go_backwards`) is
    `reverse(layer(reverse(x))[0])`, with the same lengths everywhere if there are any.

    Parameters
    ----------
    x : array_like, shape (T, N, ...), or (N, T, ...) if batch_first
    lengths : array_like of int, shape (N,), optional
        Row n has lengths[n] steps, 0 to T; all T if not given.
    batch_first : bool

    Returns
    -------
    ndarray, shape and dtype of x
        A view if there are no lengths.

    Raises
    ------
    TypeError, ValueError
        An argument that does not fit, named.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.sequences import reverse
    >>> reverse(np.array([[1, 2, 3], [4, 5, 0]]), [3, 2], batch_first=True).tolist()
    [[3, 2, 1], [5, 4, 0]]
    """
    array = _check.rows("x", x, 2)
    if _validate.flag("batch_first", batch_first):
        return reverse(array.swapaxes(0, 1), lengths).swapaxes(0, 1)
    if lengths is None:
        return array[::-1]
    counts = _validate.lengths(lengths, len(array), array.shape[1], True)
    t = np.arange(len(array))[:, None]
    return array[np.where(t < counts, counts - 1 - t, t), np.arange(array.shape[1])]


class Truncated:
    """Chunks of a long sequence, one after the other, and the state in between: what `truncated` returns.

    Attributes
    ----------
    state : (h, c) for an LSTM, h for the others, or None
        Where the training loop puts the state after a chunk, and takes it from for the next one. None: zeros.
    start, stop : int
        Steps of the chunk at hand: [start, stop).
    """

    def __init__(
        self, parts: list[Array], steps: int, total: int, lengths: Indices | None, batch_first: bool, state: Any
    ) -> None:
        self.state = state
        self.start = self.stop = 0
        self._parts, self._steps, self._total = parts, steps, total
        self._lengths, self._batch_first = lengths, batch_first  # lengths (N,), or () without a batch axis

    def __iter__(self) -> Truncated:
        return self

    def __next__(self) -> tuple[Array, ...]:
        if self.stop >= self._total:
            raise StopIteration
        self.start, self.stop = self.stop, min(self.stop + self._steps, self._total)
        if self._batch_first:
            parts = [part[:, self.start : self.stop] for part in self._parts]
        else:
            parts = [part[self.start : self.stop] for part in self._parts]
        if self._lengths is not None:
            parts.append(np.clip(self._lengths - self.start, 0, self.stop - self.start))
        return tuple(parts)

    def __len__(self) -> int:
        """Chunks that are still to come."""
        return -(-(self._total - self.stop) // self._steps)

    def __repr__(self) -> str:
        return f"<Truncated: step {self.stop} of {self._total}, {self._steps} at a time>"


def truncated(
    x: npt.ArrayLike,
    *others: npt.ArrayLike,
    steps: int,
    lengths: npt.ArrayLike | None = None,
    state: Any = None,
    batch_first: bool = False,
) -> Truncated:
    """A long sequence in chunks for truncated back-propagation through time, the state carried from each to the next.

    The state goes forward into the next chunk; gradients do not come back out of it, since each chunk has a tape of its
    own: memory and the reach of the gradients are those of a chunk, while the state has seen everything before.

    Parameters
    ----------
    x : array_like, shape (T, N, ...), (N, T, ...) if batch_first, or (T, ...)
    *others : array_like
        Walked through together with x, with as many steps on the same axis: targets, reset, mask.
    steps : int
        Of a chunk; the last may be shorter.
    lengths : array_like of int, shape (N,), or one integer for an x without N; optional
        Of the rows, 0 to T. Then each chunk ends with its own: rows that have ended have 0 and keep their state.
    state : optional
        Before the first chunk; None: zeros.
    batch_first : bool

    Returns
    -------
    Truncated
        An iterator, for one pass. Each chunk is a tuple of views: the part of x, those of the others in their order,
        then the lengths if given. `chunks.state` is where the loop below keeps the state.

    Raises
    ------
    TypeError, ValueError
        An argument that does not fit, named.

    Notes
    -----
    BPTT(h; h') with h = h' of Williams and Peng, "An efficient gradient-based algorithm for on-line training of
    recurrent network trajectories", Neural Computation 2 (1990).

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> from fastrnn.sequences import truncated
    >>> rng = np.random.default_rng(0)
    >>> x, targets = rng.standard_normal((100, 4, 3)), rng.standard_normal((100, 4, 8))
    >>> lstm = fastrnn.LSTM(3, 8, rng=0)
    >>> chunks = truncated(x, targets, steps=25)
    >>> for x_part, wanted in chunks:
    ...     y, chunks.state, tape = lstm.forward(x_part, chunks.state)
    ...     grads = lstm.backward(tape, y - wanted)
    ...     with lstm.edit() as weights:
    ...         weights.flat -= 1e-3 * grads.flat
    """
    batch_first = _validate.flag("batch_first", batch_first)
    axis = 1 if batch_first else 0
    names = ["x", *(f"others[{k}]" for k in range(len(others)))]
    parts = [_check.rows(name, value, axis + 1) for name, value in zip(names, (x, *others), strict=True)]
    total = _check.same_steps(parts, names, axis)
    size = _validate.positive_int("steps", steps)
    found = None
    if lengths is not None:
        lengths = _validate.plain_array("lengths", lengths)
        batched = lengths.ndim > 0
        batch = parts[0].shape[1 - axis] if batched and parts[0].ndim > 1 else 1
        found = _validate.lengths(lengths, total, batch, batched)
        found = found if batched else found[0]
    return Truncated(parts, size, total, found, batch_first, state)


def _cut(rows: Indices, size: int) -> list[Indices]:
    """Rows in their order, `size` at a time; the last may be fewer."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]
