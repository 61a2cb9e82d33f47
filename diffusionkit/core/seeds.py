"""Random numbers that start from a seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def reseed(seed: int, device: torch.device) -> None:
    """Seeds the random numbers of the CPU and of this device.

    `torch.manual_seed` does so for every kind of device there might be, and notes a stack trace for each that is idle.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        getattr(torch, device.type).manual_seed(seed)


@contextmanager
def drawing(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's random numbers start from `seed` inside and go on as if nothing had happened after it."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        reseed(seed, device)
        yield
