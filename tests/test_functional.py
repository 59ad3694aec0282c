"""Packed weights and what runs on them: when layers pack, on which backend, and the functions without layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastrnn
from conftest import make_layer
from fastrnn import backends, functional
from fastrnn._spec import Spec
from problems import CELLS

T, N, I, H = 5, 3, 4, 6  # noqa: E741 - the letters of the shapes
LENGTHS = [3, 5, 0]
# Not Numba, which compiles for a minute when its cache is empty: the matrix of backends has it.
QUICK = [name for name in backends.available() if name != "numba"]


def array(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


X = array(T, N, I)


# -- packed weights ----------------------------------------------------------------------------------------------------


class Counted:
    """The backend in force, counting how often weights are packed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        module = backends.current()
        pack = module.pack

        def counted(spec: Spec, weights: Any) -> Any:
            self.count += 1
            return pack(spec, weights)

        monkeypatch.setattr(module, "pack", counted)


def test_an_unchanged_layer_packs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    layer = make_layer("lstm", I, H)
    assert counted.count == 0
    stream = layer.stream(batch_size=N)
    for _ in range(3):
        layer(X)
        layer.backward(layer.forward(X)[2])
        stream.step(X[0])
    assert counted.count == 1
    layer.bias_hh_l0 = np.zeros(4 * H)
    assert counted.count == 1
    for _ in range(2):
        stream.step(X[0])
        layer(X)
    assert counted.count == 2


def test_each_backend_has_its_own_packed_weights() -> None:
    layer = make_layer("lstm", I, H)
    want = layer(X)[0]
    for name in QUICK:
        with fastrnn.backend(name):
            np.testing.assert_allclose(layer(X)[0], want, atol=1e-5)
            assert layer._bind().backend == name
            _, _, tape = layer.forward(X)
        assert tape.packed.backend == name
        assert layer.backward(tape).x.shape == X.shape, "backward runs where forward ran"
        with fastrnn.backend("numpy"):
            _, _, tape = layer.forward(X, tape=tape)  # memory of another backend is not taken
        layer.backward(tape)


@pytest.mark.skipif("cpp" not in backends.available(), reason="no compiled backend")
def test_each_instruction_set_has_its_own_packed_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    core: Any = backends.load("cpp")
    with fastrnn.backend("cpp"):
        counted = Counted(monkeypatch)
        layer = make_layer("lstm", I, H)
        stream = layer.stream(batch_size=N)
        runnable = core.config()["isas_runnable"]
        try:
            for isa in (*runnable, *runnable):
                core.force_isa(isa)
                layer(X)
                stream.step(X[0])
                y, _, tape = layer.forward(X)
                assert tape.packed.isa == isa
                core.force_isa(None)
                layer.backward(tape, y)
        finally:
            core.force_isa(None)
        assert counted.count == len(runnable)


# -- functions ---------------------------------------------------------------------------------------------------------


@pytest.mark.smoke
@pytest.mark.parametrize("cell", list(CELLS))
def test_functions_of_weights(cell: str) -> None:
    own = {key: value for key, value in CELLS[cell].items() if key != "cell"}
    layer = make_layer(cell, I, H, 2, bidirectional=True)
    name = layer._cell
    h = array(4, N, H, seed=1)
    h = (h, -h) if cell == "lstm" else h
    y, last = getattr(functional, name)(X, layer.state_dict(), h, lengths=LENGTHS, **own)
    want, want_last = layer(X, h, lengths=LENGTHS)
    assert np.array_equal(y, want)
    assert np.array_equal(last, want_last)
    wide = {key: value.astype(np.float64) for key, value in layer.state_dict().items()}
    assert getattr(functional, name)(X, wide, **own)[0].dtype == np.float64


def test_functions_of_packed_weights() -> None:
    spec = Spec("gru", I, H, 2)
    flat = array(spec.weight_count) * np.float32(0.3)
    packed = functional.pack(spec, flat)
    flat_before = flat.copy()
    y, _ = functional.infer(packed, X)
    flat[...] = 0
    assert np.array_equal(functional.infer(packed, X)[0], y), "a snapshot"
    same = functional.pack(spec, spec.views(flat_before))
    assert np.array_equal(functional.infer(same, X)[0], y)
    dropout = (np.arange(T * N * H).reshape(1, T, N, H) % 2) * 2
    _, _, tape = functional.forward(packed, X, dropout=dropout)
    _, _, again = functional.forward(packed, X, dropout=lambda shape: dropout.reshape(shape))
    assert np.array_equal(functional.backward(tape, y).flat, functional.backward(again, y).flat)
    for wrong, match in ((np.ones((1, T, N)), "dropout has shape"), ("half", "dropout has dtype")):
        with pytest.raises((TypeError, ValueError), match=match):
            functional.forward(packed, X, dropout=wrong)
    with pytest.raises(ValueError, match=r"weights has shape \(3,\)"):
        functional.pack(spec, np.zeros(3))
    with pytest.raises(TypeError, match="packed is a list"):
        functional.infer([], X)  # type: ignore[arg-type]
