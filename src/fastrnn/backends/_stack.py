"""Layers x directions: everything the NumPy and the Numba backend have in common.

A stack runs `num_layers * directions` single directions one after the other. `Twin` walks through them, keeps lengths,
resets, masks and dropout in order, and does the products over all T*N rows; a `Kernels` object brings the products and
the time loops of one backend. State k = layer * D + direction, as in PyTorch.

Letters: T steps, N batch, I input, H hidden, G gates, D directions, L layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from .._packing import Packing
from .._spec import Regularisers, Spec
from ._schedule import Array, Flags, Lengths, Schedule, schedules, state_before, states_before

_forced_segment = 0


def force_segment(steps: int | None) -> None:
    """For tests: the length of a segment on tapes made from now on; None: chosen again."""
    global _forced_segment
    _forced_segment = steps or 0


def segment_steps(spec: Spec, steps: int, batch: int) -> int:
    """Steps between two checkpoints: for every twin the rule of `choose_segment` in plan.cpp, where its reasons stand.

    At least 256 rows, 1 MB of gates, and for an LSTM sqrt(T/5) steps.
    """
    if _forced_segment:
        return _forced_segment
    rows = max(256, 2**20 // (4 * spec.hidden_size * spec.dtype.itemsize))
    length = max(-(-rows // max(batch, 1)), math.ceil(math.sqrt(steps / 5)) if spec.cell == "lstm" else 1)
    return min(length, max(steps, 1))


class Kernels(Protocol):
    """Products and time loops of one backend, for one direction. `weights` is what `prepare` made."""

    def prepare(self, spec: Spec, k: int, tensors: dict[str, Array]) -> Any:
        """Snapshot of direction k's tensors, named and shaped as in `Spec.by_direction`, in this backend's layout."""

    def project(self, weights: Any, x: Array, gates: Array) -> None:
        """gates (T, N, G*H) = x (T, N, I) W' + biases, all steps at once."""

    def forward_steps(
        self, weights: Any, gates: Array, aux: Array | None, y: Array, h: Array, c: Array | None, schedule: Schedule
    ) -> tuple[Array, Array | None]:
        """Run the time loop from h, c (N, H), which may be overwritten; give the final state.

        gates enters as the projection and leaves, if aux is kept or the cell needs none, as the activated gates.
        y (T, N, H): output, where the cell does not run the kept state. With a projection h and y have the width P.
        aux (T, N, H), only with a tape: LSTM the cell state, GRU with reset_after U_n h + c_n.
        On the general path gates leaves as what entered the activations.
        """

    def backward_steps(
        self, weights: Any, saved: Saved, dy: Array | None, dh: Array, dc: Array | None, schedule: Schedule
    ) -> tuple[Array, Any]:
        """Run the time loop backwards, dh and dc (N, H) from final to initial state, in place.

        Gives the gradients of the recurrent product U h + c (T, N, G*H) and, where it differs (GRU with reset_after),
        the candidate's share (T, N, H) of the gradient of the input product W x + b.
        """

    def input_gradient(self, weights: Any, dgates: Array) -> Array:
        """(M, I) = dgates (M, G*H) W."""

    def add_product(self, out: Array, left: Array, right: Array) -> None:
        """out (J, K) += left (M, J)' right (M, K)."""


@dataclass(frozen=True)
class Saved:
    """What backward reads of a direction: gates (T, N, G*H), else (T, N, H): aux, output y, states before each step."""

    gates: Array | None
    aux: Array | None
    y: Array
    h_before: Array
    c_before: Array | None


@dataclass(frozen=True, eq=False)
class Packed:
    """Immutable snapshot of a stack's weights in one backend's layout."""

    spec: Spec
    backend: str
    isa: str
    weights: tuple[Any, ...]  # one per state k

    def in_force(self) -> bool:
        """A twin has no instruction sets to choose from."""
        return True

    def infer_small(self, *_call: object) -> None:
        """No short way: a twin's call takes longer than the checks before it."""

    def step_small(self, *_step: object) -> None:
        """No short way."""

    def forward_plain(self, *_call: object) -> None:
        """No short way."""

    def backward_plain(self, *_call: object) -> None:
        """No short way: there is no forward of that kind."""


class TapeBuffer:
    """What backward needs of one forward besides its arguments, in one block of memory.

    gates and aux (see `Kernels.forward_steps`) of every direction, None where the cell has none; outputs: y of
    every layer but the last. With `recompute` no gates and no aux but checkpoints: the LSTM's c after every `segment`
    steps.
    """

    def __init__(self, spec: Spec, steps: int, batch: int, reuse: object | None, recompute: bool) -> None:
        self.recompute = recompute
        self.segment = segment_steps(spec, steps, batch) if recompute else max(steps, 1)
        hidden, directions = spec.hidden_size, spec.directions
        count = spec.num_layers * directions
        ends = -(-steps // self.segment)
        shapes = [(steps, batch, spec.gates * hidden * (saves_gates(spec) and not recompute))] * count
        shapes += [(steps, batch, hidden * (saves_aux(spec) and not recompute))] * count
        shapes += [(ends, batch, hidden * (spec.cell == "lstm" and recompute))] * count
        shapes += [(steps, batch, directions * spec.output_size)] * (spec.num_layers - 1)
        size = sum(math.prod(shape) for shape in shapes)
        memory = reuse.memory if isinstance(reuse, TapeBuffer) else None
        if memory is None or memory.dtype != spec.dtype or memory.size < size:
            memory = np.empty(size, spec.dtype)
        self.memory: Array = memory
        parts = _cut(memory, shapes)
        self.gates = [next(parts) for _ in range(count)]
        self.aux = [next(parts) for _ in range(count)]
        self.checkpoints = [next(parts) for _ in range(count)]
        self.outputs = [next(parts) for _ in range(spec.num_layers - 1)]


def saves_gates(spec: Spec) -> bool:
    """Not the RNN: the slope of tanh and relu is known from the output."""
    return spec.cell != "rnn" or spec.general


def saves_aux(spec: Spec) -> bool:
    """Whether there is something besides the gates that backward needs."""
    return spec.cell == "lstm" or (spec.cell == "gru" and spec.reset_after)


def _cut(memory: Array, shapes: list[tuple[int, int, int]]) -> Iterator[Any]:
    """Consecutive views of one buffer; None for width 0."""
    start = 0
    for shape in shapes:
        stop = start + math.prod(shape)
        yield memory[start:stop].reshape(shape) if shape[2] else None
        start = stop


class Twin:
    """The backend interface (pack, make_tape, forward, backward) over one `Kernels`."""

    def __init__(self, name: str, kernels: Kernels) -> None:
        self.name = name
        self.kernels = kernels

    def pack(self, spec: Spec, weights: Array) -> Packed:
        """Copy flat weights (spec.weight_count,) in state_dict order into this backend's layout."""
        prepared = (self.kernels.prepare(spec, k, tensors) for k, tensors in enumerate(spec.by_direction(weights)))
        return Packed(spec, self.name, "", tuple(prepared))

    def activated(self, packed: Packed, k: int, gates: Array) -> Array:
        """Gates (T, N, G*H) of direction k as they are applied, from what a tape keeps."""
        return gates

    def make_tape(
        self, packed: Packed, steps: int, batch: int, reuse: object | None = None, recompute: bool = False,
        rows: int = 0,
    ) -> TapeBuffer:  # fmt: skip
        """Buffer for one forward of T steps and N rows; takes over the memory of `reuse` if that is large enough."""
        return TapeBuffer(packed.spec, steps, batch, reuse, recompute)

    def forward(
        self, packed: Packed, x: Array, y: Array, h0: Array | None, c0: Array | None, hn: Array, cn: Array | None,
        lengths: Lengths | None, reset: Flags | None, mask: Flags | None, dropout: Array | None,
        tape: TapeBuffer | None, packing: Packing | None = None, regular: Regularisers | None = None,
    ) -> None:  # fmt: skip
        """Run the stack on x (T, N, I) into y (T, N, D*H), hn, cn (L*D, N, H); keep in `tape` what backward needs.

        Packed arrays go through padded ones.
        """
        spec = packed.spec
        if packing is not None:
            inside = np.empty((packing.steps, packing.batch, y.shape[2]), y.dtype)
            self.forward(
                packed, packing.spread(x), inside, h0, c0, hn, cn, packing.lengths, packing.spread(reset),
                packing.spread(mask), packing.spread_layers(dropout), tape, None, regular,
            )  # fmt: skip
            packing.gather(inside, y)
            return
        steps, batch = x.shape[:2]
        plan = schedules(spec, steps, lengths, reset, mask)
        scratch: Array | None = None
        if tape is None or tape.recompute or not saves_gates(spec):
            length = steps if tape is None else min(steps, tape.segment)
            scratch = np.empty((length, batch, spec.gates * spec.hidden_size), spec.dtype)
        with np.errstate(all="ignore"):
            for layer in range(spec.num_layers):
                out = y
                if layer < spec.num_layers - 1:
                    out = np.empty((steps, batch, y.shape[2]), spec.dtype) if tape is None else tape.outputs[layer]
                for direction, schedule in enumerate(plan):
                    k = layer * spec.directions + direction
                    self._forward_one(packed, k, x, out, h0, c0, hn, cn, schedule.of(k, regular), tape, scratch)
                x = out
                if dropout is not None and layer < spec.num_layers - 1:
                    x = x * dropout[layer]

    def _forward_one(
        self, packed: Packed, k: int, x: Array, y: Array, h0: Array | None, c0: Array | None, hn: Array,
        cn: Array | None, schedule: Schedule, tape: TapeBuffer | None, scratch: Array | None,
    ) -> None:  # fmt: skip
        """Direction k: its half of y, its row of hn and cn."""
        spec, weights = packed.spec, packed.weights[k]
        gates = scratch if scratch is not None or tape is None else tape.gates[k]
        assert gates is not None
        aux = None if tape is None else tape.aux[k]
        ends = None if tape is None else tape.checkpoints[k]
        half = _half(spec, y, k)
        h = _state(spec, spec.output_size, x.shape[1], None if h0 is None else h0[k])
        c = None
        if spec.cell == "lstm":
            c = _state(spec, spec.hidden_size, x.shape[1], None if c0 is None else c0[k])
        for i, part in enumerate(schedule.segments(len(x), len(x) or 1 if tape is None else tape.segment)):
            part_gates = gates[: part.stop - part.start]
            self.kernels.project(weights, x[part], part_gates)
            h, c = self.kernels.forward_steps(weights, part_gates, aux, half[part], h, c, schedule.part(part))
            if ends is not None and len(ends):
                ends[i] = c
        hn[k] = h
        if cn is not None and c is not None:
            cn[k] = c
        if schedule.live is not None:
            half[~schedule.live] = 0

    def backward(
        self, packed: Packed, tape: TapeBuffer, x: Array, y: Array, h0: Array | None, c0: Array | None,
        dy: Array | None, dhn: Array | None, dcn: Array | None, dx: Array | None, dh0: Array | None,
        dc0: Array | None, dweights: Array | None, lengths: Lengths | None, reset: Flags | None, mask: Flags | None,
        dropout: Array | None, retain: bool, accumulate: bool, packing: Packing | None = None,
        regular: Regularisers | None = None,
    ) -> None:  # fmt: skip
        """Gradients dx, dh0, dc0 and dweights of a loss, given its gradients dy, dhn, dcn; None: not wanted, or zero.

        The tape always survives, so `retain` changes nothing here.
        """
        spec = packed.spec
        if packing is not None:
            inside = None if dx is None else np.empty((packing.steps, packing.batch, dx.shape[2]), dx.dtype)
            self.backward(
                packed, tape, packing.spread(x), packing.spread(y), h0, c0, packing.spread(dy), dhn, dcn, inside,
                dh0, dc0, dweights, packing.lengths, packing.spread(reset), packing.spread(mask),
                packing.spread_layers(dropout), retain, accumulate, None, regular,
            )  # fmt: skip
            if dx is not None and inside is not None:
                packing.gather(inside, dx)
            return
        plan = schedules(spec, x.shape[0], lengths, reset, mask)
        if dweights is not None and not accumulate:
            dweights[...] = 0
        by_direction = None if dweights is None else spec.by_direction(dweights)
        with np.errstate(all="ignore"):
            for layer in reversed(range(spec.num_layers)):
                out = y if layer == spec.num_layers - 1 else tape.outputs[layer]
                source = x if layer == 0 else tape.outputs[layer - 1]
                if layer > 0 and dropout is not None:
                    source = source * dropout[layer - 1]
                dsource = dx if layer == 0 else np.empty(source.shape, spec.dtype)
                if dsource is not None:
                    dsource[...] = 0
                for direction, shared in enumerate(plan):
                    k = layer * spec.directions + direction
                    schedule = shared.of(k, regular)
                    half = _half(spec, out, k)
                    dh = _state(spec, spec.output_size, x.shape[1], None if dhn is None else dhn[k])
                    dc = None
                    if spec.cell == "lstm":
                        dc = _state(spec, spec.hidden_size, x.shape[1], None if dcn is None else dcn[k])
                    dhalf = None if dy is None else _half(spec, dy, k)
                    wanted = None if by_direction is None else by_direction[k]
                    first = None if h0 is None else h0[k], None if c0 is None else c0[k]
                    pieces = schedule.segments(len(x), tape.segment)
                    for i in reversed(range(len(pieces))):
                        part, run = pieces[i], schedule.part(pieces[i])
                        saved = self._saved(packed, tape, k, i, part, source, half, *first, schedule)
                        dgates, extra = self.kernels.backward_steps(
                            packed.weights[k], saved, None if dhalf is None else dhalf[part], dh, dc, run
                        )
                        below = None if dsource is None else dsource[part]
                        saved = replace(saved, h_before=run.entering(saved.h_before))  # what U multiplied
                        self._products(packed, k, source[part], saved, dgates, extra, run.run, below, wanted)
                    if dh0 is not None:
                        dh0[k] = dh
                    if dc0 is not None and dc is not None:
                        dc0[k] = dc
                dy = dsource
                if layer > 0 and dropout is not None and dy is not None:
                    dy *= dropout[layer - 1]

    def _saved(
        self, packed: Packed, tape: TapeBuffer, k: int, i: int, part: slice, x: Array, y: Array, h0: Array | None,
        c0: Array | None, schedule: Schedule,
    ) -> Saved:  # fmt: skip
        """Segment i of direction k, from the tape or computed again from the state before it."""
        spec, weights, now = packed.spec, packed.weights[k], schedule.part(part)
        gates, aux = tape.gates[k], tape.aux[k]
        h = state_before(y, h0, schedule, part)
        c = c0 if i == 0 or not tape.recompute or spec.cell != "lstm" else tape.checkpoints[k][i - 1]
        if tape.recompute and saves_gates(spec):
            steps, batch = part.stop - part.start, x.shape[1]
            gates = np.empty((steps, batch, spec.gates * spec.hidden_size), spec.dtype)
            aux = np.empty((steps, batch, spec.hidden_size), spec.dtype) if saves_aux(spec) else None
            self.kernels.project(weights, x[part], gates)
            again = np.empty((steps, batch, spec.output_size), spec.dtype)  # y is there already
            c_first = _state(spec, spec.hidden_size, batch, c) if spec.cell == "lstm" else None
            h_first = _state(spec, spec.output_size, batch, h)
            self.kernels.forward_steps(weights, gates, aux, again, h_first, c_first, now)
        # unlike y, the cell states are kept through padding: no look at `live` is needed, nor harmful
        c_before = states_before(aux, c, now) if spec.cell == "lstm" and aux is not None else None
        return Saved(gates, aux, y[part], states_before(y[part], h, now), c_before)

    def _products(
        self, packed: Packed, k: int, x: Array, saved: Saved, dgates: Array, extra: Any, run: Flags | None,
        dx: Array | None, dweights: dict[str, Array] | None,
    ) -> None:  # fmt: skip
        """Products over all rows at once: dU += dG' h, dW += dG' x, both biases += sum of dG, dx += dG W.

        Only rows whose cell ran take part, so that what stands in padding, NaN included, cannot reach a sum.
        """
        spec, size = packed.spec, packed.spec.hidden_size
        grads = rows_that_ran(dgates, run)
        if dweights is not None:
            self._recurrent_gradient(spec, dweights["weight_hh"], grads, saved, run)
            if spec.bias:
                dweights["bias_hh"] += grads.sum(axis=0)
        if spec.cell == "gru" and extra is not None:
            grads[:, 2 * size :] = rows_that_ran(extra, run)
        if dweights is not None:
            self.kernels.add_product(dweights["weight_ih"], grads, rows_that_ran(x, run))
            if spec.bias:
                dweights["bias_ih"] += grads.sum(axis=0)
        if dx is not None:
            gradient = self.kernels.input_gradient(packed.weights[k], grads)
            if run is None:
                dx += gradient.reshape(dx.shape)
            else:
                dx[run] += gradient

    def _recurrent_gradient(self, spec: Spec, du: Array, grads: Array, saved: Saved, run: Flags | None) -> None:
        """dU (G*H, H) += dG' times what U multiplied: h before the step; for the older GRU's candidate r * h."""
        before = rows_that_ran(saved.h_before, run)
        if spec.cell != "gru" or spec.reset_after:
            self.kernels.add_product(du, grads, before)
            return
        size = spec.hidden_size
        assert saved.gates is not None
        reset = rows_that_ran(saved.gates[:, :, :size], run)
        self.kernels.add_product(du[: 2 * size], grads[:, : 2 * size], before)
        self.kernels.add_product(du[2 * size :], grads[:, 2 * size :], reset * before)


def _half(spec: Spec, y: Array, k: int) -> Array:
    """The columns of y (T, N, D*H or D*P) that belong to direction k."""
    start = (k % spec.directions) * spec.output_size
    return y[:, :, start : start + spec.output_size]


def _state(spec: Spec, width: int, batch: int, state: Array | None) -> Array:
    """Working copy (N, width) of a state; zeros if there is none."""
    return np.zeros((batch, width), spec.dtype) if state is None else state.copy()


def rows_that_ran(values: Array, run: Flags | None) -> Array:
    """(T, N, K) as the (M, K) of its rows that ran."""
    return values.reshape(-1, values.shape[2]) if run is None else values[run]
