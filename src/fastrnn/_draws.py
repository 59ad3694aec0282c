"""The random numbers of a layer's training forward: dropout between layers, recurrent dropout, zoneout.

They are drawn in this order, only what is on, zoneout of h before that of c, each in one piece. Always in float32, so
that a float64 layer can repeat a float32 run.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ._spec import Spec

Array = npt.NDArray[Any]


def arguments(rng: np.random.Generator, spec: Spec, dropout: float, recurrent_dropout: float) -> dict[str, Any]:
    """What `functional.forward` is to be given: functions that draw for a shape, for what is on."""
    out: dict[str, Any] = {}
    if dropout:
        out["dropout"] = partial(factors, rng, spec, dropout)
    if recurrent_dropout:
        out["recurrent_dropout"] = partial(factors, rng, spec, recurrent_dropout)
    if any(spec.zoneout):
        h, c = (partial(shares, rng, spec, rate) if rate else None for rate in spec.zoneout)
        out["zoneout"] = (h, c) if spec.cell == "lstm" else h
    return out


def factors(rng: np.random.Generator, spec: Spec, rate: float, shape: tuple[int, ...]) -> Array:
    """0 with probability `rate`, else 1/(1-rate)."""
    kept = rng.random(shape, dtype=np.float32) >= rate
    return kept * spec.dtype.type(1 / (1 - rate) if rate < 1 else 0)


def shares(rng: np.random.Generator, spec: Spec, rate: float, shape: tuple[int, ...]) -> Array:
    """1, the state stays, with probability `rate`, else 0."""
    return (rng.random(shape, dtype=np.float32) < rate).astype(spec.dtype)
