"""Recurrent calls as operators of `torch.compile`: one node each, so a graph does not break and nothing is unrolled.

The compiler sees `fastrnn::recurrent` and its gradient `fastrnn::recurrent_backward`, with their shapes. Between the
two only tensors can travel, so the backward operator runs the forward once more to get its tape: a compiled training
step has a third more arithmetic than an eager one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._spec import Regularisers
from . import autograd, cache, routes
from .call import Call
from .draws import NOTHING, Drawn, Rates

# The operators have one form for all calls: absent states and reset flags are None, a cell is a layout.
LAYOUTS = ("TNI", "NTI", "NI", "rows")


def _call(
    cell: str, act: str, layout: str, both: bool, layers: int, biases: bool,
    x: Tensor, params: Sequence[Tensor], sizes: Tensor | None,
) -> Call:  # fmt: skip
    weights = cache.snapshot(cell, act, biases, layers, both, params, compare=True)
    assert weights is not None
    routes.follow_threads(weights.module)
    if sizes is not None:
        return routes.packed_call(weights, sizes.numpy(), 0.0)
    steps, batch = _extent(layout, x.shape)
    return Call(weights, layout, steps, batch)


def _extent(layout: str, shape: Sequence[Any]) -> tuple[Any, Any]:
    """T and N, also of symbolic shapes."""
    if layout == "NI":
        return 1, shape[0]
    return (shape[1], shape[0]) if layout == "NTI" else (shape[0], shape[1])


# Written out: PyTorch 2.4 cannot read them off annotations that are not evaluated.
_INPUTS = (
    "str cell, str act, str layout, bool both, int layers, bool biases, "
    "Tensor x, Tensor h0, Tensor? c0, Tensor[] params, Tensor? sizes, Tensor[] drawn"
)


@torch.library.custom_op("fastrnn::recurrent", mutates_args=(), schema=f"({_INPUTS}) -> (Tensor, Tensor, Tensor)")
def recurrent(
    cell: str, act: str, layout: str, both: bool, layers: int, biases: bool,
    x: Tensor, h0: Tensor, c0: Tensor | None, params: list[Tensor], sizes: Tensor | None, drawn: list[Tensor],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """y, hn and cn; cn is empty where there is none, and y that of a cell."""
    call = _call(cell, act, layout, both, layers, biases, x, params, sizes)
    with torch.no_grad():
        outputs = autograd.forward(call, x, h0, c0, _drawn(call, drawn), keep=False)[0]
    if layout == "NI":
        outputs = (outputs[0].clone(), *outputs)
    return outputs[0], outputs[1], outputs[2] if len(outputs) == 3 else x.new_empty(0)


@recurrent.register_fake
def _(
    cell: str, act: str, layout: str, both: bool, layers: int, biases: bool,
    x: Tensor, h0: Tensor, c0: Tensor | None, params: list[Tensor], sizes: Tensor | None, drawn: list[Tensor],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    hidden = params[1].shape[1] * (1 + both)
    if layout == "NTI":
        y = x.new_empty((x.shape[1], x.shape[0], hidden)).transpose(0, 1)
    else:
        y = x.new_empty((*x.shape[:-1], hidden))
    return y, h0.new_empty(h0.shape), x.new_empty(0) if c0 is None else c0.new_empty(c0.shape)


@torch.library.custom_op(
    "fastrnn::recurrent_backward",
    mutates_args=(),
    schema=f"({_INPUTS}, Tensor y, Tensor dy, Tensor dhn, Tensor? dcn) -> Tensor[]",
)
def recurrent_backward(
    cell: str, act: str, layout: str, both: bool, layers: int, biases: bool,
    x: Tensor, h0: Tensor, c0: Tensor | None, params: list[Tensor], sizes: Tensor | None, drawn: list[Tensor],
    y: Tensor, dy: Tensor, dhn: Tensor, dcn: Tensor | None,
) -> list[Tensor]:  # fmt: skip
    """Gradients of x, h0, c0 if there is one, and each weight."""
    call = _call(cell, act, layout, both, layers, biases, x, params, sizes)
    factors = _drawn(call, drawn)
    with torch.no_grad():
        _, y, tape = autograd.forward(call, x, h0, c0, factors, keep=True)
        wanted = [True, True, c0 is not None, *[True] * len(params)]
        states = [dhn, dcn] if c0 is not None else [dhn]
        whole = None if layout == "NI" else dy
        grads = autograd.backward(call, tape, x, y, h0, c0, whole, states, wanted, factors)
    return [grad for grad in grads if grad is not None]


@recurrent_backward.register_fake
def _(
    cell: str, act: str, layout: str, both: bool, layers: int, biases: bool,
    x: Tensor, h0: Tensor, c0: Tensor | None, params: list[Tensor], sizes: Tensor | None, drawn: list[Tensor],
    y: Tensor, dy: Tensor, dhn: Tensor, dcn: Tensor | None,
) -> list[Tensor]:  # fmt: skip
    like = [h0, *([] if c0 is None else [c0]), *params]
    dx = x.new_empty((x.shape[1], x.shape[0], x.shape[2])).transpose(0, 1) if layout == "NTI" else x.new_empty(x.shape)
    return [dx, *[t.new_empty(t.shape) for t in like]]


def _drawn(call: Call, tensors: Sequence[Tensor]) -> Drawn:
    """What `_draw` made. The compiler may have chosen other strides."""
    if not tensors:
        return NOTHING
    dropout, mask, *zones = (np.ascontiguousarray(t.detach().numpy()) if t.numel() else None for t in tensors)
    spec = call.spec
    shape = (spec.num_layers * spec.directions, call.steps, call.batch, spec.hidden_size)
    zone_h, zone_c = (None if zone is None else np.broadcast_to(zone, shape) for zone in zones)
    return Drawn(dropout, Regularisers(mask, zone_h, zone_c))


def _draw(x: Tensor, h0: Tensor, steps: Any, width: Any, layers: int, p: float, rates: Rates | None) -> list[Tensor]:
    """As `draws.draw`, in the graph's operations: dropout, mask, zone_h and zone_c, empty where not on; [] of none."""
    p = p if layers > 1 else 0.0
    if not p and rates is None:
        return []
    rates = rates or Rates(0.0, 0.0, 0.0, False)
    rows, batch, hidden = h0.shape
    none = x.new_empty(0)
    dropout = torch.nn.functional.dropout(x.new_ones((layers - 1, steps, batch, width)), p) if p else none
    mask = torch.nn.functional.dropout(x.new_ones((rows, batch, hidden)), rates.recurrent) if rates.recurrent else none
    shape = (rows, steps, batch, hidden) if rates.drawn else (hidden,)
    zones = [x.new_full(shape, z) if z else none for z in (rates.zone_h, rates.zone_c)]
    return [dropout, mask, *[zone.bernoulli() if rates.drawn and zone is not none else zone for zone in zones]]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, h0, c0, params, sizes, drawn = inputs[6:]
    ctx.save_for_backward(x, h0, c0, sizes, output[0], *drawn, *params)
    ctx.drawn = len(drawn)
    ctx.statics = inputs[:6]


def _derive(ctx: Any, dy: Tensor | None, dhn: Tensor | None, dcn: Tensor | None) -> tuple[Any, ...]:
    x, h0, c0, sizes, y, *rest = ctx.saved_tensors
    drawn, params = rest[: ctx.drawn], rest[ctx.drawn :]
    dy = torch.zeros_like(y) if dy is None else dy
    dhn = torch.zeros_like(h0) if dhn is None else dhn
    if c0 is not None and dcn is None:
        dcn = torch.zeros_like(c0)
    if ctx.statics[2] == "NI":
        dhn = dhn + dy
    grads = torch.ops.fastrnn.recurrent_backward(
        *ctx.statics, x, h0, c0, params, sizes, drawn, y, dy, dhn, None if c0 is None else dcn
    )
    dx, dh0, *rest = grads
    dc0 = rest.pop(0) if c0 is not None else None
    return (*[None] * 6, dx, dh0, dc0, rest, None, [None] * len(drawn))


recurrent.register_autograd(_derive, setup_context=_setup_context)


def sequence(cell: str, act: str, args: tuple[Any, ...], rates: Rates | None = None) -> Any:
    """What a call of `torch._VF.lstm` and the like becomes while it is compiled; None: PyTorch's own."""
    sizes = None
    if isinstance(args[3], bool):
        x, hx, params, biases, layers, p, train, both, first = args
    else:
        x, sizes, hx, params, biases, layers, p, train, both = args
        first = False
    h0, c0 = hx if cell == "lstm" else (hx, None)
    tensors = [x, h0, *params] if c0 is None else [x, h0, c0, *params]
    if 0 in x.shape:  # PyTorch has its own message for T = 0
        return None
    if len(params) != layers * (1 + both) * (4 if biases else 2) or not _ours(tensors):
        return None
    layout = "rows" if sizes is not None else "NTI" if first else "TNI"
    p = p if train else 0.0
    if sizes is not None and p and layers > 1:
        return None  # drawn for all rows, whose number is not known while compiling: this is PyTorch's
    drawn = _draw(x, h0, x.shape[1 if first else 0], params[1].shape[1] * (1 + both), layers, p, rates)
    y, hn, cn = torch.ops.fastrnn.recurrent(
        cell, act, layout, both, layers, biases, x, h0, c0, list(params), sizes, drawn
    )
    return (y, hn, cn) if cell == "lstm" else (y, hn)


def step(cell: str, act: str, args: tuple[Any, ...]) -> Any:
    """The same of `torch._VF.lstm_cell` and the like."""
    x, hx, *params = args
    biases = params[2] is not None
    params = params if biases else params[:2]
    h0, c0 = hx if cell == "lstm" else (hx, None)
    tensors = [x, h0, *params] if c0 is None else [x, h0, c0, *params]
    if not _ours(tensors):
        return None
    hn, _, cn = torch.ops.fastrnn.recurrent(cell, act, "NI", False, 1, biases, x, h0, c0, params, None, [])
    return (hn, cn) if cell == "lstm" else hn


def _ours(tensors: Sequence[Tensor]) -> bool:
    dtype = tensors[0].dtype
    if dtype not in (torch.float32, torch.float64) or torch.is_autocast_enabled("cpu"):
        return False
    return all(t.device.type == "cpu" and t.dtype == dtype for t in tensors)
