"""Synthetic pockets: amino acids put around a ligand, each with what its nearest atom asks for. For trying things out only.

A donor meets an acid, an acceptor an amide or a hydroxyl, an acid an arginine, carbon meets carbon; so the surroundings tell
where the ligand lies and how. Amino acids are whole and of plausible shape, but there is no chain that joins them.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from diffusionkit.molecule import local_structures, pockets
from diffusionkit.molecule.pockets import ATOM_NAMES, RESIDUES, Pocket

_MEET = {
    "acid": ("ARG NH1", "LYS NZ", "ARG NH2"),
    "base": ("ASP OD1", "GLU OE1", "ASP OD2"),
    "both": ("GLN OE1", "SER OG", "HIS NE2"),
    "donor": ("ASN OD1", "GLU OE1", "GLY O"),
    "acceptor": ("ASN ND2", "TYR OH", "GLY N"),
    "aromatic": ("PHE CZ", "LEU CD1", "TRP CH2", "MET CE"),
    "other": ("ILE CD1", "VAL CG1", "LEU CD2", "ALA CB"),
}
"""The atoms of amino acids that meet an atom of the ligand."""
_POLAR, _APOLAR = 2.9, 3.8  # Å between atoms that meet
_LIGAND, _PROTEIN = 3.2, 3.0  # Å that other atoms keep from the ligand, and from one another
_TRIES, _ROUNDS, _MOST = 100, 3, 40


def surround(mol: Any, seed: int) -> Pocket:
    """A pocket about a ligand's conformer, the same for the same seed.

    Args:
        mol: RDKit molecule of heavy atoms with a conformer and a name.
        seed: of the choices and places of residues.
    """
    random = np.random.default_rng(seed)
    ligand = mol.GetConformer().GetPositions()
    roles = [_role(atom) for atom in mol.GetAtoms()]
    placed: list[tuple[str, np.ndarray]] = []
    for _ in range(_ROUNDS):
        for atom in random.permutation(len(ligand)).tolist():
            if len(placed) < _MOST:
                residue, tip = random.choice(_MEET[roles[atom]]).split(" ")
                reach = _APOLAR if roles[atom] in ("aromatic", "other") else _POLAR
                found = _placed(residue, tip, reach, atom, ligand, [pos for _, pos in placed], random)
                placed += [] if found is None else [(residue, found)]
    return _pocket(mol.GetProp("_Name"), placed, ligand.mean(0))


def _role(atom: Any) -> str:
    """What an atom of a ligand asks for, from its graph."""
    element, hydrogens = atom.GetAtomicNum(), atom.GetTotalNumHs()
    if element == 8 and any(
        other.GetAtomicNum() == 6
        and sum(n.GetAtomicNum() == 8 and n.GetDegree() == 1 for n in other.GetNeighbors()) > 1
        for other in atom.GetNeighbors()
    ):
        return "acid"
    if element in (7, 8):
        amine = element == 7 and not atom.GetIsAromatic() and str(atom.GetHybridization()) == "SP3"
        kinds = ("acceptor", "both" if element == 8 else "donor")
        return "base" if amine else kinds[hydrogens > 0]
    return "aromatic" if atom.GetIsAromatic() else "other"


@cache
def residue_shape(name: str) -> tuple[tuple[int, ...], tuple[str, ...], np.ndarray]:
    """Atomic numbers, names and places (n, 3) of an amino acid's heavy atoms, by ETKDGv3."""
    from rdkit import Chem

    letters = "ARNDCQEGHILKMFPSTWYV"
    mol = Chem.MolFromSequence(letters[RESIDUES.index(name)])
    names = [atom.GetPDBResidueInfo().GetName().strip() for atom in mol.GetAtoms()]
    kept = [k for k, name in enumerate(names) if name != "OXT"]  # as it is within a chain
    numbers = tuple(mol.GetAtomWithIdx(k).GetAtomicNum() for k in kept)
    return numbers, tuple(names[k] for k in kept), local_structures.embed(mol, [1])[0][kept]


def _placed(
    residue: str,
    tip: str,
    reach: float,
    atom: int,
    ligand: np.ndarray,
    others: list[np.ndarray],
    random: np.random.Generator,
) -> np.ndarray | None:
    """Places (n, 3) of a residue whose `tip` meets an atom of the ligand, the rest outward; None where there is no room."""
    _, names, shape = residue_shape(residue)
    end = names.index(tip)
    shape = shape - shape[end]
    out = _unit(random.normal(size=(_TRIES, 3)))
    turns = _frames(out, random) @ _frames(np.broadcast_to(_unit(shape.mean(0)), out.shape), random).transpose(0, 2, 1)
    tried = shape @ turns.transpose(0, 2, 1) + (ligand[atom] + reach * out)[:, None]
    gap = np.linalg.norm(tried[:, :, None] - ligand, axis=-1)
    gap[:, end, atom] = np.inf
    tried = tried[gap.min((1, 2)) > _LIGAND]
    if others:
        gap = np.linalg.norm(tried[:, :, None] - np.concatenate(others), axis=-1)
        tried = tried[gap.min((1, 2)) > _PROTEIN]
    return tried[0] if len(tried) else None


def _frames(axes: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Rotation matrices (k, 3, 3) whose last columns are the unit vectors (k, 3), random about them."""
    x = _unit(np.cross(axes, random.normal(size=axes.shape)))
    return np.stack([x, np.cross(axes, x), axes], axis=-1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _pocket(name: str, placed: list[tuple[str, np.ndarray]], center: np.ndarray) -> Pocket:
    z, names = [], []
    for residue, _ in placed:
        numbers, some, _ = residue_shape(residue)
        z += numbers
        names += [ATOM_NAMES.index(one) for one in some]
    sizes = [len(pos) for _, pos in placed]
    return pockets.Pocket(
        name,
        np.array(z),
        np.concatenate([pos for _, pos in placed]),
        np.repeat([RESIDUES.index(residue) for residue, _ in placed], sizes),
        np.array(names),
        np.repeat(np.arange(len(placed)), sizes),
        center,
        tuple(f"A:{number} {residue}" for number, (residue, _) in enumerate(placed, 1)),
    )
