import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from diffusionkit.errors import UserError
from diffusionkit.molecule import made_pockets, pose_data
from diffusionkit.molecule.pockets import ATOM_NAMES, BACKBONE, OTHER, RESIDUES, SIDE_CHAINS
from tests.molecule import proteins

DATA = os.environ.get("DIFFUSIONKIT_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="needs the data folder DIFFUSIONKIT_DATA")


@pytest.fixture(scope="module")
def every():
    return pose_data.Complexes(DATA).load()


@pytest.fixture(scope="module")
def made():
    return pose_data.Made().load()


def positions(mol):
    return mol.GetConformer().GetPositions()


# ---- the data folder


@needs_data
def test_the_data_folder_is_read(every):
    table = pd.read_parquet(Path(DATA) / "molecule" / "complexes.parquet")
    assert {part: [c.name for c in found] for part, found in every.items()} == {
        part: table["id"][table["split"] == part].tolist() for part in ("train", "val", "test")
    }
    heavy = dict(zip(table["id"], table["n_heavy"], strict=True))
    for c in every["test"]:
        assert c.ligand.GetNumAtoms() == heavy[c.name] and c.ligand.GetProp("_Name") == c.name
        assert np.allclose(c.pocket.center, positions(c.ligand).mean(0))
        gap = np.linalg.norm(c.pocket.pos - c.pocket.center, axis=1)
        assert 10 < gap.max() <= 12


@needs_data
def test_packed_pockets_are_as_near_to_their_ligands_as_the_table_says(every):
    table = pd.read_parquet(Path(DATA) / "molecule" / "complexes.parquet").set_index("id")
    ligands = {c.name: positions(c.ligand) for part in every.values() for c in part}
    whole = pose_data.unpacked(Path(DATA) / "molecule" / "complexes_pockets.npz")
    assert len(whole) == len(ligands) == 486
    for pocket in whole:
        protein = pocket.pos[pocket.residue < OTHER]  # a metal may be nearer
        found = cKDTree(protein).query(ligands[pocket.name])[0].min()
        assert found == pytest.approx(table.at[pocket.name, "min_dist"], abs=7e-3)  # which is rounded to .01
        assert len(pocket) == table.at[pocket.name, "n_pocket_atoms"]


@needs_data
def test_names_of_atoms_fit_their_residues(every):
    """Of all atoms of amino acids that have a name, nearly all have one of their residue, with its element."""
    fits, elements = [], {"C": 6, "N": 7, "O": 8, "S": 16}
    for c in every["val"]:
        for residue, atom, z in zip(c.pocket.residue, c.pocket.atom, c.pocket.z, strict=True):
            if residue < OTHER:
                name = ATOM_NAMES[atom]
                fits.append(name in (*BACKBONE, *SIDE_CHAINS[RESIDUES[residue]]) and elements[name[0]] == z)
    assert len(fits) > 5000 and np.mean(fits) > 0.995


@needs_data
def test_a_share_of_the_training_complexes(every):
    shares = {share: pose_data.Complexes(DATA, share=share) for share in (0.25, 0.5)}
    loaded = {share: [c.name for c in data.load()["train"]] for share, data in shares.items()}
    assert (len(loaded[0.25]), len(loaded[0.5])) == (83, 166)
    assert set(loaded[0.25]) < set(loaded[0.5]) < {c.name for c in every["train"]}
    assert "83 of 331 training complexes are used" in shares[0.25].notes[0]


def test_without_a_data_folder_there_are_made_complexes(monkeypatch):
    monkeypatch.delenv("DIFFUSIONKIT_DATA", raising=False)
    data = pose_data.Complexes(radius=9.0)
    found = data.load()
    assert {part: len(complexes) for part, complexes in found.items()} == {"train": 8, "val": 2, "test": 2}
    assert "no DIFFUSIONKIT_DATA" in data.notes[0] and "synthetic" in data.notes[0]
    assert all(np.linalg.norm(c.pocket.pos - c.pocket.center, axis=1).max() <= 9 for c in found["train"])


def test_a_data_folder_without_the_files_is_refused(tmp_path):
    with pytest.raises(UserError, match="complexes.parquet: there is no such file; data.root names the folder above"):
        pose_data.Complexes(str(tmp_path)).load()


@pytest.mark.parametrize(
    ("kind", "arguments", "sentence"),
    [
        ("Complexes", {"share": 0.0}, "share"),
        ("Complexes", {"radius": -1.0}, "radius"),
        ("Made", {"copies": 0}, "copies"),
        ("Made", {"structures": 0}, "structures"),
        ("Made", {"jitter": -0.1}, "jitter"),
        ("Folder", {"test": 1.0}, "test"),
    ],
)
def test_impossible_arguments(kind, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        getattr(pose_data, kind)(**arguments)


# ---- made complexes


def test_made_pockets_leave_their_ligand_room(made):
    for c in (c for part in made.values() for c in part):
        own = c.pocket.pos
        gap = cKDTree(own).query(positions(c.ligand))[0]
        assert gap.min() > 2.8 and np.quantile(gap, 0.9) < 4.5  # no clash, and all of the ligand is in touch
        first, second = np.triu_indices(len(own), 1)
        other = c.pocket.group[first] != c.pocket.group[second]
        assert np.linalg.norm(own[first[other]] - own[second[other]], axis=1).min() > 2.9
        assert len(np.unique(c.pocket.group)) >= 12


def test_made_pockets_are_the_same_for_the_same_seed(made):
    mol = made["train"][0].ligand
    first, again, other = (made_pockets.surround(mol, seed) for seed in (3, 3, 4))
    assert np.array_equal(first.pos, again.pos) and first.labels == again.labels
    assert first.labels != other.labels or not np.array_equal(first.pos, other.pos)


def test_made_pockets_tell_where_their_ligand_lies(made):
    """The true pose touches without a clash and donors meet acceptors, as next to no pose at random does."""
    random = np.random.default_rng(0)
    better = []
    for c in made["train"]:
        true, middle = positions(c.ligand), c.pocket.center
        turned = [(true - middle) @ Rotation.random(rng=random).as_matrix().T + middle for _ in range(60)]
        scores = [score(c, place) for place in turned]
        better.append(np.mean(np.array(scores) >= score(c, true)))
    assert np.mean(better) < 0.02


def score(c, place):
    """Contacts less clashes, polar atoms with polar ones."""
    gap = np.linalg.norm(place[:, None] - c.pocket.pos, axis=2)
    polar = np.isin([a.GetAtomicNum() for a in c.ligand.GetAtoms()], (7, 8))[:, None] == np.isin(c.pocket.z, (7, 8))
    return ((gap < 4.2) * np.where(polar, 1.0, -0.3)).sum() - 5 * (gap < 2.8).sum()


def test_a_carboxylate_meets_its_counterpart(made):
    """At least one oxygen of an acid has an arginine's or lysine's nitrogen at 2.9 Angstrom."""
    acids = [c for part in made.values() for c in part if c.ligand.HasSubstructMatch(Chem.MolFromSmarts("C(=O)[OX2H]"))]
    met = 0
    for c in acids:
        oxygens = [k for match in c.ligand.GetSubstructMatches(Chem.MolFromSmarts("C(=O)[OX2H]")) for k in match[1:]]
        base = np.isin(c.pocket.residue, [RESIDUES.index(name) for name in ("ARG", "LYS")]) & (c.pocket.z == 7)
        gap = np.linalg.norm(positions(c.ligand)[oxygens][:, None] - c.pocket.pos[base], axis=2)
        met += gap.size > 0 and gap.min() == pytest.approx(2.9, abs=1e-6)
    assert len(acids) == 4 and met == 4


# ---- complexes of one's own


@pytest.fixture
def folder(tmp_path):
    pytest.importorskip("gemmi")
    mol = Chem.MolFromSmiles("CC(=O)OC")
    conformer = Chem.Conformer(5)
    conformer.SetPositions(np.array([[4.0, 4, 2], [5, 4, 1], [5, 3, 0.2], [6, 5, 1], [7, 5, 0]]))
    mol.AddConformer(conformer)
    block = Chem.MolToMolBlock(mol)
    for name in ("1abc", "2abc", "3abc", "4abc", "5abc", "6abc"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}_protein.pdb").write_text(proteins.pdb())
        (tmp_path / name / f"{name}_ligand.sdf").write_text(block + "$$$$\n")
    (tmp_path / "2abc" / "2abc_protein.pdb").write_text("no protein\n")
    (tmp_path / "3abc" / "3abc_ligand.sdf").write_text("no ligand\n")
    far = Chem.Mol(mol)
    far.GetConformer().SetPositions(conformer.GetPositions() + 50)
    (tmp_path / "4abc" / "4abc_ligand.sdf").write_text(Chem.MolToMolBlock(far) + "$$$$\n")
    (tmp_path / "5abc" / "5abc_ligand.sdf").unlink()
    return tmp_path


def test_a_folder_of_complexes(folder):
    data = pose_data.Folder(str(folder), radius=8.0)
    found = data.load()
    complexes = {c.name: c for part in found.values() for c in part}
    assert sorted(complexes) == ["1abc", "6abc"] and complexes["1abc"].ligand.GetProp("_Name") == "1abc"
    one = complexes["1abc"]
    assert np.allclose(one.pocket.center, positions(one.ligand).mean(0)) and one.pocket.name == "1abc"
    assert np.linalg.norm(one.pocket.pos - one.pocket.center, axis=1).max() <= 8
    assert data.notes[0].startswith("4 of 6 records skipped: 2abc (")
    for reason in (
        "2abc_protein.pdb: has no heavy",
        "3abc (RDKit cannot read 3abc_ligand.sdf)",
        "4abc (the ligand lies",
        "5abc (has no ligand",
    ):
        assert reason in data.notes[0]
    assert "one protein may be on both sides" in data.notes[1]


def test_a_mol2_file_stands_in_for_a_broken_sdf_file(folder):
    mol2 = """@<TRIPOS>MOLECULE
water alcohol
2 1 0 0 0
SMALL
NO_CHARGES
@<TRIPOS>ATOM
1 C1 4.0 4.0 2.0 C.3
2 O1 5.0 4.0 1.0 O.3
@<TRIPOS>BOND
1 1 2 1
"""
    (folder / "3abc" / "3abc_ligand.mol2").write_text(mol2)
    names = [c.name for part in pose_data.Folder(str(folder)).load().values() for c in part]
    assert "3abc" in names


def test_a_folder_with_a_split(folder, tmp_path):
    (tmp_path / "split.csv").write_text("id,split\n1abc,train\n6abc,test\n")
    data = pose_data.Folder(str(folder), split=str(tmp_path / "split.csv"))
    found = data.load()
    assert {part: [c.name for c in some] for part, some in found.items()} == {
        "train": ["1abc"],
        "val": [],
        "test": ["6abc"],
    }
    assert not data.notes


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("id,part\n1abc,train\n", "has the columns id and split, not id, part"),
        ("id,split\n1abc,all\n", "the split of 1abc is 'all'"),
    ],
)
def test_splits_that_are_refused(folder, content, sentence):
    (folder / "split.csv").write_text(content)
    with pytest.raises(UserError, match=sentence):
        pose_data.Folder(str(folder), split=str(folder / "split.csv")).load()


def test_folders_that_are_refused(tmp_path):
    with pytest.raises(UserError, match="data.path is missing"):
        pose_data.Folder().load()
    with pytest.raises(UserError, match="there is no such folder"):
        pose_data.Folder(str(tmp_path / "nowhere")).load()
    with pytest.raises(UserError, match="holds no complex that can be used; it has no folders"):
        pose_data.Folder(str(tmp_path)).load()
