"""What programs do around a recurrent call, and PyTorch allows: resize, swap, set a device, patch the patch."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from conftest import required

if required("torch"):
    import torch
else:
    torch = pytest.importorskip("torch")

import fastrnn
import fastrnn.torch
from fastrnn import backends
from fastrnn.torch import autograd

T, N, I, H = 5, 3, 4, 6  # noqa: E741 - the letters of the shapes
KINDS = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    torch.manual_seed(0)
    fastrnn.torch.unpatch()
    fastrnn.torch.report(reset=True)
    yield
    fastrnn.torch.unpatch()
    torch.set_default_device(None)


def went(name: str) -> list[str]:
    return list(fastrnn.torch.report()[name])


@pytest.mark.parametrize("backend", ["cpp", "numpy"])
def test_storages_can_still_be_resized(backend: str) -> None:
    if backend not in backends.available():
        pytest.skip(f"backend {backend} is not here")
    net, x, state = torch.nn.GRU(I, H), torch.randn(T, N, I), torch.zeros(1, N, H)
    with fastrnn.backend(backend), fastrnn.torch.patched():
        y, h = net(x, state)
    with fastrnn.backend(backend), fastrnn.torch.patched(), torch.no_grad():
        want = net(x, state)[0]
        weight = net.weight_ih_l0
        kept = weight.detach().clone()
        nbytes = weight.untyped_storage().nbytes()
        # As FSDP does between uses: the memory goes, and comes back filled.
        weight.untyped_storage().resize_(0)
        weight.untyped_storage().resize_(nbytes)
        weight.copy_(kept)
        assert torch.equal(net(x, state)[0], want)
    assert went("gru") == ["fastrnn"]
    for tensor in (x, state, y.detach(), h.detach()):
        tensor.resize_(2 * tensor.numel())
        assert tensor.shape == (tensor.numel(),)


def test_gradients_can_be_resized() -> None:
    net, x, state = (
        torch.nn.GRU(I, H),
        torch.randn(T, N, I, requires_grad=True),
        torch.zeros(1, N, H, requires_grad=True),
    )
    with fastrnn.torch.patched():
        net(x, state)[0].sum().backward()
    assert went("gru") == ["fastrnn"]
    for tensor in (x.grad, state.grad):
        tensor.untyped_storage().resize_(0)


def test_numbers_that_lie_between_addresses_are_copied() -> None:
    def moved(tensor: Any) -> Any:
        """The same numbers, a byte beyond where such numbers may lie."""
        room = np.zeros(tensor.numel() * 4 + 1, np.uint8)
        room[1:].view(np.float32)[:] = tensor.numpy().ravel()
        return torch.from_numpy(room[1:].view(np.float32)).view(tensor.shape)

    net, x, state = torch.nn.GRU(I, H), torch.randn(T, N, I), torch.randn(1, N, H)
    with torch.no_grad(), fastrnn.torch.patched():
        want = net(x, state)
        for args in ((moved(x), state), (x, moved(state))):
            assert all(torch.equal(a, b) for a, b in zip(net(*args), want, strict=True))
    assert went("gru") == ["fastrnn"]


@pytest.mark.parametrize("change", ["class", "sign"])
def test_weights_that_are_no_longer_plain(change: str) -> None:
    class Mine(torch.nn.Parameter):  # type: ignore[misc]
        pass

    net, x = torch.nn.GRU(I, H), torch.randn(T, N, I)
    with torch.no_grad(), fastrnn.torch.patched():
        net(x)
        weight = net.weight_hh_l0
        if change == "class":
            weight.__class__ = Mine
        else:
            weight.data = torch._neg_view(weight.data)
        weight.mul_(2)
        got = net(x)[0]
        fastrnn.torch.unpatch()
        torch.testing.assert_close(got, net(x)[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(N, T, I), (1, T, I), (N, 1, I)])
def test_strides_are_pytorchs(kind: str, shape: tuple[int, ...]) -> None:
    """Whoever draws dropout on a tensor draws in the order of its memory."""
    net = KINDS[kind](I, H, batch_first=True)

    def call() -> list[Any]:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1), requires_grad=True)
        y = net(x)[0]
        torch.manual_seed(3)
        dropped = torch.nn.functional.dropout(y, 0.5)
        (dx,) = torch.autograd.grad(dropped.sum(), x)
        return [y, dropped, dx]

    want = call()
    with fastrnn.torch.patched():
        got = call()
    assert got[0].stride() == want[0].stride()
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_parameters_can_be_swapped() -> None:
    cell, other, row = torch.nn.GRUCell(I, H), torch.nn.GRUCell(I, H), torch.randn(N, I)
    want = other(row).detach()
    with fastrnn.torch.patched():
        cell(row)
        other(row)
        for mine, theirs in zip(cell.parameters(), other.parameters(), strict=True):
            torch.utils.swap_tensors(mine, theirs)
        torch.testing.assert_close(cell(row), want)

    # A sequence module drops PyTorch's own weak references only while it is converted.
    net, x = torch.nn.LSTM(I, H), torch.randn(T, N, I)
    want = net(x)[0].detach()
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with fastrnn.torch.patched():
            net(x)
            wide = net.double()(x.double())[0]
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)
    torch.testing.assert_close(wide.float(), want)


def test_functions_of_others_on_top_of_the_patch() -> None:
    net, x = torch.nn.GRU(I, H), torch.randn(T, N, I)
    fastrnn.torch.patch()
    below, calls = torch._VF.gru, []

    def on_top(*args: Any) -> Any:
        calls.append(args)
        return below(*args)

    torch._VF.gru = on_top
    try:
        net(x)
        fastrnn.torch.unpatch()
        net(x)  # theirs, and below it PyTorch's own
        assert fastrnn.torch.report(reset=True) == {"gru": {"fastrnn": 1}}
        fastrnn.torch.patch()
        net(x)
        assert fastrnn.torch.report() == {"gru": {"fastrnn": 1}}
        assert len(calls) == 3
    finally:
        fastrnn.torch.unpatch()
        vars(torch._VF).pop("gru", None)
    fastrnn.torch.patch()
    assert torch._VF.gru is below


@pytest.mark.parametrize("kind", ["gru", "rnn"])
def test_changes_that_backward_does_not_see(kind: str) -> None:
    """PyTorch saves no bias, and no input weight if the input wants no gradient."""
    net, x = KINDS[kind](I, H), torch.randn(T, N, I)

    def call(*names: str) -> list[Any]:
        net.zero_grad()
        loss = net(x)[0].square().sum()
        with torch.no_grad():
            for name in names:
                getattr(net, name).add_(1).sub_(1)
        loss.backward()
        return [p.grad for p in net.parameters()]

    unseen = ("weight_ih_l0", "bias_ih_l0", "bias_hh_l0")
    want = call(*unseen)
    with fastrnn.torch.patched():
        got = call(*unseen)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            call("weight_hh_l0")
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_differentiable_gradients_see_every_weight() -> None:
    net, x = torch.nn.GRU(I, H), torch.randn(T, N, I, requires_grad=True)
    with fastrnn.torch.patched():
        y = net(x)[0].sum()
        with torch.no_grad():
            net.bias_ih_l0.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            torch.autograd.grad(y, x, create_graph=True)


def test_differentiable_gradients_under_autocast() -> None:
    """Backward computes in the precision of the forward call, whatever is in force around it."""
    net, x = torch.nn.GRU(I, H), torch.randn(T, N, I, requires_grad=True)
    with fastrnn.torch.patched():
        y = net(x)[0].sum()
        (want,) = torch.autograd.grad(y, x, create_graph=True)
        with torch.autocast("cpu"):
            (got,) = torch.autograd.grad(y, x, create_graph=True)
    assert torch.equal(got, want)


@pytest.mark.skipif(autograd._hooks is None, reason="this PyTorch does not tell whether saved tensors are hooked")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_frees_what_backward_needs(reentrant: bool) -> None:
    """Between forward and backward a checkpointed call holds no output and no tape."""
    net, x = torch.nn.LSTM(I, H), torch.randn(T, N, I, requires_grad=True)
    seen: list[weakref.ref[Any]] = []

    def part(x: Any) -> Any:
        y = net(x)[0]
        seen.append(weakref.ref(y))
        if y.grad_fn is not None:
            tapes.append(list(y.grad_fn.kept[-1]))
        return y.sum()

    tapes: list[list[Any]] = []
    want = torch.autograd.grad(net(x)[0].sum(), [x, *net.parameters()])
    with fastrnn.torch.patched():
        loss = torch.utils.checkpoint.checkpoint(part, x, use_reentrant=reentrant)
        gc.collect()
        assert seen[0]() is None
        assert all(not kept for kept in tapes)
        loss.backward()
    for a, b in zip([x, *net.parameters()], want, strict=True):
        torch.testing.assert_close(a.grad, b, rtol=1e-4, atol=1e-5)


def test_saved_tensors_hooks_see_the_saved_tensors() -> None:
    net, x = torch.nn.LSTM(I, H), torch.randn(T, N, I)
    packed: list[Any] = []
    want = torch.autograd.grad(net(x)[0].sum(), list(net.parameters()))
    with fastrnn.torch.patched():
        with torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t) or t.numpy().copy(), torch.from_numpy):
            y = net(x.clone())[0]
        got = torch.autograd.grad(y.sum(), list(net.parameters()))
    assert packed
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_no_steps_in_a_compiled_call() -> None:
    """An error, as without the patch; the message is that of PyTorch's compiler."""
    net, x = torch.nn.GRU(I, H), torch.randn(0, N, I)
    with torch.no_grad():
        with pytest.raises(RuntimeError, match="sequence length"):
            net(x)
        with fastrnn.torch.patched(), pytest.raises(Exception, match=r"sequence length|cat expects at least one"):
            torch.compile(net, backend="aot_eager")(x)


@pytest.mark.parametrize("name", ["lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"])
def test_absent_weights_are_pytorchs_mistake(name: str) -> None:
    x, h = torch.randn(N, I), torch.randn(N, H)
    args = (x, (h, h) if name == "lstm_cell" else h, None, None, None, None)
    with pytest.raises(Exception) as want:  # noqa: PT011 - whatever PyTorch raises
        getattr(torch._VF, name)(*args)
    with fastrnn.torch.patched(), pytest.raises(type(want.value)) as got:
        getattr(torch._VF, name)(*args)
    assert str(got.value) == str(want.value)


def test_batch_sizes_elsewhere() -> None:
    net = torch.nn.GRU(I, H)
    packed = torch.nn.utils.rnn.pack_padded_sequence(torch.randn(T, N, I), torch.tensor([5, 3, 2]))
    odd = packed._replace(batch_sizes=packed.batch_sizes.to("meta"))
    args = (odd.data, odd.batch_sizes, torch.zeros(1, N, H), net._flat_weights, True, 1, 0.0, False, False)
    with pytest.raises(Exception) as want:  # noqa: PT011 - whatever PyTorch raises
        torch._VF.gru(*args)
    with fastrnn.torch.patched(), pytest.raises(type(want.value)):
        torch._VF.gru(*args)
    assert went("gru") == ["PyTorch: batch sizes that are not in this machine's memory"]


def test_modules_of_ours_leave_the_number_of_threads_alone() -> None:
    net, x = fastrnn.torch.LSTM(I, H), torch.randn(T, N, I)
    if "cpp" not in backends.available():
        pytest.skip("threads are the compiled backend's")
    before = fastrnn.get_num_threads()
    theirs = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        net(x)
        assert fastrnn.get_num_threads() == before
        with fastrnn.torch.patched():
            net(x)
            assert fastrnn.get_num_threads() == before + 1
        assert fastrnn.get_num_threads() == before
    finally:
        torch.set_num_threads(theirs)


def test_a_default_device_is_no_obstacle() -> None:
    net, x = torch.nn.LSTM(I, H, num_layers=2, dropout=0.5), torch.randn(T, N, I)
    torch.manual_seed(1)
    want = net(x)[0]
    torch.set_default_device("cpu")
    with fastrnn.torch.patched():
        torch.manual_seed(1)
        torch.testing.assert_close(net(x)[0], want)
        torch.set_default_device("meta")  # new tensors only: these are here
        state = (torch.zeros(2, N, H, device="cpu"), torch.zeros(2, N, H, device="cpu"))
        y = net(x, state)[0]
        y.sum().backward()
    assert y.device.type == "cpu"
    assert went("lstm") == ["fastrnn"]


def test_inputs_without_memory() -> None:
    """A storage that was resized to nothing is an error and no crash."""
    net, x = torch.nn.GRU(I, H), torch.randn(T, N, I)
    x.untyped_storage().resize_(0)
    with fastrnn.torch.patched(), torch.no_grad(), pytest.raises((ValueError, RuntimeError)):
        net(x, torch.zeros(1, N, H))


def test_seen_arrays_are_what_numpy_sees() -> None:
    from fastrnn.torch import cache

    core = backends.load("cpp").see if "cpp" in backends.available() else cache.see
    whole = torch.randn(4, 6, 8)
    for tensor in (
        whole,
        whole[1:, ::2],
        whole.transpose(0, 2),
        whole[:, :1].expand(4, 3, 8),
        whole[:0],
        whole.double(),
    ):
        want, double = tensor.numpy(), tensor.dtype == torch.float64
        for see in (core, cache.see):
            for layer in (False, True):
                got = see(tensor, double, layer)
                assert np.array_equal(got, want[None] if layer else want)
                assert got.dtype == want.dtype
                assert got.size == 0 or got.ctypes.data == want.ctypes.data
    assert autograd._is_hooked() is False


@pytest.mark.parametrize("grad", [False, True])
def test_what_outlived_a_transform(grad: bool) -> None:
    """Such a tensor has no memory of its own."""
    kept = []

    def total(x: Any) -> Any:
        kept.append(x)
        return x.sum()

    torch.func.grad(total)(torch.randn(T, N, I))
    net = torch.nn.LSTM(I, H)
    want = net(kept[0])[0]
    with fastrnn.torch.patched(), torch.set_grad_enabled(grad):
        torch.testing.assert_close(net(kept[0])[0], want)
