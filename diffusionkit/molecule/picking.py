"""Picking a few of many conformers, so that whatever is meant lies near to one of them."""

from __future__ import annotations

from typing import Any

import numpy as np

_MATCHES = 12  # ways to exchange symmetric atoms that are looked at


def distances(places: np.ndarray, mol: Any, aligned: bool = True) -> np.ndarray:
    """(K, K) root mean square deviations in Å of conformers (K, N, 3), symmetric atoms exchanged; aligned, or in place."""
    matches = mol.GetSubstructMatches(mol, uniquify=False, maxMatches=_MATCHES)
    x = places - places.mean(1 if aligned else (0, 1), keepdims=True)
    square = (x**2).sum((1, 2))
    least = np.full((len(x), len(x)), np.inf)
    for match in matches:
        h = np.einsum("iax,jay->ijxy", x, x[:, list(match)], optimize=True)
        if aligned:
            s = np.linalg.svd(h, compute_uv=False)
            overlap = s[..., 0] + s[..., 1] + np.sign(np.linalg.det(h)) * s[..., 2]
        else:
            overlap = np.trace(h, axis1=2, axis2=3)
        least = np.minimum(least, square[:, None] + square[None] - 2 * overlap)
    least = np.minimum(least, least.T)
    return np.sqrt(np.maximum(least, 0) / places.shape[1])


def nearest_to_all(places: np.ndarray, n: int, mol: Any) -> np.ndarray:
    """(n,) the conformers of (K, N, 3) from which all others are nearest on average, chosen one after another.

    If the conformers are draws of a model, it is the model's own expectation of the best of n's deviation that each choice
    lowers the most (the greedy algorithm of the k-median problem).
    """
    if n >= len(places):
        return np.arange(len(places))
    apart = distances(places, mol)
    nearest, chosen = np.full(len(places), np.inf), []
    for _ in range(n):
        gain = np.minimum(nearest[:, None], apart).mean(0)
        gain[chosen] = np.inf
        chosen.append(int(gain.argmin()))
        nearest = np.minimum(nearest, apart[:, chosen[-1]])
    return np.array(chosen)
