"""What a network of torsions is told of a molecule: a graph of flat tensors, and batches of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffusionkit.core.rows import Rows
from diffusionkit.core.state import Batch
from diffusionkit.domain import Codec
from diffusionkit.errors import UserError
from diffusionkit.molecule import torsions

ELEMENTS = (5, 6, 7, 8, 9, 14, 15, 16, 17, 34, 35, 53)
HOPS = 8
"""Kinds of pairs of atoms: single, double, triple and aromatic bonds, then 2, 3, 4 bonds apart, then farther."""
TERMS = 6
"""Terms of the torsional preferences that RDKit's ETKDG uses, which come from crystals of small molecules."""

Graph = dict[str, Tensor]
# Which tensors of a graph point at its atoms, and which at its torsions.
_ATOMS = ("bond", "quad", "reference", "pair")
_TORSIONS = ("parent", "piece", "quad_bond")


class ConformerCodec(Codec):
    """Between molecules with coordinates and their torsion angles.

    Args:
        examples: SMILES of held-out molecules, for pictures and for samples without a wish.
    """

    features: ClassVar[int] = len(ELEMENTS) + 21

    def __init__(self, examples: list[str] | None = None, notes: list[str] | None = None) -> None:
        self.examples, self._notes = list(examples or []), list(notes or [])

    def arguments(self) -> dict[str, Any]:
        return {"features": self.features}

    def like(self, n: int) -> tuple[int, ...]:
        """(n, 1): as many states as there are torsions; a molecule has any number of them."""
        return (n, 1)

    def encode(self, graph: Graph, pos: Tensor) -> Tensor:
        """(R, 1) torsion angles of coordinates (N, 3)."""
        return torsions.dihedral(pos, graph["reference"])[:, None]

    def decode(self, x: Tensor, cond: Graph | None = None) -> Tensor:
        """(N, 3) coordinates of molecules whose torsions have the angles x (R, 1)."""
        if cond is None:
            raise ValueError(
                "torsion angles become coordinates with the local structures that they belong to: pass `cond`"
            )
        return positions(x, cond)

    def notes(self) -> list[str]:
        return self._notes

    def save(self, folder: Path) -> None:
        (folder / "codec.json").write_text(json.dumps({"examples": self.examples}, indent=1))

    @classmethod
    def load(cls, folder: Path) -> ConformerCodec:
        file = folder / "codec.json"
        try:
            return cls(**json.loads(file.read_text("utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{file}: damaged: {error}") from error


def positions(x: Tensor, cond: Graph) -> Tensor:
    """(N, 3) the local structures of a batch with their torsions turned to the angles x (R, 1)."""
    pos = cond["pos"]
    angle = x[:, 0] - torsions.dihedral(pos, cond["reference"])
    return torsions.turn(pos, angle, cond["bond"], cond["parent"], cond["piece"])


def graph(mol: Any) -> Graph:
    """What there is to know of a molecule of heavy atoms but its coordinates.

    Returns:
        `features` (N, F) of atoms; `bond`, `parent`, `piece` and `turned` of `torsions.tree`; `quad` (Q, 4) the atoms of all
        dihedral angles about rotatable bonds, `quad_bond` (Q,) and `prior` (Q, 6), the signed force constants of ETKDG's
        preferences; `reference` (R, 4) the dihedral that is a torsion's angle; `pair` (E, 2) all pairs of atoms, the lower first,
        and `hops` (E,), one of the `HOPS` kinds.

    Raises:
        UserError: for an element that the features do not know, or a molecule of several parts.
    """
    from rdkit import Chem

    for atom in mol.GetAtoms():
        if atom.GetAtomicNum() not in ELEMENTS:
            raise UserError(f"the element {atom.GetSymbol()} is not known to models of conformers")
    distance = torch.from_numpy(Chem.GetDistanceMatrix(mol)).long()
    if not len(distance) or distance.max() > mol.GetNumAtoms():
        raise UserError("a conformer needs one connected molecule, not none or several parts")
    neighbours = [[other.GetIdx() for other in atom.GetNeighbors()] for atom in mol.GetAtoms()]
    pieces = torsions.tree(neighbours, torsions.rotatable(mol), int(distance.sum(1).argmin()))
    quad, quad_bond = torsions.quadruples(neighbours, pieces["bond"])
    first = torch.searchsorted(quad_bond, torch.arange(len(pieces["bond"])))
    pair = torch.triu_indices(len(distance), len(distance), 1).T
    return {
        "features": torch.tensor([_features(atom) for atom in mol.GetAtoms()]),
        **pieces,
        "quad": quad,
        "quad_bond": quad_bond,
        "prior": _preferences(mol, quad),
        "reference": quad[first],
        "pair": pair,
        "hops": _hops(mol, distance)[pair[:, 0], pair[:, 1]],
    }


def batch(graphs: list[Graph], pos: list[Tensor]) -> Batch:
    """Molecules with their local structures: torsions as states, everything else in the condition."""
    sizes = torch.tensor([len(p) for p in pos])
    turns = torch.tensor([len(g["bond"]) for g in graphs])
    cond = {name: torch.cat([g[name] for g in graphs]) for name in graphs[0]}
    lead = {"atoms": sizes.cumsum(0) - sizes, "torsions": turns.cumsum(0) - turns}
    for names, shift in ((_ATOMS, lead["atoms"]), (_TORSIONS, lead["torsions"])):
        for name in names:
            lengths = torch.tensor([len(g[name]) for g in graphs])
            add = shift.repeat_interleave(lengths).reshape(-1, *[1] * (cond[name].ndim - 1))
            cond[name] = torch.where(cond[name] < 0, -1, cond[name] + add)
    add = torch.stack([lead["atoms"], lead["torsions"]], 1)
    cond["turned"] = cond["turned"] + add.repeat_interleave(torch.tensor([len(g["turned"]) for g in graphs]), 0)
    cond["pos"] = torch.cat(pos)
    cond["atom"] = torch.arange(len(pos)).repeat_interleave(sizes)
    x = torsions.dihedral(cond["pos"], cond["reference"])[:, None]
    return Batch(x, cond, Rows.from_sizes(turns))


def _features(atom: Any) -> list[float]:
    ring, index = atom.GetOwningMol().GetRingInfo(), atom.GetIdx()
    found = [
        *(atom.GetAtomicNum() == z for z in ELEMENTS),
        *(str(atom.GetHybridization()) == kind for kind in ("SP", "SP2", "SP3")),
        *(atom.GetDegree() == k for k in (1, 2, 3, 4)),
        *(atom.GetTotalNumHs() == k for k in (0, 1, 2, 3)),
        atom.GetFormalCharge() > 0,
        atom.GetFormalCharge() < 0,
        atom.GetIsAromatic(),
        *(ring.IsAtomInRingOfSize(index, k) for k in (3, 4, 5, 6, 7)),
        ring.NumAtomRings(index) > 0,
        ring.NumAtomRings(index) > 1,
    ]
    return [float(value) for value in found]


def _hops(mol: Any, distance: Tensor) -> Tensor:
    kinds = {"SINGLE": 0, "DOUBLE": 1, "TRIPLE": 2, "AROMATIC": 3}
    hops = distance.clamp(max=5) + 2
    for bond in mol.GetBonds():
        a, b = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        hops[a, b] = hops[b, a] = kinds.get(str(bond.GetBondType()), 0)
    return hops


def _preferences(mol: Any, quad: Tensor) -> Tensor:
    """(Q, 6) signed force constants of sum_k V_k (1 + s_k cos(k phi)) where ETKDG has them for these four atoms, else zeros."""
    from rdkit import Chem
    from rdkit.Chem import rdDistGeom

    found = torch.zeros(len(quad), TERMS)
    where = {tuple(q): k for k, q in enumerate(quad.tolist())}
    for term in rdDistGeom.GetExperimentalTorsions(Chem.AddHs(mol), rdDistGeom.ETKDGv3()):
        atoms = tuple(term["atomIndices"])
        place = where.get(atoms, where.get(atoms[::-1]))
        if place is not None:
            found[place] = torch.tensor([v * s for v, s in zip(term["V"], term["signs"], strict=True)])
    return found
