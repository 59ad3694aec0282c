"""Recurrent layers as pure functions of arrays and packed weights.

`pack` makes a snapshot of the weights for the backend in force; `infer` runs it keeping nothing; `forward` leaves a
`Tape` from which `backward` makes `Gradients`. `lstm`, `gru` and `rnn` do one inference from a mapping of weights. The
classes `fastrnn.LSTM`, `fastrnn.GRU` and `fastrnn.RNN` add names, weights and random numbers to these and nothing else.

Letters: T steps, N batch, I input, H hidden, D directions, L layers. y and dy are (T, N, D*H); of an LSTM with a
projection y, dy and h have P values where H is written. With `batch_first=True` the first two axes of x, y, dy,
grads.x, reset and mask are swapped; without a batch axis x is (T, I) and N is dropped everywhere. Every array argument
may be a list, of another real dtype, strided or read-only.

x may also be packed, a `sequences.Ragged` or a PackedSequence, ours or PyTorch's, with M rows of data in all. Then it
is never padded: y and grads.x come in the layout of x; dy, reset, mask and dropout have (M, ...) for (T, N, ...), in
the order of x, and all but dropout may come in its layout. States have the N rows in their order before sorting.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from . import _outputs, _packed, _validate, _validate_regularisers, backends
from ._packed import PackedLayout
from ._spec import Spec
from ._tape import Gradients, Tape, check_tape
from ._weights import Weights
from .backends import Backend, Packed

__all__ = [
    "Gradients",
    "Packed",
    "Spec",
    "Tape",
    "Weights",
    "backward",
    "forward",
    "gru",
    "infer",
    "lstm",
    "pack",
    "rnn",
]

Array = npt.NDArray[Any]


def pack(spec: Spec, weights: Array | Mapping[str, Any]) -> Packed:
    """Snapshot of the weights in the layout of the backend and instruction set in force.

    For a general spec, that of the general path: `Packed.backend` says what runs.

    Parameters
    ----------
    spec : Spec
        Cell, sizes and options.
    weights : ndarray, shape (weight_count,), or mapping of names to arrays
        In `state_dict` order, respectively with exactly its names.

    Returns
    -------
    Packed
        Immutable; does not follow later changes of `weights`.

    Raises
    ------
    TypeError, ValueError
        Missing, unknown, misshapen or non-numeric weights.
    """
    return backends.module_for(spec).pack(spec, _validate.flat_weights(weights, spec))


def infer(
    packed: Packed,
    x: Any,
    state: Any = None,
    *,
    lengths: Any = None,
    reset: Any = None,
    mask: Any = None,
    out: Array | None = None,
    batch_first: bool = False,
) -> tuple[Array, Any]:
    """Run a stack over a sequence, keeping nothing for a backward pass.

    Parameters
    ----------
    packed : Packed
        From `pack`; decides backend and instruction set.
    x : array_like, shape (T, N, I), or packed data (M, I)
    state : (h, c) for an LSTM, h for the others; each shape (L*D, N, H), optional
        Zeros if not given.
    lengths : array_like of int, shape (N,), optional
        Row n runs lengths[n] steps; its later outputs are 0.
    reset : array_like of bool, shape (T, N), optional
        Boundaries: the state is zero before step t in the forward direction, before step t-1 in the reverse direction.
    mask : array_like of bool, shape (T, N), optional
        Where False the step copies the state and repeats the last output.
    out : ndarray, shape of y, optional
        Where y is written to; must share no memory with an input.
    batch_first : bool

    Returns
    -------
    y : ndarray, shape (T, N, D*H)
    state : as the argument
        After each row's last step.

    Raises
    ------
    TypeError, ValueError
        An argument that does not fit, before anything is written.

    Notes
    -----
    With zoneout every state is its expectation, h[t] = p h[t-1] + (1-p) h~[t] (Krueger et al. 2016).
    """
    module, spec = _module(packed), packed.spec
    done = packed.infer_small(x, state, lengths, reset, mask, out, batch_first)
    if done is not None:
        return done
    layout = _packed.layout(x, lengths)
    x, batched = _validate.sequence(spec, x, batch_first) if layout is None else layout.input(spec)
    steps, batch, _ = x.shape
    h0 = c0 = None
    if state is not None or lengths is not None or reset is not None or mask is not None:
        h0, c0, lengths, reset, mask = _optional(
            spec, state, lengths, reset, mask, steps, batch, batched, batch_first, False, layout
        )
    batch_first = batch_first and layout is None
    if out is None:
        y = target = _outputs.new_output(spec, steps, batch, batch_first, x.dtype)
    else:
        y = _validate.output(out, spec.dtype, _validate.output_shape(spec, steps, batch, batched, batch_first))
        y = _validate.time_major(y, batched, batch_first)
        inputs = ("x", x), ("state", h0), ("state", c0), ("lengths", lengths), ("reset", reset), ("mask", mask)
        _validate.apart(y, *inputs)
        target = y if _validate.fits(y) else np.empty(y.shape, y.dtype)
    packing = None if layout is None else layout.packing
    times, sequences = (steps, batch) if packing is None else (packing.steps, packing.batch)
    hn, cn = _outputs.new_state(spec, sequences, x.dtype)
    module.forward(
        packed, x, target, h0, c0, hn, cn, lengths, reset, mask, None, None, packing, spec.expected(times, sequences)
    )
    if target is not y:
        y[...] = target
    if layout is not None:
        return layout.wrap(y[:, 0]), hn if cn is None else (hn, cn)
    if out is None:
        out = y if batched and not batch_first else _outputs.as_given(y, batched, batch_first)
    if batched:
        return out, hn if cn is None else (hn, cn)
    return out, _outputs.as_state(hn, cn, batched)


def forward(
    packed: Packed,
    x: Any,
    state: Any = None,
    *,
    lengths: Any = None,
    reset: Any = None,
    mask: Any = None,
    dropout: Any = None,
    recurrent_dropout: Any = None,
    zoneout: Any = None,
    tape: Tape | None = None,
    save: str = "all",
    batch_first: bool = False,
) -> tuple[Array, Any, Tape]:
    """Run a stack over a sequence and keep what `backward` needs.

    Parameters
    ----------
    packed, x, state, lengths, reset, mask, batch_first
        As in `infer`. x is held by the tape and must not change until backward; the others are copied.
    dropout : array_like, shape (L-1, T, N, D*H), or a function that makes one for a shape, optional
        Factors for the output of layer l on its way into layer l+1: 0 or 1/(1-p). A function is called only if there
        is more than one layer, and when all arguments have been found good: no random number is drawn in vain.
    recurrent_dropout : array_like, shape (L*D, N, H), or a function that makes one for a shape, optional
        Factors m, 0 or 1/(1-p), the same at every step: U multiplies m * h[t-1], a GRU's U_n with reset_after=False
        r * (m * h[t-1]). What of h[t-1] goes past the product, a GRU's z * h[t-1], stays as it is.
    zoneout : array_like, shape (L*D, T, N, H), or a function that makes one for a shape, optional
        Shares z, from 0 to 1, of the state before that stay: h[t] = z h[t-1] + (1-z) h~[t]. Of an LSTM a pair, either
        may be None: c[t] = z_c c[t-1] + (1-z_c) c~[t], h~[t] = o tanh(c~[t]). Without it the rates of `packed.spec`.
    tape : Tape, optional
        An old tape whose memory is taken over. It is void afterwards.
    save : {"all", "recompute"}
        Whether the tape holds the gates, or backward computes them again: see `Tape`.

    Returns
    -------
    y : ndarray, shape (T, N, D*H), read-only
        The tape shares its memory.
    state : as in `infer`
    tape : Tape

    Raises
    ------
    TypeError, ValueError
        An argument that does not fit, before anything is written.
    """
    module, spec = _module(packed), packed.spec
    drawn = dropout is None and recurrent_dropout is None and zoneout is None
    whole = lengths is None and reset is None and mask is None
    if whole and drawn and tape is None and batch_first is False and type(save) is str and save == "all":
        done = packed.forward_plain(x, state)
        if done is not None:
            y, hn, cn, h0, c0, buffer = done
            return _outputs.read_only(y), hn if cn is None else (hn, cn), Tape(packed, buffer, x, y, h0, c0, plain=True)
    layout = _packed.layout(x, lengths)
    x, batched = _validate.sequence(spec, x, batch_first) if layout is None else layout.input(spec)
    steps, batch, _ = x.shape
    h0, c0, lengths, reset, mask = _optional(
        spec, state, lengths, reset, mask, steps, batch, batched, batch_first, True, layout
    )
    batch_first = batch_first and layout is None
    draw = dropout if callable(dropout) else None
    if dropout is not None:
        dropout = None if draw else _validate.dropout_masks(dropout, spec, steps, batch, batched)
    packing = None if layout is None else layout.packing
    times, sequences = (steps, batch) if packing is None else (packing.steps, packing.batch)
    regularise = _validate_regularisers.given(
        spec, recurrent_dropout, zoneout, times, sequences, batched or layout is not None
    )
    if tape is not None and not isinstance(tape, Tape):
        message = f"tape is a {type(tape).__name__}; it must be a Tape from an earlier forward"
        raise TypeError(message)
    recompute = _validate.choice("save", save, ("all", "recompute")) == "recompute"
    y = _outputs.new_output(spec, steps, batch, batch_first, x.dtype)
    hn, cn = _outputs.new_state(spec, sequences, x.dtype)
    if draw and spec.num_layers > 1:
        shape = (spec.num_layers - 1, *y.shape)
        dropout = _validate.dropout_masks(draw(shape), spec, steps, batch, True)
    regular = None if regularise is None else regularise()
    old = tape.memory_for(packed.backend) if tape is not None else None
    buffer = module.make_tape(packed, times, sequences, old, recompute, 0 if packing is None else steps)
    module.forward(packed, x, y, h0, c0, hn, cn, lengths, reset, mask, dropout, buffer, packing, regular)
    new = Tape(packed, buffer, x, y, h0, c0, lengths, reset, mask, dropout, regular, batched, batch_first, layout)
    visible = _outputs.read_only(_outputs.as_given(y, batched, batch_first))
    if layout is not None:
        return layout.wrap(visible), hn if cn is None else (hn, cn), new
    return visible, _outputs.as_state(hn, cn, batched), new


def backward(
    tape: Tape,
    dy: Any = None,
    dstate: Any = None,
    *,
    retain: bool = False,
    out: Gradients | None = None,
    accumulate: bool = False,
) -> Gradients:
    """Back-propagation through time: gradients of a scalar with respect to x, the initial state and the weights.

    Parameters
    ----------
    tape : Tape
        From `forward`; consumed unless `retain`.
    dy : array_like, shape of y, optional
        Gradient with respect to y; zero if not given.
    dstate : (dh, dc) for an LSTM, dh for the others; shapes of the state, optional
        Gradient with respect to the final state. dh or dc of an LSTM may be None.
    retain : bool
        Keep the tape for another backward.
    out : Gradients, optional
        Gradients of an earlier backward of the same layer sizes, whose memory is used again (arrays taken from it
        change) and which is returned.
    accumulate : bool
        Add to the weight gradients in `out` instead of overwriting them. x and state are always overwritten.

    Returns
    -------
    Gradients

    Raises
    ------
    TypeError, ValueError
        A tape that has been used, or an argument that does not fit.

    Notes
    -----
    Werbos, "Backpropagation through time: what it does and how to do it", Proceedings of the IEEE 78 (1990).
    """
    check_tape(tape)
    if tape.plain and dstate is None and retain is False and type(accumulate) is bool:
        _check_out(tape.spec, out, accumulate)
        done = _backward_plain(tape, dy, out, accumulate)
        if done is not None:
            return done
    retain, accumulate = _validate.flag("retain", retain), _validate.flag("accumulate", accumulate)
    spec, batch, batched, batch_first, layout = tape.spec, tape.batch, tape.batched, tape.batch_first, tape.layout
    if dy is not None:
        given = dy if layout is None else layout.data("dy", dy)
        first, second, _ = cast(Array, tape.y).shape
        dy = _validate.like_output("dy", given, spec, first, second, batched, batch_first)
    dhn, dcn = _validate.state("dstate", dstate, spec, batch, batched or layout is not None, partial=True)
    _check_out(spec, out, accumulate)
    grads = out if out is not None else Gradients(spec)
    buffer = tape.take_ready()
    complete = False
    try:
        if out is not None:  # what was handed in may be a part of `out`: the next chunk's grads.state, for instance
            dy, dhn, dcn = (a if a is None or not out.shares(a) else a.copy() for a in (dy, dhn, dcn))
        grads.fit(tape)
        if out is not None and out.shares(cast(Array, tape.x)):
            tape.x = cast(Array, tape.x).copy()
        _module(tape.packed).backward(
            tape.packed, buffer, cast(Array, tape.x), cast(Array, tape.y), tape.h0, tape.c0, dy, dhn, dcn,
            grads.dx, grads.dh0, grads.dc0, grads.flat, tape.lengths, tape.reset, tape.mask, tape.dropout,
            retain, accumulate, None if layout is None else layout.packing, tape.regular,
        )  # fmt: skip
        complete = True
    finally:
        tape.give_back(buffer, ready=retain and complete)
    return grads


def _backward_plain(tape: Tape, dy: Any, out: Gradients | None, accumulate: bool) -> Gradients | None:
    """Backward of a plain tape to a plain dy; None if dy or out is not plain, and nothing is done."""
    buffer = tape.take_ready()
    kept = True
    try:
        x, y, into = cast(Array, tape.x), cast(Array, tape.y), None if out is None else out.parts
        made = tape.packed.backward_plain(buffer, x, y, tape.h0, tape.c0, dy, into, accumulate)
        kept = made is None
    finally:
        tape.give_back(buffer, ready=kept)
    if made is None:
        return None
    return Gradients.of(tape.spec, *made) if out is None else out.plain()


def lstm(
    x: Any,
    weights: Mapping[str, Any],
    state: Any = None,
    *,
    input_forget: bool = False,
    clip: float | None = None,
    activations: Any = None,
    **options: Any,
) -> tuple[Array, tuple[Array, Array]]:
    """One LSTM inference from PyTorch-named weights; sizes, layers, directions and bias follow from them.

    So do a projection and peepholes, if there is a weight_hr_l0 or a weight_ph_l0.

    Parameters
    ----------
    x, state
        As in `infer`.
    weights : mapping of names to arrays
        A `state_dict`. Computed in float64 if they are float64, else in float32.
    input_forget, clip, activations
        As for `fastrnn.LSTM`.
    **options
        lengths, reset, mask, out, batch_first as in `infer`.

    Returns
    -------
    y : ndarray, shape (T, N, D*H)
    (h, c) : ndarrays, shape (L*D, N, H)

    Raises
    ------
    TypeError, ValueError
        Weights or arguments that do not fit.
    """
    spec = _validate.spec_of_weights("lstm", weights, input_forget=input_forget, clip=clip, activations=activations)
    return infer(pack(spec, weights), x, state, **options)


def gru(
    x: Any,
    weights: Mapping[str, Any],
    state: Any = None,
    *,
    reset_after: bool = True,
    clip: float | None = None,
    activations: Any = None,
    **options: Any,
) -> tuple[Array, Array]:
    """One GRU inference from PyTorch-named weights: as `lstm`, with the state h.

    Parameters
    ----------
    reset_after : bool
        Whether the reset gate applies after (True) or before (False) the recurrent product.
    clip, activations
        As for `fastrnn.GRU`.

    Raises
    ------
    TypeError, ValueError
        As `lstm`.
    """
    spec = _validate.spec_of_weights("gru", weights, reset_after=reset_after, clip=clip, activations=activations)
    return infer(pack(spec, weights), x, state, **options)


def rnn(
    x: Any,
    weights: Mapping[str, Any],
    state: Any = None,
    *,
    nonlinearity: str = "tanh",
    clip: float | None = None,
    activations: Any = None,
    **options: Any,
) -> tuple[Array, Array]:
    """One Elman RNN inference from PyTorch-named weights: as `lstm`, with the state h.

    Parameters
    ----------
    nonlinearity : {"tanh", "relu"}
    clip, activations
        As for `fastrnn.RNN`.

    Raises
    ------
    TypeError, ValueError
        As `lstm`.
    """
    spec = _validate.spec_of_weights("rnn", weights, nonlinearity=nonlinearity, clip=clip, activations=activations)
    return infer(pack(spec, weights), x, state, **options)


# ---------------------------------------------------------------------------------------------------------------------


def _module(packed: Packed) -> Backend:
    """The backend that made the snapshot, whichever is in force now."""
    try:
        return backends.load(packed.backend)
    except AttributeError:
        message = f"packed is a {type(packed).__name__}; it must come from fastrnn.functional.pack"
        raise TypeError(message) from None


def _optional(
    spec: Spec, state: Any, lengths: Any, reset: Any, mask: Any,
    steps: int, batch: int, batched: bool, batch_first: bool, own: bool, layout: PackedLayout | None,
) -> tuple[Array | None, Array | None, Array | None, Array | None, Array | None]:  # fmt: skip
    """Check what most calls leave out; `own` copies what is kept beyond the call."""
    h0 = c0 = None
    if layout is not None:
        reset, mask = layout.data("reset", reset), layout.data("mask", mask)
        h0, c0 = _validate.state("state", state, spec, layout.packing.batch, True, own)
    elif state is not None:
        h0, c0 = _validate.state("state", state, spec, batch, batched, own)
    if lengths is not None:
        lengths = _validate.lengths(lengths, steps, batch, batched)
    if reset is not None:
        reset = _validate.flags("reset", reset, steps, batch, batched, batch_first, own)
    if mask is not None:
        mask = _validate.flags("mask", mask, steps, batch, batched, batch_first, own)
    return h0, c0, lengths, reset, mask


def _check_out(spec: Spec, out: Gradients | None, accumulate: bool) -> None:
    if out is None:
        if accumulate:
            message = "accumulate is True without out; it needs the Gradients to add to"
            raise ValueError(message)
        return
    if not isinstance(out, Gradients):
        message = f"out is a {type(out).__name__}; it must be the Gradients of an earlier backward"
        raise TypeError(message)
    if out.spec != spec:
        message = f"out holds gradients of {out.spec}; it must be for {spec}"
        raise ValueError(message)
    flat = out.flat
    if flat.shape != (spec.weight_count,) or flat.dtype != spec.dtype or not flat.flags.carray:
        message = f"out.flat was replaced; it must be a writeable array of {spec.weight_count} numbers of {spec.dtype}"
        raise ValueError(message)
