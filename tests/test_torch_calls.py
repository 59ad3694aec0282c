"""Ordinary calls, which the compiled backend runs from tensor to tensor: they have the bits of all others."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from conftest import required
from fastrnn import backends

if required("torch"):
    import torch
else:
    torch = pytest.importorskip("torch")
if not required("core") and "cpp" not in backends.available():
    pytest.skip("the compiled backend is not here", allow_module_level=True)

import fastrnn.torch
from fastrnn.torch import autograd, cache, routes
from fastrnn.torch.report import OURS, Tally, _tallies, count

I, H, N = 5, 6, 2  # noqa: E741 - the letters of the shapes
KINDS: dict[str, Any] = {
    name: getattr(torch.nn, name) for name in ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell")
}
KINDS |= {f"{name}, batch first": partial(KINDS[name], batch_first=True) for name in ("LSTM", "GRU", "RNN")}
TABLE = "__dlpack_c_exchange_api__"


@pytest.fixture(autouse=True)
def _patched() -> Iterator[None]:
    with fastrnn.backend("cpp"), fastrnn.torch.patched():
        yield
    cache.invalidate()


@pytest.fixture(params=["table", "attributes"])
def _looks(request: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors are looked at through DLPack's table of functions, and attribute by attribute as in older versions."""
    monkeypatch.setattr(cache, "_libraries", {})
    if request.param == "attributes":
        monkeypatch.delattr(torch.Tensor, TABLE, raising=False)
    elif not hasattr(torch.Tensor, TABLE):
        pytest.skip("this PyTorch has no such table")


def arguments(kind: str, steps: int, dtype: Any, grad: bool) -> tuple[Any, Any]:
    """x and the state."""
    torch.manual_seed(1)
    lead = () if kind.endswith("Cell") else (steps,)
    make: Callable[..., Any] = lambda *shape: torch.randn(shape, dtype=dtype, requires_grad=grad)  # noqa: E731
    x = make(N, steps, I) if kind.endswith("first") else make(*lead, N, I)
    states = [make(*lead[:0], *((1,) if lead else ()), N, H) for _ in range(2)]
    return x, tuple(states) if kind.startswith("LSTM") else states[0]


def flat(made: Any) -> list[Any]:
    return [made] if isinstance(made, torch.Tensor) else [t for part in made for t in flat(part)]


def snapshot_of(net: Any) -> cache.Snapshot:
    """That of a module that was called."""
    return next(s for key, s in cache._entries.items() if id(next(net.parameters())) in key)


def calls_of(net: Any) -> Any:
    return snapshot_of(net).calls


def refuse(*_: object, **__: object) -> None:
    pytest.fail("the general way")


@pytest.mark.usefixtures("_looks")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_bits_of_the_general_way(kind: str, steps: int, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs and gradients, and an ordinary call takes no part of the general way."""
    net = KINDS[kind](I, H, dtype=dtype)

    def everything() -> list[Any]:
        with torch.no_grad():
            out = flat(net(*arguments(kind, steps, dtype, False)))
        for wants in (False, True):
            net.zero_grad()
            x, state = arguments(kind, steps, dtype, wants)
            made = flat(net(x, state))
            sum((i + 1) * (t * t).sum() for i, t in enumerate(made)).backward()
            inputs = [x, *flat(state)] if wants else []
            out += [t.detach() for t in made] + [t.grad for t in (*inputs, *net.parameters())]
        return out

    everything()
    calls, snapshot_of(net).calls = calls_of(net), None
    want = everything()
    snapshot_of(net).calls = calls
    monkeypatch.setattr(autograd, "forward", refuse)
    monkeypatch.setattr(autograd, "backward", refuse)
    got = everything()
    assert len(got) == len(want)
    assert all(torch.equal(a, b) and a.stride() == b.stride() for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize(("steps", "ordinary"), [(40, True), (300, False)])
def test_bits_of_long_calls(steps: int, ordinary: bool) -> None:
    """More work than the GIL is kept for; of the longer one y is too large to be copied."""
    torch.manual_seed(1)
    lstm, x = torch.nn.LSTM(64, 64, 2, bidirectional=True), torch.randn(steps, N, 64)

    def gradients() -> list[Any]:
        return list(torch.autograd.grad(flat(lstm(x))[0].square().sum(), list(lstm.parameters())))

    lstm(x)
    made = snapshot_of(lstm).calls.forward((x.numpy(), None, None), x, None, "TNI")
    assert (made is not None) is ordinary
    got, snapshot_of(lstm).calls = gradients(), None
    assert all(torch.equal(a, b) for a, b in zip(got, gradients(), strict=True))


@pytest.mark.usefixtures("_looks")
@pytest.mark.parametrize("loss", ["sum of y", "transposed y", "h", "c"])
def test_gradients_of_any_strides(loss: str) -> None:
    lstm, x = torch.nn.LSTM(I, H), torch.randn(3, N, I)
    weight = torch.randn(H, N, 3)
    losses: dict[str, Callable[[Any, Any, Any], Any]] = {
        "sum of y": lambda y, h, c: y.sum(),
        "transposed y": lambda y, h, c: (y.transpose(0, 2) * weight).sum(),
        "h": lambda y, h, c: h.sum(),
        "c": lambda y, h, c: (c.transpose(0, 2) * weight[..., :1]).sum(),
    }

    def gradients() -> list[Any]:
        y, (h, c) = lstm(x)
        return list(torch.autograd.grad(losses[loss](y, h, c), list(lstm.parameters())))

    gradients()
    got = gradients()
    fastrnn.torch.unpatch()
    want = gradients()
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


def test_frozen_weights_have_no_gradient() -> None:
    gru, x = torch.nn.GRU(I, H), torch.randn(1, N, I)
    gru(x)[0].sum().backward()
    want = [p.grad for p in gru.parameters()]
    gru.zero_grad()
    gru.weight_hh_l0.requires_grad_(False)
    gru.bias_ih_l0.requires_grad_(False)
    gru(x)[0].sum().backward()
    got = [p.grad for p in gru.parameters()]
    assert got[1] is None
    assert got[2] is None
    assert torch.equal(got[0], want[0])
    assert torch.equal(got[3], want[3])
    only = torch.randn(1, N, I, requires_grad=True)
    gru.requires_grad_(False)(only)[0].sum().backward()
    assert only.grad is not None


def ordinary(kind: str, args: tuple[Any, ...]) -> bool:
    call = routes.sequence(kind, "tanh", args, {})[0]
    return call is not None and call.seen is not None


@pytest.mark.usefixtures("_looks")
def test_which_calls_are_ordinary() -> None:
    lstm = torch.nn.LSTM(I, H)
    x, h, c = torch.randn(3, N, I), torch.randn(1, N, H), torch.randn(1, N, H)

    def asked(x: Any, hx: Any, *, p: float = 0.0, first: bool = False) -> bool:
        return ordinary("lstm", (x, hx, lstm._flat_weights, True, 1, p, True, False, first))

    lstm(x)
    assert asked(x, (h, c))
    assert asked(x, [h, c])
    assert asked(x, None)
    assert asked(x[1:2], (h, c))
    assert not asked(x, (h, c), p=0.5)
    assert asked(x.transpose(0, 1).contiguous(), (h, c), first=True)
    assert not asked(x.transpose(0, 1), (h, c), first=True)
    resized = x.clone()
    resized.untyped_storage().resize_(0)
    for other in (
        x.transpose(0, 2).contiguous().transpose(0, 2),
        x.double(),
        x.to(torch.bfloat16),
        x.to_sparse(),
        x.to("meta"),
        torch._neg_view(x),
        x[None],
        x[0],
        x[:0],
        x[..., :-1],
        x.numpy(),
        torch.empty(x.shape, dtype=torch.bits16),
        torch._efficientzerotensor(x.shape),
        resized,
    ):
        assert calls_of(lstm).see(other, h, c, "TNI") is None
    for state in ((h, None), (None, None), (h[:, :1], c), (h, c[..., 1:]), (h.double(), c), (h, c.mT), (h,), h):
        assert not asked(x, state)
    assert calls_of(lstm).see(x, None, c, "TNI") is None
    assert calls_of(lstm).see(x[0], h[0], c[0], "NI") is not None
    assert calls_of(lstm).see(x, h, c, "NI") is None


@pytest.mark.usefixtures("_looks")
@pytest.mark.parametrize("change", ["version", "address", "shape", "strides", "dtype", "memory"])
def test_every_mark_counts(change: str) -> None:
    gru = torch.nn.GRU(H, 2 * H).requires_grad_(False)
    gru(torch.randn(1, N, H))
    params, calls = gru._flat_weights, calls_of(gru)
    weight = gru.weight_ih_l0
    assert calls.unchanged(params, compare=False)
    assert calls.unchanged(tuple(params), compare=False)
    assert not calls.unchanged(params[:-1], compare=False)
    assert not calls.unchanged([*params[:-1], None], compare=False)
    with torch.no_grad():
        if change == "version":
            weight.add_(0)
        elif change == "memory":
            weight.untyped_storage().resize_(0)
        else:
            weight.data = {
                "address": lambda: weight.clone(),
                "shape": lambda: weight.data.view(H, -1),
                "strides": lambda: weight.data.as_strided(weight.shape, (1, weight.shape[0])),
                "dtype": lambda: weight.data.view(torch.int32),
            }[change]()
    assert not calls.unchanged(params, compare=False)


def test_outputs_own_their_memory() -> None:
    """They outlive module and call, and nothing is left when they go."""
    net, x = torch.nn.LSTM(I, 64), torch.randn(1, 1, I)
    with torch.no_grad():
        first = flat(net(x))
        want = [t.clone() for t in first]
        for _ in range(50):
            net(x + 1)
        tracemalloc.start()
        for _ in range(50):
            net(x + 1)
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(500):
            net(x + 1)
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
    assert grown < 500 * 3 * 64
    del net
    assert all(torch.equal(a, b) for a, b in zip(first, want, strict=True))
    assert len({t.data_ptr() for t in first}) == 3
    with torch.inference_mode():
        assert torch.nn.LSTM(I, 64)(x)[0].is_inference()


def test_two_threads_go_back_through_one_graph() -> None:
    lstm, x = torch.nn.LSTM(I, H), torch.randn(1, N, I)
    lstm(x)
    params = list(lstm.parameters())
    want = torch.autograd.grad(lstm(x)[0].sum(), params)
    for _ in range(20):
        loss = lstm(x)[0].sum()
        got: list[Any] = []
        threads = [
            threading.Thread(target=lambda: got.append(torch.autograd.grad(loss, params, retain_graph=True)))  # noqa: B023
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 3
        assert all(torch.equal(a, b) for grads in got for a, b in zip(grads, want, strict=True))


def test_calls_are_counted_by_all_threads() -> None:
    tally = Tally("tally")
    try:
        threads = [threading.Thread(target=lambda: [tally.one_more() for _ in range(2000)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert fastrnn.torch.report()["tally"] == {"fastrnn": 8000}
        assert fastrnn.torch.report(reset=True)["tally"] == {"fastrnn": 8000}
        assert "tally" not in fastrnn.torch.report()
        tally.one_more()
        count("tally", "a reason")
        count("tally", OURS)
        assert fastrnn.torch.report(reset=True)["tally"] == {"fastrnn": 2, "PyTorch: a reason": 1}
    finally:
        del _tallies["tally"]
