"""Between molecules and the state of the model: positions, types, charges, scaled and flat."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from diffusionkit.core.rows import Rows, center
from diffusionkit.core.state import State
from diffusionkit.domain import Codec
from diffusionkit.errors import UserError
from diffusionkit.molecule.chemistry import SYMBOLS
from diffusionkit.molecule.sets import MoleculeSet

FILE, TENSORS = "codec.json", "codec.safetensors"
SEEN = 20_000
"""Molecules of the training part whose size and properties are kept, to draw both together."""

Types = Literal["onehot", "codes"]


class MoleculeCodec(Codec):
    """Molecules to states {"pos": (N, 3), "type": (N, K) or codes (N,)[, "charge": (N, 1)]} and back.

    Args:
        elements: atomic numbers of the K types, rising.
        histogram: how many molecules of the training part have 0, 1, 2, ... atoms.
        hydrogens: whether hydrogens are atoms of the state; without, a molecule is its heavy atoms.
        charge: whether the nuclear charge is a further number of each atom.
        types: `onehot` numbers for a Gaussian process, or `codes` for a categorical one.
        scales: what positions (Å), one-hot types and charges are divided by.
        properties: names of those that molecules are drawn by.
        seen: (S, 1 + P) number of atoms and properties of some training molecules.
        notes: what a person should know of how the data were read.
    """

    def __init__(
        self,
        elements: list[int],
        histogram: Tensor,
        hydrogens: bool = True,
        charge: bool = False,
        types: Types = "onehot",
        scales: tuple[float, float, float] = (1.0, 4.0, 10.0),
        properties: tuple[str, ...] = (),
        seen: Tensor | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.elements, self.histogram = list(elements), histogram
        self.hydrogens, self.charge, self.types, self.scales = hydrogens, charge, types, tuple(scales)
        self.properties = tuple(properties)
        self.seen = torch.zeros(0, 1 + len(self.properties)) if seen is None else seen
        values = self.seen[:, 1:].double()
        known = ~values.isnan()
        count = known.sum(0).clamp(min=1)
        self.mean = torch.where(known, values, 0.0).sum(0) / count
        spread = (torch.where(known, values - self.mean, 0.0).square().sum(0) / count).sqrt()
        self.std = torch.where(spread > 0, spread, 1.0)
        self._notes = list(notes)
        self._code = torch.full((256,), -1, dtype=torch.long)
        self._code[self.elements] = torch.arange(len(self.elements))

    @classmethod
    def fit(cls, molecules: MoleculeSet, elements: list[int] | None = None, **options: Any) -> MoleculeCodec:
        """The codec of a training part; see the class for the options.

        Args:
            molecules: the training part.
            elements: atomic numbers, where they are not just those that occur.

        Raises:
            UserError: if there are no molecules.
        """
        if not len(molecules):
            raise UserError("there are no molecules to learn from")
        elements = sorted(elements or np.unique(molecules.z).tolist())
        histogram = torch.from_numpy(np.bincount(molecules.n))
        values = [molecules.n[:, None].astype(np.float32)]
        values += [] if molecules.properties is None else [molecules.properties]
        chosen = np.random.default_rng(0).permutation(len(molecules))[:SEEN]
        seen = torch.from_numpy(np.concatenate(values, 1)[np.sort(chosen)])
        return cls(elements, histogram, properties=molecules.names, seen=seen, notes=tuple(molecules.notes), **options)

    def arguments(self) -> dict[str, Any]:
        """What networks and processes are built by: `elements` and `sizes` (both K), `charge`, `categorical`, `properties` (P)."""
        return {
            "elements": len(self.elements),
            "sizes": len(self.elements),
            "charge": self.charge,
            "categorical": self.types == "codes",
            "properties": len(self.properties),
        }

    def notes(self) -> list[str]:
        held = torch.nonzero(self.histogram)[:, 0]
        what = "atoms" if self.hydrogens else "heavy atoms (hydrogens are implicit)"
        return [f"{', '.join(self.symbols)}; {int(held[0])} to {int(held[-1])} {what}", *self._notes]

    def like(self, n: int) -> dict[str, tuple[int, ...]]:
        """The shapes of n atoms in all."""
        k = len(self.elements)
        shapes: dict[str, tuple[int, ...]] = {"pos": (n, 3), "type": (n, k) if self.types == "onehot" else (n,)}
        return shapes | ({"charge": (n, 1)} if self.charge else {})

    @property
    def symbols(self) -> list[str]:
        """The elements that the model knows."""
        return [SYMBOLS.get(number, str(number)) for number in self.elements]

    @property
    def largest(self) -> int:
        """Atoms of the largest molecule seen."""
        return len(self.histogram) - 1

    # ---- states

    def codes(self, z: Any) -> Tensor:
        """(N,) the type of each atom.

        Raises:
            UserError: for an element that the model does not know.
        """
        z = torch.as_tensor(np.asarray(z, np.int64))
        codes = self._code[z.clamp(0, 255)]
        if (codes < 0).any():
            number = int(z[codes < 0][0])
            known = ", ".join(self.symbols)
            raise UserError(f"element {SYMBOLS.get(number, number)} is not one that this model knows ({known})")
        return codes

    def encode(self, z: Any, pos: Any, rows: Rows | None = None) -> dict[str, Tensor]:
        """States of atoms.

        Args:
            z: (N,) atomic numbers.
            pos: (N, 3) positions in Å.
            rows: which molecule each atom belongs to; its centre is moved to the origin. One without `rows`.

        Raises:
            UserError: for an element that the model does not know.
        """
        pos, codes = torch.as_tensor(pos, dtype=torch.float32), self.codes(z)
        rows = rows or Rows(torch.zeros(len(codes), dtype=torch.long), 1)
        return {"pos": center(pos, rows) / self.scales[0], **self.features(codes)}

    def features(self, codes: Tensor) -> dict[str, Tensor]:
        """The parts of the state that types (N,) decide."""
        k, (_, type_scale, charge_scale) = len(self.elements), self.scales
        onehot = F.one_hot(codes, k).float() / type_scale if self.types == "onehot" else codes
        charge = torch.tensor(self.elements, dtype=torch.float32, device=codes.device)[codes, None] / charge_scale
        return {"type": onehot, **({"charge": charge} if self.charge else {})}

    def decode(self, x: State, rows: Rows | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
        """Atomic numbers (n,) uint8 and positions (n, 3) float32 in Å of each molecule.

        Args:
            x: a state; its entry "size" (B,) says how many atoms each molecule has, one after another.
            rows: says it for states without this entry.
        """
        codes = x["type"].argmax(1) if self.types == "onehot" else x["type"].flatten()
        z = torch.tensor([*self.elements, 0], dtype=torch.uint8)[
            codes.cpu()
        ].numpy()  # a mask that is left is no element
        pos = (x["pos"].float() * self.scales[0]).cpu().numpy()
        if rows is not None:
            order = torch.argsort(rows.index, stable=True).cpu().numpy()
            z, pos = z[order], pos[order]
        n = (x["size"] if rows is None else rows.counts()).cpu().numpy()
        ends = np.cumsum(n)[:-1]
        return list(zip(np.split(z, ends), np.split(pos, ends), strict=True)) if len(n) else []

    def condition(self, values: Any, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The condition of molecules with these properties (B, P), NaN for those not said.

        With a generator, and where there are several, each is left out half of the time: any subset of them may be asked for.
        """
        found = ((torch.as_tensor(values).double() - self.mean) / self.std).float()
        if generator is not None and found.shape[1] > 1:
            found = found.masked_fill(torch.rand(found.shape, generator=generator) < 0.5, torch.nan)
        return {"properties": found}

    # ---- files

    def save(self, folder: Path) -> None:
        plain = {
            "elements": self.elements,
            "hydrogens": self.hydrogens,
            "charge": self.charge,
            "types": self.types,
            "scales": list(self.scales),
            "properties": list(self.properties),
        }
        (folder / FILE).write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
        save_file({"histogram": self.histogram, "seen": self.seen.contiguous()}, folder / TENSORS)

    @classmethod
    def load(cls, folder: Path) -> MoleculeCodec:
        """Reads what `save` has left.

        Raises:
            UserError: if a file is missing or damaged.
        """
        try:
            plain = json.loads((folder / FILE).read_text("utf-8"))
            tensors = load_file(folder / TENSORS)
            return cls(histogram=tensors["histogram"], seen=tensors["seen"], **plain)
        except (OSError, ValueError, KeyError, TypeError, IndexError, SafetensorError) as error:
            raise UserError(f"{folder / FILE}: missing or damaged ({error})") from error
