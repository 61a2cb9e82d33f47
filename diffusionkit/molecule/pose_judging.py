"""How well a model judges poses: ROC and calibration, and the two numbers that its probabilities are calibrated by."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffusionkit.errors import UserError
from diffusionkit.molecule import pose_draw, pose_plots, pose_ranking
from diffusionkit.molecule.pool import progress
from diffusionkit.molecule.pose_checks import RIGHT
from diffusionkit.molecule.pose_data import Complex
from diffusionkit.molecule.pose_ranking import CALIBRATION

SEEN = {
    "pictures/confidence.png": "How well right poses are told from wrong ones, and whether the confidence is what it says."
}


def judged(run: Any) -> dict[str, Any]:
    """ROC and calibration of a model that judges; fits the two numbers of Platt's scaling on the part to choose by.

    They go into its run folder, and figures of the test part stand beside them where the model whose poses it judges has been
    evaluated there.
    """
    data, found = run.recipe.build("data"), {}
    folder = Path(data.run).expanduser()
    complexes = data.load()
    scale, shift, shown = 1.0, 0.0, None
    for part in ("val", "test"):
        file = folder / f"poses_{part}.npz"
        if not file.is_file():
            continue
        odds, far, firsts = _odds(run, complexes[part], file)
        if part == "val":
            scale, shift = pose_ranking.platt(odds, far < RIGHT)
            (run.folder / CALIBRATION).write_text(json.dumps({"scale": scale, "shift": shift}) + "\n")
        chance, right = pose_ranking.logistic(scale * odds + shift), far < RIGHT
        found[part] = {
            "poses": len(far), "right": float(right.mean()), "auc": pose_ranking.auc(chance, right), **firsts,
            "calibration": pose_ranking.calibration(chance, right),
        }  # fmt: skip
        shown = (chance, right, found[part])
    if shown is None:
        raise UserError(f"{folder}: has no poses_val.npz; make it with: diffusionkit evaluate {folder} --part val")
    pose_plots.judged(shown[0], shown[1], pictures(run.folder) / "confidence.png", shown[2])
    table = [
        {
            "part": part, "poses": f"{row['poses']:,}", "right": f"{row['right']:.3f}", "AUC": f"{row['auc']:.3f}",
            "calibration off by": f"{row['calibration']['error']:.3f}", "first right": f"{row['first right']:.3f}",
            "any right": f"{row['any right']:.3f}",
        }
        for part, row in found.items()
    ]  # fmt: skip
    return {"scale": scale, "shift": shift, **found, "table": table, "pictures": SEEN}


def pictures(folder: str | Path) -> Path:
    """The folder of a run's pictures, made if it is not there."""
    found = Path(folder) / "pictures"
    found.mkdir(parents=True, exist_ok=True)
    return found


def _odds(run: Any, complexes: Sequence[Complex], file: Path) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Log odds and RMSD of all poses of a file, and the shares of complexes whose first, and any, pose is right."""
    with np.load(file, allow_pickle=False) as kept:
        drawn = dict(kept)
    odds, far = [], []
    some = [one for one in complexes if f"pos/{one.name}" in drawn]
    with progress(f"{len(some):,} complexes judged", len(some)) as tick:
        for one in some:
            ligand, places = pose_draw.ligand(one.name, one.ligand), drawn[f"pos/{one.name}"].astype(np.float64)
            odds.append(pose_draw.confidence(run.diffusion, one.pocket, [ligand], [places])[0])
            far.append(drawn[f"rmsd/{one.name}"])
            tick(1)
    if not some:
        raise UserError(f"{file}: holds no pose of a complex of the data")
    first = [bool(f[o.argmax()] < RIGHT) for f, o in zip(far, odds, strict=True)]
    shares = {"first right": float(np.mean(first)), "any right": float(np.mean([f.min() < RIGHT for f in far]))}
    return np.concatenate(odds), np.concatenate(far), shares
