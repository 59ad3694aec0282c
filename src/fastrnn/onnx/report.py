"""What runs where, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
from onnx import GraphProto, NodeProto

from .. import backends
from .kernel import Kernel
from .models import model_of
from .moves import function_of
from .operators import is_recurrent, subgraphs
from .session import constants_of, functions_of, kernel_of

Array = npt.NDArray[Any]
EVALUATOR = "onnx"


@dataclass(frozen=True)
class Place:
    """Where one node runs."""

    node: str  # its name, or that of its first output
    op_type: str
    where: str  # "cpp", "numba", "numpy": that backend's kernels; "general": NumPy; "view"; "onnx": its evaluator
    why: str

    def __str__(self) -> str:
        return f"{self.op_type:<16} {self.node:<24} {self.where:<8} {self.why}"


class Report(tuple[Place, ...]):
    """A `Place` for each node, those inside If, Loop and Scan after the node that holds them; printed as a table."""

    __slots__ = ()

    def __str__(self) -> str:
        return "\n".join(map(str, self)) if self else "no nodes"

    __repr__ = __str__


def report(model: Any) -> Report:
    """Which node of a model runs where, and why; nothing is run.

    Parameters
    ----------
    model : path, bytes or onnx.ModelProto

    Returns
    -------
    tuple of Place
        `node`, `op_type`, `where`, `why` of each.

    Raises
    ------
    OSError, TypeError, ValueError
        As from `Session`.
    """
    proto = model_of(model)
    constants = constants_of(proto.graph)
    alone = functions_of(proto, constants) is not None
    opset = max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=1)
    return Report(_places(proto.graph, constants, alone, opset))


def _places(graph: GraphProto, constants: Mapping[str, Array], alone: bool, opset: int) -> list[Place]:
    found = []
    for node in graph.node:
        where, why = _place(node, constants, alone, opset)
        found.append(Place(node.name or next(filter(None, node.output), ""), node.op_type, where, why))
        for inner in subgraphs(node):
            found += _places(inner, constants, alone, opset)
    return found


def _place(node: NodeProto, constants: Mapping[str, Array], alone: bool, opset: int) -> tuple[str, str]:
    if is_recurrent(node):
        return _kernel(kernel_of(node, constants))
    if alone:
        return "view", "moves numbers"
    if function_of(node, opset) is None:
        return EVALUATOR, "no recurrent operator, and more than moving numbers"
    return EVALUATOR, "moves numbers, but other nodes of the model need the evaluator"


def _kernel(kernel: Kernel) -> tuple[str, str]:
    op, spec = kernel.op, kernel.spec
    options = [name for name in ("clip", "input_forget") if getattr(op, name)]
    if "activations" in op.options() and (spec is None or spec.activations):
        options.append("activations " + " ".join(one.name for one in op.activations))
    if spec.peephole if spec is not None else len(op.inputs) > 7:
        options.append("peepholes")
    when = "" if spec is not None else "; weights are packed when they change"
    if options:
        return backends.GENERAL, ", ".join(options) + when
    return backends.current().NAME, ("steps turned round" if op.direction == "reverse" else "fast kernels") + when
