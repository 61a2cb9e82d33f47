import numpy as np
import pytest

pytest.importorskip("rdkit")

from rdkit import Chem
from rdkit.Chem import AllChem

from diffusionkit.molecule import chemistry, energy, geometry, metrics, rmsd
from diffusionkit.molecule.pool import each, flat, parted

SMILES = ["C", "C=O", "CCO", "CC#N", "CC(=O)N", "OC1CC1", "CNC", "CCF", "C1CC1", "CC(C)=O"]


def embedded(smiles, seed=7):
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(mol, randomSeed=seed)
    AllChem.MMFFOptimizeMolecule(mol, maxIters=2000)
    return mol


def made(smiles):
    mol = embedded(smiles)
    return np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()]), mol.GetConformer().GetPositions()


@pytest.fixture(scope="module")
def molecules():
    return [made(smiles) for smiles in SMILES]


def turned(pos, seed):
    """Rotated, reflected or not, and moved."""
    generator = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(generator.standard_normal((3, 3)))
    return pos @ axes + generator.standard_normal(3)


BROKEN = [
    (np.array([6, 1, 1, 1, 1]), np.full((5, 3), np.nan)),
    (np.array([6, 6]), np.array([[0, 0, 0], [np.inf, 0, 0]])),
    (np.zeros(0, np.int64), np.zeros((0, 3))),
    (np.array([6, 6, 6, 1]), np.zeros((4, 3))),
    (np.array([0, 250]), np.array([[0.0, 0, 0], [1, 0, 0]])),
]


def test_small_molecules_are_stable_valid_whole_and_unique(molecules):
    data = flat(molecules)
    atoms, whole = metrics.stable(*data)
    said = metrics.validity(*data)
    assert atoms.all() and whole.all() and said.whole.all() and said.complete.all()
    assert said.smiles == [Chem.CanonSmiles(smiles) for smiles in SMILES]
    assert metrics.unique(said.smiles) == 1


def test_one_stretched_bond_takes_the_stability_of_two_atoms_and_their_molecule(molecules):
    z, pos = molecules[0]
    pos = pos.copy()
    pos[1] *= 1.5  # carbon lies at the origin
    atoms, whole = metrics.stable(*flat([(z, pos), molecules[1]]))
    assert (~atoms[:5]).sum() == 2 and atoms[5:].all()
    assert whole.tolist() == [False, True]
    assert metrics.connected(*flat([(z, pos), molecules[1]])).tolist() == [False, True]


def test_bonds_of_many_are_those_of_each(molecules):
    z, pos, n = flat(molecules)
    found = metrics.bonds(z, pos, n)
    dense = np.zeros((len(z), len(z)), dtype=int)
    dense[found.first, found.second] = found.order
    start = 0
    for (one, where), size in zip(molecules, n, strict=True):
        part = slice(start, start + size)
        assert np.array_equal((dense + dense.T)[part, part], chemistry.bond_orders(one, where))
        dense[part, part] = 0
        start += size
    assert not dense.any()


def test_large_and_small_molecules_go_through_in_pieces(monkeypatch, molecules):
    whole = metrics.stable(*flat(molecules * 3))
    monkeypatch.setattr(metrics, "_PAIRS", 50)
    again = metrics.stable(*flat(molecules * 3))
    assert np.array_equal(whole[0], again[0]) and np.array_equal(whole[1], again[1])


@pytest.mark.parametrize("seed", range(3))
def test_measures_do_not_see_rotation_reflection_place_or_order(molecules, seed):
    generator = np.random.default_rng(seed)
    noisy = [(z, pos + 0.08 * generator.standard_normal(pos.shape)) for z, pos in molecules]
    moved = []
    for z, pos in noisy:
        order = generator.permutation(len(z))
        moved.append((z[order], turned(pos, seed)[order]))
    mixed = generator.permutation(len(moved))
    first, second = flat(noisy), flat([moved[i] for i in mixed])
    assert np.array_equal(metrics.stable(*first)[1][mixed], metrics.stable(*second)[1])
    assert np.array_equal(metrics.connected(*first)[mixed], metrics.connected(*second))
    one, other = metrics.validity(*first), metrics.validity(*second)
    assert np.array_equal(one.valid[mixed], other.valid) and np.array_equal(one.complete[mixed], other.complete)
    assert [one.smiles[i] for i in mixed] == other.smiles
    for name, values in geometry.shapes(*first).items():
        others = geometry.shapes(*second)[name]
        assert np.array_equal(np.sort(values.kind), np.sort(others.kind))
        assert np.sort(values.value) == pytest.approx(np.sort(others.value), abs=1e-5)


def test_broken_molecules_are_counted_never_raised(molecules):
    data = flat([*BROKEN, molecules[0]])
    atoms, whole = metrics.stable(*data)
    said = metrics.validity(*data)
    assert whole.tolist() == [False] * 5 + [True]
    assert len(atoms) == len(data[0])
    assert said.whole.tolist() == [False] * 5 + [True] and said.complete.tolist() == [False] * 5 + [True]
    assert [bool(reason) for reason in said.reasons] == [not valid for valid in said.valid]
    assert np.isnan(energy.strain(*data)[:, 0]).tolist() == [True] * 5 + [False]
    for hydrogens in (True, False):
        metrics.validity(*data, hydrogens=hydrogens)
        energy.strain(*data, hydrogens=hydrogens)
    geometry.shapes(*data)


def test_nothing_at_all_is_no_error():
    nothing = flat([])
    assert metrics.stable(*nothing)[1].shape == metrics.connected(*nothing).shape == (0,)
    assert metrics.validity(*nothing).smiles == []
    assert energy.strain(*nothing).shape == (0, 2)
    assert np.isnan(metrics.unique([])) and np.isnan(metrics.novel(["", ""], ["C"]))
    assert np.isnan(
        geometry.divergence(geometry.shapes(*nothing)["torsions"], geometry.shapes(*nothing)["torsions"]).mean
    )


def test_unique_and_novel_have_known_answers():
    names = ["C", "C", "CC", "", "CCO"]
    assert metrics.unique(names) == 3 / 4
    assert metrics.novel(names, ["C", "N"]) == 2 / 3
    assert metrics.novel(names, []) == 1 and metrics.novel(names, names) == 0


def test_two_molecules_are_valid_but_not_of_one_piece():
    (z, pos), (other, away) = made("CC"), made("O")
    said = metrics.validity(*flat([(np.concatenate([other, z]), np.concatenate([away + 9, pos]))]))
    assert said.valid.all() and not said.connected.any() and not said.whole.any()
    assert said.smiles == ["CC"]  # the largest piece


# ---- shapes


def test_angles_and_torsions_have_known_values():
    pos = np.array([[1.0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 1]]) * 1.5
    found = geometry.shapes(np.full(4, 6), pos, np.array([4]))
    assert found["bond lengths"].value == pytest.approx([1.5] * 3)
    assert found["bond angles"].value == pytest.approx([90] * 2)
    assert found["torsions"].value == pytest.approx([90])
    assert (
        found["torsions"].kind.tolist()
        == geometry.shapes(np.full(4, 6), pos[::-1], np.array([4]))["torsions"].kind.tolist()
    )
    assert geometry.label(found["torsions"].kind[0]) == "C-C-C-C"


def test_counts_of_propane():
    z, pos = made("CCC")
    found = geometry.shapes(z, pos, np.array([len(z)]))
    assert len(found["bond lengths"].value) == 10
    assert len(found["bond angles"].value) == 18  # six at each of three tetrahedral atoms
    assert len(found["torsions"].value) == 0  # of heavy atoms
    assert len(geometry.shapes(*flat([made("C1CCC1")]))["torsions"].value) == 4


def test_distributions_are_at_no_distance_from_themselves_and_at_a_known_one_when_shifted(molecules):
    shapes = geometry.shapes(*flat(molecules * 10))
    for name in ("bond lengths", "bond angles"):
        one = geometry.divergences(shapes, shapes)[name]
        assert one.types and one.missing == 0 and one.mean == pytest.approx(0, abs=1e-12)
    lengths = shapes["bond lengths"]
    moved = geometry.divergence(geometry.Values(lengths.kind, lengths.value + 0.07), lengths)
    assert [moved.mean, *moved.types.values()] == pytest.approx([0.07] * (1 + len(moved.types)))


def test_types_that_do_not_occur_are_told_as_missing(molecules):
    reference = geometry.shapes(*flat(molecules * 10))["bond lengths"]
    hydrogens = np.array(
        [geometry.label(kind).startswith("H-") or geometry.label(kind).endswith("-H") for kind in reference.kind]
    )
    found = geometry.divergence(geometry.Values(reference.kind[hydrogens], reference.value[hydrogens]), reference)
    often = np.isin(
        reference.kind, [kind for kind in np.unique(reference.kind) if (reference.kind == kind).sum() >= 30]
    )
    assert found.mean == pytest.approx(0, abs=1e-12)
    assert found.missing == pytest.approx((often & ~hydrogens).sum() / often.sum())


# ---- energies


def test_a_minimum_has_no_strain_and_a_squeezed_molecule_has():
    z, pos = made("CCO")
    energies = energy.strain(*flat([(z, pos), (z, pos * 0.97)]))
    assert energies[0] == pytest.approx([0, 0], abs=1e-2)
    assert energies[1, 0] > 0.1 and energies[1, 1] > 0.01


def test_heavy_atoms_alone_have_a_strain():
    z, pos = made("CC(=O)N")
    heavy = z > 1
    strain = energy.strain(*flat([(z[heavy], pos[heavy])]), hydrogens=False)
    assert 0 <= strain[0, 0] < 0.1


def test_what_is_in_pieces_or_lacks_a_hydrogen_is_not_sound():
    z, pos = made("CCO")
    assert energy.sound(z, pos) is not None
    assert energy.sound(z[:-1], pos[:-1]) is None
    assert energy.sound(np.concatenate([z, z]), np.concatenate([pos, pos + 9])) is None


@pytest.mark.skipif(not energy.posebusters(), reason="PoseBusters is not installed")
def test_posebusters_passes_the_good_and_none_of_the_broken(molecules):
    z, pos = made("CC(C)=O")
    found = energy.poses(*flat([(z, pos), BROKEN[0]]))
    assert len(found) > 8 and "internal_energy" not in found
    assert all(passed.tolist() == [True, False] for passed in found.values())


# ---- conformers


def test_symmetric_atoms_are_exchanged():
    mol = Chem.AddHs(Chem.MolFromSmiles("OC(=O)c1ccccc1"))
    AllChem.EmbedMultipleConfs(mol, 3, randomSeed=1)
    other = Chem.RenumberAtoms(mol, np.random.default_rng(0).permutation(mol.GetNumAtoms()).tolist())
    for conformer in other.GetConformers():
        for i, place in enumerate(turned(conformer.GetPositions() * [1, 1, 1], 0)):
            conformer.SetAtomPosition(i, place.tolist())
    before = mol.GetConformer().GetPositions()
    matrix = rmsd.rmsd_matrix(mol, mol)
    assert matrix.shape == (3, 3) and np.diag(matrix) == pytest.approx(np.zeros(3), abs=1e-4)
    assert rmsd.best_rmsd(mol, mol) == pytest.approx(np.zeros(3), abs=1e-4)
    assert np.array_equal(mol.GetConformer().GetPositions(), before)
    if np.linalg.det(np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]) > 0:
        assert rmsd.best_rmsd(mol, other) == pytest.approx(np.zeros(3), abs=1e-3)


def test_other_molecules_are_refused():
    with pytest.raises(ValueError, match="not the same molecule"):
        rmsd.best_rmsd(embedded("CCO"), embedded("CCCO"))
    with pytest.raises(ValueError, match="not the same molecule"):
        rmsd.best_rmsd(embedded("CCO"), embedded("CCN"))


def test_coverage_has_a_known_answer():
    found = rmsd.coverage(np.array([[0.1, 0.9, 2.0], [0.8, 1.0, 2.0]]), delta=0.75)
    assert (found.recall, found.recall_rmsd) == (0.5, pytest.approx(0.45))
    assert (found.precision, found.precision_rmsd) == (pytest.approx(1 / 3), pytest.approx((0.1 + 0.9 + 2.0) / 3))
    with pytest.raises(ValueError, match="a reference"):
        rmsd.coverage(np.zeros((0, 3)))


# ---- processes


def test_flat_and_parted_undo_each_other(molecules):
    for (z, pos), (other, where) in zip(molecules, parted(*flat(molecules)), strict=True):
        assert np.array_equal(z, other) and np.array_equal(pos, where)
    assert parted(*flat([])) == []


def sizes(chunk, plus=0):
    return [len(z) + plus for z, _ in chunk]


def test_processes_give_what_one_gives_in_order(molecules):
    data = flat(molecules * 3)
    alone, shared = metrics.validity(*data, few=10**6), metrics.validity(*data, few=1)
    assert alone.smiles == shared.smiles and alone.reasons == shared.reasons
    assert np.array_equal(alone.complete, shared.complete)
    assert each(sizes, *data, "sizes", plus=1) == (data[2] + 1).tolist()


# ---- QM9


def qm9(count=None):
    import os
    from pathlib import Path

    path = Path(os.environ.get("DIFFUSIONKIT_DATA", "nowhere")) / "molecule" / "qm9.npz"
    if not path.is_file():
        pytest.skip("needs molecule/qm9.npz in the folder DIFFUSIONKIT_DATA")
    with np.load(path) as d:
        n = d["n_atoms"].astype(np.int64)
        atoms = n[:count].sum()
        pos = (d["pos_hi"][:, :atoms].astype(np.int16) << 8 | d["pos_lo"][:, :atoms]).T / 1000
        return d["z"][:atoms], pos, n[:count]


def test_the_first_molecules_of_qm9():
    data = qm9(3000)
    atoms, whole = metrics.stable(*data)
    assert atoms.mean() > 0.98 and 0.9 < whole.mean() < 0.97
    assert metrics.connected(*data).mean() > 0.999


@pytest.mark.slow
def test_qm9_has_the_published_shares():
    data = qm9()
    found = metrics.bonds(*data)
    atoms, whole = metrics.stable(*data, found)
    assert len(whole) == 130_831
    assert 100 * atoms.mean() == pytest.approx(99.36, abs=0.005)
    assert 100 * whole.mean() == pytest.approx(95.29, abs=0.005)
    assert metrics.connected(*data, found).mean() > 0.9997
