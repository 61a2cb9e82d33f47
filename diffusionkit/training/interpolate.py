"""Walks between samples: latents interpolated along the sphere, each point led to data without randomness."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from diffusionkit.core import DDIM, Sampler, encode, guided, slerp
from diffusionkit.core.state import tree_leaves, tree_map
from diffusionkit.errors import UserError

if TYPE_CHECKING:
    from diffusionkit.training.run import Run


def interpolate(
    run: Run,
    n: int = 8,
    points: int = 10,
    out: str | Path | None = None,
    *,
    sampler: Sampler | None = None,
    guidance: float = 1.0,
    clip: float | str | None = None,
    seed: int = 0,
    real: bool = False,
    condition: dict[str, Any] | None = None,
    **_: Any,
) -> Path:
    """Draws a picture of n walks, one a row.

    Args:
        run: a loaded run.
        n: how many walks.
        points: samples on each, both ends included.
        out: a picture; `interpolation.png` in the run folder by default.
        sampler: one without randomness, DDIM by default.
        guidance: scale of classifier-free guidance.
        clip: bound on the estimate of the clean data, or `dynamic`.
        seed: of the latents, or of the choice of real data.
        real: walk between held-out data, encoded by the deterministic chain run backwards, instead of random latents;
            without a condition, which is what their encoding is then independent of.
        condition: keyword arguments of the domain's `condition`; every point of a walk has the same.

    Raises:
        UserError: if the sampler draws noise, or the numbers make no walk.
    """
    if n < 1 or points < 2:
        raise UserError(f"a walk needs -n of at least 1 and at least 2 points, not {n} and {points}")
    sampler = sampler or DDIM(50)
    if sampler.eta or getattr(sampler, "churn", 0):
        raise UserError("walks need a sampler without randomness, such as ddim with eta 0")
    if "interpolate" in run.domain.instead:
        raise UserError(run.domain.without("interpolate"))
    leaves = tree_leaves(run.diffusion.process.prior(run.codec.like(1), torch.ones(())))
    if not all(leaf.is_floating_point() for leaf in leaves):
        raise UserError("there are no walks between these samples: they hold codes, and nothing lies between two codes")
    path = run.folder / "interpolation.png" if out is None else Path(out)
    device = next(run.diffusion.parameters()).device
    torch.manual_seed(seed)
    indices = torch.arange(n).repeat_interleave(points)
    cond = None if real else run.domain.condition(run.codec, indices, **(condition or {}))
    cond = tree_map(lambda leaf: leaf.to(device), cond)
    diffusion = guided(run.diffusion, 1.0 if real else guidance, clip)
    ends = _encoded(run, n, device) if real else _drawn(run, n, sampler, device)
    weight = torch.linspace(0, 1, points, device=device).repeat(n)
    start = tree_map(lambda a, b: _walk(a, b, weight, points), *ends)
    x = sampler(diffusion, like=run.codec.like(n * points), cond=cond, start=start)
    run.domain.picture(run.codec, x, path, columns=points)
    return path


def _walk(a: torch.Tensor, b: torch.Tensor, weight: torch.Tensor, points: int) -> torch.Tensor:
    a, b = a.repeat_interleave(points, 0), b.repeat_interleave(points, 0)
    return slerp(a, b, weight.reshape(-1, *[1] * (a.ndim - 1)))


def _drawn(run: Run, n: int, sampler: Sampler, device: torch.device) -> list[Any]:
    process = run.diffusion.process
    top = sampler.times(process)[0]
    return [process.prior(run.codec.like(n), top, device=device) for _ in range(2)]


def _encoded(run: Run, n: int, device: torch.device) -> list[Any]:
    _, parts = run.domain.prepare(run.recipe.build("data"))
    if "test" not in parts:
        raise UserError("--real needs held-out data, which this recipe does not have")
    chosen = torch.randperm(len(parts["test"]))[: 2 * n]
    if len(chosen) < 2 * n:
        raise UserError(f"-n: {n} walks need {2 * n} held-out samples, there are {len(chosen)}")
    x0 = tree_map(lambda leaf: leaf.to(device), parts["test"].batch(chosen).x)
    latent = encode(run.diffusion, x0)
    return [tree_map(lambda leaf: leaf[:n], latent), tree_map(lambda leaf: leaf[n:], latent)]
