"""Operators that move numbers and compute none: what stands between recurrent operators in most exported models.

Each maker gets a node and the version of the operator set, and gives a function of the node's inputs. A node that is
written in a way that is not known here gives None; the model then runs in onnx's evaluator.

Inputs that do not fit raise what NumPy raises; `session` says which node it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]
Function = Callable[[Sequence[Any]], Sequence[Any]]
Attributes = dict[str, Any]


def function_of(node: NodeProto, opset: int) -> Function | None:
    """What the node does, or None if it is no operator of this kind."""
    maker = MAKERS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if maker is None:
        return None
    return maker({a.name: helper.get_attribute_value(a) for a in node.attribute}, opset, node)


def array_of(tensor: TensorProto) -> Array:
    """The numbers of a tensor in the model.

    Raises
    ------
    ValueError
        A dtype that onnx does not know, or not as many numbers as its shape says: the checker does not look into nodes.
    """
    try:
        array: Array = numpy_helper.to_array(tensor)
    except Exception as error:
        message = f"tensor {tensor.name!r} is damaged: {type(error).__name__} {error}"
        raise ValueError(message) from error
    return array


def _constant(attributes: Attributes, opset: int, node: NodeProto) -> Function | None:
    if [*attributes] == ["value"]:
        value = array_of(attributes["value"])
    elif [*attributes] in (["value_int"], ["value_ints"]):
        value = np.array(next(iter(attributes.values())), np.int64)
    elif [*attributes] in (["value_float"], ["value_floats"]):
        value = np.array(next(iter(attributes.values())), np.float32)
    else:
        return None
    return lambda _: (value,)


def _transpose(attributes: Attributes, opset: int, node: NodeProto) -> Function:
    order = attributes.get("perm")
    return lambda inputs: (inputs[0].transpose(order),)


def _reshape(attributes: Attributes, opset: int, node: NodeProto) -> Function | None:
    if len(node.input) != 2:
        return None  # before opset 5 the shape was an attribute
    keep = not attributes.get("allowzero", 0)

    def reshape(inputs: Sequence[Array]) -> tuple[Array]:
        data, wanted = inputs[0], inputs[1].tolist()
        if keep and 0 in wanted:
            kept = [k for k, n in enumerate(wanted) if n == 0]
            if data.size == 0 and -1 in wanted:  # NumPy cannot tell what -1 is; the axes that are not kept can
                rest = prod(n for k, n in enumerate(data.shape) if k not in kept)
                wanted[wanted.index(-1)] = rest // prod(n for n in wanted if n > 0)
            for k in kept:
                wanted[k] = data.shape[k]
        return (data.reshape(wanted),)

    return reshape


def _axes(attributes: Attributes, inputs: Sequence[Array | None]) -> tuple[int, ...] | None:
    """An attribute before opset 13, the second input since."""
    if len(inputs) > 1 and inputs[1] is not None:
        return tuple(inputs[1].tolist())
    return tuple(attributes["axes"]) if "axes" in attributes else None


def _squeeze(attributes: Attributes, opset: int, node: NodeProto) -> Function:
    return lambda inputs: (np.squeeze(inputs[0], _axes(attributes, inputs)),)


def _unsqueeze(attributes: Attributes, opset: int, node: NodeProto) -> Function:
    return lambda inputs: (np.expand_dims(inputs[0], _axes(attributes, inputs) or ()),)


def _concat(attributes: Attributes, opset: int, node: NodeProto) -> Function:
    axis = attributes.get("axis", 1)  # it had a default before opset 4
    return lambda inputs: (np.concatenate(inputs, axis, casting="no"),)


def _split(attributes: Attributes, opset: int, node: NodeProto) -> Function:
    axis, count = attributes.get("axis", 0), len(node.output)

    def split(inputs: Sequence[Any]) -> Sequence[Array]:
        given = inputs[1].tolist() if len(inputs) > 1 and inputs[1] is not None else attributes.get("split")
        if given is None:
            chunk = -(-inputs[0].shape[axis] // count)  # all alike, the last one may be smaller
            given = [chunk] * count
        elif sum(given) != inputs[0].shape[axis] or len(given) != count or min(given) < 0:
            message = f"split is {given}; it must be {count} numbers, 0 or more, that add up to {inputs[0].shape[axis]}"
            raise ValueError(message)
        return np.split(inputs[0], np.cumsum(given)[:-1], axis)

    return split


def _slice(attributes: Attributes, opset: int, node: NodeProto) -> Function | None:
    if len(node.input) < 3:
        return None  # before opset 10 all were attributes

    def cut(inputs: Sequence[Array | None]) -> tuple[Array]:
        data, starts, stops, axes, steps = (*inputs, None, None)[:5]
        assert data is not None
        assert starts is not None
        assert stops is not None
        where = [slice(None)] * data.ndim
        along = range(len(starts)) if axes is None else axes.tolist()
        strides = [1] * len(starts) if steps is None else steps.tolist()
        for axis, start, stop, step in zip(along, starts.tolist(), stops.tolist(), strides, strict=True):
            # A stop before the beginning, on the way back, means to the first entry: -1 would be the last one.
            where[axis] = slice(start, None if step < 0 and stop < -data.shape[axis] else stop, step)
        return (data[tuple(where)],)

    return cut


def _gather(attributes: Attributes, opset: int, node: NodeProto) -> Function:
    axis = attributes.get("axis", 0)
    return lambda inputs: (np.asarray(np.take(inputs[0], inputs[1], axis)),)


def _shape(attributes: Attributes, opset: int, node: NodeProto) -> Function:
    start, stop = attributes.get("start"), attributes.get("end")
    return lambda inputs: (np.array(inputs[0].shape[start:stop], np.int64),)


def _expand(attributes: Attributes, opset: int, node: NodeProto) -> Function:
    def expand(inputs: Sequence[Array]) -> tuple[Array]:
        shape = np.broadcast_shapes(inputs[0].shape, tuple(inputs[1].tolist()))
        return (np.broadcast_to(inputs[0], shape),)

    return expand


def _constant_of_shape(attributes: Attributes, opset: int, node: NodeProto) -> Function:
    given = attributes.get("value")
    value = np.zeros(1, np.float32) if given is None else array_of(given)
    return lambda inputs: (np.full(inputs[0].tolist(), value.reshape(-1)[0], value.dtype),)


def _identity(attributes: Attributes, opset: int, node: NodeProto) -> Function:
    return lambda inputs: inputs[:1]


MAKERS: dict[str, Callable[[Attributes, int, NodeProto], Function | None]] = {
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Gather": _gather,
    "Identity": _identity,
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
