"""Layers from other people's files: PyTorch's through safetensors, Keras's, ONNX; whole, damaged and hostile ones."""

from __future__ import annotations

import io
import json
import os
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn
import fastrnn.weights
from fastrnn._gates import reorder

CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-6}
RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 6, 3)).astype(np.float32)


# -- kinds of files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.bin", "model.ckpt", "model.pkl"])
def test_pickles_are_refused_unopened(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="runs code when it is read"):
        fastrnn.weights.layers(tmp_path / name)


def test_other_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must end in"):
        fastrnn.weights.layers(tmp_path / "model.txt")


@pytest.mark.parametrize(("suffix", "package"), [("safetensors", "safetensors"), ("onnx", "onnx")])
def test_packages_are_extras(suffix: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package or name.startswith("fastrnn.onnx")]:
        monkeypatch.delitem(sys.modules, name)  # imported by an earlier test
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match="pip install"):
        fastrnn.weights.layers(tmp_path / f"model.{suffix}")


@pytest.mark.parametrize(("suffix", "package"), [("safetensors", "safetensors"), ("keras", "numpy"), ("h5", "numpy")])
def test_absent_and_empty_files(suffix: str, package: str, tmp_path: Path) -> None:
    pytest.importorskip(package)
    path = tmp_path / f"model.{suffix}"
    with pytest.raises(FileNotFoundError):
        fastrnn.weights.layers(path)
    for content in (b"", b"\x00" * 64, b"PK\x05\x06" + bytes(18), b"\x89HDF\r\n\x1a\n" + bytes(100)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"damaged|no recurrent layers"):
            fastrnn.weights.layers(path)


def test_onnx(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    import fastrnn.onnx

    layer = fastrnn.GRU(3, 4, 2, batch_first=True, rng=0)
    onnx.save(fastrnn.onnx.export(layer), tmp_path / "model.onnx")
    found = fastrnn.weights.layers(tmp_path / "model.onnx", batch_first=True)
    assert [*found] == ["0", "1"]
    np.testing.assert_allclose(found["1"](found["0"](X)[0])[0], layer(X)[0], **CLOSE)


# -- PyTorch -----------------------------------------------------------------------------------------------------------


def test_state_dicts(tmp_path: Path) -> None:
    torch, safe = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch")

    class Model(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.encoder = torch.nn.LSTM(3, 4, 2, bidirectional=True)
            self.head = torch.nn.Linear(8, 2)
            self.deep = torch.nn.ModuleList([torch.nn.GRU(3, 5, bias=False), torch.nn.RNN(3, 5, nonlinearity="relu")])
            self.projected = torch.nn.LSTM(3, 6, proj_size=2, dtype=torch.float64)

    model, path = Model(), tmp_path / "model.safetensors"
    safe.save_file(model.state_dict(), path)
    found = fastrnn.weights.layers(path, batch_first=False, nonlinearity="relu")
    assert sorted(found) == ["deep.0", "deep.1", "encoder", "projected"]
    for name, layer in found.items():
        module = model.get_submodule(name)
        x = torch.tensor(X, dtype=next(module.parameters()).dtype)
        np.testing.assert_allclose(layer(x.numpy())[0], module(x)[0].detach().numpy(), **CLOSE)
    safe.save_file(model.encoder.state_dict(), path)
    assert [*fastrnn.weights.layers(path)] == [""]
    safe.save_file(model.head.state_dict(), path)
    with pytest.raises(ValueError, match="no recurrent layers"):
        fastrnn.weights.layers(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight_hh_l0": None}, "missing or are no matrices"),
        ({"bias_hh_l0": None}, "missing: bias_hh_l0"),
        ({"weight_ih_l0": np.zeros((17, 3), np.float32)}, "which no LSTM, GRU or RNN has"),
        ({"weight_ih_l0": np.zeros((8, 3), np.float32)}, "which no LSTM, GRU or RNN has"),
        ({"weight_ih_l0": np.zeros((16, 3), np.int32)}, "weight_ih_l0 has dtype int32"),
        ({"weight_hh_l0_reverse": np.zeros((16, 4), np.float32)}, "not the weights of"),
        ({"weight_ih_l2": np.zeros((16, 4), np.float32)}, "not the weights of"),
        ({"weight_hh_l0": np.zeros((0, 0), np.float32)}, "no matrices"),
    ],
)
def test_state_dicts_that_are_no_layer(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    safe = pytest.importorskip("safetensors.numpy")
    arrays = {
        name: array for name, array in ({**fastrnn.LSTM(3, 4).state_dict(), **change}).items() if array is not None
    }
    safe.save_file(arrays, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=message):
        fastrnn.weights.layers(tmp_path / "model.safetensors")


# -- Keras -------------------------------------------------------------------------------------------------------------

CELLS = {"LSTM": ("lstm", 4), "GRU": ("gru", 3), "SimpleRNN": ("rnn", 1)}


def arrays_of(layer: Any, way: str = "") -> list[Any]:
    """A layer's arrays as Keras keeps them."""
    cell = layer._spec.cell
    w = {n: reorder(layer.weights[f"{n}_l0{way}"], cell, "torch", "keras") for n in ("weight_ih", "weight_hh")}
    b = [reorder(layer.weights[f"{n}_l0{way}"], cell, "torch", "keras") for n in ("bias_ih", "bias_hh")]
    bias = np.stack(b) if cell == "gru" and layer.reset_after else b[0] + b[1]
    return [w["weight_ih"].T, w["weight_hh"].T, bias]


def keras_file(path: Path, layers: dict[str, Any], options: dict[str, Any] | None = None, old: bool = False) -> Path:
    """A file as Keras writes it: .keras, .weights.h5 or (old) the .h5 with a model inside."""
    h5py = pytest.importorskip("h5py")
    text, data = json.dumps({"config": {"name": "model", "layers": configs(layers, options or {})}}), io.BytesIO()
    with h5py.File(data, "w") as store:
        if old:
            store.attrs["model_config"], store.attrs["keras_version"] = text, "2.15.0"
        for k, (name, layer) in enumerate(layers.items()):
            where = store.create_group(f"model_weights/{name}/{name}" if old else f"layers/{name}_{k}")
            if not old:
                where.create_group("vars").attrs["name"] = name
            for way, folder in (("", "forward"), ("_reverse", "backward"))[: 1 + layer.bidirectional]:
                inner = f"{folder}_{name if old else 'layer'}/" if layer.bidirectional else ""
                cell = where.create_group(inner + ("cell" if old else "cell/vars"))
                names = ("kernel:0", "recurrent_kernel:0", "bias:0") if old else "012"
                for name_, array in zip(names, arrays_of(layer, way), strict=True):
                    cell[name_] = array
    if path.suffix == ".h5":
        path.write_bytes(data.getvalue())
        return path
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", text)
        archive.writestr("model.weights.h5", data.getvalue())
    return path


def configs(layers: dict[str, Any], options: dict[str, Any]) -> list[Any]:
    found = []
    for name, layer in layers.items():
        kind = next(kind for kind, (cell, _) in CELLS.items() if cell == layer._spec.cell)
        plain = {"class_name": kind, "config": {"name": name, "units": layer.hidden_size, **options}}
        both = {"class_name": "Bidirectional", "config": {"name": name, "layer": plain, "merge_mode": "concat"}}
        found.append(both if layer.bidirectional else plain)
    return found


def examples() -> dict[str, Any]:
    return {
        "first": fastrnn.LSTM(3, 4, batch_first=True, rng=1),
        "both": fastrnn.GRU(4, 5, bidirectional=True, batch_first=True, rng=2),
        "before": fastrnn.GRU(10, 3, reset_after=False, batch_first=True, rng=3),
        "last": fastrnn.RNN(3, 2, batch_first=True, rng=4),
    }


@pytest.mark.parametrize(("name", "old"), [("m.keras", False), ("m.weights.h5", False), ("m.h5", True)])
def test_keras_files(name: str, old: bool, tmp_path: Path) -> None:
    layers = examples()
    found = fastrnn.weights.layers(keras_file(tmp_path / name, layers, old=old))
    assert {*found} == {*layers}
    x = X
    for name_, layer in layers.items():
        assert type(found[name_]) is type(layer)
        np.testing.assert_allclose(found[name_](x)[0], layer(x)[0], **CLOSE)
        x = layer(x)[0]
    swapped = fastrnn.weights.layers(tmp_path / name, batch_first=False)["first"]
    np.testing.assert_allclose(swapped(X.swapaxes(0, 1))[0].swapaxes(0, 1), layers["first"](X)[0], **CLOSE)


@pytest.mark.parametrize(("old", "alpha"), [(False, 1 / 6), (True, 0.2)])
def test_hard_sigmoid_is_not_what_it_was(old: bool, alpha: float, tmp_path: Path) -> None:
    layers = {"one": fastrnn.LSTM(3, 4, batch_first=True, rng=1)}
    path = keras_file(tmp_path / ("m.h5" if old else "m.keras"), layers, {"recurrent_activation": "hard_sigmoid"}, old)
    (found,) = fastrnn.weights.layers(path).values()
    assert found._spec.functions(0)[0] == ("HardSigmoid", alpha, 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "swish"}, "activation is 'swish'"),
        ({"activation": {"class_name": "X"}}, "activation is"),
        ({"go_backwards": True}, "backwards only"),
        ({"class_name": 3}, "m.keras"),
    ],
)
def test_keras_options_that_no_layer_has(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = keras_file(tmp_path / "m.keras", {"one": fastrnn.LSTM(3, 4, rng=1)}, options)
    if "class_name" in options:
        with zipfile.ZipFile(path) as archive:
            data = archive.read("model.weights.h5")
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", "[" * 100_000)
            archive.writestr("model.weights.h5", data)
    with pytest.raises(ValueError, match=message):
        fastrnn.weights.layers(path)


def test_weights_alone_with_the_config_of_their_model(tmp_path: Path) -> None:
    layers = {"one": fastrnn.LSTM(3, 4, batch_first=True, rng=1, activations=["Sigmoid", "Relu", "Relu"])}
    path = keras_file(tmp_path / "m.weights.h5", layers)
    config = json.dumps({"config": {"layers": configs(layers, {"activation": "relu"})}})
    (found,) = fastrnn.weights.layers(path, config=config).values()
    np.testing.assert_allclose(found(X)[0], layers["one"](X)[0], **CLOSE)
    (plain,) = fastrnn.weights.layers(path).values()
    assert not plain._spec.activations
    with pytest.raises(ValueError, match="Expecting"):
        fastrnn.weights.layers(path, config="{")
    with pytest.raises(ValueError, match="config of its own"):
        fastrnn.weights.layers(keras_file(tmp_path / "m.h5", layers, old=True), config=config)
    for name, wrong in (("m.keras", config), ("m.weights.h5", {})):
        with pytest.raises(ValueError, match="config is a"):
            fastrnn.weights.layers(tmp_path / name, config=wrong)  # type: ignore[arg-type]


def test_layers_that_run_backwards_only(tmp_path: Path) -> None:
    layers = {"one": fastrnn.GRU(3, 4, batch_first=True, rng=1)}
    path = keras_file(tmp_path / "m.keras", layers, {"go_backwards": True})
    (found,) = fastrnn.weights.layers(path, reverse=True).values()
    x = fastrnn.sequences.reverse(X, batch_first=True)
    np.testing.assert_allclose(found(x)[0], layers["one"](X[:, ::-1])[0], **CLOSE)


Change = Callable[[Any, Any], None]


def replaced(store: Any, make: Callable[[str], Any]) -> None:
    name = "layers/one_0/cell/vars/0"
    del store[name]
    make(name)


def huge(store: Any, h5py: Any) -> None:
    replaced(store, lambda name: store.create_dataset(name, (1 << 40, 16), "f4", chunks=(1, 16)))


def compressed(store: Any, h5py: Any) -> None:
    zeros = np.zeros((100_000, 16), np.float32)
    replaced(store, lambda name: store.create_dataset(name, data=zeros, compression="gzip"))


def elsewhere(store: Any, h5py: Any) -> None:
    replaced(store, lambda name: store.create_dataset(name, (3, 16), "f4", external=[("/etc/hostname", 0, 192)]))


def virtual(store: Any, h5py: Any) -> None:
    layout = h5py.VirtualLayout((3, 16), "f4")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", (3, 16))
    replaced(store, lambda name: store.create_virtual_dataset(name, layout))


def external_link(store: Any, h5py: Any) -> None:
    store["layers/one_0/more"] = h5py.ExternalLink("/etc/hostname", "/")


def soft_link(store: Any, h5py: Any) -> None:
    store["layers/one_0/more"] = h5py.SoftLink("/")


def loop(store: Any, h5py: Any) -> None:
    store["layers/one_0/more"] = store["layers"]


def text(store: Any, h5py: Any) -> None:
    replaced(store, lambda name: store.create_dataset(name, data=[[b"a"] * 16] * 3))


def integers(store: Any, h5py: Any) -> None:
    replaced(store, lambda name: store.create_dataset(name, data=np.zeros((3, 16), int)))


def misshapen(store: Any, h5py: Any) -> None:
    replaced(store, lambda name: store.create_dataset(name, data=np.zeros((3, 15), np.float32)))


def folder(store: Any, h5py: Any) -> None:
    replaced(store, store.create_group)


@pytest.mark.parametrize(
    "change",
    [
        huge, compressed, elsewhere, virtual, external_link, soft_link, loop, text, integers, misshapen, folder,
    ],
    ids=lambda change: change.__name__,
)  # fmt: skip
def test_hostile_hdf5(change: Change, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = keras_file(tmp_path / "m.weights.h5", {"one": fastrnn.LSTM(3, 4, rng=1)})
    with h5py.File(path, "a") as store:
        change(store, h5py)
    with pytest.raises(ValueError, match=r"m\.weights\.h5 is damaged"):
        fastrnn.weights.layers(path)


@pytest.mark.parametrize("how", ["compressed", "twice", "missing", "traversal"])
def test_hostile_archives(how: str, tmp_path: Path) -> None:
    path = keras_file(tmp_path / "m.keras", {"one": fastrnn.LSTM(3, 4, rng=1)})
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")  # zipfile's own, of names that are there twice
        for name, data in parts.items():
            if how == "missing" and name == "model.weights.h5":
                continue
            if how == "compressed" and name == "config.json":
                archive.writestr(name, b" " * 10_000_000 + data, zipfile.ZIP_DEFLATED)
                continue
            archive.writestr(name, data)
            if how == "twice":
                archive.writestr(name, data)
        if how == "traversal":
            archive.writestr("../../outside", b"x")
    if how == "traversal":
        assert [*fastrnn.weights.layers(path)] == ["one"], "what is not asked for is not looked at"
        assert not (tmp_path.parent.parent / "outside").exists()
        return
    with pytest.raises(ValueError, match="damaged"):
        fastrnn.weights.layers(path)


@pytest.mark.parametrize("name", ["m.keras", "m.weights.h5", "m.h5", "m.safetensors"])
def test_damage_anywhere_is_no_other_error(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    layers = {"one": fastrnn.LSTM(3, 4, rng=1), "two": fastrnn.GRU(4, 3, bidirectional=True, rng=2)}
    if path.suffix == ".safetensors":
        pytest.importorskip("safetensors.numpy").save_file(fastrnn.LSTM(3, 4).state_dict(), path)
    else:
        keras_file(path, layers, old=name == "m.h5")
    good, rng = path.read_bytes(), np.random.default_rng(0)
    cuts = [good[:k] for k in range(0, len(good), max(1, len(good) // 100))]
    flips = []
    for _ in range(200):
        bad = bytearray(good)
        bad[rng.integers(len(bad))] ^= 1 << int(rng.integers(8))
        flips.append(bytes(bad))
    for bad_file in (*cuts, *flips):
        path.write_bytes(bad_file)
        try:
            fastrnn.weights.layers(path)
        except ValueError:
            continue


@pytest.fixture(scope="module")
def keras() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("keras")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
def test_keras_itself(name: str, keras: Any, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    kinds = keras.layers
    model = keras.Sequential(
        [
            keras.Input((None, 3)),
            kinds.LSTM(4, return_sequences=True, recurrent_activation="hard_sigmoid", activation="softsign"),
            kinds.Bidirectional(kinds.LSTM(3, return_sequences=True)),
            keras.Sequential([keras.Input((None, 6)), kinds.GRU(5, return_sequences=True)]),
            kinds.GRU(4, reset_after=False, use_bias=False, return_sequences=True),
            kinds.SimpleRNN(2, activation="relu", return_sequences=True),
            kinds.Dense(2),
        ]
    )
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(0.4 * rng.standard_normal(weight.shape))
    model.save(tmp_path / name)
    found = fastrnn.weights.layers(tmp_path / name)
    assert len(found) == 5
    x, checked = X, 0
    for layer in model.layers:
        out = keras.ops.convert_to_numpy(layer(x))
        inner = layer.layers[-1] if isinstance(layer, keras.Sequential) else layer
        if inner.name in found:
            np.testing.assert_allclose(found[inner.name](x)[0], out, **CLOSE)
            checked += 1
        x = out
    assert checked == 5
