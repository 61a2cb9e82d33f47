"""How probable a model finds molecules: the variational bound, with types and charges as what they are, and the number of atoms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from diffusionkit.core import bound
from diffusionkit.core.seeds import drawing
from diffusionkit.core.state import tree_map
from diffusionkit.molecule.sets import MoleculeSet


def bins(codec: Any) -> dict[str, float]:
    """How far apart the values of the discrete parts of a state lie, where these are numbers; positions have no such step."""
    _, types, charges = codec.scales
    found = {} if codec.types == "codes" else {"type": 1 / types}
    return found | ({"charge": 1 / charges} if codec.charge else {})


def size_nats(codec: Any, n: torch.Tensor) -> torch.Tensor:
    """(B,) -log p(N) of molecules of n (B,) atoms under the histogram of the training part; infinite for a size it has not."""
    share = codec.histogram.double() / codec.histogram.sum()
    known = n < len(share)
    return -torch.where(known, share[n.clamp(max=len(share) - 1)], 0.0).log()


def molecule_bound(run: Any, part: MoleculeSet, n: int = 500, draws: int = 20, seed: int = 0) -> dict[str, float]:
    """A bound on -log p(x, h, N) in nats, a mean over molecules (Hoogeboom et al. 2022).

    Positions have a density in Angstrom, on the space of those whose centre is the origin; types and charges have probabilities.
    A type as one-hot numbers is the product of the probabilities of its numbers, without the paper's normalisation over the
    types, so that the bound is a little looser; one of a categorical process is exact.

    Args:
        run: a loaded run.
        part: of its data.
        n: molecules, at random.
        draws: terms of the chain for each.
        seed: of both.

    Returns:
        "nats", "standard_error", "size" (the part of it that is -log p(N)) and "molecules", those of a size that was not seen in
        training left out, whose bound is infinite ("unseen": how many).
    """
    device = next(run.diffusion.parameters()).device
    chosen = torch.from_numpy(np.sort(np.random.default_rng(seed).permutation(len(part))[:n]))
    totals, sizes = [], []
    with drawing(seed, device):
        for indices in chosen.split(64):
            x, cond, rows = part.batch(indices)
            x, cond = (tree_map(lambda leaf: leaf.to(device), tree) for tree in (x, cond))
            found = bound(run.diffusion, x, cond, rows.to(device), draws=draws, bin=bins(run.codec)).total()
            count = rows.counts()
            angstrom = 3 * (count - 1).clamp(min=0) * math.log(run.codec.scales[0])
            sizes.append(size_nats(run.codec, count))
            totals.append(found.double().cpu() + angstrom + sizes[-1])
    total, size = torch.cat(totals), torch.cat(sizes)
    seen = total.isfinite()
    return {
        "nats": float(total[seen].mean()),
        "standard_error": float(total[seen].std() / math.sqrt(max(int(seen.sum()), 1))),
        "size": float(size[seen].mean()),
        "molecules": int(seen.sum()),
        "unseen": int((~seen).sum()),
    }
