"""The random numbers of a call, from PyTorch's generator: dropout between layers, recurrent dropout, zoneout.

Drawn in this order, only what is on, zoneout of h before that of c. Dropout between layers is drawn as PyTorch's own
modules draw it, so that the same seed gives the same factors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from .._packing import Packing
from .._spec import Regularisers, Spec

Array = npt.NDArray[Any]


class Rates(NamedTuple):
    """Probabilities of what regularises the recurrence; `drawn` is whether zoneout is, or has its expectation."""

    recurrent: float
    zone_h: float
    zone_c: float
    drawn: bool


class Drawn(NamedTuple):
    """What one call multiplies by: dropout (L-1, T, N, D*H), of packed rows (L-1, M, 1, D*H), and `Regularisers`."""

    dropout: Array | None = None
    regular: Regularisers | None = None


NOTHING = Drawn()


def draw(spec: Spec, steps: int, batch: int, p: float, rates: Rates | None, packing: Packing | None) -> Drawn:
    """`p` is of dropout between layers."""
    dropout = None
    if p and spec.num_layers > 1:
        rows = (steps, batch) if packing is None else (packing.rows, 1)
        tensor = empty(spec, (spec.num_layers - 1, *rows, spec.directions * spec.hidden_size))
        for layer in tensor:  # one by one, as PyTorch does
            factors(layer, p)
        dropout = tensor.numpy()
    return Drawn(dropout, None if rates is None else regularisers(spec, steps, batch, rates))


def regularisers(spec: Spec, steps: int, batch: int, rates: Rates) -> Regularisers:
    """Of recurrent dropout and zoneout."""
    rows, width = spec.num_layers * spec.directions, spec.hidden_size
    mask = factors(empty(spec, (rows, batch, width)), rates.recurrent).numpy() if rates.recurrent else None
    shape = (rows, steps, batch, width)
    if rates.drawn:
        zones = [empty(spec, shape).bernoulli_(z).numpy() if z else None for z in (rates.zone_h, rates.zone_c)]
    else:
        lines = [np.full(width, z, spec.dtype) if z else None for z in (rates.zone_h, rates.zone_c)]
        zones = [None if line is None else np.broadcast_to(line, shape) for line in lines]
    return Regularisers(mask, *zones)


def empty(spec: Spec, shape: tuple[int, ...]) -> torch.Tensor:
    """In the stack's dtype."""
    return torch.empty(shape, dtype=torch.float64 if spec.dtype_name == "float64" else torch.float32, device="cpu")


def factors(tensor: torch.Tensor, p: float) -> torch.Tensor:
    """Filled with 0 with probability p, else 1/(1-p)."""
    return tensor.zero_() if p == 1 else tensor.bernoulli_(1 - p).div_(1 - p)
