"""Complexes of a protein's pocket and a ligand, for recipes. Making one reads nothing; `load` does.

A new one is a class with `load` and the attributes of `PoseData`, and one line in the domain's `data`.
"""

from __future__ import annotations

import csv
import io
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from diffusionkit.errors import UserError
from diffusionkit.molecule import local_structures, pockets, pool, readers, structures
from diffusionkit.molecule.conformer_data import PARTS, sdf, share
from diffusionkit.molecule.conformer_data import Made as drugs
from diffusionkit.molecule.ligand_files import ligands, positions
from diffusionkit.molecule.pockets import ATOM_NAMES, OTHER, RESIDUES, Pocket
from diffusionkit.molecule.protein_files import PROTEINS

_FILES = ("complexes.parquet", "complexes_pockets.npz", "complexes_ligands.sdf.gz")
_MADE = "a dozen drugs in synthetic pockets stand for complexes: good for trying things out, and for nothing else"
_APART = 6.0  # Å between a ligand and its protein, at most


@dataclass(frozen=True, eq=False)
class Complex:
    """A ligand in its pocket.

    Args:
        name: of the complex.
        pocket: cropped about the centroid of the ligand's heavy atoms.
        ligand: RDKit molecule of heavy atoms with its crystal conformer, in the frame of the pocket.
    """

    name: str
    pocket: Pocket
    ligand: Any


class PoseData(ABC):
    """What the domain asks of complexes.

    Attributes:
        radius: of the pocket about the ligand's centroid, in Angstrom.
        copies: noised poses of each complex in one step of training.
        structures: starting conformers of each ligand.
        jitter: standard deviation of the noise on the pocket's centre in training, in Angstrom.
        notes: sentences for the user, once loaded.
    """

    radius: float
    copies: int
    structures: int
    jitter: float
    notes: list[str]
    embedding: int = 0
    """Numbers of a precomputed embedding of each residue."""

    def __init__(self, radius: float, copies: int, structures: int, jitter: float) -> None:
        if not radius > 0:
            raise ValueError(f"radius is in Angstrom and must be positive, not {radius:g}")
        if copies < 1 or structures < 1:
            raise ValueError(f"copies and structures must be at least 1, not {copies} and {structures}")
        if jitter < 0:
            raise ValueError(f"jitter is in Angstrom and must not be negative, not {jitter:g}")
        self.radius, self.copies, self.structures, self.jitter = radius, copies, structures, jitter
        self.notes = []

    def prepared(self) -> Any:
        """What `Domain.prepare` gives."""
        from diffusionkit.molecule.pose_prepare import fitted

        return fitted(self)

    @abstractmethod
    def load(self) -> dict[str, list[Complex]]:
        """Reads everything: complexes in {"train": ..., "val": ..., "test": ...}."""


class Complexes(PoseData):
    """486 complexes of the data folder, split by protein cluster.

    Args:
        root: folder that holds `molecule/complexes.parquet` and its companions; by default that of DIFFUSIONKIT_DATA.
        radius: of the pocket about the ligand's centroid, in Angstrom.
        copies: noised poses of each complex in one step of training.
        structures: starting conformers of each ligand.
        jitter: standard deviation of the noise on the pocket's centre in training, in Angstrom.
        share: of the training complexes that is used, the same ones for the same share.
    """

    def __init__(
        self,
        root: str = "",
        radius: float = 12.0,
        copies: int = 16,
        structures: int = 4,
        jitter: float = 0.0,
        share: float = 1.0,
    ) -> None:
        super().__init__(radius, copies, structures, jitter)
        if not 0 < share <= 1:
            raise ValueError(f"share is a part of the training complexes and must lie in (0, 1], not {share:g}")
        self.root, self.share = root, share

    def load(self) -> dict[str, list[Complex]]:
        import pandas as pd

        root = self.root or os.environ.get("DIFFUSIONKIT_DATA")
        if not root:
            made = Made(self.radius, self.copies, self.structures, self.jitter)
            found, self.notes = made.load(), [f"there is no data.root and no DIFFUSIONKIT_DATA; {_MADE}"]
            return found
        folder = Path(root).expanduser() / "molecule"
        for name in _FILES:
            if not (folder / name).is_file():
                raise UserError(f"{folder / name}: there is no such file; data.root names the folder above `molecule`")
        split = pd.read_parquet(folder / _FILES[0], columns=["split"])["split"]
        ligands = list(sdf(folder / _FILES[2]))
        found = {part: [] for part in PARTS}
        for part, pocket, mol in zip(split, unpacked(folder / _FILES[1]), ligands, strict=True):
            found[part].append(joined(pocket.name, pocket, mol, self.radius))
        order = np.random.default_rng(0).permutation(len(found["train"]))
        kept = sorted(order[: max(1, round(self.share * len(order)))])
        short = f"{len(kept)} of {len(order)} training complexes are used, a share of {self.share:g}"
        self.notes = [short] if self.share < 1 else []
        return {**found, "train": [found["train"][k] for k in kept]}


class Folder(PoseData):
    """Complexes of one's own: a folder for each, as PDBbind has them.

    Each holds a protein, `*_protein.pdb` or, without one, `*_pocket.pdb` (also .ent, .cif, .gz), and a ligand in its pose,
    `*_ligand.sdf` or `*_ligand.mol2`, whichever RDKit reads first. Those that cannot be used are skipped, named and counted.

    Args:
        path: of the folder that holds them.
        radius: of the pocket about the ligand's centroid, in Angstrom.
        copies: noised poses of each complex in one step of training.
        structures: starting conformers of each ligand.
        jitter: standard deviation of the noise on the pocket's centre in training, in Angstrom.
        test: share of the complexes that is held out, by the folders' names; without meaning where there is a `split`.
        split: a CSV file with columns id (the folder's name) and split (train, val, test), so that no protein is on two sides.
        embedding: numbers that ID_embedding.npy has for each amino acid of the protein's file, such as those of a language model of
            proteins; 0 for no such files.
    """

    def __init__(
        self,
        path: str = "",
        radius: float = 12.0,
        copies: int = 16,
        structures: int = 4,
        jitter: float = 0.0,
        test: float = 0.1,
        split: str = "",
        embedding: int = 0,
    ) -> None:
        super().__init__(radius, copies, structures, jitter)
        if not 0 < test < 1:
            raise ValueError(f"test is a share of the complexes and must lie in (0, 1), not {test:g}")
        if embedding < 0:
            raise ValueError(f"embedding is a number of numbers, not {embedding}")
        self.path, self.test, self.split, self.embedding = path, test, split, embedding

    def load(self) -> dict[str, list[Complex]]:
        if not self.path:
            raise UserError("data.path is missing; it must name a folder that holds a folder for each complex")
        root = Path(self.path).expanduser()
        if not root.is_dir():
            raise UserError(f"{root}: there is no such folder")
        parts = _split(Path(self.split).expanduser()) if self.split else None
        folders = [folder for folder in sorted(root.iterdir()) if folder.is_dir() and not folder.name.startswith(".")]
        if parts is not None:
            folders = [folder for folder in folders if folder.name in parts]
        with pool.progress(f"{len(folders):,} complexes read", len(folders)) as tick:
            chunks = pool.shared_out(_all_read, folders, tick, radius=self.radius, embedding=self.embedding)
        found: dict[str, list[Complex]] = {part: [] for part in PARTS}
        skipped = readers.Skipped()
        for name, one in (pair for chunk in chunks for pair in chunk):
            if isinstance(one, str):
                skipped.add(name, one)
                continue
            one.ligand.SetProp("_Name", name)  # which is lost on the way from another process
            found[parts[name] if parts else PARTS[2 * (share(name) < self.test)]].append(one)
        self.notes = skipped.notes(len(folders))
        if parts is None:
            self.notes.append(
                "complexes are held out by name, so one protein may be on both sides; data.split avoids it"
            )
        if not any(found.values()):
            raise UserError(
                f"{root}: holds no complex that can be used; {'; '.join(self.notes[:-1]) or 'it has no folders'}"
            )
        return found


class Made(PoseData):
    """A dozen drugs in synthetic pockets, made by RDKit without any download. For trying things out; there is little to learn.

    Args:
        radius: of the pocket about the ligand's centroid, in Angstrom.
        copies: noised poses of each complex in one step of training.
        structures: starting conformers of each ligand.
        jitter: standard deviation of the noise on the pocket's centre in training, in Angstrom.
        seed: of the pockets.
    """

    def __init__(
        self, radius: float = 12.0, copies: int = 16, structures: int = 2, jitter: float = 0.0, seed: int = 0
    ) -> None:
        super().__init__(radius, copies, structures, jitter)
        self.seed = seed

    def load(self) -> dict[str, list[Complex]]:
        from diffusionkit.molecule.made_pockets import surround

        molecules = [mol for part in drugs(structures=1).load().values() for mol in part]
        found = [
            joined(mol.GetProp("_Name"), surround(mol, self.seed + k), mol, self.radius)
            for k, mol in enumerate(molecules)
        ]
        self.notes = [_MADE]
        return {"train": found[:8], "val": found[8:10], "test": found[10:]}


def joined(name: str, pocket: Pocket, mol: Any, radius: float) -> Complex:
    """A complex, the pocket cropped about the centroid of the ligand's heavy atoms."""
    ligand = local_structures.bare(mol)
    ligand.SetProp("_Name", name)
    center = ligand.GetConformer().GetPositions().mean(0)
    return Complex(name, pockets.crop(pocket, center, radius), ligand)


def unpacked(path: Path) -> list[Pocket]:
    """The pockets of the data folder; its README says how they are packed."""
    with np.load(path, allow_pickle=False) as file:
        packed = {key: file[key] for key in file.files if not key.startswith("ca_")}
    pos = ((packed["pos_hi"].astype(np.int16) << 8) | packed["pos_lo"]).T * 0.002
    residue = np.array([RESIDUES.index(name) for name in packed["aa_names"]] + [OTHER])[packed["res"]]
    known = {name: k for k, name in enumerate(ATOM_NAMES)}
    names = np.full(256, len(ATOM_NAMES) - 1)
    names[: len(packed["atom_names"])] = [known.get(name, len(ATOM_NAMES) - 1) for name in packed["atom_names"]]
    pockets_ = []
    for k, (a, b) in enumerate(zip(packed["ptr"][:-1], packed["ptr"][1:], strict=True)):
        center = packed["center"][k].astype(np.float64)
        group = np.unique(packed["resid"][a:b], return_inverse=True)[1]
        atoms = {"z": packed["z"][a:b].astype(np.int64), "pos": pos[a:b] + center, "residue": residue[a:b]}
        pockets_.append(
            Pocket(str(packed["id"][k]), **atoms, atom=names[packed["name"][a:b]], group=group, center=center)
        )
    return pockets_


def _split(path: Path) -> dict[str, str]:
    """The part of each complex, by a table's columns id and split."""
    table = csv.DictReader(io.StringIO(readers.text(path)))
    if not {"id", "split"} <= set(table.fieldnames or []):
        raise UserError(f"{path}: a split has the columns id and split, not {', '.join(table.fieldnames or ['none'])}")
    parts = {row["id"]: row["split"] for row in table}
    odd = next((name for name, part in parts.items() if part not in PARTS), None)
    if odd is not None:
        raise UserError(f"{path}: the split of {odd} is {parts[odd]!r}, and must be one of {', '.join(PARTS)}")
    return parts


def _all_read(folders: list[Path], radius: float, embedding: int) -> list[tuple[str, Complex | str]]:
    """Names with complexes, or with the reason why one cannot be used."""
    found: list[tuple[str, Complex | str]] = []
    for folder in folders:
        try:
            found.append((folder.name, _of_folder(folder, radius, embedding)))
        except UserError as error:
            found.append((folder.name, str(error)))
    return found


def _of_folder(folder: Path, radius: float, embedding: int) -> Complex:
    names = sorted(file.name for file in folder.iterdir())
    proteins = [name for kind in ("_protein", "_pocket") for name in _ending(names, kind, PROTEINS)]
    if not proteins:
        raise UserError(f"has no protein, a file such as {folder.name}_protein.pdb")
    files = [name for ending in (".sdf", ".mol2") for name in _ending(names, "_ligand", (ending,))]
    if not files:
        raise UserError(f"has no ligand, a file such as {folder.name}_ligand.sdf")
    read = (next(ligands(folder / name), ("", None))[1] for name in files)
    mol = next((mol for mol in read if mol is not None), None)
    if mol is None:
        raise UserError(f"RDKit cannot read {' or '.join(files)}")
    protein = structures.read(folder / proteins[0])
    if embedding:
        protein = pockets.embedded(protein, folder / f"{folder.name}_embedding.npy", embedding)
    places = positions(mol)
    gap = np.sqrt(((protein.pos[:, None] - places[None]) ** 2).sum(-1)).min()
    if gap > _APART:
        raise UserError(f"the ligand lies {gap:.1f} Å from the protein")
    pocket = structures.pocket(protein, reference=mol, radius=radius)
    return joined(folder.name, replace(pocket, name=folder.name), mol, radius)


def _ending(names: list[str], kind: str, endings: tuple[str, ...]) -> list[str]:
    """The names that end in a kind and one of the endings, .gz or not."""
    return [name for name in names if name.lower().removesuffix(".gz").endswith(tuple(kind + e for e in endings))]
