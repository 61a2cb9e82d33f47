"""A tiny diffusion that needs nothing of the core, and ways to look at it."""

from __future__ import annotations

from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

QUIET = Console(quiet=True)


class Toy(nn.Module):
    """Regresses noise; dropout makes it depend on every random number that training draws."""

    def __init__(self, size: int = 3, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = nn.Sequential(nn.Linear(size, 8), nn.SiLU(), nn.Dropout(0.2), nn.Linear(8, size))
        self.seen: list[Tensor] = []

    def loss(self, x: Tensor, cond: Any = None, rows: Any = None) -> Tensor:
        self.seen.append(x)
        noise, t = torch.randn_like(x), torch.rand(len(x), 1)
        return (self.network(x * (1 - t) + noise * t) - noise).square().mean(1)


def data(n: int = 23, size: int = 3) -> Tensor:
    return torch.randn(n, size, generator=torch.Generator().manual_seed(5))


def weights(module: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(weights(a), weights(b), strict=True))
