"""Options of the benchmarks and what their JSON says about the machine."""

from __future__ import annotations

from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fastrnn benchmarks")
    group.addoption("--steps", default="1,8,32,128,512,2048", help="values of T, the number of steps")
    group.addoption("--sizes", default="16,64,128", help="N,I,H: batch, input and hidden size")
    group.addoption("--cells", default="lstm,gru,rnn", help="which cells")
    group.addoption("--systems", default="cpp,numba,numpy", help="which backends")
    group.addoption("--budget", default=0.4, type=float, help="seconds per measurement")


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    from _common import facts

    machine_info.update(facts())
