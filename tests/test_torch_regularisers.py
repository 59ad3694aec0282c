"""Recurrent dropout and zoneout of `fastrnn.torch.LSTM` and its relatives, against fastrnn's own layers.

The same random numbers are drawn a second time here, in the documented order, and given to `fastrnn.functional`.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

from conftest import required

if required("torch"):
    import torch
else:
    torch = pytest.importorskip("torch")

from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import fastrnn
import fastrnn.torch
from fastrnn import backends, functional

T, N, I, H = 5, 4, 3, 8  # noqa: E741 - the letters of the shapes
KINDS = ("LSTM", "GRU", "RNN")
STACKS: list[dict[str, Any]] = [{}, {"num_layers": 2, "bidirectional": True, "dropout": 0.3}]
LENGTHS = torch.tensor([5, 3, 3, 1])
RATES: list[dict[str, Any]] = [{"recurrent_dropout": 0.4}, {"zoneout": 0.3}, {"recurrent_dropout": 0.4, "zoneout": 0.3}]


@pytest.fixture(autouse=True)
def _clean() -> Any:
    torch.manual_seed(0)
    fastrnn.torch.report(reset=True)
    yield
    fastrnn.torch.unpatch()


def tensors(output: Any) -> list[Any]:
    if isinstance(output, PackedSequence):
        return [output.data]
    return [output] if isinstance(output, torch.Tensor) else [t for part in output for t in tensors(part)]


def factors(p: float, *shape: int) -> Any:
    return torch.empty(shape).bernoulli_(1 - p).div_(1 - p).numpy() if p < 1 else np.zeros(shape, np.float32)


def drawn(net: Any, rows: tuple[int, ...]) -> dict[str, Any]:
    """What `functional.forward` takes, of the generator as it stands."""
    stack, both = net.num_layers * (1 + net.bidirectional), H * (1 + net.bidirectional)
    out: dict[str, Any] = {}
    if net.dropout:
        out["dropout"] = np.stack([factors(net.dropout, *rows, both) for _ in range(net.num_layers - 1)])
    if net.recurrent_dropout:
        out["recurrent_dropout"] = factors(net.recurrent_dropout, stack, N, H)
    if net.zoneout:
        rates = net.zoneout if isinstance(net.zoneout, tuple) else (net.zoneout,) * (1 + (net.mode == "LSTM"))
        zones = [torch.empty(stack, T, N, H).bernoulli_(z).numpy() if z else None for z in rates]
        out["zoneout"] = tuple(zones) if net.mode == "LSTM" else zones[0]
    return out


def layer_of(net: Any, kind: str, **options: Any) -> Any:
    options = {**options, "batch_first": net.batch_first}
    layer = getattr(fastrnn, kind)(I, H, rng=0, **options)
    layer.load_state_dict({name: weight.numpy() for name, weight in net.state_dict().items()})
    return layer


@pytest.mark.parametrize("rates", [*RATES, {"recurrent_dropout": 1.0, "zoneout": 1.0}], ids=str)
@pytest.mark.parametrize("stack", STACKS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["dense", "batch_first", "packed"])
def test_against_the_layer(kind: str, stack: dict[str, Any], rates: dict[str, Any], form: str) -> None:
    options = {**stack, **rates, "batch_first": form == "batch_first"}
    net = getattr(fastrnn.torch, kind)(I, H, **options)
    x = torch.randn((N, T, I) if net.batch_first else (T, N, I))
    given: Any = x if form != "packed" else pack_padded_sequence(x, LENGTHS)
    data = tensors(given)[0].requires_grad_()
    rows = (T, N) if form != "packed" else (len(data),)
    torch.manual_seed(7)
    own = drawn(net, rows)
    state = torch.randn(2, net.num_layers * (1 + net.bidirectional), N, H)
    torch.manual_seed(7)
    leaves = state.clone().requires_grad_()
    output = net(given, (leaves[0], leaves[1]) if kind == "LSTM" else leaves[0])
    got = tensors(output)
    loss_of = [torch.randn_like(t) for t in got]
    grads = torch.autograd.grad(got, [data, leaves, *net.parameters()], loss_of)

    layer = layer_of(net, kind, **stack)
    start = tuple(state.numpy()) if kind == "LSTM" else state[0].numpy()
    packed = backends.current().pack(layer._spec, layer.weights.flat)
    plain: Any = given.detach().numpy() if form != "packed" else PackedSequence(data.detach(), given.batch_sizes)
    y, last, tape = functional.forward(packed, plain, start, batch_first=net.batch_first, **own)
    want = [np.asarray(y.data if form == "packed" else y), *(last if kind == "LSTM" else [last])]
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a.detach().numpy(), b)
    dy: Any = loss_of[0].numpy() if form != "packed" else PackedSequence(loss_of[0], given.batch_sizes)
    dlast = [g.numpy() for g in loss_of[1:]]
    mine = functional.backward(tape, dy, tuple(dlast) if kind == "LSTM" else dlast[0])
    dx = mine.x.data if form == "packed" else mine.x
    np.testing.assert_array_equal(grads[0].numpy(), np.asarray(dx))
    dstate = mine.state if kind == "LSTM" else [mine.state]
    for a, b in zip(grads[1], dstate, strict=False):
        np.testing.assert_array_equal(a.numpy(), b)
    for a, (name, _) in zip(grads[2:], net.named_parameters(), strict=True):
        np.testing.assert_array_equal(a.numpy(), mine.weights[name])
    (row,) = fastrnn.torch.report().values()
    assert row == {"fastrnn": 1}


@pytest.mark.parametrize("stack", STACKS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_has_the_expectation(kind: str, stack: dict[str, Any]) -> None:
    net = getattr(fastrnn.torch, kind)(I, H, recurrent_dropout=0.5, zoneout=0.2, **stack).eval()
    x = torch.randn(T, N, I)
    want = layer_of(net, kind, **stack, zoneout=0.2)(x.numpy())[0]
    before = torch.get_rng_state()
    np.testing.assert_allclose(net(x)[0].detach().numpy(), want, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        np.testing.assert_array_equal(net(x[:, 0])[0].numpy(), want[:, 0])
        np.testing.assert_array_equal(net(x)[0].numpy(), want)
        packed = net(pack_padded_sequence(x, torch.tensor([5, 5, 5, 5])))[0]
        np.testing.assert_array_equal(packed.data.view(T, N, -1).numpy(), want)
    assert torch.equal(before, torch.get_rng_state()), "evaluation draws nothing"


def test_recurrent_dropout_alone_is_pytorchs_layer_in_evaluation() -> None:
    net = fastrnn.torch.LSTM(I, H, recurrent_dropout=0.5)
    other = torch.nn.LSTM(I, H)
    other.load_state_dict(net.state_dict())
    x = torch.randn(T, N, I)
    torch.testing.assert_close(net.eval()(x)[0], other(x)[0])
    assert not torch.allclose(net.train()(x)[0], other(x)[0])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("rates", [{"recurrent_dropout": 0.4, "zoneout": 0.3}], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_both_orders(kind: str, rates: dict[str, Any], packed: bool) -> None:
    net = getattr(fastrnn.torch, kind)(I, 3, 2, bidirectional=True, dropout=0.2, dtype=torch.float64, **rates)
    x = pack_padded_sequence(torch.randn(T, 2, I, dtype=torch.float64), torch.tensor([5, 3]))
    data = x.data if packed else torch.randn(3, 2, I, dtype=torch.float64)
    names = [name for name, _ in net.named_parameters()]

    def call(data: Any, *weights: Any) -> Any:
        torch.manual_seed(3)  # so that every evaluation is of the same function
        given = PackedSequence(data, x.batch_sizes) if packed else data
        return tuple(tensors(torch.func.functional_call(net, dict(zip(names, weights, strict=True)), (given,))))

    leaves = [t.detach().clone().requires_grad_() for t in (data, *net.parameters())]
    assert torch.autograd.gradcheck(call, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, leaves, fast_mode=True)
    assert all(set(row) == {"fastrnn"} for row in fastrnn.torch.report().values())


def test_with_lengths_and_reset() -> None:
    """Zoneout of evaluation, which is the same wherever it comes from."""
    net = fastrnn.torch.LSTM(I, H, zoneout=(0.1, 0.4)).eval()
    x, reset = torch.randn(T, N, I), np.zeros((T, N), bool)
    reset[2, 1] = True
    want, _ = layer_of(net, "LSTM", zoneout=(0.1, 0.4))(x.numpy(), lengths=LENGTHS.numpy(), reset=reset)
    with torch.no_grad():
        np.testing.assert_array_equal(net(x, lengths=LENGTHS, reset=reset)[0].numpy(), want)


def test_copies_and_representation() -> None:
    net = fastrnn.torch.LSTM(I, H, recurrent_dropout=0.25, zoneout=(0.1, 0.4)).eval()
    assert repr(net) == f"LSTM({I}, {H}, recurrent_dropout=0.25, zoneout=(0.1, 0.4))"
    assert repr(fastrnn.torch.GRU(I, H, zoneout=0.5)) == f"GRU({I}, {H}, zoneout=0.5)"
    assert repr(fastrnn.torch.RNN(I, H)) == f"RNN({I}, {H})"
    x = torch.randn(T, N, I)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(other(x)[0], net(x)[0])
        assert other.recurrent_dropout == 0.25
    assert list(net.state_dict()) == list(torch.nn.LSTM(I, H).state_dict())
    old = fastrnn.torch.LSTM(I, H)
    for name in ("recurrent_dropout", "zoneout"):
        del old.__dict__[name]  # as of a file from before
    assert old(x)[0].shape == (T, N, H)


@pytest.mark.parametrize(
    ("kind", "options", "error"),
    [
        ("LSTM", {"recurrent_dropout": 1.5}, ValueError),
        ("LSTM", {"recurrent_dropout": "a"}, TypeError),
        ("LSTM", {"zoneout": (0.1,)}, ValueError),
        ("GRU", {"zoneout": (0.1, 0.2)}, TypeError),
        ("RNN", {"zoneout": -1}, ValueError),
    ],
)
def test_mistakes(kind: str, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        getattr(fastrnn.torch, kind)(I, H, **options)


def test_where_only_pytorch_can_compute() -> None:
    net = fastrnn.torch.LSTM(I, H, zoneout=0.1)
    with pytest.raises(RuntimeError, match=r"zoneout.*dtype"):
        copy.deepcopy(net).bfloat16()(torch.randn(T, N, I).bfloat16())
    with pytest.raises(RuntimeError, match="projection"):
        fastrnn.torch.LSTM(I, H, proj_size=2, zoneout=0.1)(torch.randn(T, N, I))
    with pytest.raises(RuntimeError, match="larger than 0"):
        net(torch.randn(0, N, I))
    assert net(torch.randn(T, 0, I))[0].shape == (T, 0, H)
    with pytest.raises(ValueError, match="3-D"):
        net(torch.randn(I))
    with pytest.raises(ValueError, match="PackedSequence"):
        net(pack_padded_sequence(torch.randn(T, N, I), LENGTHS), lengths=LENGTHS)
    with pytest.raises(RuntimeError, match=r"input\.size"):
        net(torch.randn(T, N, I + 1))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_checkpoint_draws_the_same_again() -> None:
    from torch.utils.checkpoint import checkpoint

    net, x = fastrnn.torch.LSTM(I, H, recurrent_dropout=0.5, zoneout=0.2), torch.randn(T, N, I, requires_grad=True)
    torch.manual_seed(1)
    want = torch.autograd.grad(net(x)[0].square().sum(), [x, *net.parameters()])
    torch.manual_seed(1)
    y = checkpoint(lambda x: net(x)[0], x, use_reentrant=False)
    for a, b in zip(torch.autograd.grad(y.square().sum(), [x, *net.parameters()]), want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")  # of the compiler's own imports
@pytest.mark.skipif(torch.__version__.startswith("2.4."), reason="its compiler leaves recurrent modules to PyTorch")
@pytest.mark.parametrize("stack", [{}, {"num_layers": 2, "batch_first": True, "dropout": 0.5}], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_compiled(kind: str, stack: dict[str, Any]) -> None:
    """One node of a graph that does not break; what is drawn drops, and what is expected is the same number."""
    from torch._dynamo.backends.debugging import aot_eager

    net = getattr(fastrnn.torch, kind)(I, H, recurrent_dropout=0.5, zoneout=0.25, **stack)
    x = torch.randn(4, 4, I, requires_grad=True)
    leaves = [x, *net.parameters()]
    try:
        with fastrnn.torch.patched():
            compiled = torch.compile(net, fullgraph=True, backend=aot_eager)
            torch.manual_seed(5)
            first = compiled(x)[0]
            torch.manual_seed(5)
            again = compiled(x)[0]
            other = compiled(x)[0]
            assert torch.equal(first, again)
            assert not torch.equal(first, other)
            assert torch.isfinite(torch.cat([g.flatten() for g in torch.autograd.grad(first.sum(), leaves)])).all()
            net.eval()
            for a, b in zip(torch.autograd.grad(compiled(x)[0].square().sum(), leaves),
                            torch.autograd.grad(net(x)[0].square().sum(), leaves), strict=True):  # fmt: skip
                torch.testing.assert_close(a, b)
            torch.testing.assert_close(compiled(x[0])[0], net(x[0])[0])
    finally:
        torch._dynamo.reset()
