"""Models as they come: read, checked, with their functions written out."""

from __future__ import annotations

import os
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, checker, external_data_helper, inliner

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
        if not outside and any(external_data_helper.uses_external_data(tensor) for tensor in found.graph.initializer):
            message = f"{what} keeps weights in files beside it; give the path of the model instead of its contents"
            raise ValueError(message)
        if found.ByteSize() < LIMIT:
            checker.check_model(_with_output_types(found))
    except DecodeError as error:
        message = f"{what} is damaged or is no ONNX model: {error}"
        raise ValueError(message) from error
    except checker.ValidationError as error:
        message = f"{what} is no valid ONNX model: {error}"
        raise ValueError(message) from error
    # onnx's evaluator does not hand its own operators on to functions: written out, their nodes are like all others.
    return inliner.inline_local_functions(found) if found.functions else found


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
