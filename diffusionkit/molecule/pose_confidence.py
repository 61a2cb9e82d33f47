"""Judging poses: a network that tells those within 2 Angstrom of the true pose from others, trained on poses that a model drew."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from diffusionkit.core import Objective, Process
from diffusionkit.core.rows import batch_size
from diffusionkit.core.state import Batch
from diffusionkit.errors import UserError
from diffusionkit.molecule import pockets, pose_codec
from diffusionkit.molecule.conformer_codec import Graph
from diffusionkit.molecule.conformer_data import readable
from diffusionkit.molecule.pose_codec import PoseCodec
from diffusionkit.molecule.pose_data import Complex, Complexes
from diffusionkit.molecule.pose_prepare import block, elements, examples

NEAR = 2.0
"""Angstrom: a pose whose RMSD from the true one is lower counts as right."""


class Confidence(Objective):
    """Cross-entropy of whether a pose lies within 2 Angstrom of the true one (Corso et al. 2023).

    The network sees poses without noise, and gives log odds.
    """

    use = "name it to a model of poses: diffusionkit dock RUN --confidence {run}, or keep it as the folder `confidence` in RUN"

    def __init__(self) -> None:
        super().__init__()

    def check(self, process: Process) -> None:
        """Any: poses are judged as they are."""

    def __call__(self, diffusion: Any, x0: Any, cond: Any = None, rows: Any = None) -> Tensor:
        return F.binary_cross_entropy_with_logits(
            self.log_odds(diffusion, x0, cond, rows), cond["near"], reduction="none"
        )

    def log_odds(self, diffusion: Any, x: Any, cond: Any, rows: Any) -> Tensor:
        """(B,) log odds of poses x."""
        t = torch.zeros(batch_size(x["tr"]), device=x["tr"].device)
        return diffusion(x, t, cond, rows)


class Posed(Complexes):
    """Poses that a model of poses has drawn of the complexes of the data folder, with their distance from the true ones.

    They are in the run folder of that model once it has been evaluated: `diffusionkit evaluate RUN --part train -n 16`, and the
    same with `--part val`.

    Args:
        run: folder of the model.
        root: folder that holds `molecule/complexes.parquet` and its companions; by default that of DIFFUSIONKIT_DATA.
        radius: of the pocket about the ligand's centroid, in Angstrom.
        copies: poses of each complex in one step of training, a quarter of them near ones where there are any.
        jitter: standard deviation of the noise on atoms, in Angstrom.
    """

    def __init__(
        self, run: str = "", root: str = "", radius: float = 12.0, copies: int = 16, jitter: float = 0.1
    ) -> None:
        super().__init__(root, radius, copies, 1, jitter)
        self.run = run

    def prepared(self) -> tuple[PoseCodec, dict[str, JudgedPoses]]:
        """What `Domain.prepare` gives."""
        drawn = {part: self._drawn(part) for part in ("train", "val")}
        parts = self.load()
        found = {name: self._joined(parts[part], drawn[part]) for name, part in (("train", "train"), ("test", "val"))}
        shown = [(c.pocket, block(c.ligand)) for c in examples(parts["val"])]
        return PoseCodec(shown, self.radius, elements(parts["train"]), notes=self.notes), found

    def _drawn(self, part: str) -> dict[str, np.ndarray]:
        if not self.run:
            raise UserError("data.run is missing: the folder of a model of poses that has been evaluated")
        file = Path(self.run).expanduser() / f"poses_{part}.npz"
        if not file.is_file():
            raise UserError(
                f"{file}: there is no such file; make it with: diffusionkit evaluate {self.run} --part {part} -n 16"
            )
        try:
            with np.load(file, allow_pickle=False) as kept:
                return dict(kept)
        except (OSError, ValueError, EOFError, BadZipFile) as error:
            raise UserError(f"{file}: damaged ({error}); evaluate the run again") from error

    def _joined(self, complexes: list[Complex], drawn: dict[str, np.ndarray]) -> JudgedPoses:
        some = [c for c in complexes if f"pos/{c.name}" in drawn]
        good, graphs, _ = readable([c.ligand for c in some])
        names = [mol.GetProp("_Name") for mol in good]
        kept = [c for c in some if c.name in names]
        places = [torch.from_numpy(drawn[f"pos/{c.name}"] - c.pocket.center).float() for c in kept]
        far = [torch.from_numpy(drawn[f"rmsd/{c.name}"]).float() for c in kept]
        encoded = [pockets.encode(c.pocket) for c in kept]
        return JudgedPoses(graphs, places, far, encoded, self.copies, self.jitter)


class JudgedPoses:
    """Poses with what they should be judged.

    Args:
        graphs: of the ligands.
        places: (k, N, 3) poses of each, relative to the pocket's centre.
        far: (k,) Angstrom between each and the true one.
        encoded: the pockets.
        copies: poses of a complex in a batch.
        jitter: standard deviation of the noise on atoms, in Angstrom.
    """

    def __init__(
        self,
        graphs: list[Graph],
        places: list[Tensor],
        far: list[Tensor],
        encoded: list[dict[str, Tensor]],
        copies: int,
        jitter: float,
    ) -> None:
        self.graphs, self.places, self.far, self.encoded = graphs, places, far, encoded
        self.copies, self.jitter = copies, jitter

    def __len__(self) -> int:
        return len(self.graphs)

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Batch:
        """`copies` poses of each complex, a quarter of them near ones where there are any; the first ones without a generator."""
        graphs, pos, near, inside = [], [], [], []
        for k, i in enumerate(indices.tolist()):
            for chosen in self._some(self.far[i], generator):
                place = self.places[i][chosen]
                noise = 0 if generator is None else self.jitter * torch.randn(place.shape, generator=generator)
                graphs.append(self.graphs[i])
                pos.append(place + noise)
                near.append(float(self.far[i][chosen] < NEAR))
                inside.append(k)
        encoded = [self.encoded[i] for i in indices.tolist()]
        found = pose_codec.batch(graphs, pos, torch.tensor(inside), encoded)
        return found._replace(cond={**found.cond, "near": torch.tensor(near)})

    def _some(self, far: Tensor, generator: torch.Generator | None) -> list[int]:
        if generator is None:
            return list(range(min(self.copies, len(far))))
        weight = torch.ones(len(far))
        close = far < NEAR
        if close.any() and not close.all():
            weight = torch.where(close, len(far) / close.sum(), 3 * len(far) / (~close).sum())
        return torch.multinomial(weight, self.copies, replacement=True, generator=generator).tolist()
