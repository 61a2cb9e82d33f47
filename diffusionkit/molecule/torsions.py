"""Torsion angles: which bonds of a molecule turn, and how its coordinates follow.

A molecule is a tree of rigid pieces joined by its rotatable bonds. Each piece but the root has one bond towards the root, so
pieces and torsions share their numbers, and -1 is the root. `dihedral` and `turn` work on flat batches of any molecules.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

ROTATABLE = "[!$(*#*)&!D1]-&!@[!$(*#*)&!D1]"
"""RDKit's pattern: single bonds outside of rings between atoms with further neighbours, none at a triple bond; amides turn."""


def rotatable(mol: Any) -> list[tuple[int, int]]:
    """The bonds of a molecule of heavy atoms that turn, as pairs of atoms."""
    from rdkit import Chem

    return sorted(mol.GetSubstructMatches(Chem.MolFromSmarts(ROTATABLE), maxMatches=10_000))


def tree(neighbours: list[list[int]], turning: list[tuple[int, int]], centre: int = 0) -> dict[str, Tensor]:
    """The rigid pieces of a connected molecule.

    Args:
        neighbours: of each of N atoms.
        turning: its R rotatable bonds.
        centre: an atom of the root; one in the middle keeps the turned sides small.

    Returns:
        `bond` (R, 2) with the atom on the turned side second, `parent` (R,) the torsion of the piece nearer to the root, `piece`
        (N,) the torsion whose piece an atom is in, and `turned` (P, 2) every atom with every torsion that turns it.
    """
    turns = {frozenset(pair) for pair in turning}
    piece, parent, bond = {centre: -1}, [], []
    waiting = [centre]
    for atom in waiting:
        for other in neighbours[atom]:
            if other in piece:
                continue
            piece[other] = piece[atom]
            if frozenset((atom, other)) in turns:
                parent.append(piece[atom])
                bond.append((atom, other))
                piece[other] = len(bond) - 1
            waiting.append(other)
    turned = []
    for atom in range(len(neighbours)):
        at = piece[atom]
        while at >= 0:
            turned.append((atom, at))
            at = parent[at]
    return {
        "bond": torch.tensor(bond, dtype=torch.long).reshape(-1, 2),
        "parent": torch.tensor(parent, dtype=torch.long),
        "piece": torch.tensor([piece[atom] for atom in range(len(neighbours))], dtype=torch.long),
        "turned": torch.tensor(turned, dtype=torch.long).reshape(-1, 2),
    }


def quadruples(neighbours: list[list[int]], bond: Tensor) -> tuple[Tensor, Tensor]:
    """(Q, 4) atoms a, u, v, b for all neighbours a of u and b of v of each bond (u, v), and (Q,) the number of the bond."""
    found = [
        (k, a, u, v, b)
        for k, (u, v) in enumerate(bond.tolist())
        for a in neighbours[u]
        if a != v
        for b in neighbours[v]
        if b != u
    ]
    table = torch.tensor(found, dtype=torch.long).reshape(-1, 5)
    return table[:, 1:].contiguous(), table[:, 0].contiguous()


def dihedral(pos: Tensor, quad: Tensor) -> Tensor:
    """(Q,) angles in [-pi, pi] of atoms quad (Q, 4), by the sign convention of IUPAC; odd under reflection."""
    a, u, v, b = (pos[quad[:, k]] for k in range(4))
    axis = F.normalize(v - u, dim=1)
    first = torch.linalg.cross(u - a, axis)
    last = torch.linalg.cross(axis, b - v)
    return torch.atan2((torch.linalg.cross(first, last) * axis).sum(1), (first * last).sum(1))


def turn(pos: Tensor, angle: Tensor, bond: Tensor, parent: Tensor, piece: Tensor) -> Tensor:
    """Coordinates after every torsion has been turned by `angle`; lengths and angles of bonds stay.

    The rotation of each piece about its own bond is followed by those of all pieces above it. They are multiplied along the
    tree by doubling, so that the number of products grows with the logarithm of its depth, and with nothing else.

    Args:
        pos: (N, 3).
        angle: (R,), positive as dihedral angles grow.
        bond, parent, piece: of `tree`.
    """
    start = pos[bond[:, 0]]
    rotation = _rotation(F.normalize(pos[bond[:, 1]] - start, dim=1), angle)
    shift = start - _apply(rotation, start)
    # The last place is the root's, which number -1 finds.
    rotation = torch.cat([rotation, torch.eye(3, dtype=pos.dtype, device=pos.device)[None]])
    shift = torch.cat([shift, shift.new_zeros(1, 3)])
    parent = torch.cat([parent, parent.new_full((1,), -1)])
    while bool((parent >= 0).any()):
        shift = _apply(rotation[parent], shift) + shift[parent]
        rotation = rotation[parent] @ rotation
        parent = parent[parent]
    return _apply(rotation[piece], pos) + shift[piece]


def _apply(rotation: Tensor, x: Tensor) -> Tensor:
    return (rotation @ x[:, :, None])[:, :, 0]


def _rotation(axis: Tensor, angle: Tensor) -> Tensor:
    """(R, 3, 3) rotations about unit axes (Rodrigues)."""
    x, y, z = axis.unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).reshape(-1, 3, 3)
    sin, cos = (value[:, None, None] for value in (angle.sin(), angle.cos()))
    outer = axis[:, :, None] * axis[:, None, :]
    return cos * torch.eye(3, dtype=axis.dtype, device=axis.device) + sin * cross + (1 - cos) * outer
