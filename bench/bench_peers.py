"""Every installed peer on the same work: inference and training steps of LSTM, GRU and RNN over a grid of sizes.

    python bench/bench_peers.py --threads 1 --json bench/results/peers_1.json
    python bench/bench_peers.py --grid sweep --cells lstm          # one size at a time
    python bench/bench_peers.py --systems numpy,torch,fastrnn --modes training

The measuring process may use as many CPUs as threads; every system is told that number. Each result is compared with
NumPy's before anything is timed; a wrong one ends the run. Times are medians of interleaved rounds. A training step is
forward and backward to x and all weights, with weights that are new to fastrnn, which therefore packs them each time.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import _results
from fastrnn import _bench
from fastrnn._bench_cases import CELLS, GRIDS, MODES, cases
from fastrnn._bench_systems import DEFAULT, SYSTEMS
from fastrnn._bench_table import heading, summary, table
from fastrnn._progress import progress


def run(
    grid: str, threads: int, seconds: float, cells: Any = CELLS, modes: Any = MODES, systems: Any = DEFAULT
) -> dict[str, Any]:
    """The document of one run."""
    document = _bench.new_document(f"peers {grid}", threads)
    work = cases(GRIDS[grid], cells, modes)
    with progress(len(work), "case") as show:
        _bench.collect(document, work, systems, threads, seconds, show)
    return document


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", choices=list(GRIDS), default="core")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=300.0, help="for the whole grid, about")
    parser.add_argument("--cells", default=",".join(CELLS))
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--systems", default=",".join(DEFAULT))
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    try:
        chosen = (
            _bench.names("--cells", options.cells, CELLS),
            _bench.names("--modes", options.modes, MODES),
            _bench.names("--systems", options.systems, list(SYSTEMS)),
        )
        document = run(options.grid, _bench.usable_threads(options.threads), options.seconds, *chosen)
    except (_bench.BenchError, _bench.WrongResultError) as error:
        print(f"bench_peers: {error}", file=sys.stderr)
        return 1 if isinstance(error, _bench.WrongResultError) else 2
    print("\n".join([heading(document), "", *table(document), "", *summary(document)]))
    _results.save(document, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
