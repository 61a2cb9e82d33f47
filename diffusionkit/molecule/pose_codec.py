"""Poses as translation, rotation and torsions about a start structure, and what a network is told of ligand and pocket."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusionkit.core.rows import Rows, center
from diffusionkit.core.state import Batch
from diffusionkit.domain import Codec
from diffusionkit.errors import UserError
from diffusionkit.molecule import conformer_codec, pockets
from diffusionkit.molecule.conformer_codec import ConformerCodec, Graph
from diffusionkit.molecule.pockets import Pocket

_POCKET = ("z", "pos", "residue", "atom", "group", "center")  # what the arrays of a pocket are kept as


class PoseCodec(Codec):
    """Between ligands in a pocket and the state of their pose.

    Args:
        examples: held-out complexes for pictures and for samples without a wish: pairs of a pocket and a ligand's mol block.
        radius: in Angstrom, how far about its centre a pocket reaches.
        elements: symbols of the elements that were seen in ligands and pockets.
        embedding: numbers of a precomputed embedding of each residue.
    """

    def __init__(
        self,
        examples: list[tuple[Pocket, str]] | None = None,
        radius: float = 12.0,
        elements: list[str] | None = None,
        embedding: int = 0,
        notes: list[str] | None = None,
    ) -> None:
        self.examples, self.radius = list(examples or []), radius
        self.elements, self.embedding, self._notes = list(elements or []), embedding, list(notes or [])

    def arguments(self) -> dict[str, Any]:
        return {"features": ConformerCodec.features, "pocket": pockets.FEATURES, "embedding": self.embedding}

    def like(self, n: int) -> dict[str, tuple[int, ...]]:
        """Shapes of n poses with a torsion each; a ligand has any number of them."""
        return {"tr": (n, 3), "rot": (n, 3, 3), "tor": (n, 1)}

    def decode(self, x: Any, cond: Any = None) -> Tensor:
        """(N, 3) coordinates relative to the pocket's centre."""
        if cond is None:
            raise ValueError("poses become coordinates with the ligands that they belong to: pass `cond`")
        return positions(x, cond)

    def notes(self) -> list[str]:
        return self._notes

    def save(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        arrays = {
            f"{k}.{name}": getattr(p, name)
            for k, (p, _) in enumerate(self.examples)
            for name in (*_POCKET, "embedding")
        }
        save_file(
            {key: np.ascontiguousarray(value) for key, value in arrays.items() if value is not None},
            folder / "pockets.safetensors",
        )
        kept = {
            "radius": self.radius,
            "elements": self.elements,
            "embedding": self.embedding,
            "examples": [[pocket.name, block] for pocket, block in self.examples],
        }
        (folder / "codec.json").write_text(json.dumps(kept, indent=1))

    @classmethod
    def load(cls, folder: Path) -> PoseCodec:
        from safetensors.numpy import load_file

        file = folder / "codec.json"
        try:
            kept, arrays = json.loads(file.read_text("utf-8")), load_file(folder / "pockets.safetensors")
            named = [
                (
                    Pocket(
                        name, **{key: arrays[f"{k}.{key}"] for key in _POCKET}, embedding=arrays.get(f"{k}.embedding")
                    ),
                    block,
                )
                for k, (name, block) in enumerate(kept.pop("examples"))
            ]
            return cls(named, **kept)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"{file}: damaged: {error}") from error


def positions(x: dict[str, Tensor], cond: dict[str, Any]) -> Tensor:
    """(N, 3) coordinates of poses, relative to the centre of their pocket.

    Torsions turn the pieces of the ligand about its root piece, which lies as in the start structure; the rotation turns the whole
    about its centroid, and the translation is where the centroid lies. So none of the three undoes another, and a pose has
    the same numbers whichever start structure of the same lengths and angles it is told from, but for where the root lies.

    Args:
        x: {"tr": (B, 3), "rot": (B, 3, 3), "tor": (R, 1)}.
        cond: of `batch`.
    """
    pose = Rows(cond["atom"], len(x["tr"]))
    centred = center(conformer_codec.positions(x["tor"], cond), pose)
    return (pose.spread(x["rot"]) @ centred[:, :, None])[:, :, 0] + pose.spread(x["tr"])


def batch(
    graphs: list[Graph], pos: list[Tensor], pocket: Tensor, encoded: list[dict[str, Tensor]] | None = None
) -> Batch:
    """Ligands in their pockets.

    Args:
        graphs: of each ligand.
        pos: (N, 3) of each, relative to its pocket's centre: a pose in training, else a start structure.
        pocket: (B,) which of the pockets each lies in.
        encoded: the pockets, of `pockets.encode`; without them the condition lacks its "pocket".
    """
    torsions, cond, rows = conformer_codec.batch(graphs, pos)
    pose, like = Rows(cond["atom"], len(pos)), cond["pos"]
    x = {
        "tr": pose.pool(like) / pose.counts()[:, None],
        "rot": torch.eye(3, dtype=like.dtype).repeat(len(pos), 1, 1),
        "tor": torsions,
    }
    told = {} if encoded is None else {"pocket": joined(encoded)}
    return Batch(x, {**cond, "inside": pocket, **told}, {"tor": rows})


def joined(encoded: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Pockets after one another; `of` (M,) says which one an atom belongs to."""
    sizes = torch.tensor([len(one["pos"]) for one in encoded])
    found = {name: torch.cat([one[name] for one in encoded]) for name in encoded[0]}
    lead = (sizes.cumsum(0) - sizes).repeat_interleave(torch.tensor([len(one["pair"]) for one in encoded]))
    found["pair"] = found["pair"] + lead[:, None]
    found["of"] = torch.arange(len(encoded)).repeat_interleave(sizes)
    return found
