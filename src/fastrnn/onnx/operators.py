"""What an RNN, GRU or LSTM node says: its attributes, checked and with the defaults of the standard filled in.

Operators of opset 7, 14 and 22 (https://onnx.ai/onnx/operators/). Letters: T steps, N batch, I input, H hidden,
G gates, D directions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import Any

from onnx import GraphProto, NodeProto, helper

from .._spec import ACTIVATIONS, STANDARD, Activation

CELLS = {"RNN": "rnn", "GRU": "gru", "LSTM": "lstm"}
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
# Without regard to case, as ONNX Runtime reads them.
NAMES = {name.lower(): name for name in ACTIVATIONS}
# Inputs in the order of the standard; those that every node must have come first.
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
REQUIRED = 3
WEIGHTS = (1, 2, 3, 7)  # positions of W, R, B and P among them
COUNT = {"rnn": 6, "gru": 6, "lstm": 8}


@dataclass(frozen=True)
class Operator:
    """One node, apart from the values of its weights."""

    title: str  # how messages call it
    cell: str  # "rnn", "gru" or "lstm"
    direction: str
    batch_first: bool  # layout 1: batch, then time; states are (N, D, H)
    hidden_size: int | None  # if the node says it
    activations: tuple[Activation, ...]  # of one direction after the other
    clip: float | None  # bound of what enters an activation
    input_forget: bool  # LSTM: f = 1 - i
    reset_after: bool  # GRU: linear_before_reset
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def directions(self) -> int:
        return DIRECTIONS[self.direction]

    def options(self) -> dict[str, Any]:
        """The options of a layer that computes the same, without its sizes; without activations where all are usual."""
        found: dict[str, Any] = {"bidirectional": self.directions == 2, "clip": self.clip}
        if tuple(one.name for one in self.activations) != STANDARD[self.cell] * self.directions:
            found["activations"] = self.activations
        if self.cell == "lstm":
            found["input_forget"] = self.input_forget
        if self.cell == "gru":
            found["reset_after"] = self.reset_after
        return found


def is_recurrent(node: NodeProto) -> bool:
    """Whether the node is one of ours."""
    return node.op_type in CELLS and node.domain in ("", "ai.onnx")


def recurrent_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Those of a graph and of the graphs inside its nodes (If, Loop, Scan), in order."""
    for node in graph.node:
        if is_recurrent(node):
            yield node
        for inner in subgraphs(node):
            yield from recurrent_nodes(inner)


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def title_of(node: NodeProto) -> str:
    """How messages call a node: by its name, or if it has none by its outputs."""
    return f"{node.op_type} node {node.name or ', '.join(filter(None, node.output))!r}"


def operator_of(node: NodeProto) -> Operator:
    """Read a node.

    Raises
    ------
    ValueError
        An attribute that is unknown or out of its range, or a required input that is left out.
    """
    title = title_of(node)
    cell = CELLS[node.op_type]
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    direction = _text(attributes.pop("direction", "forward"))
    if direction not in DIRECTIONS:
        message = f"{title}: direction is {direction!r}; it must be one of {', '.join(map(repr, DIRECTIONS))}"
        raise ValueError(message)
    layout = attributes.pop("layout", 0)
    if layout not in (0, 1):
        message = f"{title}: layout is {layout!r}; it must be 0 or 1"
        raise ValueError(message)
    clip = attributes.pop("clip", None)
    if clip == inf:
        clip = None
    if clip is not None and not clip > 0:
        message = f"{title}: clip is {clip}; it must be a positive number"
        raise ValueError(message)
    hidden = attributes.pop("hidden_size", None)
    if hidden is not None and hidden < 1:
        message = f"{title}: hidden_size is {hidden}; it must be positive"
        raise ValueError(message)
    attributes.pop("output_sequence", None)  # opset 1: which outputs there are is seen from their names
    names = tuple(map(_text, attributes.pop("activations", ())))
    alphas, betas = list(attributes.pop("activation_alpha", ())), list(attributes.pop("activation_beta", ()))
    activations = _activations(title, names, alphas, betas, STANDARD[cell], DIRECTIONS[direction])
    input_forget = bool(attributes.pop("input_forget", 0)) and cell == "lstm"
    reset_after = bool(attributes.pop("linear_before_reset", 0)) if cell == "gru" else True
    if attributes:
        message = f"{title} has attributes that it must not have: {', '.join(sorted(attributes))}"
        raise ValueError(message)
    _check_inputs(title, node, COUNT[cell])
    return Operator(
        title, cell, direction, bool(layout), hidden, activations, clip, input_forget, reset_after,
        tuple(node.input), tuple(node.output),
    )  # fmt: skip


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _check_inputs(title: str, node: NodeProto, most: int) -> None:
    for k, name in enumerate(INPUTS[:REQUIRED]):
        if k >= len(node.input) or not node.input[k]:
            message = f"{title} has no input {name}; it must be given"
            raise ValueError(message)
    if len(node.input) > most:
        message = f"{title} has {len(node.input)} inputs; it must have {most} at most"
        raise ValueError(message)


def _activations(
    title: str, names: tuple[str, ...], alphas: list[float], betas: list[float], default: tuple[str, ...], ways: int
) -> tuple[Activation, ...]:
    """The activations of one direction after the other, with their parameters.

    alpha and beta are lists for those activations alone that read them, in order; where a list is at its end, the
    activation's default holds.
    """
    names = names or default * ways
    if len(names) != len(default) * ways:
        message = f"{title} has {len(names)} activations; it must have {len(default)} for each of {ways} direction(s)"
        raise ValueError(message)
    found = []
    for given in names:
        name = NAMES.get(given.lower())
        if name is None:
            message = f"{title}: unknown activation {given!r}; it must be one of {', '.join(ACTIVATIONS)}"
            raise ValueError(message)
        values = [
            0.0 if value is None else left.pop(0) if left else value
            for value, left in zip(ACTIVATIONS[name], (alphas, betas), strict=True)
        ]
        found.append(Activation(name, *values))
    return tuple(found)
