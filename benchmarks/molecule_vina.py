"""AutoDock Vina on our pockets and ligands: the field's own way to dock, which needs `pip install vina meeko`."""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import timed
from diffusionkit.molecule import pockets
from diffusionkit.molecule.chemistry import quiet
from diffusionkit.molecule.conformer_draw import with_conformers
from diffusionkit.molecule.pockets import KINDS, Pocket

MODES = 20  # poses that are kept, of which Vina's own default would be 9
_RANGE = 10.0  # kcal/mol above the best within which they are
_BONDED = 2.0  # Å
_TYPES = {5: "C", 8: "OA", 9: "F", 12: "Mg", 14: "Si", 15: "P", 16: "SA", 17: "Cl", 20: "Ca", 25: "Mn", 30: "Zn", 34: "S", 35: "Br",
          53: "I"}  # fmt: skip


def installed() -> bool:
    """Whether Vina and what prepares ligands for it are there."""
    return all(find_spec(name) is not None for name in ("vina", "meeko"))


def dock(
    pocket: Pocket,
    mol: Any,
    start: np.ndarray,
    edge: float = 24.0,
    exhaustiveness: int = 8,
    cores: int = 2,
    seed: int = 1,
) -> tuple[np.ndarray, float]:
    """Poses (k, N, 3) of a ligand by Vina, its best first, and the seconds it took, with maps and search but not the preparation.

    Args:
        pocket: rigid; the box stands about its centre.
        mol: of N heavy atoms.
        start: (N, 3) conformer that lengths, angles and rings are from.
        edge: of the box in Å.
        exhaustiveness: of the search, as Vina has it.
        cores: threads.
        seed: of the search.
    """
    from vina import Vina

    text = ligand(mol, start)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "receptor.pdbqt"
        file.write_text(receptor(pocket))
        engine = Vina(sf_name="vina", cpu=cores, seed=seed, verbosity=0)
        engine.set_receptor(str(file))
        engine.set_ligand_from_string(text)

        def work() -> None:
            engine.compute_vina_maps(center=pocket.center.tolist(), box_size=[edge] * 3)
            engine.dock(exhaustiveness=exhaustiveness, n_poses=MODES)

        _, seconds = timed(work)
        return places(engine.poses(n_poses=MODES, energy_range=_RANGE), mol), seconds


def ligand(mol: Any, start: np.ndarray) -> str:
    """A ligand with hydrogens as PDBQT, its torsions free, rings rigid."""
    from meeko import MoleculePreparation, PDBQTWriterLegacy
    from rdkit import Chem

    with quiet():
        full = Chem.AddHs(with_conformers(mol, start[None]), addCoords=True)
        found = MoleculePreparation(rigid_macrocycles=True).prepare(full)[0]
        text, good, error = PDBQTWriterLegacy.write_string(found)
    if not good:
        raise ValueError(error)
    return text


def places(text: str, mol: Any) -> np.ndarray:
    """(k, N, 3) positions of the heavy atoms, in the order that the molecule has and PDBQT has not."""
    from meeko import PDBQTMolecule, RDKitMolCreate
    from rdkit import Chem

    with quiet():
        found = RDKitMolCreate.from_pdbqt_mol(PDBQTMolecule(text, skip_typing=True))[0]
        order = list(found.GetSubstructMatch(Chem.RemoveHs(mol), useChirality=True))
    if len(order) != mol.GetNumAtoms():
        raise ValueError("the atoms of Vina's poses are not those of the ligand")
    return np.stack([conformer.GetPositions()[order] for conformer in found.GetConformers()])


def receptor(pocket: Pocket) -> str:
    """A rigid pocket as PDBQT: types of AutoDock, and a hydrogen on every donor, which is how Vina tells donors.

    Vina's scoring reads nothing of a hydrogen but on which atom it is, so each stands 1 Å away from the bonded neighbours.
    """
    encoded = pockets.encode(pocket)
    pair = encoded["pair"].numpy()
    length = np.linalg.norm(pocket.pos[pair[:, 0]] - pocket.pos[pair[:, 1]], axis=1)
    bonded = (length < _BONDED) & (length > 0)
    kinds = pockets.kinds(pocket, pair[bonded], length[bonded])
    donor, acceptor, aromatic = (kinds[:, KINDS.index(kind)] for kind in ("donor", "acceptor", "aromatic"))
    lines = []
    for k, z in enumerate(pocket.z.tolist()):
        lines.append(_line(len(lines) + 1, pocket.pos[k], _type(z, bool(acceptor[k]), bool(aromatic[k]))))
        away = encoded["direction"][k].numpy().astype(float)
        if donor[k] and z in (7, 8) and away.any():
            lines.append(_line(len(lines) + 1, pocket.pos[k] + away, "HD"))
    return "\n".join([*lines, ""])


def _type(z: int, acceptor: bool, aromatic: bool) -> str:
    """AutoDock's type of an atom. All metals are one to Vina, so that one it has no name for may go as iron."""
    if z == 6:
        return "A" if aromatic else "C"
    if z == 7:
        return "NA" if acceptor else "N"
    return _TYPES.get(z, "Fe")


def _line(number: int, place: np.ndarray, kind: str) -> str:
    x, y, z = place
    return f"ATOM  {number:5d}  {kind:<3} REC A{1:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00    {0.0:6.3f} {kind:<2}"
