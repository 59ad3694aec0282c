"""Agreement with PyTorch: every option, outputs, states and gradients, and state_dicts in both directions.

Both compute in the same dtype, so the difference is two roundings' worth: the tolerances are those of the matrix.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from conftest import System, make_layer, parts, required
from problems import TOLERANCE, error

if required("torch"):
    import torch
else:
    torch = pytest.importorskip("torch")

torch.set_num_threads(1)  # the work is small

T, N, I, H = 6, 5, 7, 17  # noqa: E741 - the letters of the shapes
CELLS = ("rnn_tanh", "rnn_relu", "lstm", "gru_after")  # PyTorch's GRU resets after the product
OPTIONS = [
    {"num_layers": layers, "bidirectional": both, "bias": bias, "batch_first": first}
    for layers, both, bias, first in itertools.product((1, 2), (False, True), (True, False), (False, True))
    if not (first and not bias)
]


def name(options: dict[str, Any]) -> str:
    return "-".join(f"{key}" for key, value in options.items() if value and key != "num_layers") + (
        f"L{options['num_layers']}"
    )


def pair(cell: str, dtype: str, **options: Any) -> tuple[Any, Any]:
    """Our layer and PyTorch's with our weights."""
    ours = make_layer(cell, I, H, dtype=dtype, **options)
    kind = {"rnn_tanh": torch.nn.RNN, "rnn_relu": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru_after": torch.nn.GRU}[cell]
    extra = {"nonlinearity": "relu"} if cell == "rnn_relu" else {}
    theirs = kind(I, H, dtype=getattr(torch, dtype), **options, **extra)
    theirs.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in ours.state_dict().items()})
    return ours, theirs


def tensors(state: Any) -> Any:
    made = tuple(torch.from_numpy(np.array(part)).requires_grad_() for part in parts(state))
    return made if isinstance(state, tuple) else made[0]


def close(got: Any, want: Any, dtype: str, way: str) -> None:
    want = want.detach().numpy()
    assert got.shape == want.shape
    assert error(np.asarray(got, np.float64), want) <= TOLERANCE[dtype, way]


@pytest.mark.parametrize("save", ["all", "recompute"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("options", OPTIONS, ids=name)
def test_outputs_and_gradients(
    system: System, cell: str, dtype: str, options: dict[str, Any], save: str, rng: np.random.Generator
) -> None:
    ours, theirs = pair(cell, dtype, **options)
    directions = 1 + options["bidirectional"]
    lead = (N, T) if options["batch_first"] else (T, N)
    x = rng.standard_normal((*lead, I)).astype(dtype)
    dy = rng.standard_normal((*lead, directions * H)).astype(dtype)
    states = [
        rng.standard_normal((options["num_layers"] * directions, N, H)).astype(dtype)
        for _ in range(4 if cell == "lstm" else 2)
    ]
    state, dstate = (tuple(states[:2]), tuple(states[2:])) if cell == "lstm" else states
    x_t, state_t = torch.from_numpy(x).requires_grad_(), tensors(state)
    y_t, last_t = theirs(x_t, state_t)
    loss = (y_t * torch.from_numpy(dy)).sum()
    for last, weight in zip(parts(last_t), parts(dstate), strict=True):
        loss = loss + (last * torch.from_numpy(weight)).sum()
    loss.backward()

    system.module.force_segment(3)
    try:
        y, last, tape = ours.forward(x, state, save=save)
    finally:
        system.module.force_segment(None)
    gradients = ours.backward(tape, dy, dstate)
    close(ours(x, state)[0], y_t, dtype, "forward")
    close(y, y_t, dtype, "forward")
    close(gradients.x, x_t.grad, dtype, "backward")
    for got, want in zip(parts(last), parts(last_t), strict=True):
        close(got, want, dtype, "forward")
    for got, want in zip(parts(gradients.state), parts(state_t), strict=True):
        close(got, want.grad, dtype, "backward")
    parameters = dict(theirs.named_parameters())
    assert list(gradients.weights) == list(parameters)
    for key, parameter in parameters.items():
        close(gradients.weights[key], parameter.grad, dtype, "backward")


@pytest.mark.parametrize("cell", CELLS)
def test_unbatched_and_stateless(system: System, cell: str, rng: np.random.Generator) -> None:
    ours, theirs = pair(cell, "float32", num_layers=2, bidirectional=True)
    x = rng.standard_normal((T, I)).astype(np.float32)
    y, last = ours(x)
    y_t, last_t = theirs(torch.from_numpy(x))
    close(y, y_t, "float32", "forward")
    for got, want in zip(parts(last), parts(last_t), strict=True):
        close(got, want, "float32", "forward")


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("batch_first", [False, True])
def test_lengths_are_a_packed_sequence(system: System, cell: str, batch_first: bool, rng: np.random.Generator) -> None:
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    ours, theirs = pair(cell, "float32", num_layers=2, bidirectional=True, batch_first=batch_first)
    lengths = np.array([2, 6, 1, 4, 3])  # PyTorch refuses zeros
    lead = (N, T) if batch_first else (T, N)
    x = rng.standard_normal((*lead, I)).astype(np.float32)
    dy = rng.standard_normal((*lead, 2 * H)).astype(np.float32)
    x_t = torch.from_numpy(x).requires_grad_()
    packed = pack_padded_sequence(x_t, torch.from_numpy(lengths), batch_first=batch_first, enforce_sorted=False)
    packed_y, last_t = theirs(packed)
    y_t, _ = pad_packed_sequence(packed_y, batch_first=batch_first, total_length=T)
    (y_t * torch.from_numpy(dy)).sum().backward()

    y, last, tape = ours.forward(x, lengths=lengths)
    gradients = ours.backward(tape, dy)
    close(ours(x, lengths=lengths)[0], y_t, "float32", "forward")
    close(y, y_t, "float32", "forward")
    close(gradients.x, x_t.grad, "float32", "backward")
    for got, want in zip(parts(last), parts(last_t), strict=True):
        close(got, want, "float32", "forward")
    for key, parameter in theirs.named_parameters():
        close(gradients.weights[key], parameter.grad, "float32", "backward")


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("options", OPTIONS, ids=name)
def test_state_dicts_move_both_ways(cell: str, options: dict[str, Any]) -> None:
    ours, theirs = pair(cell, "float32", **options)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.uniform_(-0.3, 0.3)
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    for key, value in theirs.state_dict().items():
        assert np.array_equal(getattr(ours, key), value.numpy())
    ours.load_state_dict(theirs.state_dict())  # tensors are array-like enough
    with torch.no_grad():
        x = torch.linspace(-1, 1, 2 * 3 * I).reshape(2, 3, I)
        close(ours(x.numpy())[0], theirs(x)[0], "float32", "forward")
