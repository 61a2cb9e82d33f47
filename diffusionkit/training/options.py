"""The options of the training loop: the section `training` of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Training:
    """How a diffusion is trained; every field is a key of the recipe's section `training`.

    Args:
        steps: optimiser steps in the whole run; 0 leaves them to the domain, which may suit them to the size of the data.
        batch_size: samples in one batch, of each device.
        lr: learning rate of AdamW after the warm-up.
        warmup: steps over which the learning rate rises linearly from 0; at most a fifth of the run.
        decay: what follows the warm-up: "cosine" and "linear" fall to 0 at the last step, "constant" stays.
        weight_decay: decoupled weight decay.
        betas: AdamW's two decay rates.
        clip: largest norm of the gradient; 0 switches clipping off.
        accumulate: batches whose gradients are averaged for one optimiser step.
        ema: decay of the weights' moving average, warmed up as min(ema, (1 + n) / (10 + n)); 0 switches it off.
        precision: "32", or mixed precision with "bf16" or "fp16".
        compile: compile the network with torch.compile.
        every: steps between two held-out losses with a picture of samples; 0 means about ten times in a run.
        pictures: samples in such a picture; 0 draws none.
    """

    steps: int = 10_000
    batch_size: int = 128
    lr: float = 2e-4
    warmup: int = 500
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 1.0
    accumulate: int = 1
    ema: float = 0.999
    precision: Literal["32", "bf16", "fp16"] = "32"
    compile: bool = False
    every: int = 0
    pictures: int = 64

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("batch_size", 1), ("accumulate", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("warmup", "weight_decay", "clip", "every", "pictures"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, but it is {getattr(self, name)}")
        if not self.lr > 0:
            raise ValueError(f"lr must be above 0, not {self.lr:g}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must lie in [0, 1), not {self.ema:g}")
        if self.decay not in ("cosine", "linear", "constant"):
            raise ValueError(f"decay must be 'cosine', 'linear' or 'constant', not {self.decay!r}")
        if self.precision not in ("32", "bf16", "fp16"):
            raise ValueError(f"precision must be '32', 'bf16' or 'fp16', not {self.precision!r}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers in [0, 1), not {tuple(self.betas)}")

    @property
    def interval(self) -> int:
        """Steps between two held-out losses and pictures."""
        return self.every or max(1, self.steps // 10)
