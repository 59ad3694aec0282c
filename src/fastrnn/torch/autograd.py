"""One recurrent call on tensors: inference, or one node of PyTorch's graph.

Kernels read and write the tensors' own memory. The node keeps the backend's tape besides what PyTorch saves, so an
in-place change of an input or of a weight that backward needs is the error it always was. Where the tape is gone (a
second backward of the same graph, a checkpoint), or the output was changed in place, it is made again from the saved
tensors, bit for bit the same.
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

    __slots__ = ("batch", "double", "layout", "lengths", "p", "packing", "reset", "snapshot", "spec", "steps")

    def __init__(
        self, snapshot: Snapshot, layout: str, steps: int, batch: int, p: float = 0.0,
        lengths: Array | None = None, reset: Array | None = None, packing: Packing | None = None,
    ) -> None:  # fmt: skip
        self.snapshot, self.layout, self.steps, self.batch, self.p = snapshot, layout, steps, batch, p
        self.lengths, self.reset, self.packing = lengths, reset, packing
        self.spec: Spec = snapshot.spec
        self.double = snapshot.double

    def sequence(self, tensor: Tensor) -> Array:
        """(T, N, features) of a tensor in the layout of the call, as kernels can walk through it."""
        given = self.snapshot.see(tensor, self.double, self.layout == "NI")
        if self.packing is not None:
            given = given[:, None]
        elif self.layout == "NTI":
            given = given.transpose(1, 0, 2)
        return given if _validate.fits(given) else np.ascontiguousarray(given)

    def new(self, like: Tensor, features: int) -> Tensor:
        """(T, N, features), dense: also of batch-first calls, of which PyTorch's outputs are transposed views too."""
        shape = (self.steps, self.batch) if self.packing is None else (self.packing.rows, 1)
        return like.new_empty((*shape, features))

    def given(self, sequence: Tensor) -> Tensor:
        """What `new` made, in the layout of the call."""
        if self.packing is not None:
            return sequence.squeeze(1)
        return sequence.transpose(0, 1) if self.layout == "NTI" else sequence[0] if self.layout == "NI" else sequence

    def state(self, tensor: Tensor | None) -> Array | None:
        """(L*D, N, H), dense."""
        if tensor is None:
            return None
        given = self.snapshot.see(tensor, self.double, self.layout == "NI")
        return given if given.flags.c_contiguous else np.ascontiguousarray(given)

    def new_state(self, like: Tensor, state: Tensor | None) -> Tensor:
        """As PyTorch gives it: (N, H) of a cell, else (L*D, N, H)."""
        if state is not None and state.is_contiguous():
            return torch.empty_like(state)  # 0.9 us, by the shape 1.5
        spec = self.spec
        if self.layout == "NI":
            return like.new_empty((self.batch, spec.hidden_size))
        return like.new_empty((spec.num_layers * spec.directions, self.batch, spec.hidden_size))

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
                dtype = torch.float64 if self.double else torch.float32
                layer[...] = torch.empty(size, dtype=dtype, device="cpu").bernoulli_(1 - p).div_(1 - p).numpy()
        return factors


def is_seen(gradient: Tensor) -> bool:
    """Whether NumPy can look at a gradient: not one of a batch of them (`is_grads_batched`), nor a lazy one."""
    if functorch.is_batchedtensor(gradient) or functorch.is_legacy_batchedtensor(gradient):
        return False
    return cache.is_plain(gradient)


def run(call: Call, x: Tensor, h0: Tensor | None, c0: Tensor | None, params: Sequence[Tensor]) -> Outputs:
    """(y, h) or (y, h, c) of a sequence, (h,) or (h, c) of a cell."""
    if torch.is_grad_enabled() and (
        x.requires_grad
        or (h0 is not None and h0.requires_grad)
        or (c0 is not None and c0.requires_grad)
        or any([p.requires_grad for p in params])
    ):
        outputs: Outputs = _Recurrent.apply(call, x, h0, c0, *params)  # type: ignore[no-untyped-call]
        return outputs
    return _small(call, x, h0, c0) or forward(call, x, h0, c0, None, keep=False)[0]


def _small(call: Call, x: Tensor, h0: Tensor | None, c0: Tensor | None) -> Outputs | None:
    """The outputs of a small dense call, if the backend has a quicker way to them: 5 us where `forward` takes 10.

    They lie in NumPy's memory. Batch-first calls are left out, since their outputs would have other strides.
    """
    layout = call.layout
    if layout not in ("TNI", "NI") or call.p or call.packing is not None:
        return None
    weights, double, lone = call.snapshot, call.double, layout == "NI"
    see = weights.see
    h = None if h0 is None else see(h0, double, lone)
    state = h if c0 is None else (h, see(c0, double, lone))
    made = weights.packed.infer_small(see(x, double, lone), state, call.lengths, call.reset, None, None, False)
    if made is None:
        return None
    y, last = made
    states = last if type(last) is tuple else (last,)
    if lone:
        return tuple([torch.from_numpy(s[0]) for s in states])
    return (torch.from_numpy(y), *[torch.from_numpy(s) for s in states])


def forward(
    call: Call, x: Tensor, h0: Tensor | None, c0: Tensor | None, dropout: Array | None, keep: bool
) -> tuple[Outputs, Tensor, object]:
    """Outputs, y (T, N, D*H) among or under them, and the tape if it is to be kept."""
    weights, spec = call.snapshot, call.spec
    packed, module = weights.packed, weights.module
    if not keep and dropout is None and call.p:
        dropout = call.draw_dropout()
    y, hn = call.new(x, spec.directions * spec.hidden_size), call.new_state(x, h0)
    cn = call.new_state(x, c0) if spec.cell == "lstm" else None
    rows = 0 if call.packing is None else call.packing.rows
    tape = module.make_tape(packed, call.steps, call.batch, rows=rows) if keep else None
    see, double, lone = weights.see, call.double, call.layout == "NI"
    last = None if cn is None else see(cn, double, lone)
    module.forward(
        packed, call.sequence(x), see(y, double), call.state(h0), call.state(c0), see(hn, double, lone), last,
        call.lengths, call.reset, None, dropout, tape, call.packing,
    )  # fmt: skip
    states = (hn,) if cn is None else (hn, cn)
    return states if lone else (call.given(y), *states), y, tape


class _Recurrent(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: Call, x: Tensor, h0: Tensor | None, c0: Tensor | None, *params: Tensor) -> Outputs:
        dropout = call.draw_dropout() if call.p else None
        hooked = _is_hooked()
        outputs, y, tape = forward(call, x, h0, c0, dropout, keep=not hooked)
        ctx.set_materialize_grads(False)
        ctx.saved = saved = _needed(call, ctx.needs_input_grad)
        ctx.save_for_backward(x, h0, c0, *[params[i] for i in saved])
        ctx.call, ctx.dropout, ctx.params = call, dropout, params
        # What a checkpoint is there to free is not kept beside it: backward then computes it again.
        ctx.tapes = [] if hooked else [tape]
        # Not saved, so that it may be changed in place, as PyTorch's may.
        ctx.y = None if hooked else y.detach()
        ctx.version = y._version
        return outputs

    @staticmethod
    def backward(ctx: Any, *given: Tensor | None) -> tuple[Tensor | None, ...]:
        call: Call = ctx.call
        x, h0, c0, *saved = ctx.saved_tensors
        wanted = ctx.needs_input_grad[1:]
        if all(g is None for g in given):
            return (None,) * (1 + len(wanted))
        grads = list(given)
        dy = None if call.layout == "NI" else grads.pop(0)
        if torch.is_grad_enabled() or any(g is not None and not is_seen(g) for g in given):
            params = _all_params(ctx, saved)
            outputs = [dy, *grads] if call.layout != "NI" else grads
            with torch.enable_grad(), torch.autocast("cpu", enabled=False):
                return (None, *_differentiable(call, (x, h0, c0, *params), wanted, outputs, ctx.dropout))
        y = ctx.y
        try:
            tape = ctx.tapes.pop()  # one list operation: of two threads only one gets it
        except IndexError:
            tape = None
        if tape is None or y._version != ctx.version:
            _, y, tape = forward(call, x, h0, c0, ctx.dropout, keep=True)
        return (None, *backward(call, tape, x, y, h0, c0, dy, grads, wanted, ctx.dropout))


_hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)


def _is_hooked() -> bool:
    """Whether somebody decides what becomes of saved tensors, such as `torch.utils.checkpoint`."""
    return _hooks is not None and _hooks(False) is not None


def _needed(call: Call, needs: Sequence[bool]) -> list[int]:
    """Which weights PyTorch's backward would read: a change of them in between is an error, of others is none.

    No bias; no W of the first layer if x wants no gradient; no U if one step began from a state that wants none.
    """
    spec = call.spec
    each, first = 4 if spec.bias else 2, spec.directions
    through_time = call.steps > 1 or needs[2] or needs[3]
    saved = []
    for index in range(spec.num_layers * first):
        if index >= first or needs[1]:
            saved.append(each * index)
        if through_time:
            saved.append(each * index + 1)
    return saved


def _all_params(ctx: Any, saved: Sequence[Tensor]) -> list[Tensor]:
    """The weights of a call, those among them that autograd saved as it gives them back."""
    params, marks = list(ctx.params), ctx.call.snapshot.marks
    for index, tensor in zip(ctx.saved, saved, strict=True):
        params[index] = tensor
    if marks is not None and any(p._version != mark[1] for p, mark in zip(ctx.params, marks, strict=True)):
        message = (
            "one of the variables needed for gradient computation has been modified by an inplace operation: "
            "a weight of a recurrent layer, of which a differentiable gradient is computed"
        )
        raise RuntimeError(message)
    return params


def backward(
    call: Call, tape: object, x: Tensor, y: Tensor, h0: Tensor | None, c0: Tensor | None,
    dy: Tensor | None, dstate: Sequence[Tensor | None], wanted: Sequence[bool], dropout: Array | None,
) -> list[Tensor | None]:  # fmt: skip
    """Gradients of x, h0, c0 and each weight, None where not wanted; y (T, N, D*H)."""
    weights, spec, double, lone = call.snapshot, call.spec, call.double, call.layout == "NI"
    see = weights.see
    dx = call.new(x, spec.input_size) if wanted[0] else None
    dh0 = call.new_state(x, h0) if wanted[1] else None
    dc0 = call.new_state(x, c0) if wanted[2] else None
    flat = np.empty(spec.weight_count, spec.dtype) if any(wanted[3:]) else None
    dhn, dcn = (*dstate, None)[:2]
    weights.module.backward(
        weights.packed, tape, call.sequence(x), see(y, double), call.state(h0), call.state(c0),
        None if dy is None else call.sequence(dy), call.state(dhn), call.state(dcn),
        None if dx is None else see(dx, double),
        None if dh0 is None else see(dh0, double, lone),
        None if dc0 is None else see(dc0, double, lone),
        flat, call.lengths, call.reset, None, dropout, False, False, call.packing,
    )  # fmt: skip
    grads = [None if dx is None else call.given(dx), dh0, dc0]
    if flat is None:
        return [*grads, *([None] * len(wanted[3:]))]
    views = weights.cut(flat)
    return [*grads, *[torch.from_numpy(v) if want else None for v, want in zip(views, wanted[3:], strict=True)]]


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
