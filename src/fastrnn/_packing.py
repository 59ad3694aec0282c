"""Where the rows of packed data lie: what backends are told of a call whose x is not padded. Imports nothing of ours.

Letters: T steps, N batch, M rows of packed data: the sum of all lengths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Indices: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Packing:
    """Packed by rows, with offsets, or by steps, with batch_sizes. All arrays are int64, C-contiguous and checked.

    lengths : (N,)
    offsets : (N + 1,) from 0 to M, or None
    batch_sizes : (T,), or None
    places : (N,) or None
        With batch_sizes: where row n stands in each of its steps, PyTorch's unsorted_indices.
    """

    steps: int
    lengths: Indices
    offsets: Indices | None = None
    batch_sizes: Indices | None = None
    places: Indices | None = None

    @property
    def batch(self) -> int:
        return len(self.lengths)

    @property
    def rows(self) -> int:
        return int(self.lengths.sum())

    def indices(self) -> Indices:
        """(M,): at which t * N + n of padded data each row of packed data stands."""
        live = np.arange(self.steps)[:, None] < self.lengths  # (T, N)
        if self.offsets is not None:
            n, t = np.nonzero(live.T)
            return t * self.batch + n
        assert self.batch_sizes is not None
        order = np.arange(self.batch) if self.places is None else np.argsort(self.places)
        t, place = np.nonzero(live[:, order])
        return t * self.batch + order[place]

    def spread(self, packed: Any) -> Any:
        """(T, N, ...) of packed (M, 1, ...), zero where there is no row; None of None."""
        if packed is None:
            return None
        shape = packed.shape[2:]
        padded = np.zeros((self.steps * self.batch, *shape), packed.dtype)
        padded[self.indices()] = packed[:, 0]
        return padded.reshape(self.steps, self.batch, *shape)

    def spread_layers(self, packed: Array | None) -> Array | None:
        """(L-1, T, N, ...) of packed (L-1, M, 1, ...), of a dropout."""
        return None if packed is None else np.stack([self.spread(layer) for layer in packed])

    def gather(self, padded: Array, out: Array) -> None:
        """out (M, 1, ...) = what padded (T, N, ...) has at the rows."""
        out[:, 0] = padded.reshape(self.steps * self.batch, *padded.shape[2:])[self.indices()]
