"""`python -m fastrnn bench`: the layers against NumPy and every installed peer, on this machine, in two minutes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TextIO, cast

from . import backends
from ._bench_cases import CELLS, GRIDS, Case, cases
from ._bench_systems import DEFAULT, SYSTEMS
from ._bench_table import cpu_name, heading, summary, table
from ._config import get_num_threads, show_config
from ._progress import INTERRUPTED, progress

FORMAT = 1  # of the JSON file
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class BenchError(Exception):
    """What the user can put right; the command line prints it and exits with 2."""


class WrongResultError(Exception):
    """A system gave a wrong result, or the process that measures died: nothing is reported; exit code 1."""


def run(options: Namespace) -> int:
    """Measure, print the table, write the JSON file; the exit code."""
    cells = names("--cells", options.cells, CELLS)
    systems = names("--systems", options.systems or ",".join(DEFAULT), list(SYSTEMS))
    threads = usable_threads(options.threads)
    if options.json:
        check_writable(options.json)
    work = cases(GRIDS["short"], cells)
    status = 0
    document = new_document("bench", threads)
    print(f"{len(work)} cases, {options.seconds:g} s, each result checked before it is timed", file=sys.stderr)
    try:
        with progress(len(work), "case") as show:
            collect(document, work, systems, threads, options.seconds, show)
    except KeyboardInterrupt:  # what has been measured so far is worth showing
        status = INTERRUPTED
        print("\nfastrnn bench: interrupted; what had been measured:", file=sys.stderr)
    print("\n".join([heading(document), "", *table(document), "", *summary(document)]), flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(f"\nwritten to {options.json}")
    return status


def new_document(benchmark: str, threads: int) -> dict[str, Any]:
    """What a result depends on besides the code that is measured; rows are added to it."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    config = dict(show_config("dicts") or {})
    versions = {name: config[name] for name in ("fastrnn", "python")}
    return {
        "format": FORMAT, "benchmark": benchmark, "date": now, "cpu": cpu_name(), "threads": threads,
        "versions": versions, "absent": {}, "config": config, "rows": [], "late": [],
    }  # fmt: skip


def collect(
    document: dict[str, Any], work: Sequence[Case], systems: Sequence[str], threads: int, seconds: float, show: Any
) -> None:
    """Measure the cases and add their rows to the document.

    Raises
    ------
    WrongResultError
        A result that is not the reference's, or a worker that died.
    """
    for done, event in enumerate(events(work, systems, threads, seconds)):
        kind = event.pop("event")
        if kind == "start":
            document["versions"].update({name: v for name, v in event["versions"].items() if v})
            document.update(absent=event["absent"], config=event["config"])
        elif kind == "row":
            document["rows"].append(event)
        elif kind == "late":
            document["late"].append(event["case"])
        if kind in ("row", "late"):
            show(done, str(Case(**event["case"])))


def events(work: Sequence[Case], systems: Sequence[str], threads: int, seconds: float) -> Iterator[dict[str, Any]]:
    """What the measuring process says, as it says it: one `start`, a `row` or `late` for each case."""
    request = {"threads": threads, "seconds": seconds, "systems": list(systems), "cases": [c.as_dict() for c in work]}
    command = [sys.executable, "-m", f"{__package__}._bench_worker"]
    # Not a pipe: one that nobody reads would fill and stop the process. Closed below, after the last event.
    said = TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
    with pinned(threads):
        worker = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True, env=environment(threads)
        )
    last = ""
    try:
        stdin, stdout = cast(TextIO, worker.stdin), cast(TextIO, worker.stdout)
        with suppress(BrokenPipeError):  # it died at once: told below
            stdin.write(json.dumps(request))
            stdin.close()
        for line in stdout:
            event = json.loads(line)
            last = event["event"]
            if last == "wrong":
                raise WrongResultError(event["message"])
            yield event
        if last != "end":
            said.seek(0)
            lines = said.read().strip().splitlines() or ["it said nothing"]
            message = f"the process that measures ended with {worker.wait()}: {lines[-1]}"
            raise WrongResultError(message)
    finally:
        worker.kill()
        worker.wait()
        for stream in (worker.stdin, worker.stdout, said):
            with suppress(BrokenPipeError):
                cast(TextIO, stream).close()


def environment(threads: int) -> dict[str, str]:
    """Variables under which every system uses that many threads, and this very package is found."""
    names = (*THREAD_VARIABLES, backends.THREADS)
    count = str(threads)
    eigen = "true" if threads > 1 else "false"
    flags = f"--xla_cpu_multi_thread_eigen={eigen} intra_op_parallelism_threads={count}"
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return {
        **os.environ, **dict.fromkeys(names, count), "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu",
        backends.VARIABLE: backends.current().NAME, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore",
    }  # fmt: skip


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Inside, this thread and what it starts may use as many CPUs as threads: nobody gains by ignoring the number."""
    cpus = available_cpus()
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    os.sched_setaffinity(0, cpus[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cpus)


def usable_threads(wanted: int | None) -> int:
    """That many, or as many as the layers would use.

    Raises
    ------
    BenchError
        More than there are CPUs: the systems would then wait for each other's threads, each in its own way.
    """
    count = len(available_cpus())
    if wanted is not None and wanted > count:
        message = f"--threads is {wanted}; this process may use {count} CPU{'s' if count > 1 else ''}"
        raise BenchError(message)
    return wanted or min(get_num_threads(), count)


def available_cpus() -> list[int]:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def check_writable(path: str) -> None:
    """Minutes of measuring should not end in a file that cannot be written."""
    try:
        with Path(path).open("a", encoding="utf-8"):
            pass
    except OSError as error:
        message = f"--json {path} cannot be written: {error.strerror or error}"
        raise BenchError(message) from error


def names(option: str, text: str, known: Sequence[str]) -> list[str]:
    """The names of a comma-separated list, in the order of `known`.

    Raises
    ------
    BenchError
        One that is not known, or none.
    """
    given = [part.strip() for part in text.split(",") if part.strip()]
    if not given or set(given) - set(known):
        message = f"{option} is {text!r}; it must be one or more of {','.join(known)}"
        raise BenchError(message)
    return [name for name in known if name in given]
