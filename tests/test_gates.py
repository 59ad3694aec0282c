"""Gate orders: against the order written out by hand, and back again."""

from __future__ import annotations

import numpy as np
import pytest

from fastrnn import _gates

H, X = 2, 3


def labelled(order: str) -> np.ndarray:
    """(G*H, X) whose entries tell gate, unit and column."""
    gates = np.array([ord(gate) for gate in order])[:, None, None] * 100
    return (gates + np.arange(H)[:, None] * 10 + np.arange(X)).reshape(-1, X)


@pytest.mark.parametrize(
    ("framework", "cell", "order"),
    [
        ("torch", "lstm", "ifgo"),
        ("keras", "lstm", "ifgo"),
        ("onnx", "lstm", "iofg"),
        ("onednn", "lstm", "ifgo"),
        ("haste", "lstm", "igfo"),
        ("torch", "gru", "rzn"),
        ("keras", "gru", "zrn"),
        ("onnx", "gru", "zrn"),
        ("onednn", "gru", "zrn"),
    ],
)
def test_order(framework: str, cell: str, order: str) -> None:
    ours = labelled({"lstm": "ifgo", "gru": "rzn"}[cell])
    theirs = _gates.reorder(ours, cell, "torch", framework)
    assert np.array_equal(theirs, labelled(order))
    assert theirs.flags.c_contiguous
    assert np.array_equal(_gates.reorder(theirs, cell, framework, "torch"), ours)
    assert np.array_equal(_gates.reorder(ours[:, 0], cell, "torch", framework), theirs[:, 0])
    assert np.array_equal(_gates.reorder(ours.T, cell, "torch", framework, axis=1), theirs.T)


def test_interleaved_order() -> None:
    """thinc keeps f, i, o, g of one unit side by side."""
    ours = labelled("ifgo")
    theirs = _gates.reorder(ours, "lstm", "torch", "thinc")
    blocks = ours.reshape(4, H, X)
    want = np.stack([blocks[gate, unit] for unit in range(H) for gate in (1, 0, 3, 2)])
    assert np.array_equal(theirs, want)
    assert np.array_equal(_gates.reorder(theirs, "lstm", "thinc", "torch"), ours)


def test_permutations_are_inverse() -> None:
    for source, cells in _gates.ORDERS.items():
        for target, others in _gates.ORDERS.items():
            for cell in cells.keys() & others.keys():
                there, back = _gates.permutation(cell, source, target), _gates.permutation(cell, target, source)
                assert [there[k] for k in back] == list(range(len(there)))


def test_errors() -> None:
    with pytest.raises(ValueError, match="unknown framework 'caffe'"):
        _gates.permutation("lstm", "caffe", "torch")
    with pytest.raises(ValueError, match="'gru' is known for 'thinc'"):
        _gates.permutation("gru", "torch", "thinc")
    with pytest.raises(ValueError, match="multiple of 4"):
        _gates.reorder(np.zeros((6, 2)), "lstm", "torch", "onnx")
