"""Networks that are right by construction: posterior means of Gaussian processes, in place of trained ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffusionkit.core import Diffusion, Gaussian
from diffusionkit.timeseries.backbones.layers import missing

PHI, NOISE = 0.8, 0.6  # of an autoregressive process of order one


def denoised(process: Gaussian, x: Tensor, t: Tensor, mean: Tensor, cov: Tensor) -> Tensor:
    """E[x0 | x_t] (B, n) for x0 ~ N(mean, cov): mean (B, n), cov (n, n)."""
    alpha, sigma = (v.double()[0] for v in process.schedule(t))
    gain = alpha * cov @ torch.linalg.inv(alpha**2 * cov + sigma**2 * torch.eye(len(cov), dtype=torch.float64))
    return mean + (x - alpha * mean) @ gain.T


class Ideal(nn.Module):
    """A network with one parameter that does nothing; its process predicts x0."""

    masks = staticmethod(missing)

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def diffusion(self) -> Diffusion:
        self.process = Gaussian(predict="x0")
        return Diffusion(self, self.process).eval()

    def encode(self, cond: dict[str, Tensor]) -> dict[str, Tensor]:
        return cond


class Walk(Ideal):
    """Blocks of independent steps ~ N(drift, cov), both (D,) and (D, D) in units of the targets."""

    def __init__(self, drift: Tensor, cov: Tensor) -> None:
        super().__init__()
        self.drift, self.cov = drift.double(), cov.double()

    def forward(self, x: Tensor, t: Tensor, cond: dict[str, Tensor], given: Tensor | None = None) -> Tensor:
        flat = x.double().flatten(0, 1)
        return denoised(self.process, flat, t, self.drift.expand(len(flat), -1), self.cov).view_as(x).to(x.dtype)


class Recurrent(Ideal):
    """Steps x_t ~ N(PHI x_(t-1), noise^2) of one series, which the first lag shows."""

    def __init__(self, noise: float) -> None:
        super().__init__()
        self.cov = torch.tensor([[noise**2]]).double()

    def recur(self, lags: Tensor, time: Tensor, scale: Tensor, memory: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return lags[..., :1], lags.new_zeros(len(lags), 1)

    def forward(self, x: Tensor, t: Tensor, cond: dict[str, Tensor], given: Tensor | None = None) -> Tensor:
        mean = PHI * cond["hidden"][:, 0].double()
        return denoised(self.process, x.double()[:, 0], t, mean, self.cov)[:, None].to(x.dtype)


class Whole(Ideal):
    """Windows (B, T, 1) ~ N(0, cov), any part of which may be given, in the same places in each of a batch."""

    def __init__(self, cov: Tensor) -> None:
        super().__init__()
        self.cov = cov.double()

    def forward(self, x: Tensor, t: Tensor, cond: dict[str, Tensor], given: Tensor | None = None) -> Tensor:
        flat = x[..., 0].double()
        given = torch.zeros_like(flat[0], dtype=torch.bool) if given is None else given[0, :, 0]
        known, free = given & flat[0].isfinite(), ~given
        weights = self.cov[free][:, known] @ torch.linalg.inv(self.cov[known][:, known])
        cov = self.cov[free][:, free] - weights @ self.cov[known][:, free]
        out = torch.zeros_like(flat)
        out[:, free] = denoised(self.process, flat[:, free], t, flat[:, known] @ weights.T, cov)
        return out[..., None].to(x.dtype)
