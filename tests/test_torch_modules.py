"""`fastrnn.torch.LSTM` and its relatives, and what surrounds a module in programs: hooks, checkpoints, processes."""

from __future__ import annotations

import copy
import itertools
import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import required

if required("torch"):
    import torch
else:
    torch = pytest.importorskip("torch")

from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import fastrnn.torch

T, N, I, H = 6, 4, 3, 8  # noqa: E741 - the letters of the shapes
PAIRS = [(getattr(fastrnn.torch, name), getattr(torch.nn, name)) for name in ("LSTM", "GRU", "RNN")]
CELLS = [(getattr(fastrnn.torch, name), getattr(torch.nn, name)) for name in ("LSTMCell", "GRUCell", "RNNCell")]


@pytest.fixture(autouse=True)
def _clean() -> Any:
    torch.manual_seed(0)
    fastrnn.torch.report(reset=True)
    yield
    fastrnn.torch.unpatch()


def twin(ours: Any, theirs: Any, *sizes: int, **options: Any) -> tuple[Any, Any]:
    a, b = ours(*sizes, **options), theirs(*sizes, **options)
    b.load_state_dict(a.state_dict())
    return a, b


def tensors(output: Any) -> list[Any]:
    return [output] if isinstance(output, torch.Tensor) else [t for part in output for t in tensors(part)]


def close(got: Any, want: Any) -> None:
    for a, b in zip(tensors(got), tensors(want), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=2e-6)


def gradients(output: Any, *leaves: Any) -> Any:
    return torch.autograd.grad(sum(o.square().sum() for o in tensors(output)), leaves)


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True}], ids=str)
@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_is_pytorchs_module(ours: Any, theirs: Any, options: dict[str, Any]) -> None:
    a, b = twin(ours, theirs, I, H, **options)
    assert isinstance(a, theirs)
    a.flatten_parameters()
    x = torch.randn(T, N, I)
    for net in (a, pickle.loads(pickle.dumps(a)), copy.deepcopy(a)):
        close(net(x), b(x))
        close(net(x[0]), b(x[0]))
        close(gradients(net(x), *net.parameters()), gradients(b(x), *b.parameters()))
    packed = pack_padded_sequence(x, torch.tensor([3, 4, 1, 4] if not options else [2, 3, 1, 4, 4, 1]),
                                  batch_first=bool(options), enforce_sorted=False)  # fmt: skip
    close(a(packed)[0].data, b(packed)[0].data)
    (row,) = fastrnn.torch.report().values()
    assert list(row) == ["fastrnn"], "fastrnn's without the patch, and PyTorch's are not counted"
    assert a.double()(x.double())[0].dtype == torch.float64


@pytest.mark.parametrize(("ours", "theirs"), CELLS)
def test_cells(ours: Any, theirs: Any) -> None:
    a, b = twin(ours, theirs, I, H)
    x = torch.randn(N, I)
    close(a(x), b(x))
    close(a(x[0]), b(x[0]))
    close(a(x, a(x)), b(x, b(x)))
    assert len(fastrnn.torch.report()) == 1


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_lengths_are_a_packed_sequence(ours: Any, theirs: Any, first: bool) -> None:
    a, b = twin(ours, theirs, I, H, num_layers=2, bidirectional=True, batch_first=first)
    x = torch.randn((N, T, I) if first else (T, N, I), requires_grad=True)
    lengths = torch.tensor([2, 6, 1, 4])
    y, state = a(x, lengths=lengths)
    packed, want_state = b(pack_padded_sequence(x, lengths, batch_first=first, enforce_sorted=False))
    want = pad_packed_sequence(packed, batch_first=first)[0]
    close((y, state), (want, want_state))
    close(gradients((y, state), x, *a.parameters()), gradients((want, want_state), x, *b.parameters()))
    assert not a(x, lengths=[0, 0, 0, 0])[0].any()


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_reset_is_a_cut(ours: Any, theirs: Any) -> None:
    a, b = twin(ours, theirs, I, H, num_layers=2)
    x = torch.randn(T, N, I, requires_grad=True)
    hx = torch.randn(2, N, H, requires_grad=True)
    state = (hx, hx) if theirs is torch.nn.LSTM else hx
    reset = torch.zeros(T, N, dtype=torch.bool)
    reset[2, 1] = reset[4, 1] = reset[3, 0] = True
    y, last = a(x, state, reset=reset)
    rows, lasts = [], []
    for n, cuts in enumerate([[0, 3, T], [0, 2, 4, T], [0, T], [0, T]]):
        now: Any = tuple(s[:, n : n + 1] for s in state) if isinstance(state, tuple) else state[:, n : n + 1]
        pieces = []
        for begin, end in itertools.pairwise(cuts):
            piece, after = b(x[begin:end, n : n + 1], now)
            pieces.append(piece)
            now = None
        rows.append(torch.cat(pieces))
        lasts.append(tensors(after))
    want = [torch.cat(rows, 1), *(torch.cat(parts, 1) for parts in zip(*lasts, strict=True))]
    close(tensors((y, last)), want)
    close(gradients((y, last), x, hx, *a.parameters()), gradients(want, x, hx, *b.parameters()))


def test_second_order_with_lengths_and_reset() -> None:
    a = fastrnn.torch.LSTM(I, H, bidirectional=True, dtype=torch.float64)
    x = torch.randn(T, 2, I, dtype=torch.float64, requires_grad=True)
    reset = torch.zeros(T, 2)
    reset[2, 0] = reset[3, 1] = 1
    call = lambda x: a(x, lengths=[6, 4], reset=reset.bool())[0]  # noqa: E731
    assert torch.autograd.gradcheck(call, (x,), fast_mode=True)
    assert torch.autograd.gradgradcheck(call, (x,), fast_mode=True)


def test_mistakes() -> None:
    a = fastrnn.torch.GRU(I, H)
    x = torch.randn(T, N, I)
    with pytest.raises(ValueError, match="lengths"):
        a(x, lengths=[1, 2])
    with pytest.raises(ValueError, match="reset"):
        a(x, reset=[True])
    with pytest.raises(ValueError, match="3-D"):
        a(x[0], lengths=[1])
    with pytest.raises(RuntimeError, match=r"input\.size"):
        a(torch.randn(T, N, I + 1), lengths=[1] * N)
    with pytest.raises(RuntimeError, match="dtype"):
        a.bfloat16()(x.bfloat16(), lengths=[1] * N)


# -- what surrounds a module -------------------------------------------------------------------------------------------


def test_hooks() -> None:
    net, x = torch.nn.LSTM(I, H), torch.randn(T, N, I, requires_grad=True)
    seen = []
    net.register_forward_hook(lambda *_: seen.append("forward"))
    net.register_full_backward_hook(lambda *_: seen.append("backward"))
    net.weight_hh_l0.register_hook(lambda g: g * 2)
    with fastrnn.torch.patched():
        net(x)[0].sum().backward()
    doubled = net.weight_hh_l0.grad.clone()
    assert seen == ["forward", "backward"]
    net.zero_grad()
    net(x)[0].sum().backward()
    close(doubled, net.weight_hh_l0.grad)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint(reentrant: bool) -> None:
    from torch.utils.checkpoint import checkpoint

    net, x = torch.nn.LSTM(I, H, 2, dropout=0.5), torch.randn(T, N, I, requires_grad=True)
    want = gradients((torch.manual_seed(1), net(x)[0])[1], x, *net.parameters())
    with fastrnn.torch.patched():
        torch.manual_seed(1)
        y = checkpoint(lambda x: net(x)[0], x, use_reentrant=reentrant)
        y.square().sum().backward()
    close([x.grad, *(p.grad for p in net.parameters())], list(want))


class Rows(torch.utils.data.Dataset[Any]):
    """Each item is made by a recurrent net."""

    def __init__(self) -> None:
        self.net = torch.nn.GRU(I, 64, 2)
        self.x = torch.randn(8, 40, I)

    def __len__(self) -> int:
        return 8

    def __getitem__(self, k: int) -> Any:
        with torch.no_grad():
            return self.net(self.x[k])[0]


@pytest.mark.parametrize("what", ["load_with_workers", "share_memory"])
def test_after_a_fork(what: str) -> None:
    """In a process of its own: another test's threads, JAX's for instance, must not be copied by the fork."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_torch_modules as t; t.{what}()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def load_with_workers() -> None:
    rows = Rows()
    want = torch.stack([rows[k] for k in range(8)])
    with fastrnn.torch.patched():
        rows[0]  # the pool of threads and the packed weights exist before the fork
        loader = torch.utils.data.DataLoader(rows, batch_size=4, num_workers=2, multiprocessing_context="fork")
        close(torch.cat(list(loader)), want)


def _double(net: Any) -> None:
    with torch.no_grad():
        net.weight_hh_l0.mul_(2)


def share_memory() -> None:
    """Another process changes the weights, which no version here tells of."""
    net, x = torch.nn.GRU(I, H).share_memory(), torch.randn(T, N, I)
    with torch.no_grad():
        with fastrnn.torch.patched():
            net(x)
        process = multiprocessing.get_context("fork").Process(target=_double, args=(net,))
        process.start()
        process.join()
        want = net(x)
        with fastrnn.torch.patched():
            close(net(x), want)


def _replica(rank: int, folder: str) -> None:
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    fastrnn.torch.patch()
    torch.manual_seed(0)
    net = torch.nn.parallel.DistributedDataParallel(torch.nn.LSTM(I, H, 2))
    x = torch.randn(T, 2 * N, I)
    optimiser = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(3):
        optimiser.zero_grad()
        net(x[:, rank * N : (rank + 1) * N])[0].square().mean().backward()
        optimiser.step()
    torch.save([list(net.module.state_dict().values()), dict(fastrnn.torch.report())], f"{folder}/{rank}")
    # Without destroy_process_group: taking Gloo's threads down can wait for ever where the other rank goes first.
    dist.barrier()
    os._exit(0)


def test_distributed_data_parallel(tmp_path: Path) -> None:
    if not torch.distributed.is_available():
        pytest.skip("this PyTorch was built without torch.distributed")
    replicas = torch.multiprocessing.start_processes(
        _replica, (str(tmp_path),), nprocs=2, join=False, start_method="spawn"
    )
    if not any(replicas.join(timeout=10) for _ in range(12)):
        for process in replicas.processes:
            process.kill()
        pytest.fail("the replicas did not end within two minutes")
    torch.manual_seed(0)
    net = torch.nn.LSTM(I, H, 2)
    x = torch.randn(T, 2 * N, I)
    optimiser = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(3):
        optimiser.zero_grad()
        net(x)[0].square().mean().backward()
        optimiser.step()
    for rank in range(2):
        weights, counts = torch.load(tmp_path / str(rank), weights_only=False)
        close(weights, list(net.state_dict().values()))
        assert counts == {"lstm": {"fastrnn": 3}}


def test_linear_and_lstm_on_two_threads() -> None:
    """Two pools of threads, one after the other in every step: results as with one."""
    model = torch.nn.ModuleList([torch.nn.Linear(64, 64), torch.nn.LSTM(64, 64, 2)])
    x = torch.randn(20, 16, 64)
    threads = torch.get_num_threads()
    outputs = []
    try:
        with fastrnn.torch.patched():
            for count in (1, 2):
                torch.set_num_threads(count)
                y = model[1](model[0](x).relu())[0]
                outputs.append([y, *gradients(y, *model[1].parameters())])
    finally:
        torch.set_num_threads(threads)
    close(*outputs)
