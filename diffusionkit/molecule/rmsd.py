"""How far conformers are from references: RMSD of heavy atoms, symmetric atoms exchanged as it suits best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdMolAlign

_MATCHES = 20_000  # ways to exchange symmetric atoms that are tried; drug-like molecules have far fewer


def rmsd_matrix(mol: Chem.Mol, reference: Chem.Mol, matches: int = _MATCHES, aligned: bool = True) -> np.ndarray:
    """RMSD (R, K) in Å of the reference's R conformers to the molecule's K, over heavy atoms, each pair aligned or in place.

    Equal atoms are exchanged as suits best, the ends of conjugated groups (carboxylates, nitro groups) as well.

    Args:
        mol: with K conformers, none of which is moved.
        reference: the same molecule, in any order of atoms.
        matches: how many ways to exchange symmetric atoms are tried at most.
        aligned: conformers are laid over one another; poses in a protein are not.

    Raises:
        ValueError: if the two are not the same molecule.
    """
    measure = rdMolAlign.GetBestRMS if aligned else rdMolAlign.CalcRMS
    probe, target = Chem.RemoveHs(mol, sanitize=False), Chem.RemoveHs(reference, sanitize=False)
    if probe.GetNumAtoms() != target.GetNumAtoms():
        raise ValueError(f"{probe.GetNumAtoms()} and {target.GetNumAtoms()} heavy atoms: not the same molecule")
    try:
        return np.array(
            [
                [
                    measure(probe, target, one.GetId(), other.GetId(), maxMatches=matches)
                    for one in probe.GetConformers()
                ]
                for other in target.GetConformers()
            ]
        ).reshape(target.GetNumConformers(), probe.GetNumConformers())
    except RuntimeError as error:
        raise ValueError(f"not the same molecule: {error}") from error


def best_rmsd(mol: Chem.Mol, reference: Chem.Mol, matches: int = _MATCHES) -> np.ndarray:
    """For each of a molecule's conformers (K,), its RMSD in Å to the nearest conformer of the reference; see `rmsd_matrix`.

    Best of n is `best_rmsd(mol, reference)[:n].min()`.
    """
    return rmsd_matrix(mol, reference, matches).min(0, initial=np.inf)


@dataclass(frozen=True)
class Coverage:
    """COV (shares) and AMR (Å) in both roles (Ganea et al. 2021, "GeoMol"; Jing et al. 2022).

    Args:
        recall: share of references with a generated conformer nearer than delta.
        recall_rmsd: mean distance of references to the nearest generated conformer.
        precision: share of generated conformers with a reference nearer than delta.
        precision_rmsd: mean distance of generated conformers to the nearest reference.
    """

    recall: float
    recall_rmsd: float
    precision: float
    precision_rmsd: float


def coverage(matrix: np.ndarray, delta: float = 0.75) -> Coverage:
    """COV and AMR of one molecule.

    Args:
        matrix: RMSD (R, K) of R references to K generated conformers; the published protocol has K = 2R.
        delta: in Å; published are 0.75 on GEOM-Drugs and 0.5 on GEOM-QM9.

    Raises:
        ValueError: if there is no reference or no conformer.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    if not matrix.size:
        raise ValueError("coverage needs a reference and a generated conformer")
    near, far = matrix.min(1), matrix.min(0)
    return Coverage(float((near < delta).mean()), float(near.mean()), float((far < delta).mean()), float(far.mean()))
