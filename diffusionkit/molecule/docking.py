"""Docking of a ligand: start structures, poses, their order; and the pocket that it is docked to."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffusionkit.core.seeds import drawing
from diffusionkit.errors import UserError
from diffusionkit.molecule import local_structures, pockets, pose_draw, pose_export, pose_relax, structures
from diffusionkit.molecule.chemistry import quiet
from diffusionkit.molecule.conformer_codec import ELEMENTS
from diffusionkit.molecule.pockets import Pocket
from diffusionkit.molecule.pose_export import Poses
from diffusionkit.molecule.pose_ranking import Judge, ranked

STARTS = 10
"""Start structures of a ligand at most; further poses begin from the same ones again, with other torsions."""


@dataclass(frozen=True, eq=False)
class Docking:
    """How ligands are docked.

    Args:
        diffusion: over poses.
        sampler: how to step from noise to data.
        pocket: where.
        judge: ranks the poses; without one those come first near which most others lie.
        n: poses of each ligand.
        relax: minimise each in the pocket.
        seed: a ligand's poses are a function of it and of the ligand, whatever is docked before.
    """

    diffusion: Any
    sampler: Any
    pocket: Pocket
    judge: Judge | None = None
    n: int = 40
    relax: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n < 1:
            raise UserError(f"n: at least one pose, not {self.n}")

    def poses(self, ligand: pose_draw.Ligand, watch: Callable[..., None] | None = None) -> Poses:
        """The ranked poses of a ligand.

        Raises:
            UserError: if ETKDGv3 finds no coordinates for it.
        """
        from rdkit import Chem

        text = Chem.MolToSmiles(ligand.mol)
        seed = int.from_bytes(hashlib.blake2b(f"{self.seed} {text}".encode(), digest_size=3).digest())
        begun = starts(ligand.mol, min(self.n, STARTS), seed)
        with drawing(seed, next(self.diffusion.parameters()).device):
            around = begun[np.arange(self.n) % len(begun)]
            places = pose_draw.draw(self.diffusion, self.sampler, self.pocket, [ligand], [around], watch)[0]
        order, scores, by = ranked(ligand, places, self.pocket, self.judge)
        lowest = pose_relax.lowest(ligand.mol, begun[:5]) if self.relax else math.nan
        scores = {name: values[order] for name, values in scores.items()}
        return pose_export.made(ligand.mol, places[order], self.pocket, by, scores, self.relax, lowest)


def starts(mol: Any, count: int, seed: int) -> np.ndarray:
    """(k, N, 3) structures of a molecule by ETKDGv3, k at most `count`, on all cores.

    Raises:
        UserError: if the first seed finds none.
    """
    name = mol.GetProp("_Name")
    with quiet():
        try:
            first = local_structures.embed(mol, [seed * STARTS + 1])
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
        seeds = [seed * STARTS + 1 + k for k in range(1, count)]
        others = local_structures.each(lambda one: local_structures.embed(mol, [one]), seeds)
    return np.concatenate([first, *(one for one in others if isinstance(one, np.ndarray))])


# ---- the pocket


def pocket(
    codec: Any,
    protein: str | Path | Pocket,
    center: str | Iterable[float] | None = None,
    pocket_from: Any = None,
    residues: str | None = None,
    radius: float | None = None,
    without: str = "",
    embedding: str | Path | None = None,
) -> Pocket:
    """The pocket that a protein is docked at; a `Pocket` is taken as it is unless one of the places is given.

    Raises:
        UserError: see `structures.pocket`; or if the model needs an embedding and there is none, or the other way round.
    """
    found = _pocket(codec, protein, center, pocket_from, residues, radius, without, embedding)
    if codec.embedding and found.embedding is None:
        said = f"was trained with an embedding of {codec.embedding} numbers for each residue: give --embedding FILE.npy"
        raise UserError(f"{found.name}: the model {said}")
    return found


def _pocket(
    codec: Any,
    protein: str | Path | Pocket,
    center: str | Iterable[float] | None,
    pocket_from: Any,
    residues: str | None,
    radius: float | None,
    without: str,
    embedding: str | Path | None,
) -> Pocket:
    if isinstance(protein, Pocket) and center is None and pocket_from is None and residues is None and not without:
        return protein
    read = protein if isinstance(protein, Pocket) else structures.read(Path(protein))
    if embedding is not None:
        if not codec.embedding:
            raise UserError(f"{embedding}: the model was trained without embeddings of residues")
        read = pockets.embedded(read, Path(embedding), codec.embedding)
    place = center.replace(",", " ").split() if isinstance(center, str) else center
    reach = codec.radius if radius is None else radius
    return structures.pocket(
        read, center=place, reference=pocket_from, residues=residues, radius=reach, without=without
    )


def unseen(codec: Any, pocket: Pocket, ligands: Iterable[Any] = ()) -> list[str]:
    """Notes on elements of pocket and ligands that the model was not trained on."""
    from rdkit import Chem

    table, notes = Chem.GetPeriodicTable(), []
    known = set(codec.elements)
    usable = {table.GetElementSymbol(z) for z in ELEMENTS}
    there = {table.GetElementSymbol(int(z)) for z in np.unique(pocket.z)}
    with quiet():
        mols = (Chem.MolFromSmiles(one) if isinstance(one, str) else one for one in ligands)
        theirs = {atom.GetSymbol() for mol in mols if mol is not None for atom in mol.GetAtoms()} & usable
    for what, symbols in (("pocket", there), ("ligands", theirs)):
        new = sorted(symbols - known)
        if known and new:
            notes.append(f"the model was trained without {', '.join(new)}, which the {what} have: trust it less there")
    return notes
