"""Every recipe that ships is built, and trained for one step on a few samples of its kind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from diffusionkit.core import Diffusion
from diffusionkit.molecule.data import Memory
from diffusionkit.molecule.readers import of_list
from diffusionkit.recipe import Recipe, find, listing
from diffusionkit.timeseries import frames
from diffusionkit.timeseries.prepare import prepared
from diffusionkit.training import train
from diffusionkit.training.run import assemble

NAMES = [name for name, _ in listing()]


def pictures(folder: Path) -> str:
    """A folder with two classes of random pictures."""
    from PIL import Image

    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / name).mkdir()
        for i in range(4):
            Image.fromarray(random.integers(0, 255, (70, 80, 3), np.uint8)).save(folder / name / f"{i}.png")
    return str(folder)


def rows(folder: Path) -> str:
    """A file with a few rows of each sort of column."""
    random = np.random.default_rng(0)
    columns = {"x": random.normal(size=60), "k": random.integers(0, 9, 60), "c": random.choice(["a", "b"], 60)}
    pd.DataFrame(columns).to_csv(folder / "my.csv", index=False)
    return str(folder / "my.csv")


@pytest.fixture
def recipe(request, tmp_path) -> Recipe:
    """The recipe; where it needs data of the user's, a few."""
    if request.param == "image/folder":
        return Recipe.load(request.param, {"data.path": pictures(tmp_path)})
    made = Recipe.load(request.param)
    if made.domain.name == "tabular" and made.sections["data"]["name"] == "csv":
        return made.override({"data.path": rows(tmp_path)})
    if made.sections["data"]["name"] == "table" and not os.environ.get("DIFFUSIONKIT_DATA"):
        pytest.skip("its tables are in the folder DIFFUSIONKIT_DATA")
    return made


def of_images(recipe: Recipe) -> tuple[Diffusion, Any]:
    """Two random pictures: published ones would be downloaded."""
    data = recipe.build("data")
    known = recipe.domain.sketch(data)
    if known["shape"] is ...:  # of latents, which only an autoencoder's run tells
        known["shape"] = data.shape
    process = recipe.build("process")
    network = recipe.build("backbone", **known, outputs=process.outputs)
    cond = {"class": torch.tensor([0, 1])} if data.classes else {}
    if "low" in known:
        cond["low"] = torch.rand(2, known["low"], *known["shape"][1:])
    if "vocabulary" in known:
        cond["text"] = torch.tensor([[1, 7, 8, 2], [1, 9, 2, 0]])
    x = torch.rand(2, *known["shape"]) * 2 - 1
    return Diffusion(network, process, recipe.build("objective", **known)), (x, cond or None)


def of_tables(recipe: Recipe) -> tuple[Diffusion, Any]:
    """Two rows of the table that the recipe names."""
    codec, parts = recipe.domain.prepare(recipe.build("data"))
    diffusion = assemble(recipe, codec)
    return diffusion, parts["train"].batch(torch.arange(2)).x


def of_series(recipe: Recipe) -> tuple[Diffusion, Any]:
    """Two windows of three short series, whatever the recipe names, of the codec that it asks for."""
    source = recipe.build("data")
    random, freq = np.random.default_rng(0), {"macro": "QS"}.get(recipe.sections["data"]["name"], "h")
    times = pd.date_range("2020", periods=700, freq=freq, unit="s")
    frame = pd.DataFrame(random.integers(1, 9, (700, 3)).astype(float), times, ["a", "b", "c"])
    panel = frames.read(frame, freq=freq, joint=source.joint)
    codec, parts = prepared(source, {"train": panel})
    return assemble(recipe, codec), parts["train"].batch(torch.tensor([0, 9]))[:2]


def of_conformers(recipe: Recipe) -> tuple[Diffusion, Any]:
    """Two molecules with local structures of ETKDGv3; those of the recipe take minutes to match."""
    from rdkit import Chem

    from diffusionkit.molecule import local_structures
    from diffusionkit.molecule.conformer_codec import ConformerCodec, graph
    from diffusionkit.molecule.conformer_data import Conformers

    molecules = [Chem.MolFromSmiles(text) for text in ("CCCCO", "CC(=O)Nc1ccc(O)cc1")]
    places = [torch.from_numpy(local_structures.embed(mol, [1])).float() for mol in molecules]
    return assemble(recipe, ConformerCodec()), Conformers([graph(mol) for mol in molecules], places)


def of_poses(recipe: Recipe) -> tuple[Diffusion, Any]:
    """Two drugs in made-up pockets; what a model of poses has drawn is judged by how far a torsion has gone."""
    from diffusionkit.molecule import pockets
    from diffusionkit.molecule.conformer_data import readable
    from diffusionkit.molecule.pose_confidence import JudgedPoses
    from diffusionkit.molecule.pose_data import Made
    from diffusionkit.molecule.pose_prepare import Poses, laid

    some = Made().load()["train"][:2]
    graphs = readable([one.ligand for one in some])[1]
    places = [laid(torch.from_numpy(one.ligand.GetConformer().GetPositions())[None].float(), one) for one in some]
    encoded = [pockets.encode(one.pocket) for one in some]
    judged = JudgedPoses(graphs, places, [torch.zeros(1), torch.full((1,), 5.0)], encoded, 2, 0.1)
    from diffusionkit.molecule.pose_codec import PoseCodec

    return assemble(recipe, PoseCodec()), judged if "objective" in recipe.sections else Poses(graphs, places, encoded)


def of_molecules(recipe: Recipe) -> tuple[Diffusion, Any]:
    """Five small molecules, whatever the recipe names, of the codec that it asks for."""
    source = Memory(**{k: v for k, v in vars(recipe.build("data")).items() if k in SHARED})
    source.molecules = of_list(["CCO", "FC#N", "c1ccco1", "CC(N)=O", "OCC"], source.hydrogens)
    codec, parts = source.prepared()
    return assemble(recipe, codec), parts["train"]


MIXED = [
    *(
        "image/digits",
        "image/fashion_dit",
        "image/emoji_text",
        "tabular/randhie",
        "timeseries/macro",
        "timeseries/recurrent",
    ),
    *("timeseries/csdi", "molecule/nci_small", "molecule/conformers", "molecule/poses", "molecule/pose_confidence"),
]
SHARED = ("hydrogens", "properties", "charge", "types", "scales")
EXAMPLES = {
    "conformer": of_conformers,
    "image": of_images,
    "molecule": of_molecules,
    "pose": of_poses,
    "tabular": of_tables,
    "timeseries": of_series,
}


@pytest.mark.parametrize("recipe", NAMES, indirect=True)
def test_recipe_builds_and_trains_one_step(recipe):
    recipe.check()
    diffusion, data = EXAMPLES[recipe.domain.name](recipe)
    before = [p.detach().clone() for p in diffusion.parameters()]
    trained = train(diffusion, data, steps=1, batch_size=2, warmup=0, console=Console(quiet=True))
    assert len(trained) == 1 and np.isfinite(trained[0]["loss"])
    assert any(not torch.equal(a, b) for a, b in zip(before, diffusion.parameters(), strict=True))


@pytest.mark.parametrize("recipe", MIXED, indirect=True)
def test_a_network_of_each_kind_trains_in_mixed_precision(recipe):
    diffusion, data = EXAMPLES[recipe.domain.name](recipe)
    trained = train(diffusion, data, steps=1, batch_size=2, warmup=0, precision="bf16", console=Console(quiet=True))
    assert np.isfinite(trained[0]["loss"])


@pytest.mark.parametrize("recipe", NAMES, indirect=True)
def test_the_sampler_of_a_recipe_fits_its_process(recipe):
    known = {"tabular": {"sizes": [2, 3]}, "molecule": {"sizes": 3}}.get(recipe.domain.name, {})
    recipe.build("sampling").check(recipe.build("process", **known))


@pytest.mark.parametrize("name", NAMES)
def test_recipe_says_in_two_lines_what_to_expect(name):
    text = find(name).read_text("utf-8").splitlines()
    assert text[0].startswith("# ") and text[1].startswith("# ") and not text[2].startswith("#")


def test_every_recipe_is_listed_with_its_line():
    assert {"image/digits", "image/mnist", "image/fashion", "image/cifar", "image/folder"} <= set(NAMES)
    assert {"tabular/randhie", "tabular/csv", "tabular/adult", "tabular/tabddpm", "tabular/tabdiff"} <= set(NAMES)
    assert {f"timeseries/{name}" for name in ("macro", "csv", "many", "timegrad", "recurrent", "csdi")} <= set(NAMES)
    assert {f"molecule/{name}" for name in ("nci_small", "file", "qm9", "qm9_small", "qm9_flow")} <= set(NAMES)
    assert all(line for _, line in listing())


def test_ho_et_al_is_reproduced_in_size():
    """35.7 M parameters (Ho et al. 2020, appendix B)."""
    recipe = Recipe.load("image/cifar")
    data = recipe.build("data")
    with torch.device("meta"):
        network = recipe.build("backbone", shape=data.shape, classes=data.classes, outputs=1)
    assert sum(p.numel() for p in network.parameters()) == 35_746_307
