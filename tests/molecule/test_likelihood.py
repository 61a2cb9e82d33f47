"""The bound on how probable molecules are, against what is known in closed form."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from diffusionkit.core import Categorical, Cosine, Diffusion, Gaussian, Product, bound
from diffusionkit.core.rows import Rows, center
from diffusionkit.molecule import likelihood
from tests.molecule.small import coded, molecules, untrained


class Loaded(NamedTuple):
    """What is asked of a run."""

    diffusion: Any
    codec: Any


class Exact(nn.Module):
    """The posterior means of centred standard normal positions and of types that are all equally probable."""

    def __init__(self, process: Product, sizes: int) -> None:
        super().__init__()
        self.process, self.sizes = process, sizes
        self.nothing = nn.Parameter(torch.zeros(()))

    def forward(self, x, t, cond, rows):
        keep = rows.spread(self.process.schedule(t)[0])[:, None] ** 2
        seen = F.one_hot(x["type"], self.sizes).to(x["pos"])
        # Of standard normal data the posterior mean is alpha x_t, which is v = 0 where alpha^2 + sigma^2 = 1.
        return {"pos": torch.zeros_like(x["pos"]), "type": (keep * seen + (1 - keep) / self.sizes).log()}


def test_with_the_exact_network_the_bound_is_that_of_the_chain():
    """Positions: of a normal law each term is (SNR_s - SNR_t) sigma_t^2 / 2 a free number. Types: hardly more than the entropy."""
    torch.manual_seed(0)
    rows, steps = Rows.from_sizes(torch.tensor([4, 9, 5, 6] * 100)), 50
    x = {"pos": center(torch.randn(len(rows.index), 3, dtype=torch.float64), rows)}
    x["type"] = torch.randint(5, (len(rows.index),))
    process = Product({"pos": Gaussian(Cosine(), "v", centered=True), "type": Categorical(5)})
    found = bound(Diffusion(Exact(process, 5), process), x, None, rows, steps=steps).total().mean()
    alpha, sigma = process.schedule(torch.arange(1, steps + 1, dtype=torch.float64) / steps)
    snr = (alpha / sigma) ** 2
    each = (math.log(2 * math.pi) + 2 * float(sigma[0].log()) + 1) / 2
    each += float(((snr[:-1] - snr[1:]) * sigma[1:] ** 2).sum()) / 2
    free, atoms = 3 * (rows.counts().double().mean() - 1), rows.counts().double().mean()
    lowest = float(free) * each + float(atoms) * math.log(5)
    assert lowest * 0.98 < float(found) < lowest * 1.04


def test_the_number_of_atoms_counts_as_often_as_it_was_seen():
    codec, _ = coded(molecules(smiles=["CCO", "c1ccccc1", "CCN"]))
    n = torch.tensor([int(k) for k in codec.histogram.nonzero()[:, 0]])
    shares = (-likelihood.size_nats(codec, n)).exp()
    assert float(shares.sum()) == pytest.approx(1)
    assert likelihood.size_nats(codec, torch.tensor([codec.largest + 3])).isinf().all()


@pytest.mark.parametrize(("types", "charge"), [("codes", False), ("onehot", True), ("onehot", False)])
def test_every_kind_of_state_has_a_bound(types, charge):
    codec, part = coded(molecules(), types=types, charge=charge, scales=(1.5, 4, 10))

    run = Loaded(untrained(codec), codec)
    found = likelihood.molecule_bound(run, part, draws=3)
    assert found["molecules"] == len(part)
    assert not found["unseen"]
    assert math.isfinite(found["nats"])
    assert 0 < found["size"] < math.log(len(part)) + 1e-9


def test_a_density_in_angstrom_falls_as_molecules_are_stretched():
    """Twice as large molecules in a state of twice the scale are the same numbers; each free length halves the density."""
    found = []
    for scale in (1.0, 2.0):
        codec, part = coded(molecules(), types="codes", scales=(scale, 1, 10))
        run = Loaded(untrained(codec), codec)
        stretched = replace(part, pos=(part.pos * scale).astype(part.pos.dtype))
        found.append(likelihood.molecule_bound(run, stretched, draws=3)["nats"])
    free = 3 * (part.n.mean() - 1)
    assert found[1] - found[0] == pytest.approx(free * math.log(2), rel=1e-4)
