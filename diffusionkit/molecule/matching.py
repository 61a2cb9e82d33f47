"""Local structures turned until they fit known conformers: what a model of torsions is trained on (Jing et al. 2022, 3.4).

In training a local structure has to be like those that are there when conformers are drawn: from ETKDG, not from a crystal. So
each is given the torsions of the crystal conformer and these are then adjusted until the root mean square deviation is least.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffusionkit.core.rows import Rows, center
from diffusionkit.core.state import Batch
from diffusionkit.molecule import conformer_codec, torsions


def superpose(x: Tensor, y: Tensor, rows: Rows) -> Tensor:
    """(N, 3) x of each molecule moved and turned onto y (N, 3), without reflection, by least squares (Kabsch 1976).

    The rotation is the best one for x, yet a constant for its gradient. That of the distance is right all the same, because the
    distance is stationary in the best rotation.
    """
    x, goal = center(x, rows), center(y, rows)
    with torch.no_grad():
        u, _, vh = torch.linalg.svd(rows.pool(x[:, :, None] * goal[:, None, :]))
        sign = torch.ones_like(u[:, 0])
        sign[:, 2] = torch.linalg.det(u @ vh).sign()
        rotation = (u * sign[:, None, :]) @ vh
    return (x[:, None, :] @ rows.spread(rotation))[:, 0] + (y - goal)


def deviation(x: Tensor, y: Tensor, rows: Rows) -> Tensor:
    """(B,) root mean square deviations after superposition, atom by atom."""
    square = (superpose(x, y, rows) - y).square().sum(1)
    return (rows.pool(square) / rows.counts().clamp(min=1)).clamp(min=1e-12).sqrt()


def match(batch: Batch, reference: Tensor, steps: int = 80, lr: float = 0.1) -> tuple[Tensor, Tensor]:
    """Local structures with their torsions turned to fit the reference best.

    Args:
        batch: of local structures, as `conformer_codec.batch` makes it.
        reference: (N, 3) the conformers to be met.
        steps: of Adam.
        lr: its first step size in radians; it falls to zero.

    Returns:
        (N, 3) coordinates and (B,) their deviation from the reference in Angstrom, never above that of the copied torsions.
    """
    cond, size = batch.cond, batch.rows.size
    atoms = Rows(cond["atom"], size)
    x = torsions.dihedral(reference, cond["reference"])[:, None].requires_grad_()
    best, least = x.detach().clone(), torch.full((size,), torch.inf, dtype=reference.dtype)
    optimiser = torch.optim.Adam([x], lr=lr, betas=(0.9, 0.98))
    for step in range(steps + 1):
        off = deviation(conformer_codec.positions(x, cond), reference, atoms)
        better = off.detach() < least
        least = torch.where(better, off.detach(), least)
        best = torch.where(batch.rows.spread(better)[:, None], x.detach(), best)
        if step == steps or not len(x):
            break
        optimiser.zero_grad()
        off.square().sum().backward()
        optimiser.param_groups[0]["lr"] = lr * (1 - step / steps)
        optimiser.step()
    return conformer_codec.positions(best, cond), least
