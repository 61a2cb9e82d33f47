"""All domains on one core: real data are better than none, evaluations are counted, and nothing is measured twice."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from benchmarks import domains, models
from benchmarks.cells import read
from benchmarks.domain_measures import MEASURES
from benchmarks.domains import main
from diffusionkit.core import DDIM, DDPM, Heun, UniPC
from diffusionkit.recipe import Recipe
from diffusionkit.training.run import Run, assemble

SMALL = {
    "image/digits": {"backbone.channels": "8", "backbone.multipliers": "[1]"},
    "tabular/randhie": {"backbone.width": "16", "backbone.depth": "1"},
    "timeseries/macro": {"backbone.width": "8", "backbone.depth": "1"},
    "molecule/nci_small": {"backbone.width": "8", "backbone.depth": "1"},
}
NCI = pytest.param("molecule/nci_small", marks=pytest.mark.slow)  # its molecules are made 3D once


def untrained(name, folder):
    recipe = Recipe.load(name, SMALL[name])
    codec, _ = recipe.domain.prepare(recipe.build("data"))
    run = Run(folder, recipe, recipe.domain, codec, assemble(recipe, codec).eval(), 0)
    run.save(folder)
    return run


@pytest.mark.parametrize("name", ["image/digits", "tabular/randhie", "timeseries/macro", NCI])
def test_what_stands_beside_is_better_than_an_untrained_network(name, tmp_path, monkeypatch):
    from diffusionkit.image import features

    monkeypatch.setattr(features, "_STEPS", 20)
    run = untrained(name, tmp_path)
    measure = MEASURES[run.domain.name]
    judge = measure.judge(run, 12)
    torch.manual_seed(0)
    drawn, beside = judge.figures(judge.draw(run.diffusion, DDIM(2))), judge.beside()
    assert judge.count % 12 == 0 and isinstance(beside["what"], str)
    if name != "tabular/randhie":  # of which an untrained network has the frequencies, and 12 rows say nothing
        better = beside["value"] < drawn["value"] if measure.better == "lower" else beside["value"] > drawn["value"]
        assert better and np.isfinite(drawn["value"])


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """The command with untrained networks and few points; what was trained is noted in its `trained`."""
    from diffusionkit.image import features

    monkeypatch.setattr(features, "_STEPS", 20)
    few = {
        "DDPM": (DDPM, 1, (3, 2), (2,)),
        "Heun": (lambda steps: Heun(steps), 2, (6,), (4,)),
        "UniPC": (UniPC, 1, (3,), (3,)),
    }
    monkeypatch.setattr(domains, "SAMPLERS", few)

    def train(name, folder, settings):
        call.trained.append((name, settings))
        untrained(name, folder)
        return dict(zip(models.SPENT, (1.0, 2.0, 300), strict=True))

    def call(*words):
        main([*words, "-n", "12", "--out", str(tmp_path), "--models", str(tmp_path / "models"), "--threads", "1"])

    call.trained = []
    monkeypatch.setattr(domains, "train", train)
    return call


def test_evaluations_are_counted_and_guidance_costs_two(asked, tmp_path, capsys):
    asked("--quick", "--recipes", "image/digits", "timeseries/macro")
    cells = read(tmp_path / "domains_quick.json")
    found = {key.replace(", 12 samples", ""): cell for key, cell in cells.items()}
    assert found["image/digits/own/seed 0"]["evaluations"] == 100, "50 steps, guided"
    assert found["timeseries/macro/own/seed 0"]["evaluations"] == 20
    evaluations = {"DDPM/2": 2, "Heun/4": 3, "UniPC/3": 3}  # Heun's last step is first order
    for way, count in evaluations.items():
        for name in ("image/digits", "timeseries/macro"):
            assert found[f"{name}/{way}/seed 0"]["evaluations"] == count
            assert 0 < found[f"{name}/{way}/seed 0"]["network_share"] < 1
    assert [settings["training.steps"] for _, settings in asked.trained] == ["500", "150"], "a quarter"
    cell = found["image/digits/training/seed 0"]
    assert cell["train_seconds"] == 1.0 and cell["planned"] == 2000 and cell["machine"]["torch"]
    said = capsys.readouterr().out
    assert "quick: 0.25 of the training steps" in said and "of 2,000" in said
    assert (tmp_path / "domains_quick.png").stat().st_size > 1000


def test_it_goes_on_where_it_was(asked, tmp_path, capsys):
    words = ("--recipes", "timeseries/macro", "--seeds", "0", "1", "--steps", "7")
    asked(*words)
    assert [settings["seed"] for _, settings in asked.trained] == ["0", "1"]
    path, before = tmp_path / "domains.json", read(tmp_path / "domains.json")
    gone = "timeseries/macro, 7 steps, 12 samples/Heun/6/seed 0"
    path.write_text(json.dumps({"cells": {key: cell for key, cell in before.items() if key != gone}}))
    capsys.readouterr()
    asked(*words)
    said = capsys.readouterr().out
    assert len(asked.trained) == 2 and said.count(": measuring\n") == 1 and f"{gone}: measuring" in said
    assert read(path)[gone]["value"] == before[gone]["value"], "the same seed, the same samples"
    assert " ± " in said, "the spread over two trainings"


def test_samplers_that_do_not_fit_are_left_out_with_a_word(asked, capsys):
    asked("--quick", "--recipes", "tabular/randhie")
    assert "tabular/randhie: UniPC is left out: UniPC corrects states" in capsys.readouterr().out


def test_what_has_no_measure_is_refused(asked):
    with pytest.raises(SystemExit, match="no measure is named for the domain conformer"):
        asked("--recipes", "molecule/conformers")


def test_a_training_that_was_interrupted_is_seen(tmp_path):
    run = untrained("timeseries/macro", tmp_path)
    assert not models._unfinished(run.folder), "without a history it is as it is"
    (tmp_path / "metrics.csv").write_text("step,loss,seconds\n40,1.0,2.0\n")
    assert models._unfinished(run.folder)
    (tmp_path / "metrics.csv").write_text("step,loss,seconds\n600,1.0,2.0\n")
    assert not models._unfinished(run.folder)


@pytest.mark.slow
def test_a_training_is_that_of_the_command_and_happens_once(tmp_path):
    settings = {"training.steps": "2", "training.pictures": "0", "seed": "3"}
    spent = models.train("timeseries/macro", tmp_path / "run", settings)
    assert set(spent) == set(models.SPENT) and spent["peak_mb"] > 100
    assert models.train("timeseries/macro", tmp_path / "run", settings) == {"train_seconds": spent["train_seconds"]}
    assert Run.load(tmp_path / "run").step == 2
    with pytest.raises(SystemExit, match="has ended with code"):
        models.train("timeseries/macro", tmp_path / "other", {"training.steps": "none"})
