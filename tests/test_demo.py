"""The command line: `info`, and `demo` from training to written text, with and without the packages of its extra."""

from __future__ import annotations

import csv
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from fastrnn import backends
from fastrnn.__main__ import main
from fastrnn._characters import CharacterModel, alphabet_of, rows_of
from fastrnn._demo import Trainer
from fastrnn._progress import progress

# Numba would compile for longer than all of these tests run.
BACKEND = os.environ.get("FASTRNN_BACKEND") or ("cpp" if "cpp" in backends.available() else "numpy")
TINY = ["--hidden", "24", "--embedding", "8", "--batch", "4", "--bptt", "16", "--generate", "40"]


@pytest.fixture(autouse=True)
def _chosen_backend() -> Iterator[None]:
    with fastrnn.backend(BACKEND):  # type: ignore[arg-type]
        yield


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("The quick brown fox jumps over the lazy dog. " * 60, encoding="utf-8")
    return path


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "fastrnn", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, "FASTRNN_BACKEND": BACKEND, "PYTHONIOENCODING": "utf-8"},
    )


def record_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "training.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for fact in (fastrnn.__version__, BACKEND, np.__version__, "threads", "blas"):
        assert fact in out


@pytest.mark.smoke
def test_output_that_nobody_reads_or_that_does_not_fit() -> None:
    process = start("info")
    process.stdout.close()  # type: ignore[union-attr]  # long before it writes
    process.stdout = None
    assert process.communicate()[1] == ""
    assert process.returncode == 1
    if Path("/dev/full").exists():
        with Path("/dev/full").open("w") as full:
            command = [sys.executable, "-m", "fastrnn", "info"]
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith("fastrnn info: ")
        assert "Traceback" not in done.stderr
        assert done.stderr.count("\n") == 1


def test_progress_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with progress(3, "step") as show:
        for step in range(1, 4):
            time.sleep(0.25)
            show(step, "much more to say than there is room for")
    lines = terminal.getvalue().rstrip("\n").split("\r")
    assert len(lines) == 4
    assert all(len(line) < 30 for line in lines)


def test_demo_learns_saves_and_writes(text_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    process = start("demo", "--text", text_file, "--steps", 80, "--lr", 0.02, "--out", folder, *TINY)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "bits per character" in out
    assert f"the training step on the {BACKEND} backend" in out
    assert "80/80" in err
    record = record_of(folder)
    assert len(record) == 80
    assert float(record[-1]["train_bits"]) < 0.6 * float(record[0]["train_bits"])
    assert float(record[-1]["held_out_bits"]) < float(record[9]["held_out_bits"])
    assert len((folder / "sample.txt").read_text(encoding="utf-8")) == len("The ") + 40
    assert "numpy" in (folder / "speed.csv").read_text(encoding="utf-8")
    model = CharacterModel.load(folder / "model.npz")
    assert len("".join(model.generate("The ", 20, rng=0))) == 20

    process = start("demo", "--load", folder / "model.npz", "--generate", 30, "--prompt", "fox ")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.startswith("fox ")
    assert len(out.rstrip("\n")) <= 34


def test_interrupt_leaves_a_loadable_model(text_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    process = start("demo", "--text", text_file, "--steps", 1_000_000, "--out", folder, *TINY)
    assert process.stdout is not None
    while "steps of" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "stopped after" in out
    assert record_of(folder)
    assert len(list(CharacterModel.load(folder / "model.npz").generate("The ", 5, rng=0))) == 5


def test_demo_without_tqdm_and_matplotlib(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("tqdm", "matplotlib", "matplotlib.backends.backend_agg", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    folder = tmp_path / "out"
    assert main(["demo", "--text", str(text_file), "--steps", "4", "--out", str(folder), *TINY]) == 0
    captured = capsys.readouterr()
    assert "no picture without matplotlib" in captured.out
    assert "4/4 steps" in captured.err
    assert not (folder / "demo.png").exists()
    assert (folder / "speed.csv").exists()


def test_demo_draws_a_picture(text_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert main(["demo", "--text", str(text_file), "--steps", "4", "--out", str(tmp_path), "--cell", "gru", *TINY]) == 0
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_same_seed_same_run(text_file: Path, tmp_path: Path) -> None:
    losses = []
    for name in ("a", "b"):
        arguments = ["--text", str(text_file), "--steps", "4", "--seed", "5", "--dropout", "0.2", *TINY]
        assert main(["demo", "--out", str(tmp_path / name), *arguments]) == 0
        losses.append([(row["train_bits"], row["held_out_bits"]) for row in record_of(tmp_path / name)])
    assert losses[0] == losses[1]
    a, b = ((tmp_path / name / "sample.txt").read_text(encoding="utf-8") for name in ("a", "b"))
    assert a == b


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"", [], "is empty"),
        (b"short", [], "must have at least"),
        (b"\xff\xfe\x00", [], "not UTF-8"),
        (None, [], "cannot be read"),
        (b"abcd " * 1000, ["--prompt", "xyz"], "does not know the characters 'xyz'"),
        (b"abcd " * 1000, ["--out", "text.txt/out"], "cannot be written to"),
        (b"abcd " * 1000, ["--hidden", "9" * 18], "weights"),
        (b"ab" * 1000, ["--load", "none.npz"], "none.npz cannot be read"),
        (b"ab" * 1000, ["--load", "text.txt"], "must end in .npz"),
    ],
)
def test_bad_input_is_one_error_and_exit_code_2(
    content: bytes | None,
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("text.txt").write_bytes(content)
    assert main(["demo", "--text", "text.txt", *TINY, *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("bad", ["--steps=0", "--hidden=x", "--lr=nan", "--temperature=-1", "--cell=cnn", "--seed=1.5"])
def test_bad_options_are_refused(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["demo", bad])
    assert error.value.code == 2
    assert bad.split("=")[0] in capsys.readouterr().err


def test_text_in_another_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "text.txt"
    path.write_text("\u03b1\u03b2\u03b3 \u4e2d" * 400, encoding="utf-8")
    assert main(["demo", "--text", str(path), "--steps", "2", "--out", str(tmp_path), *TINY]) == 0
    assert len((tmp_path / "sample.txt").read_text(encoding="utf-8")) == 40
    assert "5 different" in capsys.readouterr().out


def test_diverging_training_is_told(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = Trainer.step

    def step_with_nan(trainer: Trainer) -> float:
        with trainer.model.head.edit() as weights:
            weights.flat[...] = np.nan
        return step(trainer)

    monkeypatch.setattr(Trainer, "step", step_with_nan)
    assert main(["demo", "--text", str(text_file), "--steps", "3", "--out", str(tmp_path), *TINY]) == 2
    assert "smaller --lr" in capsys.readouterr().err


# The model


def small_model(cell: str = "lstm", dropout: float = 0.0) -> CharacterModel:
    return CharacterModel("abc", cell=cell, embedding_size=3, hidden_size=5, num_layers=2, dropout=dropout, rng=0)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_gradients_of_the_whole_model(cell: str) -> None:
    """Directional derivative along the gradient, where float32 loses least."""
    model = small_model(cell)
    inputs, targets = rows_of(np.random.default_rng(0).integers(0, 3, 61), 4)
    _, gradients, _ = model.train(inputs, targets, None)
    flats = [gradient.flat.copy() for gradient in gradients]
    length = sum(float(np.dot(flat, flat)) for flat in flats)

    def loss_at(distance: float) -> float:
        for layer, flat in zip(model.layers, flats, strict=True):
            with layer.edit() as weights:
                weights.flat += distance * flat
        loss = model.train(inputs, targets, None)[0]
        for layer, flat in zip(model.layers, flats, strict=True):
            with layer.edit() as weights:
                weights.flat -= distance * flat
        return loss

    step = 1e-2
    assert (loss_at(step) - loss_at(-step)) / (2 * step) == pytest.approx(length, rel=2e-3)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_model_file_round_trip(cell: str, tmp_path: Path) -> None:
    model = small_model(cell, dropout=0.5)
    model.save(tmp_path / "m.npz", step=3)
    again = CharacterModel.load(tmp_path / "m.npz")
    ids = model.encode("abcabcaabbcc" * 20)
    assert again.bits_per_character(ids) == model.bits_per_character(ids)
    drawn = ["".join(m.generate("ab", 30, temperature=0.5, rng=1)) for m in (model, again)]
    assert drawn[0] == drawn[1]
    assert list(tmp_path.iterdir()) == [tmp_path / "m.npz"]


def test_model_refuses_other_files(tmp_path: Path) -> None:
    fastrnn.LSTM(2, 3).save(tmp_path / "layer.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    (tmp_path / "text.npz").write_text("no zip archive")
    for name in ("layer.npz", "other.npz", "text.npz"):
        with pytest.raises(ValueError, match=name):
            CharacterModel.load(tmp_path / name)


def test_temperature_zero_is_the_likeliest_and_needs_no_seed() -> None:
    model = small_model()
    assert list(model.generate("a", 10, temperature=0)) == list(model.generate("a", 10, temperature=0))
    assert "".join(model.generate("", 5, rng=0))
    assert not list(model.generate("a", 0))


def test_bits_per_character_of_a_uniform_model() -> None:
    model = small_model()
    with model.head.edit() as weights:
        weights.flat[...] = 0
    assert model.bits_per_character(model.encode("abc" * 500)) == pytest.approx(np.log2(3))


def test_rows_continue_each_other() -> None:
    ids = np.arange(20)
    inputs, targets = rows_of(ids, 3)
    assert inputs.shape == targets.shape == (6, 3)
    np.testing.assert_array_equal(inputs[:, 1], np.arange(6, 12))
    np.testing.assert_array_equal(targets, inputs + 1)
    assert alphabet_of("banana") == "abn"
