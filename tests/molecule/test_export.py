"""Every sample is a record of the file, valid or not, and readers get back what was drawn."""

import csv
import gzip

import numpy as np
import pytest
import torch
from rdkit import Chem

from diffusionkit.core import Rows
from diffusionkit.errors import UserError
from diffusionkit.molecule.export import judged, open_writer
from diffusionkit.molecule.plots import grid
from tests.molecule.small import coded, molecules


@pytest.fixture(scope="module")
def states():
    """A codec, and states of good molecules, of atoms in a heap, apart, and at no place at all."""
    codec, data = coded(molecules())
    x, _, rows = data.batch(torch.arange(len(data)))
    whole = {**x, "size": rows.counts()}
    z = [6, 6, 7, 8, 6, 6, 6, 8, 1, 1]
    pos = torch.tensor(
        [[i / 2, 0.3 * i, 0] for i in range(4)] + [[9.0 * i, 0, 0] for i in range(3)] + [[torch.nan] * 3] * 3
    )
    size = torch.tensor([4, 3, 3])
    rows = Rows.from_sizes(size)
    bad = {"pos": pos, "type": codec.features(codec.codes(z))["type"], "size": size}
    return codec, [whole, bad], codec.decode(whole) + codec.decode(bad)


def written(states, path):
    codec, chunks, drawn = states
    with open_writer(codec, path, len(drawn)) as writer:
        for chunk in chunks:
            writer.write(chunk)
    return drawn


@pytest.mark.parametrize("name", ["a.sdf", "a.sdf.gz"])
def test_rdkit_reads_back_every_record_and_every_place(states, tmp_path, name):
    drawn = written(states, tmp_path / name)
    opened = gzip.open if name.endswith("gz") else open
    with opened(tmp_path / name, "rb") as file:
        found = list(Chem.ForwardSDMolSupplier(file, sanitize=False, removeHs=False))
    assert len(found) == len(drawn) and None not in found
    for i, (mol, (z, pos)) in enumerate(zip(found, drawn, strict=True), 1):
        assert mol.GetProp("_Name") == f"sample_{i}" and mol.GetConformer().Is3D()
        assert [atom.GetAtomicNum() for atom in mol.GetAtoms()] == z.tolist()
        assert np.abs(mol.GetConformer().GetPositions() - np.nan_to_num(pos)).max() < 1e-4
    valid = [mol.GetProp("diffusionkit_valid") for mol in found]
    assert valid == ["1"] * (len(drawn) - 3) + ["0"] * 3
    reasons = [mol.GetProp("diffusionkit_reason") for mol in found[-3:]]
    assert reasons[1] == "3 pieces" and "not finite" in reasons[2]
    assert not found[0].HasProp("diffusionkit_reason") and found[1].GetProp("SMILES") == "c1ccccc1"


def test_valid_records_are_sanitised_by_readers(states, tmp_path):
    written(states, tmp_path / "a.sdf")
    for mol in Chem.SDMolSupplier(str(tmp_path / "a.sdf"), sanitize=False, removeHs=False):
        if mol.GetProp("diffusionkit_valid") == "1":
            Chem.SanitizeMol(mol)
            assert Chem.MolToSmiles(Chem.RemoveHs(mol)) == Chem.CanonSmiles(mol.GetProp("SMILES"))


@pytest.mark.parametrize("name", ["a.sdf", "a.sdf.gz", "a.xyz", "a.smi", "a.csv", "a.csv.gz"])
def test_same_states_same_bytes(states, tmp_path, name):
    (tmp_path / "b").mkdir()
    for folder in (tmp_path, tmp_path / "b"):
        written(states, folder / name)
    assert (tmp_path / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_xyz_smiles_and_table_hold_every_sample(states, tmp_path):
    drawn = written(states, tmp_path / "a.xyz")
    lines = iter((tmp_path / "a.xyz").read_text().splitlines())
    for z, pos in drawn[:-1]:
        assert int(next(lines)) == len(z) and "sample_" in next(lines)
        rows = [next(lines).split() for _ in z]
        assert [Chem.Atom(row[0]).GetAtomicNum() for row in rows] == z.tolist()
        assert np.abs(np.array([row[1:] for row in rows], float) - pos).max() < 1e-5
    written(states, tmp_path / "a.smi")
    text = (tmp_path / "a.smi").read_text().splitlines()
    assert len(text) == len(drawn) and text[1].split()[0] == "c1ccccc1" and text[-1].startswith("* sample_")
    written(states, tmp_path / "a.csv")
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(drawn) and [row["valid"] for row in rows][-4:] == ["1", "0", "0", "0"]


def test_heavy_atoms_alone_get_implicit_hydrogens():
    benzene = molecules(False, ["c1ccccc1"]).one(0)
    one = judged(*benzene, hydrogens=False)
    assert one.valid and one.mol.GetNumAtoms() == 6 and {a.GetTotalNumHs() for a in one.mol.GetAtoms()} <= {1, 2}


@pytest.mark.parametrize("name", ["a.pdb", "a", "folder.sdf"])
def test_places_that_nothing_is_written_to(states, tmp_path, name):
    (tmp_path / "folder.sdf").mkdir()
    with pytest.raises(UserError, match=r"known are \.sdf|is a folder"):
        open_writer(states[0], tmp_path / name, 3)


def test_an_interrupted_file_is_not_there(states, tmp_path):
    codec, chunks, _ = states
    with pytest.raises(KeyboardInterrupt), open_writer(codec, tmp_path / "a.sdf", 99) as writer:
        writer.write(chunks[0])
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_a_picture_of_good_and_bad_molecules(states, tmp_path):
    from PIL import Image

    grid(states[2], tmp_path / "a.png", columns=4)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (800, 1200) and len(np.unique(np.asarray(picture))) > 20
