"""onnx's evaluator with the recurrent operators replaced by kernels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
from onnx import ModelProto, NodeProto
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from .kernel import Kernel, padded
from .operators import CELLS, operator_of

Array = npt.NDArray[Any]


def evaluator(model: ModelProto, constants: Mapping[str, Array]) -> ReferenceEvaluator:
    """An evaluator of the model whose RNN, GRU and LSTM are ours.

    constants: values by name that no run can change. Names are unique in a model, graphs inside nodes included.
    """

    class Recurrent(OpRun):
        """A node in the form that the evaluator wants."""

        op_domain = ""

        def __init__(self, node: NodeProto, run_params: dict[str, Any]) -> None:
            super().__init__(node, run_params)
            op = operator_of(node)
            self._kernel = Kernel(op, [constants.get(name) for name in op.inputs])

        def run(self, *args: Any, **_: Any) -> tuple[Any, ...]:
            """As `_run`; the evaluator's own would call a ValueError's cause a matter of types."""
            return self._run(*args)

        def _run(self, *args: Any, **_: Any) -> tuple[Any, ...]:
            return self._kernel(padded(args))

    kinds = [type(name, (Recurrent,), {}) for name in CELLS]
    return ReferenceEvaluator(model, new_ops=kinds)
