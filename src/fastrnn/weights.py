"""Recurrent layers from other people's files.

>>> import fastrnn.weights
>>> layers = fastrnn.weights.layers("model.keras")     # doctest: +SKIP
>>> y, state = layers["lstm"](x)                       # doctest: +SKIP

A file is data: nothing in it is executed, nothing is written to disk, and no array is made larger than the file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import _io, _keras, _validate
from .layers import GRU, LSTM, RNN

__all__ = ["layers"]

Layer = LSTM | GRU | RNN
KINDS: dict[str, Any] = {"lstm": LSTM, "gru": GRU, "rnn": RNN}
CELLS = {4: "lstm", 3: "gru", 1: "rnn"}  # by gates
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
NAMES = re.compile(r"(.*?)((?:weight|bias)_(?:ih|hh|hr)_l(\d{1,4})(?:_reverse)?)", re.DOTALL)


def layers(
    path: str | os.PathLike[str], *, batch_first: bool | None = None, nonlinearity: str = "tanh", reverse: bool = False,
    config: str | None = None,
) -> dict[str, Layer]:  # fmt: skip
    """All recurrent layers of a file, by name.

    Parameters
    ----------
    path : str or path-like
        `.safetensors`: a `state_dict` of PyTorch, of one module or a whole model; names are those of the modules, ""
        for a module saved alone. `.keras`, `.h5`: a model or weights of Keras; names are Keras's. `.onnx`: names are
        "0", "1", in the order of the nodes.
    batch_first : bool, optional
        Of the layers. If not given, as usual there: True for Keras, False for PyTorch, what the node says for ONNX.
    nonlinearity : {"tanh", "relu"}
        Of Elman networks in a `state_dict`, which does not say it.
    reverse : bool
        Layers that run in reverse only (Keras's `go_backwards`, an ONNX node's direction) are given too, as layers that
        run forwards: give them `fastrnn.sequences.reverse(x)`. Keras leaves their y in the order of their steps, ONNX
        turns it round. Else they are errors.
    config : str, optional
        For a `.weights.h5`, which does not hold it: what `model.to_json()` gave. Without it the activations, and GRU's
        `reset_after` where there are no biases, are taken to be Keras's defaults.

    Returns
    -------
    dict of str to LSTM, GRU or RNN

    Raises
    ------
    OSError
        The file cannot be read.
    ImportError
        The package that reads it is not installed: safetensors or onnx. Keras files need none.
    ValueError
        Another kind of file, a damaged one, one without recurrent layers, or a layer that fastrnn has not. Files of
        pickles (.pt, .pth, ...) are refused, since reading them runs code that they contain.

    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in PICKLES:
        message = (
            f"{path} is a pickle, which runs code when it is read; write the weights where you trust it: "
            'safetensors.torch.save_file(model.state_dict(), "model.safetensors")'
        )
        raise ValueError(message)
    if batch_first is not None:
        _validate.flag("batch_first", batch_first)
    reverse = _validate.flag("reverse", reverse)
    if config is not None and (type(config) is not str or suffix != ".h5"):
        message = f"config is a {type(config).__name__} for {str(path)!r}; it must be a str, for a .weights.h5"
        raise ValueError(message)
    found: dict[str, Layer]
    if suffix == ".safetensors":
        found = _of_torch(_io.read_arrays(path), bool(batch_first), nonlinearity)
    elif suffix in (".keras", ".h5", ".hdf5"):
        found = {
            name: _made(stored.cell, {"batch_first": batch_first is not False, **stored.options}, stored.weights)
            for name, stored in _keras.read(path, config, reverse).items()
        }
    elif suffix == ".onnx":
        from .onnx.layers import layers as of_onnx  # needs the package onnx

        found = {str(k): layer for k, layer in enumerate(of_onnx(path, reverse=reverse))}
        if batch_first is not None:
            found = {
                name: _made(layer._spec.cell, {**layer._options, "batch_first": batch_first}, layer.weights)
                for name, layer in found.items()
            }
    else:
        message = f"path is {str(path)!r}; it must end in .safetensors, .keras, .h5 or .onnx"
        raise ValueError(message)
    if not found:
        message = f"{path} has no recurrent layers"
        raise ValueError(message)
    return found


def _made(cell: str, options: Mapping[str, Any], weights: Mapping[str, Any]) -> Layer:
    layer: Layer = KINDS[cell](**options, rng=0)
    layer.load_state_dict(weights)
    return layer


def _of_torch(arrays: Mapping[str, Any], batch_first: bool, nonlinearity: str) -> dict[str, Layer]:
    """Layers of a state_dict: what lies under one prefix is one layer."""
    modules: dict[str, dict[str, Any]] = {}
    for name, array in arrays.items():
        if match := NAMES.fullmatch(name):
            modules.setdefault(match[1], {})[match[2]] = array
    found = {}
    for prefix, weights in modules.items():
        title = prefix.rstrip(".")
        try:
            found[title] = _torch_layer(weights, batch_first, nonlinearity)
        except (TypeError, ValueError) as error:
            message = f"module {title!r}: {error}"
            raise ValueError(message) from error
    return found


def _torch_layer(weights: Mapping[str, Any], batch_first: bool, nonlinearity: str) -> Layer:
    shapes: list[Any] = [
        getattr(weights.get(name), "shape", ()) for name in ("weight_ih_l0", "weight_hh_l0", "weight_hr_l0")
    ]
    rows, recurrent, projection = shapes[0], shapes[1], shapes[2] or shapes[1]
    if len(rows) != 2 or len(recurrent) != 2 or len(projection) != 2 or 0 in (*rows, *recurrent, *projection):
        message = "weight_ih_l0 and weight_hh_l0 are missing or are no matrices"
        raise ValueError(message)
    if other := [name for name, array in weights.items() if array.dtype.kind != "f"]:
        message = f"{other[0]} has dtype {weights[other[0]].dtype}; it must be a float"
        raise ValueError(message)
    cell = CELLS.get(rows[0] // projection[1]) if rows[0] % projection[1] == 0 else None
    if cell is None:
        message = f"weight_ih_l0 and weight_hh_l0 have shapes {rows} and {recurrent}, which no LSTM, GRU or RNN has"
        raise ValueError(message)
    own = {"nonlinearity": nonlinearity} if cell == "rnn" else {}
    spec = _validate.spec_of_weights(cell, weights, **own)
    if sum(array.size for array in weights.values()) != spec.weight_count:
        spec_names = spec.weight_shapes
        missing = [name for name in spec_names if name not in weights]
        message = f"these are not the weights of one layer; missing: {', '.join(missing) or 'none'}"
        raise ValueError(message)
    options: dict[str, Any] = {
        "input_size": spec.input_size, "hidden_size": spec.hidden_size, "num_layers": spec.num_layers,
        "bias": spec.bias, "bidirectional": spec.bidirectional, "dtype": spec.dtype, "batch_first": batch_first, **own,
    }  # fmt: skip
    if spec.proj_size:
        options["proj_size"] = spec.proj_size
    return _made(cell, options, weights)
