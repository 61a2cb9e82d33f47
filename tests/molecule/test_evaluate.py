"""An evaluation sets a model's molecules beside real ones; it is told here what the model draws."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from diffusionkit.core import DDPM
from diffusionkit.errors import UserError
from diffusionkit.molecule import evaluate, generate, report
from diffusionkit.molecule.domain import MoleculeDomain
from diffusionkit.molecule.sets import MoleculeSet
from tests.molecule.small import SMILES, coded, molecules, untrained

HELD_OUT = ["CCC", "CO", "CCN", "CC=O"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def made(tmp_path, hydrogens=True, names=(), **options):
    """A run with an untrained network."""
    whole = molecules(hydrogens, SMILES + HELD_OUT)
    if names:
        values = np.stack([whole.n, whole.n], 1)[:, : len(names)].astype(np.float32)
        whole = MoleculeSet(whole.z, whole.pos, whole.n, whole.smiles, values, names)
    codec, whole = coded(whole, hydrogens=hydrogens, **options)
    parts = {"train": whole.take(np.arange(8)), "test": whole.take(np.arange(8, 12))}
    recipe = SimpleNamespace(
        build=lambda section: SimpleNamespace(prepared=lambda: (codec, parts)),
        sampling=lambda: SimpleNamespace(guidance=None, clip=None, batch_size=8),
    )
    return SimpleNamespace(
        recipe=recipe, codec=codec, diffusion=untrained(codec), domain=MoleculeDomain(), folder=tmp_path, parts=parts,
        sampler=lambda: DDPM(steps=2),
    )  # fmt: skip


def draws(part, monkeypatch):
    """The model draws the molecules of a part, again and again; gives the conditions asked for."""
    asked = []

    def molecules(run, n, seed=0, batch_size=None, **wanted):
        asked.append((n, wanted))
        return [part.one(i % len(part)) for i in range(n)]

    monkeypatch.setattr(generate, "molecules", molecules)
    return asked


def test_a_model_that_repeats_its_training_is_told_so(tmp_path, monkeypatch):
    run = made(tmp_path)
    draws(run.parts["train"], monkeypatch)
    found = evaluate.evaluate(run, n=16, pictures=False, poses=False)
    model = found["model"]
    assert model["molecules"] == 16 and model["valid_connected"] == model["complete"] == 1
    assert model["novel"] == 0 and model["unique"] == 0.5
    assert model["elements"] == pytest.approx(0) and model["bond_lengths"]["mean"] == pytest.approx(0, abs=1e-9)
    assert model["molecules_stable"] == pytest.approx(7 / 8)  # not benzene
    assert found["held_out"]["novel"] == 1 and found["held_out"]["molecules"] == 4
    assert found["held_out"]["elements"] > 0.01
    assert set(found["loss"]) == {"held_out", "train"}


def test_an_untrained_model_is_measured_drawn_and_fails(tmp_path):
    run = made(tmp_path)
    found = evaluate.evaluate(run, n=12, poses=False)
    assert found["model"]["molecules_stable"] == 0 and found["model"]["strain_measured"] < 0.2
    assert found["held_out"]["molecules_stable"] > 0.7
    assert (tmp_path / next(iter(found["pictures"]))).stat().st_size > 10_000
    json.dumps(found, allow_nan=False)
    assert [set(row) for row in found["table"]] == [set(report.COLUMNS)] * len(found["table"])
    assert sum(found["model"]["invalid"].values()) == round(12 * (1 - found["model"]["valid"]))


def test_a_model_without_one_sound_molecule_has_no_strain_but_a_table(tmp_path, monkeypatch):
    run = made(tmp_path)
    part = run.parts["train"]
    broken = MoleculeSet(part.z, part.pos * 0, part.n)
    draws(broken, monkeypatch)
    found = evaluate.evaluate(run, n=10, poses=False)
    assert found["model"]["valid"] == 0 and found["model"]["strain"] is None and found["model"]["unique"] is None
    assert {row["measure"]: row["model"] for row in found["table"]}["unique"] == "–"


def test_heavy_atoms_are_valid_unless_they_have_too_many_bonds(tmp_path, monkeypatch):
    run = made(tmp_path, hydrogens=False)
    draws(run.parts["train"], monkeypatch)
    found = evaluate.evaluate(run, n=16, pictures=False, poses=False)
    assert found["model"]["valid_connected"] == 1 and found["model"]["novel"] == 0
    assert not {"atoms_stable", "molecules_stable", "complete"} & set(found["model"])
    assert found["model"]["strain_measured"] > 0.5


def test_what_is_asked_for_is_compared_with_what_is_drawn(tmp_path, monkeypatch):
    run = made(tmp_path, names=("rings",))
    asked = draws(run.parts["train"], monkeypatch)
    monkeypatch.setattr(evaluate, "_property", lambda z, pos, hydrogens, name: float(len(z)))
    errors = evaluate.property_errors(run, run.parts["train"], 40, 0)["rings"]
    sizes = run.parts["train"].n
    targets = np.quantile(sizes.astype(np.float32), (0.1, 0.3, 0.5, 0.7, 0.9))
    assert [n for n, _ in asked] == [8] * 5
    assert [float(wanted["where"].removeprefix("rings=")) for _, wanted in asked] == pytest.approx(targets.tolist())
    expected = np.abs(sizes - targets[:, None]).mean()
    assert errors["model"] == pytest.approx(expected) and errors["unconditional"] == pytest.approx(expected)
    assert errors["measured"] == 1


def test_posebusters_is_in_the_table_or_said_to_be_missing(tmp_path, monkeypatch):
    run = made(tmp_path)
    draws(run.parts["test"], monkeypatch)
    monkeypatch.setattr(evaluate.energy, "posebusters", lambda: False)
    found = evaluate.evaluate(run, n=10, pictures=False)
    row = next(row for row in found["table"] if row["measure"] == "PoseBusters")
    assert "not installed" in row["comment"] and "posebusters" not in found["model"]
    monkeypatch.setattr(evaluate.energy, "posebusters", lambda: True)
    monkeypatch.setattr(
        evaluate.energy, "poses", lambda z, pos, n, hydrogens: {"clash": np.arange(len(n)) > 0, "loaded": n > 0}
    )
    found = evaluate.evaluate(run, n=10, pictures=False)
    row = next(row for row in found["table"] if row["measure"] == "PoseBusters")
    assert row["model"] == "90.0 %" and row["comment"].endswith("clash")


def test_training_names_are_found_once(tmp_path, monkeypatch):
    part = molecules()
    found = evaluate.training_names(part, True)
    assert "CCO" in found and len(found) == len(SMILES)
    monkeypatch.setattr(evaluate.metrics, "names", lambda *_: pytest.fail("found again"))
    assert evaluate.training_names(part, True) == found
    monkeypatch.setattr(evaluate.metrics, "names", lambda *_: ["C", ""])
    assert evaluate.training_names(part.take(np.arange(2)), True) == {"C"}


def test_too_few_molecules_are_refused(tmp_path):
    with pytest.raises(UserError, match="at least 10"):
        evaluate.evaluate(made(tmp_path), n=9)


def test_figures_as_they_are_read():
    assert (report.number(None), report.number(float("nan")), report.number(0.01234)) == ("–", "–", "0.0123")
    assert (report.percent(None), report.percent(0.9936)) == ("–", "99.4 %")
