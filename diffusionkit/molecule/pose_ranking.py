"""Which of many poses comes first: by a model that judges poses and by how many others lie near."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffusionkit.errors import UserError
from diffusionkit.molecule import pose_checks, pose_draw
from diffusionkit.molecule.pockets import Pocket

CALIBRATION = "calibration.json"
"""In the run folder of a model that judges: the two numbers of Platt's scaling."""
CONFIDENCE, DENSITY = "confidence", "density"
BOTH = f"{CONFIDENCE} and {DENSITY}"


@dataclass(frozen=True)
class Judge:
    """A model that tells how likely a pose is right.

    Args:
        diffusion: with an objective that has `log_odds`.
        scale, shift: the probability is the logistic function of scale * log odds + shift (Platt 1999).
    """

    diffusion: Any
    scale: float = 1.0
    shift: float = 0.0

    def probability(self, pocket: Pocket, ligand: pose_draw.Ligand, places: np.ndarray) -> np.ndarray:
        """(k,) chance of each pose (k, N, 3) of lying within 2 Å of the true one."""
        odds = pose_draw.confidence(self.diffusion, pocket, [ligand], [places])[0]
        return logistic(self.scale * odds + self.shift)


def judge(run: Any) -> Judge:
    """The judge that a run is.

    Raises:
        UserError: if it was not trained to judge poses, or its calibration is damaged.
    """
    if not hasattr(run.diffusion.objective, "log_odds"):
        raise UserError(f"{run.folder}: does not judge poses; train one that does with molecule/pose_confidence")
    file = Path(run.folder) / CALIBRATION
    if not file.is_file():
        return Judge(run.diffusion)
    try:
        kept = json.loads(file.read_text("utf-8"))
        return Judge(run.diffusion, float(kept["scale"]), float(kept["shift"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: damaged: {error}") from error


def judge_of(run: Any, confidence: str | Path | None = None) -> Judge | None:
    """The judge of a run's poses.

    Args:
        run: a loaded model of poses.
        confidence: the run folder of a model that judges; by default the folder `confidence` in the run's, if there is one.

    Raises:
        UserError: as `judge`.
    """
    inside = Path(run.folder) / "confidence"
    if confidence is None and not (inside / "recipe.yaml").is_file():
        return None
    device = next(run.diffusion.parameters()).device
    return judge(type(run).load(inside if confidence is None else confidence, str(device)))


def rankings(scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What poses may be ranked by (k,), the higher the better: the way that is used comes first.

    That is the judge's odds times the density, which is the model's own, smoothed chance of a pose: the two err in different
    poses, and together they tell right ones from wrong ones of the same ligand better than either alone. Without a judge it is
    the density.

    Args:
        scores: by name, DENSITY and perhaps CONFIDENCE.
    """
    if CONFIDENCE not in scores:
        return dict(scores)
    chance, density = scores[CONFIDENCE], scores[DENSITY]
    both = chance / np.maximum(1 - chance, np.finfo(np.float64).tiny) * density
    return {BOTH: both, CONFIDENCE: chance, DENSITY: density}


def ranked(
    ligand: pose_draw.Ligand, places: np.ndarray, pocket: Pocket, judge: Judge | None
) -> tuple[np.ndarray, dict[str, np.ndarray], str]:
    """The order of poses (k, N, 3), the best first; their scores by name, in the order of the poses; and what it is by."""
    scores = {DENSITY: pose_checks.density(places, ligand.mol)}
    if judge is not None:
        scores[CONFIDENCE] = judge.probability(pocket, ligand, places)
    by, values = next(iter(rankings(scores).items()))
    return np.argsort(-values, kind="stable"), scores, by


def logistic(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(x, dtype=np.float64)))


def platt(odds: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Scale and shift of log odds (k,) with which they tell best which (k,) are right, in the sense of the cross-entropy.

    The targets are drawn in a little, as Platt (1999) has it, so that they stay finite where all are right or none.
    """
    from scipy.optimize import minimize

    right = np.asarray(right, dtype=bool)
    high, low = (right.sum() + 1) / (right.sum() + 2), 1 / ((~right).sum() + 2)
    target, x = np.where(right, high, low), np.asarray(odds, dtype=np.float64)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        z = parameters[0] * x + parameters[1]
        off = logistic(z) - target
        return float((np.logaddexp(0, z) - target * z).mean()), np.array([(off * x).mean(), off.mean()])

    scale, shift = minimize(loss, np.array([1.0, 0.0]), jac=True, method="BFGS").x
    return float(scale), float(shift)


def auc(score: np.ndarray, right: np.ndarray) -> float:
    """The chance that a right pose has a higher score than a wrong one, ties counted half; nan without one of either."""
    from scipy.stats import rankdata

    right = np.asarray(right, dtype=bool)
    many, few = right.sum(), (~right).sum()
    if not many or not few:
        return float("nan")
    return float((rankdata(score)[right].sum() - many * (many + 1) / 2) / (many * few))


def calibration(chance: np.ndarray, right: np.ndarray, bins: int = 10) -> dict[str, Any]:
    """Predicted and true shares of right poses in bins of equally many poses, and the mean gap between the two."""
    parts = [p for p in np.array_split(np.argsort(chance, kind="stable"), bins) if len(p)]
    said, seen = ([float(np.asarray(values)[p].mean()) for p in parts] for values in (chance, right))
    sizes = np.array([len(p) for p in parts])
    gap = float((sizes * np.abs(np.array(said) - np.array(seen))).sum() / max(sizes.sum(), 1))
    return {"predicted": said, "true": seen, "error": gap}
