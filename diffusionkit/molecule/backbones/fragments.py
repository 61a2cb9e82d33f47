"""Which atoms a network is shown in training, so that a fragment may be given when it draws."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusionkit.core.rows import Rows


class Fragments:
    """Random masks of atoms: `masks(x0, rows) -> given`, the same for all that belongs to an atom.

    Of the molecules that are shown something, half are shown the atoms nearest to a random one (a scaffold that is grown), the
    others all but those (ends that are linked); from none of the atoms to all but one, each number equally often.

    Args:
        share: of the molecules that are shown something.

    Raises:
        ValueError: for a share that is none.
    """

    def __init__(self, share: float) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"fragment is a share of the molecules and must lie in [0, 1], not {share:g}")
        self.share = share

    def __call__(self, x0: dict[str, Tensor], rows: Rows) -> dict[str, Tensor]:
        pos, counts = x0["pos"], rows.counts()
        seed = _places(torch.rand(len(pos), device=pos.device), rows) == 0
        center = rows.pool(pos * seed[:, None])
        nearness = _places((pos - rows.spread(center)).square().sum(1), rows)
        u, turned, some = torch.rand(3, rows.size, device=pos.device)
        shown = (u * counts).floor()
        part = nearness < rows.spread(shown)
        rest = nearness >= rows.spread(counts - shown)
        given = torch.where(rows.spread(turned < 0.5), rest, part) & rows.spread(some < self.share)
        return {name: given.view(-1, *[1] * (x.ndim - 1)).expand_as(x) for name, x in x0.items()}


def _places(key: Tensor, rows: Rows) -> Tensor:
    """(N,) the place of each row among those of its sample in ascending order of the key."""
    counts = rows.counts()
    order = torch.argsort(key)
    order = order[torch.argsort(rows.index[order], stable=True)]
    begin = (counts.cumsum(0) - counts)[rows.index[order]]
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device) - begin)
