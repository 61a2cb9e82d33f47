"""Orientations: heat diffusion on the rotations of space, SO(3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffusionkit.core.processes.heat import Heat
from diffusionkit.core.rows import Rows, total
from diffusionkit.core.schedules import VE, Schedule


class Rotation(Heat):
    """R_t = exp(v) R_0 with v from IGSO(3), the law of Brownian motion on SO(3) (Leach et al. 2022; Corso et al. 2023).

    The state holds rotation matrices (B, ..., 3, 3); network outputs, noise and scores are rotation vectors (B, ..., 3) in the
    fixed outer frame: a rotation Q of the whole, R -> Q R, turns them as v -> Q v.

    Args:
        schedule: variance exploding (alpha is 1), up to a sigma of about 1.65, where the mean of R_t is exp(-sigma^2) = .07 R_0.
    """

    called = "rotations"
    ends = (1.5, 4.0)

    def __init__(self, schedule: Schedule | None = None) -> None:
        super().__init__(schedule or VE(0.03, 1.65))

    def prior(
        self,
        shape: tuple[int, ...],
        t: Tensor | None = None,
        rows: Rows | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        return exp(_draw(torch.full(shape[:-2], 9.0, device=device))).to(dtype or torch.get_default_dtype())

    def tangent(self, x: Tensor) -> Tensor:
        return x[..., 0]

    def noise(self, x: Tensor, sigma: Tensor) -> Tensor:
        return _draw(sigma.to(x.device).squeeze(-1).expand(x.shape[:-2])).to(x.dtype)

    def move(self, x: Tensor, v: Tensor) -> Tensor:
        moved = exp(v).to(x.dtype) @ x
        return 1.5 * moved - moved @ moved.mT @ moved / 2  # Newton's step back to an orthogonal matrix

    def away(self, x: Tensor, x0: Tensor) -> Tensor:
        return log(x @ x0.mT)

    def score(self, v: Tensor, sigma: Tensor) -> Tensor:
        return igso3(v.norm(dim=-1), sigma.squeeze(-1))[1].unsqueeze(-1) * v

    def log_density(self, v: Tensor, sigma: Tensor) -> Tensor:
        return igso3(v.norm(dim=-1), sigma.squeeze(-1))[0] - math.log(8 * math.pi**2)

    def guide(self, output: Tensor, x_t: Tensor, t: Tensor, gradient: Tensor, rows: Rows | None = None) -> Tensor:
        """`gradient` is that with respect to the entries of the matrices."""
        turning = torch.linalg.cross(x_t, gradient, dim=-2).sum(-1)
        return super().guide(output, x_t, t, turning, rows)

    def prior_kl(self, x0: Tensor, rows: Rows | None = None) -> Tensor:
        """KL of IGSO(3) at t = 1 to the uniform law, integrated over the angle."""
        angle = torch.linspace(0, math.pi, 257, dtype=torch.float64)
        log_density, _ = igso3(angle, self.schedule(torch.ones(()))[1])
        kl = torch.trapezoid((1 - angle.cos()) / math.pi * log_density.exp() * log_density, angle)
        return total(kl.to(x0).expand(x0.shape[:-2]), rows)


def exp(v: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of rotation vectors (..., 3), by Rodrigues' formula."""
    angle = v.norm(dim=-1)[..., None, None] / math.pi
    eye = torch.eye(3, dtype=v.dtype, device=v.device).expand(*v.shape, 3)
    cross = torch.linalg.cross(eye, v.unsqueeze(-2))
    return eye + angle.sinc() * cross + (angle / 2).sinc() ** 2 / 2 * (cross @ cross)


def log(rotation: Tensor) -> Tensor:
    """Rotation vectors (..., 3) of matrices (..., 3, 3), with an angle in [0, pi], by way of the quaternion."""
    eye = torch.eye(3, dtype=rotation.dtype, device=rotation.device).expand_as(rotation)
    trace = rotation.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    side = torch.linalg.cross(eye, rotation, dim=-2).sum(-1).unsqueeze(-1)
    # 4 q q^T of the quaternion q; its largest row is q to rounding at any angle.
    square = torch.cat(
        [torch.cat([1 + trace, side.mT], -1), torch.cat([side, rotation + rotation.mT + (1 - trace) * eye], -1)], -2
    )
    best = square.diagonal(dim1=-2, dim2=-1).argmax(-1)[..., None, None].expand(*square.shape[:-2], 1, 4)
    q = square.gather(-2, best).squeeze(-2)
    q = torch.where(q[..., :1] < 0, -q, q)
    length = q[..., 1:].norm(dim=-1, keepdim=True).clamp(min=1e-30)
    return 2 * torch.atan2(length, q[..., :1]) / length * q[..., 1:]


def igso3(angle: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """The log density of IGSO(3) with respect to the uniform law at angles in [0, pi], and its slope divided by the angle.

    f(w) = sum_l (2 l + 1) exp(-l (l + 1) sigma^2 / 2) sin((l + 1/2) w) / sin(w / 2)
         = exp(sigma^2 / 8) sqrt(2 pi) / sigma^3 / sin(w / 2) sum_k (-1)^k (w + 2 pi k) exp(-(w + 2 pi k)^2 / 2 sigma^2),

    the latter by Poisson's summation. Below sigma = 1 the periods k = -1, 0, 1 are exact to rounding, above it ten terms of the
    series, as one of cosines. Both are worked out in float64; the errors are below 1e-6 of the values for sigma from 0.001 on.
    """
    w, sigma = angle.double(), sigma.to(angle.device, torch.float64)
    # The periods, with the factor (w / sin) exp(-w^2 / 2 sigma^2) taken out and terms that are 0 / 0 at w = 0 at 0.001.
    s2, a, u = sigma.clamp(max=1) ** 2, w.clamp(1e-3, math.pi), 2 * math.pi
    last, other = torch.exp(-u * (math.pi - a) / s2), torch.exp(-2 * u * a / s2)
    periods = 1 + last * (u / a * (1 - other) - (1 + other))
    bend = last * (u / s2 * (u / a * (1 + other) - (1 - other)) - u / a**2 * (1 - other))
    near = s2 / 8 + math.log(8 * math.pi) / 2 - 1.5 * s2.log() - (a / u).sinc().log() + periods.log() - w**2 / s2 / 2
    near_slope = (1 / a - 0.5 / (a / 2).tan() + bend / periods) / a - 1 / s2
    # The series.
    j, w = torch.arange(10, device=w.device), w.unsqueeze(-1)
    terms = (2 * j + 1) * torch.exp(-j * (j + 1) / 2 * sigma.clamp(min=1).unsqueeze(-1) ** 2)
    cosines = terms.flip(-1).cumsum(-1).flip(-1) * torch.where(j > 0, 2, 1)
    far = (cosines * (j * w).cos()).sum(-1)
    far_slope = -(cosines * j**2 * (j * w / math.pi).sinc()).sum(-1) / far
    found = torch.where(sigma < 1, near, far.log()), torch.where(sigma < 1, near_slope, far_slope)
    return found[0].to(angle.dtype), found[1].to(angle.dtype)


def _draw(sigma: Tensor) -> Tensor:
    """Rotation vectors (..., 3) from IGSO(3) at sigma (...), in float64, by rejection from a normal law: about half are taken."""
    every = sigma.double().clamp(min=1e-8).flatten()
    vectors, left = every.new_empty(len(every), 3), torch.arange(len(every), device=every.device)
    while len(left):
        wide, width = every[left], every[left].clamp(max=1.65)
        v = width.unsqueeze(-1) * torch.randn(len(left), 3, dtype=torch.float64, device=every.device)
        w = v.norm(dim=-1)
        # The ratio of the densities of v; uniform rotations have sinc(w / 2 pi)^2 / 8 pi^2. It is nowhere above `most`.
        ratio = igso3(w, wide)[0] + 2 * (w / 2 / math.pi).sinc().log() + 3 * width.log() + (w / width) ** 2 / 2
        most = (1.28 + 0.23 * wide**2).clamp(max=2.23)
        taken = (w < math.pi) & (torch.rand_like(w) * most < (ratio - math.log(8 * math.pi) / 2).exp())
        vectors[left[taken]], left = v[taken], left[~taken]
    return vectors.reshape(*sigma.shape, 3)
