"""The shortcut past PyTorch's forward: when it is taken, that it changes no bit, and who is asked besides."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from conftest import required

if required("torch"):
    import torch
else:
    torch = pytest.importorskip("torch")

import fastrnn.torch
from fastrnn.torch.patch import FORWARDS

T, N, I, H = 4, 3, 5, 8  # noqa: E741 - the letters of the shapes
KINDS = (torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN)


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    torch.manual_seed(0)
    fastrnn.torch.report(reset=True)
    yield
    fastrnn.torch.unpatch()
    fastrnn.torch.invalidate()


@contextmanager
def calls_of(function: Any) -> Iterator[list[int]]:
    """How often a Python function is entered."""
    entered: list[int] = []

    def watch(frame: Any, event: str, _: Any) -> None:
        if event == "call" and frame.f_code is function.__code__:
            entered.append(1)

    sys.setprofile(watch)
    try:
        yield entered
    finally:
        sys.setprofile(None)


def is_taken(kind: Any, call: Any) -> bool:
    """Whether a patched call does without PyTorch's forward."""
    with fastrnn.torch.patched(), calls_of(FORWARDS[kind][0]) as entered:
        call()
    return not entered


def flat(outputs: Any) -> list[Any]:
    return [outputs] if isinstance(outputs, torch.Tensor) else [t for part in outputs for t in flat(part)]


def trained(net: Any, x: Any, hx: Any) -> list[Any]:
    """Outputs and all gradients, from one state of PyTorch's generator."""
    torch.manual_seed(1)
    net.zero_grad()
    x = x.clone().requires_grad_()
    made = flat(net(x, hx))
    sum((o * o).sum() for o in made).backward()
    return [*made, x.grad, *[p.grad.clone() for p in net.parameters()]]


def states(net: Any, batch: int, dtype: Any) -> Any:
    rows = net.num_layers * (1 + net.bidirectional)
    h, c = (torch.randn(rows, batch, H, dtype=dtype) for _ in range(2))
    return (h, c) if isinstance(net, torch.nn.LSTM) else h


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False},
        {"batch_first": True},
        {"num_layers": 2, "dropout": 0.5},
        {"num_layers": 2, "bidirectional": True, "batch_first": True},
        {"nonlinearity": "relu"},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", KINDS)
def test_same_bits(
    kind: Any, options: dict[str, Any], dtype: Any, given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "nonlinearity" in options and kind is not torch.nn.RNN:
        options = {}
    net = kind(I, H, dtype=dtype, **options)
    for steps, batch in ((T, N), (1, 1)):
        x = torch.randn((batch, steps, I) if net.batch_first else (steps, batch, I), dtype=dtype)
        hx = states(net, batch, dtype) if given else None
        assert is_taken(kind, lambda: trained(net, x, hx))  # noqa: B023 - called at once
        with fastrnn.torch.patched():
            short = trained(net, x, hx)
            with torch.no_grad():
                short += flat(net.eval()(x, hx))
            net.train()
            monkeypatch.setattr(kind, "forward", FORWARDS[kind][0])
            long = trained(net, x, hx)
            with torch.no_grad():
                long += flat(net.eval()(x, hx))
            net.train()
            monkeypatch.undo()
        assert [tuple(o.shape) for o in short] == [tuple(o.shape) for o in long]
        for a, b in zip(short, long, strict=True):
            assert torch.equal(a, b)
            assert a.stride() == b.stride()
    assert set(fastrnn.torch.report(reset=True)[net.mode.lower()]) == {"fastrnn"}


@pytest.mark.parametrize("kind", KINDS)
def test_structure_is_pytorchs(kind: Any) -> None:
    net, x = kind(I, H), torch.randn(T, N, I)
    want = net(x)
    with fastrnn.torch.patched():
        got = net(x)
    assert type(got) is type(want) is tuple
    assert [type(o) for o in got] == [type(o) for o in want]


def test_each_call_is_counted_once() -> None:
    net, x = torch.nn.LSTM(I, H), torch.randn(T, N, I)
    with fastrnn.torch.patched():
        net(x)
        net(x.half().float())
        with pytest.raises((ValueError, RuntimeError), match="type"):
            net(x.double())
        with pytest.raises(RuntimeError, match="input_size"):
            net(x[..., 1:])
        net(x[0])
    assert fastrnn.torch.report(reset=True)["lstm"]["fastrnn"] == 3


class Asked(torch.nn.GRU):
    asked = 0

    def check_input(self, *args: Any) -> None:
        self.asked += 1
        super().check_input(*args)


def test_methods_of_others_are_called() -> None:
    net, x = Asked(I, H), torch.randn(T, N, I)
    assert not is_taken(torch.nn.GRU, lambda: net(x))
    assert net.asked == 1
    plain: Any = torch.nn.GRU(I, H)
    asked: list[Any] = []
    check = plain.check_forward_args
    plain.check_forward_args = lambda *args: (asked.append(args), check(*args))
    assert not is_taken(torch.nn.GRU, lambda: plain(x))
    assert len(asked) == 1


def test_a_method_of_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(torch.nn.LSTM, "permute_hidden", lambda *args: (asked.append(args), args[1])[1])
    net, x = torch.nn.LSTM(I, H), torch.randn(T, N, I)
    assert not is_taken(torch.nn.LSTM, lambda: net(x))
    assert asked


def test_a_subclass_that_adds_nothing_gains() -> None:
    class Mine(torch.nn.LSTM):
        def forward(self, x: Any, hx: Any = None) -> Any:
            return super().forward(x * 2, hx)[0]

    net, x = Mine(I, H), torch.randn(T, N, I)
    want = net(x)
    assert is_taken(torch.nn.LSTM, lambda: net(x))
    with fastrnn.torch.patched():
        torch.testing.assert_close(net(x), want, rtol=1e-5, atol=1e-6)


def swapped(net: Any, weight: Any) -> Any:
    net.weight_hh_l0 = weight  # by PyTorch's own __setattr__
    return lambda x: net(x)


def beneath(net: Any, weight: Any) -> Any:
    net._parameters["weight_hh_l0"] = weight  # as functional_call does
    return lambda x: net(x)


def functional(net: Any, weight: Any) -> Any:
    return lambda x: torch.func.functional_call(net, {"weight_hh_l0": weight}, (x,))


def parametrized(net: Any, weight: Any) -> Any:
    class To(torch.nn.Module):
        def forward(self, _: Any) -> Any:
            return weight

    torch.nn.utils.parametrize.register_parametrization(net, "weight_hh_l0", To())
    return lambda x: net(x)


def listed(net: Any, weight: Any) -> Any:
    def call(x: Any) -> Any:  # what the list has, if the parameters are those it was made of
        net._flat_weights = [weight if w is net.weight_hh_l0 else w for w in net._flat_weights]
        return net(x)

    return call


@pytest.mark.parametrize("change", [swapped, beneath, functional, parametrized, listed])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_were_replaced(kind: Any, change: Any) -> None:
    x, weight = torch.randn(T, N, I), torch.nn.Parameter(torch.randn_like(kind(I, H).weight_hh_l0))
    nets = [kind(I, H) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    with fastrnn.torch.patched(), torch.no_grad():
        before = nets[1](x)[0]
    want = change(nets[0], weight)(x)[0]
    with fastrnn.torch.patched():
        got = change(nets[1], weight)(x)[0]
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    assert not torch.equal(got, before)


def test_sizes_that_were_changed_by_hand() -> None:
    net, x = torch.nn.LSTM(I, H), torch.randn(T, N, I)
    net.input_size = I + 1
    for around in (fastrnn.torch.unpatch, fastrnn.torch.patch):
        around()
        with pytest.raises(RuntimeError, match="input_size"):
            net(x)


def test_functions_of_others_see_every_call() -> None:
    net, x, seen = torch.nn.LSTM(I, H), torch.randn(T, N, I), []
    with fastrnn.torch.patched():
        ours = torch._VF.lstm
        torch._VF.lstm = lambda *args: (seen.append(args), ours(*args))[1]
        try:
            net(x)
        finally:
            torch._VF.lstm = ours
        assert len(seen) == 1
        net(x)
        assert len(seen) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_class_is_left_as_it_was(kind: Any) -> None:
    original, shorter = FORWARDS[kind]
    assert kind.forward is original
    with fastrnn.torch.patched():
        assert kind.forward is shorter
        assert inspect.signature(kind.forward) == inspect.signature(original)
        assert inspect.getsource(kind.forward) == inspect.getsource(original)
    assert kind.forward is original


def test_forwards_of_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    original = FORWARDS[torch.nn.GRU][0]

    def theirs(self: Any, x: Any, hx: Any = None) -> Any:
        y, h = original(self, x, hx)
        return y + 1, h

    net, x = torch.nn.GRU(I, H), torch.randn(T, N, I)
    want = net(x)[0] + 1
    monkeypatch.setattr(torch.nn.GRU, "forward", theirs)
    with fastrnn.torch.patched():
        torch.testing.assert_close(net(x)[0], want, rtol=1e-5, atol=1e-6)
        assert torch.nn.GRU.forward is theirs
    assert torch.nn.GRU.forward is theirs
    monkeypatch.undo()
    with fastrnn.torch.patched():
        inner = torch.nn.GRU.forward
        torch.nn.GRU.forward = lambda self, x, hx=None: (inner(self, x, hx)[0] + 1, None)  # on top
    try:
        fastrnn.torch.report(reset=True)
        torch.testing.assert_close(net(x)[0], want, rtol=1e-5, atol=1e-6)
        assert not fastrnn.torch.report()
    finally:
        torch.nn.GRU.forward = original


@pytest.mark.parametrize("kind", KINDS)
def test_second_derivatives_without_a_state(kind: Any) -> None:
    net = kind(2, 3, dtype=torch.float64)
    x = torch.randn(2, 2, 2, dtype=torch.float64, requires_grad=True)
    with fastrnn.torch.patched():
        assert torch.autograd.gradcheck(lambda x: net(x)[0], (x,))
        assert torch.autograd.gradgradcheck(lambda x: net(x)[0], (x,))


def test_modules_of_ours_take_it_too() -> None:
    net, x = fastrnn.torch.LSTM(I, H), torch.randn(T, N, I)
    with calls_of(type(net)._plain) as entered:
        y = net(x)[0]
    assert not entered
    with calls_of(type(net)._plain) as entered:
        net.half()(x.half())
    assert len(entered) == 1
    assert fastrnn.torch.report()["lstm"]["fastrnn"] == 1
    assert np.isfinite(y.detach().numpy()).all()


BEFORE = """
import torch
asked, x = [], torch.randn(4, 3, 5)
net = torch.nn.LSTM(5, 8)
original = torch.nn.LSTM.{name}
def theirs(self, *args):
    asked.append(1)
    return original(self, *args)
torch.nn.LSTM.{name} = theirs
import fastrnn.torch
with fastrnn.torch.patched():
    net(x)
    torch.nn.GRU(5, 8)(x)
    fastrnn.torch.LSTM(5, 8)(x)
print(len(asked), torch.nn.LSTM.{name} is theirs, fastrnn.torch.report())
"""


@pytest.mark.parametrize("name", ["forward", "check_forward_args"])
def test_what_was_replaced_before_the_import(name: str) -> None:
    command = [sys.executable, "-c", BEFORE.format(name=name)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("2 True")
    assert done.stdout.split()[2:] == ["gru", "1", "fastrnn", "lstm", "2", "fastrnn"]


@pytest.mark.parametrize("mode", [None, 7, "GRU"])
def test_a_mode_that_pytorch_does_not_read(mode: Any) -> None:
    net: Any = torch.nn.LSTM(I, H)
    net.mode = mode
    x = torch.randn(T, N, I)
    want = net(x)[0]
    with fastrnn.torch.patched():
        torch.testing.assert_close(net(x)[0], want, rtol=1e-5, atol=1e-6)


def test_a_mode_that_pytorch_refuses() -> None:
    net: Any = torch.nn.RNN(I, H)
    net.mode = "rnn_tanh"
    with fastrnn.torch.patched(), pytest.raises(Exception) as ours:  # noqa: PT011 - PyTorch's, whatever it is
        net(torch.randn(T, N, I))
    with pytest.raises(type(ours.value)):
        net(torch.randn(T, N, I))


class Borrowed(torch.nn.RNNBase):
    """No LSTM, but it calls the method of one."""

    def __init__(self) -> None:
        super().__init__("LSTM", I, H)

    def check_forward_args(self, input: Any, hidden: Any, batch_sizes: Any) -> None:
        self.check_input(input, batch_sizes)

    def permute_hidden(self, hx: Any, permutation: Any) -> Any:
        return hx

    def forward(self, x: Any) -> Any:
        return torch.nn.LSTM.forward(self, x)  # type: ignore[arg-type]


def test_a_borrowed_forward() -> None:
    net, x = Borrowed(), torch.randn(T, N, I)
    want = net(x)[0]
    with fastrnn.torch.patched():
        torch.testing.assert_close(net(x)[0], want, rtol=1e-5, atol=1e-6)


def test_another_vf_in_pytorchs_module(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shim:
        asked = 0

        def lstm(self, *args: Any) -> Any:
            self.asked += 1
            return torch._VF.lstm(*args)

    shim = Shim()
    monkeypatch.setattr(torch.nn.modules.rnn, "_VF", shim)
    with fastrnn.torch.patched():
        torch.nn.LSTM(I, H)(torch.randn(T, N, I))
    assert shim.asked == 1


@pytest.mark.parametrize("how", ["attribute", "property"])
def test_weights_that_are_shadowed(how: str) -> None:
    class Shadowed(torch.nn.LSTM):
        pass

    x = torch.randn(T, N, I)
    net = Shadowed(I, H)
    weight = torch.zeros_like(net.weight_hh_l0)
    if how == "attribute":
        net.__dict__["weight_hh_l0"] = weight
    else:
        Shadowed.weight_hh_l0 = property(lambda _: weight)  # type: ignore[assignment]
    want = net(x)[0]
    with fastrnn.torch.patched():
        torch.testing.assert_close(net(x)[0], want, rtol=1e-5, atol=1e-6)


class Scaled(torch.nn.LSTM):
    """The weights that PyTorch's forward finds are not those that the module holds."""

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return [3 * w for w in found] if name == "_flat_weights" else found


class Property(torch.nn.LSTM):
    @property  # type: ignore[override]
    def _flat_weights(self) -> Any:
        return [3 * w for w in vars(self)["_flat_weights"]]

    @_flat_weights.setter
    def _flat_weights(self, weights: Any) -> None:
        vars(self)["_flat_weights"] = weights


@pytest.mark.parametrize("kind", [Scaled, Property])
def test_a_list_of_weights_that_is_made_when_asked(kind: Any) -> None:
    net, x = kind(I, H), torch.randn(T, N, I)
    want = net(x)[0]
    with fastrnn.torch.patched():
        torch.testing.assert_close(net(x)[0], want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [{"bias": 1}, {"bias": None}, {"num_layers": 1.0}, {"bidirectional": 0}, {"batch_first": None}, {"training": 1},
     {"dropout": "a"}],
)  # fmt: skip
@pytest.mark.parametrize("kind", KINDS)
def test_options_of_other_types(kind: Any, options: dict[str, Any]) -> None:
    """Set by hand: they mean, or raise, what they do without the patch."""
    net, x = kind(I, H), torch.randn(T, N, I)
    vars(net).update(options)

    def outcome() -> Any:
        try:
            return net(x)[0]
        except (TypeError, RuntimeError, ValueError) as error:
            return type(error), str(error)

    want = outcome()
    with fastrnn.torch.patched():
        got = outcome()
    if isinstance(want, torch.Tensor):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    else:
        assert got == want


UNCHOSEN = "import sys, fastrnn.torch; assert 'fastrnn.backends._core' not in sys.modules"


def test_the_import_chooses_no_backend() -> None:
    subprocess.run([sys.executable, "-c", UNCHOSEN], check=True)


def test_a_projection_by_hand() -> None:
    net, x = torch.nn.LSTM(I, H), torch.randn(T, N, I)
    net.proj_size = 3
    for around in (fastrnn.torch.unpatch, fastrnn.torch.patch):
        around()
        with pytest.raises(RuntimeError):
            net(x)


class Outer(torch.nn.Module):
    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Any) -> Any:
        y, state = self.net(x)
        return 2 * y, state


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_modules(kind: Any) -> None:
    """By themselves the compiler begins with the forward that was replaced; inside another, with that one's."""
    for inside in (False, True):
        net: Any = Outer(kind(I, H)) if inside else kind(I, H)
        x = torch.randn(T, N, I)
        want = net(x)[0]
        with fastrnn.torch.patched():
            compiled = torch.compile(net, backend="aot_eager")
            torch.testing.assert_close(compiled(x)[0], want, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(compiled(x)[0], want, rtol=1e-5, atol=1e-5)
        torch.compiler.reset()
        with fastrnn.torch.patched():
            torch.export.export(net, (x,), strict=True)
        torch.compiler.reset()


def test_functions_below_the_patch() -> None:
    net, x, seen = torch.nn.LSTM(I, H), torch.randn(T, N, I), []
    original = torch._VF.lstm
    theirs = torch._VF.lstm = lambda *args: (seen.append(args), original(*args))[1]
    try:
        with fastrnn.torch.patched():
            net(x)
            assert not seen
            net.double()(x.double().to_sparse().to_dense())
            with torch.autocast("cpu", torch.bfloat16):
                net.float()(x)
            assert len(seen) == 1, "what is not ours is theirs"
        assert torch._VF.lstm is theirs
        net(x)
        assert len(seen) == 2
    finally:
        del torch._VF.lstm


def test_our_function_put_back_by_hand() -> None:
    net, x = torch.nn.LSTM(I, H), torch.randn(T, N, I)
    with fastrnn.torch.patched():
        ours = torch._VF.lstm
    torch._VF.lstm = ours
    try:
        with fastrnn.torch.patched(), torch.autocast("cpu", torch.bfloat16):
            assert net(x)[0].shape == (T, N, H)
    finally:
        fastrnn.torch.unpatch()
        vars(torch._VF).pop("lstm", None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_nested_tensors(kind: Any) -> None:
    net = kind(I, H)
    x = torch.nested.nested_tensor([torch.randn(T, I)] * N, layout=torch.strided)

    def tried() -> Any:
        try:
            return net(x)[0]
        except Exception as error:  # whatever PyTorch says
            return str(error)

    want = tried()
    with fastrnn.torch.patched():
        got = tried()
    assert got == want if isinstance(want, str) else torch.equal(got, want)
