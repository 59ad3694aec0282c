"""What every benchmark's result has in common: its JSON file, with processor, versions and date."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastrnn import _bench
from fastrnn._bench_cases import Case

FOLDER = Path(__file__).resolve().parent / "results"  # not under version control


def new(benchmark: str, threads: int = 1) -> dict[str, Any]:
    """An empty result of this process's installation."""
    return _bench.new_document(benchmark, threads)


def save(document: dict[str, Any], path: str | Path | None) -> None:
    """Write the result, if there is a path."""
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(f"written to {path}")


def load(path: str | Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return document


def gains(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of `bench_threads.py` (split, case, busy), with `alone`, the seconds of one thread on the idle machine, and
    `ratios`, speed against that by the number of threads."""
    found = [
        {**row, "case": Case(**row["case"]), "seconds": {int(count): s for count, s in row["seconds"].items()}}
        for row in document["rows"]
    ]
    alone = {(row["split"], row["case"].mode): row["seconds"][1] for row in found if not row["busy"]}
    for row in found:
        row["alone"] = alone[row["split"], row["case"].mode]
        row["ratios"] = {count: row["alone"] / seconds for count, seconds in row["seconds"].items()}
    return found


def print_table(head: list[str], rows: list[list[str]]) -> None:
    """Columns as wide as they must be, the first to the left, numbers to the right."""
    lines = [head, *rows]
    width = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        first, *rest = (f"{text:>{size}}" for text, size in zip(line, width, strict=True))
        print("  ".join([f"{line[0]:<{width[0]}}" if first else "", *rest]))
