"""Complexes made ready for training: start structures fitted to the crystal pose, pockets encoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusionkit.core.rows import Rows
from diffusionkit.core.state import Batch
from diffusionkit.errors import UserError
from diffusionkit.molecule import local_structures, pockets, pose_codec
from diffusionkit.molecule.conformer_codec import Graph
from diffusionkit.molecule.conformer_data import matched, readable
from diffusionkit.molecule.matching import superpose
from diffusionkit.molecule.pose_codec import PoseCodec
from diffusionkit.molecule.pose_data import Complex, PoseData

_EXAMPLES = 4


class Poses:
    """Complexes, encoded.

    Args:
        graphs: of the ligands.
        places: for each (k, N, 3) start structures laid on its true pose, relative to the pocket's centre.
        encoded: the pockets.
        copies: how many times a complex is in a batch, each time at another noise level.
        jitter: standard deviation in Angstrom of the noise on the pockets' centres.
    """

    def __init__(
        self,
        graphs: list[Graph],
        places: list[Tensor],
        encoded: list[dict[str, Tensor]],
        copies: int = 1,
        jitter: float = 0.0,
    ) -> None:
        self.graphs, self.places, self.encoded = graphs, places, encoded
        self.copies, self.jitter = copies, jitter

    def __len__(self) -> int:
        return len(self.graphs)

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Batch:
        """`copies` poses of each complex at `indices`; a start structure drawn for each, or the first without a generator."""
        chosen = indices.tolist()
        shift = (
            self.jitter * torch.randn(len(chosen), 3, generator=generator) if generator else torch.zeros(len(chosen), 3)
        )
        inside = torch.arange(len(chosen)).repeat_interleave(self.copies)
        which = torch.rand(len(inside), generator=generator) if generator else torch.zeros(len(inside))
        owner = [chosen[k] for k in inside.tolist()]
        pos = [
            self.places[i][int(u * len(self.places[i]))] - shift[k]
            for i, u, k in zip(owner, which.tolist(), inside.tolist(), strict=True)
        ]
        near = [{**self.encoded[i], "pos": self.encoded[i]["pos"] - shift[k]} for k, i in enumerate(chosen)]
        return pose_codec.batch([self.graphs[i] for i in owner], pos, inside, near)


def fitted(data: PoseData) -> tuple[PoseCodec, dict[str, Poses]]:
    """What `Domain.prepare` gives. Held out is the part that one chooses by, if there is one; training need not see the other."""
    parts = data.load()
    held = parts.get("val") or parts.get("test") or []
    notes, encoded, kept = list(data.notes), {}, {}
    for name, complexes in (("train", parts["train"]), ("test", held)):
        encoded[name], kept[name], reasons = encode(complexes, data, name)
        if reasons:
            first = "; ".join(reasons[:5]) + ("; ..." if len(reasons) > 5 else "")
            notes.append(f"{len(reasons)} of {len(complexes)} complexes of {name} are left out: {first}")
    if not kept["train"]:
        raise UserError("there is no complex to train on; one is a protein and a ligand with known coordinates")
    shown = [(c.pocket, block(c.ligand)) for c in examples(kept["test"] or kept["train"])]
    return PoseCodec(shown, data.radius, elements(kept["train"]), data.embedding, notes), encoded


def encode(complexes: Sequence[Complex], data: PoseData, part: str) -> tuple[Poses, list[Complex], list[str]]:
    """The complexes of a part that can be used, encoded, these complexes, and why others cannot.

    What takes long is kept in the cache, in a file named by the content of the ligands.
    """
    good, graphs, reasons = readable([c.ligand for c in complexes])
    owner = {c.name: c for c in complexes}
    places = local_structures.stored(
        f"poses 1 {data.structures}", good, lambda: matched(good, graphs, data.structures, part)
    )
    kept = [owner[mol.GetProp("_Name")] for mol in good]
    usable = [k for k, place in enumerate(places) if len(place)]
    reasons += [f"{c.name}: ETKDGv3 finds no coordinates" for k, c in enumerate(kept) if k not in usable]
    poses = Poses(
        [graphs[k] for k in usable],
        [laid(torch.from_numpy(places[k]).float(), kept[k]) for k in usable],
        [pockets.encode(kept[k].pocket) for k in usable],
        data.copies,
        data.jitter,
    )
    return poses, [kept[k] for k in usable], reasons


def laid(places: Tensor, complex_: Complex) -> Tensor:
    """(k, N, 3) structures laid on the true pose by least squares, relative to the pocket's centre."""
    true = torch.from_numpy(complex_.ligand.GetConformer().GetPositions() - complex_.pocket.center)
    rows = Rows.from_sizes(torch.full((len(places),), len(true)))
    flat = superpose(places.reshape(-1, 3).double(), true.repeat(len(places), 1), rows)
    return flat.reshape(places.shape).to(places.dtype)


def examples(complexes: Sequence[Complex]) -> list[Complex]:
    """A few complexes whose ligands are of a usual size."""
    return sorted(complexes, key=lambda c: abs(c.ligand.GetNumAtoms() - 22))[:_EXAMPLES]


def elements(complexes: Sequence[Complex]) -> list[str]:
    """Symbols of all elements in ligands and pockets."""
    from rdkit import Chem

    numbers: set[int] = set()
    for one in complexes:
        numbers |= {int(z) for z in np.unique(one.pocket.z)} | {a.GetAtomicNum() for a in one.ligand.GetAtoms()}
    return [Chem.GetPeriodicTable().GetElementSymbol(z) for z in sorted(numbers)]


def block(mol: Any) -> str:
    """A molecule with its coordinates as text."""
    from rdkit import Chem

    return Chem.MolToMolBlock(mol)
