"""The arrays that a call gives back: new memory for y and the states, and how the caller sees it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import backends
from ._spec import Spec

Array = npt.NDArray[Any]


def new_output(spec: Spec, steps: int, batch: int, batch_first: bool, dtype: npt.DTypeLike) -> Array:
    """y as (T, N, D*H), dense in the layout of the user."""
    shape = (*((batch, steps) if batch_first else (steps, batch)), spec.directions * spec.output_size)
    try:
        y = backends.empty(shape, dtype)
    except ValueError as error:  # x can be huge without memory of its own: np.broadcast_to
        message = f"y of shape {shape} is more than this machine can address"
        raise ValueError(message) from error
    return y.swapaxes(0, 1) if batch_first else y


def new_state(spec: Spec, batch: int, dtype: npt.DTypeLike) -> tuple[Array, Array | None]:
    layers = spec.num_layers * spec.directions
    hn = np.empty((layers, batch, spec.output_size), dtype)
    return hn, np.empty((layers, batch, spec.hidden_size), dtype) if spec.cell == "lstm" else None


def read_only(y: Array) -> Array:
    visible = y.view()
    visible.flags.writeable = False
    return visible


def as_given(y: Array, batched: bool, batch_first: bool) -> Array:
    """y in the layout of the user."""
    if not batched:
        return y[:, 0]
    return y.transpose(1, 0, 2) if batch_first else y


def as_state(hn: Array, cn: Array | None, batched: bool) -> Any:
    if not batched:
        hn, cn = hn[:, 0], None if cn is None else cn[:, 0]
    return hn if cn is None else (hn, cn)
