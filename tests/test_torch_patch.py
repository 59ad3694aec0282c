"""`fastrnn.torch.patch`: what goes to fastrnn, what to PyTorch and why, and that packed weights are never stale."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import required

if required("torch"):
    import torch
else:
    torch = pytest.importorskip("torch")

import fastrnn.torch
from fastrnn.torch import cache

T, N, I, H = 4, 3, 5, 8  # noqa: E741 - the letters of the shapes
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _clean() -> Any:
    torch.manual_seed(0)
    fastrnn.torch.report(reset=True)
    yield
    fastrnn.torch.unpatch()
    fastrnn.torch.invalidate()


def both(call: Any) -> tuple[Any, Any]:
    """A call unpatched and patched."""
    fastrnn.torch.unpatch()
    want = call()
    with fastrnn.torch.patched():
        return want, call()


def where(name: str) -> list[str]:
    return list(fastrnn.torch.report(reset=True).get(name, {}))


def close(got: Any, want: Any) -> None:
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_import_of_fastrnn_does_not_import_torch() -> None:
    code = "import sys, fastrnn; print('torch' in sys.modules); import fastrnn.torch, torch; print(torch.nn.LSTM)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "False"
    assert "torch.nn" in done.stdout


def test_patch_and_unpatch() -> None:
    original = torch._VF.lstm
    fastrnn.torch.patch()
    fastrnn.torch.patch()
    assert torch._VF.lstm is not original
    with fastrnn.torch.patched():
        assert torch._VF.lstm is not original
    assert torch._VF.lstm is not original, "patched() ends as it began"
    fastrnn.torch.unpatch()
    assert torch._VF.lstm == original
    assert "lstm" not in vars(torch._VF)
    fastrnn.torch.unpatch()
    with fastrnn.torch.patched(), fastrnn.torch.patched():
        pass
    assert "gru_cell" not in vars(torch._VF)


def test_reaches_every_module() -> None:
    from torch.nn import LSTM as Alias

    class Mine(torch.nn.LSTM):
        pass

    before = torch.nn.GRU(I, H)
    file = io.BytesIO()
    torch.save(torch.nn.RNN(I, H), file)
    file.seek(0)
    x = torch.randn(T, N, I)
    with fastrnn.torch.patched():
        for net in (before, Alias(I, H), Mine(I, H), torch.load(file, weights_only=False), copy.deepcopy(before)):
            net(x)
    assert fastrnn.torch.report() == {
        "gru": {"fastrnn": 2}, "lstm": {"fastrnn": 2}, "rnn_tanh": {"fastrnn": 1},
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_report_is_a_table() -> None:
    assert str(fastrnn.torch.report()) == "no calls yet"
    with fastrnn.torch.patched():
        torch.nn.LSTM(I, H)(torch.randn(T, N, I))
        torch.nn.LSTM(I, H, proj_size=2)(torch.randn(T, N, I))
    table = str(fastrnn.torch.report())
    assert "1 fastrnn" in table
    assert "1 PyTorch: weights of another kind" in table


# -- what is PyTorch's -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.complex64])
def test_other_dtypes(dtype: Any) -> None:
    net = torch.nn.GRU(I, H, dtype=dtype)
    x = torch.randn(T, N, I, dtype=dtype)
    want, got = both(lambda: net(x)[0])
    assert torch.equal(want, got)
    assert where("gru") == [f"PyTorch: dtype {dtype}"]


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_projection() -> None:
    net = torch.nn.LSTM(I, H, proj_size=3)
    want, got = both(lambda: net(torch.ones(T, N, I))[0])
    assert torch.equal(want, got)
    assert where("lstm") == ["PyTorch: weights of another kind (projection, dtype, device)"]


def test_meta_and_fake_tensors() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    want, got = both(lambda: torch.nn.LSTM(I, H, device="meta")(torch.empty(T, N, I, device="meta"))[0])
    assert got.shape == want.shape
    assert got.is_meta
    assert where("lstm") == ["PyTorch: not in this machine's memory"]
    with FakeTensorMode(), fastrnn.torch.patched():
        assert torch.nn.LSTM(I, H)(torch.empty(T, N, I))[0].shape == (T, N, H)
    assert where("lstm")[0].startswith("PyTorch")


def test_autocast() -> None:
    net, x = torch.nn.LSTM(I, H), torch.randn(T, N, I)
    with torch.autocast("cpu", torch.bfloat16):
        want, got = both(lambda: net(x)[0])
    assert want.dtype == got.dtype
    assert torch.equal(want, got)
    assert where("lstm") == ["PyTorch: autocast"]


def test_functorch() -> None:
    net = torch.nn.LSTMCell(I, H)
    weights = dict(net.named_parameters())
    x = torch.randn(N, I)

    def grads() -> Any:
        def loss(w: Any) -> Any:
            return torch.func.functional_call(net, w, (x,))[0].sum()

        return torch.func.grad(loss)(weights)["weight_hh"]

    want, got = both(grads)
    close(got, want)
    assert where("lstm_cell") == ["PyTorch: functorch transform"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own
def test_forward_mode() -> None:
    net, x = torch.nn.GRU(I, H), torch.randn(T, N, I)
    import torch.autograd.forward_ad as fwd

    def tangent() -> Any:
        with fwd.dual_level():
            return fwd.unpack_dual(net(fwd.make_dual(x, torch.ones_like(x)))[0]).tangent

    want, got = both(tangent)
    assert torch.equal(want, got)
    assert where("gru") == ["PyTorch: forward-mode derivatives"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_torchscript() -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = torch.nn.LSTM(I, H)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.rnn(x)[0]

    net, x = Net(), torch.randn(T, N, I)
    want = net(x)
    with fastrnn.torch.patched():
        scripted, traced = torch.jit.script(net), torch.jit.trace(net, x)
        scripted_cell = torch.jit.script(torch.nn.GRUCell(I, H))
    assert "PyTorch: tracing" in where("lstm")
    close(scripted(x), want)
    close(traced(x), want)
    assert scripted_cell(x[0]).shape == (N, H)
    assert "aten::lstm" in str(traced.inlined_graph)


@pytest.mark.skipif(not hasattr(torch.compiler, "is_exporting"), reason="this PyTorch does not tell that it exports")
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_export(strict: bool) -> None:
    net = torch.nn.GRU(I, H).eval()
    x = torch.randn(T, N, I)
    with fastrnn.torch.patched():
        program = torch.export.export(net, (x,), strict=strict)
    assert "fastrnn" not in str(program.graph)
    close(program.module()(x)[0], net(x)[0])


def test_modes_see_their_operations() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    net, x = torch.nn.GRU(I, H), torch.randn(T, N, I)

    def flops() -> int:
        with FlopCounterMode(display=False) as counter:
            net(x)
        return int(counter.get_total_flops())

    want, got = both(flops)
    assert want == got > 0


def test_subclasses_of_tensor() -> None:
    class Mine(torch.Tensor):
        pass

    net, x = torch.nn.GRU(I, H), torch.randn(T, N, I).as_subclass(Mine)
    want, got = both(lambda: net(x)[0])
    assert type(want) is type(got)
    assert where("gru") == ["PyTorch: not a plain tensor"]


BAD: dict[str, Any] = {
    "features": lambda net: net(torch.randn(T, N, I + 1)),
    "dtype": lambda net: net(torch.randn(T, N, I, dtype=torch.float64)),
    "ints": lambda net: net(torch.ones(T, N, I, dtype=torch.int64)),
    "no steps": lambda net: net(torch.randn(0, N, I)),
    "state shape": lambda net: net(torch.randn(T, N, I), bad_state(net, N + 1, H)),
    "state dtype": lambda net: net(torch.randn(T, N, I), bad_state(net, N, H, torch.float64)),
    "hidden": lambda net: net(torch.randn(T, N, I), bad_state(net, N, H + 1)),
    "dims": lambda net: net(torch.randn(T, N, I, 1)),
    "not a tensor": lambda net: net(np.zeros((T, N, I), np.float32)),
    "half weights": lambda net: broken(net)(torch.randn(T, N, I)),
}


def bad_state(net: Any, batch: int, hidden: int, dtype: Any = None) -> Any:
    h = torch.zeros(1, batch, hidden, dtype=dtype)
    return (h, h) if isinstance(net, torch.nn.LSTM) else h


def broken(net: Any) -> Any:
    net = copy.deepcopy(net)
    net.weight_hh_l0.data = net.weight_hh_l0.data.double()
    return net


@pytest.mark.parametrize("kind", [torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN])
@pytest.mark.parametrize("mistake", BAD)
def test_mistakes_are_pytorchs(mistake: str, kind: Any) -> None:
    net = kind(I, H)
    told = []
    for on in (False, True):
        (fastrnn.torch.patch if on else fastrnn.torch.unpatch)()
        try:
            BAD[mistake](net)
        except Exception as error:
            told.append((type(error), str(error)))
        else:
            told.append((type(None), ""))
    assert told[0] == told[1]


def test_mistakes_of_cells_and_packed_sequences() -> None:
    from torch.nn.utils.rnn import PackedSequence

    calls = [
        lambda: torch.nn.GRUCell(I, H)(torch.randn(N, I), torch.randn(N + 1, H)),
        lambda: torch.nn.LSTMCell(I, H)(torch.randn(N, I + 1)),
        lambda: torch.nn.RNNCell(I, H)(torch.randn(N, I), torch.randn(N, H + 1)),
        lambda: torch.nn.GRU(I, H)(PackedSequence(torch.randn(5, I), torch.tensor([2, 2]))),
        lambda: torch.nn.LSTM(I, H)(PackedSequence(torch.randn(5, I + 2), torch.tensor([3, 2]))),
    ]
    for call in calls:
        told = []
        for on in (False, True):
            (fastrnn.torch.patch if on else fastrnn.torch.unpatch)()
            try:
                told.append(len(call()))  # it takes a PackedSequence with rows too many
            except Exception as error:
                told.append((type(error), str(error)))
        assert told[0] == told[1]


# -- weights are never stale -------------------------------------------------------------------------------------------


def changes() -> dict[str, Any]:
    def step(net: Any) -> None:
        for p in net.parameters():
            p.grad = torch.ones_like(p)
        torch.optim.SGD(net.parameters(), 0.1).step()

    def assign(net: Any) -> None:
        net.weight_hh_l0 = torch.nn.Parameter(torch.randn(net.weight_hh_l0.shape))

    def set_data(net: Any) -> None:
        for _ in range(2):  # the second may come to lie where the first weights were
            for p in net.parameters():
                p.data = torch.randn(p.shape)

    def in_place(net: Any) -> None:
        with torch.no_grad():
            net.bias_hh_l0.add_(1)

    return {
        "step": step, "load": lambda net: net.load_state_dict(type(net)(I, H).state_dict()), "in place": in_place,
        "assign": assign, "data": set_data, "to and back": lambda net: (in_place(net), net.double().float()),
        "init": lambda net: torch.nn.init.orthogonal_(net.weight_hh_l0),
        "vector": lambda net: torch.nn.utils.vector_to_parameters(torch.randn(cache_size(net)), net.parameters()),
    }  # fmt: skip


def cache_size(net: Any) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("change", changes())
def test_never_stale(change: str, mode: Any) -> None:
    net, x = torch.nn.LSTM(I, H), torch.randn(T, N, I)
    with mode(), fastrnn.torch.patched():
        before = net(x)[0]
    changes()[change](net)
    with mode():
        want, got = both(lambda: net(x)[0])
        close(got, want)
        assert not torch.allclose(before, got)


def test_data_edits() -> None:
    """PyTorch does not count them: seen where gradients are recorded, told of by `invalidate` elsewhere."""
    net, x = torch.nn.GRU(I, H), torch.randn(T, N, I)
    other = torch.nn.GRU(I, H)
    with fastrnn.torch.patched():
        with torch.no_grad():
            net(x), other(x)
        net.weight_hh_l0.data.mul_(3)
    want, got = both(lambda: net(x)[0])
    close(got, want)
    with torch.no_grad(), fastrnn.torch.patched():
        net(x)
        kept = len(cache._entries)
        net.weight_hh_l0.data.mul_(3)
        fastrnn.torch.invalidate(net)
        assert len(cache._entries) == kept - 1
    with torch.no_grad():
        want, got = both(lambda: net(x)[0])
    close(got, want)


def test_packed_once_and_forgotten_with_the_model() -> None:
    net, x = torch.nn.GRU(I, H), torch.randn(T, N, I)
    with fastrnn.torch.patched(), torch.no_grad():
        net(x)
        (entry,) = cache._entries.values()
        net(x)
        assert list(cache._entries.values()) == [entry]
    del net, entry
    gc.collect()
    assert not cache._entries


def test_computed_weights_are_not_kept() -> None:
    net = torch.nn.utils.parametrizations.weight_norm(torch.nn.GRU(I, H), "weight_hh_l0")
    x = torch.randn(T, N, I)
    want, got = both(lambda: net(x)[0])
    close(got, want)
    assert not cache._entries


def test_inference_tensors() -> None:
    with torch.inference_mode():
        net, x = torch.nn.GRU(I, H), torch.randn(T, N, I)
        want, got = both(lambda: net(x)[0])
        close(got, want)
        net.weight_hh_l0.mul_(2)
        want, got = both(lambda: net(x)[0])
        close(got, want)


def test_pickles_and_copies_are_clean() -> None:
    net, x = torch.nn.LSTM(I, H), torch.randn(T, N, I)
    plain = pickle.dumps(net)
    with fastrnn.torch.patched():
        net(x)
        assert len(pickle.dumps(net)) == len(plain)
        twin = copy.deepcopy(net)
        with torch.no_grad():
            twin.weight_hh_l0.zero_()
            assert not torch.equal(net(x)[0], twin(x)[0])


def test_other_backends() -> None:
    net, x = torch.nn.LSTM(I, H), torch.randn(T, N, I)
    want = net(x)[0]
    for name in ("numpy", "cpp"):
        if name in fastrnn.backends.available():
            with fastrnn.backend(name), fastrnn.torch.patched():
                close(net(x)[0], want)


def test_several_threads() -> None:
    nets = [torch.nn.LSTM(I, H, 2, bidirectional=True) for _ in range(3)]
    x = torch.randn(T, N, I)
    want = [net(x)[0] for net in nets]
    failed: list[Any] = []

    def work(k: int) -> None:
        try:
            for i in range(60):
                net = nets[(i + k) % 3]
                y = net(x)[0]
                close(y, want[(i + k) % 3])
                torch.autograd.grad(y.sum(), net.parameters())
        except Exception as error:
            failed.append(error)

    with fastrnn.torch.patched():
        threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failed
    assert fastrnn.torch.report()["lstm"] == {"fastrnn": 240}


def test_threads_follow_pytorch() -> None:
    net, x = torch.nn.LSTM(I, H), torch.randn(T, N, I)
    own, theirs = fastrnn.get_num_threads(), torch.get_num_threads()
    try:
        with fastrnn.torch.patched():
            for threads in (1, 2, 1):
                torch.set_num_threads(threads)
                net(x)
                assert fastrnn.get_num_threads() == threads
        assert fastrnn.get_num_threads() == own
    finally:
        torch.set_num_threads(theirs)


# -- an unchanged program ----------------------------------------------------------------------------------------------


def test_run_a_script(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("import torch\nnet = torch.nn.GRU(3, 4)\n")
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, torch, beside\nprint(sys.argv[1:], __name__)\nbeside.net(torch.zeros(2, 1, 3))\nsys.exit(3)\n"
    )
    command = [sys.executable, "-m", "fastrnn.torch", "--report", str(script), "-x", "y"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert done.stdout.split("\n")[0] == "['-x', 'y'] __main__"
    assert done.stderr.split() == ["gru", "1", "fastrnn"]
    done = subprocess.run(command[:3], capture_output=True, text=True, check=False)
    assert "usage:" in done.stderr
    assert done.returncode == 1


def test_weights_that_are_not_contiguous() -> None:
    net, x = torch.nn.GRU(I, H), torch.randn(T, N, I)
    net.weight_hh_l0 = torch.nn.Parameter(torch.randn(H, 3 * H).t())
    for mode in (torch.enable_grad, torch.no_grad):
        with mode():
            for _ in range(2):
                want, got = both(lambda: net(x)[0])
                close(got, want)
                net.weight_hh_l0.data.mul_(1.5)
                fastrnn.torch.invalidate(net)
