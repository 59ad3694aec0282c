"""The rules for what regularises a recurrence, and their messages: as in `_validate`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from . import _validate
from ._spec import Regularisers, Spec

Array = npt.NDArray[Any]


def zoneout_rates(value: Any, cell: str) -> tuple[float, float]:
    """Probabilities (of h, of c): a number stands for both, those of an LSTM may be given apart."""
    if not isinstance(value, tuple | list):
        rate = _validate.fraction("zoneout", value)
        return rate, rate if cell == "lstm" else 0.0
    if cell != "lstm":
        message = f"zoneout is a {type(value).__name__}; it must be a number: only an LSTM has a second state"
        raise TypeError(message)
    if len(value) != 2:
        message = f"zoneout holds {len(value)} values; it must be a number or a pair (of h, of c)"
        raise ValueError(message)
    return _validate.fraction("zoneout[0] (h)", value[0]), _validate.fraction("zoneout[1] (c)", value[1])


def recurrent_mask(value: Any, spec: Spec, batch: int, batched: bool) -> Array:
    """Recurrent dropout's factors as C-contiguous (L*D, N, H)."""
    array = _validate.real_array("recurrent_dropout", value, spec.dtype)
    shape = _validate.state_shape(spec, batch, batched)
    if array.shape != shape:
        axes = "num_layers * num_directions, N, hidden_size" if batched else "num_layers * num_directions, hidden_size"
        message = f"recurrent_dropout has shape {array.shape}; it must be {shape}: ({axes})"
        raise ValueError(message)
    array = array if batched else array[:, None]
    return array if array.flags.c_contiguous and array.flags.aligned else array.copy()


def zoneout_pair(value: Any, spec: Spec) -> tuple[Any, Any]:
    """What `forward` was given for h and for c; either may be None."""
    if spec.cell != "lstm":
        return value, None
    if not isinstance(value, tuple | list) or len(value) != 2:
        what = f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, tuple | list) else "")
        message = f"zoneout is {what}; for an LSTM it must be a pair (of h, of c)"
        raise TypeError(message)
    return value[0], value[1]


def zoneout_share(
    name: str, value: Any, spec: Spec, steps: int, batch: int, batched: bool, cell: bool = False
) -> Array:
    """Shares of the state before, h or the cell state, that stay, from 0 to 1, as C-contiguous (L*D, T, N, H)."""
    array = _validate.real_array(name, value, spec.dtype)
    layers, *rows, width = _validate.state_shape(spec, batch, batched, cell)
    shape = (layers, steps, *rows, width)
    if array.shape != shape:
        axes = f"num_layers * num_directions, T, {'N, ' if batched else ''}hidden_size"
        message = f"{name} has shape {array.shape}; it must be {shape}: ({axes})"
        raise ValueError(message)
    if array.size and not (array.min() >= 0 and array.max() <= 1):
        message = f"{name} holds values from {array.min()} to {array.max()}; they must be from 0 to 1"
        raise ValueError(message)
    array = array.reshape(layers, steps, batch, width)
    return array if array.flags.c_contiguous and array.flags.aligned else np.array(array, order="C")


def given(
    spec: Spec, mask: Any, zoneout: Any, steps: int, batch: int, batched: bool
) -> Callable[[], Regularisers] | None:
    """Check the arrays that a training call was given; the rest, functions of a shape, are called by what is returned.

    They are called for the mask, for h and for c, in this order. Without either argument zoneout is the spec's own;
    None if that has none.
    """
    if mask is None and zoneout is None and spec.zoneout == (0.0, 0.0):
        return None
    expected = spec.expected(steps, batch)
    if mask is None and zoneout is None:
        return lambda: cast(Regularisers, expected)
    shares = (None, None) if zoneout is None else zoneout_pair(zoneout, spec)
    names = ("zoneout[0] (h)", "zoneout[1] (c)") if spec.cell == "lstm" else ("zoneout", "")

    def checked(k: int, value: Any, batched: bool) -> Array:
        if k == 0:
            return recurrent_mask(value, spec, batch, batched)
        return zoneout_share(names[k - 1], value, spec, steps, batch, batched, cell=k == 2)

    parts = [
        value if value is None or callable(value) else checked(k, value, batched)
        for k, value in enumerate((mask, *shares))
    ]

    def complete() -> Regularisers:
        h, c = (_validate.state_shape(spec, batch, cell=cell) for cell in (False, True))
        shapes = (h, (h[0], steps, *h[1:]), (c[0], steps, *c[1:]))
        made = [checked(k, part(shapes[k]), True) if callable(part) else part for k, part in enumerate(parts)]
        if zoneout is None and expected is not None:
            return expected._replace(mask=made[0])
        return Regularisers(*made)

    return complete
