"""Models as they come: read, checked, with their functions written out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, checker, external_data_helper, inliner

from .operators import subgraphs

LIMIT = 2 << 30  # bytes: what protobuf can write, and the checker therefore read


def model_of(model: Any) -> ModelProto:
    """The model of a path, of bytes or of a ModelProto, which is not changed.

    Raises
    ------
    OSError
        The file cannot be read.
    TypeError
        Something else.
    ValueError
        No ONNX model, or one that breaks the standard's rules.
    """
    what, outside = "model", False
    try:
        if isinstance(model, str | os.PathLike):
            what = f"model {os.fspath(model)!r}"
            found, outside = onnx.load(model), True
        elif isinstance(model, bytes | bytearray | memoryview):
            found = onnx.load_model_from_string(bytes(model))
        elif isinstance(model, ModelProto):
            found = model
        else:
            message = f"model is a {type(model).__name__}; it must be a path, bytes or an onnx.ModelProto"
            raise TypeError(message)
        beside = not outside and any(map(external_data_helper.uses_external_data, _tensors(found)))
        if not beside and found.ByteSize() < LIMIT:
            checker.check_model(_with_output_types(found))
    except (OSError, TypeError, MemoryError):
        raise
    except checker.ValidationError as error:
        message = f"{what} is no valid ONNX model: {error}"
        raise ValueError(message) from error
    except Exception as error:  # protobuf has its own, for each of the forms in which onnx writes models
        message = f"{what} is damaged or is no ONNX model: {error}"
        raise ValueError(message) from error
    if beside:
        message = f"{what} keeps weights in files beside it; give the path of the model instead of its contents"
        raise ValueError(message)
    # onnx's evaluator does not hand its own operators on to functions: written out, their nodes are like all others.
    return inliner.inline_local_functions(found) if found.functions else found


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    """All tensors of a model, those inside nodes too: each of them can say that its numbers lie in another file."""
    yield from _tensors_of(model.graph)
    for function in model.functions:
        yield from _in_nodes(function.node)


def _tensors_of(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    yield from _in_nodes(graph.node)


def _in_nodes(nodes: Iterable[NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
        for graph in subgraphs(node):
            yield from _tensors_of(graph)


def _with_output_types(model: ModelProto) -> ModelProto:
    """The model, or a copy in which every output has a type and a shape.

    The checker wants them and many models lack them; nobody here reads them.
    """
    tensors = [value for value in model.graph.output if value.type.WhichOneof("value") in (None, "tensor_type")]
    if all(value.type.tensor_type.elem_type and value.type.tensor_type.HasField("shape") for value in tensors):
        return model
    copy = ModelProto()
    copy.CopyFrom(model)
    for value in copy.graph.output:
        if value.type.WhichOneof("value") in (None, "tensor_type"):
            value.type.tensor_type.elem_type = value.type.tensor_type.elem_type or TensorProto.FLOAT
            value.type.tensor_type.shape.SetInParent()
    return copy
