"""What molecules cost and whether their shapes are sound: strain by MMFF, and the checks of PoseBusters."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import rdForceFieldHelpers, rdMolAlign

from diffusionkit.molecule import chemistry
from diffusionkit.molecule.pool import each

_STEPS = 1000  # of minimisation
_NO = (math.nan, math.nan)


def sound(z: np.ndarray, pos: np.ndarray, hydrogens: bool = True) -> Chem.Mol | None:
    """The molecule with all its hydrogens, as far as it makes one of one piece with no valence left open, else None.

    Hydrogens that a model of heavy atoms lacks are put where RDKit puts them.
    """
    if hydrogens and not chemistry.complete(z, pos):
        return None
    mol, _ = chemistry.sanitised(chemistry.molecule(z, pos, bonds="valences", hydrogens=hydrogens))
    if mol is None or len(Chem.GetMolFrags(mol)) > 1:
        return None
    return mol if hydrogens else Chem.AddHs(mol, addCoords=True)


def strain(z: np.ndarray, pos: np.ndarray, n: np.ndarray, hydrogens: bool = True, few: int = 64) -> np.ndarray:
    """What molecules gain by minimisation: (M, 2), energy in kcal/mol per atom and how far heavy atoms move (RMSD, Å).

    MMFF94's energy less that of the nearest minimum. Without hydrogens, those that RDKit adds are minimised alone first. nan
    where a molecule is not sound (see `sound`) or has atoms that MMFF does not know.
    """
    return np.array(each(_strain, z, pos, n, "strain", few, hydrogens=hydrogens), dtype=np.float64).reshape(-1, 2)


def _strain(molecules: Sequence[tuple[np.ndarray, np.ndarray]], hydrogens: bool) -> list[tuple[float, float]]:
    with chemistry.quiet():
        return [_relaxed(sound(*one, hydrogens), hydrogens) for one in molecules]


def _relaxed(mol: Chem.Mol | None, hydrogens: bool) -> tuple[float, float]:
    properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(mol) if mol is not None else None
    if properties is None:
        return _NO
    try:
        if not hydrogens:
            _minimise(mol, properties, fixed=[atom.GetIdx() for atom in mol.GetAtoms() if atom.GetAtomicNum() > 1])
        before = Chem.Mol(mol)
        first, last = _minimise(mol, properties)
        moved = rdMolAlign.AlignMol(mol, before, atomMap=[(i, i) for i in _heavy(mol)])
    except (ValueError, RuntimeError):
        return _NO
    return (first - last) / mol.GetNumAtoms(), moved


def _heavy(mol: Chem.Mol) -> list[int]:
    """Atoms to be laid on one another: the heavy ones, all of a molecule that has fewer than two."""
    found = [atom.GetIdx() for atom in mol.GetAtoms() if atom.GetAtomicNum() > 1]
    return found if len(found) > 1 else list(range(mol.GetNumAtoms()))


def _minimise(mol: Chem.Mol, properties: object, fixed: list[int] | None = None) -> tuple[float, float]:
    """Moves the conformer to the nearest minimum; the energies before and after."""
    field = rdForceFieldHelpers.MMFFGetMoleculeForceField(mol, properties)
    for atom in fixed or []:
        field.AddFixedPoint(atom)
    field.Initialize()
    before = field.CalcEnergy()
    field.Minimize(maxIts=_STEPS)
    return before, field.CalcEnergy()


def posebusters() -> bool:
    """Whether PoseBusters is installed: `pip install 'diffusionkit[molecule]'`."""
    return find_spec("posebusters") is not None


def busters(mode: str, without: Collection[str]) -> Any:
    """PoseBusters' checks of one of its modes ("mol", "dock", "redock"), but for some.

    Raises:
        ImportError: if PoseBusters is not installed.
    """
    first = "posebusters" not in sys.modules
    from posebusters import PoseBusters

    if first:  # to import it sends RDKit's log to Python's logging, for everybody
        rdBase.LogToCppStreams()
    config = dict(PoseBusters(mode).config)
    config["modules"] = [module for module in config["modules"] if module["function"] not in without]
    return PoseBusters(config, max_workers=0)


def poses(
    z: np.ndarray, pos: np.ndarray, n: np.ndarray, hydrogens: bool = True, few: int = 16
) -> dict[str, np.ndarray]:
    """PoseBusters' checks of single molecules (Buttenschoen et al. 2024): for each its name and which (M,) pass.

    A molecule that is not sound (see `sound`) passes none. Left out is their check of the energy against an ensemble of
    ETKDG: it has no bound on its tries and does not come back for some cages of QM9; `strain` is there for energies.

    Raises:
        ImportError: if PoseBusters is not installed.
    """
    rows = each(_poses, z, pos, n, "PoseBusters", few, hydrogens=hydrogens)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([row.get(name, False) for row in rows], dtype=bool) for name in names}


def _poses(molecules: Sequence[tuple[np.ndarray, np.ndarray]], hydrogens: bool) -> list[dict[str, bool]]:
    buster = busters("mol", {"energy_ratio"})
    with chemistry.quiet():
        mols = [sound(*one, hydrogens) for one in molecules]
        return [{} if mol is None else _busted(buster, mol) for mol in mols]


def _busted(buster: object, mol: Chem.Mol) -> dict[str, bool]:
    try:
        table = buster.bust([mol])
    except Exception:  # whatever a check of theirs stumbles over: the molecule does not pass
        return {}
    return {str(name): value is True or value == 1 for name, value in table.iloc[0].items()}
