"""`python -m fastrnn bench` and its parts: cases, systems, checks, limits, the measuring process, the table."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastrnn import _bench, backends
from fastrnn._bench_cases import CELLS, GRIDS, MODES, SWEEPS, Case, cases
from fastrnn._bench_measure import Limits, WrongResult, measure
from fastrnn._bench_systems import DEFAULT, PEERS, SYSTEMS, Work, difference, set_up
from fastrnn._bench_table import COLUMNS, duration, facts, geomean, summary, table

BACKEND = os.environ.get("FASTRNN_BACKEND") or ("cpp" if "cpp" in backends.available() else "numpy")
OURS = ["numpy", "fastrnn"]
TINY = Case("lstm", "training", 2, 3, 4, 5, 2, True)


def run(*arguments: object, backend: str = BACKEND) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fastrnn", "bench", *map(str, arguments)]
    environment = {**os.environ, "FASTRNN_BACKEND": backend}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


@pytest.mark.smoke
def test_bench_runs_and_prints_its_table(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    done = run("--cells", "rnn", "--systems", "fastrnn,numpy", "--threads", 1, "--seconds", 2, "--json", file)
    assert done.returncode == 0, done.stderr
    assert "12/12" in done.stderr
    document = json.loads(file.read_text(encoding="utf-8"))
    assert document["format"] == 1
    assert document["threads"] == 1
    assert set(document["versions"]) == {"fastrnn", "python", "numpy"}
    assert document["config"]["backend"] == BACKEND
    assert len(document["rows"]) + len(document["late"]) == 12
    assert document["rows"]
    for row in document["rows"]:
        assert set(row["seconds"]) == set(OURS)
        assert all(seconds > 0 for seconds in row["seconds"].values())
        assert max(row["errors"].values()) < 1e-4
        assert (row["peak_flops"] is not None) == ("cpp" in backends.available())
    for text in (document["cpu"], "1 thread,", "NumPy", "fastrnn", "RNN, inference", *COLUMNS):
        assert text in done.stdout
    assert done.stdout.count(" us ") + done.stdout.count(" ms ") >= 2 * len(document["rows"])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--cells", "lstm,foo"], "--cells is 'lstm,foo'; it must be one or more of lstm,gru,rnn"),
        (["--cells", ","], "--cells"),
        (["--systems", "tensorflow"], "--systems is 'tensorflow'"),
        (["--threads", "0"], "--threads"),
        (["--threads", "100000"], "--threads is 100000; this process may use"),
        (["--seconds", "0"], "--seconds"),
        (["--seconds", "nan"], "--seconds"),
        (["--json", "/no/such/folder/file.json"], "--json /no/such/folder/file.json cannot be written"),
    ],
)
def test_wrong_arguments_are_named(arguments: list[str], named: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_ctrl_c_prints_what_there_is() -> None:
    command = [sys.executable, "-m", "fastrnn", "bench", "--systems", "numpy,fastrnn", "--seconds", "100"]
    # A shell's background jobs ignore the signal, and so would what they start; a handler becomes the default there.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        time.sleep(4)
        process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, err
    assert "interrupted" in err
    assert "GFLOP/s" in out
    assert "Traceback" not in err


def test_cases_count_what_they_say() -> None:
    case = Case("gru", "inference", 3, 5, 4, 6, 2, True)
    by_hand = 2 * 3 * sum(3 * 6 * (5 * width + 4 * 6) * 2 for width in (4, 12))  # U begins at the second step
    assert case.flops == by_hand
    assert Case("gru", "training", 3, 5, 4, 6, 2, True).flops == 3 * by_hand
    assert case.recurrent_bytes == 4 * 4 * 3 * 6 * 6
    assert case.streamed_bytes == 4 * case.recurrent_bytes
    shapes = case.spec.weight_shapes
    assert {name: a.shape for name, a in case.weights().items()} == shapes
    assert sum(a.size for a in case.weights().values()) == sum(map(prod, shapes.values()))
    x, dy = case.arrays()
    assert x.shape == (5, 3, 4)
    assert dy.shape == (5, 3, 12)


def test_grids() -> None:
    assert len(GRIDS["core"]) == 15
    assert set(GRIDS["short"]) <= set(GRIDS["core"])
    for size, shapes in SWEEPS.items():
        position = "NTIH".index(size)
        assert [shape[position] for shape in shapes] == sorted({shape[position] for shape in shapes})
    assert len(cases(GRIDS["core"])) == 15 * len(CELLS) * len(MODES)
    assert set(DEFAULT) <= set(SYSTEMS)
    assert set(PEERS) <= set(SYSTEMS)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("name", [name for name in DEFAULT if name != "numpy"])
def test_every_system_computes_the_same(name: str, cell: str, mode: str) -> None:
    """Also a test of the layers against every peer that is installed."""
    _, why = set_up(name, 1)
    if why:
        pytest.skip(f"{SYSTEMS[name].label}: {why}")
    for shape in ((2, 3, 4, 5, 2, True), (1, 4, 3, 8, 1, False)):
        case = Case(cell, mode, *shape)
        reference, work = SYSTEMS["numpy"].prepare(case), SYSTEMS[name].prepare(case)
        assert reference is not None
        if work is None:
            assert mode == "training"
            assert name in ("onnxruntime", "openvino")
            return
        found, wanted = work.arrays(work.call()), [np.array(a) for a in reference.arrays(reference.call())]
        assert len(wanted) == (1 if mode == "inference" else 1 + len(case.weights()))
        assert difference(found, wanted) < 2e-6


def test_an_absent_system_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    version, why = set_up("onnxruntime", 1)
    assert version == ""
    assert why.startswith("not installed: pip install onnx") or why.startswith("does not load")


def test_difference_does_not_lose_a_nan() -> None:
    one = np.ones(3, np.float32)
    assert difference([one], [one]) == 0
    assert difference([one, 2 * one], [one, one]) == 1
    assert np.isnan(difference([one * np.nan, one], [one, one]))
    assert np.isnan(difference([one], [one, one]))
    assert np.isnan(difference([one[:2]], [one]))


class _Wrong:
    """NumPy's result, slightly off."""

    label, packages = "Wrong", ()

    def __init__(self, error: float) -> None:
        self.error = error

    def set_up(self, threads: int) -> None:
        pass

    def prepare(self, case: Case) -> Work | None:
        work = SYSTEMS["numpy"].prepare(case)
        assert work is not None
        call, arrays = work
        return Work(call, lambda result: [a * np.float32(1 + self.error) for a in arrays(result)])


def test_a_wrong_result_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SYSTEMS, "numba", _Wrong(1e-3))
    with pytest.raises(WrongResult, match=r"Wrong computes something else than NumPy: LSTM training N=2"):
        measure(TINY, ["numpy", "numba"], Limits(1), 0.01)
    monkeypatch.setitem(SYSTEMS, "numba", _Wrong(1e-6))
    row = measure(TINY, ["numpy", "numba"], Limits(1), 0.01)
    assert set(row["seconds"]) == {"numpy", "numba"}


def test_a_system_that_fails_is_shown_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(_Wrong):
        def prepare(self, case: Case) -> Work | None:
            raise RuntimeError("no such kernel")  # noqa: EM101

    monkeypatch.setitem(SYSTEMS, "numba", Failing(0))
    row = measure(TINY, ["numpy", "numba"], Limits(1), 0.01)
    assert row["failed"] == {"numba": "RuntimeError: no such kernel"}
    document = {**_bench.new_document("x", 1), "rows": [row]}
    assert any("failed" in line for line in table(document))


def test_a_worker_that_dies_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTRNN_ISA", "none")
    monkeypatch.setattr(_bench, "environment", lambda threads: {**os.environ, "FASTRNN_BACKEND": "nonsense"})
    with pytest.raises(_bench.WrongResultError, match="ended with 1: ValueError: FASTRNN_BACKEND"):
        list(_bench.events([TINY], OURS, 1, 1))


@pytest.mark.skipif("cpp" not in backends.available(), reason="the compiled backend is not here")
class TestProbes:
    def test_amounts(self) -> None:
        core: Any = backends.load("cpp")
        buffer = np.ones(1 << 16, np.uint8)
        assert core.probe("read", 3, buffer=buffer) == 3 * buffer.nbytes
        assert core.probe("read", 3, buffer=buffer[:100]) == 0  # less than one block
        assert core.probe("fma", 10) == 2 * core.probe("fma", 10, dtype="float64") == 2 * core.probe("fma", 5) > 0
        for kind in ("call", "phase"):
            for threads in (0, 1, 2, 3, 100_000):
                assert core.probe(kind, 3, threads=threads) == 3
        for kind in core.PROBES:
            assert core.probe(kind, 0, buffer=buffer) == 0

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            ({"kind": "fly", "repeats": 1}, "kind"),
            ({"kind": "fma", "repeats": -1}, "repeats"),
            ({"kind": "fma", "repeats": 1, "dtype": "int8"}, "dtype"),
            ({"kind": "read", "repeats": 1}, "buffer"),
            ({"kind": "read", "repeats": 1, "buffer": np.ones((4, 4))[:, ::2]}, "buffer"),
        ],
    )
    def test_bad_arguments(self, arguments: dict[str, Any], named: str) -> None:
        core: Any = backends.load("cpp")
        with pytest.raises(ValueError, match=named):
            core.probe(arguments.pop("kind"), arguments.pop("repeats"), **arguments)

    def test_limits_are_of_this_world(self) -> None:
        for threads in (1, 2):
            limits = Limits(threads)
            flops, read = limits.flops(), limits.bandwidth(1 << 16)
            assert flops is not None
            assert read is not None
            assert 1e7 < flops < 1e13
            assert 1e7 < read < 1e14


def test_facts_of_a_row() -> None:
    case = Case("rnn", "inference", 1, 10, 8, 8)
    one = Case("rnn", "inference", 1, 1, 8, 8)
    row = {
        "case": case.as_dict(), "failed": {},
        "peak_flops": 4.0 * case.flops, "read_bytes_per_s": 2.0 * case.streamed_bytes,
        "seconds": {"numpy": 4.0, "torch": 3.0, "jax": 2.0, "fastrnn": 1.0},
    }  # fmt: skip
    assert facts(row) == {"baseline": 4, "peer": 2, "gflops": case.flops / 1e9, "share": 0.25, "stream": 0.5}
    assert facts({**row, "case": one.as_dict()})["stream"] is None  # no step that reads U
    document = {**_bench.new_document("x", 1), "rows": [row]}
    assert summary(document) == [
        "inference: NumPy / fastrnn 4.00 (lowest 4.00, 1 cases); best peer / fastrnn 2.00 (lowest 2.00, 1 cases)"
    ]
    del row["seconds"]["fastrnn"]
    assert set(facts(row).values()) == {None}
    assert table(document)[-1].split() == ["1", "10", "8", "8", "4.00", "s", "3.00", "s", "2.00", "s", *"-----"]
    assert geomean([1, 4]) == pytest.approx(2)
    texts = [duration(seconds) for seconds in (1.234e-6, 99.4e-6, 0.0123, 1.5)]
    assert texts == ["1.23 us", "99.4 us", "12.3 ms", "1.50 s"]
