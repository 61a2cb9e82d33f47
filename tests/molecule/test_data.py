"""Data sets: what files hold, what is left out, what is kept."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from rdkit import Chem

from diffusionkit.errors import UserError
from diffusionkit.molecule import cache, qm9, readers
from diffusionkit.molecule.data import NCI, QM9, File, parted
from diffusionkit.molecule.properties import of_smiles
from diffusionkit.molecule.sets import MoleculeSet
from tests.molecule.small import SMILES, molecules

ROOT = os.environ.get("DIFFUSIONKIT_DATA")
PACKED = Path(ROOT or "/nowhere") / "molecule" / "qm9.npz"
needs_qm9 = pytest.mark.skipif(not PACKED.is_file(), reason="molecule/qm9.npz is in the folder DIFFUSIONKIT_DATA")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def equal(a: MoleculeSet, b: MoleculeSet) -> bool:
    arrays = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("z", "pos", "n"))
    return arrays and a.smiles == b.smiles and a.notes == b.notes


def sdf(path: Path, smiles: list[str] = SMILES) -> Path:
    """An SDF file of molecules with coordinates."""
    found = readers.embedded([(text, text) for text in smiles], 1, 0)[0]
    blocks = []
    for name, _, pos, _ in found:
        mol = Chem.AddHs(Chem.MolFromSmiles(name))
        conformer = Chem.Conformer(mol.GetNumAtoms())
        conformer.SetPositions(pos)
        mol.AddConformer(conformer)
        blocks.append(Chem.MolToMolBlock(mol) + "$$$$\n")
    path.write_text("".join(blocks))
    return path


# ---- flat arrays


def test_taking_molecules_takes_their_atoms():
    found = molecules()
    part = found.take([3, 0, 3])
    for i, j in enumerate((3, 0, 3)):
        assert all(np.array_equal(a, b) for a, b in zip(part.one(i), found.one(j), strict=True))
        assert part.smiles[i] == found.smiles[j]
    assert equal(found.take(np.ones(len(found), bool)), found) and len(found.take([])) == 0


def test_positions_are_centred_and_kept_to_half_a_thousandth():
    pos = np.random.default_rng(0).normal(size=(5, 3)) + 40
    found = MoleculeSet.of([(np.full(5, 6), pos)])
    assert np.abs(found.angstrom() - (pos - pos.mean(0))).max() <= 0.00051


def test_heavy_atoms_are_those_without_hydrogens_about_their_own_centre():
    found = MoleculeSet.of([*(molecules().one(i) for i in range(3)), (np.ones(2), np.eye(3)[:2])])
    heavy = found.heavy()
    assert len(heavy) == 3 and (heavy.z > 1).all()
    for i in range(3):
        z, pos = found.one(i)
        wanted = pos[z > 1] - pos[z > 1].mean(0)
        assert np.abs(heavy.one(i)[1] - wanted).max() < 0.0011


def test_a_set_comes_back_from_its_file(tmp_path):
    found = MoleculeSet.of([molecules().one(0)], ["CCO"], ["a sentence"])
    found.save(tmp_path / "a" / "b.npz")
    assert equal(MoleculeSet.load(tmp_path / "a" / "b.npz"), found)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.npz"]


# ---- files


def test_an_sdf_file_keeps_places_and_skips_what_is_broken(tmp_path):
    path = sdf(tmp_path / "my.sdf")
    flat = Chem.MolToMolBlock(Chem.MolFromSmiles("CCCCO"))
    broken = flat.replace(" O  ", " Zz ")
    path.write_text(path.read_text() + broken + "$$$$\n" + flat + "$$$$\n")
    found = readers.read(path, True)
    assert found.smiles == [Chem.CanonSmiles(s) for s in SMILES]
    wanted = molecules()
    assert np.abs(found.pos.astype(int) - wanted.pos.astype(int)).max() <= 1  # 1e-4 Å in the file
    [note] = found.notes
    assert note.startswith(f"2 of {len(SMILES) + 2} records skipped") and "three dimensions" in note


def test_gzip_and_suffix_do_not_matter(tmp_path):
    path = sdf(tmp_path / "my.sdf")
    (tmp_path / "my.sdf.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert equal(readers.read(path, True), readers.read(tmp_path / "my.sdf.gz", True))


def test_smiles_and_tables_become_three_dimensional(tmp_path):
    (tmp_path / "a.smi").write_text("CCO ethanol\nC(C\nc1ccccc1\n\n[Na+].[Cl-] salt\nCCBr\n")
    found = readers.read(tmp_path / "a.smi", True, elements=(1, 6, 8))
    assert found.smiles == ["CCO", "c1ccccc1"] and found.n.tolist() == [9, 12]
    [note] = found.notes
    for said in ("3 of 5", "line 2 ('C(C' is no SMILES)", "line 5 salt (element Na, Cl)", "line 6 (element Br)"):
        assert said in note
    (tmp_path / "a.csv").write_text("id,SMILES\n1,CCO\n2,c1ccccc1\n")
    table = readers.read(tmp_path / "a.csv", True)
    assert np.array_equal(table.pos, found.pos) and table.notes == []


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.sdf", "", "holds no molecule"),
        ("a.smi", "\n", "holds no molecule"),
        ("a.smi", "C(C\nxyz\n", "skipped were 2: line 1 "),
        ("a.csv", "id,name\n1,2\n", "no column 'smiles'"),
        ("a.pickle", "x", "pickles run code"),
        ("drugs.pkl", "x", "pickles run code"),
        ("a.pdb", "x", "must name a file that ends in"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=said):
        File(str(tmp_path / name)).load()


def test_a_path_that_is_missing(tmp_path):
    with pytest.raises(UserError, match=r"data\.path is missing"):
        File().load()
    with pytest.raises(UserError, match="no such file"):
        File(str(tmp_path / "a.sdf")).load()


def test_what_is_kept_hangs_on_the_content(tmp_path, monkeypatch):
    path = tmp_path / "a.smi"
    path.write_text("CCO\nCCN\nCCC\n")
    first = File(str(path)).load()
    made = readers.read
    monkeypatch.setattr(readers, "read", lambda *_: pytest.fail("read again"))
    assert equal(File(str(path)).load()["train"], first["train"])
    monkeypatch.setattr(readers, "read", made)
    path.write_text("CCO\nCCN\nCCF\n")
    assert any("CCF" in part.smiles for part in File(str(path)).load().values())
    [kept] = [p for p in cache.folder().iterdir() if equal(MoleculeSet.load(p), readers.read(path, True))]
    kept.write_bytes(b"cut off")
    assert len(File(str(path)).load()["train"]) == 2


def test_conformers_of_a_molecule_stay_together():
    found = molecules(smiles=SMILES * 3)
    parts = parted(found, 0.3, 1)
    train, test = (set(part.smiles) for part in parts.values())
    assert not train & test and len(test) == 2 and sum(map(len, parts.values())) == len(found)
    with pytest.raises(UserError, match="1 different molecules"):
        parted(molecules(smiles=["CC"] * 5), 0.1, 0)


def test_properties_are_rdkits():
    found = of_smiles(["c1ccccc1", "CC(=O)Oc1ccccc1C(=O)O", "no smiles"], ["rings", "weight", "TPSA", "logP", "QED"])
    assert found[0, 0] == 1 and found[1, 1] == pytest.approx(180.16, abs=0.01) and found[1, 2] == pytest.approx(63.6)
    assert found[1, 3] == pytest.approx(1.31, abs=0.01) and 0 < found[1, 4] < 1 and np.isnan(found[2]).all()


def test_a_set_with_properties_gives_them_as_a_condition(tmp_path):
    (tmp_path / "a.smi").write_text("\n".join(SMILES))
    data = File(str(tmp_path / "a.smi"), properties=["rings", "weight"])
    codec, parts = data.prepared()
    batch = parts["train"].batch(torch.arange(3))
    assert codec.properties == ("rings", "weight") and batch.cond["properties"].shape == (3, 2)
    weights = of_smiles(parts["train"].smiles, ["weight"])[:3, 0]
    said = batch.cond["properties"][:, 1] * codec.std[1] + codec.mean[1]
    assert torch.allclose(said.float(), torch.tensor(weights))


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"properties": ["mass"]}, "properties"),
        ({"types": "codes?"}, "types"),
        ({"scales": (1, 0, 1)}, "scales"),
        ({"test": 1.0}, "test"),
        ({"elements": ["Xx"]}, "elements"),
        ({"heavy": -1}, "heavy"),
    ],
)
def test_impossible_arguments_are_named(options, key):
    for cls in (NCI, File):
        with pytest.raises(ValueError, match=f"^{key} "):
            cls(**options)


# ---- published


@pytest.mark.slow
def test_nci_is_small_neutral_and_the_same_each_time():
    first, again = NCI(heavy=5, conformers=2).load(), NCI(heavy=5, conformers=2).load()
    assert all(equal(first[name], again[name]) for name in first)
    everything = first["train"].smiles + first["test"].smiles
    assert 20 < len(set(everything)) and not any(sign in text for text in everything for sign in "+-.")
    assert all(Chem.MolFromSmiles(text).GetNumHeavyAtoms() <= 5 for text in everything)
    heavy = NCI(heavy=5, conformers=2, hydrogens=False).load()["train"]
    assert heavy.z.min() > 1 and len(heavy) == len(first["train"])


@needs_qm9
def test_qm9_has_the_published_counts():
    parts = QM9(ROOT).load()
    assert [len(parts[name]) for name in ("train", "val", "test")] == [100_000, 17_748, 13_083]
    train = parts["train"]
    assert np.bincount(train.z)[[1, 6, 7, 8, 9]].tolist() == [923_537, 635_559, 101_476, 140_202, 2_323]
    assert (train.n.min(), train.n.max()) == (3, 29) and len(train.smiles) == len(train)
    first, pos = train.one(0)
    assert np.abs(pos.mean(0)).max() < 1e-3 and len(first) == train.n[0]


@needs_qm9
def test_the_split_is_that_of_edm():
    with np.load(PACKED) as file:
        stored = file["split"]
    assert [len(part) for part in qm9.split()] == [100_000, 17_748, 13_083]
    for i, part in enumerate(qm9.split()):
        assert (stored[part] == i).all()


def test_qm9_is_read_from_raw_files_as_well(tmp_path):
    folder = tmp_path / "QM9" / "raw"
    folder.mkdir(parents=True)
    sdf(folder / "gdb9.sdf", [*SMILES, "CCCC", "C#N"])
    (folder / "uncharacterized.txt").write_text("header\n    9  CCCC  x\n")
    parts = QM9(str(tmp_path)).load()
    smiles = [text for part in parts.values() for text in part.smiles]
    assert sorted(smiles) == sorted(Chem.CanonSmiles(s) for s in [*SMILES, "C#N"])
    (folder / "uncharacterized.txt").unlink()
    with pytest.raises(UserError, match=r"uncharacterized\.txt"):
        QM9(str(tmp_path)).load()
    with pytest.raises(UserError, match="holds no QM9"):
        QM9(str(tmp_path / "cache")).load()
