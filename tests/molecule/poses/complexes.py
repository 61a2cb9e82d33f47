"""Ligands in a small random pocket, and networks that have learned nothing."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from diffusionkit.core import VE, Diffusion, Gaussian, Product, Rotation, Torus
from diffusionkit.core.state import Batch
from diffusionkit.molecule import local_structures, pockets, pose_codec, pose_draw
from diffusionkit.molecule.backbones.pose import PoseNetwork
from diffusionkit.molecule.conformer_codec import Graph
from diffusionkit.molecule.pockets import Pocket

SMILES = ("CC(=O)Nc1ccc(O)cc1", "C[C@H](N)C(=O)O", "c1ccccc1", "OC[C@H](O)CCl")


def pocket(atoms: int = 60, seed: int = 0) -> Pocket:
    """Atoms about the place (5, -3, 2), none nearer to it than 4 Angstrom."""
    rng = np.random.default_rng(seed)
    unit = rng.normal(size=(atoms, 3))
    center = np.array([5.0, -3.0, 2.0])
    place = center + unit / np.linalg.norm(unit, axis=1, keepdims=True) * rng.uniform(4, 9, (atoms, 1))
    kind = {"residue": rng.integers(0, 21, atoms), "atom": rng.integers(0, 20, atoms)}
    group = np.sort(rng.integers(0, 9, atoms))
    return Pocket("made", rng.choice([6, 7, 8, 16], atoms), place, **kind, group=group, center=center)


def ligands(*smiles: str) -> list[tuple[Graph, Tensor]]:
    """Graph and start structure, in float64, of each."""
    found = []
    for text in smiles:
        one = pose_draw.ligand(text, text)
        found.append((one.graph, torch.from_numpy(local_structures.embed(one.mol, [1])[0])))
    return found


def batch_of(*smiles: str, inside: Pocket | None = None) -> Batch:
    """Poses of ligands in one pocket, in float64, not far from its centre and not at their start."""
    made = ligands(*smiles)
    encoded = pockets.encode(inside or pocket(), torch.float64)
    found = pose_codec.batch(
        [g for g, _ in made], [p - p.mean(0) for _, p in made], torch.zeros(len(made), dtype=torch.long), [encoded]
    )
    torch.manual_seed(1)
    return found._replace(x=process().diffuse(found.x, torch.tensor(0.4, dtype=torch.float64), rows=found.rows)[0])


def process() -> Product:
    return Product({"tr": Gaussian(VE(0.2, 3), "eps"), "rot": Rotation(VE(0.05, 1.65)), "tor": Torus()})


def network(**options: object) -> PoseNetwork:
    torch.manual_seed(0)
    made = PoseNetwork(**{"width": 16, "depth": 2, "within": 1, "forces": 4, **options}).double()
    torch.nn.init.normal_(made.whole.weight)  # as it starts, weights are small, and all that is tested would be near 0
    return made


def untrained() -> Diffusion:
    return Diffusion(network().float(), process())
