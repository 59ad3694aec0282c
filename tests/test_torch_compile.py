"""`torch.compile` with `fastrnn.torch.patch`: one node for each call, no break in the graph, gradients as without."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import required

if required("torch"):
    import torch
else:
    torch = pytest.importorskip("torch")

import fastrnn.torch

T, N, I, H = 4, 3, 5, 8  # noqa: E741 - the letters of the shapes

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of the compiler's own imports
    pytest.mark.skipif(torch.__version__.startswith("2.4."), reason="its compiler leaves recurrent modules to PyTorch"),
]


@pytest.fixture(autouse=True)
def _clean() -> Any:
    torch.manual_seed(0)
    torch._dynamo.reset()
    yield
    fastrnn.torch.unpatch()
    torch._dynamo.reset()


def graphs() -> tuple[Any, list[Any]]:
    """A backend of the compiler that keeps what it is given."""
    seen: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        from torch._dynamo.backends.debugging import aot_eager

        seen.append(graph)
        return aot_eager(graph, inputs)

    return backend, seen


class Model(torch.nn.Module):
    def __init__(self, kind: Any, **options: Any) -> None:
        super().__init__()
        self.rnn = kind(I, H, **options)
        self.out = torch.nn.Linear(H * (1 + self.rnn.bidirectional), 2)

    def forward(self, x: Any) -> Any:
        y, state = self.rnn(x.sin())
        return self.out(y).relu(), state


def gradients(call: Any, x: Any, model: Any) -> list[Any]:
    x = x.clone().requires_grad_()
    y, state = call(x)
    loss = y.square().sum() + (state[0] if isinstance(state, tuple) else state).sum()
    return [y.detach(), *torch.autograd.grad(loss, [x, *model.parameters()])]


def close(got: list[Any], want: list[Any]) -> None:
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True}], ids=str)
@pytest.mark.parametrize("kind", [torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN])
def test_one_node(kind: Any, options: dict[str, Any]) -> None:
    model, x = Model(kind, **options), torch.randn(T, N, I)
    want = gradients(model, x, model)
    with fastrnn.torch.patched():
        backend, seen = graphs()
        compiled = torch.compile(model, fullgraph=True, backend=backend)
        close(gradients(compiled, x, model), want)
        with torch.no_grad():
            close([compiled(x)[0]], want[:1])
    assert str(seen[0].graph).count("fastrnn.recurrent") == 1


def test_cells() -> None:
    for kind in (torch.nn.LSTMCell, torch.nn.GRUCell):
        net, x = kind(I, H), torch.randn(N, I, requires_grad=True)

        def step(x: Any, net: Any = net) -> Any:
            h = net(x)
            return (h[0] + h[1] if isinstance(h, tuple) else h).square().sum()

        want = torch.autograd.grad(step(x), [x, *net.parameters()])
        with fastrnn.torch.patched():
            backend, seen = graphs()
            got = torch.autograd.grad(torch.compile(step, fullgraph=True, backend=backend)(x), [x, *net.parameters()])
        close(list(got), list(want))
        assert "fastrnn.recurrent" in str(seen[0].graph)


def test_dropout_is_drawn_and_differentiated() -> None:
    model = Model(torch.nn.GRU, num_layers=2, dropout=0.5)
    x = torch.randn(T, N, I)
    with fastrnn.torch.patched():
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        first, second = gradients(compiled, x, model), gradients(compiled, x, model)
        assert not torch.equal(first[0], second[0])
        model.eval()
        close([compiled(x)[0]], [model(x)[0]])


def test_inductor() -> None:
    model, x = Model(torch.nn.LSTM), torch.randn(T, N, I)
    with torch.no_grad():
        want = model(x)[0]
        with fastrnn.torch.patched():
            close([torch.compile(model, fullgraph=True)(x)[0]], [want])


def test_the_compilers_setting_is_restored() -> None:
    import torch._dynamo.config as config

    before, compiler = getattr(config, "allow_rnn", None), torch.compile
    with fastrnn.torch.patched():
        torch.compile(torch.nn.GRU(I, H))
        assert getattr(config, "allow_rnn", True)
    assert getattr(config, "allow_rnn", None) == before
    assert torch.compile is compiler


def test_operators_are_sound() -> None:
    """PyTorch's own checks of a custom operator: schema, fake tensors, autograd registration."""
    for cell, net in (("lstm", torch.nn.LSTM(I, H)), ("gru", torch.nn.GRU(I, H))):
        h = torch.zeros(1, N, H, requires_grad=True)
        x = torch.randn(T, N, I, requires_grad=True)
        args = (cell, "tanh", "TNI", False, 1, True, x, h, h.detach().clone() if cell == "lstm" else None)
        torch.library.opcheck(torch.ops.fastrnn.recurrent.default, (*args, list(net.parameters()), None, []))
