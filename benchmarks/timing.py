"""The one way in which the benchmarks take time: in turns, and by medians."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch
from torch import nn

Work = Callable[[], Any]


def rounds(works: Mapping[str, Work], repeats: int, warmup: int = 2) -> dict[str, list[float]]:
    """Seconds of each piece of work, once per round, so that whatever else the machine does hits all of them alike.

    Every other round goes backwards: nobody always runs in the wake of the same other.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(warmup + repeats):
        order = list(works) if number % 2 else list(works)[::-1]
        for name in order:
            begun = time.perf_counter()
            works[name]()
            if number >= warmup:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def ratio(slow: list[float], fast: list[float]) -> float:
    """How many times as long `slow` took: the median of the rounds' own ratios, which a passing load leaves alone."""
    return median(a / b for a, b in zip(slow, fast, strict=True))


class Clocked(nn.Module):
    """A module that counts the seconds spent in it, so that the rest of the same run can be told from it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.seconds = module, 0.0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        begun = time.perf_counter()
        result = self.module(*args, **kwargs)
        self.seconds += time.perf_counter() - begun
        return result

    def null(self, *args: Any) -> Any:
        return self.module.null(*args)


def machine() -> dict[str, Any]:
    """What the numbers depend on; no names."""
    return {
        "architecture": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
