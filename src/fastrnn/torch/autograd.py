"""One recurrent call on tensors: inference, or one node of PyTorch's graph.

Tensors and arrays share their memory in both directions. The node keeps the backend's tape besides what PyTorch saves,
so an in-place change of an input or a weight is the error it always was. Where the tape is gone (a second backward of
the same graph), or the output was changed in place, it is made again from the saved tensors, bit for bit the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .. import _validate
from .._packing import Packing
from .._spec import Spec
from . import cache, reference
from .cache import Snapshot

Array = npt.NDArray[Any]
Outputs = tuple[Tensor, ...]
functorch = torch._C._functorch


class Call:
    """What a call is besides its tensors.

    Attributes
    ----------
    layout : {"TNI", "NTI", "rows", "NI"}
        Of the input: time-major, batch first, the data of a PackedSequence, or one step of a cell.
    packing : Packing or None
        Of a PackedSequence, whose data (M, X) are (M, 1, X) here.
    lengths, reset : ndarray or None
        As the backends take them, time-major.
    """

    __slots__ = ("batch", "layout", "lengths", "p", "packing", "reset", "snapshot", "steps")

    def __init__(
        self, snapshot: Snapshot, layout: str, steps: int, batch: int, p: float = 0.0,
        lengths: Array | None = None, reset: Array | None = None, packing: Packing | None = None,
    ) -> None:  # fmt: skip
        self.snapshot, self.layout, self.steps, self.batch, self.p = snapshot, layout, steps, batch, p
        self.lengths, self.reset, self.packing = lengths, reset, packing

    @property
    def spec(self) -> Spec:
        return self.snapshot.spec

    def sequence(self, tensor: Tensor) -> Array:
        """(T, N, features) of a tensor in the layout of the call, as kernels can walk through it."""
        given = array(tensor)
        if self.packing is not None:
            given = given[:, None]
        elif self.layout == "NTI":
            given = given.transpose(1, 0, 2)
        elif self.layout == "NI":
            given = given[None]
        return given if _validate.fits(given) else np.ascontiguousarray(given)

    def new(self, features: int) -> Array:
        """(T, N, features), dense in the layout of the call."""
        dtype = self.spec.dtype
        if self.packing is not None:
            return np.empty((self.packing.rows, 1, features), dtype)
        if self.layout == "NTI":
            return np.empty((self.batch, self.steps, features), dtype).transpose(1, 0, 2)
        return np.empty((self.steps, self.batch, features), dtype)

    def given(self, sequence: Array) -> Tensor:
        """What `new` made, as a tensor in the layout of the call."""
        if self.packing is not None:
            return torch.from_numpy(sequence[:, 0])
        if self.layout == "NTI":
            sequence = sequence.transpose(1, 0, 2)
        elif self.layout == "NI":
            sequence = sequence[0]
        return torch.from_numpy(sequence)

    def state(self, tensor: Tensor | None) -> Array | None:
        """(L*D, N, H), dense."""
        if tensor is None:
            return None
        given = array(tensor)
        if self.layout == "NI":
            given = given[None]
        return given if given.flags.c_contiguous else np.ascontiguousarray(given)

    def new_state(self) -> Array:
        spec = self.spec
        return np.empty((spec.num_layers * spec.directions, self.batch, spec.hidden_size), spec.dtype)

    def given_state(self, state: Array) -> Tensor:
        return torch.from_numpy(state[0] if self.layout == "NI" else state)

    def draw_dropout(self) -> Array | None:
        """Factors 0 or 1/(1-p), drawn as PyTorch does, so that the same seed gives the same ones."""
        spec, p = self.spec, self.p
        if p == 0 or spec.num_layers == 1:
            return None
        width = spec.directions * spec.hidden_size
        size = (self.steps, self.batch, width) if self.packing is None else (self.packing.rows, 1, width)
        factors = np.zeros((spec.num_layers - 1, *size), spec.dtype)
        for layer in factors:
            if p < 1:
                dtype = torch.float32 if spec.dtype_name == "float32" else torch.float64
                layer[...] = torch.empty(size, dtype=dtype).bernoulli_(1 - p).div_(1 - p).numpy()
        return factors


def is_seen(gradient: Tensor) -> bool:
    """Whether NumPy can look at a gradient: not one of a batch of them (`is_grads_batched`), nor a lazy one."""
    if functorch.is_batchedtensor(gradient) or functorch.is_legacy_batchedtensor(gradient):
        return False
    return cache.is_plain(gradient)


def array(tensor: Tensor) -> Array:
    """The memory of a tensor, seen by NumPy."""
    view: Array = (tensor.detach() if tensor.requires_grad else tensor).numpy()
    return view


def run(call: Call, x: Tensor, h0: Tensor | None, c0: Tensor | None, params: Sequence[Tensor]) -> Outputs:
    """(y, h) or (y, h, c) of a sequence, (h,) or (h, c) of a cell."""
    if torch.is_grad_enabled() and (
        x.requires_grad
        or (h0 is not None and h0.requires_grad)
        or (c0 is not None and c0.requires_grad)
        or any(p.requires_grad for p in params)
    ):
        outputs: Outputs = _Recurrent.apply(call, x, h0, c0, *params)  # type: ignore[no-untyped-call]
        return outputs
    return forward(call, x, h0, c0, None, keep=False)[0]


def forward(
    call: Call, x: Tensor, h0: Tensor | None, c0: Tensor | None, dropout: Array | None, keep: bool
) -> tuple[Outputs, object]:
    """Outputs, and the tape if it is to be kept."""
    spec, packed, module = call.spec, call.snapshot.packed, call.snapshot.module
    if dropout is None and not keep:
        dropout = call.draw_dropout()
        small = _small(call, x, h0, c0) if dropout is None else None
        if small is not None:
            return small, None
    sequence = call.sequence(x)
    y, hn = call.new(spec.directions * spec.hidden_size), call.new_state()
    cn = call.new_state() if spec.cell == "lstm" else None
    rows = 0 if call.packing is None else call.packing.rows
    tape = module.make_tape(packed, call.steps, call.batch, rows=rows) if keep else None
    module.forward(
        packed, sequence, y, call.state(h0), call.state(c0), hn, cn, call.lengths, call.reset, None, dropout, tape,
        call.packing,
    )  # fmt: skip
    outputs: Outputs = (call.given_state(hn),) if cn is None else (call.given_state(hn), call.given_state(cn))
    if call.layout != "NI":
        outputs = (call.given(y), *outputs)
    return outputs, tape


def _small(call: Call, x: Tensor, h0: Tensor | None, c0: Tensor | None) -> Outputs | None:
    """The outputs of a small dense call, if the backend has a quicker way to them."""
    given, h, c = array(x), None if h0 is None else array(h0), None if c0 is None else array(c0)
    if call.layout == "NI":
        given, h, c = given[None], None if h is None else h[None], None if c is None else c[None]
    state = h if c is None else (h, c)
    made = call.snapshot.packed.infer_small(given, state, call.lengths, call.reset, None, None, call.layout == "NTI")
    if made is None:
        return None
    y, last = made
    states = last if c is not None or type(last) is tuple else (last,)
    if call.layout == "NI":
        return tuple([torch.from_numpy(s[0]) for s in states])
    return (torch.from_numpy(y), *[torch.from_numpy(s) for s in states])


class _Recurrent(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: Call, x: Tensor, h0: Tensor | None, c0: Tensor | None, *params: Tensor) -> Outputs:
        dropout = call.draw_dropout()
        outputs, tape = forward(call, x, h0, c0, dropout, keep=True)
        ctx.save_for_backward(x, h0, c0, *params)
        ctx.set_materialize_grads(False)
        ctx.call, ctx.dropout, ctx.tapes = call, dropout, [tape]
        # Not saved, so that it may be changed in place, as PyTorch's may; backward then computes it again.
        ctx.y = outputs[0].detach()
        ctx.version = ctx.y._version
        return outputs

    @staticmethod
    def backward(ctx: Any, *given: Tensor | None) -> tuple[Tensor | None, ...]:
        call: Call = ctx.call
        x, h0, c0, *params = ctx.saved_tensors
        wanted = ctx.needs_input_grad[1:]
        if all(g is None for g in given):
            return (None,) * (1 + len(wanted))
        grads = list(given)
        dy = None if call.layout == "NI" else grads.pop(0)
        if torch.is_grad_enabled() or any(g is not None and not is_seen(g) for g in given):
            outputs = [dy, *grads] if call.layout != "NI" else grads
            with torch.enable_grad():
                return (None, *_differentiable(call, (x, h0, c0, *params), wanted, outputs, ctx.dropout))
        y = ctx.y
        try:
            tape = ctx.tapes.pop()  # one list operation: of two threads only one gets it
        except IndexError:
            tape = None
        if tape is None or y._version != ctx.version:
            made, tape = forward(call, x, h0, c0, ctx.dropout, keep=True)
            y = made[0]
        return (None, *backward(call, tape, x, y, h0, c0, dy, grads, wanted, ctx.dropout))


def backward(
    call: Call, tape: object, x: Tensor, y: Tensor, h0: Tensor | None, c0: Tensor | None,
    dy: Tensor | None, dstate: Sequence[Tensor | None], wanted: Sequence[bool], dropout: Array | None,
) -> list[Tensor | None]:  # fmt: skip
    """Gradients of x, h0, c0 and each weight, None where not wanted."""
    spec, packed, module = call.spec, call.snapshot.packed, call.snapshot.module
    dx = call.new(spec.input_size) if wanted[0] else None
    dh0 = call.new_state() if wanted[1] else None
    dc0 = call.new_state() if wanted[2] else None
    weights = np.empty(spec.weight_count, spec.dtype) if any(wanted[3:]) else None
    dhn, dcn = (*dstate, None)[:2]
    module.backward(
        packed, tape, call.sequence(x), call.sequence(y), call.state(h0), call.state(c0),
        None if dy is None else call.sequence(dy), call.state(dhn), call.state(dcn), dx, dh0, dc0, weights,
        call.lengths, call.reset, None, dropout, False, False, call.packing,
    )  # fmt: skip
    grads: list[Tensor | None] = [
        None if dx is None else call.given(dx),
        None if dh0 is None else call.given_state(dh0),
        None if dc0 is None else call.given_state(dc0),
    ]
    if weights is None:
        return [*grads, *([None] * len(wanted[3:]))]
    views = call.snapshot.cut(weights)
    return [*grads, *(torch.from_numpy(v) if want else None for v, want in zip(views, wanted[3:], strict=True))]


def _differentiable(
    call: Call, inputs: Sequence[Tensor | None], wanted: Sequence[bool], given: Sequence[Tensor | None],
    dropout: Array | None,
) -> list[Tensor | None]:  # fmt: skip
    """As `backward`, by operations that PyTorch can derive once more."""
    # Aliases, since an input may itself depend on another: only the direct part of the gradient belongs to this node.
    x, h0, c0, *params = (t.view_as(t) if t is not None and want else t for t, want in zip(inputs, wanted, strict=True))
    sources = [t for t, want in zip((x, h0, c0, *params), wanted, strict=True) if want and t is not None]
    assert x is not None
    active = None
    if call.lengths is not None:
        active = torch.from_numpy(np.arange(call.steps)[:, None, None] < call.lengths[:, None])
    weights = [p for p in params if p is not None]
    if dropout is not None and call.packing is not None:
        dropout = call.packing.spread_layers(dropout)
    outputs = reference.stack(
        call.spec, _time_major(call, x), _with_layer(call, h0), _with_layer(call, c0), weights, active,
        None if call.reset is None else torch.from_numpy(call.reset.astype(bool)[..., None]),
        None if dropout is None else torch.from_numpy(dropout),
    )  # fmt: skip
    made = [_as_given(call, outputs[0])] if call.layout != "NI" else []
    made += [o if call.layout != "NI" else o[0] for o in outputs[1:] if o is not None]
    pairs = [(o, g) for o, g in zip(made, given, strict=True) if g is not None]
    grads = iter(
        torch.autograd.grad([o for o, _ in pairs], sources, [g for _, g in pairs], create_graph=True, allow_unused=True)
    )
    return [next(grads) if want and t is not None else None for t, want in zip(inputs, wanted, strict=True)]


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
    """As `Call.given`, in PyTorch's operations."""
    if call.packing is not None:
        return y.flatten(0, 1)[torch.from_numpy(call.packing.indices())]
    return y.transpose(0, 1) if call.layout == "NTI" else y
