"""Recurrent layers in the files of Keras 3 (.keras, .weights.h5, .h5) and Keras 2 (.h5).

A cell's arrays lie in one group of an HDF5 file, as `vars/0`, `1`, `2` (Keras 3) or as `kernel`, `recurrent_kernel`,
`bias` (the older .h5). Its options are in a JSON text: config.json in the archive, or an attribute of the .h5.

    kernel (I, G*H)    recurrent_kernel (H, G*H)    bias (G*H,), of a GRU with reset_after (2, G*H): b of x, then of h
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from . import _hdf5
from ._gates import reorder
from ._hdf5 import Dataset, Group

Array = npt.NDArray[Any]

CLASSES = {"SimpleRNN": "rnn", "GRU": "gru", "LSTM": "lstm"}
GATES = {4: "lstm", 3: "gru", 1: "rnn"}
CONFIG_LIMIT = 16 << 20  # bytes of a model's description: Keras writes 1 to 2 kB for a layer
# Keras's functions by ONNX's names.
ACTIVATIONS: dict[str, Any] = {
    "tanh": "Tanh", "sigmoid": "Sigmoid", "relu": "Relu", "linear": "Affine", "softsign": "Softsign",
    "softplus": "Softplus", "elu": "Elu", "leaky_relu": ("LeakyRelu", 0.2), "hard_sigmoid": ("HardSigmoid", 1 / 6, 0.5),
}  # fmt: skip
OLD_HARD_SIGMOID = ("HardSigmoid", 0.2, 0.5)  # before Keras 3
USUAL = {"activation": "tanh", "recurrent_activation": "sigmoid", "reset_after": True, "go_backwards": False}


@dataclass
class Stored:
    """One layer: what to make it from."""

    cell: str
    options: dict[str, Any]
    weights: dict[str, Array]


def read(path: Path, config: str | None = None, reverse: bool = False) -> dict[str, Stored]:
    """The recurrent layers of a file, by Keras's names; config and reverse as in `weights.layers`.

    Raises
    ------
    OSError, ValueError
        See `weights.layers`.
    """
    with path.open("rb") as file:  # a file that is missing or closed to us is told as such
        try:
            own, data = _parts(file) if path.suffix.lower() == ".keras" else (None, file.read())
            root = _hdf5.read(data)
            own = root.texts.get("model_config") if own is None else own
            if config is not None and own is not None:
                message = "it holds a config of its own, so that none may be given"
                raise ValueError(message)
            configs = _configs(config if own is None else own)
            if root.texts.get("keras_version", "3").split(".")[0] in ("1", "2"):
                configs = {name: {**entry, "old": True} for name, entry in configs.items()}
            return _layers(root, configs, reverse)
        except MemoryError:
            raise
        except Exception as error:  # zipfile and json have their own
            message = f"{path} is damaged, or is no file of Keras that fastrnn can read: {error}"
            raise ValueError(message) from error


def _parts(file: IO[bytes]) -> tuple[str, bytes]:
    """config.json and model.weights.h5 of an archive."""
    import zipfile

    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        parts = []
        for name in ("config.json", "model.weights.h5"):
            found = [entry for entry in entries if entry.filename == name]
            if len(found) != 1:
                message = f"it has {len(found)} entries {name!r}; it must have one"
                raise ValueError(message)
            # Keras stores, it does not compress; what is no larger than the file needs no other bound.
            if found[0].compress_type != zipfile.ZIP_STORED or found[0].file_size > os.fstat(file.fileno()).st_size:
                message = f"entry {name!r} is compressed or larger than the file; those that Keras writes never are"
                raise ValueError(message)
            if name == "config.json" and found[0].file_size > CONFIG_LIMIT:
                message = f"entry {name!r} has {found[0].file_size} bytes"
                raise ValueError(message)
            parts.append(archive.read(found[0]))
    return parts[0].decode(), parts[1]


def _configs(text: str | None) -> dict[str, dict[str, Any]]:
    """Recurrent layers of a model's description by name, those inside models in it too."""
    found: dict[str, dict[str, Any]] = {}
    if text is None:
        return found
    waiting = [json.loads(text)]
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, list):
            waiting.extend(reversed(entry))
        if not isinstance(entry, dict):
            continue
        config = entry.get("config")
        if isinstance(config, dict) and isinstance(config.get("name"), str):
            kind = entry.get("class_name")
            if kind in CLASSES:
                found[config["name"]] = {**config, "class_name": kind}
                continue
            if kind == "Bidirectional" and isinstance(config.get("layer"), dict):
                inner = config["layer"]
                options = inner.get("config")
                if inner.get("class_name") in CLASSES and isinstance(options, dict):
                    own = {"class_name": inner["class_name"], "merge_mode": config.get("merge_mode"), "both": True}
                    found[config["name"]] = {**options, **own}
                continue
        waiting.extend(reversed(list(entry.values())))
    return found


def _cells(group: Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], list[Array]]]:
    """(path, [kernel, recurrent_kernel, bias if there is one]) of each cell in a group."""
    names = {name.removesuffix(":0"): name for name in group.entries}
    for wanted in (("0", "1", "2"), ("kernel", "recurrent_kernel", "bias")):
        if {*wanted[:2]} <= {*names} and (wanted[0] != "0" or path[-2:] == ("cell", "vars")):
            entries = [group.entries[names[name]] for name in wanted if name in names]
            if isinstance(entries[1], Dataset) and len(entries[1].shape) != 2:  # a convolution
                continue
            at = path[:-2] if wanted[0] == "0" else path
            yield at, [_array(entry, "/".join((*path, name))) for entry, name in zip(entries, wanted, strict=False)]
    for name, entry in group.entries.items():
        if isinstance(entry, Group):
            yield from _cells(entry, (*path, name))


def _array(entry: Group | Dataset | str, name: str) -> Array:
    if isinstance(entry, Dataset) and len(entry.shape) <= 2:
        return entry.read()
    what = entry if isinstance(entry, str) else "it is no array of one or two axes"
    message = f"{name} cannot be read: {what}"
    raise ValueError(message)


def _layers(root: Group, configs: Mapping[str, dict[str, Any]], reverse: bool) -> dict[str, Stored]:
    parts: dict[str, dict[str, list[Array]]] = {}
    for path, arrays in _cells(root):
        name, way = _name(root, path, configs)
        if way in parts.setdefault(name, {}):
            message = f"layer {name!r} is there twice"
            raise ValueError(message)
        parts[name][way] = arrays
    order = [name for name in configs if name in parts] + sorted(name for name in parts if name not in configs)
    found = {}
    for name in order:
        try:
            found[name] = _layer(parts[name], configs.get(name), reverse)
        except (TypeError, ValueError) as error:
            message = f"layer {name!r}: {error}"
            raise ValueError(message) from error
    return found


def _name(root: Group, path: tuple[str, ...], configs: Mapping[str, Any]) -> tuple[str, str]:
    """(Keras's name of the layer, "" or "_reverse") of a cell's path.

    Keras 3: .../layers/<any>[/forward_layer or /backward_layer], the name being an attribute of <any>/vars. Before:
    [model_weights/]<name>/...[/forward_<name> or /backward_<name>]/<cell>, and inside a model in it .../<name>/<cell>.
    """
    way = next((part.split("_")[0] for part in reversed(path) if part.startswith(("forward_", "backward_"))), "")
    suffix = "_reverse" if way == "backward" else ""
    if path[-1] in ("forward_layer", "backward_layer"):
        path = path[:-1]
    at: Group | Dataset | str = root
    for part in (*path, "vars"):
        at = at.entries.get(part, "") if isinstance(at, Group) else ""
    if isinstance(at, Group) and "name" in at.texts:
        return at.texts["name"], suffix
    if path[:1] == ("model_weights",):
        path = path[1:]
    known = [part for part in path if part in configs]
    return (known[-1] if known else path[0] if path else ""), suffix


def _layer(parts: Mapping[str, list[Array]], config: Mapping[str, Any] | None, reverse: bool) -> Stored:
    """The arrays of one or both directions as a layer."""
    kernel, recurrent, *bias = parts.get("") or next(iter(parts.values()))
    if kernel.ndim != 2 or recurrent.ndim != 2 or kernel.shape[1] != recurrent.shape[1]:
        message = f"kernels have shapes {kernel.shape} and {recurrent.shape}; they must be (I, G*H) and (H, G*H)"
        raise ValueError(message)
    hidden, columns = recurrent.shape
    cell = GATES.get(columns // hidden) if columns % hidden == 0 else None
    given = {**USUAL, **(config or {})}
    if cell is None or ("class_name" in given and CLASSES[given["class_name"]] != cell):
        message = (
            f"kernels have shapes {kernel.shape} and {recurrent.shape}, which no {given.get('class_name', 'layer')} has"
        )
        raise ValueError(message)
    both = len(parts) == 2
    if ({*parts} != {"", "_reverse"} and {*parts} != {""}) or given.get("both", both) != both:
        message = "it lacks a direction"
        raise ValueError(message)
    if both and given.get("merge_mode", "concat") != "concat":
        message = (
            f"merge_mode is {given['merge_mode']!r}; it must be 'concat', which is what layers of both directions do"
        )
        raise ValueError(message)
    if given["go_backwards"] and not both and not reverse:
        message = (
            "go_backwards is set: it runs backwards only, which no layer does; reverse=True gives one to be turned"
        )
        raise ValueError(message)
    options = _options(cell, given)
    if cell == "gru":
        options["reset_after"] = bias[0].ndim == 2 if bias else bool(given["reset_after"])
    wide = np.float64 if kernel.dtype == np.float64 else np.float32
    options |= {
        "input_size": kernel.shape[0], "hidden_size": hidden, "bias": bool(bias), "bidirectional": both, "dtype": wide,
    }  # fmt: skip
    weights: dict[str, Array] = {}
    for suffix, arrays in parts.items():
        weights |= _torch(cell, arrays, suffix, [a.shape for a in (kernel, recurrent, *bias)])
    return Stored(cell, options, weights)


def _options(cell: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options by the activations that Keras names."""
    inner, gates = (_activation(name, given) for name in ("activation", "recurrent_activation"))
    functions = {"rnn": [inner], "gru": [gates, inner], "lstm": [gates, inner, inner]}[cell]
    usual = {"rnn": ["Tanh"], "gru": ["Sigmoid", "Tanh"], "lstm": ["Sigmoid", "Tanh", "Tanh"]}[cell]
    return {} if functions == usual else {"activations": functions}


def _activation(name: str, given: Mapping[str, Any]) -> Any:
    value = given[name]
    known = ACTIVATIONS.get(value) if isinstance(value, str) else None
    if value == "hard_sigmoid" and "old" in given:
        return OLD_HARD_SIGMOID
    if known is None:
        message = f"{name} is {value!r}; it must be one of {', '.join(map(repr, ACTIVATIONS))}"
        raise ValueError(message)
    return known


def _torch(cell: str, arrays: list[Array], suffix: str, shapes: list[tuple[int, ...]]) -> dict[str, Array]:
    """One direction's arrays by PyTorch's names, in its shapes and gate order."""
    if [a.shape for a in arrays] != shapes:
        message = f"its directions have arrays of shapes {[a.shape for a in arrays]} and {shapes}"
        raise ValueError(message)
    found = {
        f"{name}_l0{suffix}": reorder(array, cell, "keras", "torch", axis=1).T
        for name, array in zip(("weight_ih", "weight_hh"), arrays, strict=False)
    }
    if len(arrays) == 3:
        bias = arrays[2]
        halves = list(bias) if bias.ndim == 2 and len(bias) == 2 else [bias, np.zeros_like(bias)]
        for name, half in zip(("bias_ih", "bias_hh"), halves, strict=True):
            found[f"{name}_l0{suffix}"] = reorder(half, cell, "keras", "torch")
    return found
