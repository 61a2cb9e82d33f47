"""How near poses come to the known ones: first and best of n, beside random placement, and how well they are judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diffusionkit.core.seeds import drawing
from diffusionkit.errors import UserError
from diffusionkit.molecule import energy, pose_checks, pose_draw, pose_plots, pose_ranking, pose_relax
from diffusionkit.molecule.conformer_draw import with_conformers
from diffusionkit.molecule.conformer_evaluate import random_torsions
from diffusionkit.molecule.docking import STARTS, starts
from diffusionkit.molecule.pool import progress, shared_out
from diffusionkit.molecule.pose_checks import RIGHT
from diffusionkit.molecule.pose_data import Complex
from diffusionkit.molecule.pose_judging import SEEN, judged, pictures
from diffusionkit.molecule.pose_plots import Panel
from diffusionkit.molecule.pose_ranking import CONFIDENCE, Judge

STARTING = ("etkdg", "crystal")
BETTER = {
    **dict.fromkeys(("below 2", "PB-valid", "below 2 and PB-valid"), "higher"),
    **dict.fromkeys(("median", "clashing"), "lower"),
}
_SEEN = "The first pose of some complexes in its pocket beside the known one, from the nearest to the farthest."


@dataclass
class Docked:
    """The poses of one complex.

    Args:
        complex: with the known pose.
        ligand: made ready.
        places: (n, N, 3) poses of the model.
        random: (n, N, 3) the same start structures at the centre, turned at random, with random torsions.
        far, random_far: (n,) RMSD in Å of each to the known pose.
        scores: (n,) by which poses may be ranked: "density", and "confidence" where there is a judge.
    """

    complex: Complex
    ligand: pose_draw.Ligand
    places: np.ndarray
    random: np.ndarray
    far: np.ndarray
    random_far: np.ndarray
    scores: dict[str, np.ndarray] = field(default_factory=dict)


def evaluate(
    run: Any,
    *,
    n: int = 40,
    part: str = "test",
    seed: int = 0,
    start: str = "etkdg",
    relax: bool = False,
    limit: int = 0,
    checks: bool = True,
) -> dict[str, Any]:
    """See `PoseDomain.evaluate`."""
    if hasattr(run.diffusion.objective, "log_odds"):
        return judged(run)
    if start not in STARTING:
        raise UserError(f"--start: etkdg or crystal, not {start!r}")
    if n < 1 or limit < 0:
        raise UserError(f"-n and --limit: at least 1 and 0, not {n} and {limit}")
    data = run.recipe.build("data")
    parts = data.load()
    if not parts.get(part):
        raise UserError(f"--part: the data have {', '.join(k for k in parts if parts[k])}, not {part!r}")
    chosen = parts[part][: limit or None]
    judge = pose_ranking.judge_of(run)
    found, reasons = docked(run, chosen, n, seed, start, judge)
    if not found:
        raise UserError("no complex could be docked: " + "; ".join(reasons[:5]))
    save(run.folder / f"poses_{part}.npz", found)
    rows = rows_of(found, len(chosen), relax, checks and energy.posebusters())
    told = {"complexes": len(chosen), "n": n, "part": part, "start": start, "radius": data.radius}
    told["centre"] = "centroid of the known ligand's heavy atoms"
    if judge is not None:
        chance = np.concatenate([one.scores[CONFIDENCE] for one in found])
        right = np.concatenate([one.far for one in found]) < RIGHT
        told["confidence"] = {
            "auc": pose_ranking.auc(chance, right),
            "calibration": pose_ranking.calibration(chance, right),
        }
        pose_plots.judged(chance, right, pictures(run.folder) / "confidence.png", told["confidence"])
    picture(found, pictures(run.folder) / "poses.png")
    where = f"{data.radius:g} Å about the known ligand's centroid"
    table = [_shown(name, row) | {"pocket": where} for name, row in rows.items()]
    told |= {"better": BETTER, "pictures": {"pictures/poses.png": _SEEN} | ({} if judge is None else SEEN)}
    return {**told, "left_out": reasons, "rows": rows, "table": table}


def docked(
    run: Any, complexes: Sequence[Complex], n: int, seed: int, start: str = "etkdg", judge: Judge | None = None
) -> tuple[list[Docked], list[str]]:
    """n poses of each complex's ligand and as many random ones, and why complexes are left out.

    Args:
        run: a loaded model of poses.
        complexes: to be docked anew.
        n: poses of each.
        seed: of start structures and noise.
        start: "etkdg" for start structures by ETKDGv3, "crystal" for the known conformer, whose torsions are drawn all the same.
        judge: gives poses a confidence.
    """
    sampler, found, reasons = run.sampler(), [], []
    with progress(f"{len(complexes):,} complexes docked", len(complexes)) as tick:
        for number, one in enumerate(complexes):
            try:
                ligand = pose_draw.ligand(one.name, one.ligand)
                begun = (
                    one.ligand.GetConformer().GetPositions()[None]
                    if start == "crystal"
                    else starts(ligand.mol, min(n, STARTS), 1000 * seed + number)
                )
            except UserError as error:
                reasons.append(str(error))
                tick(1)
                continue
            around = begun[np.arange(n) % len(begun)]
            with drawing(1_000_003 * seed + number, next(run.diffusion.parameters()).device):
                places = pose_draw.draw(run.diffusion, sampler, one.pocket, [ligand], [around])[0]
            found.append(_measured(one, ligand, places, scattered(ligand, around, one.pocket.center, number), judge))
            tick(1)
    return found, reasons


def _measured(
    one: Complex, ligand: pose_draw.Ligand, places: np.ndarray, random: np.ndarray, judge: Judge | None
) -> Docked:
    far, random_far = (pose_checks.rmsd(ligand.mol, some, one.ligand) for some in (places, random))
    _, scores, _ = pose_ranking.ranked(ligand, places, one.pocket, judge)
    return Docked(one, ligand, places, random, far, random_far, scores)


def scattered(ligand: pose_draw.Ligand, around: np.ndarray, center: np.ndarray, seed: int) -> np.ndarray:
    """(n, N, 3) start structures with their centroid at the centre, turned at random, with random torsions."""
    from scipy.spatial.transform import Rotation

    turned = random_torsions([ligand.graph], [around], seed)[0]
    turned = turned - turned.mean(1, keepdims=True)
    turns = Rotation.random(len(turned), np.random.default_rng(seed)).as_matrix()
    return np.einsum("kij,knj->kni", turns, turned) + center


def save(path: Path, found: Sequence[Docked]) -> None:
    """All poses and their distances, for models that judge: "pos/NAME" (n, N, 3) float32 and "rmsd/NAME" (n,)."""
    arrays = {}
    for one in found:
        arrays[f"pos/{one.complex.name}"] = one.places.astype(np.float32)
        arrays[f"rmsd/{one.complex.name}"] = one.far.astype(np.float32)
    part = path.with_name(f".{path.name}.part.npz")
    try:
        np.savez(part, **arrays)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


# ---- figures


def chosen(one: Docked) -> dict[str, np.ndarray]:
    """The pose (N, 3) of a complex by each way to choose one."""
    ways = pose_ranking.rankings(one.scores).items()
    first = {f"model, first by {by}": one.places[int(values.argmax())] for by, values in ways}
    return first | {
        "model, first drawn": one.places[0],
        "model, best of n": one.places[int(one.far.argmin())],
        "random, first": one.random[0],
        "random, best of n": one.random[int(one.random_far.argmin())],
    }


def rows_of(
    found: Sequence[Docked], total: int, relax: bool = False, checks: bool = True
) -> dict[str, dict[str, float]]:
    """For each way to choose a pose: share below 2 Å, median RMSD, and with `checks` the shares that are PB-valid.

    Args:
        found: docked complexes.
        total: how many there were; those left out count as wrong.
        relax: add rows in which the poses that the model has chosen are relaxed in the pocket.
        checks: run PoseBusters on the chosen poses.
    """
    each = [chosen(one) for one in found]
    places = {name: [ways[name] for ways in each] for name in each[0]}
    if relax:
        for name in (next(iter(places)), "model, best of n"):
            places[f"{name}, relaxed"] = [relaxed(d, p) for d, p in zip(found, places[name], strict=True)]
    return {name: measures(found, some, total, checks) for name, some in places.items()}


def relaxed(one: Docked, place: np.ndarray) -> np.ndarray:
    """A pose (N, 3) minimised in its pocket."""
    full, _, _ = pose_relax.finished(one.ligand.mol, place[None], one.complex.pocket, relax=True)
    return full.GetConformer().GetPositions()[: len(place)]


def measures(found: Sequence[Docked], places: Sequence[np.ndarray], total: int, checks: bool) -> dict[str, float]:
    """Figures of one pose (N, 3) for each complex."""
    pairs = list(zip(found, places, strict=True))
    far = np.array([pose_checks.rmsd(d.ligand.mol, place[None], d.complex.ligand)[0] for d, place in pairs])
    row = {"below 2": float((far < RIGHT).sum() / total), "median": float(np.median(far))}
    row["clashing"] = float(
        np.mean([pose_checks.clashes(d.ligand.mol, p[None], d.complex.pocket)[0] > 0 for d, p in pairs])
    )
    if not checks:
        return row
    items = [(with_conformers(d.ligand.mol, p[None]), d.complex.pocket, d.complex.ligand) for d, p in pairs]
    with progress("PoseBusters", len(items)) as tick:
        good = np.array([one for part in shared_out(valid, items, tick, few=16) for one in part], dtype=bool)
    return row | {
        "PB-valid": float(good.sum() / total),
        "below 2 and PB-valid": float((good & (far < RIGHT)).sum() / total),
    }


def valid(items: Sequence[tuple[Any, Any, Any]]) -> list[bool]:
    """Whether poses pass all of PoseBusters' checks but that of the energy: pairs of a molecule, its pocket and the known pose."""
    return [all(pose_checks.sound(mol, pocket, known, energy=False)[0].values()) for mol, pocket, known in items]


def _shown(name: str, row: dict[str, float]) -> dict[str, str]:
    return {
        "pose": name,
        **{key: f"{value:.2f} Å" if key == "median" else f"{value:.3f}" for key, value in row.items()},
    }


def picture(found: Sequence[Docked], path: Path) -> None:
    """The first pose of a few complexes beside the known one: from the nearest to the farthest."""
    first = [(d, int(next(iter(pose_ranking.rankings(d.scores).values())).argmax())) for d in found]
    first.sort(key=lambda pair: pair[0].far[pair[1]])
    some = [first[k] for k in np.unique(np.linspace(0, len(first) - 1, 6).round().astype(int))]
    shown = [
        Panel(
            with_conformers(d.ligand.mol, d.places[k][None]),
            d.complex.pocket,
            f"{d.complex.name}, {d.far[k]:.1f} Å",
            d.complex.ligand,
        )
        for d, k in some
    ]
    pose_plots.draw(shown, path, 3)
