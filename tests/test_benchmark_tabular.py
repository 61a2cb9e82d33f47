from __future__ import annotations

import json
import math
from argparse import Namespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks import tabular, tabular_peers, tabular_quality, tabular_reference, tabular_speed
from benchmarks.cells import Cells
from benchmarks.tabular_figures import against, beaten, distance, met, plain, summary
from benchmarks.tabular_tables import SMALL, independent, load
from diffusionkit.core import DDPM, Categorical, Diffusion, Gaussian
from diffusionkit.core.processes import Product
from diffusionkit.core.schedules import Cosine
from diffusionkit.tabular import TabularDiffusion
from diffusionkit.tabular.backbones.tabddpm import TabDDPM

T, SIZES = 40, [3, 2, 5]


def rows(n, seed=0):
    rng = np.random.default_rng(seed)
    x, k = rng.normal(size=n), rng.integers(0, 30, n)
    colour = np.where(x + rng.normal(size=n) / 2 > 0, "red", "blue")
    return pd.DataFrame(
        {
            "x": x.round(3),
            "k": k,
            "colour": colour,
            "code": rng.integers(0, 3, n),
            "y": (x + k / 30 + rng.normal(size=n) / 3 > 0.5).astype(int),
        }
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two tables in the folder of the published ones, under the names of a classification and a regression of TabDDPM."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "tabular").mkdir()
    frame = rows(300).assign(split=["train"] * 200 + ["val"] * 40 + ["test"] * 60)
    entry = {"target": "y", "task": "binclass", "numerical": ["x", "k"], "categorical": ["colour", "code"]}
    other = {"target": "x", "task": "regression", "numerical": ["k", "y"], "categorical": ["colour", "code"]}
    for name in ("diabetes", "abalone"):
        frame.to_parquet(folder / "tabular" / f"{name}.parquet")
    (folder / "tabular" / "columns.json").write_text(json.dumps({"diabetes": entry, "abalone": other}))
    return str(folder)


def tiny(preset, **arguments):
    """The presets with small networks and batches."""
    size = {"backbone.layers": [8]} if preset == "tabddpm" else {"backbone.width": 16, "backbone.depth": 1}
    return TabularDiffusion(preset, settings={**size, "training.batch_size": 64}, **arguments)


@pytest.fixture
def run(data, tmp_path, monkeypatch, capsys):
    """The command on the small tables; gives what it has printed."""
    monkeypatch.setattr(tabular_quality, "TabularDiffusion", tiny)

    def call(*words):
        where = ["--data", data, "--out", str(tmp_path / "out"), "--models", str(tmp_path / "models"), "--threads", "1"]
        tabular.main([*words, "--seeds", "0", *where])
        return capsys.readouterr().out

    return call


def cells(tmp_path, part):
    return json.loads((tmp_path / "out" / f"tabular_{part}.json").read_text())["cells"]


# ---- the loop over columns has the law of the core ----


def blocks(flat):
    return flat.split(SIZES, 1)


@pytest.mark.parametrize("step", [0, 1, 20, T - 1])
def test_posteriors_mixed_over_x0_are_those_of_the_core(step):
    x_t = torch.stack([torch.randint(size, (50,)) for size in SIZES], 1)
    chances = torch.cat([torch.rand(50, size).softmax(1) for size in SIZES], 1)
    process, alpha_bar = Categorical(SIZES, "uniform", Cosine(T)), Cosine(T).alphas_cumprod
    t, s = (torch.tensor(i / T, dtype=torch.float64) for i in (step + 1, step))
    ours = process._reverse(x_t, chances, t, s, None)
    for k, (mine, of_x0, size) in enumerate(zip(blocks(ours), blocks(chances), SIZES, strict=True)):
        log_x = tabular_reference.log_one_hot(x_t[:, k], size)
        mixture = torch.zeros(50, size)
        for level in range(size):
            log_x0 = tabular_reference.log_one_hot(torch.full((50,), level), size)
            posterior = tabular_reference.posterior(log_x0, log_x, step, alpha_bar).exp()
            mixture += of_x0[:, level : level + 1] * posterior
        assert torch.allclose(mixture, mine.float(), atol=2e-5)


@pytest.mark.parametrize("step", [1, 20, T - 1])
def test_steps_of_the_numbers_are_those_of_the_core(step):
    process, alpha_bar = Gaussian(Cosine(T), "eps"), Cosine(T).alphas_cumprod
    x, noise = torch.randn(50, 4), torch.randn(50, 4)
    t, s = (torch.tensor(i / T, dtype=torch.float64) for i in (step + 1, step))
    torch.manual_seed(1)
    ours = process.step(x, process.estimate(noise, x, t), t, s, variance="large")
    torch.manual_seed(1)
    theirs = tabular_reference.gaussian(x, noise, step, alpha_bar)
    assert torch.allclose(theirs, ours.float(), rtol=1e-3, atol=1e-3 * float(ours.abs().max()))


def test_dense_calls_compute_what_the_network_does():
    network = TabDDPM(
        2, [3, 4, 5], {"num": [0, 1], "cat": [2, 3, 4]}, target=1, layers=[16, 8], width=16, steps=T
    ).eval()
    codes = torch.stack([torch.randint(size, (30,)) for size in (3, 4, 5)], 1)
    numbers, step = torch.randn(30, 2), torch.randint(T, (30,))
    ours = network({"num": numbers, "cat": codes}, (step + 1) / T)
    entries = torch.cat([numbers, *(tabular_reference.log_one_hot(codes[:, k], s) for k, s in ((0, 3), (2, 5)))], 1)
    theirs = tabular_reference.dense(network, codes[:, 1])(entries, step)
    expected = torch.cat([ours["num"], ours["cat"][:, :3], ours["cat"][:, 7:]], 1)
    assert torch.allclose(theirs, expected, rtol=1e-3, atol=1e-3)


class Known(nn.Module):
    """The noise of standard normal data, and one level for sure: which third the number lies in."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x, t, cond=None):
        sigma = Cosine(T)(t.double())[1].float()
        return {"num": sigma[:, None] * x["num"], "cat": levels(x["num"])}


def levels(number):
    return 60 * F.one_hot((number[:, 0] > -0.43).long() + (number[:, 0] > 0.43), 3).float()


def test_whole_chains_agree_on_marginals_and_dependence():
    n, known = 4000, Known()
    process = Product({"num": Gaussian(Cosine(T), "eps"), "cat": Categorical([3], "uniform", Cosine(T))})
    ours = DDPM(T, "large")(Diffusion(known, process), {"num": (n, 1), "cat": (n, 1)})

    def predict(entries, step):
        x = {"num": entries[:, :1]}
        return torch.cat(list(known(x, (step + 1) / T).values()), 1)

    numbers, codes = tabular_reference.sample(predict, Cosine(T).alphas_cumprod, 1, [3], n)
    for x, c in ((ours["num"], ours["cat"]), (numbers, codes)):
        shares = torch.bincount(c[:, 0], minlength=3) / n
        assert torch.allclose(shares, torch.full((3,), 1 / 3), atol=4 * math.sqrt(2 / 9 / n))
        assert float(x.mean()) == pytest.approx(0, abs=4 / math.sqrt(n))
        assert float(x.std()) == pytest.approx(1, abs=0.06)
        assert float((levels(x).argmax(1) == c[:, 0]).float().mean()) > 0.95


# ---- the command ----


def test_quality_measures_once_and_goes_on(run, tmp_path, monkeypatch):
    said = run("quality", "--tables", "diabetes", "--steps", "3")
    assert "default/diabetes/0/3steps: measuring" in said and "C2ST, boosting" in said
    found = cells(tmp_path, "quality")
    assert set(found) == {"floor/diabetes", "default/diabetes/0/3steps", "independent/diabetes"}
    cell = found["default/diabetes/0/3steps"]
    assert cell["steps"] == 3 and cell["rows"] == {"train": 200, "test": 60, "fake": 200}
    assert {"machine", "command", "seconds"} <= set(cell) and cell["machine"]["pandas"]
    assert found["floor/diabetes"]["figures"]["auc"] > found["independent/diabetes"]["figures"]["auc"]

    def never(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(tabular_quality, "fit", never)
    assert "measured already" in run("quality", "--tables", "diabetes", "--steps", "3")
    with pytest.raises(AssertionError, match="again"):
        run("quality", "--tables", "diabetes", "--steps", "3", "--fresh")
    with pytest.raises(AssertionError, match="again"):
        run("quality", "--tables", "diabetes", "--steps", "4")


def test_distances_between_fresh_halves(run, tmp_path):
    said = run("quality", "--tables", "diabetes", "--steps", "2", "--dcr")
    cell = cells(tmp_path, "quality")["default/diabetes/0/2steps/halves"]
    assert cell["rows"] == {"train": 150, "test": 150, "fake": 150}
    assert 0.3 < cell["figures"]["dcr_share"] < 0.7 and "halves" in said


def test_minutes_become_steps(data, monkeypatch, capsys):
    monkeypatch.setattr(tabular_quality, "TabularDiffusion", tiny)
    monkeypatch.setattr(tabular_quality, "_TRIAL", 6)
    table = load("diabetes", data)
    model, seconds = tabular_quality.fit(table, table.train, "default", 0, minutes=1 / 60)
    rate = float(next(line for line in capsys.readouterr().out.splitlines() if "steps a second" in line).split()[0])
    assert model.history_[-1]["step"] == pytest.approx(max(rate, 1), abs=1) and seconds > 0


@pytest.mark.parametrize("name", ["diabetes", "abalone"])
def test_catboost_judges_fakes_on_real_rows(run, tmp_path, name):
    pytest.importorskip("catboost")
    words = ["--tables", name, "--steps", "3", "--samples", "2", "--boosts", "1", "--sample-rows", "150"]
    said = run("small", *words)
    found = cells(tmp_path, "small")
    cell = found[f"default/{name}/0/3steps/2x1"]
    assert len(cell["scores"]) == len(cell["distances"]) == 2 and cell["rows"] == 150
    assert max(cell["scores"]) < found[f"real/{name}/1"]["scores"][0] and found[f"real/{name}/1"]["scores"][0] > 0.5
    assert f"{SMALL[name].tabddpm:.3f}" in said and "MISSED" in said


def test_peers_stand_beside_each_other_and_absent_ones_are_skipped(run, tmp_path, monkeypatch):
    def absent(*_):
        raise ImportError("no", name="somebody")

    def shuffled(table, seed, options):
        return independent(table.train, len(table.train), seed), 1.0, 1.0

    monkeypatch.setattr(tabular_peers, "PEERS", {"absent": absent, "shuffled": shuffled})
    monkeypatch.setattr(tabular_quality, "_TRIAL", 3)
    said = run("peers", "--tables", "diabetes", "--steps", "2")
    assert "absent was skipped: somebody is not installed" in said
    assert set(cells(tmp_path, "peers")) == {"shuffled/diabetes/0", "tabddpm/diabetes/0/equal"}
    assert "default/diabetes/0/2steps" in cells(tmp_path, "quality")
    assert "default is not behind shuffled in any column" in said


def test_smote_makes_as_many_of_each_class_like_the_table(data):
    pytest.importorskip("imblearn")
    table = load("diabetes", data)
    fake, fitted, _ = tabular_peers.smote(table, 0, Namespace())
    assert fake.dtypes.equals(table.train.dtypes) and list(fake) == list(table.train) and fitted == 0
    assert fake["y"].value_counts().to_dict() == table.train["y"].value_counts().to_dict()
    assert set(fake["colour"]) <= set(table.train["colour"]) and set(fake["code"]) <= set(table.train["code"])
    assert fake["x"].between(table.train["x"].min(), table.train["x"].max()).all()
    assert not fake["x"].isin(table.train["x"]).all(), "between neighbours"


def test_speed_has_a_line_for_each_sampler(run, tmp_path):
    said = run(
        "speed", "--tables", "diabetes", "--batch", "64", "--repeats", "1", "--fast", "5", "--layers", "8", "--stream"
    )
    found = cells(tmp_path, "speed")
    samplers = found["sampling/diabetes/64"]["samplers"]
    names = list(samplers)
    assert names[:3] == ["loop over columns", "the same network, 100 steps", "the same network, 5 steps"]
    assert all(name.startswith("default preset, ") for name in names[3:5])
    assert names[5:] == [f"{name}, bf16" for name in names[1:5]]
    assert samplers["loop over columns"]["ratio"] == 1.0 and all(s["rows"] == 128 for s in samplers.values())
    beside = found["sampling/diabetes/64"]["milliseconds_beside_network"]
    assert list(beside) == names[:2] and min(beside.values()) > 0
    assert found["step/diabetes/64"]["ratios"]["step"] > 0 and "untrained" in said


def test_rows_are_written_in_a_flat_memory(data, tmp_path, monkeypatch):
    monkeypatch.setattr(tabular_quality, "TabularDiffusion", tiny)
    table = load("diabetes", data)
    tabular_quality.fit(table, table.train, "default", 0, steps=1)[0].save(tmp_path / "model")
    found = tabular_speed.write(str(tmp_path / "model"), 70, str(tmp_path / "rows.parquet"))
    assert found["rows"] == 70 == len(pd.read_parquet(tmp_path / "rows.parquet"))
    assert found["peak_mb"] >= found["loaded_mb"] > 50


@pytest.mark.slow
def test_memory_is_that_of_a_process_of_its_own(run, tmp_path):
    words = ["--batch", "64", "--repeats", "1", "--fast", "5", "--layers", "8", "--stream", "100", "200"]
    said = run("speed", "--tables", "diabetes", *words)
    assert cells(tmp_path, "speed")["stream/diabetes/200"]["rows"] == 200 and "memory at most 1.1" in said


def test_unknown_parts_are_refused(capsys):
    with pytest.raises(SystemExit):
        tabular.main(["quantity"])
    assert "no part 'quantity'" in capsys.readouterr().err


# ---- figures ----


def test_goals_are_met_on_the_right_side():
    assert [met("adult", "c2st", value) for value in (0.83, 0.84, 0.93)] == ["MISSED", "gate", "ambition"]
    assert [met("shoppers", "shape", value) for value in (0.013, 0.012, 0.009)] == ["MISSED", "gate", "ambition"]
    assert [met("default", "dcr_share", value) for value in (0.46, 0.5, 0.54)] == ["MISSED", "gate", "MISSED"]
    assert met("adult", "alpha", 0.1) == met("other", "shape", 1.0) == ""
    assert against({"auc": 0.9}, {"auc": 0.92})["auc_below"] == pytest.approx(0.02)
    assert summary("shape", [0.01, 0.02]) == "1.50 ± 0.50" and summary("c2st", [None]) == ""
    assert plain({"a": math.nan, "b": 1}) == {"a": None, "b": 1.0}


def test_being_ahead_is_being_nearer_to_real_rows():
    assert distance("beta", 0.7, 0.5) > distance("beta", 0.45, 0.5)
    assert distance("dcr_share", 0.8, 0.5) > distance("dcr_share", 0.52, 0.5) == 0
    real = {"beta": 0.5, "copies": 0.01}
    ours = [{"shape": 0.01, "beta": 0.48, "copies": 0.01, "sampling_seconds": 9.0, "fit_seconds": 99.0}]
    theirs = [{"shape": 0.02, "beta": 0.9, "copies": 0.2, "sampling_seconds": 1.0, "fit_seconds": 1.0}]
    (line,) = beaten({"ours": ours, "theirs": theirs}, real)
    assert line == "ours is not behind theirs in any column but seconds to sample"


def test_cells_are_written_one_by_one(tmp_path):
    path = tmp_path / "deep" / "cells.json"
    Cells(path).get("a", lambda: {"value": 1})
    later = Cells(path)
    assert later.get("a", lambda: {"value": 2})["value"] == 1
    with pytest.raises(ZeroDivisionError):
        later.get("b", lambda: {"value": 1 / 0})
    assert set(json.loads(path.read_text())["cells"]) == {"a"}
    fresh = Cells(path, fresh=True)
    assert [fresh.get("a", lambda n=n: {"value": n})["value"] for n in (3, 4)] == [3, 3], "once in a run"
