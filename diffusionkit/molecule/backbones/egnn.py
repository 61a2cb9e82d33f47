"""The E(n)-equivariant graph network of EDM, on ragged batches."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionkit.core.rows import Rows, center
from diffusionkit.molecule.backbones.fragments import Fragments
from diffusionkit.molecule.backbones.graph import Edges, by_size
from diffusionkit.molecule.backbones.pairs import PairNetwork

Condition = dict[str, Tensor] | None
RANGE = 4.0
"""The longest line that bumps tell apart, in units of the positions."""


class EGNN(nn.Module):
    """EDM's network (Hoogeboom et al. 2022, appendix B, after Satorras et al. 2021): every atom hears every other of its molecule.

    Rotations, reflections and shifts of the input do the same to what is said of positions (but that is free of shifts) and
    nothing to the rest; so it cannot tell a molecule from its mirror image. With the defaults it is EDM's for QM9, without the row
    of its last layer that speaks of the time and is thrown away there.

    Args:
        elements: kinds of atoms K, from the data.
        charge: a number for each atom besides its kind, EDM's "integer charge" that is the atomic number.
        width: of atoms and edges.
        depth: number of blocks.
        attention: weigh each message by a sigmoid of itself.
        properties: numbers P that a molecule may be asked to have, from the data.
        fragment: share of the molecules that are trained with some atoms given (`Fragments`); with 0 it knows of none.
        categorical: kinds are codes, of which K stands for a mask, and what comes out are logits.
        centered: what is said of positions has mean 0 over each molecule.
        reach: the longest move of an atom in a block for one neighbour, in units of the positions.
        norm: lines between atoms are divided by their length plus this.
        aggregation: an atom's messages and moves are the `sum` or the `mean` over the others.
        radial: how many Gaussian bumps, from 0 to `RANGE`, tell the blocks of the length that a line has in the input, in the place
            of its square; 0 is EDM's way. Bonds differ by less than a tenth of their length, which a small network sees sooner so.

    Raises:
        ValueError: for impossible values.
    """

    def __init__(
        self,
        elements: int,
        charge: bool = False,
        width: int = 256,
        depth: int = 9,
        attention: bool = True,
        properties: int = 0,
        fragment: float = 0.0,
        categorical: bool = False,
        centered: bool = True,
        reach: float = 15.0,
        norm: float = 1.0,
        aggregation: Literal["sum", "mean"] = "sum",
        radial: int = 0,
    ) -> None:
        super().__init__()
        if radial < 0 or radial == 1:
            raise ValueError(f"radial must be 0, or at least 2, not {radial}")
        for name, value in (("elements", elements), ("width", width), ("depth", depth)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        self.elements, self.charge, self.properties = elements, charge, properties
        self.masks = Fragments(fragment) if fragment else None
        self.categorical, self.centered = categorical, centered
        features = elements + categorical + charge + 1 + 2 * properties + (self.masks is not None)
        self.enter = nn.Linear(features, width)
        self.blocks = nn.ModuleList(
            EquivariantBlock(width, radial or 1, attention, reach, norm, aggregation) for _ in range(depth)
        )
        self.register_buffer("bumps", torch.linspace(0, RANGE, radial), persistent=False)
        self.leave = nn.Linear(width, elements + charge)

    def forward(
        self,
        x: dict[str, Tensor],
        t: Tensor,
        cond: Condition = None,
        rows: Rows | None = None,
        given: dict[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """What the network says of noised molecules.

        Args:
            x: "pos" (N, 3), "type" (N, K), or codes (N,) or (N, 1) where they are categorical, and "charge" (N, 1) if it has one.
            t: (B,)
            cond: "properties" (B, P) in units of their spread, NaN where nothing is asked; without it nothing is asked at all.
            rows: which molecule each atom belongs to, in any order; one of N atoms by default.
            given: masks like x; an atom is given where the whole mask of its position holds.

        Returns:
            the same entries as x, "type" always (N, K).
        """
        rows = rows or Rows(torch.zeros_like(x["pos"][:, 0], dtype=torch.long), 1)
        order, inner = by_size(rows)
        h, start = self.enter(self._atoms(x, t, cond, rows, given)[order]), x["pos"][order]
        edges, pos = Edges.complete(inner), start
        first = self._told(_lines(start, edges)[1])
        for block in self.blocks:
            h, pos = block(h, pos, edges, first)
        moved = center(pos - start, inner) if self.centered else pos - start
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        kind, charge = self.leave(h)[back].split([self.elements, int(self.charge)], 1)
        return {"pos": moved[back], "type": kind} | ({"charge": charge} if self.charge else {})

    def _atoms(self, x: dict[str, Tensor], t: Tensor, cond: Condition, rows: Rows, given: Condition) -> Tensor:
        """All that the network is told of each atom but its position: (N, features)."""
        kind, like = x["type"], x["pos"]
        if self.categorical:
            kind = F.one_hot(kind.reshape(-1), self.elements + 1).to(like.dtype)
        parts = [kind, *([x["charge"]] if self.charge else []), rows.spread(t)[:, None].to(like.dtype)]
        if self.properties:
            asked = like.new_full((rows.size, self.properties), torch.nan) if cond is None else cond["properties"]
            parts.append(rows.spread(torch.cat([asked.nan_to_num(0.0), (~asked.isnan()).to(asked.dtype)], 1)))
        if self.masks is not None:
            shown = torch.zeros_like(like, dtype=torch.bool) if given is None else given["pos"]
            parts.append(shown.all(1, keepdim=True).to(like.dtype))
        return torch.cat(parts, 1)

    def _told(self, squared: Tensor) -> Tensor:
        """What the blocks are told of the input's squared lengths (E, 1): (E, features)."""
        if not len(self.bumps):
            return squared
        length = (squared + 1e-8).sqrt()  # with a derivative where atoms coincide as well
        return torch.exp(-(((length - self.bumps) * len(self.bumps) / RANGE) ** 2))

    def null(self, cond: Condition, drop: Tensor) -> Condition:
        """The condition with nothing asked of the molecules in `drop` (B,)."""
        if cond is None:
            return None
        return cond | {"properties": cond["properties"].masked_fill(drop[:, None], torch.nan)}


class EquivariantBlock(nn.Module):
    """Messages between atoms, then a move of each atom along the lines to the others.

    Args:
        width: of atoms and edges.
        features: numbers that are known of an edge besides its squared length.
        attention, reach, norm, aggregation: as in `EGNN`.
    """

    def __init__(
        self,
        width: int,
        features: int = 1,
        attention: bool = True,
        reach: float = 15.0,
        norm: float = 1.0,
        aggregation: Literal["sum", "mean"] = "sum",
    ) -> None:
        super().__init__()
        if aggregation not in ("sum", "mean"):
            raise ValueError(f"aggregation must be sum or mean, not {aggregation!r}")
        self.reach, self.norm, self.mean = reach, norm, aggregation == "mean"
        self.messages = PairNetwork(width, 1 + features, "gate" if attention else "sum")
        self.update = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width))
        self.moves = PairNetwork(width, 1 + features, "number")
        nn.init.xavier_uniform_(self.moves.head.weight, gain=0.001)

    def forward(self, h: Tensor, pos: Tensor, edges: Edges, features: Tensor) -> tuple[Tensor, Tensor]:
        """Atoms (N, width), their positions (N, 3), edges and their features (E, F) -> atoms and positions."""
        line, squared = _lines(pos, edges)
        features = torch.cat([squared, features], 1)
        h = h + self.update(torch.cat([h, self._scaled(self.messages(h, features, edges), edges)], 1))
        step = self.reach * torch.tanh(self.moves(h, features, edges))
        # The root has a derivative where atoms coincide as well.
        line = line / ((squared + 1e-8).sqrt() + self.norm)
        return h, pos + self._scaled(edges.sum(line * step[:, None]), edges)

    def _scaled(self, total: Tensor, edges: Edges) -> Tensor:
        return total / edges.degree.clamp(min=1)[:, None] if self.mean else total


def _lines(pos: Tensor, edges: Edges) -> tuple[Tensor, Tensor]:
    """Lines (E, 3) from sender to receiver, and their squared lengths (E, 1)."""
    line = pos.index_select(0, edges.i) - pos.index_select(0, edges.j)
    return line, line.square().sum(1, keepdim=True)
