"""The score of torsion angles: invariant messages between atoms, and outputs that change their sign in a mirror."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionkit.core.rows import Rows
from diffusionkit.molecule import conformer_codec, torsions
from diffusionkit.molecule.conformer_codec import HOPS, TERMS
from diffusionkit.nn import TimeEmbedding

_RADIAL = 16  # functions of the distance of two atoms
_PAIR = 32  # numbers that are told of a pair: few, since there are many pairs


class Near(NamedTuple):
    """Pairs of atoms that see each other.

    Args:
        first, second: (E,) the atoms, each pair once.
        unit: (E, 3) from the second to the first.
        told: (E, 32) what the network is told of them.
    """

    first: Tensor
    second: Tensor
    unit: Tensor
    told: Tensor


class TorsionNetwork(nn.Module):
    """Predicts the score of each torsion from the molecule whose torsions are turned to the noised angles.

    Atoms exchange messages that depend on their distance and on how many bonds lie between them. The score of a torsion is odd
    under reflection, so it is put together from numbers that are, with weights that are not:

    - the sines of all dihedral angles phi about the bond and of their multiples up to 6 phi, as in a force field;
    - torques about the bond of forces between pairs of atoms, along their difference and equal in both directions. What lies on
      one side of the bond exerts no torque on itself then, and the torque on the other side is the same: nothing hangs on which
      side is turned.

    Mirror images are told apart, because the angles about a bond depend on how its ends are handed. ETKDG's preferences for
    torsions are among the inputs (from `ConformerCodec`; Riniker and Landrum 2015); with `prior: false` they are left out.

    Args:
        features: of an atom; from the data.
        width: of the numbers that an atom keeps.
        depth: rounds of messages.
        forces: kinds of forces between pairs.
        cutoff: in Angstrom; atoms four and more bonds apart that are farther from one another do not see each other.
        prior: whether the network is told ETKDG's preferences.
        outputs: numbers for each torsion; from the process.
    """

    def __init__(
        self,
        features: int = conformer_codec.ConformerCodec.features,
        width: int = 64,
        depth: int = 4,
        forces: int = 16,
        cutoff: float = 5.0,
        prior: bool = True,
        outputs: int = 1,
    ) -> None:
        super().__init__()
        for name, value in (("width", width), ("depth", depth), ("forces", forces)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if not cutoff > 1.6:
            raise ValueError(f"cutoff must be longer than a bond, not {cutoff:g} Angstrom")
        if outputs != 1:
            raise ValueError(f"outputs must be 1 for each torsion, not {outputs}: the process does not fit")
        self.cutoff, self.prior = cutoff, prior
        self.time = TimeEmbedding(32, width)
        self.first = nn.Linear(features, width)
        self.edges = nn.Linear(_RADIAL + HOPS, _PAIR)
        self.layers = nn.ModuleList(_Messages(width) for _ in range(depth))
        self.pairs = _Pairs(width)
        self.force = nn.Linear(width, forces)
        self.angles = nn.Linear(3 * TERMS, width)
        self.ends, self.middle, self.level = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.bond = nn.Sequential(nn.Linear(2 * width + forces, width), nn.SiLU(), nn.Linear(width, width))
        self.sines = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, TERMS))
        self.torques = nn.Sequential(nn.SiLU(), nn.Linear(width, forces))
        for last in (self.sines[-1], self.torques[-1]):
            nn.init.normal_(last.weight, std=0.1 / math.sqrt(width))
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, t: Tensor, cond: dict[str, Tensor], rows: Rows) -> Tensor:
        """(R, 1) for angles x (R, 1) at times t (B,); `cond` is that of `conformer_codec.batch`."""
        pos = conformer_codec.positions(x, cond)
        time = self.time(t)
        near = self._near(pos, cond)
        h = self.first(cond["features"].to(pos)) + time[cond["atom"]]
        for layer in self.layers:
            h = layer(h, near)
        return self._turns(h, self._pull(h, near), pos, time, cond, rows)

    def _turns(self, h: Tensor, pull: Tensor, pos: Tensor, time: Tensor, cond: dict[str, Tensor], rows: Rows) -> Tensor:
        """(R, 1) scores of the torsions, from what atoms keep (N, width) and the forces on them (N, forces, 3)."""
        torque = torques(pull, pos, cond).tanh()
        bond, quad, owner = cond["bond"], cond["quad"], cond["quad_bond"]
        sines, cosines = _multiples(torsions.dihedral(pos, quad))
        prior = cond["prior"].to(pos) if self.prior else torch.zeros_like(sines)
        force = prior * torch.arange(1, TERMS + 1, device=pos.device)
        middle = self.middle(h[bond].sum(1))
        told = self.angles(torch.cat([cosines, prior.asinh(), (force * cosines).asinh()], 1))
        z = F.silu(told + self.ends(h[quad[:, 0]] + h[quad[:, 3]]) + middle[owner])
        summed = z.new_zeros(len(torque), z.shape[1]).index_add(0, owner, z)
        b = self.bond(torch.cat([summed, F.silu(middle), torque.abs()], 1)) + self.level(time)[rows.index]
        weights = self.sines(z + b[owner])
        local = pos.new_zeros(len(torque)).index_add(0, owner, (weights * sines).sum(1))
        return (local + (self.torques(b) * torque).sum(1))[:, None]

    def _near(self, pos: Tensor, cond: dict[str, Tensor]) -> Near:
        """The pairs that see each other."""
        pair, hops = cond["pair"], cond["hops"]
        difference = pos[pair[:, 0]] - pos[pair[:, 1]]
        apart = difference.norm(dim=1)
        seen = ((apart < self.cutoff) | (hops < HOPS - 2)).nonzero()[:, 0]
        pair, hops, apart = pair[seen], hops[seen], apart[seen]
        centres = torch.linspace(0.8, self.cutoff, _RADIAL, dtype=pos.dtype, device=pos.device)
        radial = (-((apart[:, None] - centres) / (centres[1] - centres[0])).square()).exp()
        told = self.edges(torch.cat([radial, F.one_hot(hops, HOPS).to(pos)], 1))
        unit = difference[seen] / apart.clamp(min=1e-3)[:, None]
        return Near(pair[:, 0], pair[:, 1], unit, F.silu(told))

    def _pull(self, h: Tensor, near: Near) -> Tensor:
        """(N, forces, 3) what the forces of all pairs of an atom add up to."""
        vectors = self.force(self.pairs(h, near))[:, :, None] * near.unit[:, None, :]
        pull = vectors.new_zeros(len(h), *vectors.shape[1:])
        return pull.index_add(0, near.first, vectors).index_add(0, near.second, vectors, alpha=-1)


def torques(pull: Tensor, pos: Tensor, cond: dict[str, Tensor]) -> Tensor:
    """(R, forces) torques that forces on atoms (N, forces, 3) exert on what each rotatable bond turns."""
    bond, (atom, owner) = cond["bond"], cond["turned"].unbind(1)
    axis = F.normalize(pos[bond[:, 1]] - pos[bond[:, 0]], dim=1)
    arm = torch.linalg.cross(axis[owner], pos[atom] - pos[bond[owner, 1]])
    torque = (pull[atom] * arm[:, None, :]).sum(2)
    return torque.new_zeros(len(bond), torque.shape[1]).index_add(0, owner, torque)


class _Pairs(nn.Module):
    """(E, width) of each pair of atoms, the same in both directions: the node part of the first layer is done per atom."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.atom, self.edge = nn.Linear(width, width), nn.Linear(_PAIR, width, bias=False)

    def forward(self, h: Tensor, near: Near) -> Tensor:
        atom = self.atom(h)
        return F.silu(atom[near.first] + atom[near.second] + self.edge(near.told))


class _Messages(nn.Module):
    """One round: what the pairs of an atom say is summed and changes what it keeps."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.pairs = _Pairs(width)
        self.change = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, h: Tensor, near: Near) -> Tensor:
        normed = self.norm(h)
        said = self.pairs(normed, near)
        heard = said.new_zeros(h.shape).index_add(0, near.first, said).index_add(0, near.second, said)
        return h + self.change(torch.cat([normed, heard / 4], 1))


def _multiples(angle: Tensor) -> tuple[Tensor, Tensor]:
    """(Q, 6) sines and cosines of 1 to 6 times the angles (Q,)."""
    multiples = angle[:, None] * torch.arange(1, TERMS + 1, dtype=angle.dtype, device=angle.device)
    return multiples.sin(), multiples.cos()
