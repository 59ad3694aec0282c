"""Backward of a call in PyTorch's own operations, for `create_graph=True`: they can be derived once more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from . import reference
from .call import Call
from .draws import Drawn

Array = npt.NDArray[Any]


def backward(
    call: Call, inputs: Sequence[Tensor | None], wanted: Sequence[bool], given: Sequence[Tensor | None],
    drawn: Drawn, create_graph: bool,
) -> list[Tensor | None]:  # fmt: skip
    """As `autograd.backward`, by operations that PyTorch can derive once more."""
    # Aliases, since an input may itself depend on another: only the direct part of the gradient belongs to this node.
    x, h0, c0, *params = (t.view_as(t) if t is not None and want else t for t, want in zip(inputs, wanted, strict=True))
    sources = [t for t, want in zip((x, h0, c0, *params), wanted, strict=True) if want and t is not None]
    assert x is not None
    active = None
    if call.lengths is not None:
        active = torch.from_numpy(np.arange(call.steps)[:, None, None] < call.lengths[:, None])
    weights = [p for p in params if p is not None]
    dropout = drawn.dropout
    if dropout is not None and call.packing is not None:
        dropout = call.packing.spread_layers(dropout)
    outputs = reference.stack(
        call.spec, _time_major(call, x), _with_layer(call, h0), _with_layer(call, c0), weights, active,
        None if call.reset is None else torch.from_numpy(call.reset.astype(bool)[..., None]),
        _tensor(dropout), *map(_tensor, drawn.regular or (None, None, None)),
    )  # fmt: skip
    made = [_as_given(call, outputs[0])] if call.layout != "NI" else []
    made += [o if call.layout != "NI" else o[0] for o in outputs[1:] if o is not None]
    pairs = [(o, g) for o, g in zip(made, given, strict=True) if g is not None]
    made, given = [o for o, _ in pairs], [g for _, g in pairs]
    grads = iter(torch.autograd.grad(made, sources, given, create_graph=create_graph, allow_unused=True))
    return [next(grads) if want and t is not None else None for t, want in zip(inputs, wanted, strict=True)]


def _tensor(array: Array | None) -> Tensor | None:
    if array is None:
        return None
    return torch.from_numpy(array if array.flags.writeable else array.copy())  # else PyTorch warns


def _time_major(call: Call, x: Tensor) -> Tensor:
    """As `Call.sequence`, in PyTorch's operations."""
    if call.packing is not None:
        rows = torch.from_numpy(call.packing.indices())
        flat = x.new_zeros(call.steps * call.batch, x.shape[1]).index_copy(0, rows, x)
        return flat.view(call.steps, call.batch, -1)
    return x.transpose(0, 1) if call.layout == "NTI" else x[None] if call.layout == "NI" else x


def _with_layer(call: Call, state: Tensor | None) -> Tensor | None:
    return state[None] if state is not None and call.layout == "NI" else state


def _as_given(call: Call, y: Tensor) -> Tensor:
    """y (T, N, D*H) in the layout of the call."""
    if call.packing is not None:
        return y.flatten(0, 1)[torch.from_numpy(call.packing.indices())]
    return y.transpose(0, 1) if call.layout == "NTI" else y
