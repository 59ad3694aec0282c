"""Run all benchmarks and write what they found: docs/performance.md with its pictures, and the README's table.

    python bench/report.py                      # everything, in some eleven minutes; leave the machine alone meanwhile
    python bench/report.py --reuse              # only what has no result in bench/results/ yet, then write
    python bench/report.py --seconds 120        # a rough version: less time for each, small grids
    python bench/report.py --only step,memory   # measure these again, write everything

Every benchmark is a script of its own that leaves a JSON file; this one starts them one by one and reads the files.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _figures
import _pages
import _readme
import _results
from fastrnn import _bench

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ENOUGH = 300.0  # seconds from which the core grid is worth its time; below, the short one
# Share of the time for each; the others take what they take, 90 seconds together.
SHARES = {"peers_1": 0.37, "peers_k": 0.3, "sweep": 0.23, "step": 0.05, "threads": 0.05}
FIXED = {"primitives": 10.0, "memory": 35.0, "sequence_length": 45.0}


def commands(seconds: float, folder: Path) -> dict[str, list[str]]:
    """Name of a result -> the command that makes it."""
    left = max(seconds - sum(FIXED.values()), seconds / 3)
    count = len(_bench.available_cpus())
    grid = "core" if seconds >= ENOUGH else "short"

    def script(name: str, result: str, *options: str) -> list[str]:
        timed = [f"--seconds={left * SHARES[result]:.0f}"] if result in SHARES else []
        return [sys.executable, str(HERE / name), *options, *timed, f"--json={folder / result}.json"]

    systems = "--systems=torch,onnxruntime,openvino,jax,numpy,fastrnn"
    found = {
        "primitives": script("bench_primitives.py", "primitives"),
        "peers_1": script("bench_peers.py", "peers_1", f"--grid={grid}", "--threads=1"),
        "peers_k": script("bench_peers.py", "peers_k", f"--grid={grid}", f"--threads={count}"),
        "sweep": script("bench_peers.py", "sweep", "--grid=sweep", "--cells=lstm", systems),
        "step": script("bench_step.py", "step"),
        "threads": script("bench_threads.py", "threads"),
        "memory": script("bench_memory.py", "memory"),
        "sequence_length": [
            sys.executable, str(HERE / "bench_sequence_length.py"), f"--budget={0.3 * min(1, seconds / ENOUGH):.2f}",
            f"--benchmark-json={folder / 'sequence_length.json'}",
        ],
    }  # fmt: skip
    if count == 1:
        del found["peers_k"], found["threads"]
    return found


def measure(wanted: dict[str, list[str]]) -> None:
    """Run the scripts; the first that fails ends everything."""
    for number, (name, command) in enumerate(wanted.items(), 1):
        print(f"[{number}/{len(wanted)}] {name}", flush=True)
        start = time.perf_counter()
        log = _results.FOLDER / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w", encoding="utf-8") as file:
            environment = {**os.environ, "PYTHONPATH": path()}
            status = subprocess.run(command, stdout=file, stderr=file, env=environment).returncode
        if status:
            last = log.read_text(encoding="utf-8").strip().splitlines()[-3:]
            message = "\n".join([f"{name} failed with {status}; the end of {log}:", *last])
            raise SystemExit(message)
        print(f"    {time.perf_counter() - start:.0f} s", flush=True)


def path() -> str:
    """So that the scripts measure the package that this one has imported."""
    return os.pathsep.join(filter(None, (str(Path(_bench.__file__).parents[1]), os.environ.get("PYTHONPATH"))))


def write(folder: Path) -> None:
    """The page, its pictures and the README's section, from whatever results there are."""
    found = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))}
    images = ROOT / "docs" / "img"
    images.mkdir(parents=True, exist_ok=True)
    pictures: dict[str, tuple[Callable[..., str], tuple[str, ...]]] = {
        "sweep": (_figures.sweeps, ("sweep",)),
        "roofline": (_figures.roofline, ("primitives", "peers_1")),
        "threads": (_figures.threads, ("threads",)),
    }
    drawn = set()
    for name, (draw, needs) in pictures.items():
        if all(need in found for need in needs):
            (images / f"{name}.svg").write_text(draw(*(found[need] for need in needs)), encoding="utf-8")
            drawn.add(name)
    (ROOT / "docs" / "performance.md").write_text(_pages.performance(found, drawn), encoding="utf-8")
    if "sequence_length" in found:
        results = _readme.Results(found["sequence_length"])
        (images / "sequence_length.svg").write_text(_readme.picture(results), encoding="utf-8")
        _readme.replace_section(ROOT / "README.md", _readme.section(results, "docs/img/sequence_length.svg"))
    print("written: docs/performance.md, docs/img/, the table in README.md")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=690.0, help="for everything, about")
    parser.add_argument("--reuse", action="store_true", help="keep the results that are there")
    parser.add_argument("--only", metavar="NAMES", help="measure these alone, of " + ",".join(commands(1, Path())))
    parser.add_argument("--results", type=Path, default=_results.FOLDER, help="where the JSON files are")
    options = parser.parse_args()
    wanted: dict[str, Any] = commands(options.seconds, options.results.resolve())
    if options.only is not None:
        try:
            names = _bench.names("--only", options.only, list(wanted)) if options.only else []
        except _bench.BenchError as error:
            parser.error(str(error))
        wanted = {name: wanted[name] for name in names}
    if options.reuse:
        wanted = {name: command for name, command in wanted.items() if not (options.results / f"{name}.json").exists()}
    measure(wanted)
    write(options.results)


if __name__ == "__main__":
    main()
