"""The one way in which the benchmarks take time and memory: in turns, by medians, and with the share of the network told apart."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, NamedTuple

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


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, and how many seconds it took."""
    begun = time.perf_counter()
    found = work()
    return found, time.perf_counter() - begun


class Clock:
    """Counts the calls of a network and the seconds spent in them, so that the rest of the same run can be told from it.

    It listens by hooks until the end of a `with`; the module stays what it is. `evaluations` counts samples: the times (B,) that
    are the second argument of every network.
    """

    def __init__(self, module: nn.Module) -> None:
        self.seconds, self.calls, self.evaluations, self._begun = 0.0, 0, 0, 0.0
        self._hooks = (module.register_forward_pre_hook(self._enter), module.register_forward_hook(self._leave))

    def _enter(self, *_: Any) -> None:
        self._begun = time.perf_counter()

    def _leave(self, module: nn.Module, given: tuple, found: Any) -> None:
        self.seconds += time.perf_counter() - self._begun
        self.calls += 1
        self.evaluations += given[1].numel() if len(given) > 1 else 0

    def __enter__(self) -> Clock:
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        for hook in self._hooks:
            hook.remove()


# ---- memory ----


def fresh_peak() -> None:
    """Lets the highest memory of this process start anew, where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> float:
    """The highest memory in MB since `fresh_peak`, or since the process began.

    Linux says in `getrusage` the larger one of this and of what its parent had, from which it was forked.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


class Spent(NamedTuple):
    """What a command has taken: its exit code, seconds, those of all processors, and the highest memory in MB."""

    code: int
    seconds: float
    cpu_seconds: float
    peak_mb: float


def spent(command: Sequence[str], **options: Any) -> Spent:
    """Runs a command to its end; one that is interrupted together with this program is given the time to save what it has.

    A small process stands between, because a process's highest memory begins with that of the one which starts it.

    Args:
        command: what to run.
        options: of `subprocess.Popen`.
    """
    reading, writing = os.pipe()
    between = [sys.executable, "-S", "-c", _BETWEEN, str(writing), *command]
    with subprocess.Popen(between, pass_fds=(writing,), **options) as process:
        os.close(writing)
        try:
            _, seconds = timed(process.wait)
        except KeyboardInterrupt:
            process.wait()
            raise
    with os.fdopen(reading) as file:
        code, cpu, highest = file.read().split()
    return Spent(int(code), seconds, float(cpu), float(highest) / (1e6 if sys.platform == "darwin" else 1e3))


_BETWEEN = """
import os, signal, subprocess, sys
signal.signal(signal.SIGINT, lambda *_: None)
process = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(process.pid, 0)
code = os.waitstatus_to_exitcode(status)
os.write(int(sys.argv[1]), f"{code} {usage.ru_utime + usage.ru_stime} {usage.ru_maxrss}".encode())
"""


# ---- the machine ----


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
