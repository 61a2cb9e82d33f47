"""The one LightningModule: it trains every diffusion of every domain."""

from __future__ import annotations

import math
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from diffusionkit.core.seeds import reseed
from diffusionkit.core.state import Batch, tree_map
from diffusionkit.domain import Dataset
from diffusionkit.training.loader import Loader, mix
from diffusionkit.training.options import Training


def learning_rate(options: Training, step: int) -> float:
    """The learning rate of the step after `step` steps: a function of the step alone, so that resuming needs no state."""
    warmup = min(options.warmup, options.steps // 5)
    if step < warmup:
        return options.lr * (step + 1) / warmup
    if options.decay == "constant":
        return options.lr
    done = min(1.0, (step - warmup) / (options.steps - warmup))
    return options.lr * (1 - done if options.decay == "linear" else (1 + math.cos(math.pi * done)) / 2)


class Trainee(pl.LightningModule):
    """A diffusion in training.

    Every step seeds torch's random numbers from (seed, step, rank) and takes its batch by number. What a step does is
    therefore a function of the weights, the optimiser's state and the step's number: a resumed run goes on to the same
    weights, bit by bit on a CPU, and nobody who draws numbers between two steps disturbs it.

    Args:
        diffusion: anything with `.loss(x, cond, rows) -> (B,)`.
        dataset: the training part.
        options: the recipe's section `training`.
        seed: of the order of the data and of the noise.
    """

    def __init__(self, diffusion: nn.Module, dataset: Dataset, options: Training, seed: int = 0) -> None:
        super().__init__()
        self.diffusion, self.dataset, self.options, self.seed = diffusion, dataset, options, seed
        self.total: Tensor | float = 0.0  # of the losses since the last row of metrics.csv; not finite once one was not
        self.count = 0
        self.valid_loss: float | None = None
        self.away = 0.0  # seconds spent on anything but training: measuring, drawing, saving

    def train_dataloader(self) -> Loader:
        # Asked for after a checkpoint has been restored, when the step and the rank are known.
        start = self.trainer.global_step * self.options.accumulate
        return Loader(
            self.dataset,
            self.options.batch_size,
            seed=self.seed,
            start=start,
            rank=self.trainer.global_rank,
            world=self.trainer.world_size,
            ahead=2 if self.device.type == "cuda" else 0,
        )

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int = 0) -> Batch:
        if device.type == "cpu":
            return batch
        x, cond = (tree_map(lambda v: v.to(device, non_blocking=True), tree) for tree in batch[:2])
        return Batch(x, cond, None if batch.rows is None else batch.rows.to(device))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        lr = learning_rate(self.options, self.trainer.global_step)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = lr

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        accumulate = self.options.accumulate
        k = self.trainer.global_step * accumulate + batch_idx % accumulate
        reseed(mix(self.seed, k, self.trainer.global_rank, 2), self.device)
        loss = self.diffusion.loss(*batch).mean()
        self.total = self.total + loss.detach()
        self.count += 1
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        options = self.options
        return torch.optim.AdamW(
            [p for p in self.parameters() if p.requires_grad],
            lr=learning_rate(options, 0),
            betas=tuple(options.betas),
            weight_decay=options.weight_decay,
            # The fused optimiser undoes fp16's loss scaling itself, too late for clipping.
            fused=self.device.type in ("cpu", "cuda") and options.precision != "fp16",
        )

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> None:
        if self.options.clip:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.options.clip)
