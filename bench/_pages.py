"""docs/performance.md, from the documents that the benchmarks left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from _results import gains
from fastrnn._bench_cases import CELLS, MODES, NAMES, Case
from fastrnn._bench_systems import SYSTEMS
from fastrnn._bench_table import COLUMNS, cells_of, duration, summary, systems_of

Document = dict[str, Any]

HEAD = """# Performance

Written by `python bench/report.py`, which runs every benchmark in `bench/` and takes some eleven minutes; nothing
here is edited by hand. `python -m fastrnn bench` measures the same in two minutes on your machine.

- Every result is compared with NumPy's before it is timed; a wrong one ends the run.
- The measuring process may use as many CPUs as threads, and every system is told that number. The systems take turns,
  and a time is the median of the rounds. What a system can prepare once (a session, a compiled graph, packed weights)
  is not timed.
- **Inference** is y for a whole sequence. **Training** is forward and backward to x and all weights, with weights
  that are new to fastrnn at each step, so packing them is part of its time.
- Ratios above 1 are in our favour: the other's time divided by ours. *Best peer* is the fastest of PyTorch, ONNX
  Runtime, OpenVINO and JAX in that row; NumPy is our own NumPy backend, with one product for all of x and one for
  each step.
- GFLOP/s counts matrix products only: 2 N G H (T I + (T - 1) H) forward (without an initial state there is nothing for
  U to multiply at the first step), three times that for a training step. *% of peak* is the share of the multiply-add
  rate that the same run measured on as many threads. *% of read* (N = 1): bytes of recurrent weights that the steps
  after the first need, once forward and once more in training, divided by our time, as a share of what reading a
  buffer of that size reached in the same run.
"""


def caption(document: Document) -> str:
    """Where and when, in one line."""
    threads = document["threads"]
    versions = [f"{SYSTEMS[n].label if n in SYSTEMS else n} {v}" for n, v in document["versions"].items()]
    isa = document["config"].get("isa_active", "no compiled")
    lines = [
        f"*{document['cpu']}, {isa} kernels, {threads} thread{'s' if threads > 1 else ''}, float32; "
        f"{', '.join(versions)}; {document['date'][:10]}.*"
    ]
    lines += [f"*Without {SYSTEMS[name].label}: {why}.*" for name, why in document.get("absent", {}).items()]
    if document.get("late"):
        lines.append(f"*{len(document['late'])} cases were left out because the time was over.*")
    return "\n".join(lines)


def markdown(head: list[str], rows: list[list[str]], texts: int = 1) -> str:
    """A table whose first `texts` columns are words and the others numbers."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * texts + "--:|" * (len(head) - texts)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def peers(document: Document) -> str:
    """A table for each cell and mode."""
    systems = systems_of(document)
    parts = [caption(document), *(f"- {line}" for line in summary(document))]
    for cell in CELLS:
        for mode in MODES:
            rows = []
            for row in document["rows"]:
                case = Case(**row["case"])
                if (case.cell, case.mode) != (cell, mode):
                    continue
                more = (f", {case.L} layers" if case.L > 1 else "") + (
                    ", both directions" if case.bidirectional else ""
                )
                failed = "".join(f", {SYSTEMS[name].label} failed" for name in row["failed"])
                name = f"{case.N}, {case.T}, {case.I}, {case.H}{more}{failed}"
                rows.append([name, *cells_of(row, systems)])
            if not rows:
                continue
            done = [i for i, name in enumerate(systems) if any(row[i + 1] != "-" for row in rows)]
            keep = [0, *(i + 1 for i in done), *range(len(systems) + 1, len(rows[0]))]
            head = ["N, T, I, H", *(SYSTEMS[name].label for name in systems), *COLUMNS]
            parts.append(f"**{NAMES[cell]}, {mode}**")
            parts.append(markdown([head[i] for i in keep], [[row[i] for i in keep] for row in rows]))
    return "\n\n".join(parts)


def machine(document: Document) -> str:
    peaks: dict[tuple[str, str], dict[int, float]] = {}
    for row in document["peaks"]:
        peaks.setdefault((row["isa"], row["dtype"]), {})[row["threads"]] = row["flops"]
    reads: dict[int, dict[int, float]] = {}
    for row in document["reads"]:
        reads.setdefault(row["bytes"], {})[row["threads"]] = row["bytes_per_s"]
    counts = sorted({row["threads"] for row in document["peaks"]})
    heads = [f"{count} thread{'s' if count > 1 else ''}" for count in counts]
    return "\n\n".join(
        [
            caption(document),
            markdown(
                ["multiply-adds, GFLOP/s", "dtype", *heads],
                [[isa, dtype, *(f"{v[n] / 1e9:.0f}" for n in counts)] for (isa, dtype), v in peaks.items()],
                2,
            ),
            markdown(
                ["reading a buffer again and again, GB/s", *heads],
                [[size_text(n), *(f"{v[c] / 1e9:.0f}" for c in counts)] for n, v in reads.items()],
            ),
            markdown(["overhead", "us"], [[row["what"], f"{row['us']:.2f}"] for row in document["overheads"]]),
        ]
    )


def size_text(nbytes: int) -> str:
    return f"{nbytes >> 20} MB" if nbytes >= 1 << 20 else f"{nbytes >> 10} KB"


STEP_NAMES = {
    "stream": "fastrnn stream",
    "fastrnn": "fastrnn call",
    "torch": "PyTorch layer",
    "torch_cell": "PyTorch cell",
}


def step(document: Document) -> str:
    """Median / 99th percentile of one call."""
    names = sorted(document["rows"][0]["median"], key=lambda name: name not in ("stream", "fastrnn"))
    rows = []
    for row in document["rows"]:
        case = Case(**row["case"])
        times = [f"{row['median'][n] * 1e6:.1f} / {row['p99'][n] * 1e6:.1f}" for n in names]
        rows.append([f"{NAMES[case.cell]} I=H={case.H}", *times])
    head = ["us, median / 99 %", *(STEP_NAMES.get(name) or SYSTEMS[name].label for name in names)]
    about = (
        "N = 1, T = 1, calls timed one by one. The stream and PyTorch's cell carry their state along; the others "
        "start from zeros."
    )
    return "\n\n".join([caption(document), about, markdown(head, rows)])


def threads(document: Document) -> str:
    """Ratios to one thread on the idle machine."""
    found = gains(document)
    counts = list(found[0]["ratios"])
    rows = []
    for row in found:
        if row["busy"]:
            continue
        key = row["split"], row["case"]
        busy = next(r for r in found if r["busy"] and (r["split"], r["case"]) == key)
        ratios = [f"{r['ratios'][count]:.2f}" for r in (row, busy) for count in counts]
        rows.append([key[0], str(key[1]), duration(row["alone"]), *ratios])
    head = [f"{count}, {beside}" for beside in ("idle", "beside a busy process") for count in counts]
    about = (
        "Speed against one thread on the idle machine, by the way the plan shares a call. The busy process keeps "
        "one of the CPUs for itself as far as the system lets it: K threads then have K - 1/2 CPUs at best."
    )
    return "\n\n".join([caption(document), about, markdown(["shared by", "case", "one thread", *head], rows, 2)])


def memory(document: Document) -> str:
    rows = []
    names = list(document["rows"][0]["bytes"])
    for row in document["rows"]:
        case = Case(**row["case"])
        unit = 4 * case.T * case.N * case.H
        sizes = [f"{count / 2**20:.1f} MB, {count / unit:.1f} H" for count in (row["bytes"][name] for name in names)]
        rows.append([str(case), *sizes, f"{row['tape'] / 2**20:.1f} MB, {row['tape'] / unit:.0f} H"])
    about = (
        "What one forward and backward adds to the peak of a fresh process that already holds x, dy and the "
        "layer: in MB, and in numbers for each step and row as a multiple of H. The last column is the arithmetic "
        "of the tape alone (gates, c and y); on top of it come dx, the gradients, both packings of the weights, "
        "and for the RNN the gradients of its gates."
    )
    return "\n\n".join([caption(document), about, markdown(["case", *names, "tape, by arithmetic"], rows)])


# Name of the result, title, text, picture and what it shows.
SECTIONS: tuple[tuple[str, str, Callable[[Document], str], str, str], ...] = (
    ("peers_1", "Against the peers, one thread", peers, "", ""),
    ("peers_k", "Against the peers, all CPUs", peers, "", ""),
    ("sweep", "One size at a time", caption, "sweep", "GFLOP/s against T, N and H"),
    ("roofline", "Against the machine", caption, "roofline", "GFLOP/s against operations per byte of weights"),
    ("primitives", "The machine", machine, "", ""),
    ("step", "One step", step, "", ""),
    ("threads", "Threads", threads, "threads", "Speed against the number of threads"),
    ("memory", "Memory of a training step", memory, "", ""),
)


def performance(found: dict[str, Document], drawn: set[str]) -> str:
    """The whole page."""
    parts = [HEAD]
    known = found | ({"roofline": found["peers_1"]} if "roofline" in drawn else {})
    for name, title, text, picture, shows in SECTIONS:
        if name in known:
            parts.append(f"## {title}\n")
            if picture in drawn:
                parts.append(f"![{shows}](img/{picture}.svg)\n")
            parts.append(text(known[name]) + "\n")
    return "\n".join(parts)
