"""Bond orders of molecules whose hydrogens are not there: what is short and has room for a double bond has one.

Lengths alone make cyclohexane of benzene, all of whose bonds lie between double and single ones. Here the short bonds between
atoms with room compete: a matching of greatest weight, which is a Kekulé structure where there is one.
"""

from __future__ import annotations

import numpy as np

from diffusionkit.molecule import chemistry

_SHORT = {(6, 6): 1.43, (6, 7): 1.39, (6, 8): 1.30, (6, 16): 1.70, (7, 7): 1.37, (7, 8): 1.30, (8, 8): 1.28}
"""Lengths (Å) below which a bond may be double: about half way from aromatic bonds to single ones between flat atoms."""
_OXIDE = 1.55  # Å, below which an oxygen on sulphur or phosphorus has no hydrogen
_LINEAR = -0.87  # cosine of the angle, beyond which an atom has room for two double bonds
_COVER = 0.3  # Å: what it counts, beside being short, that a bond is double at all


def orders(z: np.ndarray, pos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bond orders (n, n) and formal charges (n,) of one molecule of heavy atoms.

    Pairs are bonded as in `chemistry.bond_orders`. Charged are nitro groups and N-oxides; other ions come out neutral, with
    hydrogens as many as that takes.
    """
    z, pos = chemistry.numbers(z), np.asarray(pos, dtype=np.float64)
    bonded = chemistry.bond_orders(z, pos) > 0
    found, charges = bonded.astype(np.int8), np.zeros(len(z), dtype=np.int8)
    distance = chemistry.distances(pos[:, None], pos[None])
    degree = bonded.sum(0)
    room = _room(z, pos, bonded)
    ends = bonded & ((z == 8) & (degree == 1))  # oxygens with no other neighbour
    oxides = []
    for a in np.nonzero((z == 7) & (degree == 3))[0]:
        near = np.nonzero(ends[a] & (distance[a] < _SHORT[6, 7]))[0]
        if len(near):  # the farthest is single in nitro groups as in N-oxides
            oxides.append((a, near[np.argmax(distance[a, near])]))
            room[a], room[oxides[-1][1]] = 1, 0
    for a, b in _triples(z, distance, bonded, room):
        found[a, b] = found[b, a] = 3
        room[[a, b]] = 0
    while pairs := _matching(z, distance, found, room):
        for a, b in pairs:
            found[a, b] = found[b, a] = 2
            room[[a, b]] -= 1
    for a in np.nonzero(((z == 16) | (z == 15)) & (degree > 2))[0]:
        near = ends[a] & (distance[a] < _OXIDE)
        found[a, near] = found[near, a] = 2
    for nitrogen, oxygen in oxides:
        if not room[nitrogen]:
            charges[nitrogen], charges[oxygen] = 1, -1
    return found, charges


def _room(z: np.ndarray, pos: np.ndarray, bonded: np.ndarray) -> np.ndarray:
    """How many double bonds (n,) an atom has room for: one, two where its bonds are in line, as far as its valence goes."""
    degree = bonded.sum(0)
    valence = np.select([z == 6, z == 7, (z == 8) | (z == 16)], [4, 3, 2])
    most = np.ones(len(z), dtype=np.int64)
    for atom in np.nonzero(degree == 2)[0]:
        u, v = pos[bonded[atom]] - pos[atom]
        most[atom] += (u @ v) < _LINEAR * np.linalg.norm(u) * np.linalg.norm(v)
    return np.clip(valence - degree, 0, most)


def _triples(z: np.ndarray, distance: np.ndarray, bonded: np.ndarray, room: np.ndarray) -> list[tuple[int, int]]:
    """Bonds short enough for a triple one, the shortest first, of which no atom has two."""
    limit = chemistry.limits()[z[:, None], z[None], 2]
    degree, carbon = bonded.sum(0), np.isin(z, (6, 7))
    wide = carbon & (((degree == 2) & (room == 2)) | (degree == 1))
    first, second = np.nonzero(
        np.triu(bonded & (distance < limit) & wide[:, None] & wide[None] & ~((z == 7) & (degree > 1)))
    )
    taken: set[int] = set()
    found = []
    for i in np.argsort(distance[first, second]):
        pair = int(first[i]), int(second[i])
        if not taken & set(pair):
            taken |= set(pair)
            found.append(pair)
    return found


def _matching(z: np.ndarray, distance: np.ndarray, found: np.ndarray, room: np.ndarray) -> list[tuple[int, int]]:
    """Single bonds to be made double, each atom in one at most, as many and as short as can be."""
    from networkx import Graph, max_weight_matching

    graph = Graph()
    free = room > 0
    for a, b in zip(*np.nonzero(np.triu(found == 1) & free[:, None] & free[None]), strict=True):
        short = _SHORT.get((min(z[a], z[b]), max(z[a], z[b])), 0.0) - distance[a, b]
        if short > 0:
            graph.add_edge(int(a), int(b), weight=float(short + _COVER))
    return sorted(max_weight_matching(graph))
