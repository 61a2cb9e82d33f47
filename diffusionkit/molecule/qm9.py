"""QM9 as files hold it, with the split of EDM."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffusionkit.errors import UserError
from diffusionkit.molecule.cache import kept
from diffusionkit.molecule.chemistry import quiet, smiles
from diffusionkit.molecule.sets import MoleculeSet

MOLECULES, TRAIN, VALID = 130_831, 100_000, 17_748
_PARTS = ("train", "val", "test")
_PACKED = ("molecule/qm9.npz", "qm9.npz")
_RAW = ("QM9/raw", "qm9/raw", "raw", ".")


def read(root: Path) -> dict[str, MoleculeSet]:
    """The three parts, from the first of the known files below a folder.

    Raises:
        UserError: if there is none, or it is damaged.
    """
    for name in _PACKED:
        if (root / name).is_file():
            return packed(root / name)
    for name in _RAW:
        if (root / name / "gdb9.sdf").is_file():
            return raw(root / name)
    raise UserError(
        f"{root}: holds no QM9; put {_PACKED[0]} there, or gdb9.sdf and uncharacterized.txt as torch-geometric's QM9 has them"
    )


def packed(path: Path) -> dict[str, MoleculeSet]:
    """From the .npz described in the docs: flat atomic numbers, positions as 16-bit integers in two bytes, SMILES, split."""
    try:
        with np.load(path, allow_pickle=False) as file:
            pos = ((file["pos_hi"].astype(np.int16) << 8) | file["pos_lo"]).T
            text = file["smiles"].tobytes().decode().split("\n")
            n, split = file["n_atoms"].astype(np.int64), file["split"]
            everything = MoleculeSet(file["z"], np.ascontiguousarray(pos), n, text[: len(n)])
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise UserError(f"{path}: damaged, or no QM9 in the form that is read ({error})") from error
    return {name: everything.take(split == i) for i, name in enumerate(_PARTS)}


def raw(folder: Path) -> dict[str, MoleculeSet]:
    """From the files that torch-geometric's QM9 keeps in its folder `raw`; kept as arrays after the first reading."""
    listed = folder / "uncharacterized.txt"
    if not listed.is_file():
        raise UserError(f"{listed}: is missing; it names the molecules that EDM's split leaves out")
    everything = kept("qm9", (folder / "gdb9.sdf", listed), lambda: _parse(folder / "gdb9.sdf", listed))
    return {name: everything.take(indices) for name, indices in zip(_PARTS, split(len(everything)), strict=True)}


def split(count: int = MOLECULES) -> list[np.ndarray]:
    """Places of EDM's training, validation and test part (numpy's first generator, seed 0); other counts are cut in proportion."""
    order = np.random.RandomState(0).permutation(count)
    test = int(0.1 * count)
    train = TRAIN if count == MOLECULES else round(count * TRAIN / MOLECULES)
    return [np.sort(part) for part in (order[:train], order[train : count - test], order[count - test :])]


def _parse(path: Path, listed: Path) -> MoleculeSet:
    from rdkit import Chem

    left_out = {
        int(line.split()[0])
        for line in listed.read_text().splitlines()
        if line.split()[:1] and line.split()[0].isdigit()
    }
    molecules, texts, broken = [], [], []
    with quiet():
        for number, mol in enumerate(Chem.SDMolSupplier(str(path), sanitize=False, removeHs=False), 1):
            if number in left_out:
                continue
            if mol is None:
                broken.append(number)
                continue
            z = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], np.uint8)
            molecules.append((z, mol.GetConformer().GetPositions()))
            texts.append(smiles(mol))
    notes = [f"{len(broken):,} records skipped: {', '.join(map(str, broken[:5]))}"] if broken else []
    return MoleculeSet.of(molecules, texts, notes)
