"""How far the bond lengths, angles and torsions of molecules are from those of others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffusionkit.molecule import chemistry
from diffusionkit.molecule.metrics import Bonds, bonds

UNITS = {"bond lengths": "Å", "bond angles": "°", "torsions": "°"}
_LEAST = 30  # values of a type in the reference, below which its distribution is not known
_BASE = 128


@dataclass(frozen=True)
class Values:
    """Lengths, angles or torsions: a type each (elements along the chain of atoms, either way the same) and a value."""

    kind: np.ndarray
    value: np.ndarray


@dataclass(frozen=True)
class Divergence:
    """How far values are from a reference's.

    Args:
        mean: 1-D Wasserstein distance, the mean over types, each as heavy as it is frequent in the reference; in the values'
            own unit. Types that do not occur are left out.
        missing: the share of the reference whose types do not occur.
        types: the distance for each type, such as "C-O".
    """

    mean: float
    missing: float
    types: dict[str, float]


def shapes(z: np.ndarray, pos: np.ndarray, n: np.ndarray, found: Bonds | None = None) -> dict[str, Values]:
    """All bond lengths (Å), angles (°) and torsions of heavy atoms (° in [0, 180], without sign) of molecules.

    Types are of elements alone: orders are told by length, and lengths sorted by them would be judged by their own ruler. What
    is too long for a bond does not occur here at all: see `stable` and `connected` for that.
    """
    found = bonds(z, pos, n) if found is None else found
    z, pos = chemistry.numbers(z), np.asarray(pos, dtype=np.float64)
    kept = (z[found.first] > 1) & (z[found.second] > 1)
    heavy = Bonds(found.first[kept], found.second[kept], found.order[kept])
    chains = {
        "bond lengths": np.stack([found.first, found.second], 1),
        "bond angles": _angles(found, len(z)),
        "torsions": _torsions(heavy, len(z)),
    }
    measures = {"bond lengths": _length, "bond angles": _angle, "torsions": _torsion}
    return {name: Values(_kinds(z[atoms]), measures[name](pos[atoms])) for name, atoms in chains.items()}


def divergences(found: dict[str, Values], reference: dict[str, Values]) -> dict[str, Divergence]:
    """Of lengths, angles and torsions; see `shapes` and `Divergence`."""
    return {name: divergence(found[name], reference[name]) for name in reference}


def divergence(found: Values, reference: Values) -> Divergence:
    """1-D Wasserstein distance for each type that the reference has often, and their mean; nan where there is none."""
    from scipy.stats import wasserstein_distance

    kinds, counts = np.unique(reference.kind, return_counts=True)
    kinds, counts = kinds[counts >= _LEAST], counts[counts >= _LEAST]
    types, weights = {}, []
    for kind, count in zip(kinds.tolist(), counts.tolist(), strict=True):
        values = found.value[found.kind == kind]
        if len(values):
            types[label(kind)] = float(wasserstein_distance(values, reference.value[reference.kind == kind]))
            weights.append(count)
    if not types:
        return Divergence(float("nan"), 1.0 if len(kinds) else float("nan"), {})
    mean = float(np.average(list(types.values()), weights=weights))
    return Divergence(mean, 1 - sum(weights) / int(counts.sum()), types)


def _kinds(z: np.ndarray) -> np.ndarray:
    """A number for the elements (m, k) along chains, the same from either end."""
    scale = _BASE ** np.arange(z.shape[1])
    return np.maximum(z @ scale, z[:, ::-1] @ scale)


def label(kind: int) -> str:
    """The elements of a type: C-O, or H-C-H."""
    kind = int(kind)
    symbols = []
    while kind:
        kind, number = divmod(kind, _BASE)
        symbols.append(chemistry.SYMBOLS.get(number, str(number)))
    return "-".join(symbols)


def _neighbours(found: Bonds, atoms: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each atom where its neighbours start and how many they are, and the neighbours of all, one atom after another."""
    source = np.concatenate([found.first, found.second])
    target = np.concatenate([found.second, found.first])
    degree = np.bincount(source, minlength=atoms)
    return np.cumsum(degree) - degree, degree, target[np.argsort(source, kind="stable")]


def _angles(found: Bonds, atoms: int) -> np.ndarray:
    """Chains (m, 3) of atoms, each once."""
    start, degree, target = _neighbours(found, atoms)
    ends = [np.zeros((0, 3), dtype=np.int64)]
    for count in np.unique(degree[degree > 1]):
        centre = np.nonzero(degree == count)[0]
        for a, b in zip(*np.triu_indices(count, 1), strict=True):
            ends.append(np.stack([target[start[centre] + a], centre, target[start[centre] + b]], 1))
    return np.concatenate(ends)


def _torsions(found: Bonds, atoms: int) -> np.ndarray:
    """Chains (m, 4) of different atoms, each once: about every bond all pairs of neighbours."""
    start, degree, target = _neighbours(found, atoms)
    left, right = found.first, found.second
    pairs = degree[left] * degree[right]
    bond = np.repeat(np.arange(len(left)), pairs)
    place = np.arange(len(bond)) - np.repeat(np.cumsum(pairs) - pairs, pairs)
    b, c = left[bond], right[bond]
    a = target[start[b] + place // degree[c]] if len(bond) else b
    d = target[start[c] + place % degree[c]] if len(bond) else c
    kept = (a != c) & (d != b) & (a != d)
    return np.stack([a, b, c, d], 1)[kept]


def _length(x: np.ndarray) -> np.ndarray:
    return np.linalg.norm(x[:, 0] - x[:, 1], axis=-1)


def _angle(x: np.ndarray) -> np.ndarray:
    """Angles (m,) in degrees at the middle of positions (m, 3, 3)."""
    u, v = x[:, 0] - x[:, 1], x[:, 2] - x[:, 1]
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(u, v), axis=-1), (u * v).sum(-1)))


def _torsion(x: np.ndarray) -> np.ndarray:
    """Torsions (m,) in degrees in [0, 180] of positions (m, 4, 3)."""
    u, axis, v = x[:, 1] - x[:, 0], x[:, 2] - x[:, 1], x[:, 3] - x[:, 2]
    p, q = np.cross(u, axis), np.cross(axis, v)
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(p, q), axis=-1), (p * q).sum(-1)))
