"""What is drawn has the sizes, the composition and the fragment that were asked for."""

import numpy as np
import pytest
import torch
from rdkit import Chem

from diffusionkit.core import DDIM, DDPM, Diffusion, Gaussian, Polynomial, Product, Rows, center
from diffusionkit.errors import UserError
from diffusionkit.molecule import generate, wanted
from diffusionkit.molecule.generate import Completed, draw, plan
from diffusionkit.molecule.sets import MoleculeSet
from tests.molecule.small import coded, molecules, untrained


@pytest.fixture(scope="module", params=["onehot", "codes"])
def model(request):
    codec, _ = coded(molecules(), types=request.param, charge=request.param == "onehot")
    return codec, untrained(codec)


def described():
    """Molecules whose weight grows with their atoms."""
    found = molecules(smiles=["C" * k for k in range(1, 9)] * 3)
    values = np.stack([found.n * 5.0, found.n % 3], 1).astype(np.float32)
    return coded(MoleculeSet(found.z, found.pos, found.n, found.smiles, values, ("weight", "rings")))[0]


def test_sizes_follow_the_histogram(model):
    codec, _ = model
    sizes, values = plan(codec, 4000, wanted.Wanted())
    shares = torch.bincount(sizes, minlength=codec.largest + 1) / 4000
    assert values is None and (shares - codec.histogram / codec.histogram.sum()).abs().max() < 0.03


def test_draws_are_a_function_of_the_seed(model):
    codec, diffusion = model
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(draw(diffusion, codec, DDPM(4), 5))
    assert all(torch.equal(found[0][k], found[1][k]) for k in found[0])
    assert found[0]["pos"].shape != found[2]["pos"].shape or not torch.equal(found[0]["pos"], found[2]["pos"])
    rows = Rows.from_sizes(found[0]["size"])
    assert torch.allclose(rows.pool(found[0]["pos"]), torch.zeros(5, 3), atol=1e-3)
    assert len(codec.decode(found[0])) == 5


def test_numbers_of_atoms(model):
    codec, diffusion = model
    x = draw(diffusion, codec, DDIM(2), 6, wanted.read(codec, atoms=7))
    assert x["size"].tolist() == [7] * 6
    sizes = plan(codec, 100, wanted.read(codec, atoms="9..14"))[0]
    assert set(sizes.tolist()) <= set(range(9, 15)) and len(sizes.unique()) > 1
    with pytest.warns(UserWarning, match="more than the 14 of the largest"):
        assert plan(codec, 3, wanted.read(codec, atoms=40))[0].tolist() == [40] * 3
    for wrong in (0, "x", "9..8", 2.5, (1, 2, 3)):
        with pytest.raises(UserError, match="atoms"):
            wanted.read(codec, atoms=wrong)


def test_a_formula_is_kept(model):
    codec, diffusion = model
    x = draw(diffusion, codec, DDIM(3), 4, wanted.read(codec, formula="C2H6O"))
    for z, pos in codec.decode(x):
        assert sorted(z.tolist()) == [1] * 6 + [6] * 2 + [8] and np.isfinite(pos).all()
    for wrong, said in (("C2Xx", "Xx"), ("C2Br", "Br"), ("c2", "none"), ("", "none")):
        with pytest.raises(UserError, match=f"{said}"):
            wanted.read(codec, formula=wrong)
    with pytest.raises(UserError, match="formula says"):
        wanted.read(codec, formula="CH4", atoms=5)


def fragment(places) -> Chem.Mol:
    mol, conformer = Chem.RWMol(), Chem.Conformer(len(places))
    for i, (number, place) in enumerate(places):
        mol.AddAtom(Chem.Atom(number))
        conformer.SetAtomPosition(i, place)
    mol.AddConformer(conformer)
    return mol.GetMol()


PIECES = fragment([(6, (10.0, 1.0, 2.0)), (8, (11.2, 1.0, 2.1)), (7, (10.0, -3.0, 2.0))])


@pytest.mark.parametrize("resample", [1, 2])
@pytest.mark.parametrize("sampler", [DDPM(5), DDIM(5)], ids=repr)
def test_a_fragment_comes_back_to_the_last_bit_where_it_was(model, sampler, resample):
    codec, diffusion = model
    asked = wanted.read(codec, fragment=PIECES, resample=resample)
    x = draw(diffusion, codec, sampler, 3, asked)
    places = []
    for z, pos in codec.decode(x):
        assert len(z) > 3 and z[:3].tolist() == [6, 8, 7]
        assert (pos[:3] == PIECES.GetConformer().GetPositions().astype(np.float32)).all()
        places.append(pos[3])
    assert not np.allclose(places[0], places[1])


def test_a_network_trained_with_fragments_is_shown_them():
    codec, data = coded(molecules(), types="codes")
    diffusion = untrained(codec, fragment=0.5)
    assert diffusion.loss(*data.batch(torch.arange(4))).isfinite().all()
    for asked in ({"fragment": PIECES}, {"formula": "C2H6O"}, {}):
        x = draw(diffusion, codec, DDPM(4), 3, wanted.read(codec, **asked))
        assert x["pos"].isfinite().all() and len(codec.decode(x)) == 3
        if "fragment" in asked:
            known = PIECES.GetConformer().GetPositions().astype(np.float32)
            assert all((pos[:3] == known).all() for _, pos in codec.decode(x))


def test_a_fragment_with_a_formula(model):
    codec, diffusion = model
    x = draw(diffusion, codec, DDIM(3), 2, wanted.read(codec, fragment=PIECES, formula="C3H4NO"))
    for z, _ in codec.decode(x):
        assert z[:3].tolist() == [6, 8, 7] and sorted(z.tolist()) == [1] * 4 + [6] * 3 + [7, 8]
    with pytest.raises(UserError, match="fewer atoms"):
        wanted.read(codec, fragment=PIECES, formula="C3H4O2")


def test_fragments_that_cannot_be(model, tmp_path):
    codec, _ = model
    (tmp_path / "broken.sdf").write_text("nothing")
    for wrong, said in (
        (tmp_path / "none.sdf", "no such file"),
        (tmp_path / "broken.sdf", "is no SDF"),
        (Chem.MolFromSmiles("CC"), "coordinates"),
        (fragment([(35, (0, 0, 0))]), "element Br"),
        (fragment([(6, (i, 0, 0)) for i in range(15)]), "name more with atoms"),
        (3, "RDKit molecule"),
    ):
        with pytest.raises(UserError, match=said):
            wanted.read(codec, fragment=wrong)


class Exact(Diffusion):
    """Pairs of atoms whose distance vector is normal with mean `mu` and variance `tau` in each coordinate: all is known."""

    mu, tau = torch.tensor([2.0, 0.0, 0.0]), 0.25

    def __init__(self):
        process = Product({"pos": Gaussian(Polynomial(), "x0", centered=True), "type": Gaussian(Polynomial(), "x0")})
        super().__init__(torch.nn.Linear(1, 1), process)

    def forward(self, x_t, t, cond=None, rows=None, given=None):
        alpha, sigma = self.process.schedule(t.double())
        alpha, sigma = float(alpha), float(sigma)
        pairs = x_t["pos"].reshape(-1, 2, 3)
        # Noise without its mean has covariance 2 sigma^2 in a difference.
        difference = pairs[:, 1] - pairs[:, 0]
        gain = alpha * self.tau / (alpha**2 * self.tau + 2 * sigma**2)
        mean = self.mu + gain * (difference - alpha * self.mu)
        return {"pos": torch.stack([-mean / 2, mean / 2], 1).reshape(-1, 3), "type": torch.zeros_like(x_t["type"])}


class Shown(Exact):
    """The same, trained with fragments: it is shown a clean first atom, and does not answer for it."""

    def __init__(self):
        super().__init__()
        self.masks = True

    def forward(self, x_t, t, cond=None, rows=None, given=None):
        assert given["pos"].tolist() == [[True] * 3, [False] * 3] * (len(x_t["pos"]) // 2)
        alpha, sigma = self.process.schedule(t.double())
        alpha, sigma = float(alpha), float(sigma)
        first, second = x_t["pos"].reshape(-1, 2, 3).unbind(1)
        # Centred data are (-d, d) / 2, and centred noise has variance 1 / 2 in each coordinate; the first atom, -d / 2, says all but
        # where the origin is: that is what the second one is noised about.
        prior, seen = first + self.mu, (second / alpha if alpha > 1e-3 else torch.zeros_like(second))
        gain = self.tau / (self.tau + sigma**2 / 2 / max(alpha, 1e-3) ** 2)
        guess = prior + gain * (seen - prior)
        return {
            "pos": torch.stack([torch.full_like(guess, 99.0), guess], 1).reshape(-1, 3),
            "type": torch.zeros_like(x_t["type"]),
        }


@pytest.mark.parametrize("sampler", [DDPM(50), DDIM(50)], ids=repr)
def test_a_network_that_is_shown_the_fragment_answers_for_the_rest_alone(sampler):
    n, diffusion = 500, Shown()
    rows = Rows.from_sizes(torch.full((n,), 2))
    pos = torch.tensor([[5.0, -1.0, 3.0], [0.0, 0.0, 0.0]]).repeat(n, 1)
    placed = torch.tensor([True, False]).repeat(n)
    model = Completed(diffusion, pos, placed, {"type": torch.zeros(2 * n, 1)}, placed)
    x = sampler(model, like={"pos": (2 * n, 3), "type": (2 * n, 1)}, rows=rows)
    assert torch.allclose(x["pos"], center(x["pos"], rows), atol=1e-4)
    x = model.settled(x, rows)["pos"].reshape(n, 2, 3)
    assert (x[:, 0] == torch.tensor([5.0, -1.0, 3.0])).all()
    away = x[:, 1] - x[:, 0]
    assert torch.allclose(away.mean(0), diffusion.mu, atol=0.3) and float(away.var(0).max()) < 0.6


@pytest.mark.parametrize("sampler", [DDPM(200), DDIM(60)], ids=repr)
def test_around_a_known_atom_the_law_is_that_of_the_data(sampler):
    """One of two atoms is known, anywhere; the other one lies about it as the data have it: the centre is no constraint."""
    n, diffusion = 3000, Exact()
    rows = Rows.from_sizes(torch.full((n,), 2))
    pos = torch.tensor([[5.0, -1.0, 3.0], [0.0, 0.0, 0.0]]).repeat(n, 1)
    placed = torch.tensor([True, False]).repeat(n)
    model = Completed(diffusion, pos, placed, {"type": torch.zeros(2 * n, 1)}, placed)
    x = sampler(model, like={"pos": (2 * n, 3), "type": (2 * n, 1)}, rows=rows)
    assert torch.allclose(x["pos"], center(x["pos"], rows), atol=1e-4)
    x = model.settled(x, rows)["pos"].reshape(n, 2, 3)
    assert (x[:, 0] == torch.tensor([5.0, -1.0, 3.0])).all()
    away = x[:, 1] - x[:, 0]
    assert torch.allclose(away.mean(0), diffusion.mu, atol=0.05)
    assert torch.allclose(away.var(0), torch.full((3,), diffusion.tau), rtol=0.1)


def test_properties_bring_sizes_that_go_with_them():
    codec = described()
    heavy, light = (plan(codec, 50, wanted.read(codec, where=w)) for w in ("weight=100..", "weight=..60"))
    assert heavy[0].min() > light[0].max()
    weight, other = heavy[1].T
    assert (weight >= 100).all() and other.isnan().all() and len(weight.unique()) > 1
    both = plan(codec, 50, wanted.read(codec, where={"weight": (50, 130), "rings": 2}))[1]
    assert (both[:, 1] == 2).all() and ((both[:, 0] >= 50) & (both[:, 0] <= 130)).all()
    exact = plan(codec, 5, wanted.read(codec, where={"weight": 71}, atoms=14))
    assert (exact[1][:, 0] == 71).all() and exact[0].tolist() == [14] * 5


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("wieght=3", "did you mean 'weight'"),
        ("weight", "not of the form"),
        ("weight=heavy", "must be a number"),
        ("weight=9..3", "is empty"),
        ("weight=9000", "outside of what was seen"),
        ({"weight": (1, 2, 3)}, "must be a number"),
    ],
)
def test_properties_that_cannot_be(where, said):
    with pytest.raises(UserError, match=said):
        wanted.read(described(), where=where)


def test_a_model_without_properties_says_so(model):
    with pytest.raises(UserError, match="it knows none; set data.properties"):
        wanted.read(model[0], where="logP=2")


def test_valid_only_draws_on_and_gives_up(model, monkeypatch):
    codec, diffusion = model
    calls = []

    def every_third(z, pos, hydrogens):
        calls.append(len(z))
        return type("J", (), {"valid": len(calls) % 3 == 0})

    monkeypatch.setattr("diffusionkit.molecule.export.judged", every_third)
    x = draw(diffusion, codec, DDIM(1), 4, wanted.read(codec, valid_only=True))
    assert len(x["size"]) == 4 and x["size"].sum() == len(x["pos"]) and int(x["drawn"].sum()) == len(calls) > 4
    monkeypatch.setattr("diffusionkit.molecule.export.judged", lambda *_: type("J", (), {"valid": False}))
    with pytest.raises(UserError, match=f"only 0 of {4 * generate.ROUNDS} molecules"):
        draw(diffusion, codec, DDIM(1), 4, wanted.read(codec, valid_only=True))
