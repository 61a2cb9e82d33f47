"""Hydrogens and a short minimisation of poses in a pocket that stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from diffusionkit.molecule import pose_checks
from diffusionkit.molecule.chemistry import quiet
from diffusionkit.molecule.conformer_draw import with_conformers
from diffusionkit.molecule.local_structures import each
from diffusionkit.molecule.pockets import Pocket

_REACH = 5.0  # Å from the ligand within which the pocket is felt
_HEAVY, _HYDROGEN = 0.9, 0.85  # of the sum of the radii of two atoms, nearer than which they push
_POLAR = (
    2.6,
    1.6,
)  # Å instead, of two of N, O and S, and of one and a hydrogen on N or O, which may form a hydrogen bond
_METAL = 2.0  # Å of anything to a metal ion
_PUSH, _HOLD = 40.0, 5.0  # kcal/mol/Å² of the pocket, and of the place where a heavy atom was
_FREE = 0.3  # Å that a heavy atom may move at no cost
_STEPS = 150


def finished(mol: Any, places: np.ndarray, pocket: Pocket, relax: bool = False) -> tuple[Any, list[float], str]:
    """Poses with hydrogens; with `relax` minimised by MMFF94s (UFF where that has no parameters) in the fixed pocket.

    The pocket's atoms push ligand atoms away which come nearer than atoms do in crystals, and a spring holds heavy atoms that
    move farther than 0.3 Å, so that clashes go and the pose stays. A pose of which this would change the stereo is left alone.

    Args:
        mol: of N heavy atoms, with a name.
        places: (k, N, 3) in the frame of the pocket.
        pocket: its heavy atoms.
        relax: minimise.

    Returns:
        The molecule with a conformer for each pose; with `relax` its energies in kcal/mol without the pocket (nan where a pose
        was left alone), else none; and the force field, "" if there is none for it.
    """
    from rdkit import Chem

    full = Chem.AddHs(with_conformers(mol, places), addCoords=True)
    with quiet():
        make, name = _force_field(full) if relax else (None, "")
        if make is None:
            return full, [], ""
        done = each(lambda k: _minimised(full, int(k), make, pocket), range(len(places)))
    for conformer, (place, _) in zip(full.GetConformers(), done, strict=True):
        conformer.SetPositions(place)
    return full, [energy for _, energy in done], name


def lowest(mol: Any, starts: np.ndarray) -> float:
    """The least energy in kcal/mol of conformers (k, N, 3) minimised without a pocket; nan without a force field."""
    from rdkit import Chem

    full = Chem.AddHs(with_conformers(mol, starts), addCoords=True)

    def minimum(k: int) -> float:
        field = make(full, int(k))
        field.Minimize(maxIts=1000)
        return float(field.CalcEnergy())

    with quiet():
        make, _ = _force_field(full)
        return min(each(minimum, range(len(starts)))) if make and len(starts) else np.nan


def _force_field(full: Any) -> tuple[Callable[[Any, int], Any] | None, str]:
    """What makes a force field of a conformer of the molecule, and its name; None where there is none."""
    from rdkit.Chem import rdForceFieldHelpers as fields

    def ready(field: Any) -> Any:
        field.Initialize()
        return field

    if fields.MMFFHasAllMoleculeParams(full):
        known = fields.MMFFGetMoleculeProperties(full, "MMFF94s")
        return lambda mol, k: ready(fields.MMFFGetMoleculeForceField(mol, known, confId=k)), "MMFF94s"
    if fields.UFFHasAllMoleculeParams(full):
        return lambda mol, k: ready(fields.UFFGetMoleculeForceField(mol, confId=k)), "UFF"
    return None, ""


def _minimised(full: Any, k: int, make: Callable[[Any, int], Any], pocket: Pocket) -> tuple[np.ndarray, float]:
    """Positions of a conformer after minimisation, and its energy without the pocket; nan if it was left alone."""
    from rdkit import Chem
    from scipy.optimize import minimize

    before, field = full.GetConformer(k).GetPositions(), make(full, k)
    outer = _outside(full, before, pocket)

    def total(x: np.ndarray) -> tuple[float, np.ndarray]:
        flat = x.tolist()
        energy, force = outer(x.reshape(-1, 3))
        return field.CalcEnergy(flat) + energy, np.array(field.CalcGrad(flat)) + force.ravel()

    place = minimize(total, before.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": _STEPS}).x.reshape(-1, 3)
    moved = Chem.Mol(full, confId=k)
    moved.GetConformer(k).SetPositions(place)
    if not np.isfinite(place).all() or _stereo(moved, k) != _stereo(full, k):
        return before, np.nan
    return place, float(field.CalcEnergy(place.ravel().tolist()))


def _outside(full: Any, before: np.ndarray, pocket: Pocket) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """The energy of pocket and springs for positions (N, 3), and its gradient."""
    from scipy.spatial import cKDTree

    near = cKDTree(before).query(pocket.pos, distance_upper_bound=_REACH)[0] < np.inf
    wall, limits = pocket.pos[near], _limits(full, pocket)[:, near]
    heavy = np.array([atom.GetAtomicNum() > 1 for atom in full.GetAtoms()])[:, None]

    def measure(x: np.ndarray) -> tuple[float, np.ndarray]:
        apart = x[:, None] - wall
        length = np.sqrt((apart**2).sum(-1)) + 1e-6
        deep = np.maximum(limits - length, 0)
        off = x - before
        far = np.sqrt((off**2).sum(-1, keepdims=True)) + 1e-6
        beyond = np.maximum(far - _FREE, 0) * heavy
        energy = 0.5 * _PUSH * (deep**2).sum() + 0.5 * _HOLD * (beyond**2).sum()
        return energy, _HOLD * beyond * off / far - _PUSH * ((deep / length)[:, :, None] * apart).sum(1)

    return measure


def _limits(full: Any, pocket: Pocket) -> np.ndarray:
    """(N, M) distances in Å nearer than which the atoms of a molecule with hydrogens and those of the pocket push."""
    z = np.array([atom.GetAtomicNum() for atom in full.GetAtoms()])
    size, _ = pose_checks.radii()
    giving = np.array([a.GetAtomicNum() == 1 and a.GetNeighbors()[0].GetAtomicNum() in (7, 8) for a in full.GetAtoms()])
    polar, taking = np.isin(z, (7, 8, 16)), np.isin(pocket.z, (7, 8, 16))
    found = np.where(z == 1, _HYDROGEN, _HEAVY)[:, None] * (size[z][:, None] + size[pocket.z])
    found = np.where(polar[:, None] & taking, _POLAR[0], found)
    found = np.where(giving[:, None] & taking, _POLAR[1], found)
    return np.where(pose_checks.metal(pocket), _METAL, found)


def _stereo(mol: Any, k: int) -> str:
    """SMILES with the stereo that the positions of a conformer have."""
    from rdkit import Chem

    seen = Chem.Mol(mol)
    Chem.AssignStereochemistryFrom3D(seen, k, replaceExistingTags=True)
    return str(Chem.MolToSmiles(seen))
