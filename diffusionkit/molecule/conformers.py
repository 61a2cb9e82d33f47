"""Conformers from Python: a run of `diffusionkit train`, molecules in, RDKit molecules with conformers out."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

from diffusionkit.core import Sampler, guided
from diffusionkit.core.seeds import drawing
from diffusionkit.errors import UserError
from diffusionkit.molecule import conformer_draw
from diffusionkit.molecule.conformer_export import finished
from diffusionkit.training.run import Run

if TYPE_CHECKING:
    from rdkit import Chem


class ConformerDiffusion:
    """A trained model of torsion angles (Jing et al. 2022).

        model = ConformerDiffusion.load("runs/conformers")
        mol = model.conformers("CC(=O)Nc1ccc(O)cc1", n=50)

    Args:
        run: of the domain `conformer`.
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    @classmethod
    def load(cls, path: str | Path, device: str | None = None) -> Self:
        """A model that `diffusionkit train molecule/conformers` has left; nothing in the folder is executed.

        Args:
            path: the run folder.
            device: where the network goes; the best there is by default.

        Raises:
            UserError: if the folder holds no such model.
        """
        run = Run.load(path, device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if run.domain.name != "conformer":
            raise UserError(f"{path}: is a model of the domain {run.domain.name}, not of conformers")
        return cls(run)

    def conformers(
        self,
        molecule: str | Chem.Mol,
        n: int = 50,
        *,
        relax: bool = False,
        begin: float = 1.0,
        pool: int = 1,
        steps: int | None = None,
        sampler: Sampler | None = None,
        random_state: int = 0,
    ) -> Chem.Mol:
        """A molecule with n conformers, hydrogens and the stereo that it was given.

        Args:
            molecule: SMILES, or an RDKit molecule; stereo that it leaves open is drawn at random.
            n: how many conformers; fewer come back if ETKDGv3 fails for some.
            relax: minimise each by MMFF94s.
            begin: where to start: 1 at random torsions, less at those of ETKDGv3 with as much less noise.
            pool: so many times n are drawn, of which the n are kept that lie nearest to all.
            steps: of the sampler; by default as in the recipe.
            sampler: instead of the recipe's.
            random_state: seed of local structures and torsions.

        Returns:
            The molecule; its conformers have the properties `diffusionkit_energy` (MMFF94s, kcal/mol, where it has parameters) and
            `diffusionkit_method`, which says so where there is no rotatable bond.

        Raises:
            UserError: for a molecule that cannot be read, embedded, or has an element that the model does not know.
        """
        how = {"relax": relax, "begin": begin, "pool": pool, "steps": steps, "sampler": sampler}
        found, reasons = self.many([molecule], n, **how, random_state=random_state)
        if reasons:
            raise UserError(reasons[0])
        return found[0]

    def many(
        self,
        molecules: Iterable[str | Chem.Mol],
        n: int = 50,
        *,
        relax: bool = False,
        begin: float = 1.0,
        pool: int = 1,
        steps: int | None = None,
        sampler: Sampler | None = None,
        random_state: int = 0,
    ) -> tuple[list[Chem.Mol | None], list[str]]:
        """Conformers of many molecules together; arguments are those of `conformers`.

        Returns:
            For each molecule what `conformers` gives, or None, and a sentence for each None.
        """
        if n < 1:
            raise UserError(f"n: at least one conformer, not {n}")
        wanted = conformer_draw.wanted([(_name(mol, k), mol) for k, mol in enumerate(molecules, 1)], begin, pool, relax)
        usual = self.run.recipe.sampling()
        sampler = copy.copy(sampler or self.run.sampler())
        sampler.steps = steps or sampler.steps
        diffusion = guided(self.run.diffusion, usual.guidance, usual.clip)
        with drawing(random_state, next(self.run.diffusion.parameters()).device):
            drawn = conformer_draw.draw(diffusion, sampler, wanted, _seeds(random_state, n))
        reasons, found = dict(wanted.skipped), {}
        for number, mol, places in zip(wanted.numbers, wanted.molecules, drawn.places, strict=True):
            if len(places):
                found[number] = finished(mol, places, relax)
            else:
                reasons[number] = f"{mol.GetProp('_Name')}: ETKDGv3 finds no coordinates for it"
        count = len(wanted.molecules) + len(wanted.skipped)
        return [found.get(k) for k in range(count)], [reasons[k] for k in sorted(reasons)]


def _seeds(random_state: int, n: int) -> range:
    first = random_state * 1_000_003 % 2**30
    return range(first, first + n)


def _name(mol: Any, number: int) -> str:
    if isinstance(mol, str):
        return mol
    return (
        mol.GetProp("_Name")
        if mol is not None and mol.HasProp("_Name") and mol.GetProp("_Name")
        else f"molecule {number}"
    )
