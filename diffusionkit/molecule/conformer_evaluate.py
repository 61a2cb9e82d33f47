"""How near conformers come to a known one: best of n, beside what RDKit does without a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from diffusionkit.errors import UserError
from diffusionkit.molecule import conformer_codec, conformer_draw, conformer_plots, local_structures
from diffusionkit.molecule.conformer_data import readable
from diffusionkit.molecule.picking import nearest_to_all

Places = list[np.ndarray]

PICTURE = "evaluation.png"
_SEEN = "Share of molecules whose best conformer is nearer than a distance, and the model's best ones over the known."
_COMMENTS = {
    "median": "Å from the best conformer of each molecule to the known one",
    "mean": "Å",
    "below 0.5": "share of molecules with a conformer so near, in Å",
    "below 1": "share of molecules",
}


def evaluate(
    run: Any, n: int, part: str, seed: int, begin: float, pool: int, clusters: int, relaxed: bool, pictures: bool
) -> dict[str, Any]:
    """See `ConformerDomain.evaluate`."""
    parts = run.recipe.build("data").load()
    if part not in parts:
        raise UserError(f"--part: the data have {', '.join(parts)}, not {part!r}")
    known, graphs, _ = readable(parts[part])
    rows = {
        "model": model(run, known, graphs, n, seed, begin, pool),
        f"ETKDGv3, {n}": etkdg(known, n, seed),
        **({f"ETKDGv3 and MMFF94s, {n}": etkdg(known, n, seed, relax=True)} if relaxed else {}),
        **({f"ETKDGv3, {n} picked of {clusters}": picked(known, n, seed, clusters)} if clusters else {}),
        "random torsions": random_torsions(graphs, etkdg(known, n, seed), seed),
    }
    best = {name: best_of(known, places) for name, places in rows.items()}
    found = {name: measures(nearest) for name, nearest in best.items()}
    table = [
        {"measure": name, **{who: f"{values[name]:.3f}" for who, values in found.items()}, "comment": comment}
        for name, comment in _COMMENTS.items()
    ]
    better = {name: "higher" if name.startswith("below") else "lower" for name in _COMMENTS}
    told = {"better": better, "table": table}
    if pictures:
        conformer_plots.evaluation(known, rows["model"], best, run.folder / PICTURE)
        told["pictures"] = {PICTURE: _SEEN}
    return {"molecules": len(known), "n": n, "seed": seed, "part": part, **found, **told}


def model(
    run: Any,
    known: list[Any],
    graphs: list[conformer_codec.Graph],
    n: int,
    seed: int = 0,
    begin: float = 1.0,
    pool: int = 1,
    sampler: Any = None,
) -> Places:
    """(n, N, 3) conformers of each molecule by the model, on the local structures of the same n of ETKDGv3."""
    wanted = conformer_draw.Wanted(known, graphs, list(range(len(known))), {}, begin, pool)
    torch.manual_seed(seed)
    local = etkdg(known, n, seed)
    return conformer_draw.draw(run.diffusion, sampler or run.sampler(), wanted, range(n), local=local).places


def etkdg(known: Sequence[Any], n: int, seed: int = 0, relax: bool = False) -> Places:
    """(n, N, 3) conformers of each molecule by ETKDGv3, less where it fails; kept in the cache."""
    seeds = range(seed * 100_000 + 1, seed * 100_000 + n + 1)

    def make() -> Places:
        return local_structures.of_all(lambda mol: local_structures.embed(mol, seeds, relax), known, "ETKDGv3")

    return local_structures.stored(f"etkdg {seeds} {relax}", known, make)


def picked(known: Sequence[Any], n: int, seed: int, many: int) -> Places:
    """n of many conformers by ETKDGv3, as `nearest_to_all` picks them."""
    return [p[nearest_to_all(p, n, m)] for p, m in zip(etkdg(known, many, seed), known, strict=True)]


def random_torsions(graphs: list[conformer_codec.Graph], local: Places, seed: int = 0) -> Places:
    """The local structures with every torsion turned to an angle that is drawn uniformly."""
    generator, found = torch.Generator().manual_seed(seed), []
    for graph, places in zip(graphs, local, strict=True):
        batch = conformer_codec.batch([graph] * len(places), list(torch.from_numpy(places)))
        x = (2 * torch.rand(batch.x.shape, dtype=batch.x.dtype, generator=generator) - 1) * math.pi
        found.append(conformer_codec.positions(x, batch.cond).reshape(places.shape).numpy())
    return found


def best_of(known: Sequence[Any], places: Places) -> np.ndarray:
    """(M,) the least symmetry-aware deviation in Angstrom of each molecule's conformers from its known one."""
    from diffusionkit.molecule.rmsd import best_rmsd

    def best(pair: tuple[Any, np.ndarray]) -> float:
        mol, found = pair
        return float(best_rmsd(conformer_draw.with_conformers(mol, found), mol).min()) if len(found) else math.nan

    return np.array(local_structures.each(best, list(zip(known, places, strict=True)), "comparing"))


def measures(best: np.ndarray) -> dict[str, float]:
    """Median, mean and shares below 0.5 and 1 Angstrom; a molecule without conformers counts as one that is not near."""
    there = best[np.isfinite(best)]
    near = np.nan_to_num(best, nan=np.inf)
    return {
        "median": float(np.median(there)),
        "mean": float(there.mean()),
        "below 0.5": float((near < 0.5).mean()),
        "below 1": float((near < 1).mean()),
        "molecules": len(there),
    }
