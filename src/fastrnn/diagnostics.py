"""What a recurrence does with a sequence: every intermediate, the gradient of every hidden state, the spectra of U.

    unroll           gates, cell states and hidden states of all steps, by name
    gradient_flow    the backward pass, and with it the norm of dL/dh[t] for every step, layer and direction
    spectral_radius  of the recurrent matrix of every gate
    plot_unroll, plot_gradient_flow, plot_spectral_radius    the same as pictures; they need Matplotlib

Names are a letter and PyTorch's suffix of layer and direction, "f_l0" or "h_l1_reverse". The letters of an LSTM are
i f g o c h, those of a GRU r z n h, that of an RNN h.

The compiled kernels keep gates in a layout of their own. What `unroll` shows is computed by the NumPy backend in the
layer's dtype: it follows the same equations and differs in rounding only.

Letters: T steps, N batch, H hidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from . import _packed, _validate, backends
from ._diagnostics_plots import plot_gradient_flow, plot_spectral_radius, plot_unroll
from ._recurrent import Recurrent
from ._spec import Regularisers, Spec
from ._tape import Gradients, Tape, check_tape
from .backends import _general, _numpy
from .backends._schedule import schedules
from .backends._stack import Packed, TapeBuffer, Twin

__all__ = [
    "GradientFlow",
    "Unrolled",
    "gradient_flow",
    "plot_gradient_flow",
    "plot_spectral_radius",
    "plot_unroll",
    "spectral_radius",
    "unroll",
]

Array: TypeAlias = npt.NDArray[Any]

_LETTERS = {"lstm": "ifgo", "gru": "rzn", "rnn": "h"}  # of the blocks of U, in their order


class Unrolled(Mapping[str, Array]):
    """Every intermediate of one call by name: what `unroll` returns.

    Each is (T, N, H), or (T, H) of an unbatched x; h of a layer with a projection has P for H. Steps come first also if
    the layer is batch_first. Gates are 0 where the cell did not run (after a row's end, or masked), states are 0 after
    a row's end.

    Attributes
    ----------
    ran : ndarray of bool, shape (T, N) or (T,)
        Where the cell ran.
    """

    def __init__(self, arrays: dict[str, Array], ran: npt.NDArray[np.bool_]) -> None:
        self._arrays = arrays
        self.ran = ran

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        shapes = dict.fromkeys(str(array.shape) for array in self._arrays.values())  # with a projection h has its own
        return f"<Unrolled: {' '.join(self._arrays)}; each {' or '.join(shapes)}>"


def unroll(
    layer: Recurrent[Any], x: Any, state: Any = None, *, lengths: Any = None, reset: Any = None, mask: Any = None
) -> Unrolled:
    """Run a layer on a sequence and keep everything: gates, cell states and hidden states of each layer and direction.

    Parameters
    ----------
    layer : LSTM, GRU or RNN
    x, state, lengths, reset, mask
        As in a call of the layer. As there, nothing is dropped. A packed x is shown padded, (T, N, H).

    Returns
    -------
    Unrolled
        A mapping of names to arrays (T, N, H) in the order of layers, directions and letters. c and h are the states
        after each step. Gates are as they are applied, after their activation.

    Raises
    ------
    TypeError, ValueError
        An argument that does not fit, named.

    Notes
    -----
    Time is that of a training forward of the NumPy backend; memory T*N*H values for every name (an RNN's h apart, that
    is what a tape takes).

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> seen = fastrnn.diagnostics.unroll(fastrnn.LSTM(3, 8, rng=0), np.zeros((5, 2, 3)))
    >>> list(seen), seen["f_l0"].shape
    (['i_l0', 'f_l0', 'g_l0', 'o_l0', 'c_l0', 'h_l0'], (5, 2, 8))
    """
    spec = _spec(layer)
    layout, batch_first = _packed.layout(x, lengths), layer.batch_first
    x, batched = _validate.sequence(spec, x, batch_first) if layout is None else layout.input(spec)
    steps, batch, _ = x.shape
    if layout is not None:
        reset, mask, batch_first = layout.data("reset", reset), layout.data("mask", mask), False
    reset, mask = (
        None if given is None else _validate.flags(name, given, steps, batch, batched, batch_first, own=False)
        for name, given in (("reset", reset), ("mask", mask))
    )
    if layout is not None:  # from here on as if it had come padded
        x, reset, mask = (layout.packing.spread(array) for array in (x, reset, mask))
        lengths, batched, (steps, batch, _) = layout.packing.lengths, True, x.shape
    elif lengths is not None:
        lengths = _validate.lengths(lengths, steps, batch, batched)
    h0, c0 = _validate.state("state", state, spec, batch, batched)
    twin, packed = _twin(layer)
    y, tape = _forward(twin, packed, x, h0, c0, lengths, reset, mask, None, spec.expected(steps, batch))
    schedule = schedules(spec, steps, lengths, reset, mask)[0]
    ran = np.ones((steps, batch), bool) if schedule.run is None else schedule.run
    arrays: dict[str, Array] = {}
    for k, suffix in enumerate(_suffixes(spec)):
        gates, cells = tape.gates[k], tape.aux[k]
        if gates is not None and spec.cell != "rnn":
            gates = twin.activated(packed, k, gates)
            gates[~ran] = 0
            for g, letter in enumerate(_LETTERS[spec.cell]):
                arrays[f"{letter}_{suffix}"] = _block(gates, g, spec.hidden_size)
        if spec.cell == "lstm":
            if schedule.live is not None:
                cells[~schedule.live] = 0
            arrays[f"c_{suffix}"] = cells
        last = k // spec.directions == spec.num_layers - 1
        out = y if last else tape.outputs[k // spec.directions]
        arrays[f"h_{suffix}"] = _block(out, k % spec.directions, spec.output_size)
    if not batched:
        return Unrolled({name: array[:, 0] for name, array in arrays.items()}, ran[:, 0])
    return Unrolled(arrays, ran)


@dataclass(frozen=True)
class GradientFlow:
    """Gradients of a loss, and how they came back through time: what `gradient_flow` returns.

    Attributes
    ----------
    gradients : Gradients
        What `layer.backward` gives.
    states : dict of ndarray, shape (T, N, H) or (T, H)
        "h_l0": dL/dh[t] of layer 0, and so on; for an LSTM "c_l0" too. Steps come first.
    row_norms : dict of ndarray of float64, shape (T, N) or (T,)
        Euclidean norm of each row.
    norms : dict of ndarray of float64, shape (T,)
        Norm over all rows.
    """

    gradients: Gradients
    states: dict[str, Array]
    row_norms: dict[str, Array] = field(init=False)
    norms: dict[str, Array] = field(init=False)

    def __post_init__(self) -> None:
        rows = {name: _norm(array) for name, array in self.states.items()}
        batched = next(iter(rows.values())).ndim == 2
        object.__setattr__(self, "row_norms", rows)
        object.__setattr__(self, "norms", {n: _norm(r) for n, r in rows.items()} if batched else rows)

    def __repr__(self) -> str:
        return f"<GradientFlow of {self.gradients.spec.cell}: {' '.join(self.states)}>"


def gradient_flow(
    layer: Recurrent[Any],
    tape: Tape,
    dy: Any = None,
    dstate: Any = None,
    *,
    retain: bool = False,
    out: Gradients | None = None,
    accumulate: bool = False,
) -> GradientFlow:
    """`layer.backward`, and with it dL/dh[t] for every step, layer and direction, with its norm.

    dL/dh[t] is the whole derivative: how the loss changes if the hidden state after step t changes, and with it y[t],
    everything that the layers above make of it, and all later steps. It shrinks or grows by the Jacobian of a step at
    each step back: where its norm falls to nothing, the loss cannot teach the network what happened before. dL/dc[t] of
    an LSTM is that of c[t] with h[t], which follows from it.

    Parameters
    ----------
    layer : LSTM, GRU or RNN
    tape, dy, dstate, retain, out, accumulate
        As in `layer.backward`.

    Returns
    -------
    GradientFlow
        `gradients` are those of `layer.backward`, bit for bit. `norms["h_l0"]` is (T,).

    Raises
    ------
    TypeError, ValueError
        As `layer.backward` does, before anything is written.

    Notes
    -----
    The states' gradients come from the compiled backward pass, run a second time without its products for the weights
    and x: all in all 1.5 to 1.6 times `layer.backward` (`bench/bench_diagnostics.py`). Of a tape of another backend, or
    of options without fast kernels, they come from a forward and a backward pass in NumPy. They take T*N*H values for
    each name, of the layer's dtype: what a normal float32 cannot hold, below 1e-38, is 0 here.

    Bengio, Simard and Frasconi, "Learning long-term dependencies with gradient descent is difficult", IEEE Transactions
    on Neural Networks 5 (1994); Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks",
    ICML 2013.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> rnn = fastrnn.RNN(3, 8, rng=0)
    >>> y, state, tape = rnn.forward(np.ones((50, 4, 3)))
    >>> dy = np.zeros(y.shape)
    >>> dy[-1] = 1                                     # a loss of the last output
    >>> flow = fastrnn.diagnostics.gradient_flow(rnn, tape, dy)
    >>> bool(flow.norms["h_l0"][0] < 1e-3 * flow.norms["h_l0"][-1])
    True
    """
    spec = _spec(layer)
    layer._check_owner(tape)
    check_tape(tape)
    layout, batched = tape.layout, tape.batched or tape.layout is not None
    given = dy
    if dy is not None:
        first, second = cast(Array, tape.x).shape[:2]
        data = dy if layout is None else layout.data("dy", dy)
        dy = _validate.like_output("dy", data, spec, first, second, tape.batched, tape.batch_first)
    dhn, dcn = _validate.state("dstate", dstate, spec, tape.batch, batched, partial=True)
    # Before the backward pass, which may take the memory of x for its results and forgets what the tape holds.
    if tape.packed.backend == "cpp":
        seen = _compiled_states(tape, dy, dhn, dcn)
    else:
        seen = _twin_states(layer, tape, dy, dhn, dcn)
    gradients = layer.backward(tape, given, dstate, retain=retain, out=out, accumulate=accumulate)
    states: dict[str, Array] = {}
    for suffix, (dh, dc) in zip(_suffixes(spec), seen, strict=True):
        if dc is not None:
            states[f"c_{suffix}"] = dc if batched else dc[:, 0]
        states[f"h_{suffix}"] = dh if batched else dh[:, 0]
    return GradientFlow(gradients, states)


def spectral_radius(layer: Recurrent[Any]) -> dict[str, float]:
    """Largest absolute eigenvalue of the recurrent matrix U of every gate, layer and direction.

    A linear recurrence h[t] = U h[t-1] grows or dies out as this number to the power of t. For the tanh RNN, whose
    slope is at most 1, gradients must vanish where the largest singular value is below 1, and can only explode where
    it is above (Pascanu, Mikolov and Bengio 2013). In an LSTM and a GRU the direct paths through c and z count as well:
    see `gradient_flow` for what becomes of all of it.

    Parameters
    ----------
    layer : LSTM, GRU or RNN

    Returns
    -------
    dict of float
        "f_l0": of the block (H, H) of weight_hh_l0 that belongs to the forget gate, and so on; "h_l0" for an RNN.

    Raises
    ------
    TypeError
        No such layer.
    ValueError
        A weight_hh holds NaN or infinity.

    Notes
    -----
    Computed in float64 by LAPACK, about 10 H^3 operations for each.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> rnn = fastrnn.RNN(1, 4)
    >>> rnn.weight_hh_l0 = 0.5 * np.eye(4)
    >>> fastrnn.diagnostics.spectral_radius(rnn)
    {'h_l0': 0.5}
    """
    spec = _spec(layer)
    found = {}
    for suffix in _suffixes(spec):
        weight = layer.weights[f"weight_hh_{suffix}"].astype(np.float64)
        if not np.isfinite(weight).all():
            message = f"weight_hh_{suffix} holds NaN or infinity; it must be finite to have eigenvalues"
            raise ValueError(message)
        for letter, block in zip(_LETTERS[spec.cell], np.split(weight, spec.gates), strict=True):
            found[f"{letter}_{suffix}"] = float(np.abs(np.linalg.eigvals(block)).max())
    return found


# ---------------------------------------------------------------------------------------------------------------------


def _spec(layer: object) -> Spec:
    if isinstance(layer, Recurrent):
        return layer._spec
    message = f"layer is a {type(layer).__name__}; it must be a fastrnn LSTM, GRU or RNN"
    raise TypeError(message)


def _suffixes(spec: Spec) -> list[str]:
    """ "l0", "l0_reverse" and so on, in the order of states."""
    mark = "weight_hh_"
    return [name.removeprefix(mark) for name in spec.weight_shapes if name.startswith(mark)]


def _block(array: Array, k: int, size: int) -> Array:
    """Part k of the last axis: a gate, or a direction."""
    return array[..., k * size : (k + 1) * size]


def _twin(layer: Recurrent[Any]) -> tuple[Twin, Packed]:
    """The NumPy backend, or the general path if the layer runs on it, and the layer's weights for it."""
    twin = (_general if layer._spec.general else _numpy).twin()
    return twin, twin.pack(layer._spec, layer.weights.flat)


def _forward(
    twin: Twin, packed: Packed, x: Array, h0: Array | None, c0: Array | None, lengths: Array | None,
    reset: Array | None, mask: Array | None, dropout: Array | None, regular: Regularisers | None,
) -> tuple[Array, TapeBuffer]:  # fmt: skip
    """y (T, N, D*H) and a tape with all gates; arguments have been checked."""
    spec = packed.spec
    steps, batch, _ = x.shape
    tape = twin.make_tape(packed, steps, batch)
    y = np.empty((steps, batch, spec.directions * spec.output_size), spec.dtype)
    hn = np.empty(_validate.state_shape(spec, batch), spec.dtype)
    cn = np.empty(_validate.state_shape(spec, batch, cell=True), spec.dtype) if spec.cell == "lstm" else None
    twin.forward(packed, x, y, h0, c0, hn, cn, lengths, reset, mask, dropout, tape, regular=regular)
    return y, tape


def _compiled_states(
    tape: Tape, dy: Array | None, dhn: Array | None, dcn: Array | None
) -> list[tuple[Array, Array | None]]:
    """dL/dh[t] and, of an LSTM, dL/dc[t] (T, N, H) of every layer and direction: the compiled time loop once more."""
    spec, layout = tape.spec, tape.layout
    count, *shape = _validate.state_shape(spec, tape.batch)
    dh = np.empty((count, tape.steps, *shape), spec.dtype)
    dc = np.empty_like(dh) if spec.cell == "lstm" else None
    buffer = tape.take_ready()
    try:
        cast(Any, backends.load("cpp")).backward(
            tape.packed, buffer, tape.x, tape.y, tape.h0, tape.c0, dy, dhn, dcn, None, None, None, None, tape.lengths,
            tape.reset, tape.mask, tape.dropout, retain=True, accumulate=False,
            packing=None if layout is None else layout.packing, regular=tape.regular, dh_all=dh, dc_all=dc,
        )  # fmt: skip
    finally:
        tape.give_back(buffer, ready=True)
    return [(dh[k], None if dc is None else dc[k]) for k in range(count)]


def _twin_states(
    layer: Recurrent[Any], tape: Tape, dy: Array | None, dhn: Array | None, dcn: Array | None
) -> list[tuple[Array, Array | None]]:
    """The same by a forward and a backward pass of the NumPy backend or the general path."""
    x, layout, spec = cast(Array, tape.x), tape.layout, tape.spec
    control = (tape.lengths, tape.reset, tape.mask, tape.dropout)
    if layout is not None:  # here everything is padded
        spread = layout.packing.spread
        x, dy = spread(x), spread(dy)
        control = (
            layout.packing.lengths, spread(tape.reset), spread(tape.mask), layout.packing.spread_layers(tape.dropout)
        )  # fmt: skip
    twin, packed = _twin(layer)
    y, kept = _forward(twin, packed, x, tape.h0, tape.c0, *control, tape.regular)
    seen: list[tuple[Array, Array | None]] = []
    cast(_numpy.NumpyKernels, twin.kernels).seen = seen
    twin.backward(
        packed, kept, x, y, tape.h0, tape.c0, dy, dhn, dcn, None, None, None, None, *control,
        retain=False, accumulate=False, regular=tape.regular,
    )  # fmt: skip
    # The pass goes from the last layer to the first, and in each from the forward direction to the reverse one.
    d = spec.directions
    return [pair for k in range(0, len(seen), d)[::-1] for pair in seen[k : k + d]]


def _norm(array: Array) -> Array:
    """Euclidean norm over the last axis in float64, such that no square underflows: vanishing is the subject."""
    values = array.astype(np.float64, copy=False)
    if array.dtype == np.float32:  # the square of the least one is 1e-90
        return cast(Array, np.sqrt(np.einsum("...i,...i->...", values, values)))
    values = np.abs(values)
    scale = values.max(axis=-1, initial=0.0, keepdims=True)
    with np.errstate(all="ignore"):
        part = np.where(scale > 0, values / np.where(scale > 0, scale, 1), values)
        norm: Array = scale[..., 0] * np.sqrt((part * part).sum(axis=-1))
    return norm
