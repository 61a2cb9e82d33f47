"""Draws the figures of docs/one_dimension.md: `python docs/figures/one_dimension.py [FOLDER]`. Seeded; a minute on one core."""

from __future__ import annotations

import math
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import torch
from matplotlib import pyplot as plt
from torch import Tensor, nn

from diffusionkit.core import DDIM, DDPM, Diffusion, DPMSolver, Gaussian, Linear, Sampler, log_likelihood
from diffusionkit.nn import TimeEmbedding

WEIGHTS, MEANS, STDS = torch.tensor([[0.3, 0.45, 0.25], [-1.4, 0.2, 1.5], [0.20, 0.30, 0.12]], dtype=torch.float64)
STEPS = 100
MANY = 40_000  # samples whose law is measured
PROCESS = Gaussian(Linear(STEPS), "eps")
X = torch.linspace(-3, 3, 601, dtype=torch.float64)
DARK, BLUE, RED, GOLD, GREEN, GREY = "#22304a", "#2f6fb2", "#d1495b", "#e8a33d", "#3c8d6e", "#8a94a6"


# ---- what is known in closed form


def draw(n: int) -> Tensor:
    """(n, 1) samples of the mixture."""
    part = torch.multinomial(WEIGHTS, n, replacement=True)
    return (MEANS[part] + STDS[part] * torch.randn(n, dtype=torch.float64))[:, None]


def levels(t: float) -> tuple[Tensor, Tensor]:
    return PROCESS.schedule(torch.tensor(t, dtype=torch.float64))


def log_parts(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """(..., 3) log of each part's share of the density of x_t."""
    variance = alpha**2 * STDS**2 + sigma**2
    squares = (x[..., None] - alpha * MEANS) ** 2 / variance
    return WEIGHTS.log() - (squares + variance.log() + math.log(2 * math.pi)) / 2


def log_density(x: Tensor, t: float = 0.0) -> Tensor:
    """log q(x_t) of the diffused mixture, itself a mixture."""
    return log_parts(x, *levels(t)).logsumexp(-1)


def mean_of_x0(x: Tensor, t: Tensor) -> Tensor:
    """E[x_0 | x_t]: what the best network knows."""
    alpha, sigma = (level.to(x).expand(x.shape) for level in PROCESS.schedule(t))
    share = log_parts(x, alpha[..., None], sigma[..., None]).softmax(-1)
    gain = alpha[..., None] * STDS**2 / (alpha[..., None] ** 2 * STDS**2 + sigma[..., None] ** 2)
    return (share * (MEANS + gain * (x[..., None] - alpha[..., None] * MEANS))).sum(-1)


class BestNetwork(nn.Module):
    """The noise that the mixture's own posterior mean stands for."""

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        t = t.reshape(-1, 1)
        alpha, sigma = PROCESS.schedule(t)
        return (x - alpha * mean_of_x0(x, t)) / sigma


# ---- what is learned


class TinyNetwork(nn.Module):
    """x_t and t in, the noise out: 19,000 weights."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.time = TimeEmbedding(32, width)
        self.first, self.last = nn.Linear(1, width), nn.Linear(width, 1)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        h, time = self.first(x), self.time(t)
        for layer in self.hidden:
            h = h + layer(nn.functional.silu(h + time))
        return self.last(nn.functional.silu(h))


def learn(steps: int = 6000) -> tuple[Diffusion, list[float]]:
    diffusion = Diffusion(TinyNetwork(), PROCESS)
    optimiser = torch.optim.Adam(diffusion.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    losses = []
    for _ in range(steps):
        loss = diffusion.loss(draw(256).float()).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    return diffusion.eval(), losses


# ---- figures


def background(axis: Any, top: float = 1.0) -> None:
    """The density of x_t for all t, each t scaled to its own peak."""
    times = [i / 200 * top for i in range(201)]
    density = torch.stack([log_density(X, t).exp() for t in times], 1)
    axis.contourf(times, X, (density / density.amax(0)).sqrt(), levels=16, cmap="Blues", vmax=1.5)
    axis.set(xlabel="time t", ylim=(-3, 3))


def strip(axis: Any, t: float, title: str, samples: Tensor | None = None) -> None:
    """A density on its side, with a histogram of samples behind it."""
    if samples is not None:
        axis.hist(
            samples.flatten().clamp(-3, 3),
            bins=80,
            range=(-3, 3),
            density=True,
            orientation="horizontal",
            color=GOLD,
            alpha=0.6,
        )
    axis.plot(log_density(X, t).exp(), X, color=DARK, lw=1.5)
    axis.set(ylim=(-3, 3), xlim=(0, None), title=title, xticks=[])
    axis.tick_params(labelleft=False)


def chain(x: Tensor, times: list[Tensor]) -> Tensor:
    """States at all times, each diffused from the one before."""
    states = [x]
    for s, t in pairwise(times):
        states.append(PROCESS.diffuse(states[-1], t, s)[0])
    return torch.stack(states)


def forward(folder: Path) -> None:
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.6), width_ratios=[1, 5, 1], layout="constrained", sharey=True)
    times = [torch.tensor(i / STEPS, dtype=torch.float64) for i in range(STEPS + 1)]
    strip(axes[0], 0.0, "data, t = 0")
    axes[0].invert_xaxis()
    axes[0].set_ylabel("x")
    axes[0].tick_params(labelleft=True)
    background(axes[1])
    paths = chain(MEANS.repeat_interleave(2)[:, None], times)[:, :, 0]
    for k, colour in enumerate((RED, RED, GOLD, GOLD, GREEN, GREEN)):
        axes[1].plot(times, paths[:, k], color=colour, lw=0.9)
    axes[1].set_title("six sample paths over the density of $x_t$")
    strip(axes[2], 1.0, "noise, t = 1")
    save(figure, folder / "forward.png")


def decoder(folder: Path) -> None:
    """q(x_s | x_t), exactly by Bayes' rule, beside the Gaussian that a step draws from."""
    figure, axes = plt.subplots(2, 3, figsize=(10, 4.8), layout="constrained", sharex=True)
    t = 0.40
    for row, s in zip(axes, (0.39, 0.05), strict=True):
        for axis, here in zip(row, (-0.9, -0.5, 0.9), strict=True):
            (alpha_t, sigma_t), (alpha_s, sigma_s) = levels(t), levels(s)
            ratio = alpha_t / alpha_s
            forward_variance = sigma_t**2 - ratio**2 * sigma_s**2
            truth = (log_density(X, s) - (here - ratio * X) ** 2 / (2 * forward_variance)).exp()
            truth = truth / torch.trapezoid(truth, X)
            x_t = torch.full((1, 1), here, dtype=torch.float64)
            both = [torch.tensor(v, dtype=torch.float64) for v in (t, s)]
            mean = PROCESS.step(x_t, mean_of_x0(x_t, both[0]), *both, temperature=0)
            variance = forward_variance * (sigma_s / sigma_t) ** 2
            kernel = (-((X - mean[0]) ** 2) / (2 * variance)).exp() / (2 * math.pi * variance).sqrt()
            prior = log_density(X, s).exp()
            axis.fill_between(
                X,
                prior / prior.max() * max(truth.max(), kernel.max()) * 0.5,
                color=BLUE,
                alpha=0.15,
                lw=0,
                label="$q(x_s)$",
            )
            axis.plot(X, truth, color=DARK, lw=1.8, label="$q(x_s\\,|\\,x_t)$")
            axis.plot(X, kernel, color=RED, lw=1.5, ls="--", label="Gaussian step")
            axis.axvline(here, color=GREY, lw=0.8, ls=":")
            axis.set(yticks=[], xlim=(-2.2, 2.4), title=f"$x_t$ = {here:g}, from t = {t:.2f} to s = {s:.2f}")
    for axis in axes[1]:
        axis.set_xlabel("$x_s$")
    axes[0, 0].legend(frameon=False, loc="upper right")
    save(figure, folder / "decoder.png")


def training(folder: Path, diffusion: Diffusion, losses: list[float]) -> None:
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), width_ratios=[1, 1.25, 1.25], layout="constrained")
    smooth = torch.tensor(losses).unfold(0, 50, 10).mean(1)
    axes[0].plot(torch.arange(len(smooth)) * 10 + 25, smooth, color=BLUE)
    axes[0].set(xlabel="step", ylabel="loss", title="squared error of the noise")
    for t, colour in ((0.05, GOLD), (0.2, RED), (0.5, GREEN)):
        time = torch.full((len(X),), t)
        with torch.no_grad():
            learned = diffusion(X[:, None].float(), time)[:, 0]
        axes[1].plot(X, BestNetwork()(X[:, None], time.double())[:, 0], color=colour, lw=3, alpha=0.35)
        axes[1].plot(X, learned, color=colour, lw=1.2, label=f"t = {t:g}")
    axes[1].set(xlabel="$x_t$", ylim=(-3.2, 3.2), title="learned noise (thin), best (wide)")
    axes[1].legend(frameon=False)
    samples = DDPM(STEPS)(diffusion, like=(20_000, 1))
    axes[2].hist(
        samples.flatten().clamp(-3, 3), bins=90, range=(-3, 3), density=True, color=GOLD, alpha=0.6, label="samples"
    )
    axes[2].plot(X, log_density(X).exp(), color=DARK, lw=1.5, label="data")
    axes[2].set(xlabel="x", yticks=[], title=f"ancestral sampling, {STEPS} steps")
    axes[2].legend(frameon=False)
    save(figure, folder / "training.png")


def trajectory(sampler: Sampler, diffusion: Diffusion, start: Tensor) -> tuple[list[float], Tensor]:
    times: list[float] = []
    states: list[Tensor] = []

    def watch(t: Tensor, x: Tensor, estimate: Tensor) -> None:
        times.append(float(t))
        states.append(x)

    x = sampler(diffusion, like=start, start=start, watch=watch)
    return [*times, 0.0], torch.stack([*states, x])[:, :, 0]


def distance(samples: Tensor, n: int = 4000) -> float:
    """Wasserstein distance to the data, by quantiles."""
    share = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    grid = torch.linspace(-4, 4, 8001, dtype=torch.float64)
    below = log_density(grid).exp().cumsum(0)
    exact = grid[torch.searchsorted(below / below[-1], share).clamp(max=8000)]
    return float((torch.quantile(samples.flatten().double(), share) - exact).abs().mean())


def family(folder: Path, diffusion: Diffusion) -> None:
    figure, axes = plt.subplots(2, 3, figsize=(10, 6.2), layout="constrained", height_ratios=[1.15, 1])
    start = torch.linspace(-1.6, 1.6, 7)[:, None]
    for axis, eta in zip(axes[0], (0.0, 0.5, 1.0), strict=True):
        background(axis)
        times, states = trajectory(DDIM(STEPS, eta=eta), diffusion, start)
        for k in range(len(start)):
            axis.plot(times, states[:, k], color=RED, lw=0.9)
        axis.set(title=f"eta = {eta:g}", xlim=(1, 0))
    axes[0, 0].set_ylabel("x")
    for axis, steps in zip(axes[1], (5, 20), strict=False):
        for sampler, colour, name in (
            (DDPM(steps), GREY, "eta 1"),
            (DDIM(steps), BLUE, "eta 0"),
            (DPMSolver(steps, grid="uniform"), RED, "eta 0, second order"),
        ):
            samples = sampler(diffusion, like=(MANY, 1)).flatten()
            counts = torch.histc(samples, 90, -3, 3) / (len(samples) * 6 / 90)
            axis.plot(torch.linspace(-3, 3, 91)[:-1] + 3 / 90, counts, color=colour, lw=1.2, label=name)
        axis.fill_between(X, log_density(X).exp(), color=BLUE, alpha=0.15, lw=0)
        axis.set(xlabel="x", yticks=[], ylim=(0, 1.6), title=f"{steps} steps (shaded: data)")
    axes[1, 0].legend(frameon=False, loc="upper left", fontsize=8)
    counts = [3, 4, 6, 8, 12, 16, 25, 50, 100]
    for make, colour, name in (
        (DDPM, GREY, "eta 1"),
        (DDIM, BLUE, "eta 0"),
        (second_order, RED, "eta 0, second order"),
    ):
        found = [distance(make(n)(diffusion, like=(MANY, 1))) for n in counts]
        axes[1, 2].plot(counts, found, "o-", ms=3.5, color=colour, label=name)
    axes[1, 2].set(xscale="log", yscale="log", xlabel="steps", title="Wasserstein distance to the data")
    axes[1, 2].set_xticks([3, 10, 30, 100], ["3", "10", "30", "100"])
    axes[1, 2].set_yticks([0.03, 0.1, 0.3], ["0.03", "0.1", "0.3"])
    axes[1, 2].minorticks_off()
    axes[1, 2].legend(frameon=False, fontsize=8)
    save(figure, folder / "family.png")


def second_order(steps: int) -> Sampler:
    return DPMSolver(steps, grid="uniform")


def likelihood(folder: Path, diffusion: Diffusion) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), width_ratios=[1.3, 1], layout="constrained")
    share = torch.linspace(0.02, 0.98, 33, dtype=torch.float64)
    best = Diffusion(BestNetwork(), PROCESS)
    start = levels(PROCESS.t_max)[1] * torch.special.ndtri(share)[:, None]
    times, states = trajectory(DDIM(400), best, start)
    background(axes[0])
    axes[0].plot(times, states, color=RED, lw=0.8)
    axes[0].set(ylabel="x", title="the flow: equal probability between neighbouring lines")
    x = torch.linspace(-2.4, 2.2, 93)[:, None]
    found = log_likelihood(diffusion, x, probes=None)
    axes[1].plot(X, log_density(X).exp(), color=DARK, lw=3, alpha=0.3, label="data")
    exact = log_likelihood(best, x.double(), probes=None)
    axes[1].plot(x, exact.exp(), color=BLUE, lw=1.4, label="flow of the best network")
    axes[1].plot(x, found.exp(), color=RED, lw=1.2, ls="--", label="flow of the trained network")
    axes[1].set(xlabel="x", yticks=[], xlim=(-2.5, 2.5), ylim=(0, 1.35), title="density by the flow")
    axes[1].legend(frameon=False, fontsize=8, loc="upper left")
    save(figure, folder / "likelihood.png")


def save(figure: Any, path: Path) -> None:
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)


def main(folder: Path = Path(__file__).parent) -> None:
    plt.rcParams.update({"font.size": 9.5, "axes.titlesize": 10, "axes.edgecolor": GREY, "axes.labelcolor": DARK})
    torch.manual_seed(4)
    forward(folder)
    decoder(folder)
    diffusion, losses = learn()
    training(folder, diffusion, losses)
    family(folder, diffusion)
    likelihood(folder, diffusion)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
