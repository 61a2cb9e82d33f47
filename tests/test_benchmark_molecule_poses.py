"""The benchmark of docking poses, on a made complex; and Vina where it is installed."""

from __future__ import annotations

from argparse import Namespace

import numpy as np
import pytest

from benchmarks import molecule_pose_speed as speed
from benchmarks import molecule_poses as bench
from benchmarks import molecule_vina as vina
from diffusionkit.molecule import pose_checks, pose_draw
from diffusionkit.molecule.conformer_draw import with_conformers
from diffusionkit.molecule.pockets import ATOM_NAMES, RESIDUES, Pocket
from tests.molecule.conformers.molecules import embedded


def test_a_line_has_shares_of_all_complexes_with_their_error():
    cells = [
        {"ways": {"x": {"rmsd": rmsd, "valid": valid}}, "docking_seconds": 2.0}
        for rmsd, valid in ((1, True), (1, False), (5, True))
    ]
    found = bench._ways([*cells, {"reason": "no coordinates"}])
    row = bench.line("x", found["x"])
    assert (
        row["below 2 Å"] == "0.500 ± 0.250" and row["PB-valid"] == "0.500" and row["below 2 Å and PB-valid"] == "0.250"
    )
    assert row["median"] == "3.00 Å" and row["seconds"] == "2.0"


def test_some_complexes_are_spread_over_the_part(monkeypatch):
    monkeypatch.setattr(bench, "_loaded", lambda radius: {"test": list(range(11))})
    assert bench._chosen("test", Namespace(radius=12.0, complexes=3)) == [0, 5, 10]
    assert len(bench._chosen("test", Namespace(radius=12.0, complexes=0))) == 11


def serine() -> Pocket:
    names = ("N", "CA", "C", "O", "CB", "OG")
    place = [[0, 0, 0], [1.46, 0, 0], [2.0, 1.4, 0], [1.3, 2.4, 0], [2.0, -0.8, 1.2], [1.5, -2.1, 1.2]]
    kinds = {"residue": np.full(6, RESIDUES.index("SER")), "atom": np.array([ATOM_NAMES.index(n) for n in names])}
    return Pocket(
        "s", np.array([7, 6, 6, 8, 6, 8]), np.array(place, float), **kinds, group=np.zeros(6, int), center=np.zeros(3)
    )


def test_a_receptor_has_types_and_a_hydrogen_on_each_donor():
    lines = vina.receptor(serine()).splitlines()
    assert [line.split()[-1] for line in lines] == ["N", "HD", "C", "C", "OA", "C", "OA", "HD"]
    places = np.array([[float(line[k : k + 8]) for k in (30, 38, 46)] for line in lines])
    assert np.linalg.norm(places[[0, 6]] - places[[1, 7]], axis=1) == pytest.approx([1, 1], abs=2e-3)


def test_the_made_pocket_has_300_residues_about_a_hole():
    pocket = speed.pocket()
    assert len(np.unique(pocket.group)) == 300 and 2000 < len(pocket) < 2600
    ligand = pose_draw.ligand("one", speed.LIGANDS[0])
    assert ligand.mol.GetNumAtoms() in (30, 31, 32) and np.linalg.norm(pocket.pos, axis=1).min() > 1.5


@pytest.mark.skipif(not vina.installed(), reason="vina and meeko are not installed")
def test_vina_gives_the_atoms_in_their_order():
    mol, pos = embedded("OCC(=O)Nc1ccccn1")
    found, seconds = vina.dock(serine(), mol, pos.numpy(), edge=16, exhaustiveness=1, cores=1)
    assert found.shape[1:] == (mol.GetNumAtoms(), 3) and seconds > 0
    bonds = np.array([(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()])
    lengths = [np.linalg.norm(place[bonds[:, 0]] - place[bonds[:, 1]], axis=1) for place in (found[0], pos.numpy())]
    assert np.allclose(*lengths, atol=0.01), "Vina turns torsions and nothing else"
    assert pose_checks.rmsd(mol, found[:1], with_conformers(mol, found[:1]))[0] < 1e-6
