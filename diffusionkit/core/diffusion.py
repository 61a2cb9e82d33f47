"""A diffusion model: a network and the process that gives its output a meaning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from diffusionkit.core.objectives import Objective, Simple
from diffusionkit.core.processes import Process
from diffusionkit.core.rows import batch_size
from diffusionkit.core.state import tree_leaves


class Diffusion(nn.Module):
    """A network that denoises, and the process that it denoises.

    Args:
        network: any module called as `network(x, t, cond)` with t (B,), and for ragged data `network(x, t, cond, rows)`. Where
            conditions may be dropped it has `null(cond, drop)`, which replaces those of the samples marked in drop (B,).
        process: the space and its chain.
        objective: what training minimises; `Simple()` by default.
        masks: `masks(x0, rows) -> given`, for a network that is shown parts of the data: in training, entries where the drawn mask
            holds stay clean and do not count; the network is called with `given=mask` as well. By default the network's own
            `masks`, if it has any; without them, given parts are put back at each step of sampling instead.
    """

    def __init__(
        self,
        network: nn.Module,
        process: Process,
        objective: Objective | None = None,
        masks: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.process = network, process
        self.masks = masks or getattr(network, "masks", None)
        self.objective = objective or Simple()
        self.objective.check(process)

    def forward(self, x_t: Any, t: Tensor, cond: Any = None, rows: Any = None, given: Any = None) -> Any:
        """The network's raw output at x_t; t is (B,), or without dimensions for all samples alike."""
        inputs = self.process.inputs(x_t, t, rows)
        times = self._times(t, x_t, rows)
        extra = () if rows is None else (rows,)
        return self.network(inputs, times, cond, *extra, **({} if given is None else {"given": given}))

    def _times(self, t: Tensor, x: Any, rows: Any) -> Tensor:
        leaves = tree_leaves(x)
        dtype = next((leaf.dtype for leaf in leaves if leaf.is_floating_point()), torch.float32)
        return t.to(device=leaves[0].device, dtype=dtype).expand(batch_size(x, rows))

    def estimate(self, x_t: Any, t: Tensor, cond: Any = None, rows: Any = None, given: Any = None) -> Any:
        """What the network knows of the data given x_t, in the terms of the process."""
        return self.process.estimate(self(x_t, t, cond, rows, given), x_t, t, rows)

    def loss(self, x0: Any, cond: Any = None, rows: Any = None) -> Tensor:
        """(B,) training loss of clean data."""
        return self.objective(self, x0, cond, rows)

    def null(self, cond: Any, drop: Tensor) -> Any:
        """The condition with that of the samples in drop (B,) taken away."""
        return self.network.null(cond, drop)  # type: ignore[operator]
