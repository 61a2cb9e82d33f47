"""Poses of ligands in a pocket, drawn by a model and judged by another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from diffusionkit.core.state import Batch, tree_map
from diffusionkit.errors import UserError
from diffusionkit.molecule import conformer_codec, local_structures, pockets, pose_codec
from diffusionkit.molecule.chemistry import quiet
from diffusionkit.molecule.conformer_codec import Graph
from diffusionkit.molecule.pockets import Pocket

TOGETHER = 64  # poses in one call of the network


@dataclass(frozen=True, eq=False)
class Ligand:
    """A ligand made ready.

    Args:
        mol: of heavy atoms, with a name.
        graph: of `conformer_codec.graph`.
    """

    mol: Any
    graph: Graph


@dataclass(frozen=True, eq=False)
class Wanted:
    """Ligands and pockets of which poses are asked for.

    Args:
        pockets: one for each ligand.
        ligands: what to dock.
        references: an RDKit molecule with the true pose of each, or None where it is not known.
    """

    pockets: list[Pocket]
    ligands: list[Ligand]
    references: list[Any]


@dataclass(frozen=True, eq=False)
class Drawn:
    """Poses.

    Args:
        wanted: what was asked for.
        which: the number of the ligand of each pose.
        places: (N, 3) of each, in Angstrom, in the frame of its pocket's file.
    """

    wanted: Wanted
    which: list[int]
    places: list[np.ndarray]


def ligand(name: str, given: Any) -> Ligand:
    """A ligand from SMILES or an RDKit molecule, whose coordinates are forgotten but for the stereo that they show.

    Raises:
        UserError: in one sentence that starts with the name, if it cannot be used.
    """
    from rdkit import Chem

    try:
        with quiet():
            mol = Chem.MolFromSmiles(given) if isinstance(given, str) else given
            if mol is None or not mol.GetNumAtoms():
                raise UserError("is no SMILES that RDKit reads" if isinstance(given, str) else "RDKit cannot read it")
            mol = local_structures.bare(mol)
            graph = conformer_codec.graph(mol)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    mol.RemoveAllConformers()
    mol.SetProp("_Name", name)
    return Ligand(mol, graph)


def draw(
    diffusion: Any,
    sampler: Any,
    pocket: Pocket,
    ligands: Sequence[Ligand],
    starts: Sequence[np.ndarray],
    watch: Callable[..., None] | None = None,
) -> list[np.ndarray]:
    """A pose for each start structure; the pocket is encoded once.

    Args:
        diffusion: over poses.
        sampler: how to step from noise to data.
        pocket: where the ligands go.
        ligands: to be docked.
        starts: (k, N, 3) structures of each, in Angstrom; their place is of no matter.
        watch: called at every step of the sampler.

    Returns:
        (k, N, 3) of each, in the frame of the pocket's file.
    """
    encoded, found = _encoded(diffusion, pocket), []
    for x, cond, rows in _batches(diffusion, pocket, encoded, ligands, starts):
        like = {name: part.shape for name, part in x.items()}
        with torch.no_grad():
            x = sampler(diffusion, like=like, cond=cond, rows=rows, watch=watch)
            found.append(pose_codec.positions(x, cond).cpu().double().numpy())
    return _split(np.concatenate(found) + pocket.center, starts) if found else [np.array(s) for s in starts]


def asked(
    diffusion: Any, sampler: Any, wanted: Wanted, indices: Sequence[int], watch: Callable[..., None] | None = None
) -> Drawn:
    """A pose for each index, which seeds its start structure; the ligands take turns."""
    which = [index % len(wanted.ligands) for index in indices]
    places: dict[int, np.ndarray] = {}
    for k, (pocket, one) in enumerate(zip(wanted.pockets, wanted.ligands, strict=True)):
        mine = [place for place, index in enumerate(indices) if which[place] == k]
        if not mine:
            continue
        seeds = [indices[place] + 1 for place in mine]
        start = local_structures.of_all(lambda mol, seeds=seeds: local_structures.embed(mol, seeds), [one.mol])[0]
        if not len(start):
            raise UserError(f"{one.mol.GetProp('_Name')}: ETKDGv3 finds no coordinates for it")
        start = start[np.arange(len(mine)) % len(start)]  # a seed may have failed
        places |= zip(mine, draw(diffusion, sampler, pocket, [one], [start], watch)[0], strict=True)
    return Drawn(wanted, which, [places[k] for k in range(len(indices))])


def confidence(
    diffusion: Any, pocket: Pocket, ligands: Sequence[Ligand], places: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """For each pose in the frame of the pocket's file, the log odds that it lies within 2 Angstrom of the true one.

    Args:
        diffusion: of a run that was trained to judge poses (objective `confidence`).
        pocket: where they are.
        ligands: of the poses.
        places: (k, N, 3) of each.

    Returns:
        (k,) of each.
    """
    encoded, found = _encoded(diffusion, pocket), []
    for x, cond, rows in _batches(diffusion, pocket, encoded, ligands, [p - pocket.center for p in places]):
        with torch.no_grad():
            found.append(diffusion.objective.log_odds(diffusion, x, cond, rows).cpu().double().numpy())
    flat, ends = np.concatenate([np.zeros(0), *found]), np.cumsum([len(p) for p in places])[:-1]
    return np.split(flat, ends)


_KEPT: WeakKeyDictionary[Pocket, WeakKeyDictionary[Any, tuple[Any, dict[str, Any]]]] = WeakKeyDictionary()


def _encoded(diffusion: Any, pocket: Pocket) -> dict[str, Any]:
    """The pocket as the network's condition has it, encoded: once for each network, as long as both live and it learns nothing."""
    network, parameters = diffusion.network, list(diffusion.network.parameters())
    device, state = parameters[0].device, [(p.data_ptr(), p._version) for p in parameters]
    kept = _KEPT.setdefault(pocket, WeakKeyDictionary())
    if network not in kept or kept[network][0] != state:
        told = tree_map(lambda leaf: leaf.to(device), pose_codec.joined([pockets.encode(pocket)]))
        network.eval()
        with torch.no_grad():
            kept[network] = state, network.encode(told)
    return kept[network][1]


def _batches(
    diffusion: Any, pocket: Pocket, encoded: dict[str, Any], ligands: Sequence[Ligand], places: Sequence[np.ndarray]
) -> Iterator[Batch]:
    device = next(diffusion.parameters()).device
    graphs = [one.graph for one, p in zip(ligands, places, strict=True) for _ in p]
    pos = [torch.from_numpy(np.array(place)).float() for p in places for place in p]
    for first in range(0, len(pos), TOGETHER):
        some = slice(first, first + TOGETHER)
        x, cond, rows = pose_codec.batch(graphs[some], pos[some], torch.zeros(len(pos[some]), dtype=torch.long))
        x, cond = (tree_map(lambda leaf: leaf.to(device), tree) for tree in (x, cond))
        yield Batch(x, {**cond, "pocket": encoded}, {name: r.to(device) for name, r in rows.items()})


def _split(flat: np.ndarray, like: Sequence[np.ndarray]) -> list[np.ndarray]:
    ends = np.cumsum([p.shape[0] * p.shape[1] for p in like])[:-1]
    return [part.reshape(p.shape) for part, p in zip(np.split(flat, ends), like, strict=True)]
