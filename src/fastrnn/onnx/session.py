"""A model prepared to be run: with recurrent nodes on our kernels, whatever else is in it.

If it holds nothing but recurrent nodes and operators that move numbers, it becomes a list of steps on numbered slots.
Else onnx's own evaluator runs it and calls our kernels where a recurrent node stands, inside If, Loop and Scan too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, NodeProto, TypeProto, helper
from onnx.backend.base import namedtupledict

from .kernel import Kernel
from .models import model_of
from .moves import Function, array_of, function_of
from .operators import INPUTS, is_recurrent, operator_of, title_of

Array = npt.NDArray[Any]
NOTHING, UNUSED = 0, 1  # slots: the value of an input that is left out; where unused outputs go


class Session:
    """A model, prepared once.

    Parameters
    ----------
    model : path, bytes or onnx.ModelProto
        Not kept; weights are packed at once where they are constants of the model.

    Attributes
    ----------
    input_names, output_names : tuple of str
        In the order of the graph. `input_names` without the inputs that have an initializer, which may be given too.

    Raises
    ------
    OSError
        A file cannot be read.
    TypeError, ValueError
        What is no model, or a recurrent node with weights or attributes that do not fit.

    Notes
    -----
    Sessions may be used by several threads at a time.
    """

    input_names: tuple[str, ...]
    output_names: tuple[str, ...]

    def __init__(self, model: Any) -> None:
        proto = model_of(model)
        constants = constants_of(proto.graph)
        given = {value.name for value in proto.graph.initializer}
        self._inputs = [_Input(value.name, value.type) for value in proto.graph.input]
        self.input_names = tuple(entry.name for entry in self._inputs if entry.name not in given)
        self.output_names = tuple(value.name for value in proto.graph.output)
        self._outputs = partial(tuple.__new__, namedtupledict("Outputs", self.output_names))
        self._all_inputs = {entry.name: entry for entry in self._inputs}
        self._program: _Program | _Evaluated
        functions = functions_of(proto, constants)
        if functions is None:
            self._program = _Evaluated(proto, constants)
        else:
            self._program = _Program(proto.graph, constants, functions)

    def run(self, inputs: Any) -> tuple[Array, ...]:
        """Run the model.

        Parameters
        ----------
        inputs : mapping of names to array_like, or a sequence of array_like in the order of `input_names`
            Arrays must have the dtype and shape that the model declares; lists are converted. A model with one input
            takes its array as it is.

        Returns
        -------
        named tuple of ndarray
            The outputs in the model's order; `outputs[0]`, `outputs["name"]`. New arrays, C-contiguous.

        Raises
        ------
        TypeError, ValueError
            An input that is missing, unknown, or does not fit.
        """
        values = self._values(inputs)
        return self._outputs(self._program(values))

    def _values(self, inputs: Any) -> dict[str, Any]:
        """Checked inputs by name."""
        names = self.input_names
        if type(inputs) is not dict and not isinstance(inputs, Mapping):
            entries = [inputs] if isinstance(inputs, np.ndarray) and len(names) == 1 else inputs
            if not isinstance(entries, Sequence) or isinstance(entries, str | bytes):
                what = type(inputs).__name__
                message = (
                    f"inputs is a {what}; it must be a mapping of names to arrays, or a list for {', '.join(names)}"
                )
                raise TypeError(message)
            if len(entries) != len(names):
                message = f"inputs has {len(entries)} entries; it must have {len(names)}: {', '.join(names)}"
                raise ValueError(message)
            inputs = dict(zip(names, entries, strict=True))
        known = self._all_inputs
        try:
            values = {}
            for name, value in inputs.items():
                entry = known[name]
                if type(value) is not np.ndarray or value.dtype is not entry.dtype or value.shape != entry.seen:
                    value = entry.take(value)
                values[name] = value
        except KeyError as error:
            message = f"inputs has {error.args[0]!r}; the model's inputs are {', '.join(map(repr, known))}"
            raise ValueError(message) from None
        for name in names:
            if name not in values:
                message = f"inputs has no {name!r}; it must have {', '.join(map(repr, names))}"
                raise ValueError(message)
        return values


def run(model: Any, inputs: Any) -> tuple[Array, ...]:
    """Run a model once: `Session(model).run(inputs)`.

    Parameters, results and errors are those of `Session` and its `run`.
    """
    return Session(model).run(inputs)


class _Input:
    """What a model declares about an input."""

    def __init__(self, name: str, declared: TypeProto) -> None:
        self.name = name
        self.dtype: np.dtype[Any] | None = None  # None: no tensor, which the evaluator has to look after
        self.shape: tuple[int, ...] | None = None  # -1: any size
        self.seen: tuple[int, ...] | None = None  # a shape that was found good: the next one will mostly be the same
        if declared.HasField("tensor_type") and declared.tensor_type.elem_type:
            self.dtype = np.dtype(helper.tensor_dtype_to_np_dtype(declared.tensor_type.elem_type))
            if declared.tensor_type.HasField("shape"):
                sizes = declared.tensor_type.shape.dim
                self.shape = tuple(size.dim_value if size.HasField("dim_value") else -1 for size in sizes)

    def take(self, value: Any) -> Any:
        """The array, if it is one of these."""
        if self.dtype is None:
            return value
        if type(value) is not np.ndarray:
            value = self._array(value)
        if value.dtype != self.dtype:
            message = f"input {self.name!r} has dtype {value.dtype}; it must be {self.dtype}"
            raise TypeError(message)
        shape = self.shape
        if shape is not None and value.shape != shape:
            sizes = value.shape
            if len(sizes) != len(shape) or any(n not in (-1, m) for n, m in zip(shape, sizes, strict=True)):
                wanted = ", ".join("any" if n < 0 else str(n) for n in shape)
                message = f"input {self.name!r} has shape {sizes}; it must be ({wanted})"
                raise ValueError(message)
        self.seen = value.shape
        return value

    def _array(self, value: Any) -> Array:
        assert self.dtype is not None
        try:
            array = np.asarray(value)
            if isinstance(value, list | tuple | int | float) and array.dtype != self.dtype:
                array = array.astype(self.dtype, casting="same_kind" if array.size else "unsafe")
        except Exception as error:  # whatever an object's __array__ may raise
            message = f"input {self.name!r} is a {type(value).__name__} that is no array of {self.dtype}: {error}"
            raise TypeError(message) from error
        return array


def constants_of(graph: GraphProto) -> dict[str, Array]:
    """Values that no run can change: initializers that are no inputs, and what Constant nodes hold."""
    inputs = {value.name for value in graph.input}
    found = {value.name: array_of(value) for value in graph.initializer if value.name not in inputs}
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            function = function_of(node, 0)
            if function is not None:
                found[node.output[0]] = function(())[0]
    return found


def kernel_of(node: NodeProto, constants: Mapping[str, Array]) -> Kernel:
    """The kernel of a recurrent node."""
    op = operator_of(node)
    return Kernel(op, [constants.get(name) for name in op.inputs])


def functions_of(model: ModelProto, constants: Mapping[str, Array]) -> list[Function | Kernel] | None:
    """For each node what it does; None if one of them needs the evaluator."""
    if model.graph.sparse_initializer or any(not v.type.HasField("tensor_type") for v in model.graph.input):
        return None
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)
    found: list[Function | Kernel] = []
    for node in model.graph.node:
        function = kernel_of(node, constants) if is_recurrent(node) else function_of(node, opset)
        if function is None:
            return None
        found.append(function)
    return found


class _Program:
    """The nodes of a graph in order, values in numbered slots."""

    def __init__(
        self, graph: GraphProto, constants: Mapping[str, Array], functions: Sequence[Function | Kernel]
    ) -> None:
        slots: dict[str, int] = {"": NOTHING}
        self._start: list[Any] = [None, None]

        def slot(name: str, value: Any = None) -> int:
            if name not in slots:
                slots[name] = len(self._start)
                self._start.append(value)
            return slots[name]

        for tensor in graph.initializer:  # those of the inputs are their defaults
            slot(tensor.name, constants.get(tensor.name, None))
            if tensor.name not in constants:
                self._start[slots[tensor.name]] = array_of(tensor)
        self._inputs = {value.name: slot(value.name) for value in graph.input}
        # Slots whose values are made by a recurrent node, or are views of such, and which slot that is.
        fresh: dict[int, int] = {}
        self._steps: list[tuple[Function | Kernel, list[int], list[int], str]] = []
        for node, function in zip(graph.node, functions, strict=True):
            sources = [slots[name] for name in node.input]
            if isinstance(function, Kernel):
                sources += [NOTHING] * (len(INPUTS) - len(sources))
            targets = [slot(name) if name else UNUSED for name in node.output]
            if isinstance(function, Kernel):
                fresh.update(zip(targets, targets, strict=True))
            elif sources and sources[0] in fresh:
                fresh.update(dict.fromkeys(targets, fresh[sources[0]]))
            self._steps.append((function, sources, targets, title_of(node)))
        # An output that might be memory of an input, of a constant or of an output before it is copied.
        self._outputs = []
        given: set[int | None] = {None}
        for k in (slots[value.name] for value in graph.output):
            self._outputs.append((k, fresh.get(k) in given))
            given.add(fresh.get(k))

    def __call__(self, values: Mapping[str, Any]) -> list[Array]:
        slots = self._start.copy()
        for name, value in values.items():
            slots[self._inputs[name]] = value
        title = ""
        try:
            for function, sources, targets, title in self._steps:  # noqa: B007 - read below
                for k, result in zip(targets, function([slots[k] for k in sources]), strict=False):
                    slots[k] = result
        except (IndexError, TypeError, ValueError) as error:
            if str(error).startswith(title):  # a recurrent node, which says so itself
                raise
            message = f"{title}: {error}"
            raise ValueError(message) from error
        outputs = []
        for k, copy in self._outputs:
            value = slots[k]
            own = not copy and value.flags.c_contiguous and value.flags.writeable
            outputs.append(value if own else value.copy("C"))
        return outputs


class _Evaluated:
    """onnx's ReferenceEvaluator with our kernels for the recurrent operators."""

    def __init__(self, model: ModelProto, constants: Mapping[str, Array]) -> None:
        from .evaluator import evaluator  # it loads all of onnx's reference operators

        try:
            self._evaluator = evaluator(model, constants)
        except (TypeError, ValueError, MemoryError):
            raise
        except Exception as error:  # RuntimeError and what is derived from it for operators that are not there
            message = f"model has a node that neither fastrnn nor onnx's evaluator runs: {error}"
            raise ValueError(message) from error

    def __call__(self, values: Mapping[str, Any]) -> list[Any]:
        try:
            results = self._evaluator.run(None, dict(values))
        except (TypeError, ValueError, MemoryError):
            raise
        except Exception as error:  # whatever its operators raise where inputs do not fit
            message = f"onnx's evaluator: {type(error).__name__}: {error}"
            raise ValueError(message) from error
        # Copies: its results may be memory of inputs and of constants, which is not told.
        return [np.array(r, order="C") if isinstance(r, np.ndarray) else r for r in results]
