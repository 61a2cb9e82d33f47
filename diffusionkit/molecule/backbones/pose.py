"""The score of poses: forces between the atoms of a ligand and of its pocket, and what they do to the whole."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionkit.core.rows import Rows
from diffusionkit.molecule import pockets, pose_codec
from diffusionkit.molecule.backbones.torsion import TorsionNetwork
from diffusionkit.molecule.conformer_codec import ConformerCodec

_RADIAL = 16  # functions of the distance of two atoms
_PAIR = 32  # numbers that are told of a pair
_TOGETHER = 4096  # pairs whose numbers a CPU keeps in its caches; the whole drawing takes half the time of all at once
_ROWS = 128  # atoms of ligands whose distances to a pocket it keeps there


class Cross(NamedTuple):
    """Some pairs of a ligand's and a pocket's atom; as many as are worked on at once.

    Args:
        atom, other: (E,) the ligand's and the pocket's atom of each.
        unit: (E, 3) from the pocket's atom to the ligand's.
        told: (E, 32) what the network is told of them.
        fade: (E, 1) falls to 0 at the cutoff, so that nothing jumps when a pair comes into sight.
    """

    atom: Tensor
    other: Tensor
    unit: Tensor
    told: Tensor
    fade: Tensor


class PoseNetwork(TorsionNetwork):
    """Predicts the scores of a pose's translation, rotation and torsions from the ligand as it lies in its pocket.

    Atoms of ligand and pocket exchange messages that depend on their distance and on how the bonds of either point at the other.
    Pairs of them exert forces along their difference, of several kinds. The net forces of a ligand make its translation, their
    torques about its centroid its rotation, and their torques about rotatable bonds its torsions, each with weights that do not
    depend on how the complex lies in space: turned or mirrored as a whole, it gets turned or mirrored scores, exactly. In a
    pocket, which has no mirror image in nature, a ligand and its mirror image have different distances and are told apart.

    The pocket is encoded by itself: once for all poses in it, all noise levels and all steps of a sampler.

    Args:
        features: of a ligand's atom; from the data.
        pocket: features of a pocket's atom; from the data.
        embedding: numbers of a precomputed embedding of each residue; from the data.
        width: of the numbers that an atom keeps.
        depth: rounds of messages in the ligand, and across.
        within: rounds of messages in the pocket.
        forces: kinds of forces.
        cutoff: in Angstrom; atoms of the pocket that are farther from one of the ligand do not see it, without noise.
        spread: in Angstrom; by so much farther they do at t = 1.
        prior: whether the network is told ETKDG's preferences of torsions.
        dropout: of the numbers that atoms hear from one another, and that pairs across have.
        shake: in Angstrom; standard deviation of the noise on the pocket's atoms in training, so that none is learned by heart.
        confidence: judge poses instead: one number for each, the log odds that it lies within 2 Angstrom of the true one.
        outputs: numbers for each of the state's; from the process.
    """

    def __init__(
        self,
        features: int = ConformerCodec.features,
        pocket: int = pockets.FEATURES,
        embedding: int = 0,
        width: int = 64,
        depth: int = 3,
        within: int = 2,
        forces: int = 16,
        cutoff: float = 6.0,
        spread: float = 2.0,
        prior: bool = True,
        dropout: float = 0.0,
        shake: float = 0.0,
        confidence: bool = False,
        outputs: int = 1,
    ) -> None:
        super().__init__(features, width, depth, forces, 5.0, prior, outputs)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is a share and must lie in [0, 1), not {dropout:g}")
        if shake < 0:
            raise ValueError(f"shake is in Angstrom and must not be negative, not {shake:g}")
        if not (cutoff > 1.6 and spread >= 0):
            raise ValueError(
                f"cutoff must be longer than a bond and spread not negative, not {cutoff:g} and {spread:g}"
            )
        self.embedding = embedding
        self.reach, self.spread, self.shake, self.confidence = cutoff, spread, shake, confidence
        self.pocket = _PocketEncoder(pocket + embedding, width, within, dropout)
        self.radial = nn.Linear(2 * _RADIAL + 4, _PAIR)
        self.across = nn.ModuleList(_Across(width, dropout) for _ in range(depth))
        self.contact = _Contact(width)
        self.dropout = nn.Dropout(dropout)
        self.strength = nn.Linear(width, forces)
        self.pose = nn.Sequential(nn.Linear(3 * width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.whole = nn.Linear(width, 1 if confidence else 2 * forces + 1)
        nn.init.normal_(self.whole.weight, std=0.1 / math.sqrt(width))
        nn.init.zeros_(self.whole.bias)

    def encode(self, pocket: dict[str, Tensor]) -> dict[str, Tensor]:
        """The pocket with what its atoms keep, which `forward` then does not work out again."""
        return {**pocket, "encoded": self._kept(pocket)}

    def _kept(self, pocket: dict[str, Tensor]) -> Tensor:
        told = [pocket["features"], *([pocket["embedding"]] if self.embedding else [])]
        return self.pocket(torch.cat(told, 1), pocket)

    def forward(self, x: dict[str, Tensor], t: Tensor, cond: dict[str, Any], rows: dict[str, Rows]) -> Any:
        """Scores times sigma: {"tr": (B, 3), "rot": (B, 3), "tor": (R, 1)}, or (B,) log odds.

        Args:
            x: {"tr": (B, 3), "rot": (B, 3, 3), "tor": (R, 1)}.
            t: (B,).
            cond: of `pose_codec.batch`; its pockets may have been through `encode`.
            rows: {"tor": which pose a torsion belongs to}.
        """
        pocket = cond["pocket"]
        if self.training and self.shake:
            pocket = {**pocket, "pos": pocket["pos"] + self.shake * torch.randn_like(pocket["pos"])}
        kept = pocket["encoded"] if "encoded" in pocket else self._kept(pocket)
        pos, pose = pose_codec.positions(x, cond), Rows(cond["atom"], len(x["tr"]))
        time, near, cross = self.time(t), self._near(pos, cond), self._cross(pos, t, cond, pocket)
        h = self.first(cond["features"].to(pos)) + time[pose.index]
        for layer, across in zip(self.layers, self.across, strict=True):
            h = across(layer(h, near), kept, cross)
        size = pose.counts()[:, None].to(pos)
        summed = pose.pool(h)
        whole = self.whole(self.pose(torch.cat([summed / size, summed / 25, time], 1)))
        if self.confidence:
            return whole[:, 0]
        pull = self._contacts(h, kept, cross)
        net = pose.pool(pull) / size[:, :, None]
        arm = pos - pose.spread(x["tr"])
        torque = pose.pool(torch.linalg.cross(arm[:, None, :], pull, dim=2))
        torque = torque / (pose.pool(arm.square().sum(1, keepdim=True)) + size)[:, :, None]
        push, turn, back = whole.split([pull.shape[1], pull.shape[1], 1], 1)
        return {
            "tr": (push[:, :, None] * net).sum(1) + back * x["tr"],
            "rot": (turn[:, :, None] * torque).sum(1),
            "tor": self._turns(h, self._pull(h, near) + pull - pose.spread(net), pos, time, cond, rows["tor"]),
        }

    def _cross(self, pos: Tensor, t: Tensor, cond: dict[str, Any], pocket: dict[str, Tensor]) -> list[Cross]:
        """The pairs across that see each other at this noise."""
        reach = (self.reach + self.spread * t)[cond["atom"]]
        places, outward = pocket["pos"].to(pos), _outward(pos, cond["pair"], cond["hops"])
        directions = pocket["direction"].to(pos)
        pairs = _close(pos.detach(), reach, cond["inside"][cond["atom"]], places, pocket["of"])
        together = _TOGETHER if pos.device.type == "cpu" else max(len(pairs[0]), 1)
        found = []
        for atom, other in zip(*(one.split(together) for one in pairs), strict=True):
            difference = pos.index_select(0, atom) - places.index_select(0, other)
            apart = difference.norm(dim=1, keepdim=True).clamp(min=1e-3)
            unit = difference / apart
            fade = 0.5 + 0.5 * (math.pi * (apart / reach[atom, None]).clamp(max=1)).cos()
            ours = (outward.index_select(0, atom) * unit).sum(1, keepdim=True)
            theirs = (directions.index_select(0, other) * unit).sum(1, keepdim=True)
            radial = _bumps(apart, 1.5, self.reach + self.spread)
            told = torch.cat([radial, radial * theirs, ours, ours.square(), theirs.square(), ours * theirs], 1)
            found.append(Cross(atom, other, unit, F.silu(self.radial(told)), fade))
        return found

    def _contacts(self, h: Tensor, kept: Tensor, cross: list[Cross]) -> Tensor:
        """(N, forces, 3) what the pocket's forces on each atom add up to."""
        pull = cross[0].unit.new_zeros(len(h), self.strength.out_features, 3)
        for some, said in self.contact(h, kept, cross):
            strength = self.strength(self.dropout(said)) * some.fade
            pull.index_add_(0, some.atom, strength[:, :, None] * some.unit[:, None, :])
        return pull


class _PocketEncoder(nn.Module):
    """(M, width) of a pocket's atoms, from their features and from the atoms around."""

    def __init__(self, features: int, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Linear(features, width)
        self.radial = nn.Linear(_RADIAL + 1, _PAIR)
        self.layers = nn.ModuleList(_Within(width, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, features: Tensor, pocket: dict[str, Tensor]) -> Tensor:
        dtype = self.first.weight.dtype
        h, pos, pair = self.first(features.to(dtype)), pocket["pos"].to(dtype), pocket["pair"]
        apart = (pos[pair[:, 0]] - pos[pair[:, 1]]).norm(dim=1, keepdim=True)
        told = F.silu(self.radial(torch.cat([_bumps(apart, 1.0, 5.0), pocket["same"][:, None].to(dtype)], 1)))
        for layer in self.layers:
            h = layer(h, pair, told)
        return self.norm(h)


class _Within(nn.Module):
    """One round of messages among the atoms of a pocket."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)
        self.atom, self.edge = nn.Linear(width, width), nn.Linear(_PAIR, width, bias=False)
        self.change = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, h: Tensor, pair: Tensor, told: Tensor) -> Tensor:
        normed = self.norm(h)
        atom = self.atom(normed)
        said = F.silu(atom[pair[:, 0]] + atom[pair[:, 1]] + self.edge(told))
        heard = said.new_zeros(h.shape).index_add(0, pair[:, 0], said).index_add(0, pair[:, 1], said)
        return h + self.dropout(self.change(torch.cat([normed, heard / 8], 1)))


class _Contact(nn.Module):
    """Some pairs across after the others, with (E, width) of each; what hangs on one atom alone is done once for each atom."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.atom, self.other = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.edge = nn.Linear(_PAIR, width, bias=False)

    def forward(self, h: Tensor, kept: Tensor, cross: list[Cross]) -> Iterator[tuple[Cross, Tensor]]:
        ours, theirs = self.atom(h), self.other(kept)
        for some in cross:
            of_atoms = ours.index_select(0, some.atom).add_(theirs.index_select(0, some.other))
            yield some, F.silu(torch.addmm(of_atoms, some.told, self.edge.weight.T))


class _Across(nn.Module):
    """One round of messages from the pocket's atoms to the ligand's."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.contact, self.dropout = nn.LayerNorm(width), _Contact(width), nn.Dropout(dropout)
        self.change = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, h: Tensor, kept: Tensor, cross: list[Cross]) -> Tensor:
        normed, heard = self.norm(h), cross[0].fade.new_zeros(h.shape)
        for some, said in self.contact(normed, kept, cross):
            heard.index_add_(0, some.atom, said * some.fade)
        return h + self.dropout(self.change(torch.cat([normed, heard / 4], 1)))


def _bumps(apart: Tensor, first: float, last: float) -> Tensor:
    """(E, 16) Gaussians of the distances (E, 1)."""
    centres = torch.linspace(first, last, _RADIAL, dtype=apart.dtype, device=apart.device)
    return (-((apart - centres) / (centres[1] - centres[0])).square()).exp()


def _outward(pos: Tensor, pair: Tensor, hops: Tensor) -> Tensor:
    """(N, 3) where an atom's bonds do not point: the unit vector along the sum of those from its neighbours, or 0."""
    first, second = pair[hops < 4].unbind(1)
    unit = F.normalize(pos[first] - pos[second], dim=1)
    summed = torch.zeros_like(pos).index_add(0, first, unit).index_add(0, second, unit, alpha=-1)
    return summed / summed.norm(dim=1, keepdim=True).clamp(min=0.1)


def _close(pos: Tensor, reach: Tensor, inside: Tensor, others: Tensor, of: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs of an atom and one of its pocket's that lie nearer than the atom's reach; pockets one by one, which are few."""
    atoms, found = [], []
    for pocket in range(int(of.max()) + 1 if len(of) else 0):
        theirs = (of == pocket).nonzero()[:, 0]
        for ours in (inside == pocket).nonzero()[:, 0].split(_ROWS if pos.device.type == "cpu" else len(pos)):
            i, j = (torch.cdist(pos[ours], others[theirs]) < reach[ours, None]).nonzero(as_tuple=True)
            atoms.append(ours[i])
            found.append(theirs[j])
    return torch.cat(atoms), torch.cat(found)
