"""Laws of conditional draws, held with a network that knows the joint table of three columns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from diffusionkit.core import DDPM, Categorical, Cosine, Diffusion, Gaussian, Product, guided
from diffusionkit.errors import UserError
from diffusionkit.tabular import conditions, generate
from diffusionkit.tabular.codec import TableCodec
from diffusionkit.tabular.masks import ColumnMasks

N = 20_000
SAMPLER = DDPM(3)  # as many steps as entries: each is drawn given the others
rng = np.random.default_rng(0)
JOINT = rng.dirichlet(np.full(60, 0.4)).reshape(3, 4, 5)  # of column a, column b, and the bin of column k


class Exact(nn.Module):
    """Says of every entry what the joint table says, given the codes that are not masked."""

    def __init__(self, joint: np.ndarray, masks: ColumnMasks | None) -> None:
        super().__init__()
        self.masks, self.unused = masks, nn.Parameter(torch.zeros(()))
        self.states = torch.tensor(np.indices(joint.shape).reshape(joint.ndim, -1).T)
        self.weight = torch.tensor(joint.ravel())
        hot = [nn.functional.one_hot(self.states[:, k], size) for k, size in enumerate(joint.shape)]
        self.hot, self.sizes = torch.cat(hot, 1).double(), torch.tensor(joint.shape)

    def forward(self, x, t, cond=None, given=None):
        codes = x["cat"][:, None]
        fits = ((codes == self.states) | (codes == self.sizes)).all(2)
        chance = (fits * self.weight) @ self.hot
        return {"num": x["num"], "cat": chance.clamp(min=1e-30).log().float()}


class Says(nn.Module):
    """Says the same of every state."""

    def __init__(self, number, logits, masks=None) -> None:
        super().__init__()
        self.masks, self.number, self.logits = masks, number, nn.Parameter(logits)

    def forward(self, x, t, cond=None, given=None):
        numbers = torch.full_like(x["num"], self.number)
        return {"num": numbers, "cat": self.logits.expand(len(x["cat"]), -1)}


@pytest.fixture(scope="module")
def codec():
    a, b = ([*letters] * (400 // len(letters)) + [letters[0]] * (400 % len(letters)) for letters in ("xyz", "pqrs"))
    df = pd.DataFrame({"a": a, "b": b, "k": np.arange(400) % 20})
    codec = TableCodec.fit(df, bins=5, residual=False)
    assert codec.arguments()["sizes"] == [3, 4, 5] and codec.num == []
    return codec


def model(codec, share=0.5, always=(), plain=False, masks=True):
    owners = codec.arguments()["owners"]
    process = Product({"num": Gaussian(Cosine(), "v"), "cat": Categorical([3, 4, 5], "absorbing", even=True)})
    return Diffusion(Exact(JOINT, ColumnMasks(owners, share, always, plain) if masks else None), process)


def rows(codec, where=None, balance=None, n=N, diffusion=None, sampler=SAMPLER):
    wanted = conditions.read(codec, where, balance)
    x = generate.draw(diffusion or model(codec), codec, sampler, torch.arange(n), wanted)
    assert set(x) == {"num", "cat"}
    frame = codec.decode(x, 0, lambda made: conditions.overwrite(codec, wanted, made))
    return x["cat"].numpy(), frame


def close(codes, expected):
    """That codes (n, K) are as frequent as a table of K dimensions says: within 4.5 standard deviations each."""
    found = np.zeros(expected.shape)
    np.add.at(found, tuple(codes.T), 1 / len(codes))
    expected = expected / expected.sum()
    assert (np.abs(found - expected) <= 4.5 * np.sqrt(expected / len(codes)) + 1e-9).all()


def test_without_conditions_rows_have_the_joint_law(codec):
    close(rows(codec)[0], JOINT)


def test_a_level_gives_the_conditional_law(codec):
    codes, frame = rows(codec, {"b": "r"})
    assert (frame["b"] == "r").all()
    close(codes[:, [0, 2]], JOINT[:, 2])


def test_several_columns_at_once(codec):
    codes, frame = rows(codec, {"a": "y", "b": "p"})
    assert (frame["a"] == "y").all() and (frame["b"] == "p").all()
    close(codes[:, 2:], JOINT[1, 0])


def test_a_set_of_levels_gives_the_conditional_law(codec):
    codes, frame = rows(codec, {"b": ["p", "s"]})
    assert frame["b"].isin(["p", "s"]).all()
    close(codes, JOINT * np.array([1, 0, 0, 1])[:, None])


def test_a_set_of_levels_is_drawn_before_all_else(codec):
    """In one step all entries are drawn unaware of one another, and b still knows which levels of a are asked for."""
    codes, _ = rows(codec, {"a": ["x", "z"]}, sampler=DDPM(1))
    close(codes[:, :1], JOINT[[0, 2]].sum((1, 2))[[0, 0, 1]] * [1, 0, 1])
    for code in (0, 2):
        close(codes[codes[:, 0] == code][:, 1:2], JOINT[code].sum(1))


def test_two_sets_are_drawn_given_each_other(codec):
    codes, _ = rows(codec, {"a": ["x", "z"], "b": ["q", "r"]}, sampler=DDPM(1))
    # a is drawn first, knowing only its own set; b given a.
    for code in (0, 2):
        close(codes[codes[:, 0] == code][:, 1:2], JOINT[code].sum(1) * [0, 1, 1, 0])


def test_a_range_gives_the_conditional_law_of_bins_and_values(codec):
    """Bins of four values: of the first, one value lies in the range, of the third, two."""
    codes, frame = rows(codec, {"k": (3, 9)})
    assert frame["k"].between(3, 9).all()
    close(codes, JOINT * [0.25, 1, 0.5, 0, 0])
    values = np.repeat(JOINT.sum((0, 1))[:3], [1, 4, 2])
    close(frame["k"].to_numpy()[:, None] - 3, values)


def test_a_value_never_seen_stands_for_the_nearest(codec):
    df = pd.DataFrame({"a": ["x", "y"] * 200, "k": np.arange(400) % 20 * 10.0})
    codes = TableCodec.fit(df, bins=20, between=False)
    wanted = conditions.read(codes, {"k": 42.0})
    given, state = conditions.known(codes, wanted, torch.arange(5))
    assert given["cat"][:, 1].all() and not given["cat"][:, 0].any() and (state["cat"][:, 1] == 4).all()
    frame = conditions.overwrite(codes, wanted, codes.decode(state))
    assert (frame["k"] == 42.0).all()


def test_balance_takes_the_levels_in_turns(codec):
    codes, frame = rows(codec, balance="b", n=4 * 5000)
    assert (frame["b"].value_counts() == 5000).all()
    for code in range(4):
        close(codes[codes[:, 1] == code][:, [0, 2]], JOINT[:, code])


def test_nothing_is_drawn_that_is_not_allowed():
    """However sure the network is of what is not allowed."""

    for kind in ("absorbing", "uniform"):
        process = Product({"num": Gaussian(Cosine(), "x0"), "cat": Categorical([3, 2], kind)})
        off = -torch.inf
        levels, bounds = torch.tensor([[off, -1.0, 0, 0, off]]), (torch.tensor([[-1.0]]), torch.tensor([[0.5]]))
        sure = Says(9.0, torch.tensor([30.0, 0, -30, 0, 30]))
        allowed = generate.Allowed(Diffusion(sure, process), levels, bounds)
        x = DDPM(4)(allowed, like={"num": (500, 1), "cat": (500, 2)})
        assert set(x["cat"][:, 0].tolist()) <= {1, 2} and (x["cat"][:, 1] == 0).all()
        assert x["num"].min() >= -1 and x["num"].max() <= 0.5 + 1e-6


def test_a_threshold_stays_around_what_is_allowed(codec):
    _, frame = rows(codec, {"a": ["x", "z"], "k": (3, 9)}, n=200, diffusion=guided(model(codec), clip=2.0))
    assert frame["a"].isin(["x", "z"]).all() and frame["k"].between(3, 9).all()


def test_a_diffusion_keeps_its_mode(codec):
    diffusion = model(codec).eval()
    rows(codec, {"a": ["x", "z"]}, n=10, diffusion=guided(diffusion, 2.0))
    assert not diffusion.training and not diffusion.network.training


def test_what_is_always_shown_is_drawn_by_its_shares(codec):
    """Column b is always shown in training; here its shares in the table are even, and not those of the network."""
    diffusion = model(codec, share=0.0, always=[1])
    close(rows(codec, diffusion=diffusion)[0], JOINT / JOINT.sum((0, 2), keepdims=True))
    codes, _ = rows(codec, {"b": ["p", "s"]}, diffusion=diffusion)
    close(codes, JOINT / JOINT.sum((0, 2), keepdims=True) * np.array([1, 0, 0, 1])[:, None])
    codes, _ = rows(codec, {"b": "s"}, diffusion=diffusion)
    close(codes[:, [0, 2]], JOINT[:, 3])


@pytest.mark.parametrize("where", [{"a": "x"}, {"a": ["x", "y"]}, {"k": (3, 9)}, {"k": 4}])
@pytest.mark.parametrize("options", [dict(masks=False), dict(share=0.0), dict(share=0.0, always=[1])])
def test_models_trained_without_given_columns_refuse_conditions(codec, where, options):
    with pytest.raises(
        UserError, match=f"column '{next(iter(where))}' cannot be given: this model was trained without"
    ):
        rows(codec, where, n=4, diffusion=model(codec, **options))
    rows(codec, n=4, diffusion=model(codec, **options))


def test_a_network_to_which_given_means_revealed_needs_no_training_with_masks(codec):
    codes, _ = rows(codec, {"b": "r"}, diffusion=model(codec, share=0.0, plain=True))
    close(codes[:, [0, 2]], JOINT[:, 2])


def test_filling_never_draws_a_missing_value():
    df = pd.DataFrame({"a": ["x", None, "y", None] * 50, "b": ["p", "q"] * 100})
    codec = TableCodec.fit(df)
    joint = np.array([[3, 6], [9, 0], [8, 4]]) / 30  # a is missing as often with p as with q
    process = Product({"num": Gaussian(), "cat": Categorical([3, 2], "absorbing", even=True)})
    diffusion = Diffusion(Exact(joint, ColumnMasks(codec.arguments()["owners"], 0.5)), process)
    x = generate.fill(diffusion, codec, DDPM(2), N, present=True)
    close(x["cat"].numpy(), joint * [[1], [1], [0]])
    assert (generate.fill(diffusion, codec, DDPM(2), 200)["cat"][:, 0] == 2).any()


@pytest.mark.parametrize("options", [dict(bins=0), dict(bins=4), dict(bins=4, residual=False)])
@pytest.mark.parametrize("holes", [False, True])
def test_ranges_hold_in_every_form_of_a_number(options, holes):
    x = pd.Series(np.random.default_rng(0).normal(size=300).round(2))
    df = pd.DataFrame({"x": x.mask(pd.Series(np.arange(300) % 5 == 0)) if holes else x, "c": ["p", "q"] * 150})
    codec = TableCodec.fit(df, **options)
    known = codec.arguments()
    even = Says(0.0, torch.zeros(sum(known["sizes"])), ColumnMasks(known["owners"], 0.5))
    process = Product({"num": Gaussian(Cosine(), "v"), "cat": Categorical(known["sizes"], "absorbing", even=True)})
    for low, high in ((-0.31, 0.44), (1.0, None), (None, -1.5), (0.05, 0.1)):
        _, frame = rows(codec, {"x": (low, high)}, n=300, diffusion=Diffusion(even, process), sampler=DDPM(5))
        values = frame["x"]
        assert values.notna().all() and values.nunique() > 1
        assert (low is None or values.min() >= low) and (high is None or values.max() <= high)
