"""Molecules for recipes. Making one reads nothing; `load` does.

A new one is a class with `read`, and one line in `MoleculeDomain.data`.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from diffusionkit.errors import UserError
from diffusionkit.molecule import readers
from diffusionkit.molecule.cache import kept
from diffusionkit.molecule.chemistry import ELEMENTS, SYMBOLS
from diffusionkit.molecule.codec import MoleculeCodec, Types
from diffusionkit.molecule.properties import PROPERTIES, of_smiles
from diffusionkit.molecule.sets import MoleculeSet


class MoleculeData(ABC):
    """What all sets of molecules share.

    Args:
        hydrogens: whether hydrogens are atoms of the model; without, it draws heavy atoms, and hydrogens are implicit.
        properties: what molecules may be drawn by: logP, TPSA, QED, weight, rings.
        charge: whether the nuclear charge is a further number of each atom, as in EDM.
        types: `onehot` numbers for a Gaussian process, or `codes` for a categorical one.
        scales: what positions (Å), one-hot types and charges are divided by.
    """

    elements: tuple[int, ...] = ()
    """Atomic numbers that may occur, as far as they are known before the data are read."""

    def __init__(
        self,
        hydrogens: bool = True,
        properties: list[str] = [],  # noqa: B006  # never changed; a recipe shows it as []
        charge: bool = False,
        types: Types = "onehot",
        scales: tuple[float, float, float] = (1.0, 4.0, 10.0),
    ) -> None:
        for name in properties:
            if name not in PROPERTIES:
                raise ValueError(f"properties holds {name!r}; there are {', '.join(PROPERTIES)}")
        if len(set(properties)) < len(properties):
            raise ValueError("properties names one twice")
        if types not in ("onehot", "codes"):
            raise ValueError(f"types must be onehot or codes, not {types!r}")
        if len(scales) != 3 or not all(scale > 0 for scale in scales):
            raise ValueError(f"scales must be three numbers above 0, not {scales}")
        self.hydrogens, self.properties, self.charge = hydrogens, tuple(properties), charge
        self.types, self.scales = types, tuple(scales)

    @abstractmethod
    def read(self) -> dict[str, MoleculeSet]:
        """Reads everything, hydrogens included where there are any: {"train": ..., "test": ...}, with "val" where there is one."""

    def load(self) -> dict[str, MoleculeSet]:
        """The parts as the model is to see them: without hydrogens if so asked, and with properties."""
        parts = self.read()
        if not self.hydrogens:
            parts = {name: part.heavy() for name, part in parts.items()}
        return {name: _described(part, self.properties) for name, part in parts.items()}

    def prepared(self) -> tuple[MoleculeCodec, dict[str, MoleculeSet]]:
        """The codec, fitted on the training part, and the parts that it encodes.

        Raises:
            UserError: if there is nothing to learn from.
        """
        parts = self.load()
        known = [number for number in self.elements if self.hydrogens or number > 1]
        found = known or sorted(set().union(*(np.unique(part.z).tolist() for part in parts.values())))
        options = {"hydrogens": self.hydrogens, "charge": self.charge, "types": self.types, "scales": self.scales}
        codec = MoleculeCodec.fit(parts["train"], found, **options)
        return codec, {name: replace(part, codec=codec) for name, part in parts.items()}


class NCI(MoleculeData):
    """Small neutral molecules of the NCI set that comes with RDKit (5,000 SMILES), made 3D by ETKDGv3 and MMFF on first use.

    Args:
        heavy: heavy atoms of a molecule at most.
        elements: symbols of the elements that may occur, beside hydrogen.
        conformers: conformers of each molecule.
        test: share of the molecules that is held out.
        seed: of the split.
    """

    def __init__(
        self,
        heavy: int = 9,
        elements: list[str] = ["C", "N", "O", "F", "S", "Cl"],  # noqa: B006
        conformers: int = 5,
        test: float = 0.1,
        seed: int = 0,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        if heavy < 3 or conformers < 1:
            raise ValueError(f"heavy must be at least 3 and conformers at least 1, not {heavy} and {conformers}")
        self.heavy, self.conformers, self.test, self.seed = heavy, conformers, _share(test), seed
        self.elements = (1, *_numbers(elements))

    def read(self) -> dict[str, MoleculeSet]:
        from rdkit import RDConfig

        path = Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi"
        if not path.is_file():
            raise UserError(f"{path}: RDKit was installed without this file; use another data set")
        key = (path, self.heavy, self.elements, self.conformers)
        found = kept("nci", key, lambda: self._made(path))
        return parted(replace(found, notes=[]), self.test, self.seed)

    def _made(self, path: Path) -> MoleculeSet:
        lines = [line.split() for line in path.read_text("utf-8").splitlines() if line.strip()]
        named = {words[0]: f"NCI {words[-1]}" for words in lines if not any(sign in words[0] for sign in ".+")}
        records, _ = readers.embedded(
            [(name, text) for text, name in named.items()], self.conformers, 0, self.elements, self.heavy
        )
        return MoleculeSet.of([r[1:3] for r in records], [r[3] for r in records])


class QM9(MoleculeData):
    """QM9: 130,831 molecules of up to nine heavy atoms C, N, O, F at B3LYP geometries, with the split of EDM.

    Looked for are `molecule/qm9.npz`, and torch-geometric's `gdb9.sdf` with `uncharacterized.txt` beside it.

    Args:
        root: folder that holds them; by default that of DIFFUSIONKIT_DATA.
    """

    elements = (1, 6, 7, 8, 9)

    def __init__(self, root: str | None = None, **shared: Any) -> None:
        super().__init__(**shared)
        self.root = root

    def read(self) -> dict[str, MoleculeSet]:
        from diffusionkit.molecule import qm9

        root = self.root or os.environ.get("DIFFUSIONKIT_DATA")
        if not root:
            raise UserError("data.root is missing: set it, or DIFFUSIONKIT_DATA, to the folder of molecule/qm9.npz")
        return qm9.read(Path(root).expanduser())


class File(MoleculeData):
    """Molecules of one's own: an SDF file with coordinates, or SMILES (.smi, or .csv with a column), made 3D on first use.

    Args:
        path: the file: .sdf, .smi, .csv or .tsv, the first and the third also .gz.
        column: of a table, that holds the SMILES; by default the one called smiles.
        elements: symbols of the elements that may occur; all by default. Molecules with others are skipped and named.
        heavy: heavy atoms of a molecule at most; 0 for any number.
        conformers: conformers made of each SMILES.
        test: share of the molecules that is held out.
        seed: of the split.
    """

    def __init__(
        self,
        path: str = "",
        column: str = "",
        elements: list[str] = [],  # noqa: B006
        heavy: int = 0,
        conformers: int = 1,
        test: float = 0.1,
        seed: int = 0,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        if heavy < 0 or conformers < 1:
            raise ValueError(f"heavy must not be negative and conformers at least 1, not {heavy} and {conformers}")
        self.path, self.column = Path(path).expanduser() if path else None, column
        self.heavy, self.conformers, self.test, self.seed = heavy, conformers, _share(test), seed
        self.elements = (1, *_numbers(elements)) if elements else ()

    def read(self) -> dict[str, MoleculeSet]:
        if self.path is None:
            raise UserError(f"data.path is missing; it must name a file that ends in {', '.join(readers.ENDINGS)}")
        found = from_file(self.path, self.hydrogens, self.column, self.conformers, self.elements, self.heavy)
        return parted(found, self.test, self.seed)


class Memory(MoleculeData):
    """Molecules in memory, which no recipe can name: what `MoleculeDiffusion.fit` trains on."""

    molecules: MoleculeSet | None = None

    def read(self) -> dict[str, MoleculeSet]:
        if self.molecules is None:
            raise UserError(
                "data: this model was fitted on molecules in memory; it cannot be trained or evaluated from here"
            )
        return {"train": self.molecules}


def from_file(path: Path, *how: Any) -> MoleculeSet:
    """What `readers.read` gives, read once: as long as the content and the arguments are the same, it is kept."""
    readers.check(path)
    return kept(
        path.name.partition(".")[0] or "file", (path, path.name.lower(), *how), lambda: readers.read(path, *how)
    )


def parted(molecules: MoleculeSet, test: float, seed: int) -> dict[str, MoleculeSet]:
    """Holds out a share of the molecules, at least one; all conformers of a molecule, told by its SMILES, stay together.

    Raises:
        UserError: if there are fewer than two different molecules.
    """
    names = np.array(molecules.smiles if molecules.smiles is not None else np.arange(len(molecules)).astype(str))
    _, same = np.unique(names, return_inverse=True)
    count = int(same.max()) + 1 if len(same) else 0
    if count < 2:
        raise UserError(f"the data hold {count} different molecules, and at least 2 are needed to hold some out")
    order = np.random.default_rng(seed).permutation(count)
    out = np.isin(same, order[: min(max(round(test * count), 1), count - 1)])
    return {"train": molecules.take(~out), "test": molecules.take(out)}


def _described(molecules: MoleculeSet, names: tuple[str, ...]) -> MoleculeSet:
    """The molecules with these properties, computed once."""
    if not names:
        return molecules
    if molecules.smiles is None:
        raise UserError("data.properties: these molecules come without SMILES, from which properties are computed")
    smiles = molecules.smiles

    def made() -> MoleculeSet:
        return replace(MoleculeSet.of([]), properties=of_smiles(smiles, names))

    found = kept("properties", (names, smiles), made, names)
    return replace(molecules, properties=found.properties, names=names)


def _numbers(symbols: list[str]) -> tuple[int, ...]:
    """Rising atomic numbers of the heavy ones among these elements."""
    for symbol in symbols:
        if symbol not in ELEMENTS:
            raise ValueError(f"elements holds {symbol!r}; there are {', '.join(SYMBOLS.values())}")
    return tuple(sorted({ELEMENTS[symbol] for symbol in symbols} - {1}))


def _share(test: float) -> float:
    if not 0 < test < 1:
        raise ValueError(f"test is a share of the molecules and must lie between 0 and 1, not {test:g}")
    return test
