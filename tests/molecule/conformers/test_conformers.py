"""Conformers from end to end: data, a run, drawing from Python and from the shell, files, broken records."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
import torch
from rdkit import Chem
from rich.console import Console

from diffusionkit.core import DDPM, Diffusion
from diffusionkit.core.processes import Torus
from diffusionkit.errors import UserError
from diffusionkit.molecule import conformer_draw, conformer_evaluate, local_structures
from diffusionkit.molecule.backbones.torsion import TorsionNetwork
from diffusionkit.molecule.conformer_codec import ConformerCodec, graph
from diffusionkit.molecule.conformer_data import Conformers, Made, Sdf, fitted
from diffusionkit.molecule.conformer_export import ENERGY, METHOD, ConformerWriter
from diffusionkit.molecule.conformers import ConformerDiffusion
from diffusionkit.recipe import Recipe
from diffusionkit.training import Run, fit
from tests.molecule.conformers.molecules import embedded

RECIPE = {
    "domain": "conformer",
    "data": {"name": "made"},
    "process": {"name": "torus"},
    "backbone": {"name": "torsion", "width": 8, "depth": 1, "forces": 2},
    "training": {"steps": 2, "batch_size": 4, "pictures": 2},
    "sampling": {"sampler": "ddpm", "steps": 3},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        out = tmp_path_factory.mktemp("run") / "conformers"
        fit(Recipe.of(RECIPE), out, console=Console(quiet=True))
        yield out


@pytest.fixture(scope="module")
def model(folder):
    return ConformerDiffusion.load(folder, "cpu")


def test_a_run_has_its_codec_and_a_picture(folder):
    run = Run.load(folder)
    assert run.domain.name == "conformer" and len(run.codec.examples) == 4
    assert (folder / "pictures" / "final.png").stat().st_size > 2000


def test_data_are_matched_and_kept(folder):
    codec, parts = fitted(Made())
    assert codec.arguments()["features"] == ConformerCodec.features == parts["train"].graphs[0]["features"].shape[1]
    batch = parts["train"].batch(torch.arange(3), torch.Generator().manual_seed(0))
    assert batch.rows.size == 3 and batch.x.shape == (len(batch.rows.index), 1)
    assert torch.allclose(codec.decode(batch.x, batch.cond), batch.cond["pos"], atol=1e-4)
    kept = sorted(local_structures.cache.folder().glob("conformers-*"))
    fitted(Made())
    assert sorted(local_structures.cache.folder().glob("conformers-*")) == kept and len(kept) == 2


def test_conformers_differ_and_keep_stereo(model):
    smiles = "C[C@H](N)C(=O)N[C@@H](CO)C/C=C/c1ccccc1"
    mol = model.conformers(smiles, n=3)
    assert mol.GetNumConformers() == 3 and mol.GetNumAtoms() > mol.GetNumHeavyAtoms()
    for conformer in mol.GetConformers():
        assert np.isfinite(conformer.GetDoubleProp(ENERGY)) and conformer.GetProp(METHOD) == "torsional diffusion"
        seen = Chem.Mol(mol, confId=conformer.GetId())
        for atom in seen.GetAtoms():
            atom.SetChiralTag(Chem.ChiralType.CHI_UNSPECIFIED)
        Chem.AssignStereochemistryFrom3D(seen, conformer.GetId())
        assert Chem.MolToSmiles(Chem.RemoveHs(seen)) == Chem.CanonSmiles(smiles)
    first, second = (mol.GetConformer(k).GetPositions() for k in (0, 1))
    assert np.abs(first - second).max() > 0.1


def test_the_same_seed_gives_the_same_conformers(model):
    same, again, other = (
        model.conformers("CCOCCN", n=2, random_state=seed).GetConformer(1).GetPositions() for seed in (1, 1, 2)
    )
    assert np.array_equal(same, again) and not np.allclose(same, other)


def test_relaxed_conformers_have_less_energy(model):
    plain, relaxed = (model.conformers("OCCC(=O)NC", n=3, relax=relax) for relax in (False, True))
    energies = [[c.GetDoubleProp(ENERGY) for c in mol.GetConformers()] for mol in (plain, relaxed)]
    assert max(energies[1]) < min(energies[0]) and "MMFF94s" in relaxed.GetConformer(0).GetProp(METHOD)


def test_a_rigid_molecule_says_so(model):
    mol = model.conformers("c1ccccc1", n=2)
    assert mol.GetNumConformers() == 2 and "no rotatable bond" in mol.GetConformer(0).GetProp(METHOD)


def test_starting_from_etkdg_with_little_noise_stays_near_it(model):
    wanted = conformer_draw.wanted([("butanol", "CCCCO")], begin=0.02)
    local = conformer_draw.structures(wanted.molecules, range(3))
    found = conformer_draw.draw(model.run.diffusion, DDPM(20), wanted, range(3), local=local).places[0]
    assert np.abs(found - local[0]).max() < 0.5


def test_a_pool_gives_as_many_as_asked_for(model):
    assert model.conformers("CCOCCN", n=2, pool=3).GetNumConformers() == 2


@pytest.mark.parametrize(
    ("molecule", "words"),
    [("C(C", "is no SMILES"), ("C[Pb]C", "element Pb"), ("CCO.CCN", "one connected molecule"), ("", "no SMILES")],
)
def test_what_cannot_be_drawn_is_named(model, molecule, words):
    with pytest.raises(UserError, match=words):
        model.conformers(molecule, n=1)


def test_one_broken_molecule_does_not_stop_the_others(model):
    found, reasons = model.many(["CCOC", "C(C", "CCCO"], n=1)
    assert [mol is None for mol in found] == [False, True, False] and len(reasons) == 1 and "C(C" in reasons[0]


def test_a_file_holds_every_conformer_of_every_molecule_in_order(model, tmp_path, capsys):
    (tmp_path / "in.smi").write_text("CCCO propanol\nC(C broken\nc1ccccc1 benzene\n")
    domain, codec = model.run.domain, model.run.codec
    asked = {"molecules": str(tmp_path / "in.smi")}
    with domain.writer(codec, tmp_path / "out.sdf.gz", 3, **asked) as writer:
        for part in (torch.arange(2), torch.arange(2, 3)):
            writer.write(domain.draw(model.run.diffusion, codec, DDPM(2), part, **asked))
    with gzip.open(tmp_path / "out.sdf.gz") as file:
        found = list(Chem.ForwardSDMolSupplier(file, removeHs=False))
    assert [m.GetProp("_Name") for m in found] == ["propanol"] * 3 + ["benzene"] * 3
    assert [m.GetProp("conformer") for m in found] == ["1", "2", "3"] * 2
    assert all(float(m.GetProp(ENERGY)) > -100 for m in found)
    told = capsys.readouterr().err
    assert "broken" in told and "benzene: has no rotatable bond" in told


def test_files_of_molecules_are_read_whatever_their_kind(tmp_path):
    (tmp_path / "a.csv").write_text("Name,SMILES\nx,CCO\n")
    (tmp_path / "b.csv").write_text("name,structure\nx,CCO\n")
    assert list(conformer_draw.records(tmp_path / "a.csv")) == [("x", "CCO")]
    with pytest.raises(UserError, match="no column smiles"):
        list(conformer_draw.records(tmp_path / "b.csv"))
    with pytest.raises(UserError, match="there is no such file"):
        list(conformer_draw.records(tmp_path / "c.smi"))
    with pytest.raises(UserError, match=r"\.sdf"):
        ConformerWriter(tmp_path / "out.pdf", 1, conformer_draw.wanted([]))


def test_data_of_ones_own_leave_out_what_is_broken(folder, tmp_path):
    writer = Chem.SDWriter(str(tmp_path / "mine.sdf"))
    for mol in Made().load()["train"]:
        writer.write(mol)
    flat = Chem.MolFromSmiles("CCCCCO")
    flat.SetProp("_Name", "flat")
    writer.write(flat)
    writer.close()
    codec, parts = fitted(Sdf(str(tmp_path / "mine.sdf"), test=0.3, structures=1))
    assert "flat: has no three-dimensional coordinates" in " ".join(codec.notes())
    assert len(parts["train"]) + len(parts["test"]) == 8


def test_best_of_n_is_zero_where_the_known_conformer_is_among_them():
    mol = Made().load()["train"][0]
    known = mol.GetConformer().GetPositions()
    places = np.stack([known + np.random.default_rng(0).normal(size=known.shape), known[:, [1, 2, 0]]])
    assert conformer_evaluate.best_of([mol], [places])[0] < 1e-4
    assert np.isnan(conformer_evaluate.best_of([mol], [places[:0]])[0])
    found = conformer_evaluate.measures(np.array([0.4, 0.8, 1.5, np.nan]))
    assert found["below 1"] == 0.5 and found["below 0.5"] == 0.25 and found["median"] == 0.8


def test_evaluate_compares_with_etkdg_and_random_torsions(model):
    found = model.run.domain.evaluate(model.run, n=2)
    assert json.dumps(found) and found["molecules"] == 4
    assert [row["measure"] for row in found["table"]] == ["median", "mean", "below 0.5", "below 1"]
    assert all({"model", "ETKDGv3, 2", "random torsions"} < row.keys() for row in found["table"])
    assert found["better"].keys() == {row["measure"] for row in found["table"]}
    assert all((model.run.folder / path).is_file() for path in found["pictures"])
    with pytest.raises(UserError, match="--part"):
        model.run.domain.evaluate(model.run, n=2, part="valid")


def test_training_lowers_the_loss_below_that_of_knowing_nothing():
    """Two molecules with one conformer each, learned by heart: their scores are found."""
    molecules, places = zip(*(embedded(text) for text in ("CCCCO", "CC(=O)NCC")), strict=True)
    data = Conformers([graph(mol) for mol in molecules], [pos.float()[None] for pos in places])
    torch.manual_seed(0)
    diffusion = Diffusion(TorsionNetwork(width=16, depth=1, forces=2), Torus())
    optimiser, losses = torch.optim.Adam(diffusion.parameters(), lr=1e-2), []
    for _ in range(80):
        loss = diffusion.loss(*data.batch(torch.arange(32) % 2)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-20:]) < 0.7 * sum(losses[:20])
