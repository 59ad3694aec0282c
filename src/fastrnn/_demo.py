"""The demonstration: train a character model on a text, let it write, compare the step's speed with NumPy's."""

from __future__ import annotations

import os
import signal
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from math import cos, isfinite, log, pi
from pathlib import Path
from typing import Any, cast

from . import backends
from ._characters import Array, CharacterModel, alphabet_of, rows_of
from ._config import get_num_threads
from ._demo_report import Point, write_picture, write_record
from ._progress import INTERRUPTED, progress
from .training import Adam, clip_grad_norm

# The share of the text, at its end, that is never trained on. Its size matters to the figure: the default run ends at
# 1.50 bits per character on the last 5 % of pydoc_data.topics. The last 10 % are harder: 1.74 against 1.58, after 1500
# steps each.
HELD_OUT = 0.05
EVALUATIONS = 8  # over a run; each also writes a checkpoint
WARM_UP = 20  # steps over which the learning rate rises
MAX_NORM = 1.0  # of the gradients of one step
BETAS = (0.9, 0.98)  # of Adam; b2 = 0.999 does as well: over 600 steps they differ less than two seeds do
COMPARISON_SECONDS = 2.5  # spent on measuring each backend, at most
COMPARISON_STEPS = 20


class DemoError(Exception):
    """What the user can put right; the command line prints it and exits with 2."""


class Trainer:
    """Chunks of a text in order, the state carried from each to the next; one Adam step per chunk.

    The learning rate rises over the first steps and falls to a fiftieth along half a cosine (Loshchilov and Hutter
    2017).
    """

    def __init__(self, model: CharacterModel, rows: tuple[Array, Array], bptt: int, lr: float, steps: int) -> None:
        self.model = model
        self.inputs, self.targets = rows  # each (characters of a row, N)
        self.bptt, self.lr, self.steps = bptt, lr, steps
        self.optimizer = Adam(model.layers, lr, betas=BETAS)
        self.position = 0
        self.state: Any = None

    def step(self) -> float:
        """Train on the next chunk; its loss in nats."""
        if self.position + self.bptt > len(self.inputs):
            self.position, self.state = 0, None
        part = slice(self.position, self.position + self.bptt)
        self.position += self.bptt
        loss, gradients, self.state = self.model.train(self.inputs[part], self.targets[part], self.state)
        if not isfinite(loss) or not isfinite(clip_grad_norm(gradients, MAX_NORM)):
            message = f"the loss is no finite number any more at step {self.optimizer.steps + 1}: choose a smaller --lr"
            raise DemoError(message)
        done = self.optimizer.steps
        self.optimizer.lr = self.lr * min(1.0, (done + 1) / WARM_UP) * (0.51 + 0.49 * cos(pi * done / self.steps))
        self.optimizer.step(gradients)
        return loss


def run(options: Namespace) -> int:
    """Train, save, write and measure as the command line says; the exit code."""
    text = read_text(options.text)
    source = options.text or "pydoc_data.topics"
    alphabet = alphabet_of(text)
    model = _new_model(options, alphabet)
    ids = model.encode(text)
    cut = len(ids) - max(2, int(HELD_OUT * len(ids)))
    train, held_out = ids[:cut], ids[cut:]
    if (cut - 1) // options.batch < options.bptt:
        needed = int((options.batch * options.bptt + 3) / (1 - HELD_OUT)) + 1
        message = (
            f"{source} has {len(text)} characters; with --batch {options.batch} and --bptt {options.bptt} "
            f"it must have at least {needed}"
        )
        raise DemoError(message)
    prompt = _prompt(model, options.prompt)  # what the model cannot read is better refused now than after training
    folder = _make_folder(options.out)
    with _stop_on_interrupt() as stopped:
        print(
            f"{len(text):,} characters of {source}, {len(alphabet)} different, the last {len(held_out):,} held out\n"
            f"{options.layers}-layer {options.cell.upper()} of {options.hidden}: {model.weight_count:,} weights; "
            f"{_backend_text()}\n{options.steps} steps of {options.batch} x {options.bptt} characters",
            flush=True,
        )
        rows = rows_of(train, options.batch)
        trainer = Trainer(model, rows, options.bptt, options.lr, options.steps)
        record = _train(trainer, held_out, folder, stopped)
    model_file = folder / "model.npz"
    model.save(model_file, step=len(record), text=source)
    write_record(record, folder / "training.csv")
    if len(record) < options.steps:
        print(
            f"\nstopped after {len(record)} of {options.steps} steps; the model so far is in {model_file}\n"
            f"let it write: python -m fastrnn demo --load {model_file} --generate {options.generate}",
            flush=True,
        )
        return INTERRUPTED
    last = record[-1]
    print(f"held-out text: {last.held_out:.3f} bits per character after {last.seconds:.1f} s of training\n", flush=True)
    (folder / "sample.txt").write_text(write_sample(model, prompt, options), encoding="utf-8")
    rates = _compare(options, alphabet, rows)
    for name, rate in rates.items():
        print(f"the training step on the {name} backend: {rate:,.0f} characters/s")
    title = f"{options.layers}-layer {options.cell.upper()} of {options.hidden}, batch {options.batch} x {options.bptt}"
    print(write_picture(record, rates, title, folder))
    print(f"the model is in {model_file}", flush=True)
    return 0


def read_text(path: str | None) -> str:
    """The text of a UTF-8 file, or the built-in one.

    Raises
    ------
    DemoError
        If there is none.
    """
    if path is None:
        try:
            from pydoc_data import topics
        except ImportError as error:
            message = "this Python comes without pydoc_data.topics; choose a text with --text FILE"
            raise DemoError(message) from error
        return "\n".join(topics.topics[name] for name in sorted(topics.topics))
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"{path} is not UTF-8 text: {error.reason} at byte {error.start}"
        raise DemoError(message) from error
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror or error}"
        raise DemoError(message) from error
    if not text:
        message = f"{path} is empty"
        raise DemoError(message)
    return text


def generate_from(options: Namespace) -> int:
    """Let a saved model write; the exit code."""
    try:
        model = CharacterModel.load(options.load)
    except OSError as error:
        message = f"{options.load} cannot be read: {error.strerror or error}"
        raise DemoError(message) from error
    except ValueError as error:
        raise DemoError(error) from error
    write_sample(model, _prompt(model, options.prompt), options)
    return 0


def _prompt(model: CharacterModel, given: str | None) -> str:
    """The given prompt, if the model knows its characters; an English word by default, if it knows that."""
    try:
        model.encode("The " if given is None else given)
    except ValueError as error:
        if given is None:
            return ""
        message = f"--prompt: {error}"
        raise DemoError(message) from error
    return "The " if given is None else given


def write_sample(model: CharacterModel, prompt: str, options: Namespace) -> str:
    """Print the prompt and what the model makes of it, character by character."""
    parts = [prompt]
    print(prompt, end="", flush=True)
    for character in model.generate(prompt, options.generate, temperature=options.temperature, rng=options.seed):
        parts.append(character)
        print(character, end="", flush=character == "\n")
    print("\n", flush=True)
    return "".join(parts)


def _new_model(options: Namespace, alphabet: str) -> CharacterModel:
    try:
        return CharacterModel(
            alphabet,
            cell=options.cell,
            embedding_size=options.embedding,
            hidden_size=options.hidden,
            num_layers=options.layers,
            dropout=options.dropout if options.layers > 1 else 0.0,
            rng=options.seed,
        )
    except ValueError as error:  # sizes whose product no machine can hold
        raise DemoError(error) from error


def _make_folder(path: str) -> Path:
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".fastrnn-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        message = f"--out {folder} cannot be written to: {error.strerror or error}"
        raise DemoError(message) from error
    return folder


def _backend_text() -> str:
    module = backends.current()
    isa = backends.active_isa(module)
    threads = get_num_threads()
    return f"backend {module.NAME}{f' ({isa})' if isa else ''}, {threads} thread{'s' if threads > 1 else ''}"


def _train(trainer: Trainer, held_out: Array, folder: Path, stopped: Callable[[], bool]) -> list[Point]:
    """The record of all steps until `stopped`; a checkpoint is written at every evaluation."""
    record: list[Point] = []
    every = -(-trainer.steps // EVALUATIONS)
    chunk = trainer.bptt * trainer.inputs.shape[1]
    seconds = 0.0
    smooth = held = None
    with progress(trainer.steps, "step") as show, _blas_for(backends.current().NAME):
        for step in range(1, trainer.steps + 1):
            start = time.perf_counter()
            bits = trainer.step() / log(2)
            seconds += time.perf_counter() - start
            smooth = bits if smooth is None else 0.95 * smooth + 0.05 * bits
            point = Point(step, step * chunk, seconds, bits)
            record.append(point)
            if step % every == 0 or step == trainer.steps:
                point.held_out = held = trainer.model.bits_per_character(held_out)
                trainer.model.save(folder / "model.npz", step=step)
            show(step, _status(smooth, held, point.characters / seconds))
            if stopped():
                break
    return record


def _compare(options: Namespace, alphabet: str, rows: tuple[Array, Array]) -> dict[str, float]:
    """Characters per second of the same training steps on the backend in force and on NumPy's."""
    rates: dict[str, float] = {}
    for name in dict.fromkeys((backends.current().NAME, "numpy")):
        with backends.backend(name), _blas_for(name):
            trainer = Trainer(_new_model(options, alphabet), rows, options.bptt, options.lr, options.steps)
            trainer.step()  # packs and allocates, as only the first step does
            count = 0
            start = time.perf_counter()
            while count < COMPARISON_STEPS and time.perf_counter() - start < COMPARISON_SECONDS:
                trainer.step()
                count += 1
            rates[name] = count * options.bptt * options.batch / (time.perf_counter() - start)
    return rates


def _blas_for(backend: str) -> AbstractContextManager[object]:
    """One thread for NumPy's BLAS unless the NumPy backend computes: threadpoolctl's limit, if there is threadpoolctl.

    After a product the BLAS's threads wait for the next one by spinning, on the CPUs where ours should run: on two CPUs
    the compiled backend then trained at 17 000 characters/s instead of 30 000. The BLAS is left the output layer, a
    twentieth of the work.
    """
    if backend == "numpy":
        return nullcontext()
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return nullcontext()
    return cast(AbstractContextManager[object], threadpool_limits(1, user_api="blas"))


@contextmanager
def _stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Inside, Ctrl-C is remembered instead of raised, so that a step is never cut in two; a second one is raised."""
    seen = []

    def remember(number: int, frame: object) -> None:
        seen.append(number)
        signal.signal(signal.SIGINT, before)

    try:
        before = signal.signal(signal.SIGINT, remember)
    except ValueError:  # not the main thread, which alone gets signals
        yield lambda: False
        return
    try:
        yield lambda: bool(seen)
    finally:
        signal.signal(signal.SIGINT, before)


def _status(bits: float, held_out: float | None, rate: float) -> str:
    held = "" if held_out is None else f", held out {held_out:.3f}"
    return f"{bits:.3f} bits/char{held}, {rate:,.0f} chars/s"
