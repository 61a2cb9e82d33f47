"""How probable a model finds data: the variational bound term by term, and the probability-flow ODE."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffusionkit.core.processes import Gaussian
from diffusionkit.core.rows import Rows, batch_size, center, total
from diffusionkit.core.samplers import evaluating
from diffusionkit.core.state import tree_leaves


@dataclass(frozen=True)
class Bound:
    """The terms of -log p(x0) <= L_T + sum_t L_t + L_0, in nats (Ho et al. 2020, eq. 5).

    Attributes:
        L_T: (B,) what the prior does not know of the chain's end.
        L_t: (draws, B) the terms KL(q(x_s | x_t, x0) || p(x_s | x_t)) at `times`.
        L_0: (B,) -log p(x0 | x_1).
        times: (draws, B) the times t of the terms.
        steps: the chain's length; its steps - 1 terms are estimated by their mean where fewer were drawn.
        dimensions: (B,) numbers or categories in each sample.
    """

    L_T: Tensor
    L_t: Tensor
    L_0: Tensor
    times: Tensor
    steps: int
    dimensions: Tensor

    def total(self) -> Tensor:
        """(B,) the bound in nats."""
        return self.L_T + self.L_0 + (self.steps - 1) * (self.L_t.mean(0) if len(self.L_t) else 0.0)

    def bits_per_dimension(self) -> Tensor:
        """(B,) the bound in bits per dimension."""
        return self.total() / (self.dimensions * math.log(2))


def bound(
    diffusion: Any,
    x0: Any,
    cond: Any = None,
    rows: Any = None,
    steps: int | None = None,
    draws: int | None = None,
    bin: float | dict[str, float] | None = None,
) -> Bound:
    """The variational bound of each sample.

    Args:
        diffusion: the model.
        x0: the data.
        cond: its condition.
        rows: for ragged data, which sample each row belongs to.
        steps: the chain's length T; by default the process's.
        draws: how many of the T - 1 terms to draw for each sample (stratified, without bias); all by default.
        bin: the distance of the data's values where they are quantised in [-1, 1]: 2 / 255 for bytes; for a product that of each
            part that is.
    """
    process = diffusion.process
    steps = steps or int(process.steps)
    n, device = batch_size(x0, rows), tree_leaves(x0)[0].device

    def estimate(t: Tensor) -> tuple[Any, Any]:
        x_t, _ = process.diffuse(x0, t, rows=rows)
        return x_t, diffusion.estimate(x_t, t, cond, rows)

    with torch.no_grad(), evaluating(diffusion):
        first = torch.full((n,), 1 / steps, device=device)
        L_0 = process.reconstruction(x0, *estimate(first), first, rows, bin)
        index = _term_indices(steps, draws, n, device)
        terms = []
        for i in index:
            t, s = i / steps, (i - 1) / steps
            terms.append(process.kl(x0, *estimate(t), t, s, rows))
        L_t = torch.stack(terms) if terms else L_0.new_zeros(0, n)
        return Bound(process.prior_kl(x0, rows), L_t, L_0, index / steps, steps, process.dimensions(x0, rows))


def _term_indices(steps: int, draws: int | None, n: int, device: torch.device) -> Tensor:
    """(draws, n) steps 2 ... T: all of them, or an even spread of them for each sample, shifted evenly over the samples."""
    if draws is None or draws >= steps - 1:
        return torch.arange(2, steps + 1, device=device, dtype=torch.float32)[:, None].expand(-1, n)
    shift = (torch.randperm(n, device=device) + torch.rand(n, device=device)) / n
    u = (torch.arange(draws, device=device)[:, None] + shift) / draws
    return (2 + u * (steps - 1)).floor().clamp(max=steps)


def log_likelihood(
    diffusion: Any,
    x0: Tensor,
    cond: Any = None,
    rows: Rows | None = None,
    steps: int = 64,
    probes: int | None = 1,
    t_min: float = 1e-3,
) -> Tensor:
    """(B,) log-density of data in nats along the probability-flow ODE (Song et al. 2021, section 4.3).

    With y = x / alpha and l = log(sigma / alpha) the flow is dy/dl = y - x0(y), integrated by the classical Runge-Kutta rule.

    Args:
        diffusion: a model over a `Gaussian` process.
        x0: the data, taken as a state at `t_min`.
        cond: its condition.
        rows: for ragged data, which sample each row belongs to.
        steps: steps of the integration, four evaluations each.
        probes: random directions of Hutchinson's trace estimator; None sums over all dimensions, exactly.
        t_min: where the integration starts.

    Raises:
        ValueError: if the process is not Gaussian.
    """
    process = diffusion.process
    if not isinstance(process, Gaussian):
        raise ValueError(f"exact likelihood needs a Gaussian process, not {type(process).__name__}; use the bound")
    ends = torch.tensor([t_min, process.t_max], dtype=torch.float64)
    ends = -process.schedule.log_snr(ends).clamp(min=-16) / 2
    grid = torch.linspace(float(ends[0]), float(ends[1]), steps + 1, dtype=torch.float64)

    def flow(y: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        t = process.schedule.t_at(-2 * level)
        alpha = process.schedule(t)[0]
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            mean = process.guess(diffusion.estimate(alpha * y, t, cond, rows), alpha * y, t, rows)
            trace = _trace(mean, y, rows, probes, process.centered)
        return (y - mean).detach(), process.dimensions(y, rows) - trace

    with torch.no_grad(), evaluating(diffusion):
        y, gained = x0, x0.new_zeros(batch_size(x0, rows))
        for i in range(steps):
            h, level = grid[i + 1] - grid[i], grid[i]
            slope_1, div_1 = flow(y, level)
            slope_2, div_2 = flow(y + h / 2 * slope_1, level + h / 2)
            slope_3, div_3 = flow(y + h / 2 * slope_2, level + h / 2)
            slope_4, div_4 = flow(y + h * slope_3, level + h)
            y = y + h / 6 * (slope_1 + 2 * slope_2 + 2 * slope_3 + slope_4)
            gained = gained + h / 6 * (div_1 + 2 * div_2 + 2 * div_3 + div_4)
        sigma = grid[-1].exp()
        count = process.dimensions(y, rows)
        log_prior = -total((y / sigma) ** 2, rows) / 2 - count * (sigma.log() + math.log(2 * math.pi) / 2)
        return log_prior + gained


def _trace(mean: Tensor, y: Tensor, rows: Rows | None, probes: int | None, centered: bool) -> Tensor:
    """(B,) the trace of d mean / d y: by random directions, or one by one for dense (B, ...) data."""
    found = torch.zeros(batch_size(y, rows), dtype=y.dtype, device=y.device)
    if probes is not None:
        for _ in range(probes):
            direction = torch.randn_like(y).sign()
            direction = center(direction, rows) if centered else direction
            (product,) = torch.autograd.grad(mean, y, direction, retain_graph=True)
            found = found + total(product * direction, rows) / probes
        return found
    if rows is not None:
        raise ValueError("the exact trace is for dense data; give a number of probes for ragged data")
    flat = mean.flatten(1)
    for i in range(flat.shape[1]):
        (product,) = torch.autograd.grad(flat[:, i].sum(), y, retain_graph=True)
        found = found + product.flatten(1)[:, i]
    return found
