"""The programs of examples/torch, a few seconds each: with the patch they learn what they learn without."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import required

if required("torch"):
    import torch
else:
    torch = pytest.importorskip("torch")

import fastrnn.torch

FOLDER = Path(__file__).parents[1] / "examples" / "torch"
# program -> what it needs, and the functions that it is to reach
PROGRAMS = {
    "language_model": ((), {"lstm"}),
    "tagger": ((), {"lstm"}),
    "forecaster": ((), {"lstm"}),
    "recurrent_ppo": (("sb3_contrib", "gymnasium"), {"lstm", "sb3 sequence"}),
    "darts_rnn": (("darts", "pytorch_lightning"), {"gru"}),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_same_curve(name: str) -> None:
    needs, functions = PROGRAMS[name]
    for package in needs:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    paths = [str(Path(fastrnn.torch.__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py"), "--small", "--json"],
        capture_output=True, text=True, timeout=300, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    want, *rest = result["curves"].values()
    assert len(want) > 1
    for got in rest:
        assert got == pytest.approx(want, rel=1e-3, abs=1e-3)
    assert all(set(row) == {"fastrnn"} for row in result["report"].values())
    assert functions <= set(result["report"])


def test_every_program_is_tested() -> None:
    assert {path.stem for path in FOLDER.glob("[!_]*.py")} == set(PROGRAMS)


@pytest.fixture
def policy() -> Iterator[Any]:
    if importlib.util.find_spec("sb3_contrib") is None:
        pytest.skip("sb3_contrib is not installed")
    from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy

    fastrnn.torch.report(reset=True)
    yield RecurrentActorCriticPolicy
    fastrnn.torch.unpatch()


def sequences(policy: Any, lstm: Any, starts: Any, batch: int) -> list[Any]:
    """Outputs, states and all gradients."""
    torch.manual_seed(3)
    features = torch.randn(len(starts), lstm.input_size, requires_grad=True)
    states = tuple(torch.randn(lstm.num_layers, batch, lstm.hidden_size, requires_grad=True) for _ in range(2))
    y, last = policy._process_sequence(features, states, starts, lstm)
    loss = (y * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum() + last[0].sum() + last[1].square().sum()
    return [y, *last, *torch.autograd.grad(loss, [features, *states, *lstm.parameters()])]


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("batch", "steps"), [(1, 1), (3, 7), (4, 1)])
def test_sb3_sequences(policy: Any, layers: int, share: float, batch: int, steps: int) -> None:
    lstm = torch.nn.LSTM(5, 8, layers)
    starts = (torch.rand(batch * steps, generator=torch.Generator().manual_seed(1)) < share).float()
    original = policy._process_sequence
    want = sequences(policy, lstm, starts, batch)
    fastrnn.torch.patch(sb3=True)
    got = sequences(policy, lstm, starts, batch)
    assert fastrnn.torch.report() == {"sb3 sequence": {"fastrnn": 1}}
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    fastrnn.torch.unpatch()
    assert policy._process_sequence is original


@pytest.mark.parametrize("what", ["half", "fractions", "hook", "bidirectional"])
def test_sb3_sequences_that_are_not_ours(policy: Any, what: str) -> None:
    """They take the way they took, with the same result."""
    lstm = torch.nn.LSTM(5, 8, bidirectional=what == "bidirectional")
    starts = torch.tensor([0.0, 0.0, 1.0, 0.0, 1.0, 0.0])
    if what == "fractions":
        starts = starts * 0.5
    if what == "hook":
        lstm.register_forward_hook(lambda *_: None)
    if what == "half":
        lstm = lstm.half()
    states = tuple(torch.zeros(1 + lstm.bidirectional, 2, 8, dtype=lstm.weight_ih_l0.dtype) for _ in range(2))
    features = torch.ones(6, 5, dtype=states[0].dtype)

    def call() -> list[Any]:
        with torch.no_grad():
            y, last = policy._process_sequence(features, states, starts.to(features.dtype), lstm)
        return [y, *last]

    want = call()
    fastrnn.torch.patch(sb3=True)
    got = call()
    assert "fastrnn" not in fastrnn.torch.report()["sb3 sequence"]
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_sb3_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sb3_contrib.common.recurrent.policies", None)
    before = torch._VF.lstm
    with pytest.raises(ImportError, match="sb3-contrib"):
        fastrnn.torch.patch(sb3=True)
    assert torch._VF.lstm is before
