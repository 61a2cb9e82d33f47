"""Which columns a network is shown in training, so that any may be given when it draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class ColumnMasks:
    """Random masks of whole columns: `masks(x0) -> given`, the same for all entries of a column.

    A row is shown nothing, or with probability `share` each column with a probability that is itself drawn anew: from none to all.

    Args:
        owners: for each part of the state, which column each of its entries belongs to.
        share: of the rows that are shown something.
        always: columns that are always shown.
        plain: what is given looks to the network like what has been revealed (masked codes, no time), so that it needs no training.
    """

    def __init__(
        self, owners: Mapping[str, Sequence[int]], share: float, always: Sequence[int] = (), plain: bool = False
    ) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"masked is a share of the rows and must lie in [0, 1], not {share:g}")
        self.owners = {name: torch.tensor(list(owner), dtype=torch.long) for name, owner in owners.items()}
        self.columns = 1 + max((int(owner.max()) for owner in self.owners.values() if len(owner)), default=-1)
        self.share, self.always, self.plain = share, list(always), plain

    def __call__(self, x0: dict[str, Tensor], rows: None = None) -> dict[str, Tensor]:
        n, device = len(next(iter(x0.values()))), next(iter(x0.values())).device
        chance = torch.rand(n, 1, device=device) * (torch.rand(n, 1, device=device) < self.share)
        shown = torch.rand(n, self.columns, device=device) < chance
        shown[:, self.always] = True
        return {name: shown[:, self.owners[name].to(device)] for name in x0}
