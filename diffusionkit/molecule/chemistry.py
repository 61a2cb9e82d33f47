"""From positions to molecules: elements, bond lengths and valences as EDM's measures have them, and RDKit without its log.

Bonds are told by distance alone (Hoogeboom et al. 2022, "Equivariant diffusion for molecule generation in 3D"): a pair is
bonded where it is nearer than a single bond's length and 10 pm, doubly below a double bond's and 5 pm, triply below a triple
bond's and 3 pm. The margins were tuned on QM9; what the rule gets wrong is told in docs/molecule.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rdkit import Chem

ELEMENTS = {"H": 1, "B": 5, "C": 6, "N": 7, "O": 8, "F": 9, "Al": 13, "Si": 14, "P": 15, "S": 16, "Cl": 17, "As": 33,
            "Br": 35, "I": 53, "Hg": 80, "Bi": 83}  # fmt: skip
"""Atomic numbers of the elements that have a valence here."""
SYMBOLS = {number: symbol for symbol, number in ELEMENTS.items()}
VALENCES = {"H": (1,), "B": (3,), "C": (4,), "N": (3,), "O": (2,), "F": (1,), "Al": (3,), "Si": (4,), "P": (3, 5),
            "S": (2, 4, 6), "Cl": (1,), "As": (3,), "Br": (1,), "I": (1,), "Hg": (1, 2), "Bi": (3, 5)}  # fmt: skip
"""Sums of bond orders with which an atom is stable. EDM's, but for sulphur: theirs is 4 alone, which no thioether has."""
MARGINS = (0.10, 0.05, 0.03)
"""By how much (Å) a bond may be longer than its table says: single, double, triple."""
WIDE = 0.10
"""And by how much more a single bond of sulphur or phosphorus: EDM's rule cuts sulphonic acids and esters (S-O 1.65 Å) apart."""

_SINGLE = """
H: H 74, C 109, N 101, O 96, F 92, B 119, Si 148, P 144, As 152, S 134, Cl 127, Br 141, I 161
C: C 154, N 147, O 143, F 135, Si 185, P 184, S 182, Cl 177, Br 194, I 214
N: N 145, O 140, F 136, Cl 175, Br 214, S 168, I 222, P 177
O: O 148, F 142, Br 172, S 151, P 163, Si 163, Cl 164, I 194
F: F 142, S 158, Si 160, Cl 166, Br 178, P 156, I 187
Si: Si 233, S 200, Cl 202, Br 215, I 243
Cl: Cl 199, P 203, S 207, B 175, Br 214
S: S 204, Br 225, P 210, I 234
Br: Br 228, P 222
P: P 221
I: I 266
"""
_DOUBLE = """
C: C 134, N 129, O 120, S 160
N: N 125, O 121
O: O 121, P 150
P: S 186
"""
_TRIPLE = """
C: C 120, N 116, O 113
N: N 110
"""
_LARGEST = 119  # atomic numbers are below; 0 stands for what is no element


@cache
def limits() -> np.ndarray:
    """Distances (119, 119, 3) in Å below which two elements have a single, double and triple bond; 0 where they have none."""
    found = np.zeros((_LARGEST, _LARGEST, 3))
    for order, (table, margin) in enumerate(zip((_SINGLE, _DOUBLE, _TRIPLE), MARGINS, strict=True)):
        for line in table.strip().splitlines():
            first, others = line.split(":")
            for entry in others.split(","):
                second, length = entry.split()
                a, b = ELEMENTS[first], ELEMENTS[second]
                found[a, b, order] = found[b, a, order] = int(length) / 100 + margin
    wide = np.isin(np.arange(_LARGEST), (ELEMENTS["S"], ELEMENTS["P"]))
    found[..., 0] += WIDE * ((wide[:, None] | wide) & (found[..., 0] > 0))
    found.setflags(write=False)
    return found


@cache
def allowed() -> np.ndarray:
    """Whether a sum of bond orders makes an element stable: (119, 9) booleans, the last column for 8 and more."""
    found = np.zeros((_LARGEST, 9), dtype=bool)
    for symbol, sums in VALENCES.items():
        found[ELEMENTS[symbol], list(sums)] = True
    found.setflags(write=False)
    return found


def numbers(z: np.ndarray) -> np.ndarray:
    """Atomic numbers as integers, 0 for what is none."""
    z = np.asarray(z)
    return np.where((z > 0) & (z < _LARGEST), z, 0).astype(np.int64)


def order(first: np.ndarray, second: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Bond orders, 0 to 3, of pairs of atomic numbers at distances in Å; 0 where a distance is not finite."""
    table = limits()
    found = (distance < table[..., 0][first, second]).astype(np.int8)
    near = np.nonzero(found)  # few of all pairs
    nearer = table[first[near], second[near]] > distance[near][..., None]
    found[near] = nearer.sum(-1)
    return found


def bond_orders(z: np.ndarray, pos: np.ndarray) -> np.ndarray:
    """Bond orders (n, n) of one molecule by EDM's tables of lengths.

    Args:
        z: atomic numbers (n,).
        pos: positions (n, 3) in Å. An atom whose position is not finite has no bond.
    """
    z, pos = numbers(z), np.asarray(pos, dtype=np.float64)
    first, second = np.triu_indices(len(z), 1)
    found = np.zeros((len(z), len(z)), dtype=np.int8)
    found[first, second] = order(z[first], z[second], distances(pos[first], pos[second]))
    return found + found.T


def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Between positions (..., 3) each; nan or infinite where one is."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.sqrt(((np.asarray(first) - np.asarray(second)) ** 2).sum(-1))


class _Quiet:
    """How many blocks of `quiet` are open, in all threads together, what keeps RDKit's log shut meanwhile, and what was open."""

    lock, depth, shut = Lock(), 0, None
    open: Collection[str] = ()


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing of RDKit's log is printed within, in whatever thread.

    RDKit's own block opens the log at its end even within another, so that one alone is held, until the outermost ends. If
    anything opens the log within, as PoseBusters does, that block leaves it shut for good: what was open is opened again.
    """
    from rdkit import rdBase

    with _Quiet.lock:
        _Quiet.depth += 1
        if _Quiet.shut is None:
            _Quiet.open = [line.split(":")[0] for line in rdBase.LogStatus().splitlines() if line.endswith(":enabled")]
            _Quiet.shut = rdBase.BlockLogs()
    try:
        yield
    finally:
        with _Quiet.lock:
            _Quiet.depth -= 1
            if not _Quiet.depth:
                _Quiet.shut = None
                for name in _Quiet.open:
                    rdBase.EnableLog(name)


def molecule(z: np.ndarray, pos: np.ndarray, bonds: str = "lengths", hydrogens: bool = True) -> Chem.Mol | None:
    """An RDKit molecule with bonds and a conformer, not sanitised; None if atoms or positions make none.

    Args:
        z: atomic numbers (n,).
        pos: positions (n, 3) in Å.
        bonds: "lengths" has bonds and orders by EDM's tables; "valences" has the same pairs bonded, with orders and formal
            charges that fill every valence (RDKit's DetermineBondOrders), and falls back to the former where there are none.
        hydrogens: whether the atoms are all there are. Without, hydrogens are implicit and fill what the bonds leave open;
            "valences" then has the double bonds that short bonds leave room for (`diffusionkit.molecule.heavy`).
    """
    z, pos = np.asarray(z), np.asarray(pos, dtype=np.float64)
    if not len(z) or not numbers(z).all() or not np.isfinite(pos).all():
        return None
    if bonds == "valences" and not hydrogens:
        from diffusionkit.molecule import heavy

        found, charges = heavy.orders(z, pos)
        mol = _skeleton(z, pos, found)
        for atom, charge in zip(mol.GetAtoms(), charges.tolist(), strict=True):
            atom.SetFormalCharge(charge)
        return mol.GetMol()
    found = bond_orders(z, pos)
    if bonds == "valences":
        mol = _valences(_skeleton(z, pos, found > 0))
        if mol is not None:
            return mol
    return _skeleton(z, pos, found).GetMol()


def _skeleton(z: np.ndarray, pos: np.ndarray, orders: np.ndarray) -> Chem.RWMol:
    from rdkit import Chem

    mol = Chem.RWMol()
    for number in z.tolist():
        mol.AddAtom(Chem.Atom(number))
    kinds = (None, Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE)
    first, second = np.nonzero(np.triu(orders))
    for a, b, order in zip(first.tolist(), second.tolist(), orders[first, second].tolist(), strict=True):
        mol.AddBond(a, b, kinds[order])
    conformer = Chem.Conformer(len(z))
    conformer.SetPositions(np.ascontiguousarray(pos))
    mol.AddConformer(conformer, assignId=True)
    return mol


_TRIES = 200  # assignments of orders, of which large or wrong molecules have endless numbers


def _valences(mol: Chem.RWMol) -> Chem.Mol | None:
    """The molecule with orders and charges that fill all valences and add up to no charge, or None.

    RDKit makes ends meet by charges on carbon or hydrogen where a hydrogen is missing or too many; that is refused, but for
    the carbon of isocyanides. What it finds hangs on the order of the atoms; they are sorted by their place in the graph.
    """
    from rdkit import Chem
    from rdkit.Chem import rdDetermineBonds

    with quiet():
        try:
            mol.UpdatePropertyCache(strict=False)
            Chem.FastFindRings(mol)
            order = np.argsort(list(Chem.CanonicalRankAtoms(mol)))
            found = Chem.RWMol(Chem.RenumberAtoms(mol, order.tolist()))
            rdDetermineBonds.DetermineBondOrders(found, charge=0, maxIterations=_TRIES, embedChiral=False)
        except (ValueError, RuntimeError):
            return None
    if any(map(_odd, found.GetAtoms())):
        return None
    return Chem.RenumberAtoms(found.GetMol(), np.argsort(order).tolist())


def _odd(atom: Chem.Atom) -> bool:
    """Whether an atom bears a charge that belongs elsewhere."""
    triple = any(bond.GetBondTypeAsDouble() == 3 for bond in atom.GetBonds())
    return atom.GetFormalCharge() != 0 and (atom.GetAtomicNum() == 1 or (atom.GetAtomicNum() == 6 and not triple))


def sanitised(mol: Chem.Mol | None) -> tuple[Chem.Mol | None, str]:
    """A copy that has passed RDKit's sanitisation, with its stereochemistry from the conformer, or None and why not."""
    from rdkit import Chem

    if mol is None:
        return None, "no atoms, or positions that are not finite"
    with quiet():
        clean = Chem.Mol(mol)
        try:
            Chem.SanitizeMol(clean)
            if clean.GetNumConformers():
                Chem.AssignStereochemistryFrom3D(clean)
        except (ValueError, RuntimeError) as error:
            return None, str(error).strip().splitlines()[0]
    return clean, ""


def smiles(mol: Chem.Mol, stereo: bool = False) -> str:
    """Canonical SMILES without hydrogens, by default without stereochemistry; "" where RDKit finds none."""
    from rdkit import Chem

    how = Chem.RemoveHsParameters()
    how.removeDefiningBondStereo = True  # else C=NH keeps its hydrogen, and one molecule has two names
    with quiet():
        try:
            return Chem.MolToSmiles(Chem.RemoveHs(mol, how), isomericSmiles=stereo)
        except (ValueError, RuntimeError):
            return ""


def fragments(mol: Chem.Mol) -> list[Chem.Mol]:
    """The connected parts of a sanitised molecule, that with most atoms first."""
    from rdkit import Chem

    return sorted(Chem.GetMolFrags(mol, asMols=True), key=lambda part: -part.GetNumAtoms())


def complete(z: np.ndarray, pos: np.ndarray) -> bool:
    """Whether the pairs that are bonded have orders and charges that leave no valence open and no electron unpaired."""
    mol, _ = sanitised(molecule(z, pos, bonds="valences"))
    return mol is not None and not any(atom.GetTotalNumHs() or atom.GetNumRadicalElectrons() for atom in mol.GetAtoms())
