"""Docking from end to end: ranked poses, files, screens that go on, commands, figures; with networks that have learned nothing."""

from __future__ import annotations

import gzip
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from rdkit import Chem
from rich.console import Console

from diffusionkit.cli import main
from diffusionkit.core import DDPM
from diffusionkit.errors import UserError
from diffusionkit.molecule import docking, pose_checks, pose_draw, pose_evaluate, pose_ranking
from diffusionkit.molecule.docking import Docking
from diffusionkit.molecule.pose_data import Made
from diffusionkit.molecule.poses import PoseDiffusion
from diffusionkit.molecule.screen import _settings, screen
from diffusionkit.recipe import Recipe
from diffusionkit.training import fit
from tests.molecule.poses.complexes import pocket, untrained

LIGANDS = [("para", "CC(=O)Nc1ccc(O)cc1"), ("broken", "C(C"), ("lead", "C[Pb]C"), ("acid", "C[C@H](N)C(=O)O")]


class Lower:
    """A judge that likes poses that lie low."""

    diffusion, scale, shift = untrained(), 1.0, 0.0

    def probability(self, pocket, ligand, places):
        return pose_ranking.logistic(-places.mean(1)[:, 2])


@pytest.fixture(scope="module")
def how() -> Docking:
    return Docking(untrained(), DDPM(2), pocket(), n=4)


@pytest.fixture(scope="module")
def made():
    return Made().load()["test"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, made):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        out = tmp_path_factory.mktemp("run") / "poses"
        recipe = Recipe.load("molecule/poses").override(
            {
                "data.name": "made",
                "training.steps": "1",
                "training.pictures": "0",
                "backbone.width": "8",
                "backbone.depth": "1",
            }
        )
        fit(recipe, out, console=Console(quiet=True))
        (out / "p.pdb").write_text(pose_checks.pdb(made[0].pocket))
        Chem.MolToMolFile(made[0].ligand, str(out / "ref.sdf"))
        yield out


def test_poses_are_ranked_by_density_and_with_a_judge_by_its_odds_as_well(how):
    ligand = pose_draw.ligand(*LIGANDS[0])
    for judge, key in ((None, "density"), (Lower(), "confidence and density")):
        poses = Docking(how.diffusion, how.sampler, how.pocket, judge, 4).poses(ligand)
        odds = [1.0 if judge is None else pose.confidence / (1 - pose.confidence) for pose in poses]
        scores = [one * pose.density for one, pose in zip(odds, poses, strict=True)]
        places = np.stack([Chem.RemoveHs(pose.mol).GetConformer().GetPositions() for pose in poses])
        if judge is not None:  # each has its own chance
            chances = judge.probability(how.pocket, ligand, places)
            np.testing.assert_allclose([pose.confidence for pose in poses], chances, atol=1e-6)
        assert poses.ranking == key and scores == sorted(scores, reverse=True) and len(set(scores)) > 1
        assert [pose.rank for pose in poses] == [1, 2, 3, 4] and np.isnan(poses[0].confidence) == (judge is None)
        table = poses.table()
        assert list(table["rank"]) == [1, 2, 3, 4] and table["density"].tolist() == [pose.density for pose in poses]


def test_a_certain_judge_leaves_density_nothing_to_say():
    scores = {"confidence": np.array([0.5, 1.0, 0.0, 0.5]), "density": np.array([0.2, 0.1, 1.0, 0.4])}
    both = pose_ranking.rankings(scores)["confidence and density"]
    assert np.isfinite(both).all() and np.argsort(-both).tolist() == [1, 3, 0, 2]


def test_values_are_those_of_the_poses(how):
    ligand = pose_draw.ligand(*LIGANDS[0])
    poses = how.poses(ligand)
    places = np.stack([pose.mol.GetConformer().GetPositions()[: ligand.mol.GetNumAtoms()] for pose in poses])
    assert [pose.clashes for pose in poses] == pose_checks.clashes(ligand.mol, places, how.pocket).tolist()
    assert [pose.density for pose in poses] == pytest.approx(pose_checks.density(places, ligand.mol).tolist(), abs=1e-6)


def test_a_ligands_poses_hang_on_the_seed_and_on_nothing_before(how):
    ligand = pose_draw.ligand(*LIGANDS[3])

    def drawn(seed: int) -> np.ndarray:
        return (
            Docking(how.diffusion, how.sampler, how.pocket, n=2, seed=seed)
            .poses(ligand)[0]
            .mol.GetConformer()
            .GetPositions()
        )

    first = drawn(0)
    before = torch.get_rng_state()
    how.poses(pose_draw.ligand(*LIGANDS[0]))
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(first, drawn(0)) and not np.allclose(first, drawn(1))


def test_sdf_records_have_rank_and_stereo(how, tmp_path):
    poses = Docking(how.diffusion, how.sampler, how.pocket, n=2, relax=True).poses(pose_draw.ligand(*LIGANDS[3]))
    found = list(Chem.SDMolSupplier(str(poses.to_sdf(tmp_path / "a.sdf")), removeHs=False))
    told = found[0].GetPropsAsDict()
    assert told["rank"] == 1 and told["ranking"] == "density" and told["ligand"] == "acid" and told["protein"] == "made"
    assert {"clashes", "strain"} <= set(told) and told["relaxed"] == "MMFF94s" and "confidence" not in told
    assert all(Chem.MolToSmiles(Chem.RemoveHs(mol)) == Chem.CanonSmiles(LIGANDS[3][1]) for mol in found)
    with pytest.raises(UserError, match=r"\.sdf"):
        poses.to_sdf(tmp_path / "a.pdf")
    assert poses.picture(tmp_path / "a.png").stat().st_size > 5000


def test_a_bad_ligand_stops_nothing_and_is_named_in_the_table(how, tmp_path):
    found = screen(how, LIGANDS, tmp_path / "many.sdf.gz")
    with gzip.open(tmp_path / "many.sdf.gz") as file:
        names = [mol.GetProp("_Name") for mol in Chem.ForwardSDMolSupplier(file)]
    assert names == ["para"] * 4 + ["acid"] * 4
    table = pd.read_csv(tmp_path / "many.csv")
    assert table["ligand"].tolist() == [name for name, _ in LIGANDS] and table["poses"].tolist() == [4, 0, 0, 4]
    assert "no SMILES" in table["reason"][1] and "Pb" in table["reason"][2] and table["reason"].isna()[0]
    assert len(found.failed) == 2 and sorted(p.name for p in tmp_path.iterdir()) == ["many.csv", "many.sdf.gz"]
    with pytest.raises(UserError, match="no ligand could be docked: broken"):
        screen(how, LIGANDS[1:2], tmp_path / "none.sdf")
    assert not (tmp_path / "none.sdf").exists()


def test_a_screen_goes_on_where_it_was_interrupted(how, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole.sdf", tmp_path / "out.sdf"
    screen(how, LIGANDS, whole)
    usual, docked = Docking.poses, []

    def poses(self, ligand, watch=None):
        docked.append(ligand.mol.GetProp("_Name"))
        if len(docked) == 2:
            raise KeyboardInterrupt
        return usual(self, ligand, watch)

    monkeypatch.setattr(Docking, "poses", poses)
    with pytest.raises(KeyboardInterrupt):
        screen(how, LIGANDS, out)
    assert not out.exists()
    part = tmp_path / "out.sdf.part"
    part.write_bytes(part.read_bytes() + b'{"key": "4 acid')  # cut off in the middle of a line
    other = Docking(how.diffusion, how.sampler, how.pocket, n=3)
    with pytest.raises(UserError, match="another n; --fresh"):
        screen(other, LIGANDS, out)
    found = screen(how, LIGANDS, out)
    assert docked == ["para", "acid", "acid"] and found.again == 3
    assert out.read_bytes() == whole.read_bytes() and not part.exists()


def test_what_poses_and_their_order_hang_on_is_compared(how):
    judge = pose_ranking.Judge(untrained())
    others = (pose_ranking.Judge(judge.diffusion, shift=shift) for shift in (0.0, 1.0))
    found = [_settings(Docking(how.diffusion, how.sampler, how.pocket, judge=one)) for one in (None, judge, *others)]
    assert found[1] == found[2] and found[0] != found[1] != found[3]
    assert {name for name in found[1] if found[1][name] != found[3][name]} == {"confidence"}


def test_fresh_forgets_what_was_begun(how, tmp_path):
    part = tmp_path / "a.sdf.part"
    part.write_text('{"n": 7}\n')
    found = screen(how, LIGANDS[:1], tmp_path / "a.sdf", fresh=True)
    assert found.again == 0 and not part.exists()


def test_elements_that_were_never_seen_are_told(made):
    class Codec:
        elements = ("C", "N", "O")

    notes = docking.unseen(Codec, pocket(), ["CCl", "C[Pb]C", None, "C(C"])
    assert len(notes) == 2 and "S" in notes[0] and "pocket" in notes[0] and "without Cl," in notes[1]


def test_from_python_with_a_pocket_read_once(folder, tmp_path):
    model = PoseDiffusion.load(folder, "cpu")
    where = model.pocket(folder / "p.pdb", pocket_from=folder / "ref.sdf")
    poses = model.dock(where, "CCO", n=2, steps=2)
    assert len(poses) == 2 and poses.ranking == "density" and poses.pocket is where
    again = model.dock(folder / "p.pdb", Chem.MolFromSmiles("CCO"), pocket_from=folder / "ref.sdf", n=2, steps=2)
    places = [one[0].mol.GetConformer().GetPositions() for one in (poses, again)]
    assert np.allclose(*places)
    table = model.screen(where, ["CCO", "C(C"], tmp_path / "s.sdf", n=1, steps=1)
    assert table["poses"].tolist() == [1, 0]
    with pytest.raises(UserError, match="at least one pose"):
        model.dock(where, "CCO", n=0)
    (tmp_path / "two.smi").write_text("CCO a\nCCC b\n")
    with pytest.raises(UserError, match="holds 2 ligands"):
        model.dock(where, tmp_path / "two.smi")
    with pytest.raises(UserError, match="does not judge"):
        PoseDiffusion.load(folder, "cpu", confidence=folder)


def test_the_command_docks_and_refuses(folder, tmp_path, capsys):
    words = [
        "dock",
        str(folder),
        "--protein",
        str(folder / "p.pdb"),
        "-n",
        "2",
        "--steps",
        "2",
        "--out",
        str(tmp_path / "a.sdf"),
    ]
    with pytest.raises(SystemExit) as done:
        main([*words, "--ligand", "CCO", "--pocket-from", str(folder / "ref.sdf"), "--relax"])
    assert done.value.code == 0
    told = capsys.readouterr()
    assert "2 poses in" in told.out and len(list(Chem.SDMolSupplier(str(tmp_path / "a.sdf")))) == 2
    wrong = {
        "--ligand is missing": [],
        "three numbers": ["--ligand", "CCO", "--center", "-1,2"],
        "did you mean '--radius'": ["--ligand", "CCO", "--center", "0,0,0", "--radisu", "9"],
        "has no atom within": ["--ligand", "CCO", "--center", "500,0,0"],
    }
    for text, more in wrong.items():
        with pytest.raises(SystemExit) as done:
            main([*words, *more])
        assert done.value.code == 2 and text in capsys.readouterr().err


def test_evaluation_keeps_poses_and_compares_with_random_placement(folder, made):
    from diffusionkit.training.run import Run

    run = Run.load(folder)
    sampler = DDPM(2)
    run.sampler = lambda: sampler  # type: ignore[method-assign]
    found = run.domain.evaluate(run, n=3, checks=False)
    assert json.dumps(found) and found["radius"] == 12 and {"model, best of n", "random, first"} <= set(found["rows"])
    with np.load(folder / "poses_test.npz") as kept:
        for one in made:
            far = pose_checks.rmsd(one.ligand, kept[f"pos/{one.name}"].astype(float), one.ligand)
            assert far == pytest.approx(kept[f"rmsd/{one.name}"], abs=1e-3) and len(far) == 3
    assert found["rows"]["model, best of n"]["median"] <= found["rows"]["model, first drawn"]["median"]
    assert (folder / "pictures" / "poses.png").stat().st_size > 5000
    with pytest.raises(UserError, match="--part"):
        run.domain.evaluate(run, part="tset")
    with pytest.raises(UserError, match="--start"):
        run.domain.evaluate(run, start="rdkit")


def test_random_placement_is_centred_and_uniform(made):
    ligand = pose_draw.ligand("x", made[0].ligand)
    start = docking.starts(ligand.mol, 1, 0)
    found = pose_evaluate.scattered(ligand, np.repeat(start, 400, 0), np.array([1.0, 2, 3]), 0)
    assert np.allclose(found.mean(1), [1, 2, 3])
    first = found[:, 0] - [1, 2, 3]
    unit = first / np.linalg.norm(first, axis=1, keepdims=True)
    assert np.abs(unit.mean(0)).max() < 0.15 and np.abs(unit.T @ unit / 400 - np.eye(3) / 3).max() < 0.1


def test_figures_count_what_was_left_out(made):
    ligands = [pose_draw.ligand(one.name, one.ligand) for one in made]
    known = [one.ligand.GetConformer().GetPositions() for one in made]
    docked = [
        pose_evaluate.Docked(
            one, ligand, place[None], place[None] + 9, np.zeros(1), np.full(1, 9.0), {"density": np.ones(1)}
        )
        for one, ligand, place in zip(made, ligands, known, strict=True)
    ]
    rows = pose_evaluate.rows_of(docked, 2 * len(made), checks=False)
    assert rows["model, first by density"]["below 2"] == 0.5 and rows["model, best of n"]["median"] < 1e-4
    assert rows["random, first"]["below 2"] == 0


def test_a_judge_is_calibrated_on_the_part_to_choose_by(made, tmp_path):
    """Its log odds are half of what they should be and shifted, which Platt's two numbers put right."""
    rng, odds, truth = np.random.default_rng(0), {}, {}
    for one in made:
        odds[one.name] = rng.normal(size=2000)
        truth[one.name] = rng.random(2000) < pose_ranking.logistic(2 * odds[one.name] + 1)
    arrays = {f"rmsd/{name}": np.where(right, 1.0, 3.0) for name, right in truth.items()}
    arrays |= {f"pos/{one.name}": np.zeros((2000, one.ligand.GetNumAtoms(), 3), np.float32) for one in made}
    np.savez(tmp_path / "poses_val.npz", **arrays)

    data = SimpleNamespace(run=str(tmp_path), load=lambda: {"val": made, "test": []})
    run = SimpleNamespace(
        folder=tmp_path,
        recipe=SimpleNamespace(build=lambda name: data),
        diffusion=SimpleNamespace(objective=SimpleNamespace(log_odds=None)),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            pose_draw, "confidence", lambda diffusion, pocket, ligands, places: [odds[ligands[0].mol.GetProp("_Name")]]
        )
        found = pose_evaluate.evaluate(run)
    assert found["val"]["calibration"]["error"] < 0.03 and found["val"]["auc"] > 0.7
    judge = pose_ranking.judge(run)
    assert (judge.scale, judge.shift) == pytest.approx((2, 1), abs=0.15)
    assert (tmp_path / "pictures" / "confidence.png").stat().st_size > 5000
    (tmp_path / pose_ranking.CALIBRATION).write_text("{}")
    with pytest.raises(UserError, match="damaged"):
        pose_ranking.judge(run)
