"""The states of the other domains fit the core and the one loop before anyone builds those domains.

Each trains a tiny network for a few steps through the same loop, and samples.
"""

from __future__ import annotations

import math

import torch
from rich.console import Console
from torch import nn

from diffusionkit.core import (
    DDIM,
    DDPM,
    VE,
    Batch,
    Categorical,
    Cosine,
    Diffusion,
    DPMSolver,
    Gaussian,
    LinearVariance,
    Product,
    Rows,
    Torus,
)
from diffusionkit.core.processes import wrap
from diffusionkit.training import train

QUIET = Console(quiet=True)


def learned(diffusion, data, steps=60, lr=1e-2, batch_size=64):
    """Trains and returns whether the loss fell, by the means over the first and the last fifth of the steps."""
    rows = train(diffusion, data, steps=steps, batch_size=batch_size, lr=lr, warmup=1, ema=0.9, console=QUIET)
    losses = [row["loss"] for row in rows]
    fifth = max(1, len(losses) // 5)
    assert all(math.isfinite(loss) for loss in losses)
    return sum(losses[-fifth:]) < 0.9 * sum(losses[:fifth])


def layers(inputs, outputs, width=64):
    return nn.Sequential(
        nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, outputs)
    )


class Row(nn.Module):
    """Numbers and categories of a table row, with the mask of what is given."""

    sizes = (2, 3)

    def __init__(self):
        super().__init__()
        self.layers = layers(2 + 5 + 1 + 4, 2 + 5)

    def forward(self, x, t, cond=None, given=None):
        # The last code is the mask of absorbing categories: all zeros here.
        codes = [nn.functional.one_hot(x["cat"][:, k], size + 1)[:, :-1] for k, size in enumerate(self.sizes)]
        masks = torch.cat([given["num"], given["cat"]], 1)
        out = self.layers(torch.cat([x["num"], *codes, t[:, None], masks], 1).float())
        return {"num": out[:, :2], "cat": out[:, 2:]}


def test_a_mixed_table_row_trains_with_masks_samples_and_completes():
    n = 2000
    category = torch.randint(0, 2, (n, 1))
    cat = torch.cat([category, category + torch.randint(0, 2, (n, 1))], 1)
    num = torch.randn(n, 2) * 0.3 + (2.0 * category - 1)

    def masks(x0, rows):
        return {k: torch.rand(v.shape) < 0.3 for k, v in x0.items()}

    process = Product({"num": Gaussian(Cosine(), "v"), "cat": Categorical([2, 3], "absorbing", LinearVariance())})
    model = Diffusion(Row(), process, masks=masks)
    assert learned(model, {"num": num, "cat": cat}, steps=400)
    torch.manual_seed(0)
    x = DDPM(30)(model, like={"num": (300, 2), "cat": (300, 2)})
    assert x["num"].isfinite().all() and x["cat"][:, 0].max() < 2 and x["cat"][:, 1].max() < 3
    # The category that was given is kept, and the numbers follow it.
    given = {"num": torch.zeros(300, 2, dtype=torch.bool), "cat": torch.tensor([True, False]).expand(300, 2)}
    known = {"num": torch.zeros(300, 2), "cat": torch.ones(300, 2, dtype=torch.long)}
    x = DDPM(30)(model, like={"num": (300, 2), "cat": (300, 2)}, given=given, known=known)
    assert (x["cat"][:, 0] == 1).all() and float(x["num"].mean()) > 0.5


class Step(nn.Module):
    """One step of a forecast of three series, given a hidden state."""

    def __init__(self):
        super().__init__()
        self.layers = layers(3 + 8 + 1, 3)

    def forward(self, x, t, cond=None):
        return self.layers(torch.cat([x, cond["hidden"], t[:, None]], 1))

    def null(self, cond, drop):
        return {"hidden": torch.where(drop[:, None], 0.0, cond["hidden"])}


def test_a_forecast_step_is_conditioned_on_a_hidden_state():
    hidden = torch.randn(2000, 8)
    data = hidden[:, :3] + 0.1 * torch.randn(2000, 3)
    model = Diffusion(Step(), Gaussian(Cosine(), "v"))
    assert learned(model, (data, {"hidden": hidden}), steps=400)
    torch.manual_seed(0)
    paths = DPMSolver(10)(
        model, like=(500, 3), cond={"hidden": torch.tensor([[1.0, -1.0, 0.5] + [0.0] * 5]).expand(500, 8)}
    )
    assert torch.allclose(paths.mean(0), torch.tensor([1.0, -1.0, 0.5]), atol=0.3)


class Molecules:
    """Ragged samples of 2 to 5 rows: positions without a mean, and types."""

    def __len__(self):
        return 200

    def batch(self, indices, generator=None):
        sizes = 2 + indices % 4
        rows = Rows.from_sizes(sizes)
        angle = 2 * math.pi * torch.cat([torch.arange(int(s)) / s for s in sizes])
        ring = torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)], 1)
        position = ring - rows.spread(rows.pool(ring) / sizes[:, None])
        return Batch({"pos": position, "type": rows.spread(indices % 4)[:, None]}, None, rows)


class Graph(nn.Module):
    """Moves every row along the differences to its neighbours, weighted by an MLP of distances."""

    def __init__(self):
        super().__init__()
        self.edges, self.types = layers(2, 1, 32), layers(2, 4, 32)

    def forward(self, x, t, cond, rows):
        same = rows.index[:, None] == rows.index[None]
        difference = x["pos"][:, None] - x["pos"][None]
        distance = difference.square().sum(-1, keepdim=True)
        weight = self.edges(torch.cat([distance, rows.spread(t)[:, None, None].expand_as(distance)], -1))
        out = (weight * difference / (1 + distance) * same[..., None]).sum(1)
        counts = rows.spread(rows.counts().float())[:, None]
        return {"pos": out, "type": self.types(torch.cat([counts, rows.spread(t)[:, None]], 1))[:, None]}


def test_a_batch_of_ragged_molecules_trains_and_stays_centred():
    process = Product({"pos": Gaussian(Cosine(), "v", centered=True), "type": Categorical(4)}, {"type": 0.1})
    model = Diffusion(Graph(), process)
    assert learned(model, Molecules(), steps=150, batch_size=16)
    rows = Rows.from_sizes(torch.tensor([3, 5, 2]))
    x = DDIM(20, eta=1.0)(model, like={"pos": (10, 3), "type": (10, 1)}, rows=rows)
    assert x["pos"].isfinite().all() and rows.pool(x["pos"]).abs().max() < 1e-4
    assert x["type"].min() >= 0 and x["type"].max() < 4


class Poses:
    """A translation for each sample and any number of torsions, none for some."""

    def __len__(self):
        return 120

    def batch(self, indices, generator=None):
        rows = Rows.from_sizes(indices % 3)
        torsions = wrap(1.0 + 0.1 * torch.randn(len(rows.index), 1, generator=generator))
        shift = torch.tensor([2.0, -1.0, 0.5]) + 0.2 * torch.randn(len(indices), 3, generator=generator)
        return Batch({"shift": shift, "torsion": torsions}, None, {"torsion": rows})


class Pose(nn.Module):
    def __init__(self):
        super().__init__()
        self.shift, self.torsion = layers(4, 3, 32), layers(3, 1, 32)

    def forward(self, x, t, cond, rows):
        angle, time = x["torsion"], rows["torsion"].spread(t)[:, None]
        return {
            "shift": self.shift(torch.cat([x["shift"], t[:, None]], 1)),
            "torsion": self.torsion(torch.cat([angle.sin(), angle.cos(), time], 1)),
        }


def test_torsions_and_translations_train_with_samples_that_have_none():
    process = Product({"shift": Gaussian(VE(0.01, 6.0), "edm", sigma_data=1.0), "torsion": Torus()})
    model = Diffusion(Pose(), process)
    assert learned(model, Poses(), steps=300, batch_size=30)
    rows = Rows.from_sizes(torch.tensor([2, 0, 1] * 40))
    torch.manual_seed(0)
    x = DDIM(30, eta=1.0)(model, like={"shift": (120, 3), "torsion": (120, 1)}, rows={"torsion": rows})
    assert torch.allclose(x["shift"].mean(0), torch.tensor([2.0, -1.0, 0.5]), atol=0.4)
    centre = torch.atan2(x["torsion"].sin().mean(), x["torsion"].cos().mean())
    assert abs(float(centre) - 1) < 0.4
