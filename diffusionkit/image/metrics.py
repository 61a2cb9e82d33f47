"""Measures between sets of pictures or of their features. All are functions of plain tensors."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

_QUERIES, _REFERENCES = 256, 4096  # rows compared at a time
_SPARE = 6  # candidates beyond k whose distances are computed exactly


def frechet(real: Tensor, fake: Tensor) -> float:
    """Fréchet distance of the Gaussians fitted to two sets of features (Heusel et al. 2017, eq. 6), in float64.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). It grows as the sets shrink: compare only distances of equally many samples.

    Args:
        real: features (N, D).
        fake: features (M, D).

    Raises:
        ValueError: for fewer than two samples, different D or values that are not finite.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    _check(real, fake, 2)
    given = _Given()
    given.num_features = real.shape[1]
    metric = FrechetInceptionDistance(feature=given).to(real.device).set_dtype(torch.float64)
    # The distance does not depend on the origin; near the mean the sums of squares keep their digits.
    origin = real.double().mean(0)
    metric.update(real.double() - origin, real=True)
    metric.update(fake.double() - origin, real=False)
    return max(0.0, float(metric.compute()))


class _Given(nn.Identity):
    """Stands where torchmetrics expects a network: the features are there already."""

    num_features: int


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019, eq. 2).

    Precision is the share of fakes that lie within the k-th-neighbour distance of some real sample (fidelity), recall the
    share of real samples that lie within that of some fake (variety). Both depend on the number of samples: take equally
    many of either and compare equal numbers.

    Args:
        real: features (N, D).
        fake: features (M, D).
        k: which neighbour, not counting the sample itself.

    Raises:
        ValueError: for k or fewer samples, different D or values that are not finite.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    _check(real, fake, k + 1)
    return _covered(fake, real, _radii(real, k)), _covered(real, fake, _radii(fake, k))


def nearest_distances(
    queries: Tensor, references: Tensor, k: int = 1, watch: Callable[[int], object] | None = None
) -> tuple[Tensor, Tensor]:
    """Each query's k nearest references: Euclidean distances (N, k), rising, and indices (N, k).

    Found in blocks of float32, then computed exactly, so that the distance to a copy is 0.

    Args:
        queries: (N, ...), of any type such as uint8.
        references: (M, ...) of the same shape otherwise.
        k: how many.
        watch: called with the number of references done.

    Raises:
        ValueError: for fewer than k references or different shapes.
    """
    if queries.shape[1:] != references.shape[1:]:
        raise ValueError(f"both must have one shape, not {list(queries.shape[1:])} and {list(references.shape[1:])}")
    if not 1 <= k <= len(references):
        raise ValueError(f"k must lie between 1 and the {len(references)} references, not be {k}")
    flat = queries.flatten(1).float()
    origin = flat.mean(0) if len(flat) else 0.0
    flat = flat - origin
    keep = min(len(references), k + _SPARE)
    values = torch.full((len(flat), keep), torch.inf, device=flat.device)
    found = torch.zeros((len(flat), keep), dtype=torch.long, device=flat.device)
    for start in range(0, len(references), _REFERENCES):
        block = references[start : start + _REFERENCES].flatten(1).to(flat) - origin
        squared = torch.addmm(block.square().sum(1)[None], flat, block.T, alpha=-2)  # less the query's own square
        index = torch.arange(start, start + len(block), device=flat.device).expand_as(squared)
        values, order = torch.cat([values, squared], 1).topk(keep, largest=False)
        found = torch.cat([found, index], 1).gather(1, order)
        if watch:
            watch(len(block))
    return _exact(queries, references, found, k)


def _exact(queries: Tensor, references: Tensor, found: Tensor, k: int) -> tuple[Tensor, Tensor]:
    distances = [torch.empty(0, found.shape[1], dtype=torch.float64, device=found.device)]
    for start in range(0, len(queries), _QUERIES):
        chosen = found[start : start + _QUERIES]
        near = references[chosen.to(references.device)].flatten(2).to(found.device, torch.float64)
        query = queries[start : start + _QUERIES].flatten(1).to(found.device, torch.float64)
        distances.append((near - query[:, None]).square().sum(2).sqrt())
    sorted_distances, order = torch.cat(distances).sort(dim=1)
    return sorted_distances[:, :k], found.gather(1, order)[:, :k]


def near_copies(distances: Tensor, ratio: float = 1 / 3) -> Tensor:
    """(N,) which queries lie so much nearer to one reference than to any other that they count as its copies.

    The nearest is nearer than `ratio` times the second nearest (Yoon et al. 2023, section 3).

    Args:
        distances: to the two nearest references, rising (N, 2).
        ratio: below which it is a copy.
    """
    return distances[:, 0] <= ratio * distances[:, 1]


def independent_bits(train: Tensor, test: Tensor, levels: int) -> float:
    """Bits per dimension of `test` if all pixels were independent, each with its histogram in `train` (counts + 1).

    What a model has to beat to know anything of how pixels belong together.

    Args:
        train: pictures (N, ...), integers below `levels`.
        test: pictures (M, ...).
        levels: number of values.
    """
    pixels = train[0].numel()
    offset = torch.arange(pixels) * levels
    counts = torch.ones(pixels * levels, dtype=torch.float64)
    for block in train.flatten(1).split(1024):
        counts += torch.bincount((block.long() + offset).flatten(), minlength=pixels * levels)
    bits = counts.log2() - math.log2(len(train) + levels)
    blocks = [-bits[block.long() + offset].sum() for block in test.flatten(1).split(1024)]
    return float(torch.stack(blocks).sum() / test.numel())


def _radii(points: Tensor, k: int) -> Tensor:
    """(N,) the distance of each point to its k-th neighbour."""
    # The smallest is the point itself.
    return torch.cat([_distances(block, points).kthvalue(k + 1, dim=1).values for block in points.split(_QUERIES)])


def _covered(queries: Tensor, points: Tensor, radii: Tensor) -> float:
    inside = [(_distances(block, points) <= radii).any(1) for block in queries.split(_QUERIES)]
    return float(torch.cat(inside).double().mean())


def _distances(a: Tensor, b: Tensor) -> Tensor:
    # Not by matrix products, which lose the small distances.
    return torch.cdist(a.double(), b.double(), compute_mode="donot_use_mm_for_euclid_dist")


def _check(real: Tensor, fake: Tensor, least: int) -> None:
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise ValueError(f"features must be (N, D) and (M, D), not {list(real.shape)} and {list(fake.shape)}")
    if min(len(real), len(fake)) < least:
        raise ValueError(f"at least {least} samples of either kind are needed, not {len(real)} and {len(fake)}")
    if not (real.isfinite().all() and fake.isfinite().all()):
        raise ValueError("features must be finite numbers")
