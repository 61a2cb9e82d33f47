"""The time as diffusers counts it: steps from 0 on, where our networks are told 1000 t, from 1 on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from diffusionkit.errors import UserError

_FIRST = "conditions.time.layers.0.weight"


def counted(run: Any, state: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state of a network that is told steps from 0 on.

    Features of n + 1 are those of n, each pair of a cosine and a sine turned by its frequency, so that the layer after them
    can be turned instead.

    Raises:
        UserError: if the chain has another length than the one whose steps the network is told.
    """
    steps, told = run.diffusion.process.schedule.steps, arguments["time_steps"]
    if told == steps:
        return dict(state)
    if told is not None or steps != 1000:
        known = "1000 t" if told is None else f"steps of {told}"
        raise UserError(
            f"{run.folder}: its network is told {known}, and the format wants the steps of its chain of {steps}"
        )
    weight = state[_FIRST].double().cpu()
    half = weight.shape[1] // 2
    ladder = torch.arange(half, dtype=torch.float64)
    angles = torch.exp(ladder * (-math.log(10000.0) / max(half - arguments["time_shift"], 1)))
    cosines, sines, rest = weight[:, :half], weight[:, half : 2 * half], weight[:, 2 * half :]
    turned = [cosines * angles.cos() + sines * angles.sin(), sines * angles.cos() - cosines * angles.sin(), rest]
    return dict(state) | {_FIRST: torch.cat(turned, 1).to(state[_FIRST].dtype)}


__all__ = ["counted"]
