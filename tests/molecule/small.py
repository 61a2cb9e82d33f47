"""A few molecules and a tiny network that has learned nothing, for tests of what is around it."""

from __future__ import annotations

from dataclasses import replace

import torch

from diffusionkit.core import Categorical, Cosine, Diffusion, Gaussian, Product
from diffusionkit.molecule.backbones.egnn import EGNN
from diffusionkit.molecule.codec import MoleculeCodec
from diffusionkit.molecule.readers import of_list
from diffusionkit.molecule.sets import MoleculeSet

SMILES = ["CCO", "c1ccccc1", "CC(=O)N", "C1CC1F", "CC#N", "OCC(O)CO", "Cc1ccco1", "NCCN"]


def molecules(hydrogens: bool = True, smiles: list[str] = SMILES) -> MoleculeSet:
    found = of_list(smiles, hydrogens)
    return found if hydrogens else found.heavy()


def coded(found: MoleculeSet, **options) -> tuple[MoleculeCodec, MoleculeSet]:
    codec = MoleculeCodec.fit(found, **options)
    return codec, replace(found, codec=codec)


def untrained(codec: MoleculeCodec, **options) -> Diffusion:
    torch.manual_seed(0)
    known = codec.arguments()
    sizes = known.pop("sizes")
    kind = Categorical(sizes) if known["categorical"] else Gaussian(Cosine(), "v")
    parts = {"pos": Gaussian(Cosine(), "v", centered=True), "type": kind}
    parts |= {"charge": Gaussian(Cosine(), "v")} if known["charge"] else {}
    return Diffusion(EGNN(**known, width=16, depth=1, **options), Product(parts))
