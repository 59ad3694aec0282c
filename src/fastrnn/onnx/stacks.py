"""Which recurrent nodes of a model are layers of one stack, written one by one as exporters do."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto

from .moves import function_of
from .operators import INPUTS, Operator, is_recurrent, operator_of

Array = npt.NDArray[Any]
STEPS, ROWS = 2, 3  # of the trial where the model leaves them open: unlike, and not 1, so that mix-ups are seen
LIMIT = 1 << 26  # numbers of the trial, 256 MB; models that fix larger shapes are left as they are
LENGTHS = INPUTS.index("sequence_lens")


class Feeds:
    """Whether X of one node is Y of another as (T, N, D*H), called with the two.

    What lies between is tried on numbers that are all different, by the functions that a session would run: there are
    many ways to write a Transpose and a Reshape, or a Squeeze, with shapes that are constants or computed.
    """

    def __init__(self, model: ModelProto, constants: Mapping[str, Array]) -> None:
        self._constants = constants
        self._opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)
        # Of the outermost graph: what lies in the branches of an If follows nothing for sure.
        self._makers = {name: node for node in model.graph.node for name in node.output if name}
        self._shapes = [value.type.tensor_type.shape.dim for value in model.graph.input]

    def __call__(self, below: NodeProto, above: NodeProto) -> bool:
        one, other = operator_of(below), operator_of(above)
        outermost = all(any(name in self._makers for name in op.outputs) for op in (one, other))
        if not outermost or not one.outputs[0] or "reverse" in (one.direction, other.direction):
            return False
        if _lengths(one) != _lengths(other):
            return False
        return any(self._arrives(one, other, steps, batch) for steps, batch in self._sizes())

    def _arrives(self, below: Operator, above: Operator, steps: int, batch: int) -> bool:
        """Whether it does for T and N."""
        size = self._constants[below.inputs[INPUTS.index("R")]].shape[2]
        first, ways = below.batch_first, below.directions
        shape = (batch, steps, ways, size) if first else (steps, ways, batch, size)
        if prod(shape) > LIMIT:
            return False
        y = np.arange(prod(shape), dtype=np.int32).reshape(shape)
        try:
            x = self._value(above.inputs[0], {below.outputs[0]: y})
        except (IndexError, TypeError, ValueError, RecursionError):  # moves that do not fit, or too many of them
            return False
        wanted = y if first else y.transpose(0, 2, 1, 3)
        return x is not None and np.array_equal(x, wanted.reshape(*wanted.shape[:2], -1))

    def _sizes(self) -> list[tuple[int, int]]:
        """T and N to try: those that the model's first input of three axes fixes, in either order."""
        axes = next((axes for axes in self._shapes if len(axes) == 3), ())
        one, other = (axis.dim_value for axis in axes[:2]) if axes else (0, 0)
        return list(dict.fromkeys([(one or STEPS, other or ROWS), (other or STEPS, one or ROWS)]))

    def _value(self, name: str, known: dict[str, Array]) -> Array | None:
        """What a name stands for, as far as that follows from what is known and from constants."""
        if name in known or name in self._constants:
            return known[name] if name in known else self._constants[name]
        node = self._makers.get(name)
        function = None if node is None or is_recurrent(node) else function_of(node, self._opset)
        if node is None or function is None:
            return None
        inputs = [self._value(part, known) if part else None for part in node.input]
        if any(value is None and part for value, part in zip(inputs, node.input, strict=True)):
            return None
        known.update(zip(node.output, function(inputs), strict=False))
        return known[name]


def _lengths(op: Operator) -> str:
    """The name of the node's sequence_lens, "" if it has none."""
    return op.inputs[LENGTHS] if len(op.inputs) > LENGTHS else ""
