"""Docking from Python: a run of `diffusionkit train`, a protein and ligands in, ranked poses out."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

from diffusionkit.core import Sampler
from diffusionkit.errors import UserError
from diffusionkit.molecule import docking, pose_draw, pose_ranking, structures
from diffusionkit.molecule.docking import Docking
from diffusionkit.molecule.pockets import Pocket
from diffusionkit.molecule.pose_export import Pose, Poses
from diffusionkit.molecule.pose_ranking import Judge
from diffusionkit.molecule.screen import screen
from diffusionkit.training.run import Run

if TYPE_CHECKING:
    import pandas as pd
    from rdkit import Chem

__all__ = ["Pocket", "Pose", "PoseDiffusion", "Poses"]


class PoseDiffusion:
    """A trained model of docking poses.

        model = PoseDiffusion.load("runs/poses")
        poses = model.dock("protein.pdb", "CC(=O)Nc1ccc(O)cc1", center=(1.0, 2.0, 3.0))

    Args:
        run: of the domain `pose`.
        judge: that ranks its poses, as `pose_ranking.judge_of` gives it; without one they are ranked by how many others lie near.
    """

    def __init__(self, run: Run, judge: Judge | None = None) -> None:
        self.run, self.judge = run, judge

    @classmethod
    def load(cls, path: str | Path, device: str | None = None, confidence: str | Path | None = None) -> Self:
        """A model that `diffusionkit train molecule/poses` has left; nothing in the folders is executed.

        Args:
            path: the run folder.
            device: where the networks go; the best there is by default.
            confidence: the run folder of a model that ranks poses; by default the folder `confidence` in the run folder, if
                there is one.

        Raises:
            UserError: if a folder holds no such model.
        """
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        run = Run.load(path, device)
        if run.domain.name != "pose" or not run.generates:
            raise UserError(f"{path}: holds no model of poses; train one with molecule/poses")
        return cls(run, pose_ranking.judge_of(run, confidence))

    def pocket(
        self,
        protein: str | Path | Pocket,
        *,
        center: Iterable[float] | None = None,
        pocket_from: str | Path | Chem.Mol | None = None,
        residues: str | None = None,
        radius: float | None = None,
        without: str = "",
        embedding: str | Path | None = None,
    ) -> Pocket:
        """The pocket of a protein, to be handed to `dock` and `screen` again and again.

        Args:
            protein: a .pdb or .cif file, also .gz, or a `Pocket`.
            center: of the pocket in Angstrom.
            pocket_from: a file of a ligand that lies in it, or an RDKit molecule.
            residues: that line it, such as "A:45,A:47".
            radius: of the pocket in Angstrom; that of training by default, and other ones are likely to do worse.
            without: hetero groups to leave out, such as "SO4,A:301".
            embedding: for a model that was trained with one, an .npy file with a row for each amino acid of the protein's file.

        Returns:
            The pocket; its `notes` say what was left out of the file. Without center, ligand and residues the whole of a small
            protein.

        Raises:
            UserError: if the file cannot be read, or there is no atom near the place.
        """
        return docking.pocket(self.run.codec, protein, center, pocket_from, residues, radius, without, embedding)

    def dock(
        self,
        protein: str | Path | Pocket,
        ligand: str | Path | Chem.Mol,
        *,
        center: Iterable[float] | None = None,
        pocket_from: str | Path | Chem.Mol | None = None,
        residues: str | None = None,
        radius: float | None = None,
        without: str = "",
        n: int = 40,
        relax: bool = False,
        steps: int | None = None,
        sampler: Sampler | None = None,
        random_state: int = 0,
    ) -> Poses:
        """Ranked poses of a ligand.

        Args:
            protein, center, pocket_from, residues, radius, without: see `pocket`.
            ligand: SMILES, an RDKit molecule, or a file whose only record it is. Its coordinates are not used, but for stereo.
            n: how many poses.
            relax: minimise each by MMFF94s in the fixed pocket, which clears clashes and moves it little.
            steps: of the sampler; by default as in the recipe.
            sampler: instead of the recipe's.
            random_state: seed of start structures and noise.

        Returns:
            The poses, the best first: by confidence where there is a model that judges, else by how many other poses lie near.

        Raises:
            UserError: for a protein or a ligand that cannot be used.
        """
        name, given = _one(ligand)
        where = self.pocket(
            protein, center=center, pocket_from=pocket_from, residues=residues, radius=radius, without=without
        )
        how = self._how(where, n, relax, steps, sampler, random_state)
        return how.poses(pose_draw.ligand(name, given))

    def screen(
        self,
        protein: str | Path | Pocket,
        ligands: str | Path | Iterable[str | Chem.Mol],
        out: str | Path,
        *,
        center: Iterable[float] | None = None,
        pocket_from: str | Path | Chem.Mol | None = None,
        residues: str | None = None,
        radius: float | None = None,
        without: str = "",
        n: int = 40,
        relax: bool = False,
        steps: int | None = None,
        sampler: Sampler | None = None,
        random_state: int = 0,
        fresh: bool = False,
    ) -> pd.DataFrame:
        """Ranked poses of many ligands in one file; the same call goes on with what was interrupted.

        Args:
            protein, center, pocket_from, residues, radius, without: see `pocket`.
            ligands: a file (.sdf, .mol2, .smi, .csv) or folder of them, or SMILES and RDKit molecules.
            out: an .sdf or .sdf.gz file; the table goes beside it, as .csv.
            n, relax, steps, sampler, random_state: see `dock`.
            fresh: forget what was begun.

        Returns:
            A row for each ligand: the values of its first pose, or the reason why it has none.

        Raises:
            UserError: for a protein that cannot be used, or if no ligand can.
        """
        import pandas as pd

        where = self.pocket(
            protein, center=center, pocket_from=pocket_from, residues=residues, radius=radius, without=without
        )
        if isinstance(ligands, str | Path):
            given = list(structures.ligands(ligands))
        else:
            given = [(_name(one, k), one) for k, one in enumerate(ligands, 1)]
        how = self._how(where, n, relax, steps, sampler, random_state)
        return pd.DataFrame(screen(how, given, out, fresh).rows)

    def _how(
        self, pocket: Pocket, n: int, relax: bool, steps: int | None, sampler: Sampler | None, seed: int
    ) -> Docking:
        sampler = copy.copy(sampler or self.run.sampler())
        sampler.steps = steps or sampler.steps
        return Docking(self.run.diffusion, sampler, pocket, self.judge, n, relax, seed)


def _one(ligand: Any) -> tuple[str, Any]:
    """Name and molecule of a single ligand."""
    if not isinstance(ligand, str | Path):
        return _name(ligand, 1), ligand
    found = list(structures.ligands(ligand))
    if len(found) != 1:
        raise UserError(f"{ligand}: holds {len(found)} ligands, and one is docked; `screen` takes many")
    return found[0]


def _name(mol: Any, number: int) -> str:
    if isinstance(mol, str):
        return mol
    named = mol is not None and mol.HasProp("_Name") and mol.GetProp("_Name")
    return named or f"ligand {number}"
