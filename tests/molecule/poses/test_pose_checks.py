"""Checks, relaxation and ranking of poses: known answers."""

from __future__ import annotations

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdMolAlign
from scipy.spatial.transform import Rotation

from diffusionkit.molecule import energy, pose_checks, pose_relax
from diffusionkit.molecule import pose_ranking as ranking
from diffusionkit.molecule.conformer_draw import with_conformers
from diffusionkit.molecule.pockets import ATOM_NAMES, OTHER, RESIDUES, Pocket
from diffusionkit.molecule.structures import read
from tests.molecule.conformers.molecules import embedded

needs_posebusters = pytest.mark.skipif(not energy.posebusters(), reason="PoseBusters is not installed")


def pocket_of(z: list[int], pos: list[list[float]], residue: int = 0, labels: tuple[str, ...] = ()) -> Pocket:
    count = len(z)
    kinds = {"residue": np.full(count, residue), "atom": np.zeros(count, int), "group": np.arange(count)}
    return Pocket("p", np.array(z), np.array(pos, dtype=float), **kinds, center=np.zeros(3), labels=labels)


def test_rmsd_is_in_place_and_exchanges_what_is_equal():
    mol, pos = embedded("OC(=O)c1ccccc1")
    place = pos.numpy()
    known = with_conformers(mol, place[None])
    flipped = place.copy()
    flipped[[0, 2]] = place[[2, 0]]  # the ends of the acid: conjugated, so the same
    moved = place + np.array([3.0, 0, 0])
    turned = (place - place.mean(0)) @ Rotation.from_euler("z", 180, degrees=True).as_matrix() + place.mean(0)
    far = pose_checks.rmsd(mol, np.stack([place, flipped, moved, turned]), known)
    assert far[:3] == pytest.approx([0, 0, 3], abs=1e-5)
    assert (
        far[3] == pytest.approx(rdMolAlign.CalcRMS(with_conformers(mol, turned[None]), known), abs=1e-6) and far[3] > 1
    )


def test_rmsd_knows_other_orders_of_atoms():
    mol, pos = embedded("CC(=O)Nc1ccc(O)cc1")
    known = Chem.RenumberAtoms(with_conformers(mol, pos.numpy()[None]), list(range(mol.GetNumAtoms()))[::-1])
    assert pose_checks.rmsd(mol, pos.numpy()[None], known)[0] < 1e-5


def test_density_counts_the_poses_that_lie_near():
    mol, pos = embedded("CCCCO")
    place = pos.numpy()
    found = pose_checks.density(np.stack([place, place, place, place + 100]), mol)
    assert found == pytest.approx([0.75, 0.75, 0.75, 0.25])
    assert pose_checks.density(np.stack([place, place + np.array([2.0, 0, 0])]), mol) == pytest.approx(
        [(1 + np.exp(-1)) / 2] * 2
    )


def test_clashes_are_pairs_within_three_quarters_of_the_radii_and_metals_are_small():
    mol = Chem.MolFromSmiles("C")
    places = np.zeros((1, 1, 3))
    for distance, count in ((2.54, 1), (2.56, 0)):  # of two carbons 0.75 * 3.4
        assert pose_checks.clashes(mol, places, pocket_of([6], [[distance, 0, 0]]))[0] == count
    assert pose_checks.clashes(mol, places, pocket_of([30], [[2.0, 0, 0]]))[0] == 0
    assert pose_checks.clashes(mol, places, pocket_of([6, 6, 6], [[2, 0, 0], [0, 2, 0], [9, 0, 0]]))[0] == 2


def test_a_pocket_written_as_pdb_is_read_again(tmp_path):
    kinds = {
        "residue": np.array([0, 0, RESIDUES.index("TRP"), OTHER]),
        "atom": np.array([ATOM_NAMES.index(name) for name in ("N", "CA", "CH2")] + [len(ATOM_NAMES) - 1]),
        "group": np.array([0, 0, 1, 2]),
    }
    place = np.array([[-12.345, 0, 1], [-11, 0.5, 1], [123.456, -7, 2], [4, 5, 6.0]])
    labels = ("B:45 ALA", "B:46 TRP", "B:301 ZN")
    wanted = Pocket("p", np.array([7, 6, 6, 30]), place, **kinds, center=np.zeros(3), labels=labels)
    (tmp_path / "p.pdb").write_text(pose_checks.pdb(wanted))
    found = read(tmp_path / "p.pdb")
    assert found.labels == labels and found.z.tolist() == [7, 6, 6, 30] and np.allclose(found.pos, place)
    assert all((getattr(found, key) == value).all() for key, value in kinds.items())


def walled(place: np.ndarray, gap: float) -> Pocket:
    """A carbon beside the last atom of the ligand, so many Å away from it, in the direction that leads out."""
    out = place[-1] - place.mean(0)
    return pocket_of([6], [list(place[-1] + gap * out / np.linalg.norm(out))])


@pytest.mark.parametrize("smiles", ["C[C@H](N)C(=O)N[C@@H](CO)Cc1ccccc1", "CCOB(C)CC"])
def test_relaxing_clears_clashes_moves_little_and_keeps_stereo(smiles):
    mol, pos = embedded(smiles)
    place = pos.numpy()
    pocket = walled(place, 2.0)
    assert pose_checks.clashes(mol, place[None], pocket)[0] > 0
    full, energies, how = pose_relax.finished(mol, place[None], pocket, relax=True)
    found = full.GetConformer().GetPositions()[: len(place)]
    assert how == ("UFF" if "B" in smiles else "MMFF94s") and np.isfinite(energies).all()
    assert pose_checks.clashes(mol, found[None], pocket)[0] == 0
    assert np.sqrt(((found - place) ** 2).sum(1).mean()) < 0.8
    Chem.AssignStereochemistryFrom3D(full, replaceExistingTags=True)
    assert Chem.MolToSmiles(Chem.RemoveHs(full)) == Chem.CanonSmiles(smiles)


def test_without_relaxing_heavy_atoms_stay():
    mol, pos = embedded("CCO")
    full, energies, how = pose_relax.finished(mol, pos.numpy()[None], walled(pos.numpy(), 1.0))
    assert np.allclose(full.GetConformer().GetPositions()[:3], pos.numpy()) and not energies and not how
    assert full.GetNumAtoms() == 9


@needs_posebusters
def test_to_ask_posebusters_leaves_the_log_where_it_was(capfd):
    energy.busters("mol", ())
    assert Chem.MolFromSmiles("C1CC(") is None
    assert "Parse Error" in capfd.readouterr().err


@needs_posebusters
def test_posebusters_finds_a_pose_within_the_wall():
    mol, pos = embedded("CC(=O)Nc1ccc(O)cc1")
    place = pos.numpy()
    free, stuck = walled(place, 4.0), walled(place, 1.0)
    two = with_conformers(mol, np.stack([place, place]))
    for known in (None, with_conformers(mol, place[None])):
        good = pose_checks.sound(two, free, known, energy=False)
        assert len(good) == 2 and all(all(checks.values()) for checks in good)
        assert not pose_checks.sound(two, stuck, known, energy=False)[1]["minimum_distance_to_protein"]


def test_platt_finds_the_scale_and_shift_that_made_the_labels():
    rng = np.random.default_rng(0)
    odds = rng.normal(size=20_000)
    right = rng.random(len(odds)) < ranking.logistic(2 * odds - 1)
    assert ranking.platt(odds, right) == pytest.approx((2, -1), abs=0.1)
    assert np.isfinite(ranking.platt(odds[:5], np.ones(5, bool))).all()
    chance = ranking.logistic(2 * odds - 1)
    assert ranking.calibration(chance, right)["error"] < 0.02
    assert ranking.calibration(chance**3, right)["error"] > 0.05


def test_the_area_under_the_roc_curve_is_the_chance_of_the_right_order():
    assert ranking.auc(np.array([3.0, 2, 1]), np.array([True, False, False])) == 1
    assert ranking.auc(np.array([1.0, 2, 1, 0]), np.array([True, False, False, False])) == pytest.approx(0.5)
    assert np.isnan(ranking.auc(np.ones(3), np.ones(3, bool)))
