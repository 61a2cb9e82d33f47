"""The objective of image-text models: each picture finds its caption, each caption its picture (Radford et al. 2021).

The pictures are noised, so that the model can steer a diffusion at every step (Nichol et al. 2022, GLIDE, section 2.4).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diffusionkit.core import Objective, Process
from diffusionkit.image.backbones.clip import ImageText


class Contrastive(Objective):
    """Trains a model of pictures and texts: symmetric cross-entropy over the batch.

    Args:
        latest: the largest time at which pictures are noised: 1 for a model that steers, little for one that judges.
        stratified: spread the times of a batch evenly.

    Raises:
        ValueError: for a time that is none.
    """

    use = 'it steers other runs: diffusionkit sample RUN --prompt "a red heart" --clip-model {run} --clip-guidance 50'

    def __init__(self, latest: float = 1.0, stratified: bool = True) -> None:
        super().__init__(stratified=stratified)
        if not 0 < latest <= 1:
            raise ValueError(f"latest is a time and must lie in (0, 1], not {latest:g}")
        self.latest = latest

    def check(self, process: Process) -> None:
        """Refuses spaces without levels of noise."""
        if not process.linear:
            raise ValueError(f"contrastive compares noised pictures, which {type(process).__name__} has not")

    def __call__(self, diffusion: Any, x0: Tensor, cond: Any = None, rows: Any = None) -> Tensor:
        """(B,) losses of pictures and their captions."""
        if not isinstance(diffusion.network, ImageText):
            raise ValueError(
                f"the objective contrastive trains the backbone clip, not {type(diffusion.network).__name__}"
            )
        t = self.latest * self.draw(diffusion.process, len(x0), x0.device)
        x_t, _ = diffusion.process.diffuse(x0, t)
        text = cond.get("text", cond.get("pooled")).flatten(1)
        return contrast(diffusion(x_t, t, cond), (text[:, None] == text).all(2))

    def log_prob(self, diffusion: Any) -> Callable[[Any, Tensor, Any], Tensor]:
        """Cosines (B,) of noised pictures and their texts, whose gradient steers another model."""

        def cosine(x_t: Tensor, t: Tensor, cond: Any) -> Tensor:
            return diffusion(x_t, t, cond).diagonal() / diffusion.network.scale

        return cosine


def contrast(logits: Tensor, same: Tensor | None = None) -> Tensor:
    """(B,) mean of the cross-entropies of each row and of each column.

    Args:
        logits: (B, B), pictures by captions.
        same: (B, B) where captions are equal; any of them is then right. By default the diagonal alone.
    """
    if same is None:
        same = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    right = same / same.sum(1, keepdim=True)
    both = [-(right * each.log_softmax(1)).sum(1) for each in (logits, logits.T)]
    return (both[0] + both[1]) / 2


__all__ = ["Contrastive", "contrast"]
