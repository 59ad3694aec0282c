"""One recurrent call on tensors: inference, or one node of PyTorch's graph.

Kernels read and write the tensors' own memory. The node keeps the backend's tape besides what PyTorch saves, so an
in-place change of an input or of a weight that backward needs is an error, as it mostly was. Where the tape is gone (a
second backward of the same graph, a checkpoint), it is made again from the saved tensors, bit for bit the same; also
where the output was changed in place, if it is long: of a short one the tape has a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor

from .. import backends
from . import cache, second_order
from .call import Call
from .draws import NOTHING, Drawn

Outputs = tuple[Tensor, ...]
functorch = torch._C._functorch


def is_seen(gradient: Tensor) -> bool:
    """Whether NumPy can look at a gradient: not one of a batch of them (`is_grads_batched`), nor a lazy one."""
    if functorch.is_batchedtensor(gradient) or functorch.is_legacy_batchedtensor(gradient):
        return False
    return cache.is_plain(gradient)


def run(call: Call, x: Tensor, h0: Tensor | None, c0: Tensor | None, params: Sequence[Tensor]) -> Outputs:
    """(y, h) or (y, h, c) of a sequence, (h,) or (h, c) of a cell."""
    if torch.is_grad_enabled() and (
        params[0].requires_grad
        or x.requires_grad
        or (h0 is not None and h0.requires_grad)
        or (c0 is not None and c0.requires_grad)
        or any([p.requires_grad for p in params])
    ):
        return _apply(call, x, h0, c0, *params)
    if call.seen is not None:
        outputs: Outputs | None = call.snapshot.calls.infer(call.seen, call.layout)
        if outputs is not None:
            return outputs
    return forward(call, x, h0, c0, call.draw(), keep=False)[0]


def forward(
    call: Call, x: Tensor, h0: Tensor | None, c0: Tensor | None, drawn: Drawn, keep: bool
) -> tuple[Outputs, Tensor, object]:
    """Outputs, y of all steps, which is one of them but for a cell's, and the tape if it is to be kept."""
    weights, spec = call.snapshot, call.spec
    packed, module = weights.packed, weights.module
    y, hn = call.new(x, spec.directions * spec.hidden_size), call.new_state(x, h0)
    cn = call.new_state(x, c0) if spec.cell == "lstm" else None
    rows = 0 if call.packing is None else call.packing.rows
    tape = module.make_tape(packed, call.steps, call.batch, rows=rows) if keep else None
    see, double, lone = weights.see, call.double, call.layout == "NI"
    last = None if cn is None else see(cn, double, lone)
    module.forward(
        packed, call.sequence(x), call.sequence(y), call.state(h0), call.state(c0), see(hn, double, lone), last,
        call.lengths, call.reset, None, drawn.dropout, tape, call.packing, drawn.regular,
    )  # fmt: skip
    states = (hn,) if cn is None else (hn, cn)
    return states if lone else (y, *states), y, tape


class _Recurrent(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: Call, x: Tensor, h0: Tensor | None, c0: Tensor | None, *params: Tensor) -> Outputs:
        hooked = _is_hooked()
        seen, call.seen = call.seen, None  # the node keeps the call, and x may go
        calls = None if seen is None or hooked else call.snapshot.calls
        made = None if calls is None else calls.forward(seen, x, h0, call.layout)
        outputs: Outputs
        if made is not None:
            (outputs, tape), drawn, alias, version = made, NOTHING, None, 0
        else:
            calls, drawn = None, call.draw()
            outputs, y, tape = forward(call, x, h0, c0, drawn, keep=not hooked)
            alias, version = (None, 0) if hooked else (y.detach(), y._version)
        ctx.set_materialize_grads(False)
        spec, wanted = call.spec, ctx.needs_input_grad
        through_time = call.steps > 1 or wanted[2] or wanted[3]
        saved = _needed(spec.num_layers, spec.directions, spec.bias, wanted[1], through_time)
        ctx.save_for_backward(x, h0, c0, *[params[i] for i in saved])
        # What a checkpoint is there to free is not kept beside it: backward then computes it again. The output is not
        # saved, so that it may be changed in place, as PyTorch's may.
        ctx.kept = call, calls, drawn, params, saved, alias, version, [] if hooked else [tape]
        return outputs

    @staticmethod
    def backward(ctx: Any, *given: Tensor | None) -> tuple[Tensor | None, ...]:
        call, calls, drawn, params, names, y, version, tapes = ctx.kept
        tensors, derivable = ctx.saved_tensors, torch.is_grad_enabled()
        if calls is not None and not derivable:
            made: tuple[Tensor | None, ...] | None
            made = calls.backward(tapes, tensors, given, ctx.needs_input_grad, call.layout)
            if made is not None:
                return made
        x, h0, c0, *saved = tensors
        wanted = ctx.needs_input_grad[1:]
        if all(g is None for g in given):
            return (None,) * (1 + len(wanted))
        grads = list(given)
        dy = None if call.layout == "NI" else grads.pop(0)
        if derivable or any(g is not None and not is_seen(g) for g in given):
            params = _all_params(call, params, names, saved)
            outputs = [dy, *grads] if call.layout != "NI" else grads
            with torch.enable_grad(), torch.autocast("cpu", enabled=False):
                return (None, *second_order.backward(call, (x, h0, c0, *params), wanted, outputs, drawn, derivable))
        try:
            tape = None if y is None else tapes.pop()  # one list operation: of two threads only one gets it
        except IndexError:
            tape = None
        if tape is None or y._version != version or not y.data_ptr():  # its storage was resized
            _, y, tape = forward(call, x, h0, c0, drawn, keep=True)
        return (None, *backward(call, tape, x, y, h0, c0, dy, grads, wanted, drawn))


# `Function.apply` without its Python part, which is for functorch's transforms: under them, and with what outlived
# them, no call is ours. measured: 5 us of a training step (2-vCPU Zen 4).
_apply: Callable[..., Outputs] = super(torch.autograd.Function, _Recurrent).apply
# So for the node's way to `backward`, past the choice between that and `vjp`.
cast(Any, _Recurrent)._backward_cls.apply = _Recurrent.backward
_hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)


def _is_hooked() -> bool:
    """Whether somebody decides what becomes of saved tensors, such as `torch.utils.checkpoint`."""
    return _hooks is not None and _hooks(False) is not None


@lru_cache(maxsize=256)
def _needed(layers: int, directions: int, bias: bool, wants_x: bool, through_time: bool) -> list[int]:
    """Which weights PyTorch's backward would read: a change of them in between is an error, of others is none.

    No bias; no W of the first layer if x wants no gradient; no U if one step began from a state that wants none.
    """
    each = 4 if bias else 2
    saved = []
    for index in range(layers * directions):
        if index >= directions or wants_x:
            saved.append(each * index)
        if through_time:
            saved.append(each * index + 1)
    return saved


def _all_params(call: Call, given: Sequence[Tensor], names: Sequence[int], saved: Sequence[Tensor]) -> list[Tensor]:
    """The weights of a call, those among them that autograd saved as it gives them back."""
    params, marks = list(given), call.snapshot.marks
    for index, tensor in zip(names, saved, strict=True):
        params[index] = tensor
    if marks is not None and any(p._version != mark[1] for p, mark in zip(given, marks, strict=True)):
        message = (
            "one of the variables needed for gradient computation has been modified by an inplace operation: "
            "a weight of a recurrent layer, of which a differentiable gradient is computed"
        )
        raise RuntimeError(message)
    return params


def backward(
    call: Call, tape: object, x: Tensor, y: Tensor, h0: Tensor | None, c0: Tensor | None,
    dy: Tensor | None, dstate: Sequence[Tensor | None], wanted: Sequence[bool], drawn: Drawn,
) -> list[Tensor | None]:  # fmt: skip
    """Gradients of x, h0, c0 and each weight, None where not wanted; y as `forward` gives it."""
    weights, spec, double, lone = call.snapshot, call.spec, call.double, call.layout == "NI"
    see = weights.see
    dx = call.new(x, spec.input_size) if wanted[0] else None
    dh0 = call.new_state(x, h0) if wanted[1] else None
    dc0 = call.new_state(x, c0) if wanted[2] else None
    flat = backends.empty((spec.weight_count,), spec.dtype) if any(wanted[3:]) else None
    dhn, dcn = (*dstate, None)[:2]
    weights.module.backward(
        weights.packed, tape, call.sequence(x), call.sequence(y), call.state(h0), call.state(c0),
        None if dy is None else call.sequence(dy), call.state(dhn), call.state(dcn),
        None if dx is None else call.sequence(dx),
        None if dh0 is None else see(dh0, double, lone),
        None if dc0 is None else see(dc0, double, lone),
        flat, call.lengths, call.reset, None, drawn.dropout, False, False, call.packing, drawn.regular,
    )  # fmt: skip
    grads = [dx, dh0, dc0]
    if flat is None:
        return [*grads, *([None] * len(wanted[3:]))]
    views = weights.cut(flat)
    return [*grads, *[torch.from_numpy(v) if want else None for v, want in zip(views, wanted[3:], strict=True)]]
