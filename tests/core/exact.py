"""Diffusions whose network is known in closed form: what a sampler must then reproduce is known too."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffusionkit.core import Categorical, Diffusion, Gaussian, Product, Rotation, Torus
from diffusionkit.core.processes.rotation import igso3
from diffusionkit.core.processes.torus import wrapped_normal_score
from diffusionkit.core.rows import spread


class Exact(Diffusion):
    """A diffusion whose raw output is `output(x_t, t)`, given the state as it is."""

    def __init__(self, process, output: Callable) -> None:
        super().__init__(nn.Identity(), process)
        self.output = output

    def forward(self, x_t, t, cond=None, rows=None, given=None):
        return self.output(x_t, t, cond)


def raw(process: Gaussian, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """The network's output that stands for the posterior mean x0."""
    alpha, sigma = (spread(v, x_t) for v in process.schedule(t))
    of_x0, of_noise = process._target(alpha, sigma)
    output = of_x0 * x0 + of_noise * (x_t - alpha * x0) / sigma
    return torch.cat([output, torch.zeros_like(output)], 1) if process.predict == "eps+variance" else output


def gaussian_mean(process: Gaussian, x_t: Tensor, t: Tensor, mean: float, std: float) -> Tensor:
    """E[x0 | x_t] for data N(mean, std^2)."""
    alpha, sigma = (spread(v, x_t) for v in process.schedule(t))
    return mean + std**2 * alpha / (alpha**2 * std**2 + sigma**2) * (x_t - alpha * mean)


def gaussian(process: Gaussian, mean: float = 0.7, std: float = 0.5) -> Exact:
    """Data N(mean, std^2) in every dimension."""
    return Exact(process, lambda x, t, cond: raw(process, gaussian_mean(process, x, t, mean, std), x, t))


def mixture(process: Gaussian, means: Tensor, std: float) -> Exact:
    """Data from equal parts of N(mean_k, std^2) in every dimension by itself."""

    def output(x: Tensor, t: Tensor, cond) -> Tensor:
        alpha, sigma = (spread(v, x) for v in process.schedule(t))
        alpha, sigma = (v.to(x).unsqueeze(-1) for v in (alpha, sigma))
        variance = alpha**2 * std**2 + sigma**2
        away = x.unsqueeze(-1) - alpha * means.to(x)
        odds = (-(away**2) / (2 * variance)).softmax(-1)
        each = means.to(x) + std**2 * alpha / variance * away
        return raw(process, (odds * each).sum(-1), x, t)

    return Exact(process, output)


def joint_table(process: Categorical, table: Tensor) -> Exact:
    """Codes (B, 2) with joint probabilities `table` (S1, S2); logits of the posterior marginals."""

    def output(x: Tensor, t: Tensor, cond) -> Tensor:
        kept = process.schedule(t)[0].expand(len(x)).to(table) ** 2
        likelihoods = []
        for k, size in enumerate(table.shape):
            here = (x[:, k, None] == torch.arange(size)).to(table)
            if process.kind == "absorbing":
                likelihoods.append(torch.where((x[:, k] == size)[:, None], torch.ones_like(here), here))
            else:
                likelihoods.append(kept[:, None] * here + (1 - kept[:, None]) / size)
        joint = table * likelihoods[0][:, :, None] * likelihoods[1][:, None, :]
        joint = joint / joint.sum((1, 2), keepdim=True)
        return torch.cat([joint.sum(2), joint.sum(1)], 1).clamp(min=1e-30).log()

    return Exact(process, output)


def wrapped_normal(process: Torus, mean: float = 1.0, std: float = 0.4) -> Exact:
    """Angles from a wrapped normal: at time t it is one of variance std^2 + sigma_t^2."""

    def output(x: Tensor, t: Tensor, cond) -> Tensor:
        sigma = spread(process.schedule(t)[1], x)
        return sigma * wrapped_normal_score(x - mean, (sigma**2 + std**2).sqrt())

    return Exact(process, output)


def rotations(process: Rotation, means: Tensor, std: float) -> Exact:
    """Rotations from equal parts of IGSO(3) about `means` (K, 3, 3): at time t of variance std^2 + sigma_t^2 each."""

    def output(x: Tensor, t: Tensor, cond) -> Tensor:
        sigma = spread(process.schedule(t)[1], x[..., 0])
        odds, score = rotation_mixture(process, x, means, (sigma**2 + std**2).sqrt())
        return sigma * (odds.softmax(0).unsqueeze(-1) * score).sum(0)

    return Exact(process, output)


def rotation_mixture(process: Rotation, x: Tensor, means: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """(K, B) log densities at x (B, 3, 3) by the uniform law and (K, B, 3) scores of the parts of a mixture."""
    away = torch.stack([process.away(x, mean.to(x)) for mean in means])
    return igso3(away.norm(dim=-1), sigma.squeeze(-1))[0], process.score(away, sigma)


def product(parts: dict[str, Exact]) -> Exact:
    """Independent parts."""
    process = Product({name: part.process for name, part in parts.items()})
    return Exact(process, lambda x, t, cond: {name: part.output(x[name], t, cond) for name, part in parts.items()})
