"""What training minimises: how times are drawn and how noise levels are weighted.

A weighting is the weight of the squared error in x0; the process translates it into the terms of what its network predicts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusionkit.core.guidance import class_log_prob
from diffusionkit.core.processes import Process
from diffusionkit.core.processes.base import Weight
from diffusionkit.core.rows import batch_size
from diffusionkit.core.schedules import Schedule
from diffusionkit.core.state import tree_leaves, tree_map

if TYPE_CHECKING:
    from diffusionkit.core.diffusion import Diffusion


class Objective:
    """Denoising at a random time; subclasses choose the times and weigh the levels.

    Args:
        drop: the share of samples whose condition is taken away, for classifier-free guidance (Ho & Salimans 2022).
        stratified: spread the times of a batch evenly, which lowers the gradient's variance (Kingma et al. 2021, appendix I.1).
        steps: draw times from the grid i / steps of a discrete chain instead of all of (0, 1].
    """

    weight: Weight | None = None
    use: str = ""
    """What to do with a run of it, written {run}, where it trains what cannot be sampled from."""

    def __init__(self, drop: float = 0.0, stratified: bool = True, steps: int | None = None) -> None:
        if not 0 <= drop < 1:
            raise ValueError(f"drop is a share of the samples and must lie in [0, 1), not {drop:g}")
        if steps is not None and steps < 1:
            raise ValueError(f"steps must be at least 1, not {steps}")
        self.drop, self.stratified, self.steps = drop, stratified, steps

    def check(self, process: Process) -> None:
        """Refuses a process that this objective does not fit."""
        if self.weight is not None and not process.linear:
            raise ValueError(
                f"{type(self).__name__} weighs errors in x0, which {type(process).__name__} has not: use Simple"
            )

    def draw(self, process: Process, n: int, device: torch.device) -> Tensor:
        """(n,) times in (0, 1]."""
        t = 1 - self.uniform(n, device)
        return t if self.steps is None else (t * self.steps).ceil() / self.steps

    def uniform(self, n: int, device: torch.device) -> Tensor:
        """(n,) draws from [0, 1), one in each n-th of it where stratified."""
        u = torch.rand(n, device=device)
        return ((torch.arange(n, device=device) + u) / n).clamp(max=1 - 2**-24) if self.stratified else u

    def __call__(self, diffusion: Diffusion, x0: Any, cond: Any = None, rows: Any = None) -> Tensor:
        """(B,) losses."""
        process = diffusion.process
        n, device = batch_size(x0, rows), tree_leaves(x0)[0].device
        if self.drop and cond is not None:
            cond = diffusion.null(cond, torch.rand(n, device=device) < self.drop)
        t = self.draw(process, n, device)
        x_t, noise = process.diffuse(x0, t, rows=rows)
        if diffusion.masks is None:
            return process.loss(diffusion(x_t, t, cond, rows), x0, x_t, noise, t, rows, self.weight)
        given = diffusion.masks(x0, rows)
        x_t = tree_map(lambda mask, clean, noised: torch.where(mask, clean, noised), given, x0, x_t)
        output = diffusion(x_t, t, cond, rows, given)
        # What is given may be missing: the network sees NaN there, and it does not count.
        x0 = tree_map(torch.nan_to_num, x0)
        return process.loss(output, x0, x_t, noise, t, rows, self.weight, tree_map(torch.logical_not, given))


class Simple(Objective):
    """The plain mean squared error of the network's output (Ho et al. 2020, eq. 14), or the process's own loss."""


class VLB(Objective):
    """The variational bound per dimension in nats, in continuous time: weight -SNR'(t) / 2 (Kingma et al. 2021, eq. 15)."""

    def weight(self, schedule: Schedule, t: Tensor) -> Tensor:
        return (snr(schedule, t) * slope(schedule, t) / 2).nan_to_num(0.0)


class MinSNR(Objective):
    """min(SNR, gamma) (Hang et al. 2023)."""

    def __init__(
        self, gamma: float = 5.0, drop: float = 0.0, stratified: bool = True, steps: int | None = None
    ) -> None:
        super().__init__(drop, stratified, steps)
        self.gamma = gamma

    def weight(self, schedule: Schedule, t: Tensor) -> Tensor:
        return snr(schedule, t).clamp(max=self.gamma)


class P2(Objective):
    """1 / (k + SNR)^gamma of the error in eps (Choi et al. 2022, eq. 8)."""

    def __init__(
        self, gamma: float = 1.0, k: float = 1.0, drop: float = 0.0, stratified: bool = True, steps: int | None = None
    ) -> None:
        super().__init__(drop, stratified, steps)
        self.gamma, self.k = gamma, k

    def weight(self, schedule: Schedule, t: Tensor) -> Tensor:
        ratio = snr(schedule, t)
        return ratio / (self.k + ratio) ** self.gamma


class EDMWeighting(Objective):
    """ln(sigma / alpha) ~ N(mean, std^2), weight (sigma^2 + sigma_data^2) / (sigma sigma_data)^2 (Karras et al. 2022, table 1)."""

    def __init__(
        self, mean: float = -1.2, std: float = 1.2, sigma_data: float = 0.5, drop: float = 0.0, stratified: bool = True
    ) -> None:
        super().__init__(drop, stratified)
        self.mean, self.std, self.sigma_data = mean, std, sigma_data

    def draw(self, process: Process, n: int, device: torch.device) -> Tensor:
        u = self.uniform(n, device).clamp(min=1e-6, max=1 - 1e-6)
        log_sigma = self.mean + self.std * torch.special.ndtri(u)
        return process.schedule.t_at(-2 * log_sigma).clamp(min=1e-5)

    def weight(self, schedule: Schedule, t: Tensor) -> Tensor:
        return snr(schedule, t) + 1 / self.sigma_data**2


class SigmoidWeighting(Objective):
    """sigmoid(bias - log SNR) of the bound's error in eps (Kingma & Gao 2023; Hoogeboom et al. 2024)."""

    def __init__(self, bias: float = 0.0, drop: float = 0.0, stratified: bool = True, steps: int | None = None) -> None:
        super().__init__(drop, stratified, steps)
        self.bias = bias

    def weight(self, schedule: Schedule, t: Tensor) -> Tensor:
        log_snr = schedule.log_snr(t)
        return (slope(schedule, t) / 2 * log_snr.exp() * torch.sigmoid(self.bias - log_snr)).nan_to_num(0.0)


class NoisyClassifier(Objective):
    """Trains a classifier of noised data for classifier guidance (Dhariwal & Nichol 2021, section 4): the network gives logits.

    Args:
        label: which entry of the condition holds the classes (B,).
    """

    use = (
        "as a classifier of noised data it guides a model RUN: diffusionkit sample RUN --classifier {run} --guidance 2"
    )

    def __init__(self, label: str = "class", stratified: bool = True) -> None:
        super().__init__(stratified=stratified)
        self.label = label

    def __call__(self, diffusion: Diffusion, x0: Any, cond: Any = None, rows: Any = None) -> Tensor:
        if not isinstance(cond, dict) or self.label not in cond:
            raise ValueError(f"NoisyClassifier needs data with {self.label!r} in its condition")
        t = self.draw(diffusion.process, batch_size(x0, rows), tree_leaves(x0)[0].device)
        x_t, _ = diffusion.process.diffuse(x0, t, rows=rows)
        return F.cross_entropy(diffusion(x_t, t, None, rows), cond[self.label], reduction="none")

    def log_prob(self, diffusion: Any) -> Callable[[Any, Tensor, Any], Tensor]:
        """log p(class | x_t), whose gradient guides another model; an objective with this method trains what can steer."""
        return class_log_prob(diffusion, self.label)


def snr(schedule: Schedule, t: Tensor) -> Tensor:
    """alpha^2 / sigma^2."""
    return schedule.log_snr(t).exp()


def slope(schedule: Schedule, t: Tensor) -> Tensor:
    """-d log SNR / dt, by automatic differentiation."""
    with torch.enable_grad():
        t = t.detach().clone().requires_grad_()
        return -torch.autograd.grad(schedule.log_snr(t).sum(), t)[0]
