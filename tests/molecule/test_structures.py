import gzip
import sys

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem

from diffusionkit.errors import UserError
from diffusionkit.molecule import conformer_draw, structures
from diffusionkit.molecule.ligand_files import positions
from diffusionkit.molecule.pockets import ATOM_NAMES, OTHER, RESIDUES
from tests.molecule import proteins

pytest.importorskip("gemmi")


@pytest.fixture
def small(tmp_path):
    (tmp_path / "small.pdb").write_text(proteins.pdb())
    return tmp_path / "small.pdb"


@pytest.fixture
def ligand(tmp_path):
    """Acetate where the file has it, and hydrogens."""
    mol = Chem.MolFromSmiles("CC(=O)[O-]")
    mol = Chem.AddHs(mol)
    AllChem.EmbedMolecule(mol, randomSeed=1)
    pos = mol.GetConformer().GetPositions()
    mol.GetConformer().SetPositions(pos - pos[1] + [9.0, 0.3, 0.0])
    Chem.MolToMolFile(mol, str(tmp_path / "acetate.sdf"))
    return tmp_path / "acetate.sdf"


def test_a_pdb_file(small):
    found = structures.read(small)
    assert found.name == "small" and found.pos.dtype == np.float64
    assert found.labels == ("A:1 SER", "A:2 MSE", "A:45B ALA", "A:101 ZN", "A:102 ACT", "B:1 GLY")
    assert len(found) == 17 and not np.isin(found.z, (1, 34)).any()
    assert [np.sum(found.group == g) for g in range(6)] == [6, 3, 2, 1, 3, 2]
    assert found.residue[found.group == 1].tolist() == [RESIDUES.index("MET")] * 3
    selenium = np.nonzero(found.group == 1)[0][2]
    assert found.z[selenium] == 16 and ATOM_NAMES[found.atom[selenium]] == "SD"
    assert (found.residue[np.isin(found.group, (3, 4))] == OTHER).all()
    assert np.allclose(found.center, found.pos.mean(0))


def test_the_alternate_location_of_highest_occupancy(small):
    found = structures.read(small)
    assert found.pos[found.atom == ATOM_NAMES.index("OG")].tolist() == [[1.6, -0.2, 2.4]]


def test_alternate_residues_in_one_place(tmp_path):
    text = """
ATOM A 1 SER CA A 0.30 0.0 0.0 0.0 C
ATOM A 1 SER OG A 0.30 2.0 0.0 0.0 O
ATOM A 1 THR CA B 0.70 0.1 0.0 0.0 C
ATOM A 1 THR OG1 B 0.70 2.1 0.0 0.0 O"""
    (tmp_path / "both.pdb").write_text(proteins.pdb(text))
    found = structures.read(tmp_path / "both.pdb")
    assert found.labels == ("A:1 THR",) and len(found) == 2


def test_what_is_left_out_is_said(small):
    assert structures.read(small).notes == (
        "left out: 2 waters, 1 hydrogens, 1 atoms of other alternate locations",
        "modified residues read as their parents: MSE as MET (1)",
    )


@pytest.mark.parametrize("name", ["small.cif", "small.mmcif", "small.cif.gz", "small.ent.gz"])
def test_other_kinds_give_the_same(small, tmp_path, name):
    text = (proteins.pdb() if ".ent" in name else proteins.mmcif()).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    first, second = structures.read(small), structures.read(tmp_path / name)
    assert second.name == "small" and first.notes == second.notes

    def order(found):  # chains come in another order
        return np.lexsort(found.pos.T)

    for key in ("z", "pos", "residue", "atom"):
        assert (getattr(first, key)[order(first)] == getattr(second, key)[order(second)]).all()
    labels = [[p.labels[g] for g in p.group[order(p)]] for p in (first, second)]
    assert labels[0] == labels[1]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.pdbqt", "", "a protein comes as one of .pdb, .ent, .cif, .mmcif, also .gz"),
        ("a.pdb", "", "has no heavy atoms"),
        ("a.pdb", "nothing of the kind\n", "has no heavy atoms"),
        ("a.cif", "data_a\n_cell.length_a 1\n", "has no heavy atoms"),
        ("a.cif", "this is no mmCIF", "cannot be read"),
        ("a.cif", b"\x89PNG\x00\xff\xfe", "cannot be read"),
        ("a.pdb", b"\x89PNG\x00\xff\xfe", "has no heavy atoms"),
        ("a.pdb.gz", b"no gzip", "cannot be read|has no heavy atoms"),
        ("a.pdb", proteins.pdb("HETATM A 1 HOH O . 1.0 0 0 0 O"), "has no heavy atoms"),
        ("a.cif", proteins.mmcif().replace("20.0  0.0", "nan 0.0").replace(" 20.0 ", " ? "), "an atom of B:1 GLY has no finite place"),
    ],
)  # fmt: skip
def test_files_that_are_refused(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=sentence) as error:
        structures.read(tmp_path / name)
    assert str(tmp_path / name) in str(error.value) and "\n" not in str(error.value)


def test_several_models_are_refused(tmp_path):
    atoms = proteins.pdb().removesuffix("END\n")
    (tmp_path / "nmr.pdb").write_text("".join(f"MODEL {k:>8}\n{atoms}ENDMDL\n" for k in (1, 2, 3)) + "END\n")
    with pytest.raises(UserError, match="nmr.pdb: has 3 models; keep one"):
        structures.read(tmp_path / "nmr.pdb")


def test_without_the_library(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "gemmi", None)
    with pytest.raises(UserError, match=r"gemmi: pip install 'diffusionkit\[molecule\]'"):
        structures.read(small)


# ---- pockets


def test_a_pocket_by_its_center(small):
    found = structures.pocket(structures.read(small), center=(20.5, 0, 0), radius=5)
    assert found.labels == ("B:1 GLY",) and found.center.tolist() == [20.5, 0, 0] and len(found) == 2


def test_a_pocket_by_residues(small):
    protein = structures.read(small)
    found = structures.pocket(protein, residues="A:45B, B:1", radius=100)
    assert np.allclose(found.center, np.mean([[5, 5, 5], [6.4, 5, 5], [20, 0, 0], [21.4, 0, 0]], axis=0))
    assert len(found) == len(protein)


def test_a_pocket_by_its_ligand_leaves_its_copy_out(small, ligand):
    protein = structures.read(small)
    mol = Chem.MolFromMolFile(str(ligand), removeHs=False)
    found = structures.pocket(protein, reference=str(ligand))
    heavy = mol.GetConformer().GetPositions()[[a.GetAtomicNum() > 1 for a in mol.GetAtoms()]]
    assert np.allclose(found.center, heavy.mean(0), atol=1e-3)
    assert "A:102 ACT" not in found.labels and "A:101 ZN" in found.labels
    assert "hetero groups left out (they overlap the reference ligand): A:102 ACT" in found.notes
    assert "hetero groups kept: A:101 ZN" in found.notes
    assert structures.pocket(protein, reference=mol).labels == found.labels


def test_a_reference_may_be_pdb_or_mol2(ligand, tmp_path):
    mol = Chem.MolFromMolFile(str(ligand), removeHs=False)
    Chem.MolToPDBFile(mol, str(tmp_path / "a.pdb"))
    (tmp_path / "a.mol2").write_text(mol2(mol))
    expected = positions(mol)
    for name in ("a.pdb", "a.mol2"):
        assert np.allclose(positions(tmp_path / name), expected, atol=2e-3)


def test_a_small_protein_as_a_whole(small):
    protein = structures.read(small)
    found = structures.pocket(protein)
    assert len(found) == len(protein) and np.allclose(found.center, protein.pos.mean(0))


def test_groups_left_out_by_name_or_place(small):
    protein = structures.read(small)
    assert "A:102 ACT" not in structures.pocket(protein, without="ACT").labels
    found = structures.pocket(protein, without="A:102, ZN")
    assert found.labels == ("A:1 SER", "A:2 MSE", "A:45B ALA", "B:1 GLY")
    assert len(found) == 13 and found.group.max() == 3
    with pytest.raises(UserError, match="has no hetero group STI to leave out; there are A:101 ZN, A:102 ACT"):
        structures.pocket(protein, without="STI")
    with pytest.raises(UserError, match="has no hetero group SER"):
        structures.pocket(protein, without="SER")


def test_a_group_that_fills_the_pocket_is_said(tmp_path):
    ring = "".join(f"\nHETATM A 300 BNZ C{k} . 1.0 {1.4 * np.cos(k):.3f} {1.4 * np.sin(k):.3f} 0.0 C" for k in range(6))
    (tmp_path / "full.pdb").write_text(proteins.pdb(proteins.ATOMS.strip() + ring))
    found = structures.pocket(structures.read(tmp_path / "full.pdb"), center=(0, 0, 1))
    assert found.notes[-1].startswith("at the centre lies A:300 BNZ")
    assert not any(
        "at the centre" in note for note in structures.pocket(found, center=(20, 0, 0)).notes[len(found.notes) :]
    )


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ({"center": (90, 0, 0)}, r"small: has no atom within 12 Å of \(90.0, 0.0, 0.0\); its atoms lie between \(0, -1, 0\) and"),
        ({"center": (1, 2)}, "center: three numbers in Angstrom are wanted, not 1.0, 2.0"),
        ({"center": "1,2,x"}, "center: three numbers"),
        ({"center": (1, 2, float("nan"))}, "center: three numbers"),
        ({"residues": "A:7"}, "has no residue A:7; residues are written as A:1, chains are A, B"),
        ({"residues": " , "}, "residues names none"),
        ({"center": (0, 0, 0), "residues": "A:1"}, "center and residues both name the pocket; give one of them"),
        ({"center": (0, 0, 0), "radius": 0}, "radius must be positive"),
        ({"reference": "ligand.xyz"}, "ligand.xyz: a reference ligand comes as one of .sdf, .mol, .mol2, .pdb"),
        ({"reference": "ligand.sdf"}, "ligand.sdf: there is no such file"),
        ({"reference": Chem.MolFromSmiles("CCO")}, "reference: has no three-dimensional coordinates"),
    ],
)  # fmt: skip
def test_places_that_are_refused(small, where, sentence):
    with pytest.raises(UserError, match=sentence):
        structures.pocket(structures.read(small), **where)


def test_references_that_are_refused(small, tmp_path):
    (tmp_path / "broken.sdf").write_text("nothing\n")
    with pytest.raises(UserError, match="broken.sdf: RDKit cannot read it"):
        positions(tmp_path / "broken.sdf")
    lines = "".join(f"\nATOM A {k} GLY CA . 1.0 {k}.0 0.0 1.0 C" for k in range(1, 300))
    (tmp_path / "whole.pdb").write_text(proteins.pdb(lines))
    with pytest.raises(UserError, match="whole.pdb: has 299 heavy atoms, and a reference ligand at most 200"):
        positions(tmp_path / "whole.pdb")


def test_a_large_protein_as_a_whole_is_refused(small, monkeypatch):
    monkeypatch.setattr(structures, "BLIND", 10)
    with pytest.raises(UserError, match="has 17 heavy atoms, and at most 10 are searched as a whole; name the pocket"):
        structures.pocket(structures.read(small))


# ---- ligands


def mol2(mol, name="ace"):
    """The molecule with hydrogens as mol2, its types by element and degree."""
    conformer = mol.GetConformer()
    kinds = {("C", 3): "C.2", ("C", 4): "C.3", ("O", 1): "O.co2", ("H", 1): "H"}
    atoms = [
        f"{a.GetIdx() + 1} {a.GetSymbol()}{a.GetIdx()} {p.x:.4f} {p.y:.4f} {p.z:.4f} {kinds[a.GetSymbol(), a.GetDegree()]} 1 LIG 0.0"
        for a in mol.GetAtoms()
        for p in [conformer.GetAtomPosition(a.GetIdx())]
    ]
    bonds = [
        f"{b.GetIdx() + 1} {b.GetBeginAtomIdx() + 1} {b.GetEndAtomIdx() + 1} "
        + ("ar" if {"C", "O"} == {b.GetBeginAtom().GetSymbol(), b.GetEndAtom().GetSymbol()} else "1")
        for b in mol.GetBonds()
    ]
    head = ["@<TRIPOS>MOLECULE", name, f"{len(atoms)} {len(bonds)} 1 0 0", "SMALL", "NO_CHARGES", ""]
    return "\n".join([*head, "@<TRIPOS>ATOM", *atoms, "@<TRIPOS>BOND", *bonds, ""])


def test_ligands_from_smiles_and_files(tmp_path, ligand):
    mol = Chem.MolFromMolFile(str(ligand), removeHs=False)
    assert list(structures.ligands("C/C=C/C")) == [("C/C=C/C", "C/C=C/C")]
    (tmp_path / "two.mol2").write_text(mol2(mol) + mol2(mol, "again") + "@<TRIPOS>MOLECULE\nbroken\n")
    found = list(structures.ligands(str(tmp_path / "two.mol2")))
    assert [name for name, _ in found] == ["ace", "again", "broken"] and found[2][1] is None
    assert Chem.MolToSmiles(Chem.RemoveHs(found[1][1])) == "CC(=O)[O-]"
    (tmp_path / "list.smi").write_text("CCO\tethanol\nCC  a name\n\nC\n")
    assert list(structures.ligands(str(tmp_path / "list.smi"))) == [("ethanol", "CCO"), ("a name", "CC"), ("C", "C")]


def test_ligands_of_a_folder(tmp_path, ligand):
    folder = tmp_path / "many"
    folder.mkdir()
    (folder / "b.sdf").write_text(ligand.read_text() + "$$$$\n")
    (folder / "a.smi").write_text("CCO\nCC\n")
    (folder / "c.smi").write_bytes(b"\xff\xfe\x00")
    (folder / "notes.md").write_text("nothing")
    found = list(structures.ligands(folder))
    assert [name for name, _ in found] == ["a", "a 2", "b", "c"]
    assert found[3][1] is None and found[2][1].GetNumConformers() == 1


def test_ligands_that_are_refused(tmp_path):
    with pytest.raises(UserError, match="missing.sdf: there is no such file"):
        list(structures.ligands("missing.sdf"))
    with pytest.raises(UserError, match="holds no file of .sdf"):
        list(structures.ligands(tmp_path))


@pytest.mark.parametrize("name", ["a.smi", "a.csv", "a.smi.gz", "a.csv.gz"])
@pytest.mark.parametrize("content", [b"smiles\n\xff\xfe\xe9", gzip.compress(b"smiles\nCC\n" * 50)[:-9]])
def test_records_that_are_no_text(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as text"):
        list(conformer_draw.records(tmp_path / name))
