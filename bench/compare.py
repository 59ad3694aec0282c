"""Two builds of fastrnn on the same work, interleaved: which one is faster, by how much, and is that more than noise?

    python bench/compare.py OLD NEW                        # folders as in PYTHONPATH, or source trees with src/
    python bench/compare.py OLD NEW --cells lstm --modes training --fail-slower 3
    python bench/compare.py OLD OLD                        # says "same", or this machine is too noisy

For a commit: `git worktree add ../old HEAD~1`, build there in place as CONTRIBUTING.md says, compare `../old` with `.`.
Each build lives in a process of its own on the same CPU; they take turns, A B then B A, and a turn's ratio compares
neighbours in time. A case's ratio is the median over rounds of (time of A / time of B): above 1, B is faster. The
range in brackets is the 99 % confidence interval of that median (from ranks, assuming no distribution); a verdict
other than "same" needs the whole range on one side of 1, and one per cent of difference. The results of both builds
are compared too, and a difference above the tolerance ends the run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from math import comb, exp, log
from pathlib import Path
from typing import Any, TextIO, cast

OUTSIDE = 0.01  # 0.05 called one of 18 cases of two copies of one build faster
MINIMUM = 0.01  # of difference: two copies of one build differ by half of it through the placement of their memory
TOLERANCE = {"inference": 3e-5, "training": 1e-4}  # relative to the largest element
Shape = tuple[int, int, int, int, int, bool]
SHAPES: dict[str, tuple[Shape, ...]] = {  # N, T, I, H, L, both directions
    "quick": ((1, 1, 64, 64, 1, False), (1, 100, 256, 256, 1, False), (32, 50, 256, 256, 1, False)),
    "full": (
        (1, 1, 64, 64, 1, False), (1, 100, 32, 32, 1, False), (1, 100, 256, 256, 1, False),
        (1, 50, 1024, 1024, 1, False), (16, 50, 64, 64, 1, False), (32, 50, 256, 256, 1, False),
        (64, 20, 512, 512, 1, False),
        (8, 500, 64, 64, 1, False), (32, 50, 128, 128, 2, False), (16, 50, 128, 128, 1, True),
    ),
}  # fmt: skip


class Build:
    """One build in its own process, which runs cases on request."""

    def __init__(self, path: Path, threads: int) -> None:
        source = path / "src"
        self.path = source if (source / "fastrnn").is_dir() else path
        if not (self.path / "fastrnn" / "__init__.py").exists():
            message = f"{path} has no fastrnn in it, nor in its src/"
            raise SystemExit(message)
        count = str(threads)
        variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "FASTRNN_NUM_THREADS")
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **dict.fromkeys(variables, count), "PYTHONPATH": str(self.path)},
        )
        self.facts = self.ask({"do": "facts"})

    def ask(self, request: dict[str, Any]) -> Any:
        stdin, stdout = cast(TextIO, self.process.stdin), cast(TextIO, self.process.stdout)
        try:
            print(json.dumps(request), file=stdin, flush=True)
            answer = stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            message = f"the process of {self.path} ended with {self.process.wait()}"
            raise SystemExit(message)
        return json.loads(answer)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def serve() -> None:
    """The other side, which alone imports fastrnn, and uses its public names only, so that old builds work too."""
    import numpy as np

    import fastrnn

    def make(cell: str, mode: str, shape: Shape) -> Any:
        batch, steps, inputs, hidden, count, both = shape
        rng = np.random.default_rng(0)
        layer = getattr(fastrnn, cell.upper())(inputs, hidden, count, bidirectional=both, rng=1)
        x = rng.standard_normal((steps, batch, inputs), np.float32)
        dy = rng.standard_normal((steps, batch, hidden * (2 if both else 1)), np.float32)

        def train() -> Any:
            with layer.edit() as weights:
                weights.flat[:1] += 0
            tape = layer.forward(x)[2]
            return layer.backward(tape, dy).x

        return train if mode == "training" else lambda: layer(x)[0]

    def timed(call: Any, repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        return (time.perf_counter() - start) / repeats

    call: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        answer: Any
        if request["do"] == "facts":
            facts = fastrnn.show_config("dicts") or {}
            answer = {
                "file": fastrnn.__file__,
                **{k: str(facts.get(k, "")) for k in ("fastrnn", "backend", "isa_active")},
            }
        elif request["do"] == "case":
            call = make(request["cell"], request["mode"], tuple(request["shape"]))
            result = np.asarray(call(), np.float64).ravel()
            once = timed(call, 1)
            answer = {"once": min(once, timed(call, 1)), "result": result[:: max(1, result.size // 1000)].tolist()}
        else:
            answer = timed(call, request["repeats"])
        print(json.dumps(answer), flush=True)


def interval(values: list[float]) -> tuple[float, float]:
    """99 % confidence interval of the median: the narrowest pair of ranks that covers it that often."""
    ordered, count = sorted(values), len(values)
    outside, low = 0.0, 0
    while low < count // 2:
        outside += 2 * comb(count, low) * 0.5**count
        if outside > OUTSIDE:
            break
        low += 1
    first = max(low - 1, 0)
    return ordered[first], ordered[count - 1 - first]


def verdict(ratios: list[float]) -> tuple[float, float, float, str]:
    """Median, its interval, and a word about B."""
    middle, (low, high) = statistics.median(ratios), interval(ratios)
    word = "same"
    if low > 1 and middle > 1 + MINIMUM:
        word = "faster"
    elif high < 1 and middle < 1 / (1 + MINIMUM):
        word = "slower"
    return middle, low, high, word


def compare(builds: list[Build], request: dict[str, Any], rounds: int, seconds: float) -> list[float]:
    """Ratios of the rounds of one case."""
    made = [build.ask({"do": "case", **request}) for build in builds]
    first, second = (answer["result"] for answer in made)
    largest = max(max(map(abs, first)), 1e-30)
    if not max(abs(a - b) for a, b in zip(first, second, strict=True)) <= TOLERANCE[request["mode"]] * largest:
        message = f"the two builds compute different things: {request}"
        raise SystemExit(message)
    repeats = max(1, int(seconds / rounds / 2 / max(max(a["once"] for a in made), 1e-7)))
    ratios = []
    for number in range(rounds):
        order = builds if number % 2 == 0 else builds[::-1]
        took = {build: build.ask({"do": "time", "repeats": repeats}) for build in order}
        ratios.append(took[builds[0]] / took[builds[1]])
    return ratios


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", type=Path, nargs="?", help="the build to compare with")
    parser.add_argument("b", type=Path, nargs="?", help="the build in question")
    parser.add_argument("--grid", choices=list(SHAPES), default="full")
    parser.add_argument("--cells", default="lstm,gru,rnn")
    parser.add_argument("--modes", default="inference,training")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=12, help="of each case, 8 or more")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each case, for both builds")
    slower = "exit with 1 if B, overall or in any case, is slower by more than that and beyond noise"
    parser.add_argument("--fail-slower", type=float, metavar="PERCENT", help=slower)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return 0
    if options.a is None or options.b is None or options.rounds < 8:
        parser.error("two folders are needed, and 8 rounds or more")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    builds: list[Build] = []
    try:
        for path in (options.a, options.b):
            builds.append(Build(path, options.threads))
        return report(builds, options)
    finally:
        for build in builds:
            build.close()


def report(builds: list[Build], options: argparse.Namespace) -> int:
    """Measure all cases and print them; the exit code."""
    for name, build in zip("AB", builds, strict=True):
        print(f"{name}: {' '.join(build.facts.values())}")
    print(f"\n{'case':44} {'A / B':>7}  {'99 % of the median':20} verdict on B")
    found: dict[str, list[float]] = {}
    for cell in options.cells.split(","):
        for mode in options.modes.split(","):
            for shape in SHAPES[options.grid]:
                batch, steps, inputs, hidden, count, both = shape
                more = (f" L={count}" if count > 1 else "") + (" both" if both else "")
                name = f"{cell} {mode} N={batch} T={steps} I={inputs} H={hidden}{more}"
                request = {"cell": cell, "mode": mode, "shape": shape}
                found[name] = compare(builds, request, options.rounds, options.seconds)
                print_line(name, found[name])
    overall = [exp(sum(log(ratios[i]) for ratios in found.values()) / len(found)) for i in range(options.rounds)]
    print_line("geometric mean of all cases", overall)
    if options.json:
        rows = {name: {"ratios": ratios} for name, ratios in found.items()}
        document = {"a": builds[0].facts, "b": builds[1].facts, "rows": rows, "overall": overall}
        Path(options.json).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if options.fail_slower is None:
        return 0
    limit = 1 / (1 + options.fail_slower / 100)
    return int(any(v[3] == "slower" and v[0] < limit for v in map(verdict, [*found.values(), overall])))


def print_line(name: str, ratios: list[float]) -> None:
    middle, low, high, word = verdict(ratios)
    print(f"{name:44} {middle:7.3f}  [{low:.3f}, {high:.3f}]{'':6} {word}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
