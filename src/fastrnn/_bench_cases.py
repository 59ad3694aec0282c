"""What the benchmarks measure: the cases, their weights and inputs, and how much work each is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from ._spec import GATES, Spec

Array = npt.NDArray[np.float32]

CELLS = tuple(sorted(GATES, key=lambda cell: -GATES[cell]))  # the largest first
MODES = ("inference", "training")
NAMES = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}


@dataclass(frozen=True)
class Case:
    """One piece of work in float32: a stack, the sequence it runs over, and whether gradients are taken."""

    cell: str
    mode: str  # "inference": y; "training": forward, then dL/dx and the gradients of all weights
    N: int
    T: int
    I: int  # noqa: E741  the letters of this project
    H: int
    L: int = 1
    bidirectional: bool = False

    @cached_property
    def spec(self) -> Spec:
        return Spec(self.cell, self.I, self.H, self.L, bidirectional=self.bidirectional)

    @property
    def flops(self) -> int:
        """Operations of the matrix products: W x and U h forward, and twice that for dx, dh, dW and dU.

        Without an initial state there is nothing for U to multiply at the first step.
        """
        inputs = sum(prod(shape) for name, shape in self.spec.weight_shapes.items() if name.startswith("weight_ih"))
        products = self.T * inputs + (self.T - 1) * self.recurrent_bytes // 4
        return 2 * self.N * products * (3 if self.mode == "training" else 1)

    @property
    def recurrent_bytes(self) -> int:
        """Of all weight_hh: what each step reads anew, whatever the batch, and backward once more."""
        return 4 * sum(prod(shape) for name, shape in self.spec.weight_shapes.items() if name.startswith("weight_hh"))

    @property
    def streamed_bytes(self) -> int:
        """Of recurrent weights read in one run if each step after the first reads them once."""
        return self.recurrent_bytes * (self.T - 1) * (2 if self.mode == "training" else 1)

    def weights(self) -> dict[str, Array]:
        """Uniform in -1/sqrt(H) to 1/sqrt(H), by PyTorch's names."""
        rng = np.random.default_rng(0)
        bound = self.H**-0.5
        flat = rng.uniform(-bound, bound, self.spec.weight_count).astype(np.float32)
        return dict(self.spec.views(flat))  # type: ignore[arg-type]

    def arrays(self) -> tuple[Array, Array]:
        """x (T, N, I) and dL/dy (T, N, D*H)."""
        rng = np.random.default_rng(1)
        x = rng.standard_normal((self.T, self.N, self.I), np.float32)
        return x, rng.standard_normal((self.T, self.N, self.spec.directions * self.H), np.float32)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        more = (f" L={self.L}" if self.L > 1 else "") + (" both directions" if self.bidirectional else "")
        return f"{NAMES[self.cell]} {self.mode} N={self.N} T={self.T} I={self.I} H={self.H}{more}"


# N, T, I, H, L, bidirectional: one row and small states (latency), weights that leave L1, L2 and L3 step by step,
# batches of the sizes that people train with, a long sequence, a stack and both directions.
CORE = (
    (1, 1, 64, 64, 1, False), (1, 100, 32, 32, 1, False), (1, 100, 128, 128, 1, False), (1, 100, 256, 256, 1, False),
    (1, 100, 512, 512, 1, False), (1, 100, 1024, 1024, 1, False), (16, 50, 64, 64, 1, False),
    (32, 100, 128, 128, 1, False), (32, 100, 256, 256, 1, False), (64, 50, 512, 512, 1, False),
    (64, 50, 1024, 1024, 1, False), (256, 50, 256, 256, 1, False), (8, 1000, 64, 64, 1, False),
    (32, 100, 256, 256, 2, False), (16, 100, 128, 128, 1, True),
)  # fmt: skip
# One of each kind, none of which takes any system longer than a second.
SHORT = (CORE[0], CORE[2], CORE[4], CORE[6], CORE[8], CORE[13])
# One size at a time around N=16 T=50 I=H=128.
SWEEPS = {
    "T": tuple((16, t, 128, 128, 1, False) for t in (1, 4, 16, 64, 256, 1024)),
    "N": tuple((n, 50, 128, 128, 1, False) for n in (1, 2, 4, 8, 16, 32, 64, 128)),
    "H": tuple((16, 50, h, h, 1, False) for h in (16, 32, 64, 128, 256, 512, 1024)),
}
GRIDS = {"core": CORE, "short": SHORT, "sweep": tuple(dict.fromkeys(sum(SWEEPS.values(), ())))}


def cases(
    shapes: Iterable[tuple[int, int, int, int, int, bool]], cells: Iterable[str] = CELLS, modes: Iterable[str] = MODES
) -> list[Case]:
    """All shapes for each cell and mode."""
    shapes, modes = list(shapes), list(modes)
    return [Case(cell, mode, *shape) for cell in cells for mode in modes for shape in shapes]
