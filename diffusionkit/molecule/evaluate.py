"""How good a run's molecules are: every figure beside that of as many held-out ones."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Collection
from typing import Any

import numpy as np
import torch

from diffusionkit.core.seeds import drawing
from diffusionkit.core.state import tree_map
from diffusionkit.errors import UserError
from diffusionkit.molecule import chemistry, energy, geometry, metrics
from diffusionkit.molecule.cache import kept
from diffusionkit.molecule.likelihood import molecule_bound
from diffusionkit.molecule.pool import flat, parted
from diffusionkit.molecule.properties import values
from diffusionkit.molecule.sets import MoleculeSet

LEAST = 10  # molecules, below which no measure says anything
REFERENCE = 5000  # training molecules whose geometry is compared with
POSES = 250  # molecules that PoseBusters looks at
LOSSES = 2000  # molecules of each part that the loss is measured on
PICTURE = "evaluation.png"
_SEEN = (
    "Elements, sizes and the most frequent lengths, angles and torsions beside those of training molecules; below them molecules "
    "as chemists write them and as they lie in space."
)

Flat = tuple[np.ndarray, np.ndarray, np.ndarray]


def evaluate(run: Any, *, n: int = 1000, seed: int = 0, pictures: bool = True, poses: bool = True) -> dict[str, Any]:
    """Draws n molecules and measures them; see `MoleculeDomain.evaluate`.

    Returns:
        A tree of numbers; `table` holds the rows that the command prints: measure, model, held out, comment.

    Raises:
        UserError: if the data or an option does not allow it.
    """
    from diffusionkit.molecule import generate, plots_evaluation, report

    if n < LEAST:
        raise UserError(f"-n: must be at least {LEAST}, not {n}")
    start = time.monotonic()
    _, parts = run.recipe.build("data").prepared()
    train, test = parts["train"], parts.get("test", parts.get("val"))
    hydrogens, generator = run.codec.hydrogens, np.random.default_rng(seed)
    drawn = generate.molecules(run, n, seed)
    drawing = time.monotonic() - start
    known = training_names(train, hydrogens)
    reference = some(train, REFERENCE, generator)
    judge = Judge(reference, known, hydrogens, POSES if poses and energy.posebusters() else 0)
    found: dict[str, Any] = {"n": n, "seed": seed, "model": judge(*flat(drawn))}
    if test is not None:
        real = some(test, n, generator)
        found["held_out"] = judge(*real)
    found["properties"] = property_errors(run, train, n, seed) if run.codec.properties else {}
    found["loss"] = {
        name: _loss(run, part, generator, seed) for name, part in (("held_out", test), ("train", train)) if part
    }
    found["bound"] = {
        name: molecule_bound(run, part, seed=seed) for name, part in (("held_out", test), ("train", train)) if part
    }
    found["seconds"] = {"drawing": drawing, "all": time.monotonic() - start}
    if pictures:
        plots_evaluation.evaluation(run.folder / PICTURE, drawn, reference, hydrogens)
        found["pictures"] = {PICTURE: _SEEN}
    asked = poses and not energy.posebusters()
    found["better"] = report.BETTER
    return plain(
        {**found, "table": report.table(found, "not installed: pip install 'diffusionkit[molecule]'" if asked else "")}
    )


class Judge:
    """All measures of molecules against training molecules, worked out once.

    Args:
        reference: flat training molecules, for the geometry and the composition.
        known: SMILES of all training molecules, for novelty.
        hydrogens: whether hydrogens are among the atoms.
        poses: at most so many molecules are shown to PoseBusters; none for 0.
    """

    def __init__(self, reference: Flat, known: Collection[str], hydrogens: bool, poses: int = 0) -> None:
        self.shapes, self.elements = geometry.shapes(*reference), _shares(reference[0])
        self.known, self.hydrogens, self.poses = known, hydrogens, poses

    def __call__(self, z: np.ndarray, pos: np.ndarray, n: np.ndarray) -> dict[str, Any]:
        """Shares, distances and energies as a tree of numbers; nan where there is nothing to measure.

        Without hydrogens there is neither stability nor completeness, which look at open valences.
        """
        bonds = metrics.bonds(z, pos, n)
        atoms, whole = metrics.stable(z, pos, n, bonds)
        said = metrics.validity(z, pos, n, self.hydrogens)
        away = geometry.divergences(geometry.shapes(z, pos, n, bonds), self.shapes)
        strain = energy.strain(z, pos, n, self.hydrogens)
        sound = ~np.isnan(strain[:, 0])
        found = {
            "molecules": len(n),
            **({"atoms_stable": _mean(atoms), "molecules_stable": _mean(whole)} if self.hydrogens else {}),
            "valid": _mean(said.valid),
            "connected": _mean(said.connected),
            "valid_connected": _mean(said.whole),
            **({"complete": _mean(said.complete)} if self.hydrogens else {}),
            "unique": metrics.unique(said.smiles),
            "novel": metrics.novel(said.smiles, self.known),
            "elements": float(np.abs(_shares(z) - self.elements).sum() / 2),
            **{name.replace(" ", "_"): {"mean": one.mean, "missing": one.missing, "types": one.types}
               for name, one in away.items()},
            "strain": float(np.median(strain[sound, 0])) if sound.any() else math.nan,
            "relaxation": float(np.median(strain[sound, 1])) if sound.any() else math.nan,
            "strain_measured": _mean(sound),
            "invalid": dict(Counter(_kind(reason) for reason in said.reasons if reason).most_common()),
        }  # fmt: skip
        if self.poses:
            checks = energy.poses(*flat(parted(z, pos, n)[: self.poses]), self.hydrogens)
            passed = np.all(list(checks.values()), axis=0) if checks else np.zeros(1, dtype=bool)
            found["posebusters"] = {"all": _mean(passed), **{name: _mean(ok) for name, ok in checks.items()}}
        return found


def some(part: MoleculeSet, n: int, generator: np.random.Generator) -> Flat:
    """At most n molecules of a part, at random, as flat arrays."""
    chosen = part.take(np.sort(generator.permutation(len(part))[:n]))
    return chosen.z, chosen.angstrom(), chosen.n


def training_names(train: MoleculeSet, hydrogens: bool) -> frozenset[str]:
    """SMILES of a training part as `metrics.validity` finds them from positions; kept once they are found."""

    def made() -> MoleculeSet:
        return MoleculeSet.of([], sorted(set(metrics.names(train.z, train.angstrom(), train.n, hydrogens))))

    key = (train.z.tobytes(), train.pos.tobytes(), train.n.tobytes(), hydrogens)
    return frozenset(kept("names", key, made).smiles or []) - {""}


def property_errors(run: Any, train: MoleculeSet, n: int, seed: int) -> dict[str, dict[str, float]]:
    """How near properties come to what was asked for: for each, mean absolute errors in its own unit.

    Asked for are the values that 10, 30, 50, 70 and 90 % of the training molecules do not exceed, a fifth of the n molecules
    each. Beside the error (`model`) stands that of training molecules taken at random (`unconditional`), which a model without
    a condition would make at best, and the share of molecules that have a property at all (`measured`).
    """
    from diffusionkit.molecule import generate

    found = {}
    for column, name in enumerate(run.codec.properties):
        real = train.properties[:, column]
        real = real[np.isfinite(real)]
        errors, unguided, measured = [], [], []
        for target in np.quantile(real, (0.1, 0.3, 0.5, 0.7, 0.9)).tolist():
            drawn = generate.molecules(run, max(n // 5, 1), seed, where=f"{name}={target!r}")
            got = np.array([_property(z, pos, run.codec.hydrogens, name) for z, pos in drawn])
            errors += np.abs(got - target)[np.isfinite(got)].tolist()
            measured += np.isfinite(got).tolist()
            unguided.append(np.abs(real - target).mean())
        found[name] = {
            "model": float(np.mean(errors)) if errors else math.nan,
            "unconditional": float(np.mean(unguided)),
            "measured": float(np.mean(measured)),
        }
    return found


def _property(z: np.ndarray, pos: np.ndarray, hydrogens: bool, name: str) -> float:
    mol, _ = chemistry.sanitised(chemistry.molecule(z, pos, bonds="valences", hydrogens=hydrogens))
    return math.nan if mol is None else float(values(mol, (name,))[0])


@torch.no_grad()
def _loss(run: Any, part: MoleculeSet, generator: np.random.Generator, seed: int) -> float:
    """The objective's loss, a mean over molecules of a part."""
    device = next(run.diffusion.parameters()).device
    chosen = torch.from_numpy(np.sort(generator.permutation(len(part))[:LOSSES]))
    total = 0.0
    with drawing(seed, device):
        for indices in chosen.split(64):
            x, cond, rows = part.batch(indices)
            x, cond = (tree_map(lambda leaf: leaf.to(device), tree) for tree in (x, cond))
            total += float(run.diffusion.loss(x, cond, rows.to(device)).double().sum())
    return total / len(chosen)


def _shares(z: np.ndarray) -> np.ndarray:
    return np.bincount(chemistry.numbers(z), minlength=119) / max(len(z), 1)


def _mean(what: np.ndarray) -> float:
    return float(np.mean(what)) if len(what) else math.nan


def _kind(reason: str) -> str:
    """A reason without the numbers of atoms, so that equal ones can be counted."""
    return " ".join(word for word in reason.split() if not word.strip("#,.").isdigit())


def plain(tree: Any) -> Any:
    """A tree that JSON can keep: nan is None."""
    if isinstance(tree, dict):
        return {name: plain(entry) for name, entry in tree.items()}
    if isinstance(tree, list):
        return [plain(entry) for entry in tree]
    return None if isinstance(tree, float) and math.isnan(tree) else tree
