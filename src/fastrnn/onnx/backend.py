"""fastrnn as a backend of the onnx package: what its own tests, and tools that take any backend, run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, defs, helper
from onnx.backend import base

from .session import Session


class BackendRep(base.BackendRep):  # type: ignore[misc,unused-ignore]
    """A prepared model: a `Session` with the methods that the onnx package asks for."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """As `Session.run`."""
        return self.session.run(inputs)


class Backend(base.Backend):  # type: ignore[misc,unused-ignore]
    """`prepare`, `run_model`, `run_node`, `supports_device` as in `onnx.backend.base.Backend`, on the CPU."""

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> BackendRep:
        """A model made ready to run.

        Raises
        ------
        ValueError
            Another device than CPU, or what `Session` says of the model.
        """
        _check_device(device)
        return BackendRep(Session(model))

    @classmethod
    def run_node(
        cls, node: NodeProto, inputs: Any, device: str = "CPU", outputs_info: Sequence[Any] | None = None, **kwargs: Any
    ) -> tuple[Any, ...]:
        """One operator on a list of arrays, one for each input that the node names."""
        _check_device(device)
        named = [name for name in node.input if name]
        declared: list[ValueInfoProto] = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in zip(named, inputs, strict=True)
        ]
        made = [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in node.output if name]
        graph = helper.make_graph([node], "node", declared, made)
        opset = kwargs.get("opset_version", defs.onnx_opset_version())
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        return Session(model).run(list(inputs))

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether the device is the CPU."""
        return device.split(":")[0] == "CPU"


def _check_device(device: str) -> None:
    if not Backend.supports_device(device):
        message = f"device is {device!r}; it must be 'CPU'"
        raise ValueError(message)
