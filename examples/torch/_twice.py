"""What the programs share: train twice from one seed, without fastrnn and with it, and put the curves side by side."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch

import fastrnn.torch

Curve = list[float]


def main(about: str, train: Callable[[int], Curve], *, steps: int, small: int, sb3: bool = False) -> None:
    """Command line of a program: `train(steps)` gives a number for each point of its learning curve."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--steps", type=int, default=steps, help=f"of training (default {steps})")
    parser.add_argument("--small", action="store_true", help="a few seconds only")
    parser.add_argument("--json", action="store_true", help="print the result as one line of JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    ways: dict[str, dict[str, Any] | None] = {"PyTorch": None, "patched": {}}
    if sb3:
        ways["sb3=True"] = {"sb3": True}
    curves, seconds = {}, {}
    for name, patch in ways.items():
        if patch is not None:
            fastrnn.torch.patch(**patch)
        train(1)  # what happens once only is not timed
        torch.manual_seed(0)
        begin = time.perf_counter()
        curves[name] = train(small if options.small else options.steps)
        seconds[name] = time.perf_counter() - begin
        if patch is not None:
            fastrnn.torch.unpatch()
    if options.json:
        report = fastrnn.torch.report()
        print(json.dumps({"curves": curves, "seconds": seconds, "report": report}))
    else:
        show(curves, seconds)
        print(f"\n{fastrnn.torch.report()}")


def show(curves: dict[str, Curve], seconds: dict[str, float]) -> None:
    print("point " + "".join(f"{name:>12}" for name in curves))
    for index, row in enumerate(zip(*curves.values(), strict=True)):
        print(f"{index:<6}" + "".join(f"{value:>12.4f}" for value in row))
    print("time  " + "".join(f"{value:>10.2f} s" for value in seconds.values()))
    base = seconds["PyTorch"]
    print("speed " + "".join(f"{base / value:>11.2f}x" for value in seconds.values()))


def mean_of_tenths(losses: list[float]) -> Curve:
    """At most ten points of a long curve."""
    size = max(1, len(losses) // 10)
    return [sum(losses[i : i + size]) / len(losses[i : i + size]) for i in range(0, len(losses), size)]
