"""What other parts of PyTorch do with a recurrent module works under the patch as without it, gradients included."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conftest import required

if required("torch"):
    import torch
else:
    torch = pytest.importorskip("torch")

from torch.nn.utils import parametrizations, prune

import fastrnn.torch

T, N, I, H = 5, 3, 4, 6  # noqa: E741 - the letters of the shapes


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    fastrnn.torch.unpatch()
    fastrnn.torch.report(reset=True)
    yield
    fastrnn.torch.unpatch()


def weight_norm(kind: Any) -> Any:
    return parametrizations.weight_norm(kind(I, H), "weight_hh_l0")


def spectral_norm(kind: Any) -> Any:
    return parametrizations.spectral_norm(kind(I, H).eval(), "weight_hh_l0").eval()


def pruned(kind: Any) -> Any:
    net = kind(I, H)
    prune.l1_unstructured(net, "weight_hh_l0", amount=0.5)
    return net


def copied(kind: Any) -> Any:
    net = kind(I, H)
    net(torch.zeros(T, N, I))
    return copy.deepcopy(net)


def saved(kind: Any) -> Any:
    net, file = kind(I, H), io.BytesIO()
    net(torch.zeros(T, N, I))
    torch.save(net, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def frozen(kind: Any) -> Any:
    return kind(I, H).requires_grad_(False)


def partly_frozen(kind: Any) -> Any:
    net = kind(I, H, 2)
    net.weight_hh_l0.requires_grad_(False)
    net.bias_ih_l1.requires_grad_(False)
    return net


def tied(kind: Any) -> Any:
    """Two layers with one recurrent matrix."""
    net = kind(H, H, 2)
    net.weight_hh_l1 = net.weight_hh_l0
    return net


MADE: list[Callable[[Any], Any]] = [
    weight_norm, spectral_norm, pruned, copied, saved, frozen, partly_frozen, tied,
]  # fmt: skip


def results(net: Any, more: Any = None) -> list[Any]:
    torch.manual_seed(2)
    x = torch.randn(T, N, net.input_size, requires_grad=True)
    y = (more or net)(x)[0]
    leaves = [x, *[p for p in net.parameters() if p.requires_grad]]
    return [y, *torch.autograd.grad(y.square().sum(), leaves)]


@pytest.mark.parametrize("kind", [torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN])
@pytest.mark.parametrize("make", MADE)
def test_modules_that_were_worked_on(make: Callable[[Any], Any], kind: Any) -> None:
    torch.manual_seed(1)
    with fastrnn.torch.patched():
        net = make(kind)
    want = results(net)
    fastrnn.torch.report(reset=True)
    with fastrnn.torch.patched():
        got, again = results(net), results(net)
    (row,) = fastrnn.torch.report().values()
    assert set(row) == {"fastrnn"}
    for a, b, c in zip(got, want, again, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        assert torch.equal(a, c)


@pytest.mark.parametrize("kind", [torch.nn.LSTM, torch.nn.GRU])
def test_functional_call(kind: Any) -> None:
    net = kind(I, H)
    other = {name: torch.randn_like(p, requires_grad=True) for name, p in net.named_parameters()}

    def call() -> list[Any]:
        y = torch.func.functional_call(net, other, (x,))[0]
        return [y, *torch.autograd.grad(y.sum(), list(other.values()))]

    x = torch.randn(T, N, I)
    want = call()
    with fastrnn.torch.patched():
        net(x)
        got = call()
        torch.testing.assert_close(net(x)[0], fastrnn_free(net, x))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def fastrnn_free(net: Any, x: Any) -> Any:
    """What PyTorch itself makes of it."""
    fastrnn.torch.unpatch()
    try:
        return net(x)[0]
    finally:
        fastrnn.torch.patch()


@pytest.mark.parametrize("kind", [torch.nn.LSTM, torch.nn.GRU])
@pytest.mark.parametrize("how", ["expanded", "strided", "gradient of the state alone"])
def test_states(kind: Any, how: str) -> None:
    net = kind(I, H, 2)
    if how == "gradient of the state alone":
        net.requires_grad_(False)
    base = torch.randn(2, 1, H, requires_grad=True)

    def call() -> list[Any]:
        h = base.expand(2, N, H) if how == "expanded" else base.repeat(1, 2 * N, 1)[:, ::2]
        y = net(x, (h, h) if kind is torch.nn.LSTM else h)[0]
        return [y, torch.autograd.grad(y.square().sum(), base)[0]]

    x = torch.randn(T, N, I)
    want = call()
    with fastrnn.torch.patched():
        got = call()
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # PyTorch's own
@pytest.mark.parametrize("transform", ["vmap", "grad", "jacrev", "jvp"])
def test_functorch_goes_to_pytorch(transform: str) -> None:
    cell = torch.nn.GRUCell(I, H)
    x, h = torch.randn(N, I), torch.randn(N, H)

    def made() -> Any:
        if transform == "vmap":
            return torch.func.vmap(lambda row: cell(row[None], torch.zeros(1, H))[0])(x)
        if transform == "grad":
            return torch.func.grad(lambda row: cell(row, h).sum())(x)
        if transform == "jacrev":
            return torch.func.jacrev(lambda row: cell(row, h))(x)
        return torch.func.jvp(lambda row: cell(row, h), (x,), (torch.ones_like(x),))[1]

    want = made()
    with fastrnn.torch.patched():
        got = made()
    torch.testing.assert_close(got, want)
    assert "fastrnn" not in fastrnn.torch.report()["gru_cell"]


@pytest.mark.filterwarnings("ignore:Complex modules")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex64, torch.int64])
def test_dtypes_that_are_not_ours(dtype: Any) -> None:
    """Result or message: PyTorch's."""
    net = torch.nn.GRU(I, H)
    if dtype != torch.int64:
        net = net.to(dtype)
    x = torch.ones(T, N, I, dtype=dtype)

    def call() -> Any:
        try:
            with torch.no_grad():
                return net(x)[0]
        except (RuntimeError, ValueError) as error:
            return f"{type(error).__name__}: {error}"

    want = call()
    with fastrnn.torch.patched():
        got = call()
    if isinstance(want, str):
        assert got == want
    else:
        assert torch.equal(got, want)
    assert "fastrnn" not in fastrnn.torch.report().get("gru", {})
