"""From a recipe to a file of molecules, by the ways of the commands."""

import subprocess
import sys

import pytest
import torch
from rdkit import Chem
from rich.console import Console

from diffusionkit.errors import UserError
from diffusionkit.recipe import Recipe
from diffusionkit.training import Run, fit
from diffusionkit.training.sample import sample
from tests.molecule.small import SMILES

GAUSSIAN = {"name": "gaussian", "schedule": "cosine", "predict": "v"}


def recipe(path, properties=(), types="onehot", **changes):
    kind = GAUSSIAN if types == "onehot" else {"name": "categorical"}
    sections = {
        "domain": "molecule",
        "data": {"name": "file", "path": str(path), "properties": list(properties), "types": types},
        "process": {"name": "product", "parts": {"pos": {**GAUSSIAN, "centered": True}, "type": kind}},
        "backbone": {"name": "egnn", "width": 16, "depth": 1},
        "objective": {"name": "simple", "drop": 0.2},
        "training": {"steps": 3, "batch_size": 4, "warmup": 1, "pictures": 5},
        "sampling": {"sampler": "ddpm", "steps": 3, "batch_size": 4},
    }
    return {**sections, **changes}


@pytest.fixture(scope="module", params=["onehot", "codes"])
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        (folder / "my.smi").write_text("\n".join(SMILES))
        made = Recipe.of(recipe(folder / "my.smi", ["logP", "rings"], request.param))
        fit(made, folder / "run", console=Console(quiet=True))
    return Run.load(folder / "run")


def read(path):
    return list(Chem.SDMolSupplier(str(path), sanitize=False, removeHs=False))


def test_training_leaves_a_picture(run):
    assert (run.folder / "pictures" / "final.png").stat().st_size > 1000


def test_every_sample_is_a_record_and_the_seed_decides(run, tmp_path):
    one, same, other = (
        sample(run, 10, tmp_path / f"{i}.sdf", batch_size=4, seed=s).read_bytes() for i, s in enumerate((0, 0, 1))
    )
    assert one == same != other and len(read(tmp_path / "0.sdf")) == 10
    assert sample(run, 2).name == "samples.sdf"


def test_samples_under_conditions(run, tmp_path):
    path = sample(run, 3, tmp_path / "a.sdf", condition={"where": "logP=-1..1; rings=0", "atoms": 9}, guidance=2.0)
    assert [mol.GetNumAtoms() for mol in read(path)] == [9] * 3
    with pytest.raises(UserError, match="knows no property 'TPSA'"):
        sample(run, 3, tmp_path / "b.sdf", condition={"where": "TPSA=3"})
    assert not (tmp_path / "b.sdf").exists()


def test_a_fragment_from_a_file(run, tmp_path):
    (tmp_path / "f.sdf").write_text((sample(run, 1, tmp_path / "a.sdf", condition={"atoms": 4})).read_text())
    known = read(tmp_path / "f.sdf")[0].GetConformer().GetPositions()
    for mol in read(sample(run, 2, tmp_path / "b.sdf", condition={"fragment": str(tmp_path / "f.sdf")})):
        assert abs(mol.GetConformer().GetPositions()[:4] - known).max() < 1e-4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"process": GAUSSIAN}, "process.parts: must be pos, type"),
        ({"process": {"name": "product", "parts": {"pos": GAUSSIAN, "type": GAUSSIAN}}}, "centered: must be true"),
        ({"process": {"name": "product", "parts": {"pos": {**GAUSSIAN, "centered": True}, "type": "torus"}}}, None),
        ({"types": "codes"}, "data.types: must be codes for"),
    ],
)
def test_recipes_whose_parts_do_not_fit(tmp_path, changes, said):
    made = recipe(tmp_path / "a.smi")
    made["data"]["types"] = changes.pop("types", "onehot")
    made.update(changes)
    if said is None:
        return
    with pytest.raises(UserError, match=said):
        Recipe.of(made)


def test_a_domain_imports_nothing_heavy_before_it_is_used():
    code = "import diffusionkit.molecule.domain, diffusionkit.molecule, sys; print([m for m in ('rdkit', 'PIL', 'matplotlib') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_state_is_ragged_and_walks_are_refused(run):
    from diffusionkit.training.interpolate import interpolate

    with pytest.raises(UserError, match="interpolate: not for runs of the domain molecule: sizes differ"):
        interpolate(run)
    assert torch.is_tensor(run.codec.histogram)
