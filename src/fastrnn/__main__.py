"""Command line: `python -m fastrnn info`, `demo` and `bench`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import nan
from pathlib import Path

from . import __version__, backends, show_config
from ._progress import INTERRUPTED


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code: 0 done, 1 failed, 2 bad arguments or input, 130 ended by Ctrl-C."""
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        # A text may hold characters that the terminal's encoding lacks.
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        backends.current()
    except (ImportError, ValueError) as error:  # FASTRNN_BACKEND or FASTRNN_ISA names what is not there
        print(f"fastrnn: {error}", file=sys.stderr)
        return 2
    try:
        code = {"info": _info, "bench": _bench, "demo": _demo}[options.command](options)
        if sys.stdout is not None:
            sys.stdout.flush()  # now, where a full disk can still be told
    except OSError as error:
        _drop_output()
        if not isinstance(error, BrokenPipeError):  # whoever closed the pipe has read enough
            print(f"fastrnn {options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nfastrnn {options.command}: interrupted", file=sys.stderr)
        return INTERRUPTED
    return code


def _drop_output() -> None:
    """What is still buffered for a stdout that takes no more would be an error again when the interpreter ends."""
    with suppress(OSError, ValueError, AttributeError), Path(os.devnull).open("w") as nothing:
        os.dup2(nothing.fileno(), sys.stdout.fileno())


def _info(options: argparse.Namespace) -> int:
    show_config()
    return 0


def _bench(options: argparse.Namespace) -> int:
    from . import _bench

    try:
        return _bench.run(options)
    except _bench.BenchError as error:
        print(f"fastrnn bench: {error}", file=sys.stderr)
        return 2
    except _bench.WrongResultError as error:
        print(f"fastrnn bench: {error}", file=sys.stderr)
        return 1


def _demo(options: argparse.Namespace) -> int:
    from . import _demo

    try:
        return _demo.generate_from(options) if options.load is not None else _demo.run(options)
    except _demo.DemoError as error:
        print(f"fastrnn demo: {error}", file=sys.stderr)
        return 2
    except MemoryError:
        print("fastrnn demo: not enough memory for these sizes", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fastrnn", description="Recurrent networks on a CPU.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info", help="version, backend, instruction sets, threads, compiler, NumPy and its BLAS")
    demo = commands.add_parser(
        "demo",
        help="train a character model, let it write, compare the speed with NumPy's",
        description="Train a character model on a text, let it write, compare the speed with NumPy's. "
        "Ctrl-C leaves the model as it is then in OUT/model.npz.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_demo_options(demo)
    bench = commands.add_parser(
        "bench",
        help="the layers against NumPy and every installed peer, on this machine",
        description="Compare the layers with NumPy and with every peer that is installed (PyTorch, ONNX Runtime, "
        "OpenVINO, JAX) on this machine: each result is checked, then all are timed in turn on the same CPUs.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    bench.add_argument("--threads", type=_integer(1), metavar="K", help="of every system; all CPUs if not given")
    bench.add_argument("--seconds", type=_number(1, 86400), default=120.0, help="for everything, about")
    bench.add_argument("--cells", default="lstm,gru,rnn", help="which cells")
    bench.add_argument("--systems", help="which of numpy,numba,torch,onnxruntime,openvino,jax,fastrnn; all but numba")
    bench.add_argument("--json", metavar="FILE", help="write the results there")
    return parser


def _add_demo_options(demo: argparse.ArgumentParser) -> None:
    what = demo.add_argument_group("model")
    what.add_argument("--cell", choices=["lstm", "gru", "rnn"], default="lstm", help="kind of recurrent layer")
    what.add_argument("--layers", type=_integer(1), default=2, help="recurrent layers")
    what.add_argument("--hidden", type=_integer(1), default=256, help="hidden units of each")
    what.add_argument("--embedding", type=_integer(1), default=64, help="width of a character's vector")
    what.add_argument("--dropout", type=_number(0, 0.99), default=0.0, help="between layers")
    how = demo.add_argument_group("training")
    how.add_argument("--text", metavar="FILE", help="UTF-8 text to learn; pydoc_data.topics if not given")
    how.add_argument("--steps", type=_integer(1), default=2400, help="training steps")
    how.add_argument("--batch", type=_integer(1), default=32, help="rows of text read side by side")
    how.add_argument("--bptt", type=_integer(1), default=32, help="characters of each row in a step")
    how.add_argument("--lr", type=_number(0, 10), default=6e-3, help="highest learning rate of Adam")
    how.add_argument("--seed", type=_integer(0), default=0, help="of weights, dropout and generated text")
    how.add_argument("--out", metavar="FOLDER", default="fastrnn-demo", help="where model, text and picture go")
    writing = demo.add_argument_group("writing")
    writing.add_argument("--load", metavar="MODEL", help="do not train: let this saved model write")
    writing.add_argument("--generate", type=_integer(0), metavar="N", default=400, help="characters to write")
    writing.add_argument("--prompt", help="what they continue; 'The ' if not given")
    writing.add_argument("--temperature", type=_number(0, 100), default=0.7, help="0: always the likeliest character")


def _integer(low: int) -> Callable[[str], int]:
    """A parser of integers from low on."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low:
            message = f"{text!r} is not an integer, {low} or more"
            raise argparse.ArgumentTypeError(message)
        return value

    return parse


def _number(low: float, high: float) -> Callable[[str], float]:
    """A parser of numbers from low to high."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = nan
        if not low <= value <= high:
            message = f"{text!r} is not a number from {low:g} to {high:g}"
            raise argparse.ArgumentTypeError(message)
        return value

    return parse


if __name__ == "__main__":
    sys.exit(main())
