"""Molecules from Python."""

import warnings

import pytest
from rdkit import Chem

from diffusionkit.errors import UserError
from diffusionkit.molecule import MoleculeDiffusion
from tests.molecule.small import SMILES
from tests.molecule.test_data import sdf

SMALL = {"backbone.width": 16, "backbone.depth": 1, "training.batch_size": 4, "sampling.steps": 3}


@pytest.fixture(scope="module")
def model():
    made = MoleculeDiffusion(
        hydrogens=True, properties=["rings"], steps=2, settings=SMALL, device="cpu", verbose=False, random_state=0
    )
    return made.fit(SMILES)


def places(molecules):
    return [mol.GetConformer().GetPositions().tolist() for mol in molecules]


def test_fit_and_sample_molecules_with_coordinates(model):
    drawn = model.sample(5)
    assert len(drawn) == 5 and all(isinstance(mol, Chem.Mol) and mol.GetNumConformers() == 1 for mol in drawn)
    assert all(mol.GetIntProp("diffusionkit_valid") in (0, 1) for mol in drawn)
    assert places(drawn) == places(model.sample(5)) != places(model.sample(5, random_state=1))
    assert model.elements_ == ["H", "C", "N", "O", "F"] and len(model.history_)


def test_conditions(model):
    drawn = model.sample(3, where={"rings": (0, 1)}, atoms=8, guidance=1.5)
    assert [mol.GetNumAtoms() for mol in drawn] == [8] * 3
    drawn = model.sample(2, formula="CH4")
    assert [sorted(a.GetSymbol() for a in mol.GetAtoms()) for mol in drawn] == [["C", "H", "H", "H", "H"]] * 2
    piece = model.sample(1, atoms=3, random_state=5)[0]
    for mol in model.sample(2, fragment=piece):
        assert abs(mol.GetConformer().GetPositions()[:3] - piece.GetConformer().GetPositions()).max() < 1e-5


def test_a_file_instead_of_a_list(model, tmp_path):
    path = model.sample(5, out=tmp_path / "a.sdf", batch_size=2)
    assert path == tmp_path / "a.sdf"
    assert len(list(Chem.SDMolSupplier(str(path), sanitize=False))) == 5


def test_saved_and_loaded_it_draws_the_same(model, tmp_path):
    model.save(tmp_path / "m")
    again = MoleculeDiffusion.load(tmp_path / "m", device="cpu")
    assert places(again.sample(3)) == places(model.sample(3)) and again.get_params()["properties"] == ["rings"]


def test_fit_takes_molecules_and_files_and_notes_what_it_skips(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = sdf(tmp_path / "my.sdf", SMILES[:4])
    mols = [mol for mol in Chem.SDMolSupplier(str(path), removeHs=False)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for given in (path, str(path), [*mols, None, Chem.MolFromSmiles("CC")]):
            made = MoleculeDiffusion(hydrogens=True, steps=1, settings=SMALL, device="cpu", random_state=0).fit(given)
            assert made.run_.codec.histogram.sum() == 4
    said = " ".join(capsys.readouterr().out.split())
    assert "2 of 6 records skipped: molecule 5 (no molecule); molecule 6 (no coordinates" in said


@pytest.mark.parametrize("given", [[], ["C(C"], 3, [None]])
def test_nothing_to_fit(given):
    with pytest.raises(UserError, match="none of the molecules can be used|fit takes"):
        MoleculeDiffusion(steps=1, verbose=False).fit(given)


def test_settings_that_cannot_be(model):
    with pytest.raises(UserError, match="n: at least one"):
        model.sample(0)
    with pytest.raises(UserError, match="is a recipe of the domain tabular"):
        MoleculeDiffusion("tabular/csv").fit(SMILES)
    with pytest.raises(UserError, match="properties"):
        MoleculeDiffusion(properties=["mass"]).fit(SMILES)
