"""Molecules as flat arrays: what readers give, caches hold and the training loop takes batches from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffusionkit.core.rows import Rows
from diffusionkit.core.state import Batch

REACH = 32.0
"""How far (Å) an atom may lie from the centre of its molecule: positions are kept as 16-bit integers."""


@dataclass(frozen=True)
class MoleculeSet:
    """M molecules of A atoms in all, one after another.

    Args:
        z: (A,) uint8 atomic numbers.
        pos: (A, 3) int16 positions about the centre of each molecule, in thousandths of an Å.
        n: (M,) int64 atoms of each molecule.
        smiles: one for each molecule, or None where there are none.
        properties: (M, P) float32 values in the order of `names`; NaN where RDKit finds none.
        names: of the properties.
        codec: encodes batches; without one there are none.
        notes: what a person should know of how they were read, a sentence each.
    """

    z: np.ndarray
    pos: np.ndarray
    n: np.ndarray
    smiles: list[str] | None = None
    properties: np.ndarray | None = None
    names: tuple[str, ...] = ()
    codec: Any = None
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        molecules: Sequence[tuple[np.ndarray, np.ndarray]],
        smiles: list[str] | None = None,
        notes: Sequence[str] = (),
    ) -> MoleculeSet:
        """From pairs of atomic numbers (n,) and positions (n, 3) in Å, which are centred."""
        z = np.concatenate([np.asarray(z, np.uint8) for z, _ in molecules]) if molecules else np.zeros(0, np.uint8)
        centred = [np.asarray(pos, np.float64) - np.mean(pos, axis=0) for _, pos in molecules]
        pos = np.concatenate([*centred, np.zeros((0, 3))])
        n = np.array([len(z) for z, _ in molecules], np.int64)
        return cls(z, np.round(pos * 1000).astype(np.int16), n, smiles, notes=list(notes))

    def __len__(self) -> int:
        return len(self.n)

    @cached_property
    def first(self) -> np.ndarray:
        """(M,) where the atoms of each molecule begin."""
        return np.cumsum(self.n) - self.n

    def angstrom(self) -> np.ndarray:
        """(A, 3) positions in Å."""
        return self.pos.astype(np.float32) / 1000

    def atoms(self, indices: np.ndarray) -> np.ndarray:
        """Places of the atoms of these molecules, one molecule after another."""
        n = self.n[indices]
        shift = np.repeat(self.first[indices] - (np.cumsum(n) - n), n)
        return np.arange(len(shift)) + shift

    def take(self, indices: Any) -> MoleculeSet:
        """The molecules at these places, in this order; a mask will do."""
        indices = np.asarray(indices)
        indices = np.flatnonzero(indices) if indices.dtype == bool else indices.astype(np.int64)
        atoms = self.atoms(indices)
        return replace(
            self,
            z=self.z[atoms],
            pos=self.pos[atoms],
            n=self.n[indices],
            smiles=None if self.smiles is None else [self.smiles[i] for i in indices],
            properties=None if self.properties is None else self.properties[indices],
        )

    def one(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Atomic numbers (n,) and positions (n, 3) in Å of molecule i."""
        atoms = slice(self.first[i], self.first[i] + self.n[i])
        return self.z[atoms], self.pos[atoms].astype(np.float32) / 1000

    def heavy(self) -> MoleculeSet:
        """Without hydrogens, about the new centres; a molecule of nothing else goes with them."""
        kept = np.add.reduceat(self.z > 1, self.first) if len(self) else np.zeros(0, np.int64)
        left = self.take(kept > 0)
        heavy, n = left.z > 1, kept[kept > 0].astype(np.int64)
        index = np.repeat(np.arange(len(n)), n)
        pos = left.pos[heavy].astype(np.float64)
        centre = np.stack([np.bincount(index, pos[:, k], len(n)) for k in range(3)], 1) / n[:, None]
        return replace(left, z=left.z[heavy], pos=np.round(pos - centre[index]).astype(np.int16), n=n)

    def batch(self, indices: torch.Tensor, generator: torch.Generator | None = None) -> Batch:
        """The molecules at `indices` as one ragged batch."""
        chosen = indices.numpy()
        atoms = self.atoms(chosen)
        rows = Rows.from_sizes(torch.from_numpy(self.n[chosen]))
        x = self.codec.encode(self.z[atoms], self.pos[atoms].astype(np.float32) / 1000, rows)
        cond = None if self.properties is None else self.codec.condition(self.properties[chosen], generator)
        return Batch(x, cond, rows)

    # ---- files

    def save(self, path: Path) -> None:
        """Leaves an .npz, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {"z": self.z, "pos": self.pos, "n": self.n}
        if self.smiles is not None:
            arrays["smiles"] = np.frombuffer("\n".join(self.smiles).encode(), np.uint8)
        if self.properties is not None:
            arrays["properties"] = self.properties
        arrays["notes"] = np.frombuffer("\n".join(self.notes).encode(), np.uint8)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with open(part, "wb") as file:
                np.savez(file, **arrays)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path, names: tuple[str, ...] = ()) -> MoleculeSet:
        """Reads what `save` has left; nothing in it is executed."""
        with np.load(path, allow_pickle=False) as file:
            text = {k: file[k].tobytes().decode() for k in ("smiles", "notes") if k in file}
            smiles = text["smiles"].split("\n") if "smiles" in text else None
            properties = file["properties"] if "properties" in file else None
            notes = [line for line in text.get("notes", "").split("\n") if line]
            return cls(file["z"], file["pos"], file["n"], smiles, properties, names, notes=notes)
