from dataclasses import replace

import numpy as np
import pytest
import torch
from rdkit import Chem
from scipy.spatial.transform import Rotation

from diffusionkit.errors import UserError
from diffusionkit.molecule import pockets, structures
from diffusionkit.molecule.pockets import ATOM_NAMES, BACKBONE, KINDS, OTHER, RESIDUES, SIDE_CHAINS, Pocket
from tests.molecule import proteins

_SYMBOLS = 8
_NUMBERS = {"C": 6, "N": 7, "O": 8, "S": 16}


def pocket(z, pos, residue=None, atom=None, group=None):
    n = len(z)
    return Pocket(
        "made",
        np.array(z),
        np.array(pos, dtype=np.float64).reshape(n, 3),
        np.full(n, OTHER) if residue is None else np.array(residue),
        np.full(n, len(ATOM_NAMES) - 1) if atom is None else np.array(atom),
        np.zeros(n, dtype=np.int64) if group is None else np.array(group),
        np.zeros(3),
    )


def some(n=150, seed=0):
    """Atoms of random kinds, no two nearer than bonded ones."""
    random = np.random.default_rng(seed)
    pos = np.zeros((0, 3))
    while len(pos) < n:
        point = random.uniform(-9, 9, 3)
        if not len(pos) or np.linalg.norm(pos - point, axis=1).min() > 1.2:
            pos = np.concatenate([pos, point[None]])
    z, residue = random.choice([6, 7, 8, 16, 30], n), random.integers(0, OTHER + 1, n)
    made = pocket(z, pos, residue, random.integers(0, len(ATOM_NAMES), n), np.sort(random.integers(0, 20, n)))
    return replace(made, group=np.unique(made.group, return_inverse=True)[1], center=np.array([1.0, -2.0, 0.5]))


def told(residue, name):
    """Of which kinds an atom of an amino acid is."""
    one = pocket([_NUMBERS[name[0]]], [0, 0, 0], [RESIDUES.index(residue)], [ATOM_NAMES.index(name)])
    return {
        kind for kind, yes in zip(KINDS, pockets.encode(one)["features"][0, -1 - len(KINDS) : -1], strict=True) if yes
    }


@pytest.mark.parametrize(
    ("residue", "name", "kinds"),
    [
        ("SER", "OG", {"donor", "acceptor"}),
        ("THR", "OG1", {"donor", "acceptor"}),
        ("TYR", "OH", {"donor", "acceptor"}),
        ("ASN", "OD1", {"acceptor"}),
        ("ASN", "ND2", {"donor"}),
        ("GLN", "NE2", {"donor"}),
        ("ASP", "OD2", {"acceptor", "negative"}),
        ("GLU", "OE1", {"acceptor", "negative"}),
        ("LYS", "NZ", {"donor", "positive"}),
        ("ARG", "NH1", {"donor", "positive"}),
        ("ARG", "CZ", {"positive"}),
        ("HIS", "ND1", {"donor", "acceptor", "aromatic"}),
        ("TRP", "NE1", {"donor", "aromatic"}),
        ("PHE", "CZ", {"aromatic", "hydrophobic"}),
        ("TYR", "CZ", {"aromatic"}),
        ("LEU", "CD1", {"hydrophobic"}),
        ("MET", "SD", {"hydrophobic"}),
        ("ALA", "N", {"donor"}),
        ("PRO", "N", set()),
        ("GLY", "O", {"acceptor"}),
        ("GLY", "CA", set()),
    ],
)
def test_what_atoms_of_amino_acids_are(residue, name, kinds):
    assert told(residue, name) == kinds


@pytest.mark.parametrize("residue", RESIDUES)
def test_the_tables_agree_with_the_molecules(residue):
    """Names, donors and acceptors as RDKit has them for the amino acid within a chain."""
    letter = "ARNDCQEGHILKMFPSTWYV"[RESIDUES.index(residue)]
    mol = Chem.MolFromSequence(f"G{letter}G")
    atoms = [a for a in mol.GetAtoms() if a.GetPDBResidueInfo().GetResidueNumber() == 2]
    names = {a.GetPDBResidueInfo().GetName().strip() for a in atoms}
    assert names == {*BACKBONE[:4], *SIDE_CHAINS[residue]}
    for atom in atoms:
        name, kinds = (
            atom.GetPDBResidueInfo().GetName().strip(),
            told(residue, atom.GetPDBResidueInfo().GetName().strip()),
        )
        polar, hydrogens = atom.GetAtomicNum() in (7, 8), atom.GetTotalNumHs()
        if residue not in ("HIS", "ASP", "GLU"):  # whose protons come and go
            assert (
                ("donor" in kinds) == ((polar or atom.GetAtomicNum() == 16) and hydrogens > 0)
                or name == "NE"
                or name[:2] == "NH"
            )
        assert not ("acceptor" in kinds and not polar)
        assert ("aromatic" in kinds) == atom.GetIsAromatic()
        near = {other.GetAtomicNum() for other in atom.GetNeighbors()}
        if atom.GetAtomicNum() == 6:
            assert ("hydrophobic" in kinds) == (not near & {7, 8} and residue != "SER")


def test_features_add_up():
    made = pockets.encode(some())
    assert made["features"].shape == (150, pockets.FEATURES) and made["features"].dtype == torch.float32
    assert (made["features"][:, :_SYMBOLS].sum(1) == 1).all()
    assert (made["features"][:, _SYMBOLS : _SYMBOLS + OTHER + 1].sum(1) == 1).all()


@pytest.mark.parametrize(
    ("z", "place"), [(6, 0), (7, 1), (8, 2), (16, 3), (15, 4), (17, 5), (53, 5), (30, 6), (12, 6), (5, 7), (34, 7)]
)
def test_elements_have_their_class(z, place):
    assert pockets.encode(pocket([z], [0, 0, 0]))["features"][0, :_SYMBOLS].argmax() == place


@pytest.mark.parametrize("seed", [0, 1])
def test_a_turned_pocket_has_the_same_features(seed):
    first, turn = some(seed=seed), Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    second = replace(first, pos=first.pos @ turn.T + 7.0, center=first.center @ turn.T + 7.0)
    one, two = pockets.encode(first, torch.float64), pockets.encode(second, torch.float64)
    assert (one["features"] == two["features"]).all()
    assert torch.equal(one["pair"], two["pair"]) and torch.equal(one["same"], two["same"])
    for key in ("pos", "direction"):
        torch.testing.assert_close(one[key] @ torch.from_numpy(turn.T), two[key], atol=1e-10, rtol=0)
    assert one["direction"].norm(dim=1).max() > 0.99


def test_the_order_of_atoms_is_only_an_order():
    first = some()
    order = np.random.default_rng(1).permutation(len(first))
    one, two = pockets.encode(first, torch.float64), pockets.encode(pockets.take(first, order), torch.float64)
    for key in ("features", "pos", "direction"):
        torch.testing.assert_close(one[key][order], two[key])
    assert {frozenset(pair) for pair in order[two["pair"]].tolist()} == {
        frozenset(pair) for pair in one["pair"].tolist()
    }


def test_pairs_are_those_nearer_than_five():
    made = some()
    told = pockets.encode(made)
    gap = np.linalg.norm(made.pos[:, None] - made.pos, axis=2)
    first, second = np.nonzero(np.triu(gap < 5, 1))
    assert torch.equal(told["pair"], torch.from_numpy(np.stack([first, second], axis=1)))
    assert torch.equal(told["same"], torch.from_numpy(made.group[first] == made.group[second]))
    assert torch.allclose(told["features"][:, -1], torch.from_numpy(((gap < 6).sum(1) - 1) / 30).float())


def test_directions_lead_away_from_the_neighbours():
    """A carbonyl's oxygen points on along its bond, the middle of a straight line nowhere."""
    made = pockets.encode(pocket([6, 8, 6, 6, 6], [[0, 0, 0], [1.2, 0, 0], [10, 0, 0], [11.5, 0, 0], [13, 0, 0]]))
    expected = [[-1, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 0, 0], [1, 0, 0]]
    torch.testing.assert_close(made["direction"], torch.tensor(expected, dtype=torch.float32))


def perceived(z, pos):
    found = pockets.encode(pocket(z, pos))["features"][:, -1 - len(KINDS) : -1]
    return [{kind for kind, yes in zip(KINDS, row, strict=True) if yes} for row in found]


def test_what_atoms_of_hetero_groups_are():
    ring = [[1.39 * np.cos(k * np.pi / 3), 1.39 * np.sin(k * np.pi / 3), 0] for k in range(6)]
    assert all(kinds == {"aromatic", "hydrophobic"} for kinds in perceived([6] * 6, ring))
    assert perceived([30], [0, 0, 0]) == [{"positive"}] and perceived([17], [0, 0, 0]) == [{"negative"}]
    acetate = perceived([6, 6, 8, 8], [[0, 0, 0], [1.5, 0, 0], [2.1, 1.09, 0], [2.1, -1.09, 0]])
    assert acetate == [{"hydrophobic"}, set(), {"acceptor", "negative"}, {"acceptor", "negative"}]
    alcohol = perceived([6, 6, 8], [[0, 0, 0], [1.5, 0, 0], [2.0, 1.3, 0]])
    assert alcohol == [{"hydrophobic"}, set(), {"donor", "acceptor"}]
    ketone = perceived([6, 6, 6, 8], [[0, 0, 0], [1.5, 0, 0], [2.2, -1.3, 0], [2.1, 1.05, 0]])
    assert ketone[3] == {"acceptor"}


def test_a_crop_keeps_what_is_near():
    made = some()
    found = pockets.crop(made, np.array([3.0, 0.0, 0.0]), 5.0)
    near = np.linalg.norm(made.pos - [3, 0, 0], axis=1) <= 5
    assert 0 < len(found) < len(made) and (found.pos == made.pos[near]).all() and found.center.tolist() == [3, 0, 0]
    assert set(found.group) == set(range(found.group.max() + 1))
    assert len(pockets.crop(made, np.full(3, 99.0), 5.0)) == 0


def test_a_crop_keeps_labels_with_their_residues():
    made = some()
    made = replace(made, labels=tuple(f"A:{k} X" for k in range(made.group.max() + 1)))
    found = pockets.crop(made, np.zeros(3), 5.0)
    where = {tuple(pos): made.labels[g] for pos, g in zip(made.pos, made.group, strict=True)}
    assert [found.labels[g] for g in found.group] == [where[tuple(pos)] for pos in found.pos]


def whole(folder):
    (folder / "p.pdb").write_text(proteins.pdb())
    return structures.read(folder / "p.pdb")


def test_an_embedding_goes_with_its_residues(tmp_path):
    protein = whole(tmp_path)
    first = np.unique(protein.group, return_index=True)[1]
    amino = protein.residue[first] < pockets.OTHER
    rows = np.arange(amino.sum() * 3, dtype=np.float32).reshape(-1, 3) + 1
    np.save(tmp_path / "e.npy", rows)
    told = pockets.embedded(protein, tmp_path / "e.npy", 3)
    assert np.array_equal(told.embedding[amino], rows)
    assert not told.embedding[~amino].any()
    some = pockets.crop(told, protein.pos[-1], 6.0)
    assert 0 < len(some) < len(told)
    kept = pockets.encode(some)["embedding"].numpy()
    where = [int(np.flatnonzero((told.pos == place).all(1))[0]) for place in some.pos]
    assert np.array_equal(kept, told.embedding[told.group[where]])


@pytest.mark.parametrize(("rows", "said"), [(np.zeros((2, 3)), "must hold"), (np.array(["a"]), "must hold")])
def test_an_embedding_of_another_shape_is_refused(tmp_path, rows, said):
    np.save(tmp_path / "e.npy", rows)
    with pytest.raises(UserError, match=rf"e\.npy: {said} \d+ rows"):
        pockets.embedded(whole(tmp_path), tmp_path / "e.npy", 3)
    (tmp_path / "e.npy").write_bytes(b"no")
    with pytest.raises(UserError, match="cannot be read"):
        pockets.embedded(whole(tmp_path), tmp_path / "e.npy", 3)
