"""Results as lines of text: the machine, a table of cases and systems, and what it comes to."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from math import exp, log
from pathlib import Path
from typing import Any

from ._bench_cases import MODES, NAMES, Case
from ._bench_systems import PEERS, SYSTEMS

OURS, BASELINE = "fastrnn", "numpy"


def cpu_name() -> str:
    """Name of the processor as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def heading(document: dict[str, Any]) -> str:
    """Processor, threads, versions and date, and which systems are missing."""
    config = document["config"]
    versions = [f"{SYSTEMS[n].label if n in SYSTEMS else n} {v}" for n, v in document["versions"].items()]
    threads = document["threads"]
    lines = [
        f"{document['cpu']}, {threads} thread{'s' if threads > 1 else ''}, float32, "
        f"backend {config.get('backend', '?')} {config.get('isa_active', '')}".rstrip(),
        ", ".join(versions) + f"; {document['date'][:10]}",
        *(f"without {SYSTEMS[name].label}: {why}" for name, why in document["absent"].items()),
    ]
    if document["late"]:
        lines.append(f"not measured, the time being over: {', '.join(str(Case(**case)) for case in document['late'])}")
    return "\n".join(lines)


def systems_of(document: dict[str, Any]) -> list[str]:
    """Systems with at least one result, ours last."""
    return [name for name in SYSTEMS if any(name in row["seconds"] for row in document["rows"])]


def facts(row: dict[str, Any]) -> dict[str, float | None]:
    """What a row's times mean: ratios above 1 are in our favour.

    `gflops` and `share` of the multiply-add peak; `stream` for N=1: recurrent bytes per second, as a share of what
    reading a buffer of that size reaches.
    """
    case, seconds = Case(**row["case"]), row["seconds"]
    ours = seconds.get(OURS)
    if ours is None:
        return dict.fromkeys(("baseline", "peer", "gflops", "share", "stream"))
    peers = [seconds[name] for name in PEERS if name in seconds]
    peak, read = row["peak_flops"], row["read_bytes_per_s"]
    return {
        "baseline": seconds[BASELINE] / ours if BASELINE in seconds else None,
        "peer": min(peers) / ours if peers else None,
        "gflops": case.flops / ours / 1e9,
        "share": case.flops / ours / peak if peak else None,
        "stream": case.streamed_bytes / ours / read if read and case.N == 1 and case.T > 1 else None,
    }


COLUMNS = ("/ NumPy", "/ best peer", "GFLOP/s", "% of peak", "% of read")


def cells_of(row: dict[str, Any], systems: Sequence[str]) -> list[str]:
    """The texts of a row: its times, then `COLUMNS`."""
    found = facts(row)
    times = [duration(row["seconds"][name]) if name in row["seconds"] else "-" for name in systems]
    return [
        *times,
        *(f"{found[key]:.2f}" if found[key] is not None else "-" for key in ("baseline", "peer")),
        f"{found['gflops']:.1f}" if found["gflops"] is not None else "-",
        *(f"{100 * found[key]:.0f}" if found[key] is not None else "-" for key in ("share", "stream")),  # type: ignore[operator]
    ]


def table(document: dict[str, Any]) -> list[str]:
    """One line for each case under a line for each cell and mode; times are medians of a call."""
    systems = systems_of(document)
    head = ["N", "T", "I", "H", *(SYSTEMS[name].label for name in systems), *COLUMNS]
    lines: list[list[str] | str] = [head]
    group = None
    for row in document["rows"]:
        case = Case(**row["case"])
        if group != (group := (case.cell, case.mode)):
            lines.append(f"{NAMES[case.cell]}, {case.mode}")
        more = (f"  {case.L} layers" if case.L > 1 else "") + ("  both directions" if case.bidirectional else "")
        failed = [f"{SYSTEMS[name].label} failed" for name in row["failed"]]
        sizes = [str(size) for size in (case.N, case.T, case.I, case.H)]
        lines.append([*sizes, *cells_of(row, systems), "  ".join([more, *failed])])
    width = [max(len(line[i]) for line in lines if isinstance(line, list)) for i in range(len(head))]
    return [
        line if isinstance(line, str)
        else "  ".join(f"{text:>{size}}" for text, size in zip(line, width, strict=False)) + "".join(line[len(head) :])
        for line in lines
    ]  # fmt: skip


def summary(document: dict[str, Any]) -> list[str]:
    """How many times as long as ours the others take, over all cases of a mode: the geometric mean."""
    lines = []
    for mode in MODES:
        rows = [row for row in document["rows"] if row["case"]["mode"] == mode]
        parts = []
        for key, name in (("baseline", SYSTEMS[BASELINE].label), ("peer", "best peer")):
            ratios = [found for row in rows if (found := facts(row)[key]) is not None]
            if ratios:
                mean = geomean(ratios)
                parts.append(f"{name} / {OURS} {mean:.2f} (lowest {min(ratios):.2f}, {len(ratios)} cases)")
        if parts:
            lines.append(f"{mode}: " + "; ".join(parts))
    return lines


def geomean(ratios: Sequence[float]) -> float:
    return exp(sum(map(log, ratios)) / len(ratios))


def duration(seconds: float) -> str:
    """Three significant digits in us, ms or s."""
    for unit, name in ((1e-3, "us"), (1.0, "ms")):
        if seconds < unit:
            value = seconds / unit * 1e3
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {name}"
    return f"{seconds:.2f} s"
