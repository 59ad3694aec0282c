"""Arrays and texts of an HDF5 file in its classic form, which h5py writes unless told otherwise, and therefore Keras.

The HDF5 library hangs, or takes memory without bound, on files in which a few bytes were changed (HDF5 2.0.0 through
h5py 3.16: a call that did not end, and one that took 1.6 GB for a file of 44 kB, in 5000 changed files). This reader
takes what Keras writes and nothing more: groups in symbol tables, contiguous arrays of floats, attributes that are
texts. Every place is checked against the file's end, every group is entered once, entries are bounded by the file's
size, and links to other files or other places are errors.

Format: "HDF5 File Format Specification Version 3.0", https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html:
superblock 0, object headers 1, B-trees 1, local and global heaps. Numbers are little-endian, addresses have 8 bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

SIGNATURE = b"\x89HDF\r\n\x1a\n"
DEPTH = 24  # of groups; Keras's layers nest by one for each model inside a model
NAME = 1024  # bytes of a name at most
# Messages of an object header.
SPACE, TYPE, EXTERNAL, LAYOUT, FILTERS, ATTRIBUTE, CONTINUED, TABLE = 0x01, 0x03, 0x07, 0x08, 0x0B, 0x0C, 0x10, 0x11
LINKS, LINK = 0x02, 0x06  # of groups in newer forms, the only ones that can name other files
# Bytes of a float -> what its type says: bit offset, precision, place and width of exponent and mantissa, bias.
FLOATS = {
    2: (0, 16, 10, 5, 0, 10, 15), 4: (0, 32, 23, 8, 0, 23, 127), 8: (0, 64, 52, 11, 0, 52, 1023),
}  # fmt: skip


@dataclass
class Dataset:
    """An array that has not been read."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    data: memoryview

    def read(self) -> npt.NDArray[Any]:
        """A new array in this machine's byte order."""
        return np.frombuffer(self.data, self.dtype).reshape(self.shape).astype(self.dtype.newbyteorder("="))


@dataclass
class Group:
    """Names to groups, arrays and, for what is neither, the reason why it cannot be read."""

    entries: dict[str, Group | Dataset | str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)  # attributes


def read(data: bytes) -> Group:
    """The root group of a file's contents.

    Raises
    ------
    ValueError
        No HDF5 file of this form, or a damaged one.
    """
    return _Reader(data).root()


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._left = 10_000 + len(data)  # messages and entries that may still be read; each has 8 bytes at least
        self._seen: set[int] = set()

    # -- bytes -------------------------------------------------------------------------------------------------------

    def _bytes(self, start: int, count: int) -> memoryview:
        if start < 0 or count < 0 or start + count > len(self._data):
            message = f"it points to {count} bytes at {start}; it has {len(self._data)}"
            raise ValueError(message)
        return self._data[start : start + count]

    def _number(self, start: int, count: int) -> int:
        return int.from_bytes(self._bytes(start, count), "little")

    def _expect(self, start: int, mark: bytes) -> None:
        if self._bytes(start, len(mark)) != mark:
            message = f"there is no {mark!r} at {start}: it is damaged, or of another form than the classic one"
            raise ValueError(message)

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            message = "it has more entries than fit into it"
            raise ValueError(message)

    def _enter(self, start: int) -> None:
        """Once only: whoever comes again goes round in a loop."""
        if start in self._seen:
            message = f"two links lead to what is at {start}"
            raise ValueError(message)
        self._seen.add(start)

    # -- groups ------------------------------------------------------------------------------------------------------

    def root(self) -> Group:
        self._expect(0, SIGNATURE)
        if [self._number(8, 1), self._number(13, 2), self._number(24, 8)] != [0, 0x0808, 0]:
            message = "it is of another form than the classic one (superblock 0)"
            raise ValueError(message)
        found = self._object(self._number(64, 8), 0)
        if not isinstance(found, Group):
            message = f"its root is no group: {found}"
            raise ValueError(message)
        return found

    def _object(self, start: int, depth: int) -> Group | Dataset | str:
        if depth > DEPTH:
            message = f"its groups nest deeper than {DEPTH}"
            raise ValueError(message)
        self._enter(start)
        messages = dict.fromkeys((TABLE, SPACE, TYPE, LAYOUT, EXTERNAL, FILTERS), (-1, 0))
        texts = {}
        for kind, place, size in self._messages(start):
            if kind == ATTRIBUTE:
                texts.update(self._text(place, size))
            elif kind in (LINKS, LINK):
                message = f"the group at {start} is of a newer form than the classic one, or links to other files"
                raise ValueError(message)
            elif kind in messages:
                messages[kind] = place, size
        place, _ = messages[TABLE]
        if place < 0:
            return self._dataset(messages)
        group = Group(texts=texts)
        names = self._number(self._local_heap(self._number(place + 8, 8)) + 24, 8)
        for name, link, soft in self._symbols(self._number(place, 8), names, 0):
            if soft:
                message = f"{name!r} is a link to somewhere else"
                raise ValueError(message)
            group.entries[name] = self._object(link, depth + 1)
        return group

    def _messages(self, start: int) -> Iterator[tuple[int, int, int]]:
        """(kind, place, size) of each message of an object header, in all of its parts."""
        if self._number(start, 1) != 1:
            message = f"the object at {start} is of another form than the classic one"
            raise ValueError(message)
        parts = [(start + 16, self._number(start + 8, 4))]
        while parts:
            place, size = parts.pop(0)
            self._bytes(place, size)
            end = place + size
            while place + 8 <= end:
                self._count()
                kind, count, flags = self._number(place, 2), self._number(place + 2, 2), self._number(place + 4, 1)
                place += 8
                if place + count > end:
                    message = f"a message at {place} goes beyond its header"
                    raise ValueError(message)
                if kind == CONTINUED:
                    parts.append((self._number(place, 8), self._number(place + 8, 8)))
                elif not flags & 2:  # not shared with another object
                    yield kind, place, count
                place += count

    def _local_heap(self, start: int) -> int:
        self._expect(start, b"HEAP")
        return start

    def _symbols(self, start: int, names: int, depth: int) -> Iterator[tuple[str, int, bool]]:
        """(name, address of the object, whether it is a soft link) of a B-tree's entries, in order."""
        self._enter(start)
        self._expect(start, b"TREE")
        level, used = self._number(start + 5, 1), self._number(start + 6, 2)
        if self._number(start + 4, 1) != 0 or depth > DEPTH:
            message = f"the tree at {start} is none of a group"
            raise ValueError(message)
        for k in range(used):
            self._count()
            child = self._number(start + 32 + 16 * k, 8)
            if level:
                yield from self._symbols(child, names, depth + 1)
                continue
            self._enter(child)
            self._expect(child, b"SNOD")
            for entry in range(child + 8, child + 8 + 40 * self._number(child + 6, 2), 40):
                self._count()
                name = self._name(names + self._number(entry, 8))
                yield name, self._number(entry + 8, 8), self._number(entry + 16, 4) == 2

    def _name(self, start: int) -> str:
        text = bytes(self._bytes(start, min(NAME, max(0, len(self._data) - start))))
        end = text.find(b"\0")
        if end < 0:
            message = f"the name at {start} has no end"
            raise ValueError(message)
        return text[:end].decode()

    # -- values ------------------------------------------------------------------------------------------------------

    def _shape(self, place: int) -> tuple[int, ...]:
        version, rank = self._number(place, 1), self._number(place + 1, 1)
        first = {1: 8, 2: 4}.get(version)
        if first is None:
            message = f"the shape at {place} is of another form than the classic one"
            raise ValueError(message)
        return tuple(self._number(place + first + 8 * k, 8) for k in range(rank))

    def _dataset(self, messages: dict[int, tuple[int, int]]) -> Dataset | str:
        """An array, or why it is none that can be read."""
        (space, _), (kind, _), (layout, _) = messages[SPACE], messages[TYPE], messages[LAYOUT]
        if min(space, kind, layout) < 0:
            return "it is neither a group nor an array of the classic form"
        if messages[EXTERNAL][0] >= 0 or messages[FILTERS][0] >= 0:
            return "its numbers are compressed or in other files"
        size = self._number(kind + 4, 4)
        if self._number(kind, 1) != 0x11 or size not in FLOATS or self._number(kind + 1, 1) & 0x40:
            return "it holds no floats"
        places = ((8, 2), (10, 2), (12, 1), (13, 1), (14, 1), (15, 1), (16, 4))
        if tuple(self._number(kind + k, n) for k, n in places) != FLOATS[size]:
            return "it holds floats of an unusual kind"
        dtype = np.dtype(f"{'>' if self._number(kind + 1, 1) & 1 else '<'}f{size}")
        shape = self._shape(space)
        if self._number(layout, 1) != 3 or self._number(layout + 1, 1) != 1:
            return "its numbers do not lie in one piece in this file"
        start, count = self._number(layout + 2, 8), self._number(layout + 10, 8)
        if count != math.prod(shape) * size or 0 in shape:
            return f"it has {count} bytes for shape {shape} of {dtype}"
        return Dataset(shape, dtype, self._bytes(start, count))

    def _text(self, place: int, size: int) -> dict[str, str]:
        """An attribute, if it is one text: {its name: the text}."""
        version = self._number(place, 1)
        if version not in (1, 2, 3):
            message = f"the attribute at {place} is of another form than the classic one"
            raise ValueError(message)
        lengths = [self._number(place + 2 + 2 * k, 2) for k in range(3)]  # of name, type and shape
        start, parts = place + (9 if version == 3 else 8), []
        for length in lengths:
            parts.append(start)
            start += -(-length // 8) * 8 if version == 1 else length
        if start > place + size:
            message = f"the attribute at {place} goes beyond its header"
            raise ValueError(message)
        name, kind, shape = parts
        if self._shape(shape) or self._number(kind, 1) & 15 != 9 or self._number(kind + 1, 1) & 15 != 1:
            return {}
        text = self._global_heap(self._number(start + 4, 8), self._number(start + 12, 4))
        return {bytes(self._bytes(name, lengths[0])).split(b"\0")[0].decode(): text[: self._number(start, 4)].decode()}

    def _global_heap(self, start: int, wanted: int) -> bytes:
        """An object of a collection in which texts of any length are kept."""
        self._expect(start, b"GCOL")
        end = start + self._number(start + 8, 8)
        place = start + 16
        while place + 16 <= end:
            self._count()
            index, size = self._number(place, 2), self._number(place + 8, 8)
            if index == 0:
                break
            if index == wanted:
                return bytes(self._bytes(place + 16, size))
            place += 16 + -(-size // 8) * 8
        message = f"there is no text {wanted} at {start}"
        raise ValueError(message)
