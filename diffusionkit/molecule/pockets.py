"""Pockets: the heavy atoms of a protein around a place, and what a network is told of each.

What an atom can do is told by its residue and name for the twenty amino acids, and by its element and its neighbours for
all else: cofactors, metals, modified residues. Hydrogens are never needed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffusionkit.errors import UserError

RESIDUES = ("ALA", "ARG", "ASN", "ASP", "CYS", "GLN", "GLU", "GLY", "HIS", "ILE",
            "LEU", "LYS", "MET", "PHE", "PRO", "SER", "THR", "TRP", "TYR", "VAL")  # fmt: skip
"""The amino acids; the index after the last stands for a hetero group or an unknown residue."""
OTHER = len(RESIDUES)
_SIDE = """
ALA: CB
ARG: CB CG CD NE CZ NH1 NH2
ASN: CB CG OD1 ND2
ASP: CB CG OD1 OD2
CYS: CB SG
GLN: CB CG CD OE1 NE2
GLU: CB CG CD OE1 OE2
GLY:
HIS: CB CG ND1 CD2 CE1 NE2
ILE: CB CG1 CG2 CD1
LEU: CB CG CD1 CD2
LYS: CB CG CD CE NZ
MET: CB CG SD CE
PHE: CB CG CD1 CD2 CE1 CE2 CZ
PRO: CB CG CD
SER: CB OG
THR: CB OG1 CG2
TRP: CB CG CD1 CD2 NE1 CE2 CE3 CZ2 CZ3 CH2
TYR: CB CG CD1 CD2 CE1 CE2 CZ OH
VAL: CB CG1 CG2
"""
BACKBONE = ("N", "CA", "C", "O", "OXT")
SIDE_CHAINS = {line[:3]: tuple(line[4:].split()) for line in _SIDE.strip().splitlines()}
"""The heavy atoms of each amino acid's side chain."""
ATOM_NAMES = (*BACKBONE, *sorted({name for names in SIDE_CHAINS.values() for name in names}), "other")

_KINDS = {
    "donor": "ARG NE NH1 NH2, ASN ND2, CYS SG, GLN NE2, HIS ND1 NE2, LYS NZ, SER OG, THR OG1, TRP NE1, TYR OH",
    "acceptor": "ASN OD1, ASP OD1 OD2, GLN OE1, GLU OE1 OE2, HIS ND1 NE2, SER OG, THR OG1, TYR OH",
    "aromatic": "HIS CG ND1 CD2 CE1 NE2, PHE CG CD1 CD2 CE1 CE2 CZ, TRP CG CD1 CD2 NE1 CE2 CE3 CZ2 CZ3 CH2, "
                "TYR CG CD1 CD2 CE1 CE2 CZ",
    "positive": "ARG NE CZ NH1 NH2, LYS NZ",
    "negative": "ASP OD1 OD2, GLU OE1 OE2",
    "hydrophobic": "ALA CB, ARG CB CG, ASN CB, ASP CB, CYS CB SG, GLN CB CG, GLU CB CG, HIS CB, ILE CB CG1 CG2 CD1, "
                   "LEU CB CG CD1 CD2, LYS CB CG CD, MET CB CG SD CE, PHE CB CG CD1 CD2 CE1 CE2 CZ, PRO CB CG, "
                   "THR CG2, TRP CB CG CD2 CE3 CZ2 CZ3 CH2, TYR CB CG CD1 CD2 CE1 CE2, VAL CB CG1 CG2",
}  # fmt: skip
KINDS = tuple(_KINDS)
"""What an atom may be, in the order of its features."""
_HALOGENS = (9, 17, 35, 53)
_ELEMENTS = (6, 7, 8, 16, 15)
_NONMETALS = (1, 2, 5, 10, 14, 18, 32, 33, 34, 36, 52, 54, *_HALOGENS, *_ELEMENTS)
_BONDED = 2.0  # Å between bonded heavy atoms
_NEAR = 5.0  # Å between atoms that tell each other something
_AROUND, _MANY = 6.0, 30.0  # Å within which atoms are counted, and about how many there are
_CLASSES = len(_ELEMENTS) + 3
FEATURES = _CLASSES + OTHER + 1 + 1 + len(KINDS) + 1
"""Numbers that a network is told of each atom."""


@dataclass(frozen=True, eq=False)
class Pocket:
    """Heavy atoms of a protein, in Angstrom in the frame of its file.

    Args:
        name: of the protein.
        z: atomic numbers (M,).
        pos: positions (M, 3), float64.
        residue: kind of the residue (M,), an index in `RESIDUES` or `OTHER`.
        atom: name of the atom (M,), an index in `ATOM_NAMES`, whose last is any other.
        group: number of the residue (M,), counted within the pocket.
        center: of the box (3,) that a ligand is to lie in, float64.
        labels: chain, number and name of each residue as in "A:45 MET", by `group`; empty where they are not known.
        notes: sentences for the user: what was left out, what was kept.
        embedding: what a language model or the like says of each residue (groups, D), by `group`; None without one.
    """

    name: str
    z: np.ndarray
    pos: np.ndarray
    residue: np.ndarray
    atom: np.ndarray
    group: np.ndarray
    center: np.ndarray
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    embedding: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.z)


def take(pocket: Pocket, kept: np.ndarray) -> Pocket:
    """The atoms that a mask (M,) or indices choose, their residues counted anew."""
    groups, group = np.unique(pocket.group[kept], return_inverse=True)
    labels = tuple(pocket.labels[g] for g in groups) if pocket.labels else ()
    arrays = {key: getattr(pocket, key)[kept] for key in ("z", "pos", "residue", "atom")}
    arrays |= {} if pocket.embedding is None else {"embedding": pocket.embedding[groups]}
    return replace(pocket, **arrays, group=group.reshape(-1), labels=labels)


def crop(pocket: Pocket, center: np.ndarray, radius: float = 12.0) -> Pocket:
    """The atoms within `radius` (Angstrom) of the new `center` (3,), whole residues or not."""
    center = np.asarray(center, dtype=np.float64)
    near = ((pocket.pos - center) ** 2).sum(1) <= radius**2
    return replace(take(pocket, near), center=center)


def embedded(pocket: Pocket, path: Path, wide: int) -> Pocket:
    """A whole protein with the embedding of its residues from a file.

    Args:
        pocket: of all residues of the protein.
        path: an .npy file (R, D): a row for each amino acid, in the order of the protein's file. Hetero groups get zeros.
        wide: the D that is needed.

    Raises:
        UserError: if the file cannot be read, or is of another shape.
    """
    try:
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: cannot be read as an .npy file of numbers ({error})") from error
    first = np.unique(pocket.group, return_index=True)[1]
    amino = pocket.residue[first] < OTHER
    if rows.shape != (amino.sum(), wide) or not np.issubdtype(rows.dtype, np.floating):
        said = f"must hold {amino.sum()} rows (one for each amino acid of {pocket.name}) of {wide} numbers"
        raise UserError(f"{path}: {said}, not {' x '.join(map(str, rows.shape))} of {rows.dtype}")
    embedding = np.zeros((len(first), wide), dtype=np.float32)
    embedding[amino] = rows
    return replace(pocket, embedding=embedding)


def encode(pocket: Pocket, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """What a network is told: invariant features, positions about the centre, and pairs.

    Returns:
        "features" (M, `FEATURES`): element (C, N, O, S, P, halogen, metal, other), residue, backbone or not, `KINDS`, and how
        many atoms are within 6 Å; "pos" (M, 3) relative to the centre; "direction" (M, 3) away from the bonded
        neighbours, of length 1 or 0; "pair" (E, 2) of atoms closer than 5 Å, the lower first; "same" (E,) whether both are
        of one residue; "embedding" (M, D) of their residues, where there is one.
    """
    from scipy.spatial import cKDTree

    tree = cKDTree(pocket.pos)
    pair = tree.query_pairs(_NEAR, output_type="ndarray").astype(np.int64)
    pair = pair[np.lexsort((pair[:, 1], pair[:, 0]))]
    between = pocket.pos[pair[:, 1]] - pocket.pos[pair[:, 0]]
    length = np.linalg.norm(between, axis=1)
    bonded = (length < _BONDED) & (length > 0)
    unit = between[bonded] / length[bonded, None]
    away = np.zeros_like(pocket.pos)
    np.add.at(away, pair[bonded, 1], unit)
    np.add.at(away, pair[bonded, 0], -unit)
    size = np.linalg.norm(away, axis=1, keepdims=True)
    direction = np.where(size > 1e-3, away / np.maximum(size, 1e-3), 0.0)  # opposite bonds leave nothing but rounding
    around = tree.query_ball_point(pocket.pos, _AROUND, return_length=True) - 1 if len(pocket) else np.zeros(0)
    features = np.concatenate(
        [
            np.eye(_CLASSES)[_element(pocket.z)],
            np.eye(OTHER + 1)[pocket.residue],
            ((pocket.residue < OTHER) & (pocket.atom < len(BACKBONE)))[:, None],
            kinds(pocket, pair[bonded], length[bonded]),
            np.asarray(around)[:, None] / _MANY,
        ],
        axis=1,
    )
    real = {"features": features, "pos": pocket.pos - pocket.center, "direction": direction}
    real |= {} if pocket.embedding is None else {"embedding": pocket.embedding[pocket.group]}
    return {
        **{key: torch.from_numpy(value).to(dtype) for key, value in real.items()},
        "pair": torch.from_numpy(pair),
        "same": torch.from_numpy(pocket.group[pair[:, 0]] == pocket.group[pair[:, 1]]),
    }


def _element(z: np.ndarray) -> np.ndarray:
    """The class of each element (M,)."""
    choices = [z == number for number in _ELEMENTS] + [np.isin(z, _HALOGENS), ~np.isin(z, _NONMETALS)]
    return np.select(choices, list(range(len(choices))), len(choices))


@cache
def table() -> tuple[np.ndarray, np.ndarray]:
    """Which atoms the amino acids have (21, names), and of which of `KINDS` each is (21, names, kinds)."""
    index = {name: k for k, name in enumerate(ATOM_NAMES)}
    known = np.zeros((OTHER + 1, len(ATOM_NAMES)), dtype=bool)
    found = np.zeros((OTHER + 1, len(ATOM_NAMES), len(KINDS)), dtype=bool)
    for k, residue in enumerate(RESIDUES):
        known[k, [index[name] for name in (*BACKBONE, *SIDE_CHAINS[residue])]] = True
    for kind, text in _KINDS.items():
        for entry in text.split(", "):
            residue, *names = entry.split()
            found[RESIDUES.index(residue), [index[name] for name in names], KINDS.index(kind)] = True
    found[:OTHER, index["N"], KINDS.index("donor")] = True
    found[RESIDUES.index("PRO"), index["N"]] = False
    for name in ("O", "OXT"):
        found[:OTHER, index[name], KINDS.index("acceptor")] = True
    found[:OTHER, index["OXT"], KINDS.index("negative")] = True
    return known, found


def kinds(pocket: Pocket, bonds: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Of which of `KINDS` each atom is (M, kinds), given the bonds (E, 2) and their lengths (E,) in Angstrom."""
    known, found = table()
    told = known[pocket.residue, pocket.atom]
    return np.where(told[:, None], found[pocket.residue, pocket.atom], _perceived(pocket.z, bonds, length))


def _perceived(z: np.ndarray, bonds: np.ndarray, length: np.ndarray) -> np.ndarray:
    """The same (M, kinds) from elements and neighbours alone, rough where only hydrogens would tell."""
    first, second = np.concatenate([bonds, bonds[:, ::-1]]).T if len(bonds) else np.zeros((2, 0), dtype=np.int64)
    both = np.concatenate([length, length])

    def count(which: np.ndarray) -> np.ndarray:
        return np.bincount(first[which], minlength=len(z))

    degree = count(np.ones(len(first), dtype=bool))
    polar, end = np.isin(z, (7, 8)), (z == 8) & (degree == 1)
    oxygens = count(end[second])  # oxygens at the end of a chain that an atom has
    acid = (np.isin(z, (15, 16)) & (oxygens > 0)) | ((z == 6) & (oxygens > 1))
    metal = ~np.isin(z, _NONMETALS)
    hydroxyl = end & (count(both > 1.3) > 0) & (count(acid[second]) == 0)
    flat = np.isin(z, (6, 7)) & (degree > 1) & (count(both > 1.45) <= degree - 2)
    found = {
        "donor": ((z == 7) & (degree <= 2)) | hydroxyl,
        "acceptor": (z == 8) | ((z == 7) & (degree == 2)),
        "aromatic": flat & (count(flat[second] & (both < 1.45)) > 1),
        "positive": metal | ((z == 7) & (degree == 4)),
        "negative": (end & (count(acid[second]) > 0)) | (np.isin(z, _HALOGENS) & (degree == 0)),
        "hydrophobic": (z == 6) & (degree > 0) & (count(polar[second]) == 0),
    }
    return np.stack([found[kind] for kind in KINDS], axis=1)
