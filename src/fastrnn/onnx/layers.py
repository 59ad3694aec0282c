"""The recurrent layers of a model, as layers of our own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy.typing as npt
from onnx import NodeProto

from .. import _validate
from .. import layers as _layers
from .kernel import layer_options, spec_of, weights_of
from .models import model_of
from .operators import INPUTS, WEIGHTS, operator_of, recurrent_nodes
from .session import constants_of
from .stacks import Feeds

Array = npt.NDArray[Any]
Layer: TypeAlias = _layers.LSTM | _layers.GRU | _layers.RNN
KINDS: dict[str, Any] = {"rnn": _layers.RNN, "gru": _layers.GRU, "lstm": _layers.LSTM}


def layers(model: Any, *, reverse: bool = False, stacks: bool = False) -> list[Layer]:
    """The recurrent nodes of a model as layers with its weights, to be run, trained further or saved.

    Parameters
    ----------
    model : path, bytes or onnx.ModelProto
    reverse : bool
        Nodes that run in reverse only are layers too, which run forwards: what such a node makes of x is
        `reverse(layer(reverse(x))[0])` with `fastrnn.sequences.reverse`. Else they are errors.
    stacks : bool
        Nodes that are layers of one stack, as exporters write them one by one, become one layer with `num_layers`: the
        output of each, and nothing else, is the input of the next, and they are alike. What lies between them may only
        move numbers, into (T, N, D*H). Outputs of the lower layers are not given then.

    Returns
    -------
    list of LSTM, GRU and RNN
        One of one layer for each node, in the model's order, or one for each stack. With layout 1 it has `batch_first`.
        A layer gives (T, N, D*H) where the operator gives (T, D, N, H). float16 becomes float32.

    Raises
    ------
    OSError
        The file cannot be read.
    TypeError, ValueError
        What is no model; a node whose weights are not in the model, or without `reverse` one that runs in reverse only.
    """
    reverse, stacks = _validate.flag("reverse", reverse), _validate.flag("stacks", stacks)
    proto = model_of(model)
    constants = constants_of(proto.graph)
    nodes = list(recurrent_nodes(proto.graph))
    found = [_layer(node, constants, reverse) for node in nodes]
    if not stacks:
        return found
    groups: list[list[Layer]] = []
    feeds = Feeds(proto, constants)
    for k, (node, layer) in enumerate(zip(nodes, found, strict=True)):
        if k and _alike(groups[-1][-1], layer) and feeds(nodes[k - 1], node):
            groups[-1].append(layer)
        else:
            groups.append([layer])
    return [_stacked(group) for group in groups]


def _layer(node: NodeProto, constants: Mapping[str, Array], reverse: bool) -> Layer:
    op = operator_of(node)
    if op.direction == "reverse" and not reverse:
        message = (
            f"{op.title} runs in reverse only, which no layer does; `layers(model, reverse=True)` gives one that runs "
            "forwards, and `Session` runs the node as it is"
        )
        raise ValueError(message)
    given = [constants.get(op.inputs[k]) if k < len(op.inputs) and op.inputs[k] else None for k in WEIGHTS]
    for k, value in zip(WEIGHTS, given, strict=True):
        if value is None and k < len(op.inputs) and op.inputs[k]:
            message = f"{op.title}: {INPUTS[k]} is computed by the model or is an input of it; it must be a constant"
            raise ValueError(message)
    w, r, b, p = given
    assert w is not None
    assert r is not None
    spec = spec_of(op, w, r, b, p)
    options = layer_options(op, w, spec.hidden_size, b, p)
    layer: Layer = KINDS[op.cell](**options, batch_first=op.batch_first, rng=0)
    layer.load_state_dict(weights_of(spec, w, r, b, p))
    return layer


def _alike(below: Layer, above: Layer) -> bool:
    """Whether one layer can lie on the other in a stack, by their sizes and options."""
    width = below.hidden_size * (1 + below.bidirectional)
    return type(below) is type(above) and {**below._options, "input_size": width} == above._options


def _stacked(group: Sequence[Layer]) -> Layer:
    """One layer of several."""
    if len(group) == 1:
        return group[0]
    first = group[0]
    whole: Layer = KINDS[first._spec.cell](**{**first._options, "num_layers": len(group)}, rng=0)
    parts = [(name.replace("_l0", f"_l{k}"), a) for k, layer in enumerate(group) for name, a in layer.weights.items()]
    whole.load_state_dict(dict(parts))
    return whole
