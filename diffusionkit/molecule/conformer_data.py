"""Molecules with a known conformer, for recipes. Making one reads nothing; `load` does.

A new one is a class with `load` and `structures`, and one line in `ConformerDomain.data`.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusionkit.core.state import Batch
from diffusionkit.errors import UserError
from diffusionkit.molecule import local_structures, matching
from diffusionkit.molecule.chemistry import quiet
from diffusionkit.molecule.conformer_codec import ConformerCodec, Graph, batch, graph

PARTS = ("train", "val", "test")
_END = object()


class ConformerData(ABC):
    """What the domain asks of molecules with a conformer each.

    Attributes:
        structures: local structures that ETKDGv3 makes of each molecule.
    """

    structures: int

    @abstractmethod
    def load(self) -> dict[str, list[Any]]:
        """Reads everything: RDKit molecules with names and one conformer in {"train": ..., "val": ..., "test": ...}."""


class Crystal(ConformerData):
    """Crystal conformers of 1,097 drug-like ligands, split by scaffold.

    Args:
        root: folder that holds `molecule/conformers.sdf.gz` and `.csv`; by default that of DIFFUSIONKIT_DATA.
        structures: local structures that each molecule is trained with.
    """

    def __init__(self, root: str = "", structures: int = 4) -> None:
        self.root, self.structures = root, _count(structures)

    def load(self) -> dict[str, list[Any]]:
        import pandas as pd

        root = self.root or os.environ.get("DIFFUSIONKIT_DATA")
        if not root:
            raise UserError(
                "data.root is missing: set it, or DIFFUSIONKIT_DATA, to the folder of molecule/conformers.sdf.gz"
            )
        folder = Path(root).expanduser() / "molecule"
        for name in ("conformers.sdf.gz", "conformers.csv"):
            if not (folder / name).is_file():
                raise UserError(f"{folder / name}: there is no such file; data.root names the folder above `molecule`")
        split = pd.read_csv(folder / "conformers.csv")["split"]
        found = list(sdf(folder / "conformers.sdf.gz"))
        return {part: [m for m, of in zip(found, split, strict=True) if of == part] for part in PARTS}


class Sdf(ConformerData):
    """Conformers of one's own: molecules with three-dimensional coordinates.

    Args:
        path: an .sdf or .sdf.gz file.
        test: share of the molecules that is held out, by scaffold.
        structures: local structures that each molecule is trained with.
    """

    def __init__(self, path: str = "", test: float = 0.1, structures: int = 4) -> None:
        self.path, self.test, self.structures = path, test, _count(structures)
        if not 0 < test < 1:
            raise ValueError(f"test is a share of the molecules and must lie in (0, 1), not {test:g}")

    def load(self) -> dict[str, list[Any]]:
        if not self.path:
            raise UserError("data.path is missing; it must name an .sdf or .sdf.gz file of molecules with coordinates")
        found = list(sdf(Path(self.path).expanduser()))
        held = [share(scaffold(mol)) < self.test if mol is not None else False for mol in found]
        return {
            "train": [m for m, out in zip(found, held, strict=True) if not out],
            "test": [m for m, out in zip(found, held, strict=True) if out],
        }


class Made(ConformerData):
    """A few drugs whose conformers are made by RDKit: ETKDGv3 and MMFF94s. For trying things out; there is nothing to learn.

    Args:
        structures: local structures that each molecule is trained with.
    """

    def __init__(self, structures: int = 2) -> None:
        self.structures = _count(structures)

    def load(self) -> dict[str, list[Any]]:
        from rdkit import Chem
        from rdkit.Geometry import Point3D

        made = []
        for line in _DRUGS.split():
            mol = Chem.MolFromSmiles(line)
            conformer = Chem.Conformer(mol.GetNumAtoms())
            for k, place in enumerate(local_structures.embed(mol, [1], relax=True)[0]):
                conformer.SetAtomPosition(k, Point3D(*map(float, place)))
            mol.AddConformer(conformer)
            mol.SetProp("_Name", line)
            made.append(mol)
        return {"train": made[:-4], "test": made[-4:]}


_DRUGS = """CC(=O)Nc1ccc(O)cc1 CC(C)Cc1ccc(cc1)[C@@H](C)C(=O)O CC(=O)Oc1ccccc1C(=O)O CN1CCC[C@H]1c1cccnc1
NCCc1ccc(O)c(O)c1 CC(C)NC[C@H](O)COc1cccc2ccccc12 CCN(CC)CC(=O)Nc1c(C)cccc1C COc1ccc2cc(ccc2c1)[C@H](C)C(=O)O
NS(=O)(=O)c1ccc(N)cc1 CCOC(=O)c1ccc(N)cc1 OC(=O)Cc1ccccc1Nc1c(Cl)cccc1Cl CNC[C@H](O)c1cccc(O)c1"""


class Conformers:
    """Molecules with matched local structures, encoded.

    Args:
        graphs: of `conformer_codec.graph`.
        places: for each molecule (k, N, 3) local structures that fit its conformer.
    """

    def __init__(self, graphs: list[Graph], places: list[Tensor]) -> None:
        self.graphs, self.places = graphs, places

    def __len__(self) -> int:
        return len(self.graphs)

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Batch:
        """The molecules at `indices`, each with one of its local structures: a random one, or the first without a generator."""
        chosen = torch.zeros(len(indices)) if generator is None else torch.rand(len(indices), generator=generator)
        pairs = list(zip(indices.tolist(), chosen.tolist(), strict=True))
        return batch(
            [self.graphs[i] for i, _ in pairs], [self.places[i][int(u * len(self.places[i]))] for i, u in pairs]
        )


def fitted(data: ConformerData) -> tuple[ConformerCodec, dict[str, Conformers]]:
    """What `Domain.prepare` gives. Held out is the part that one chooses by, if there is one; training need not see the other."""
    parts = data.load()
    held = "val" if parts.get("val") else "test"
    encoded, kept, notes = prepared({"train": parts["train"], "test": parts[held]}, data.structures)
    return ConformerCodec(_examples(kept), notes), encoded


def _examples(kept: dict[str, list[Any]]) -> list[str]:
    """SMILES of a few molecules that are not trained on, for pictures."""
    from rdkit import Chem

    held = kept["test"] or kept["train"]
    return [Chem.MolToSmiles(mol) for mol in sorted(held, key=lambda mol: abs(mol.GetNumAtoms() - 22))[:4]]


def prepared(
    parts: dict[str, list[Any]], structures: int
) -> tuple[dict[str, Conformers], dict[str, list[Any]], list[str]]:
    """Each part encoded and matched, the molecules that were kept, and notes on those that were not.

    What takes long is kept in the cache, in a file named by the content of the molecules.
    """
    encoded, kept, notes = {}, {}, []
    for name, molecules in parts.items():
        good, graphs, reasons = readable(molecules)
        arrays = local_structures.stored(
            f"matched 1 {structures}",
            good,
            lambda good=good, graphs=graphs, name=name: matched(good, graphs, structures, name),
        )
        rigid = [k for k, g in enumerate(graphs) if not len(g["bond"])]
        usable = [k for k, place in enumerate(arrays) if len(place) and k not in rigid]
        reasons += [f"{good[k].GetProp('_Name')}: has no rotatable bond" for k in rigid]
        reasons += [
            f"{good[k].GetProp('_Name')}: ETKDGv3 finds no coordinates" for k, p in enumerate(arrays) if not len(p)
        ]
        encoded[name] = Conformers([graphs[k] for k in usable], [torch.from_numpy(arrays[k]) for k in usable])
        kept[name] = [good[k] for k in usable]
        if reasons:
            first = "; ".join(reasons[:5]) + ("; ..." if len(reasons) > 5 else "")
            notes.append(f"{len(reasons)} of {len(molecules)} molecules of {name} are left out: {first}")
    if not len(encoded["train"]):
        raise UserError("there is no molecule to train on; a conformer has rotatable bonds and known coordinates")
    return encoded, kept, notes


def readable(molecules: list[Any]) -> tuple[list[Any], list[Graph], list[str]]:
    """The molecules that can be used, without hydrogens, their graphs, and why others cannot."""
    good, graphs, reasons = [], [], []
    for number, mol in enumerate(molecules, 1):
        name = mol.GetProp("_Name") if mol is not None and mol.HasProp("_Name") else f"record {number}"
        try:
            if mol is None:
                raise UserError("RDKit cannot read it")
            mol = local_structures.bare(mol)
            mol.SetProp("_Name", name)
            if not mol.GetNumConformers() or not mol.GetConformer().Is3D():
                raise UserError("has no three-dimensional coordinates")
            graphs.append(graph(mol))
            good.append(mol)
        except UserError as error:
            reasons.append(f"{name}: {error}")
    return good, graphs, reasons


def matched(molecules: list[Any], graphs: list[Graph], structures: int, part: str) -> list[np.ndarray]:
    """(k, N, 3) local structures of each molecule, the best fits first; k is 0 where embedding failed."""
    made = local_structures.of_all(
        lambda mol: local_structures.embed(mol, range(1, structures + 1)), molecules, f"local structures of {part}"
    )
    owner = [k for k, places in enumerate(made) for _ in places]
    local = [torch.from_numpy(place) for places in made for place in places]
    known = [torch.from_numpy(mol.GetConformer().GetPositions()) for mol in molecules]
    found: list[list[tuple[float, Tensor]]] = [[] for _ in molecules]
    for first in range(0, len(owner), 512):
        chunk = owner[first : first + 512]
        some = batch([graphs[k] for k in chunk], local[first : first + 512])
        pos, off = matching.match(some, torch.cat([known[k] for k in chunk]))
        for k, place, value in zip(chunk, pos.split([len(known[k]) for k in chunk]), off.tolist(), strict=True):
            found[k].append((value, place))
    return [
        np.stack([place.numpy() for _, place in sorted(fits, key=lambda fit: fit[0])])
        if fits
        else np.zeros((0, len(p), 3))
        for fits, p in zip(found, known, strict=True)
    ]


def sdf(path: Path) -> Iterator[Any]:
    """The molecules of an .sdf or .sdf.gz file; None for a record that RDKit cannot read."""
    from rdkit import Chem

    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            molecules = iter(Chem.ForwardSDMolSupplier(file, sanitize=True, removeHs=False))
            while True:
                with quiet():  # not over the yield: a reader who stops halfway would leave the log shut
                    mol = next(molecules, _END)
                if mol is _END:
                    return
                yield mol
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error


def scaffold(mol: Any) -> str:
    """Murcko's scaffold as SMILES, without stereo; "" for molecules without rings."""
    from rdkit import Chem
    from rdkit.Chem.Scaffolds import MurckoScaffold

    core = MurckoScaffold.GetScaffoldForMol(Chem.RemoveHs(mol))
    return Chem.MolToSmiles(core, isomericSmiles=False)


def share(text: str) -> float:
    """A number in [0, 1) that is the same for the same text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) / 2**32


def _count(structures: int) -> int:
    if structures < 1:
        raise ValueError(f"structures must be at least 1, not {structures}")
    return structures
