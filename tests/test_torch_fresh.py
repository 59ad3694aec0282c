"""Weights and outputs changed in ways that PyTorch does not count, or allows; gradients that NumPy cannot see."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from conftest import required

if required("torch"):
    import torch
else:
    torch = pytest.importorskip("torch")

import fastrnn.torch as ft


@pytest.fixture(autouse=True)
def _patched() -> Iterator[None]:
    with ft.patched():
        yield


def expected(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What PyTorch itself gives for the weights as they are now."""
    ft.unpatch()
    try:
        with torch.no_grad():
            return module(x)[0]
    finally:
        ft.patch()


def test_a_fused_optimiser_is_noticed_without_gradients() -> None:
    torch.manual_seed(0)
    gru, x = torch.nn.GRU(6, 6), torch.randn(4, 2, 6)
    optimiser = torch.optim.Adam(gru.parameters(), lr=0.1, fused=True)
    for _ in range(3):
        gru(x)[0].sum().backward()
        with torch.no_grad():
            gru(x)
        optimiser.step()
        with torch.no_grad():
            torch.testing.assert_close(gru(x)[0], expected(gru, x))


def test_a_transposed_weight_is_noticed() -> None:
    torch.manual_seed(0)
    rnn, x = torch.nn.RNN(8, 8), torch.randn(4, 2, 8)
    rnn(x)
    rnn.weight_hh_l0.data = rnn.weight_hh_l0.data.t()
    torch.testing.assert_close(rnn(x)[0].detach(), expected(rnn, x))
    with torch.no_grad():
        rnn(x)
        rnn.weight_hh_l0.t_()
        torch.testing.assert_close(rnn(x)[0], expected(rnn, x))


@pytest.mark.skipif(torch.__version__.startswith("2.4."), reason="its compiler leaves recurrent modules to PyTorch")
def test_uncounted_changes_are_noticed_in_a_compiled_graph() -> None:
    torch.manual_seed(0)
    gru, x = torch.nn.GRU(6, 6), torch.randn(4, 2, 6)
    compiled = torch.compile(lambda x: gru(x)[0], backend="aot_eager", fullgraph=True)
    for _ in range(3):
        compiled(x).sum().backward()
        for p in gru.parameters():
            p.data.add_(p.grad, alpha=-0.1)
            p.grad = None
        torch.testing.assert_close(compiled(x).detach(), expected(gru, x))


@pytest.mark.parametrize("layout", ["time first", "batch first", "packed"])
@pytest.mark.parametrize("steps", [1, 4, 3000])
@pytest.mark.parametrize("cell", [torch.nn.GRU, torch.nn.RNN])
def test_outputs_may_be_changed_in_place(cell: type[torch.nn.Module], steps: int, layout: str) -> None:
    """Also y of many steps, of which the tape has no copy."""
    torch.manual_seed(0)
    layer, x = cell(5, 7, batch_first=layout == "batch first"), torch.randn(steps, 3, 5)
    given: Any = x.transpose(0, 1).contiguous() if layout == "batch first" else x
    if layout == "packed":
        given = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor([steps, steps, (steps + 1) // 2]))
    found = []
    for patched in (True, False):
        if not patched:
            ft.unpatch()
        layer.zero_grad()
        y, h = layer(given)
        y = y.data if layout == "packed" else y
        y.mul_(2)
        (y.square().mean() + h.sum()).backward()
        found.append([p.grad.clone() for p in layer.parameters()])
    ft.patch()
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("steps", [4, 3000])
def test_a_resized_output(steps: int) -> None:
    """What is done to free memory: backward does without it."""
    gru, x = torch.nn.GRU(5, 7), torch.randn(steps, 3, 5)
    found = []
    for resize in (False, True):
        gru.zero_grad()
        y = gru(x)[0]
        loss = y.sum()
        if resize:
            y.untyped_storage().resize_(0)
        loss.backward()
        found.append([p.grad.clone() for p in gru.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_gradients_that_numpy_cannot_see() -> None:
    torch.manual_seed(0)
    layer, x = torch.nn.GRU(5, 2).double(), torch.randn(2, 1, 5, dtype=torch.float64, requires_grad=True)
    y = layer(x)[0]
    eye = torch.eye(y.numel(), dtype=y.dtype).view(-1, *y.shape)
    (batched,) = torch.autograd.grad(y, x, eye, is_grads_batched=True, retain_graph=True)
    assert not batched.requires_grad, "nobody asked for create_graph"
    for row, one in zip(batched, eye, strict=True):
        torch.testing.assert_close(row, torch.autograd.grad(y, x, one, retain_graph=True)[0])
    zero = torch._efficientzerotensor(y.shape, dtype=y.dtype)
    assert not torch.autograd.grad(y, x, zero, retain_graph=True)[0].any()
    negative = torch.complex(torch.zeros_like(y), -torch.ones_like(y)).conj().imag
    assert negative.is_neg()
    torch.testing.assert_close(
        torch.autograd.grad(y, x, negative, retain_graph=True), torch.autograd.grad(y, x, torch.ones_like(y))
    )
