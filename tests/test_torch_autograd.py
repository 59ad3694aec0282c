"""`fastrnn.torch` against unpatched PyTorch: every option, dense and packed, outputs and gradients of any order.

The same module runs twice from the same seed, once with the patch; so dropout's masks must be the same too.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from conftest import required
from problems import TOLERANCE

if required("torch"):
    import torch
else:
    torch = pytest.importorskip("torch")

from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import fastrnn.torch

T, N, I, H = 5, 4, 3, 9  # noqa: E741 - the letters of the shapes
KINDS = {
    "lstm": (torch.nn.LSTM, {}),
    "gru": (torch.nn.GRU, {}),
    "rnn_tanh": (torch.nn.RNN, {}),
    "rnn_relu": (torch.nn.RNN, {"nonlinearity": "relu"}),
}
GRID = list(itertools.product((1, 2), (False, True), (True, False), (False, True), (0.0, 0.4)))
GRID = [options for options in GRID if not (options[4] and options[0] == 1)]


@pytest.fixture(autouse=True)
def _clean() -> Any:
    torch.manual_seed(0)
    fastrnn.torch.report(reset=True)
    yield
    fastrnn.torch.unpatch()


def module(kind: str, *options: Any, dtype: str = "float32", **more: Any) -> Any:
    layers, both, bias, first, dropout = (*options, *(1, False, True, False, 0.0)[len(options) :])
    make, extra = KINDS[kind]
    return make(
        I, H, layers, bidirectional=both, bias=bias, batch_first=first, dropout=dropout, dtype=getattr(torch, dtype),
        **extra, **more,
    )  # fmt: skip


def flat(output: Any) -> list[Any]:
    """All tensors of a module's output, the data of a PackedSequence among them."""
    if isinstance(output, torch.Tensor):
        return [output]
    if isinstance(output, PackedSequence):
        return [output.data]
    return [tensor for part in output for tensor in flat(part)]


def state_for(net: Any, batch: int = N) -> Any:
    shape = (net.num_layers * (1 + net.bidirectional), batch, net.hidden_size)
    parts = [torch.randn(shape, dtype=net.weight_hh_l0.dtype, requires_grad=True) for _ in range(2)]
    return tuple(parts) if isinstance(net, torch.nn.LSTM) else parts[0]


def results(net: Any, x: Any, state: Any, seed: int = 5) -> list[Any]:
    """Outputs, then gradients of input, states and weights of a loss that looks at all of the outputs."""
    leaves = [t for t in [*flat(x), *([] if state is None else flat(state)), *net.parameters()] if t.requires_grad]
    torch.manual_seed(seed)
    outputs = flat(net(x, state))
    loss = sum((o * torch.linspace(-1, 1, o.numel(), dtype=o.dtype).view(o.shape)).sum() for o in outputs)
    return [*(o.detach() for o in outputs), *torch.autograd.grad(loss, leaves)]


def agree(got: list[Any], want: list[Any], dtype: str = "float32") -> None:
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        scale = max(1.0, float(b.abs().max()))
        assert float((a - b).abs().max()) <= TOLERANCE[dtype, "backward"] * scale


def compare(kind: str, net: Any, x: Any, state: Any, dtype: str = "float32", calls: int = 1) -> None:
    want = results(net, x, state)
    with fastrnn.torch.patched():
        got = results(net, x, state)
    agree(got, want, dtype)
    assert fastrnn.torch.report(reset=True) == {kind: {"fastrnn": calls}}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", GRID, ids=str)
def test_dense(kind: str, options: tuple[Any, ...], dtype: str) -> None:
    net = module(kind, *options, dtype=dtype)
    x = torch.randn(T, N, I, dtype=net.weight_hh_l0.dtype, requires_grad=True)
    if options[3]:
        x = x.detach().transpose(0, 1).requires_grad_()  # not contiguous
    compare(kind, net, x, state_for(net), dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [o for o in GRID if not o[3]], ids=str)
def test_packed(kind: str, options: tuple[Any, ...]) -> None:
    net = module(kind, *options)
    data = torch.randn(T, N, I, requires_grad=True)
    for state in (None, state_for(net)):
        x = pack_padded_sequence(data, torch.tensor([2, 5, 1, 4]), enforce_sorted=False)
        x.data.retain_grad()
        compare(kind, net, x, state)


@pytest.mark.parametrize("kind", KINDS)
def test_unbatched_and_without_state(kind: str) -> None:
    net = module(kind, 2, True)
    compare(kind, net, torch.randn(T, I, requires_grad=True), None)
    net = module(kind, 1, False, True, True)
    compare(kind, net, torch.randn(T, I, requires_grad=True), None)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_cells(kind: str, bias: bool, dtype: str) -> None:
    options = {"dtype": getattr(torch, dtype), "bias": bias, **KINDS[kind][1]}
    net = {"lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}.get(kind, torch.nn.RNNCell)(I, H, **options)
    shape = (N, H)
    h, c = (torch.randn(shape, dtype=options["dtype"], requires_grad=True) for _ in range(2))
    x = torch.randn(N, I, dtype=options["dtype"], requires_grad=True)
    compare(f"{kind}_cell", net, x, (h, c) if kind == "lstm" else h, dtype)
    compare(f"{kind}_cell", net, x[0].detach().requires_grad_(), None, dtype)


def test_strange_strides() -> None:
    net = module("gru", 2, True)
    wide = torch.randn(T, N, 2 * I)
    for x in (wide[..., ::2], wide[:, :1, :I].expand(T, N, I), wide.permute(2, 1, 0)[:T, :, :I].flip(0)):
        compare("gru", net, x.detach().requires_grad_(), state_for(net))
    x = torch.randn(T, N, I, requires_grad=True)
    with fastrnn.torch.patched():
        net(x)[0].sum().backward()  # its gradient is expanded from one number
    got = x.grad.clone()
    x.grad = None
    net(x)[0].sum().backward()
    agree([got], [x.grad])


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_is_wanted(kind: str) -> None:
    net = module(kind, 2)
    state = state_for(net)
    for frozen in ("weight_ih_l0", "bias_hh_l1", None):
        for name, p in net.named_parameters():
            p.requires_grad_(frozen is not None and name != frozen)
        x = torch.randn(T, N, I, requires_grad=frozen is None)
        compare(kind, net, x, state)
    state = [s.detach() for s in flat(state)]
    state = tuple(state) if kind == "lstm" else state[0]
    compare(kind, net, x, state)


def test_loss_of_the_state_alone() -> None:
    net = module("lstm", 2)
    x = torch.randn(T, N, I, requires_grad=True)
    for part in (0, 1):
        wants = []
        for on in (False, True):
            (fastrnn.torch.patch if on else fastrnn.torch.unpatch)()
            wants.append(torch.autograd.grad(net(x)[1][part].square().sum(), [x, *net.parameters()]))
        agree(*map(list, wants))


def test_second_backward_and_freed_graph() -> None:
    net = module("lstm", 2, True, True, False, 0.5)
    x = torch.randn(T, N, I, requires_grad=True)
    with fastrnn.torch.patched():
        y = net(x)[0].sum()
        first = torch.autograd.grad(y, [x, *net.parameters()], retain_graph=True)
        second = torch.autograd.grad(y, [x, *net.parameters()])
        with pytest.raises(RuntimeError, match="second time"):
            torch.autograd.grad(y, [x])
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


def test_changes_between_forward_and_backward_are_errors() -> None:
    net = module("lstm")
    with fastrnn.torch.patched():
        y = net(torch.randn(T, N, I))[0].sum()
        with torch.no_grad():
            net.weight_hh_l0.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.backward()


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind: str, first: bool) -> None:
    net = module(kind, 2, True, True, first, dtype="float64")
    x = torch.randn(3, 2, I, dtype=torch.float64, requires_grad=True)
    state = state_for(net, 3 if first else 2)

    def call(x: Any, *rest: Any) -> Any:
        hx = tuple(rest[:2]) if kind == "lstm" else rest[0]
        names = [name for name, _ in net.named_parameters()]
        weights = dict(zip(names, rest[len(flat(state)) :], strict=True))
        return tuple(flat(torch.func.functional_call(net, weights, (x, hx))))

    inputs = (x, *flat(state), *net.parameters())
    with fastrnn.torch.patched():
        assert torch.autograd.gradcheck(call, inputs, fast_mode=True)
        assert torch.autograd.gradgradcheck(call, inputs, fast_mode=True)
        assert "fastrnn" in fastrnn.torch.report()[kind]


def second_order(net: Any, x: Any, state: Any) -> list[Any]:
    torch.manual_seed(7)
    leaves = [*flat(x), *flat(state), *net.parameters()]
    loss = sum(o.pow(3).sum() for o in flat(net(x, state)))
    penalty = sum(g.square().sum() for g in torch.autograd.grad(loss, leaves, create_graph=True))
    return list(torch.autograd.grad(penalty, leaves))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_penalty(kind: str, packed: bool) -> None:
    """A loss with a gradient inside, as WGAN-GP has, dropout included."""
    net = module(kind, 2, True, True, False, 0.3, dtype="float64")
    x: Any = torch.randn(T, N, I, dtype=torch.float64, requires_grad=True)
    x = pack_padded_sequence(x, torch.tensor([5, 4, 4, 1])) if packed else x
    state = state_for(net)
    want = second_order(net, x, state)
    with fastrnn.torch.patched():
        got = second_order(net, x, state)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_second_order_of_cells() -> None:
    for make in (torch.nn.LSTMCell, torch.nn.GRUCell, torch.nn.RNNCell):
        net = make(I, H, dtype=torch.float64)
        x = torch.randn(N, I, dtype=torch.float64, requires_grad=True)
        h = torch.randn(N, H, dtype=torch.float64, requires_grad=True)
        state = (h, h.detach().clone().requires_grad_()) if make is torch.nn.LSTMCell else h
        want = second_order(net, x, state)
        with fastrnn.torch.patched():
            agree(second_order(net, x, state), want, "float64")


def test_memory_is_shared_with_numpy() -> None:
    """Nothing is copied on the way in or out: the arrays that the kernels get lie where the tensors do."""
    from fastrnn.torch import autograd, cache

    net = module("lstm")
    x = torch.randn(T, N, I)
    weights = cache.snapshot("lstm", "tanh", True, 1, False, net._flat_weights)
    assert weights is not None
    assert np.shares_memory(autograd.Call(weights, "TNI", T, N).sequence(x), x.numpy())
    for steps, batch in ((T, N), (1, N), (T, 1)):
        for layout, lead in (("TNI", (steps, batch)), ("NTI", (batch, steps)), ("NI", (batch,))):
            call = autograd.Call(weights, layout, 1 if layout == "NI" else steps, batch)
            made = call.new(x, H)
            assert made.shape == (*lead, H)
            assert not made._is_view()
            kernels = call.sequence(made)
            assert kernels.shape == (call.steps, batch, H)
            assert kernels.ctypes.data == made.data_ptr()
    for view, p in zip(weights.views, net.parameters(), strict=True):
        assert np.shares_memory(view, p.detach().numpy())
