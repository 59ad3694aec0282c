"""Gate orders of other frameworks: the only place that knows them.

A weight array stacks one block of H rows per gate. Frameworks agree on the equations but not on the order
of the blocks. Letters are PyTorch's: LSTM i input, f forget, g candidate, o output; GRU r reset, z update, n candidate.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Keras calls the candidates c and h, ONNX c and h, oneDNN c~ and o (and the update gate u): all written g and n here.
ORDERS: dict[str, dict[str, str]] = {
    "torch": {"rnn": "h", "lstm": "ifgo", "gru": "rzn", "peephole": "ifo"},  # cuDNN too; the peepholes are our own
    "keras": {"rnn": "h", "lstm": "ifgo", "gru": "zrn"},
    "onnx": {"rnn": "h", "lstm": "iofg", "gru": "zrn", "peephole": "iof"},
    "onednn": {"rnn": "h", "lstm": "ifgo", "gru": "zrn"},
    "haste": {"lstm": "igfo"},
    "thinc": {"lstm": "fiog"},
}
# Gates of one unit side by side, (H, G) instead of (G, H).
INTERLEAVED = frozenset({"thinc"})


def permutation(cell: str, source: str, target: str) -> tuple[int, ...]:
    """Indices p such that block k in the order of `target` is block p[k] in the order of `source`.

    Parameters
    ----------
    cell : {"rnn", "lstm", "gru", "peephole"}
        The last one stands for the peephole weights of an LSTM, (3*H,).
    source, target : str
        Keys of `ORDERS`.

    Raises
    ------
    ValueError
        Unknown framework, or a cell whose order is not known for it.
    """
    have, want = _order(cell, source), _order(cell, target)
    return tuple(have.index(gate) for gate in want)


def reorder(array: Array, cell: str, source: str, target: str, axis: int = 0) -> Array:
    """Move gate blocks from one framework's order to another's.

    Parameters
    ----------
    array : ndarray, shape (G*H, X) or (G*H,) if axis is 0
        A weight or bias; with `axis=1` its transpose (X, G*H), as Keras keeps it.
    cell, source, target : str
        As in `permutation`.
    axis : int
        Axis that holds the gates.

    Returns
    -------
    ndarray, same shape and dtype
        A new C-contiguous array.

    Raises
    ------
    ValueError
        Unknown names, or an axis whose length is no multiple of the number of gates.
    """
    order = permutation(cell, source, target)
    gates = len(order)
    moved = np.moveaxis(np.asarray(array), axis, 0)
    if moved.shape[0] % gates:
        message = f"axis {axis} of the array has {moved.shape[0]} entries; it must be a multiple of {gates} gates"
        raise ValueError(message)
    hidden, rest = moved.shape[0] // gates, moved.shape[1:]
    if source in INTERLEAVED:
        blocks = moved.reshape(hidden, gates, *rest).swapaxes(0, 1)
    else:
        blocks = moved.reshape(gates, hidden, *rest)
    blocks = blocks[list(order)]
    if target in INTERLEAVED:
        blocks = blocks.swapaxes(0, 1)
    return np.array(np.moveaxis(blocks.reshape(moved.shape), 0, axis), order="C")


def _order(cell: str, framework: str) -> str:
    if framework not in ORDERS:
        message = f"unknown framework {framework!r}; it must be one of {', '.join(map(repr, ORDERS))}"
        raise ValueError(message)
    if cell not in ORDERS[framework]:
        known = ", ".join(map(repr, ORDERS[framework]))
        message = f"no gate order of cell {cell!r} is known for {framework!r}; it must be one of {known}"
        raise ValueError(message)
    return ORDERS[framework][cell]
