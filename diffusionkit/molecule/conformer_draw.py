"""Conformers of given molecules: local structures from ETKDGv3, torsions from the model."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusionkit.core.inverse import redraw
from diffusionkit.core.state import tree_map
from diffusionkit.errors import UserError
from diffusionkit.molecule import conformer_codec, local_structures
from diffusionkit.molecule.chemistry import quiet
from diffusionkit.molecule.conformer_codec import Graph
from diffusionkit.molecule.picking import nearest_to_all
from diffusionkit.molecule.readers import text

_TOGETHER = 200  # molecules in one call of the network


@dataclass(frozen=True)
class Wanted:
    """Molecules whose conformers are asked for.

    Args:
        molecules: of heavy atoms, with names.
        graphs: of each.
        numbers: the place of each among what was given.
        skipped: why those in the other places cannot be used.
        begin, pool, relax: see `ConformerDomain.condition`.
    """

    molecules: list[Any]
    graphs: list[Graph]
    numbers: list[int]
    skipped: dict[int, str]
    begin: float = 1.0
    pool: int = 1
    relax: bool = False

    @property
    def rigid(self) -> list[str]:
        """The names of molecules without rotatable bonds."""
        return [m.GetProp("_Name") for m, g in zip(self.molecules, self.graphs, strict=True) if not len(g["bond"])]


@dataclass(frozen=True)
class Drawn:
    """Conformers of each molecule.

    Args:
        wanted: the molecules.
        asked: how many of each.
        places: (k, N, 3) of each; k is less than asked for where ETKDGv3 failed.
    """

    wanted: Wanted
    asked: int
    places: list[np.ndarray]


@lru_cache(maxsize=4)
def read(
    examples: tuple[str, ...], smiles: str | None, molecules: str | None, begin: float, pool: int, relax: bool
) -> Wanted:
    """What the options of a command ask for; see `ConformerDomain.condition`."""
    if smiles is not None and molecules is not None:
        raise UserError("--smiles and --molecules: give one of them")
    named = (
        records(Path(molecules).expanduser())
        if molecules
        else [(text, text) for text in ([smiles] if smiles else examples)]
    )
    found = wanted(named, begin, pool, relax)
    if not found.molecules:
        raise UserError(
            "; ".join(list(found.skipped.values())[:5]) or "there is no molecule to draw: give --smiles or --molecules"
        )
    return found


def wanted(named: Any, begin: float = 1.0, pool: int = 1, relax: bool = False) -> Wanted:
    """Molecules made ready.

    Args:
        named: pairs of a name and SMILES, or an RDKit molecule, or None.
        begin, pool, relax: see `ConformerDomain.condition`.

    Raises:
        UserError: for impossible options.
    """
    from rdkit import Chem

    if not 0 < begin <= 1:
        raise UserError(f"begin: must lie above 0 (ETKDGv3's torsions) and not above 1 (random ones), not {begin:g}")
    if pool < 1:
        raise UserError(f"pool: at least 1, not {pool}")
    molecules, graphs, numbers, skipped = [], [], [], {}
    for number, (name, given) in enumerate(named):
        try:
            with quiet():
                mol = Chem.MolFromSmiles(given) if isinstance(given, str) else given
                if mol is None or not mol.GetNumAtoms():
                    raise UserError(
                        "is no SMILES that RDKit reads" if isinstance(given, str) else "RDKit cannot read it"
                    )
                mol = local_structures.bare(mol)
                graphs.append(conformer_codec.graph(mol))
            mol.RemoveAllConformers()
            mol.SetProp("_Name", name)
            molecules.append(mol)
            numbers.append(number)
        except UserError as error:
            skipped[number] = f"{name}: {error}"
    return Wanted(molecules, graphs, numbers, skipped, begin, pool, relax)


def records(path: Path) -> Iterator[tuple[str, Any]]:
    """Names with molecules or SMILES, from .sdf, .smi (SMILES and name in a line) or .csv (a column smiles, and perhaps name)."""
    from diffusionkit.molecule.conformer_data import sdf

    kind = path.name.lower().removesuffix(".gz")
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    if kind.endswith(".sdf"):
        for number, mol in enumerate(sdf(path), 1):
            name = mol.GetProp("_Name") if mol is not None and mol.HasProp("_Name") else ""
            yield name or f"record {number}", mol
        return
    if not kind.endswith((".smi", ".smiles", ".txt", ".csv")):
        raise UserError(f"{path}: molecules come from .sdf, .smi or .csv files, also .gz")
    content = text(path)
    if kind.endswith(".csv"):
        table = csv.DictReader(io.StringIO(content))
        columns = {column.lower().strip(): column for column in table.fieldnames or []}
        if "smiles" not in columns:
            raise UserError(f"{path}: has no column smiles")
        name = next((columns[c] for c in ("name", "id") if c in columns), columns["smiles"])
        yield from ((row[name] or "", row[columns["smiles"]] or "") for row in table)
        return
    for words in filter(None, (line.split(None, 1) for line in content.splitlines())):
        yield words[-1].strip(), words[0]


def draw(
    diffusion: Any,
    sampler: Any,
    wanted: Wanted,
    indices: Sequence[int],
    watch: Callable[..., None] | None = None,
    local: list[np.ndarray] | None = None,
) -> Drawn:
    """A conformer of each molecule for each index, which seeds its local structure.

    Args:
        diffusion: over torsions, or a guided one.
        sampler: how to step from noise to data.
        wanted: the molecules.
        indices: running numbers.
        watch: called at every step of the sampler.
        local: (k, N, 3) for each molecule, if there already.
    """
    local = structures(wanted.molecules, indices) if local is None else local
    owner = [m for m, places in enumerate(local) for _ in range(len(places) * wanted.pool)]
    starts = [torch.from_numpy(p).float() for places in local for p in places for _ in range(wanted.pool)]
    turned: list[list[np.ndarray]] = [[] for _ in local]
    for first in range(0, len(owner), _TOGETHER):
        some = slice(first, first + _TOGETHER)
        graphs = [wanted.graphs[m] for m in owner[some]]
        told = watch if first + _TOGETHER >= len(owner) else None
        for m, place in zip(
            owner[some], sampled(diffusion, sampler, graphs, starts[some], wanted.begin, told), strict=True
        ):
            turned[m].append(place)
    places = []
    for found, given, mol in zip(turned, local, wanted.molecules, strict=True):
        made = np.stack(found) if found else np.zeros((0, mol.GetNumAtoms(), 3))
        places.append(made if wanted.pool == 1 else made[nearest_to_all(made, len(given), mol)])
    return Drawn(wanted, len(indices), places)


def sampled(
    diffusion: Any, sampler: Any, graphs: list[Graph], local: list[Tensor], begin: float = 1.0, watch: Any = None
) -> list[np.ndarray]:
    """(N, 3) coordinates for each local structure (N, 3), its torsions drawn by the model."""
    device = next(diffusion.parameters()).device
    batch = conformer_codec.batch(graphs, local)
    x, cond, rows = (
        part.to(device) if part is batch.rows else tree_map(lambda leaf: leaf.to(device), part) for part in batch
    )
    if len(x):
        told = {"cond": cond, "rows": rows, "watch": watch}
        x = redraw(sampler, diffusion, x, begin, **told) if begin < 1 else sampler(diffusion, like=x.shape, **told)
    pos = conformer_codec.positions(x, cond).cpu().double()
    return [p.numpy() for p in pos.split([len(p) for p in local])]


def structures(molecules: Sequence[Any], indices: Sequence[int]) -> list[np.ndarray]:
    """(k, N, 3) local structures of each molecule, one for each index whose seed works."""
    return local_structures.of_all(lambda mol: local_structures.embed(mol, indices), molecules)


def with_conformers(mol: Any, places: np.ndarray) -> Any:
    """A copy of the molecule with the conformers (k, N, 3) in the place of its own."""
    from rdkit import Chem

    made = Chem.Mol(mol)
    made.RemoveAllConformers()
    for place in places:
        conformer = Chem.Conformer(len(place))
        conformer.SetPositions(np.ascontiguousarray(place, dtype=np.float64))
        conformer.Set3D(True)
        made.AddConformer(conformer, assignId=True)
    return made
