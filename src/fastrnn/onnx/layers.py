"""The recurrent layers of a model, as layers of our own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
from onnx import NodeProto

from .. import layers as _layers
from .kernel import layer_options, spec_of, weights_of
from .models import model_of
from .operators import INPUTS, WEIGHTS, operator_of, recurrent_nodes
from .session import constants_of

Array = npt.NDArray[Any]
KINDS: dict[str, Any] = {"rnn": _layers.RNN, "gru": _layers.GRU, "lstm": _layers.LSTM}


def layers(model: Any) -> list[_layers.LSTM | _layers.GRU | _layers.RNN]:
    """The recurrent nodes of a model as layers with its weights, to be run, trained further or saved.

    Parameters
    ----------
    model : path, bytes or onnx.ModelProto

    Returns
    -------
    list of LSTM, GRU and RNN
        One of one layer for each node, in the model's order. With layout 1 it has `batch_first`. A layer gives
        (T, N, D*H) where the operator gives (T, D, N, H). float16 becomes float32.

    Raises
    ------
    OSError
        The file cannot be read.
    TypeError, ValueError
        What is no model; a node whose weights are not in the model, or one that runs in reverse only, which no layer
        does.
    """
    proto = model_of(model)
    constants = constants_of(proto.graph)
    return [_layer(node, constants) for node in recurrent_nodes(proto.graph)]


def _layer(node: NodeProto, constants: Mapping[str, Array]) -> _layers.LSTM | _layers.GRU | _layers.RNN:
    op = operator_of(node)
    if op.direction == "reverse":
        message = f"{op.title} runs in reverse only, which no layer does; `Session` runs it"
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
    layer: _layers.LSTM | _layers.GRU | _layers.RNN = KINDS[op.cell](**options, batch_first=op.batch_first, rng=0)
    layer.load_state_dict(weights_of(spec, w, r, b, p))
    return layer
