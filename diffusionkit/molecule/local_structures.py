"""Local structures: lengths, angles and rings as RDKit's ETKDGv3 makes them, on all cores."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from diffusionkit.errors import UserError
from diffusionkit.molecule import cache
from diffusionkit.molecule.chemistry import quiet

_SECONDS = 60  # after which a molecule that cannot be embedded is given up


def bare(mol: Any) -> Any:
    """The molecule without hydrogens, sanitised, its stereo read from its coordinates where it has any.

    Files of heavy atoms sometimes say that an atom has no hydrogens where it only lists none. Such an atom, left with unpaired
    electrons, gets hydrogens as its valence asks.

    Raises:
        UserError: for a molecule that RDKit cannot sanitise, or of several parts.
    """
    from rdkit import Chem

    mol = Chem.Mol(mol)
    for atom in mol.GetAtoms():
        if atom.GetNumRadicalElectrons() and not atom.GetTotalNumHs():
            atom.SetNumRadicalElectrons(0)
            atom.SetNoImplicit(False)
    try:
        Chem.SanitizeMol(mol)
        mol = Chem.RemoveHs(mol)
    except ValueError as error:
        raise UserError(f"RDKit refuses it: {str(error).splitlines()[0]}") from error
    if mol.GetNumConformers() and mol.GetConformer().Is3D():
        Chem.AssignStereochemistryFrom3D(mol)
    if len(Chem.GetMolFrags(mol)) != 1:
        raise UserError("a conformer needs one connected molecule; leave out salts and waters")
    return mol


def embed(mol: Any, seeds: Iterable[int], relax: bool = False) -> np.ndarray:
    """(k, N, 3) positions of a molecule of heavy atoms by ETKDGv3, one structure for each seed that works.

    Args:
        mol: see `bare`; hydrogens are put on for the embedding and taken off again.
        seeds: of its random numbers.
        relax: minimise by MMFF94s, hydrogens included.

    Raises:
        UserError: if none works.
    """
    from rdkit import Chem
    from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

    full, found = Chem.AddHs(mol), []
    parameters = rdDistGeom.ETKDGv3()
    parameters.timeout = _SECONDS
    for seed in seeds:
        parameters.randomSeed, parameters.useRandomCoords = int(seed), False
        if rdDistGeom.EmbedMolecule(full, parameters) < 0:
            parameters.useRandomCoords = True
            if rdDistGeom.EmbedMolecule(full, parameters) < 0:
                continue
        if relax and rdForceFieldHelpers.MMFFHasAllMoleculeParams(full):
            rdForceFieldHelpers.MMFFOptimizeMolecule(full, "MMFF94s", 1000)
        found.append(full.GetConformer().GetPositions()[: mol.GetNumAtoms()])
    if not found:
        raise UserError("ETKDGv3 finds no coordinates for it")
    return np.stack(found)


def each(work: Callable[[Any], Any], molecules: Sequence[Any], text: str = "") -> list[Any]:
    """What `work` gives for each molecule, or the `UserError` that it raised, in order; with a bar if there is a text for it.

    Threads do, because RDKit lets go of the interpreter while it computes.
    """
    from rich.progress import track

    def careful(mol: Any) -> Any:
        try:
            return work(mol)
        except UserError as error:
            return error

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with ThreadPoolExecutor(cores) as pool:
        return list(track(pool.map(careful, molecules), text, len(molecules), transient=True, disable=not text))


def of_all(work: Callable[[Any], np.ndarray], molecules: Sequence[Any], text: str = "") -> list[np.ndarray]:
    """(k, N, 3) positions that `work` gives for each molecule of N atoms; k is 0 where it fails; see `each`."""
    with quiet():
        found = each(work, molecules, text)
    return [
        places if isinstance(places, np.ndarray) else np.zeros((0, mol.GetNumAtoms(), 3))
        for places, mol in zip(found, molecules, strict=True)
    ]


def stored(what: str, molecules: Sequence[Any], make: Callable[[], list[np.ndarray]]) -> list[np.ndarray]:
    """(k, N, 3) positions of each molecule: from the cache, or made and kept there.

    Args:
        what: all that they depend on but the molecules, which count with their coordinates, and RDKit's version.
        molecules: of N heavy atoms each.
        make: works them out.
    """
    from rdkit import rdBase

    key = hashlib.sha256(f"{what} {rdBase.rdkitVersion}".encode())
    for mol in molecules:
        key.update(mol.ToBinary())
    file = cache.folder() / f"conformers-{key.hexdigest()[:24]}.npz"
    if file.exists():
        with np.load(file, allow_pickle=False) as kept:
            flat, counts = kept["pos"], kept["counts"].tolist()
    else:
        places = make()
        flat = np.concatenate([np.zeros((0, 3)), *(p.reshape(-1, 3) for p in places)]).astype(np.float32)
        counts = [len(p) for p in places]
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f".{file.stem}.{os.getpid()}.npz")
        try:
            np.savez(part, pos=flat, counts=np.array(counts))
            os.replace(part, file)
        finally:
            part.unlink(missing_ok=True)
    atoms = [mol.GetNumAtoms() for mol in molecules]
    ends = np.cumsum([k * n for k, n in zip(counts, atoms, strict=True)])[:-1]
    return [p.reshape(-1, n, 3) for p, n in zip(np.split(flat, ends), atoms, strict=True)]
