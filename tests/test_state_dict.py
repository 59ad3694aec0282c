"""Weights: names, views, the ways to change them, copies and files."""

from __future__ import annotations

import contextlib
import copy
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn
from conftest import make_layer
from problems import CELLS

X = np.linspace(-1, 1, 4 * 2 * 3).reshape(4, 2, 3)


@pytest.fixture
def lstm() -> fastrnn.LSTM:
    return fastrnn.LSTM(3, 5, 2, bidirectional=True, rng=3)


def same_weights(a: Any, b: Any) -> bool:
    return list(a.state_dict()) == list(b.state_dict()) and np.array_equal(a.weights.flat, b.weights.flat)


# -- names and values --------------------------------------------------------------------------------------------------


def test_names_and_shapes_are_pytorchs(lstm: fastrnn.LSTM) -> None:
    shapes = {name: array.shape for name, array in lstm.state_dict().items()}
    assert shapes == {
        f"{kind}_l{layer}{suffix}": shape
        for layer, width in ((0, 3), (1, 10))
        for suffix in ("", "_reverse")
        for kind, shape in (("weight_ih", (20, width)), ("weight_hh", (20, 5)), ("bias_ih", (20,)), ("bias_hh", (20,)))
    }
    assert list(shapes)[:5] == ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "weight_ih_l0_reverse"]
    assert list(fastrnn.GRU(3, 5, bias=False).state_dict()) == ["weight_ih_l0", "weight_hh_l0"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_initial_weights(dtype: Any) -> None:
    layer = fastrnn.GRU(20, 16, rng=5, dtype=dtype)
    drawn = np.random.default_rng(5).uniform(-0.25, 0.25, layer.weights.flat.size)
    assert np.array_equal(layer.weights.flat, drawn.astype(dtype))
    assert np.array_equal(layer.weight_ih_l0.ravel(), drawn[: 48 * 20].astype(dtype))
    assert np.abs(layer.weights.flat).max() > 0.24
    assert same_weights(layer, fastrnn.GRU(20, 16, rng=np.random.default_rng(5), dtype=dtype))
    assert not same_weights(fastrnn.GRU(20, 16), fastrnn.GRU(20, 16))


def test_weights_are_views_of_one_buffer(lstm: fastrnn.LSTM) -> None:
    start = 0
    for name, array in lstm.weights.items():
        assert array.base is not None
        assert np.shares_memory(array, lstm.weights.flat[start : start + array.size])
        assert getattr(lstm, name) is array
        assert name in dir(lstm)
        start += array.size
    assert start == lstm.weights.flat.size
    assert not lstm.weights.flat.flags.writeable
    with pytest.raises(ValueError, match="cannot set WRITEABLE"):
        lstm.weight_hh_l0.flags.writeable = True
    with pytest.raises(TypeError):
        lstm.weights["weight_hh_l0"] = 0  # type: ignore[index]


# -- changes -----------------------------------------------------------------------------------------------------------


def test_edit_commits_on_leaving(lstm: fastrnn.LSTM) -> None:
    before, taken = lstm(X)[0], lstm.weight_hh_l0
    old = taken.copy()
    with lstm.edit() as weights:
        weights["weight_hh_l0"] *= 2
        weights["bias_ih_l0"] = np.ones(20, np.float64)
        weights.flat += 1
        kept = weights["bias_hh_l1"]
        assert np.array_equal(lstm(X)[0], before), "still the old ones inside the block"
    assert np.allclose(lstm.weight_hh_l0, old * 2 + 1)
    assert np.array_equal(lstm.bias_ih_l0, np.full(20, 2))
    assert np.array_equal(taken, old), "an array taken before keeps its values"
    after = lstm(X)[0]
    kept[...] = 100
    assert np.array_equal(lstm(X)[0], after), "the scratch copy is not the layer"


def test_edit_discards_on_an_exception(lstm: fastrnn.LSTM) -> None:
    before = lstm.weights.flat.copy()
    with pytest.raises(KeyError, match="weight_hh_l9"), lstm.edit() as weights:  # noqa: PT012
        weights["weight_hh_l0"] += 1
        weights["weight_hh_l9"] = 0
    with pytest.raises(ValueError, match="weight_hh_l0 has shape"), lstm.edit() as weights:  # noqa: PT012
        weights.flat[:] = 0
        weights["weight_hh_l0"] = np.zeros(3)
    with pytest.raises(TypeError, match="removed"), lstm.edit() as weights:
        del weights["weight_hh_l0"]
    assert np.array_equal(lstm.weights.flat, before)


def test_edits_that_cross_are_refused(lstm: fastrnn.LSTM) -> None:
    with pytest.raises(RuntimeError, match="changed by something else"), lstm.edit() as weights:  # noqa: PT012
        weights.flat[:] = 7
        lstm.bias_hh_l0 = np.ones(20)
    assert np.array_equal(lstm.bias_hh_l0, np.ones(20))
    assert not (lstm.weight_hh_l0 == 7).any()


def test_assignment(lstm: fastrnn.LSTM) -> None:
    lstm.weight_hh_l0 = np.full((20, 5), 0.5)
    assert np.array_equal(lstm.weight_hh_l0, np.full((20, 5), np.float32(0.5)))
    for name, value, error in (
        ("weight_hh_l0", np.zeros((5, 20)), ValueError),
        ("bias_ih_l0", 1.0, ValueError),
        ("bias_ih_l0", "zero", TypeError),
        ("weight_hh_l2", np.zeros((20, 5)), AttributeError),
        ("hidden_size", 6, AttributeError),
        ("weigth_hh_l0", 0, AttributeError),
    ):
        before = lstm.weights.flat
        with pytest.raises(error, match=name):
            setattr(lstm, name, value)
        assert lstm.weights.flat is before
    assert not hasattr(lstm, "weight_hh_l2")


def test_load_state_dict_lists_all_that_is_wrong(lstm: fastrnn.LSTM) -> None:
    weights = lstm.state_dict()
    weights["bias"] = weights.pop("bias_hh_l1")
    weights["weight_ih_l0"] = weights["weight_ih_l0"].T
    before = lstm.weights.flat
    with pytest.raises(ValueError, match="missing: bias_hh_l1") as caught:
        lstm.load_state_dict(weights)
    assert "unknown: bias" in str(caught.value)
    assert "weight_ih_l0 has shape (3, 20); it must be (20, 3)" in str(caught.value)
    with pytest.raises(TypeError, match="mapping"):
        lstm.load_state_dict(lstm.weights.flat)  # type: ignore[arg-type]
    assert lstm.weights.flat is before


def test_load_state_dict_converts(lstm: fastrnn.LSTM) -> None:
    wide = {name: array.astype(np.float64) for name, array in lstm.state_dict().items()}
    wide["bias_ih_l0"] = list(wide["bias_ih_l0"])
    other = fastrnn.LSTM(3, 5, 2, bidirectional=True)
    other.load_state_dict(wide)
    assert same_weights(other, lstm)
    assert not np.shares_memory(other.weights.flat, lstm.weights.flat)


# -- copies and files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", list(CELLS))
@pytest.mark.parametrize("how", ["pickle", "deepcopy", "copy", "npz", "safetensors"])
def test_copies(cell: str, how: str, tmp_path: Path) -> None:
    layer = make_layer(cell, 3, 5, 2, bidirectional=True, batch_first=True, dropout=0.25, dtype=np.float64)
    if how in ("pickle", "deepcopy", "copy"):
        makers = {"pickle": lambda it: pickle.loads(pickle.dumps(it)), "deepcopy": copy.deepcopy, "copy": copy.copy}
        other = makers[how](layer)
    else:
        pytest.importorskip("safetensors" if how == "safetensors" else "numpy")
        layer.save(tmp_path / f"layer.{how}")
        other = fastrnn.load(str(tmp_path / f"layer.{how}"))
    assert type(other) is type(layer)
    assert repr(other) == repr(layer)
    assert same_weights(other, layer)
    assert np.array_equal(other(X)[0], layer(X)[0])
    if how in ("pickle", "deepcopy"):
        assert np.array_equal(other.forward(X)[0], layer.forward(X)[0]), "the random generator goes along"
    tape = layer.forward(X)[2]
    with pytest.raises(ValueError, match="tape"):
        other.backward(tape)
    with other.edit() as weights:
        weights.flat[:] = 0
    assert layer.weights.flat.any()


def test_pickling_a_subclass() -> None:
    made = Named(3, 5, rng=1)
    made.label = "mine"
    other = pickle.loads(pickle.dumps(made))
    assert (type(other), other.label) == (Named, "mine")
    assert same_weights(made, other)


class Named(fastrnn.GRU):
    label = ""


def test_saving_replaces_the_file_at_once(lstm: fastrnn.LSTM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.npz"
    path.touch()
    mode = path.stat().st_mode
    lstm.save(path)
    assert path.stat().st_mode == mode, "as open() makes it"
    good = path.read_bytes()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lstm.save(path)
    assert path.read_bytes() == good
    assert list(tmp_path.iterdir()) == [path]


def test_files_need_no_pickle(lstm: fastrnn.LSTM, tmp_path: Path) -> None:
    lstm.save(tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz", allow_pickle=False) as archive:
        assert {*archive.files} == {"fastrnn", *lstm.state_dict()}
        assert np.array_equal(archive["weight_hh_l0"], lstm.weight_hh_l0)


def test_loading_is_strict(lstm: fastrnn.LSTM, tmp_path: Path) -> None:
    for path in ("model", "model.pt"):
        with pytest.raises(ValueError, match=r"\.npz or \.safetensors"):
            lstm.save(tmp_path / path)
        with pytest.raises(ValueError, match=r"\.npz or \.safetensors"):
            fastrnn.load(tmp_path / path)
    with pytest.raises(FileNotFoundError):
        fastrnn.load(tmp_path / "model.npz")
    (tmp_path / "model.npz").write_bytes(b"PK no archive")
    with pytest.raises(ValueError, match="damaged"):
        fastrnn.load(tmp_path / "model.npz")
    np.savez(tmp_path / "foreign.npz", **lstm.state_dict())
    with pytest.raises(ValueError, match="load_state_dict"):
        fastrnn.load(tmp_path / "foreign.npz")
    np.savez(tmp_path / "object.npz", fastrnn=np.array({"a": 1}, dtype=object))
    with pytest.raises(ValueError, match="damaged"):
        fastrnn.load(tmp_path / "object.npz")


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ('"hidden_size": 5', '"hidden_size": 4', "weight_hh_l0 has shape"),
        ('"hidden_size": 5', '"hidden_size": -5', "hidden_size"),
        ('"num_layers": 2', '"num_layers": 2000000000', "num_layers"),
        ('"num_layers": 2', '"num_layers": 20000', "stored weights"),
        ('"bias": true', '"bias": 1', "bias"),
        ('"bias": true, ', "", "bias"),
        ('"bias": true', '"bias": true, "depth": 3', "depth"),
        ('"layer": "LSTM"', '"layer": "GRU"', "reset_after"),
        ('"layer": "LSTM"', '"layer": "Linear"', "Linear"),
        ('"format": 1', '"format": 2', "format 2"),
        ("{", "", "damaged"),
    ],
)
def test_changed_options(lstm: fastrnn.LSTM, tmp_path: Path, old: str, new: str, match: str) -> None:
    lstm.save(tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz") as archive:
        contents = dict(archive)
    text = str(contents.pop("fastrnn"))
    assert old in text
    np.savez(tmp_path / "model.npz", fastrnn=np.array(text.replace(old, new, 1)), **contents)
    with pytest.raises(ValueError, match=match):
        fastrnn.load(tmp_path / "model.npz")


def test_safetensors_is_optional(lstm: fastrnn.LSTM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    for call in (lstm.save, fastrnn.load):
        with pytest.raises(ImportError, match="pip install safetensors"):
            call(tmp_path / "model.safetensors")


class Prepared(fastrnn.LSTM):
    def __init__(self) -> None:
        self.label = "before"
        super().__init__(3, 5, rng=0)
        self.weight_hh_l0 = np.zeros((20, 5))


def test_a_subclass(tmp_path: Path) -> None:
    layer = Prepared()
    assert layer.label == copy.deepcopy(layer).label == "before"
    layer.save(tmp_path / "model.npz")
    again = fastrnn.load(tmp_path / "model.npz")
    assert type(again) is fastrnn.LSTM
    assert same_weights(layer, again)


def entry(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def header(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        header((10**18,)),
        header((2**40, 2**40)),
        header((0, 10**9)),
        header((20, 3)) + bytes(236),
        header((20, 3)) + bytes(244),
        b"no array",
        entry(np.array([print], dtype=object)),
        entry(np.zeros((20, 3), complex)),
        entry(np.zeros((20, 3), "U3")),
        entry(np.zeros((3, 20))),
    ],
    ids=["huge", "overflow", "none", "short", "long", "bytes", "object", "complex", "text", "shape"],
)
def test_a_hostile_entry(content: bytes, lstm: fastrnn.LSTM, tmp_path: Path) -> None:
    lstm.save(tmp_path / "model.npz")
    with zipfile.ZipFile(tmp_path / "model.npz") as good, zipfile.ZipFile(tmp_path / "bad.npz", "w") as bad:
        for name in good.namelist():
            bad.writestr(name, content if name == "weight_ih_l0.npy" else good.read(name))
    with pytest.raises(ValueError, match=r"damaged|wrong|must be"):
        fastrnn.load(tmp_path / "bad.npz")


def test_a_small_file_that_unpacks_to_a_large_one(lstm: fastrnn.LSTM, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.npz", "w", zipfile.ZIP_DEFLATED) as bad:
        bad.writestr("fastrnn.npy", entry(np.array("{}")))
        bad.writestr("weight_ih_l0.npy", header((10**6,)) + bytes(4 * 10**6))
    with pytest.raises(ValueError, match="compressed"):
        fastrnn.load(tmp_path / "bad.npz")


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_damage_anywhere_is_no_other_error(suffix: str, lstm: fastrnn.LSTM, tmp_path: Path) -> None:
    path = tmp_path / f"model.{suffix}"
    if suffix == "safetensors":
        pytest.importorskip("safetensors")
    lstm.save(path)
    good, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        bad = bytearray(good)
        where = rng.integers(len(good) - 400, len(good)) if suffix == "npz" else rng.integers(0, 400)
        bad[where] ^= 1 << int(rng.integers(8))
        path.write_bytes(bad if rng.random() < 0.5 else good[:where])
        with contextlib.suppress(ValueError):
            fastrnn.load(path)


def test_a_folder_that_is_not_there_is_told_by_the_path_that_was_given(lstm: fastrnn.LSTM, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere/model\.npz'$"):
        lstm.save(tmp_path / "nowhere" / "model.npz")


@pytest.mark.parametrize("how", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copied_gradients_are_still_views_of_one_buffer(how: Any, lstm: fastrnn.LSTM) -> None:
    y, _, tape = lstm.forward(X)
    grads = lstm.backward(tape, y)
    copied = how(grads)
    assert np.array_equal(copied.flat, grads.flat)
    assert copied.flat is copied.weights.flat
    copied.flat *= 0
    assert not any(gradient.any() for gradient in copied.weights.values())
    assert not copied.weights["weight_ih_l0"].flags.writeable
    assert grads.flat.any()
    assert not how(lstm.weights).flat.flags.writeable
