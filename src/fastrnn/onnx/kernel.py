"""One recurrent node, run: its weights packed once as long as they stay the same, its tensors in the standard's shapes.

Letters: T steps, N batch, I input, H hidden, G gates, D directions. X is (T, N, I), Y (T, D, N, H), states (D, N, H);
with layout 1 they are (N, T, I), (N, T, D, H) and (N, D, H). Where the kernels' shapes differ, arrays are views.

float16 and bfloat16 are computed in float32 and rounded at the end: no kernel is faster in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _validate, backends, functional
from .._gates import reorder
from .._spec import Spec
from ..backends import Backend, Packed
from ..sequences import reverse
from .operators import INPUTS, WEIGHTS, Operator

Array = npt.NDArray[Any]


def layer_options(op: Operator, w: Array, hidden: int, b: Array | None, p: Array | None) -> dict[str, Any]:
    """Arguments of a layer that computes what the node does."""
    found = {
        "input_size": w.shape[2], "hidden_size": hidden, "num_layers": 1, "bias": b is not None,
        "dtype": "float64" if w.dtype == np.float64 else "float32", **op.options(),
    }  # fmt: skip
    if p is not None and p.any():  # some exporters write peepholes of 0, which are none
        found["peephole"] = True
    return found


def spec_of(op: Operator, w: Array, r: Array, b: Array | None, p: Array | None) -> Spec:
    """Sizes and options, from the attributes and the shapes of W (D, G*H, I), R (D, G*H, H), B (D, 2*G*H), P (D, 3*H).

    Raises
    ------
    ValueError
        Shapes that do not fit each other or the attributes.
    TypeError
        Weights of another dtype than float16, bfloat16, float32 and float64, or of unlike ones.
    """
    if r.ndim != 3 or 0 in r.shape or w.ndim != 3 or 0 in w.shape:
        message = f"{op.title}: W and R have shapes {w.shape} and {r.shape}; they must be (D, G*H, I) and (D, G*H, H)"
        raise ValueError(message)
    hidden = op.hidden_size or r.shape[2]
    spec = _validate.spec(op.cell, layer_options(op, w, hidden, b, p))
    rows = spec.gates * hidden
    wanted = {"W": (w, (rows, w.shape[2])), "R": (r, (rows, hidden)), "B": (b, (2 * rows,)), "P": (p, (3 * hidden,))}
    for name, (array, shape) in wanted.items():
        if array is None:
            continue
        if array.shape != (op.directions, *shape):
            message = f"{op.title}: {name} has shape {array.shape}; it must be {(op.directions, *shape)}"
            raise ValueError(message)
        if array.dtype != w.dtype or array.dtype.name not in ("float16", "bfloat16", "float32", "float64"):
            message = f"{op.title}: {name} has dtype {array.dtype}; it must be a float and that of all its tensors"
            raise TypeError(message)
    return spec


def weights_of(spec: Spec, w: Array, r: Array, b: Array | None, p: Array | None) -> dict[str, Array]:
    """A node's weights by PyTorch's names, in its gate order."""
    found: dict[str, Array] = {}
    for way, suffix in enumerate(("", "_reverse")[: spec.directions]):
        found[f"weight_ih_l0{suffix}"] = reorder(w[way], spec.cell, "onnx", "torch")
        found[f"weight_hh_l0{suffix}"] = reorder(r[way], spec.cell, "onnx", "torch")
        if b is not None:
            for name, half in zip(("bias_ih", "bias_hh"), np.split(b[way], 2), strict=True):
                found[f"{name}_l0{suffix}"] = reorder(half, spec.cell, "onnx", "torch")
        if p is not None and spec.peephole:
            found[f"weight_ph_l0{suffix}"] = reorder(p[way], "peephole", "onnx", "torch")
    return {name: array.astype(spec.dtype, copy=False) for name, array in found.items()}


class Weights:
    """A node's weights as some inputs gave them, packed for each backend that asks."""

    def __init__(self, op: Operator, given: Sequence[Array | None]) -> None:
        w, r, b, p = given
        assert w is not None
        assert r is not None
        self.spec = spec_of(op, w, r, b, p)
        self.dtype = w.dtype
        self._flat = _validate.flat_weights(weights_of(self.spec, w, r, b, p), self.spec)
        self._flat.flags.writeable = False
        self._bound: dict[Backend | None, Packed] = {}

    def packed(self) -> Packed:
        """For the backend and instruction set in force."""
        packed = self._bound.get(backends.chosen())
        if packed is None or not packed.in_force():
            packed = self._bound[backends.chosen()] = functional.pack(self.spec, self._flat)
        return packed


class Kernel:
    """A node as a function of its inputs.

    Parameters
    ----------
    op : Operator
    constants : sequence of ndarray or None
        For each input of the node its value if that can never change. If W, R, B and P all are such, they are packed at
        once; else they are compared with those of the call before.
    """

    def __init__(self, op: Operator, constants: Sequence[Array | None]) -> None:
        self.op = op
        values = padded(constants)
        given = [k for k in WEIGHTS if k < len(op.inputs) and op.inputs[k]]
        self._fixed = Weights(op, [values[k] for k in WEIGHTS]) if all(values[k] is not None for k in given) else None
        # Weights that are no constants, and copies of the tensors that they were made from. One pair, replaced at once:
        # another thread must not find the one with the other's.
        self._last: tuple[Weights, tuple[Array | None, ...]] | None = None
        self._ways, self._has_c = op.directions, op.cell == "lstm"
        self._plain = op.direction != "reverse" and not op.batch_first
        self._count, self._all = len(op.outputs), all(op.outputs)

    @property
    def spec(self) -> Spec | None:
        """What it runs, if its weights are constants."""
        return None if self._fixed is None else self._fixed.spec

    def __call__(self, inputs: Sequence[Any]) -> tuple[Array | None, ...]:
        """The node's outputs, None for those that are left out, from all eight inputs: see `padded`.

        Raises
        ------
        TypeError, ValueError
            Tensors that do not fit; the message names the node.
        """
        x, w, r, b, lengths, h, c, p = inputs
        weights = self._fixed
        if weights is None:
            weights = self._current((w, r, b, p))
        try:
            if self._plain and lengths is None and x.ndim == 3:
                # The ordinary small call: what does not fit it, in whatever way, goes on below.
                state = (h, c) if self._has_c and h is not None else h
                done = weights.packed().infer_small(x, state, None, None, None, None, False)
                if done is not None and (c is None or h is not None):
                    return self._outputs(*done)
            return self._run(weights, x, lengths, h, c)
        except (TypeError, ValueError) as error:
            message = f"{self.op.title}: {error}"
            raise type(error)(message) from error

    def _current(self, given: tuple[Array | None, ...]) -> Weights:
        """Those packed before if they have the same values."""
        last = self._last
        if last is not None and all(map(_same, given, last[1])):
            return last[0]
        weights = Weights(self.op, given)
        self._last = weights, tuple(None if a is None else a.copy() for a in given)
        return weights

    def _run(
        self, weights: Weights, x: Array, lengths: Array | None, h: Array | None, c: Array | None
    ) -> tuple[Array | None, ...]:
        """Any call."""
        spec, op = weights.spec, self.op
        first = op.batch_first
        if x.ndim != 3 or x.dtype != weights.dtype:
            axes = "NTI" if first else "TNI"
            message = f"X is {x.dtype} of {x.ndim} axes; it must be {weights.dtype}, like W, of the axes {axes}"
            raise ValueError(message)
        batch, steps = (x.shape[0], x.shape[1]) if first else (x.shape[1], x.shape[0])
        if lengths is not None:
            lengths = _validate.lengths(lengths, steps, batch, True)
            if (lengths == steps).all():
                lengths = None
        state = None if h is None and c is None else self._state(weights, h, c, batch)
        x = x.astype(spec.dtype, copy=False)
        if op.direction == "reverse":
            x = reverse(x, lengths, batch_first=first)
        y, last = functional.infer(weights.packed(), x, state, lengths=lengths, batch_first=first)
        if op.direction == "reverse":
            y = reverse(y, lengths, batch_first=first)
        outputs = self._outputs(y, last)
        if weights.dtype != spec.dtype:
            return tuple(None if a is None else a.astype(weights.dtype) for a in outputs)
        return outputs

    def _state(self, weights: Weights, h: Array | None, c: Array | None, batch: int) -> Any:
        """The initial state, zeros for what is left out of it."""
        spec = weights.spec
        shape = (self._ways, batch, spec.hidden_size)
        wanted = (batch, self._ways, spec.hidden_size) if self.op.batch_first else shape
        found = []
        for name, array in (("initial_h", h), ("initial_c", c))[: 1 + self._has_c]:
            if array is None:
                found.append(np.zeros(shape, spec.dtype))
                continue
            if array.shape != wanted or array.dtype != weights.dtype:
                message = f"{name} is {array.dtype} {array.shape}; it must be {weights.dtype} {wanted}"
                raise ValueError(message)
            array = array.astype(spec.dtype, copy=False)
            found.append(array.swapaxes(0, 1) if self.op.batch_first else array)
        return tuple(found) if self._has_c else found[0]

    def _outputs(self, y: Array, last: Any) -> tuple[Array | None, ...]:
        """Y and the final states in the node's layout, from y as kernels have it."""
        h, c = last if self._has_c else (last, None)
        if self.op.batch_first:
            y = y.reshape(*y.shape[:2], self._ways, h.shape[2])
            h, c = h.swapaxes(0, 1), None if c is None else c.swapaxes(0, 1)
        elif self._ways == 1:
            y = y[:, None]
        else:
            y = y.reshape(*y.shape[:2], self._ways, h.shape[2]).transpose(0, 2, 1, 3)
        found = (y, h, c)[: self._count]
        if self._all:
            return found
        return tuple(a if name else None for a, name in zip(found, self.op.outputs, strict=True))


def padded(inputs: Sequence[Any]) -> list[Any]:
    """What a node is given, with None for the inputs at the end that it does not name."""
    return [*inputs, *[None] * (len(INPUTS) - len(inputs))]


def _same(a: Array | None, b: Array | None) -> bool:
    """Whether two arrays have the same shape, dtype and bytes: NaN is like itself, and 0 is not like -0."""
    if a is None or b is None:
        return a is b
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    one, other = (np.ascontiguousarray(array).view(np.uint8) for array in (a, b))
    return np.array_equal(one, other)
