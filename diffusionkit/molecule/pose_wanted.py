"""What the options of `diffusionkit sample` ask of a model of poses."""

from __future__ import annotations

from typing import Any

from diffusionkit.errors import UserError
from diffusionkit.molecule import docking, pose_draw, structures
from diffusionkit.molecule.pose_codec import PoseCodec
from diffusionkit.molecule.pose_draw import Wanted


def read(
    codec: PoseCodec,
    protein: str | None,
    ligand: str | None,
    center: str | None,
    pocket_from: str | None,
    residues: str | None,
    radius: float | None,
) -> Wanted:
    """The pocket and the ligand that are named, or the held-out complexes that a run keeps.

    Raises:
        UserError: if one is named without the other, or cannot be read.
    """
    if (protein is None) != (ligand is None):
        given, missing = ("--protein", "--ligand") if ligand is None else ("--ligand", "--protein")
        raise UserError(f"{given}: needs {missing} as well")
    if protein is None:
        if any(value is not None for value in (center, pocket_from, residues, radius)):
            raise UserError("--center, --pocket-from, --residues and --radius: need a --protein")
        return examples(codec)
    pocket = docking.pocket(codec, protein, center, pocket_from, residues, radius)
    name, given = next(iter(structures.ligands(ligand)), ("", None))
    return Wanted([pocket], [pose_draw.ligand(name or str(ligand), given)], [None])


def examples(codec: PoseCodec) -> Wanted:
    """The held-out complexes that a run keeps, with their true poses."""
    from rdkit import Chem

    references: list[Any] = [Chem.MolFromMolBlock(block) for _, block in codec.examples]
    if not references or any(mol is None for mol in references):
        raise UserError("the run keeps no complex to show: give --protein and --ligand")
    ligands = [pose_draw.ligand(p.name, mol) for (p, _), mol in zip(codec.examples, references, strict=True)]
    return Wanted([pocket for pocket, _ in codec.examples], ligands, references)
