"""The rules on sequences of different length in each of their layouts: `_validate` for `fastrnn.sequences`.

As there: a value comes back in the form that is wanted, or one TypeError or ValueError names the argument, what it is
and what it must be, before anything is made.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from ._validate import plain_array

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]


def rows(name: str, value: Any, axes: int = 1) -> Array:
    """An array of real numbers with at least so many axes; itself if it is one."""
    array = value if type(value) is np.ndarray else plain_array(name, value)
    if array.dtype.kind not in "biuf":
        message = f"{name} has dtype {array.dtype}; it must hold real numbers"
        raise TypeError(message)
    if array.ndim < axes:
        wanted = "(T, N, ...), or (N, T, ...) if batch_first" if axes == 2 else "(T, ...): steps come first"
        message = f"{name} has shape {array.shape}; it must be {wanted}"
        raise ValueError(message)
    return array


def arrays(value: Any) -> list[Array]:
    """The sequences of a list: arrays (T_n, ...) that differ in their first axis only."""
    if isinstance(value, np.ndarray) or not isinstance(value, Iterable) or isinstance(value, str | bytes | dict):
        what = f"an array of shape {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        message = (
            f"sequences is {what}; it must be a list of arrays, a Padded, a Ragged or a PackedSequence "
            "(a padded array needs its lengths)"
        )
        raise TypeError(message)
    found = [rows(f"sequences[{n}]", item) for n, item in enumerate(value)]
    if not found:
        message = "sequences is empty; it must hold at least one array"
        raise ValueError(message)
    rest = found[0].shape[1:]
    for n, array in enumerate(found):
        if array.shape[1:] != rest:
            wanted = ", ".join(["T", *map(str, rest)]) + ("" if rest else ",")
            message = f"sequences[{n}] has shape {array.shape}; like sequences[0] it must be ({wanted})"
            raise ValueError(message)
    return found


def integers(name: str, value: Any) -> Indices:
    """A copy of integers (K,) as int64; what does not fit there becomes the largest number, which no rule accepts."""
    array = value if type(value) is np.ndarray else plain_array(name, value)
    if array.dtype.kind not in "iu" and not (array.size == 0 and array.dtype == np.float64):
        message = f"{name} has dtype {array.dtype}; it must hold integers"
        raise TypeError(message)
    if array.ndim != 1:
        message = f"{name} has shape {array.shape}; it must have one axis"
        raise ValueError(message)
    if array.dtype == np.uint64:
        array = np.minimum(array, np.uint64(np.iinfo(np.int64).max))
    return np.array(array, dtype=np.int64)


def row_lengths(value: Any) -> Indices:
    """Lengths (N,) without a bound: integers that are not negative."""
    found = integers("lengths", value)
    if found.size and found.min() < 0:
        message = f"lengths holds {found.min()}; no entry may be negative"
        raise ValueError(message)
    return found


def offsets(value: Any, count: int) -> Indices:
    """Row n of ragged data of `count` rows is offsets[n] to offsets[n + 1]: they rise, or stay where a row is empty."""
    found = integers("offsets", value)
    if not found.size:
        message = "offsets is empty; it must hold N + 1 integers, of which the first is the start of the first row"
        raise ValueError(message)
    falls = np.flatnonzero(found[1:] < found[:-1])
    if falls.size:
        n = int(falls[0])
        message = f"offsets falls from {found[n]} to {found[n + 1]} at {n + 1}; it must rise, or stay for an empty row"
        raise ValueError(message)
    if found[0] < 0 or found[-1] > count:
        message = f"offsets goes from {found[0]} to {found[-1]}; it must stay from 0 to {count}, the rows of data"
        raise ValueError(message)
    return found


def batch_sizes(value: Any, count: int) -> Indices:
    """Rows that are alive at each step of packed data of `count` rows: positive, never more than the step before."""
    found = integers("batch_sizes", value)
    grows = np.flatnonzero(found[1:] > found[:-1])
    if grows.size:
        t = int(grows[0])
        message = f"batch_sizes grows from {found[t]} to {found[t + 1]} at {t + 1}; rows may only end, never begin late"
        raise ValueError(message)
    if found.size and found[-1] < 1:
        message = f"batch_sizes holds {found[-1]}; every entry must be positive: steps without rows are left out"
        raise ValueError(message)
    # Python's integers: a sum of large entries must not wrap around to the right one
    total = sum(found.tolist()) if found.size and found[0] > count else int(found.sum())
    if total != count:
        message = f"batch_sizes sums to {total}; it must be {count}, the rows of data"
        raise ValueError(message)
    return found


def permutation(name: str, value: Any, alive: int) -> Indices:
    """sorted_indices or unsorted_indices: each of 0..N-1 once, N at least the rows alive at the first step."""
    found = integers(name, value)
    seen = np.zeros(found.size, bool)
    if not found.size or 0 <= found.min() <= found.max() < found.size:
        seen[found] = True
    if not seen.all():
        message = f"{name} is {_short(found)}; it must hold each of 0 to {found.size - 1} once"
        raise ValueError(message)
    if found.size < alive:
        message = f"{name} has {found.size} entries; there must be one for each of the {alive} rows in batch_sizes"
        raise ValueError(message)
    return found


def inverse(sorted_indices: Indices, unsorted_indices: Indices) -> None:
    """Check that one permutation undoes the other."""
    if sorted_indices.size != unsorted_indices.size or np.any(
        sorted_indices[unsorted_indices] != np.arange(unsorted_indices.size)
    ):
        message = f"unsorted_indices is {_short(unsorted_indices)}; it must be the inverse of sorted_indices"
        raise ValueError(message)


def descending(found: Indices) -> None:
    """Check that the rows come longest first."""
    rises = np.flatnonzero(found[1:] > found[:-1])
    if rises.size:
        n = int(rises[0])
        message = (
            f"lengths rises from {found[n]} to {found[n + 1]} at {n + 1}; with enforce_sorted=True it must not rise"
        )
        raise ValueError(message)


def filler(value: Any, dtype: np.dtype[Any]) -> Any:
    """padding_value as a scalar of the data's dtype, which for integers must be that very number."""
    number = plain_array("padding_value", value)
    if number.ndim or number.dtype.kind not in "biuf":
        message = f"padding_value is {value!r} ({type(value).__name__}); it must be a real number"
        raise TypeError(message)
    with np.errstate(all="ignore"):
        made = number.astype(dtype)
    if dtype.kind != "f" and made != number:
        message = f"padding_value is {value}; for data of dtype {dtype} it must be a number of that kind"
        raise ValueError(message)
    return made[()]


def at_least(name: str, value: int, least: int, why: str) -> int:
    """A size that must hold something."""
    if value < least:
        message = f"{name} is {value}; it must be at least {least}, {why}"
        raise ValueError(message)
    return value


def same_steps(parts: list[Array], names: list[str], axis: int) -> int:
    """T of arrays that are walked through together."""
    steps: int = parts[0].shape[axis]
    for name, part in zip(names, parts, strict=True):
        if part.ndim <= axis or part.shape[axis] != steps:
            message = f"{name} has shape {part.shape}; it must have T = {steps} steps on axis {axis}, as x has"
            raise ValueError(message)
    return steps


def _short(found: Indices) -> str:
    return np.array2string(found, threshold=8, edgeitems=3, separator=", ").replace("\n", "")
