"""Networks of series: shapes, gradients, what depends on the order of the series and what does not."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from torch import nn

from diffusionkit.timeseries.backbones.csdi import CSDINetwork, WindowMasks, between
from diffusionkit.timeseries.backbones.inverted import InvertedTransformer
from diffusionkit.timeseries.backbones.layers import missing
from diffusionkit.timeseries.backbones.mlp import BlockMLP
from diffusionkit.timeseries.backbones.timegrad import AttentionDenoiser, ConvDenoiser, TimeGradNetwork, circular

B, H, L, D = 4, 5, 7, 3
ORDER = torch.tensor([2, 0, 1])
ARGUMENTS = {"horizon": H, "series": D, "own": 6, "shared": 4, "lags": 2 * D, "time": 3, "scale": D}
NETWORKS = {
    "mlp": lambda **how: make(BlockMLP, width=16, depth=2, dropout=0.0, **how),
    "inverted": lambda **how: make(InvertedTransformer, width=16, depth=2, heads=2, dropout=0.0, **how),
    "conv": lambda **how: make(TimeGradNetwork, hidden=8, dropout=0.0, depth=3, **how),
    "attention": lambda **how: make(
        TimeGradNetwork, cell="gru", hidden=8, dropout=0.0, depth=2, denoiser="attention", channels=8, heads=2, **how
    ),
    "csdi": lambda **how: make(CSDINetwork, channels=8, depth=2, heads=2, steps=8, positions=8, names=4, **how),
    "line": lambda **how: make(
        CSDINetwork, channels=8, depth=2, heads=2, steps=8, positions=8, names=4, interpolated=True, **how
    ),
}


def make(kind, **how) -> nn.Module:
    """A network, its zeros replaced so that nothing is hidden."""
    takes = inspect.signature(kind).parameters
    torch.manual_seed(0)
    net = kind(**{k: v for k, v in {**ARGUMENTS, **how}.items() if k in takes})
    for p in net.parameters():
        nn.init.normal_(p, std=0.3)
    return net


def inputs(name: str, series: int = D, shared: int = 4):
    torch.manual_seed(1)
    t = torch.rand(B)
    if name in ("mlp", "inverted"):
        return torch.randn(B, H, series), t, {"own": torch.randn(B, series, 6), "shared": torch.randn(B, shared)}
    if name in ("csdi", "line"):
        return torch.randn(B, L + H, series), t, {"time": torch.randn(B, L + H, 3)}
    cond = {"lags": torch.randn(B, H, 2 * series), "time": torch.randn(B, H, 3), "scale": torch.randn(B, series)}
    return torch.randn(B, H, series), t, cond


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("series", [1, 2, 3])
def test_shapes_and_gradients(name, series):
    net = NETWORKS[name](series=series, lags=2 * series, scale=series)
    x, t, cond = inputs(name, series)
    out = net(x, t, cond)
    assert out.shape == x.shape
    out.square().sum().backward()
    unused = {"layers.0.across", "layers.1.across"} if series == 1 else set()
    for key, p in net.named_parameters():
        if any(key.startswith(part) for part in unused):
            continue
        assert p.grad is not None and p.grad.isfinite().all(), key


@pytest.mark.parametrize("name", NETWORKS)
def test_the_output_depends_on_state_time_and_every_condition(name):
    net = NETWORKS[name]()
    x, t, cond = inputs(name)
    out = net(x, t, cond)
    assert not torch.allclose(net(x + 1, t, cond), out) and not torch.allclose(net(x, 1 - t, cond), out)
    for key in cond:
        assert not torch.allclose(net(x, t, {**cond, key: cond[key] + 1}), out), key


@pytest.mark.parametrize("name", ["mlp", "inverted", "conv", "attention"])
def test_what_is_encoded_once_gives_the_same(name):
    net = NETWORKS[name]()
    x, t, cond = inputs(name)
    assert torch.equal(net(x, t, net.encode(cond)), net(x, t, cond))


@pytest.mark.parametrize("name", NETWORKS)
def test_samples_do_not_see_each_other(name):
    net = NETWORKS[name]()
    x, t, cond = inputs(name)
    out = net(x, t, cond)
    other = x.clone()
    other[1:] = 99.0
    again = net(other, t, {k: torch.cat([v[:1], 7 + v[1:]]) for k, v in cond.items()})
    assert torch.allclose(again[0], out[0], atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_fresh_networks_begin_near_zero(name):
    kinds = {
        "mlp": BlockMLP,
        "inverted": InvertedTransformer,
        "conv": TimeGradNetwork,
        "csdi": CSDINetwork,
        "line": CSDINetwork,
    }
    if name == "attention":
        net = TimeGradNetwork(D, 2 * D, 3, D, denoiser="attention", channels=8)
    else:
        takes = inspect.signature(kinds[name]).parameters
        net = kinds[name](**{k: v for k, v in ARGUMENTS.items() if k in takes})
    x, t, cond = inputs(name)
    assert net(x, t, cond).std() < 0.05


def test_members_learn_apart_and_answer_together():
    net = NETWORKS["mlp"](members=3)
    x, t, cond = inputs("mlp")
    net(x, t, cond)[0].sum().backward()  # the first sample of four, in the part of the first member
    assert net.members[0].state.weight.grad.abs().sum() > 0
    assert all(not member.state.weight.grad.any() for member in net.members[1:])
    whole, single = net.eval()(x, t, cond), NETWORKS["mlp"]().eval()
    answers = []
    for member in net.members:
        single.members[0].load_state_dict(member.state_dict())
        answers.append(single(x, t, cond))
    assert torch.allclose(whole, sum(answers) / 3, atol=1e-5)
    assert (
        net.train()(x[:1], t[:1], {k: v[:1] for k, v in cond.items()}).shape == x[:1].shape
    )  # fewer samples than members
    with pytest.raises(ValueError, match="members must be at least 1, not 0"):
        NETWORKS["mlp"](members=0)


def test_the_line_between_what_is_given_is_numpys():
    torch.manual_seed(0)
    x, known = torch.randn(6, 9, 4), torch.rand(6, 9, 4) < 0.4
    known[0] = False
    found = between(x, known)
    for i in range(6):
        for j in range(4):
            at = known[i, :, j].nonzero()[:, 0]
            wanted = np.interp(range(9), at, x[i, at, j]) if len(at) else np.zeros(9)
            assert np.allclose(found[i, :, j], wanted, atol=1e-6)


# ---- the order of the series


def test_tokens_of_series_have_no_order():
    net = NETWORKS["inverted"]()
    x, t, cond = inputs("inverted")
    mixed = net(x[:, :, ORDER], t, {**cond, "own": cond["own"][:, ORDER]})
    assert torch.allclose(mixed, net(x, t, cond)[:, :, ORDER], atol=1e-5)
    many = torch.randn(B, H, 9)
    assert net(many, t, {"own": torch.randn(B, 9, 6), "shared": cond["shared"]}).shape == many.shape
    assert NETWORKS["inverted"](shared=0)(x, t, {**cond, "shared": torch.zeros(B, 0)}).shape == x.shape


def test_the_attention_denoiser_knows_series_by_name_alone():
    torch.manual_seed(0)
    net = AttentionDenoiser(D, 8, 16, 2, 2)
    for p in net.parameters():
        nn.init.normal_(p, std=0.3)
    x, t, hidden = torch.randn(B, D), torch.rand(B), torch.randn(B, 8)
    out = net(x, t, hidden)
    assert not torch.allclose(net(x[:, ORDER], t, hidden), out[:, ORDER], atol=1e-3)
    net.names.data = net.names.data[ORDER]
    assert torch.allclose(net(x[:, ORDER], t, hidden), out[:, ORDER], atol=1e-5)


def test_csdi_knows_series_by_name_alone():
    net = NETWORKS["csdi"]()
    x, t, cond = inputs("csdi")
    out = net(x, t, cond)
    net.names.data = net.names.data[ORDER]
    assert torch.allclose(net(x[:, :, ORDER], t, cond), out[:, :, ORDER], atol=1e-5)


def test_the_convolution_goes_around_the_circle():
    x = torch.arange(4.0)[None, None]
    assert circular(x, 2)[0, 0].tolist() == [2, 3, 0, 1, 2, 3, 0, 1]
    assert circular(torch.tensor([[[5.0]]]), 2)[0, 0].tolist() == [5, 5, 5, 5, 5]
    torch.manual_seed(0)
    net = ConvDenoiser(4, 8, 4, 2)
    for p in net.parameters():
        nn.init.normal_(p, std=0.3)
    nn.init.zeros_(net.condition[3].weight)
    nn.init.ones_(
        net.condition[3].bias
    )  # the same condition for all: then a turn of the circle is a turn of the output
    y, t, hidden = torch.randn(B, 4), torch.rand(B), torch.randn(B, 8)
    assert torch.allclose(net(y.roll(1, 1), t, hidden), net(y, t, hidden).roll(1, 1), atol=1e-5)


# ---- recurrence


@pytest.mark.parametrize("name", ["conv", "attention"])
def test_going_on_from_the_memory_is_going_in_one_go(name):
    net = NETWORKS[name]()
    _, _, cond = inputs(name)
    whole, memory = net.recur(cond["lags"], cond["time"], cond["scale"])
    pieces, kept = [], None
    for part in (slice(0, 2), slice(2, 3), slice(3, 5)):
        out, kept = net.recur(cond["lags"][:, part], cond["time"][:, part], cond["scale"], kept)
        pieces.append(out)
    assert torch.allclose(torch.cat(pieces, 1), whole, atol=1e-6) and torch.allclose(kept, memory, atol=1e-6)
    assert memory.shape == (B, 2 * 8 * (2 if name == "conv" else 1))
    doubled = net.recur(cond["lags"][[0, 0]], cond["time"][[0, 0]], cond["scale"][[0, 0]], memory[[0, 0]])[0]
    assert torch.allclose(doubled[0], doubled[1])


def test_a_state_knows_nothing_of_later_steps():
    net = NETWORKS["conv"]()
    x, t, cond = inputs("conv")
    later = {k: v.clone() for k, v in cond.items()}
    later["lags"][:, 3:] += 5
    later["time"][:, 3:] -= 5
    a, b = net(x, t, cond), net(x, t, later)
    assert torch.equal(a[:, :3], b[:, :3]) and not torch.allclose(a[:, 3:], b[:, 3:])


# ---- masks


def test_missing_entries_are_those_that_are_not_numbers():
    x = torch.randn(B, H, D)
    x[0, 1, 2] = torch.nan
    assert torch.equal(missing(x), x.isnan())


def test_kinds_of_masks():
    x = torch.randn(400, L + H, D)
    x[:, 2, 1] = torch.nan
    past = (torch.arange(L + H) < L)[None, :, None].expand_as(x) | x.isnan()
    assert torch.equal(WindowMasks(H, "forecast")(x), past)
    seen = ~x.isnan()
    given = WindowMasks(H, "random")(x)
    assert given[:, 2, 1].all()
    share = (given & seen).sum((1, 2)) / seen.sum((1, 2))
    assert (
        0.45 < share.mean() < 0.55 and share.min() < 0.1 and share.max() > 0.9
    )  # the share is itself drawn from 0 to 1
    assert share.std() > 0.2
    mixed = WindowMasks(H, "mixed")(x)
    forecasts = (mixed == past).flatten(1).all(1)
    nothing = ~(mixed & seen).flatten(1).any(1)
    assert 0.35 < forecasts.float().mean() < 0.6 and 0.01 < nothing.float().mean() < 0.15
    assert mixed[:, 2, 1].all()
    with pytest.raises(ValueError, match="masks must be random, forecast or mixed"):
        WindowMasks(H, "all")


def test_csdi_sees_whether_an_entry_is_given_or_missing_or_noise():
    net = NETWORKS["csdi"]()
    x, t, cond = inputs("csdi")
    given = torch.zeros_like(x, dtype=torch.bool)
    out = net(x, t, cond, given)
    marked = given.clone()
    marked[:, 0, 0] = True
    assert not torch.allclose(net(x, t, cond, marked), out)
    absent = x.clone()
    absent[:, 0, 0] = torch.nan
    zero = x.clone()
    zero[:, 0, 0] = 0
    gone = net(absent, t, cond, marked)
    assert gone.isfinite().all() and not torch.allclose(gone, net(zero, t, cond, given))
