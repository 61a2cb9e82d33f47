from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from diffusionkit.molecule import chemistry
from diffusionkit.molecule.conformer_data import sdf

Chem = pytest.importorskip("rdkit.Chem")
from rdkit import rdBase  # noqa: E402
from rdkit.Chem import AllChem  # noqa: E402


def made(smiles):
    """Atoms and positions of a molecule as RDKit's force field leaves it."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(mol, randomSeed=7)
    AllChem.MMFFOptimizeMolecule(mol)
    return np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()]), mol.GetConformer().GetPositions()


CO2 = np.array([6, 8, 8]), np.array([[0, 0, 0], [1.16, 0, 0], [-1.16, 0, 0]])
CO = np.array([6, 8]), np.array([[0, 0, 0], [1.13, 0, 0]])


@pytest.mark.parametrize(
    "first,second,length,order",
    [
        ("C", "C", 1.629, 1),
        ("C", "C", 1.641, 0),
        ("C", "C", 1.389, 2),
        ("C", "C", 1.391, 1),
        ("C", "C", 1.229, 3),
        ("C", "C", 1.231, 2),
        ("C", "H", 1.189, 1),
        ("C", "H", 1.191, 0),
        ("N", "N", 1.129, 3),
        ("C", "O", 1.159, 3),
        ("O", "O", 1.259, 2),
        ("F", "F", 1.2, 1),
        ("O", "P", 1.549, 2),
        ("B", "C", 1.5, 0),
        ("He", "He", 0.1, 0),
    ],
)
def test_a_pair_is_bonded_below_its_length_and_margin(first, second, length, order):
    z = np.array([{**chemistry.ELEMENTS, "He": 2}[name] for name in (first, second)])
    pos = np.array([[0.0, 0, 0], [0, length, 0]])
    assert chemistry.bond_orders(z, pos).tolist() == [[0, order], [order, 0]]
    assert chemistry.bond_orders(z[::-1], pos).tolist() == [[0, order], [order, 0]]


def test_tables_are_nested():
    single, double, triple = np.moveaxis(chemistry.limits(), -1, 0)
    assert (double <= single).all() and (triple <= double).all()
    assert np.array_equal(single, single.T) and np.array_equal(double, double.T) and np.array_equal(triple, triple.T)


@pytest.mark.parametrize(
    "smiles,sums", [("C", [4, 1, 1, 1, 1]), ("C=O", [4, 2, 1, 1]), ("C#N", [4, 3, 1]), ("O", [2, 1, 1])]
)
def test_valences_of_small_molecules(smiles, sums):
    assert chemistry.bond_orders(*made(smiles)).sum(0).tolist() == sums


def test_carbon_dioxide_has_two_double_bonds_at_its_measured_length():
    assert chemistry.bond_orders(*CO2).sum(0).tolist() == [4, 2, 2]


@pytest.mark.parametrize(
    "smiles", ["C", "C=O", "CC#N", "CC(=O)N", "c1ccccc1", "c1ccncc1", "OC1CCC1F", "[NH3+]CC(=O)[O-]", "CSC", "CCl"]
)
def test_orders_by_valence_give_back_the_molecule(smiles):
    mol, reason = chemistry.sanitised(chemistry.molecule(*made(smiles), bonds="valences"))
    assert reason == ""
    assert chemistry.smiles(mol) == Chem.CanonSmiles(smiles)
    assert chemistry.complete(*made(smiles))


def test_orders_by_length_miss_the_double_bonds_of_benzene():
    orders = chemistry.bond_orders(*made("c1ccccc1"))
    assert set(orders[:6, :6].sum(0).tolist()) == {2}


def test_a_missing_hydrogen_is_told_by_open_valence_alone():
    z, pos = (part[:-1] for part in made("C"))
    mol, reason = chemistry.sanitised(chemistry.molecule(z, pos))
    assert reason == "" and chemistry.smiles(mol) == "C"
    assert not chemistry.complete(z, pos)


def test_two_missing_hydrogens_make_no_charged_carbons():
    z, pos = made("CCC")
    kept = np.ones(len(z), dtype=bool)
    kept[[3, 10]] = False  # one of either end
    assert not chemistry.complete(z[kept], pos[kept])


HEAVY = ["CC(N)=O", "Cc1ccccc1", "c1ccc2[nH]ccc2c1", "c1ccncc1", "OC1CCC1F", "CC#N", "C#CC#CC", "C=C=C", "C=CC=C", "CN=C=O", "NS(C)(=O)=O",
         "CCOS(=O)(=O)O", "CS(C)=O", "C[N+](=O)[O-]", "[O-][n+]1ccccc1", "COP(=O)(OC)OC", "c1ccsc1", "Nc1ccccc1", "O=c1cc[nH]cc1", "NO",
         "CC(=S)N", "C"]  # fmt: skip


@pytest.mark.parametrize("smiles", HEAVY)
def test_double_bonds_of_heavy_atoms_are_where_short_bonds_have_room(smiles):
    z, pos = made(smiles)
    heavy = z > 1
    order = np.random.default_rng(0).permutation(heavy.sum())
    mol, reason = chemistry.sanitised(
        chemistry.molecule(z[heavy][order], pos[heavy][order], "valences", hydrogens=False)
    )
    assert reason == "" and chemistry.smiles(mol) == Chem.CanonSmiles(smiles)


def test_heavy_atoms_get_implicit_hydrogens():
    z, pos = made("CC(=O)N")
    heavy = z > 1
    mol, reason = chemistry.sanitised(chemistry.molecule(z[heavy], pos[heavy], hydrogens=False))
    assert reason == "" and chemistry.smiles(mol) == "CC(N)=O"


def test_the_conformer_is_where_the_atoms_are():
    z, pos = made("CCO")
    for bonds in ("lengths", "valences"):
        mol = chemistry.molecule(z, pos, bonds=bonds)
        assert np.array_equal(mol.GetConformer().GetPositions(), pos)
        assert [atom.GetAtomicNum() for atom in mol.GetAtoms()] == z.tolist()


def test_mirror_images_have_opposite_centres():
    z, pos = made("[C@](F)(Cl)(O)C")
    names = [
        chemistry.smiles(chemistry.sanitised(chemistry.molecule(z, pos * [1, 1, sign]))[0], stereo=True)
        for sign in (1, -1)
    ]
    assert names[0] != names[1]
    assert Chem.CanonSmiles(names[0], useChiral=False) == Chem.CanonSmiles(names[1], useChiral=False)


@pytest.mark.parametrize(
    "z,pos",
    [
        ([], np.zeros((0, 3))),
        ([6, 1], [[0, 0, 0], [np.nan, 0, 0]]),
        ([6, 1], [[0, 0, 0], [np.inf, 0, 0]]),
        ([0, 6], np.zeros((2, 3))),
        ([6, 200], np.zeros((2, 3))),
        ([-1], np.zeros((1, 3))),
    ],
)
def test_what_makes_no_molecule_is_none_and_said(z, pos):
    assert chemistry.molecule(np.array(z), np.array(pos)) is None
    assert chemistry.sanitised(None) == (None, "no atoms, or positions that are not finite")
    assert not chemistry.complete(np.array(z), np.array(pos))


def test_too_many_bonds_are_refused_with_a_reason(capfd):
    z = np.array([6, 1, 1, 1, 1, 1])
    pos = np.concatenate([np.zeros((1, 3)), 1.05 * np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1]])])
    mol, reason = chemistry.sanitised(chemistry.molecule(z, pos))
    assert mol is None and "C" in reason and "5" in reason
    assert capfd.readouterr().err == ""


def test_atoms_on_one_another_are_no_error():
    mol = chemistry.molecule(np.array([6, 6, 8]), np.zeros((3, 3)), bonds="valences")
    assert chemistry.sanitised(mol)[1] != "" or mol is not None


def test_the_log_is_shut_until_the_outermost_block_ends_whatever_ends_within(capfd):
    def fail(_=None):
        assert Chem.MolFromSmiles("C1CC(") is None

    rdBase.EnableLog("rdApp.error")
    with pytest.raises(KeyError), chemistry.quiet():
        with chemistry.quiet():
            fail()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(fail, range(4)))
        raise KeyError
    assert not capfd.readouterr().err
    fail()
    assert "Parse Error" in capfd.readouterr().err


def test_the_log_is_open_afterwards_whatever_opens_it_within(capfd):
    rdBase.EnableLog("rdApp.error")
    with chemistry.quiet():
        rdBase.EnableLog("rdApp.error")
    assert Chem.MolFromSmiles("C1CC(") is None
    assert "Parse Error" in capfd.readouterr().err


def test_a_file_read_halfway_leaves_the_log_open(tmp_path, capfd):
    with Chem.SDWriter(str(tmp_path / "two.sdf")) as writer:
        for text in ("CC", "CO"):
            writer.write(Chem.MolFromSmiles(text))
    rdBase.EnableLog("rdApp.error")
    molecules = sdf(tmp_path / "two.sdf")
    assert next(molecules).GetNumAtoms() == 2
    Chem.MolFromSmiles("C1CC(")
    assert "Parse Error" in capfd.readouterr().err
    assert [mol.GetNumAtoms() for mol in molecules] == [2]
