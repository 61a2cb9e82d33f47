"""Poses as users have them: ranked RDKit molecules with what is known of each, tables, and SDF files."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from diffusionkit.errors import UserError
from diffusionkit.molecule import pose_checks, pose_relax
from diffusionkit.molecule.pockets import Pocket
from diffusionkit.molecule.pose_draw import Drawn
from diffusionkit.writer import Writer

if TYPE_CHECKING:
    import pandas as pd

ENDINGS = (".sdf", ".sdf.gz")


@dataclass(frozen=True, eq=False)
class Pose:
    """A pose of a ligand, in the frame of the protein's file.

    Args:
        mol: RDKit molecule with hydrogens and this pose as its conformer; the values below are among its properties.
        rank: 1 for the best.
        confidence: probability of lying within 2 Å of the true pose; nan without a model that judges.
        density: share of all poses of this ligand that lie near, in (0, 1]; see `pose_checks.density`.
        clashes: pairs of heavy atoms of ligand and pocket that are too close; see `pose_checks.clashes`.
        strain: kcal/mol by which its energy exceeds the lowest of free conformers; nan for poses that are not relaxed.
    """

    mol: Any
    rank: int
    confidence: float = math.nan
    density: float = math.nan
    clashes: int = 0
    strain: float = math.nan


@dataclass(frozen=True, eq=False)
class Poses(Sequence[Pose]):
    """The poses of one ligand, the best first.

    Args:
        name: of the ligand.
        pocket: that it was docked to.
        ranking: what the order is by: "confidence and density", or "density" without a model that judges.
        poses: of the ligand.
        notes: sentences for the user.
    """

    name: str
    pocket: Pocket
    ranking: str
    poses: list[Pose] = field(repr=False)
    notes: tuple[str, ...] = ()

    @overload
    def __getitem__(self, key: int) -> Pose: ...
    @overload
    def __getitem__(self, key: slice) -> list[Pose]: ...
    def __getitem__(self, key: int | slice) -> Pose | list[Pose]:
        return self.poses[key]

    def __len__(self) -> int:
        return len(self.poses)

    def to_sdf(self, path: str | Path) -> Path:
        """Writes a record for each pose, the best first, with its properties; .sdf or .sdf.gz."""
        return write(Path(path), self.texts())

    def texts(self) -> list[str]:
        """The records of the SDF file."""
        return [record(pose.mol) for pose in self.poses]

    def table(self) -> pd.DataFrame:
        """A row for each pose: ligand, rank, confidence, density, clashes, strain."""
        import pandas as pd

        keys = ("rank", "confidence", "density", "clashes", "strain")
        return pd.DataFrame([{"ligand": self.name, **{k: getattr(pose, k) for k in keys}} for pose in self.poses])

    def picture(self, path: str | Path, n: int = 6, reference: Any = None) -> Path:
        """Draws the first n poses in their pocket into a PNG.

        Args:
            path: the PNG.
            n: how many.
            reference: an RDKit molecule with the known pose, drawn beside them.
        """
        from diffusionkit.molecule.pose_plots import Panel, draw

        texts = [f"{self.name[:24]}, {_said(pose)}" for pose in self.poses[:n]]
        panels = [Panel(p.mol, self.pocket, text, reference) for p, text in zip(self.poses, texts, strict=False)]
        return draw(panels, Path(path))


def _said(pose: Pose) -> str:
    return f"rank {pose.rank}" + ("" if math.isnan(pose.confidence) else f", confidence {pose.confidence:.2f}")


def made(
    mol: Any,
    places: np.ndarray,
    pocket: Pocket,
    ranking: str,
    scores: dict[str, np.ndarray],
    relax: bool = False,
    lowest: float = math.nan,
) -> Poses:
    """Poses of a ligand as they are handed out.

    Args:
        mol: of N heavy atoms, with a name.
        places: (k, N, 3), the best first.
        pocket: where they are.
        ranking: what the order is by.
        scores: (k,) each, in the order of the places.
        relax: minimise each in the pocket.
        lowest: energy in kcal/mol that strain is measured from.
    """
    full, energies, how = pose_relax.finished(mol, places, pocket, relax)
    notes = (f"{mol.GetProp('_Name')}: neither MMFF94s nor UFF has parameters for it; not relaxed",)
    heavy = np.stack([c.GetPositions()[: mol.GetNumAtoms()] for c in full.GetConformers()])
    clashes = pose_checks.clashes(mol, heavy, pocket).tolist()
    poses = []
    for k, conformer in enumerate(full.GetConformers()):
        own = {name: float(values[k]) for name, values in scores.items()}
        strain = energies[k] - lowest if energies else math.nan
        method = "" if math.isnan(strain) and not energies else how if not math.isnan(energies[k]) else ""
        pose = Pose(_single(full, conformer), k + 1, clashes=clashes[k], strain=strain, **own)
        _describe(pose, pocket, ranking, method)
        poses.append(pose)
    return Poses(mol.GetProp("_Name"), pocket, ranking, poses, notes if relax and not how else ())


def _single(full: Any, conformer: Any) -> Any:
    from rdkit import Chem

    one = Chem.Mol(full, confId=conformer.GetId())
    one.GetConformer().SetId(0)
    return one


def _describe(pose: Pose, pocket: Pocket, ranking: str, method: str) -> None:
    told = {
        "rank": pose.rank,
        "confidence": pose.confidence,
        "density": pose.density,
        "ranking": ranking,
        "clashes": pose.clashes,
        "strain": pose.strain,
        "relaxed": method,
        "ligand": pose.mol.GetProp("_Name"),
        "protein": pocket.name,
    }
    for name, value in told.items():
        if not (value == "" or (isinstance(value, float) and math.isnan(value))):
            pose.mol.SetProp(name, f"{value:.4f}" if isinstance(value, float) else str(value))


# ---- files


def record(mol: Any, conformer: int = -1) -> str:
    """A record of an SDF file: the conformer, and the molecule's properties."""
    from rdkit import Chem

    fields = "".join(f">  <{k}>\n{mol.GetProp(k)}\n\n" for k in mol.GetPropNames())
    return f"{Chem.MolToMolBlock(mol, confId=conformer)}{fields}$$$$\n"


class PoseWriter(Writer):
    """Takes poses as they are drawn, unranked, a record each.

    Args:
        path: .sdf or .sdf.gz.
        n: how many poses.
        wanted: what was asked for, whose pockets may have notes.

    Raises:
        UserError: for another ending.
    """

    def __init__(self, path: Path, n: int, wanted: Any = None) -> None:
        if not path.name.lower().endswith(ENDINGS):
            raise UserError(f"{path}: poses go into files that end in {', '.join(ENDINGS)}")
        super().__init__(None, path, n)

    def write(self, x: Drawn) -> None:
        self.add([text for text in _unranked(x)])

    def _open(self) -> None:
        super()._open()
        raw = open(self.part, "wb")
        self._raw = raw
        self._file = gzip.GzipFile("", "wb", 6, raw, mtime=0) if self.path.name.lower().endswith(".gz") else raw

    def _add(self, chunk: Sequence[str]) -> None:
        for text in chunk:
            self._file.write(text.encode())

    def _finish(self) -> None:
        self._close()
        super()._finish()

    def _close(self) -> None:
        for file in (getattr(self, "_file", None), getattr(self, "_raw", None)):
            if file is not None:
                file.close()

    def _discard(self) -> None:
        self._close()
        super()._discard()


def _unranked(x: Drawn) -> Iterator[str]:
    for which, place in zip(x.which, x.places, strict=True):
        mol, pocket = x.wanted.ligands[which].mol, x.wanted.pockets[which]
        full, _, _ = pose_relax.finished(mol, place[None], pocket)
        one = _single(full, full.GetConformer())
        for name, value in (("ligand", mol.GetProp("_Name")), ("protein", pocket.name)):
            one.SetProp(name, value)
        yield record(one)


def write(path: Path, texts: Sequence[str]) -> Path:
    """Records into a file, which is whole or not there."""
    with PoseWriter(path, len(texts)) as writer:
        writer.add(texts)
    return path
