from __future__ import annotations

import pytest
import torch

from benchmarks.molecule_reference import Padded
from diffusionkit.core.rows import Rows, center
from diffusionkit.molecule.backbones import graph
from diffusionkit.molecule.backbones.egnn import EGNN
from diffusionkit.molecule.backbones.graph import Edges, by_size
from diffusionkit.molecule.backbones.pairs import PairNetwork

SIZES = [3, 1, 7, 4, 7, 2]


def network(dtype=torch.float64, moves=0.05, **options) -> EGNN:
    """A network that moves its atoms from the first, as a trained one does."""
    torch.manual_seed(0)
    net = EGNN(**{"elements": 5, "charge": True, "width": 16, "depth": 2} | options).to(dtype)
    for block in net.blocks:
        torch.nn.init.normal_(block.moves.head.weight, std=moves)
    return net


def batch(sizes=SIZES, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    rows = Rows.from_sizes(torch.tensor(sizes))

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    n = len(rows.index)
    x = {"pos": center(2 * draw(n, 3), rows), "type": draw(n, 5), "charge": draw(n, 1)}
    return x, torch.rand(rows.size, generator=generator, dtype=dtype), rows


def plain(monkeypatch):
    """From here on networks of pairs are computed by plain operations, as on a GPU."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)


def equal(a, b, **tolerance):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], **tolerance)


@pytest.fixture(params=["stretches", "plain"])
def way(request, monkeypatch):
    if request.param == "plain":
        plain(monkeypatch)


def turn(seed, reflect):
    q, r = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    q = q * r.diagonal().sign()
    return q * (-1 if (q.det() < 0) != reflect else 1)


@pytest.mark.parametrize("reflect", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"centered": False}, {"attention": False, "aggregation": "mean"}, {"radial": 6}]
)
def test_turns_with_its_input_and_ignores_shifts(way, options, reflect):
    net, (x, t, rows) = network(**options), batch()
    out = net(x, t, None, rows)
    assert out["pos"].std() > 0.01
    for seed in range(3):
        matrix, shift = turn(seed, reflect), torch.tensor([[3.0, -1.0, 20.0]], dtype=torch.float64)
        assert (matrix.det() < 0) == reflect
        moved = net(x | {"pos": x["pos"] @ matrix.T + shift}, t, None, rows)
        equal(moved, out | {"pos": out["pos"] @ matrix.T}, atol=1e-10, rtol=1e-9)


def test_permutes_with_its_rows_even_where_molecules_mix(way):
    net, (x, t, rows) = network(), batch()
    out, order = net(x, t, None, rows), torch.randperm(len(rows.index), generator=torch.Generator().manual_seed(1))
    shuffled = net({k: v[order] for k, v in x.items()}, t, None, Rows(rows.index[order], rows.size))
    equal(shuffled, {k: v[order] for k, v in out.items()}, atol=1e-12, rtol=1e-10)


def test_a_molecule_is_what_it_is_alone_whatever_stands_beside_it(way):
    net, (x, t, rows) = network(), batch()
    out = net(x, t, None, rows)
    for number in range(rows.size):
        own = rows.index == number
        alone = net({k: v[own] for k, v in x.items()}, t[number : number + 1])
        equal(alone, {k: v[own] for k, v in out.items()}, atol=1e-12, rtol=1e-10)


def test_a_molecule_without_atoms_and_one_of_a_single_atom(way):
    net = network()
    x, t, rows = batch([0, 1, 3, 0, 1])
    out = net(x, t, None, rows)
    assert all(v.isfinite().all() for v in out.values())
    assert not out["pos"][rows.index == 1].any() and out["pos"][rows.index == 2].any()
    x, t, rows = batch([1, 1])
    x["pos"].requires_grad_()
    out = net(x, t, None, rows)
    (out["pos"].sum() + out["type"].sum()).backward()
    assert not out["pos"].any() and out["type"].isfinite().all() and not x["pos"].grad.any()


def test_bumps_tell_lengths_apart_and_fall_off():
    told = network(radial=9)._told(torch.tensor([0.0, 1.0, 1.2, 16.0, 1e4], dtype=torch.float64)[:, None])
    assert told.argmax(1)[:2].tolist() == [0, 2] and told[3].argmax() == 8 and not told[4].any()
    assert (told[1] - told[2]).abs().max() > 0.1
    with pytest.raises(ValueError, match="radial"):
        network(radial=1)


@pytest.mark.parametrize("sizes", [SIZES, [6, 6, 6]], ids=["ragged", "dense"])
@pytest.mark.parametrize("room", [1, 16 * 20, 10**8])
@pytest.mark.parametrize("attention", [True, False])
def test_stretches_give_the_values_and_derivatives_of_plain_operations(monkeypatch, sizes, room, attention):
    monkeypatch.setattr(graph, "ROOM", room)
    net, (x, t, rows) = network(attention=attention), batch(sizes)
    found = []
    for _ in range(2):
        net.zero_grad()
        inputs = {k: v.clone().requires_grad_() for k, v in x.items()}
        out = net(inputs, t, None, rows)
        sum((v * torch.linspace(-1, 1, v.numel(), dtype=v.dtype).view_as(v)).sum() for v in out.values()).backward()
        slopes = {k: v.grad for k, v in inputs.items()} | {k: v.grad.clone() for k, v in net.named_parameters()}
        found.append((out, slopes))
        plain(monkeypatch)
    for a, b in zip(*found, strict=True):
        equal(a, b, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("head", ["sum", "gate", "number"])
def test_derivatives_written_out_are_those_of_finite_differences(head):
    torch.manual_seed(0)
    pairs, rows = PairNetwork(4, 2, head).double(), Rows.from_sizes(torch.tensor([3, 2, 1]))
    edges = Edges.complete(by_size(rows)[1])
    h = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    features = torch.randn(len(edges.i), 2, dtype=torch.float64, requires_grad=True)
    names, values = zip(*pairs.named_parameters(), strict=True)

    def call(h, features, *values):
        return torch.func.functional_call(pairs, dict(zip(names, values, strict=True)), (h, features, edges))

    assert torch.autograd.gradcheck(call, (h, features, *values))


@pytest.mark.parametrize("radial", [0, 6])
def test_atoms_in_one_place_have_finite_derivatives(way, radial):
    net, (x, t, rows) = network(radial=radial), batch([4])
    pos = torch.zeros_like(x["pos"]).requires_grad_()
    out = net(x | {"pos": pos}, t, None, rows)
    (out["pos"].square().sum() + out["type"].square().sum()).backward()
    assert pos.grad.isfinite().all() and all(p.grad.isfinite().all() for p in net.parameters())


def test_has_the_parameters_of_the_published_network():
    # EDM's 5,339,920 less the row of its last layer (256 weights, 1 bias) for the time, which it throws away.
    assert sum(p.numel() for p in EGNN(5, charge=True).parameters()) == 5_339_920 - 257


@pytest.mark.parametrize("sizes", [[9, 3, 1, 12, 5], [6, 6]], ids=["ragged", "dense"])
def test_equals_the_padded_reference_at_full_size(sizes):
    net, (x, t, rows) = network(width=256, depth=9, moves=0.002, dtype=torch.float32), batch(sizes, dtype=torch.float32)
    with torch.no_grad():
        out = net(x, t, None, rows)
        equal(out, Padded(net)(x, t, None, rows), atol=1e-5, rtol=1e-5)
    assert all(0.1 < v.std() < 10 for v in out.values()), "neither nothing nor far more than data"


@pytest.mark.parametrize("path", ["stretches", "plain"])
def test_mixed_precision_is_near_full_precision_and_keeps_its_derivatives_in_it(path, monkeypatch):
    if path == "plain":
        plain(monkeypatch)
    net, (x, t, rows) = network(width=32, dtype=torch.float32), batch(dtype=torch.float32)
    out = net(x, t, None, rows)
    with torch.autocast("cpu", torch.bfloat16):
        low = net(x, t, None, rows)
        loss = low["pos"].float().square().sum() + low["type"].float().square().sum()
    loss.backward()
    assert all(
        p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in net.parameters() if p.grad is not None
    )
    for name in out:
        error = (low[name].float() - out[name]).norm() / out[name].norm()
        assert 1e-5 < error < 0.05, name


def test_properties_count_where_they_are_asked_for_and_null_takes_them_away():
    net, (x, t, rows) = network(properties=2), batch()
    asked = torch.randn(rows.size, 2, dtype=torch.float64)
    nothing, partly = net(x, t, None, rows), net.null({"properties": asked}, torch.arange(rows.size) < 2)
    equal(net(x, t, net.null({"properties": asked}, torch.ones(rows.size, dtype=torch.bool)), rows), nothing)
    out, dropped = net(x, t, partly, rows), rows.index < 2
    assert torch.equal(out["type"][dropped], nothing["type"][dropped])
    assert ((out["type"] - nothing["type"]).abs().amax(1) > 0)[~dropped].all()
    zero = net(x, t, {"properties": torch.zeros_like(asked)}, rows)
    assert (zero["type"] - nothing["type"]).abs().max() > 1e-6, "the mean is not the same as nothing asked"
    assert net.null(None, dropped) is None and asked.isfinite().all()


def test_a_network_trained_with_fragments_sees_which_atoms_are_given():
    net, (x, t, rows) = network(fragment=0.5), batch()
    given = net.masks(x, rows)
    nothing = {k: torch.zeros_like(v) for k, v in given.items()}
    equal(net(x, t, None, rows, given=nothing), net(x, t, None, rows))
    given["pos"] = (rows.index == 2)[:, None].expand(-1, 3)
    changed = (net(x, t, None, rows, given=given)["type"] - net(x, t, None, rows)["type"]).abs().amax(1) > 0
    assert torch.equal(changed, rows.index == 2)
    assert network().masks is None


def test_fragments_are_the_atoms_round_one_or_the_others_and_never_all():
    torch.manual_seed(0)
    pos = torch.arange(5.0)[:, None] * torch.tensor([1.0, 0, 0])
    rows = Rows(torch.arange(600).repeat_interleave(5), 600)
    order = torch.randperm(3000)
    x, mixed = (
        {"pos": pos.repeat(600, 1)[order], "type": torch.zeros(3000, dtype=torch.long)},
        Rows(rows.index[order], 600),
    )
    given = network(fragment=0.5).masks(x, mixed)
    assert torch.equal(given["pos"], given["type"][:, None].expand(-1, 3))
    shown = torch.zeros(600, 5, dtype=torch.bool)
    shown[mixed.index, x["pos"][:, 0].long()] = given["type"]
    counts = shown.sum(1)
    assert counts.max() == 4 and 0.3 < (counts > 0).float().mean() < 0.5  # a share of .5, of whom 1 in 5 is shown none
    borders = shown.int().diff(dim=1).abs().sum(1)
    assert borders.max() == 2, "on a line what is given is one piece, or all but one piece"
    assert (shown[:, 0] & shown[:, 4]).any()
    assert not network(fragment=1.0).masks(batch([1, 1])[0], batch([1, 1])[2])["pos"].any()


def test_codes_give_logits_and_a_mask_is_one_more_code():
    net, (x, t, rows) = network(charge=False, categorical=True), batch()
    codes = torch.arange(len(rows.index)) % 6
    out = net({"pos": x["pos"], "type": codes}, t, None, rows)
    assert out["type"].shape == (len(codes), 5)
    equal(net({"pos": x["pos"], "type": codes[:, None]}, t, None, rows), out)


def test_edges_are_all_ordered_pairs_of_a_molecule():
    edges = Edges.complete(Rows.from_sizes(torch.tensor([1, 3, 0, 2])))
    pairs = [(a, b) for own in ([0], [1, 2, 3], [4, 5]) for a in own for b in own if a != b]
    assert list(zip(edges.i.tolist(), edges.j.tolist(), strict=True)) == pairs
    mixed = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))
    again = Edges.of(edges.i[mixed], edges.j[mixed], 6)
    assert sorted(zip(again.i.tolist(), again.j.tolist(), strict=True)) == pairs
    assert torch.equal(again.i, edges.i) and torch.equal(again.degree, edges.degree)
    torch.testing.assert_close(edges.sum(torch.ones(len(pairs))), edges.degree.float())


def test_impossible_values_are_refused():
    for options, word in (
        ({"elements": 0}, "elements"),
        ({"width": 0}, "width"),
        ({"depth": 0}, "depth"),
        ({"aggregation": "most"}, "aggregation"),
        ({"fragment": 2.0}, "fragment"),
    ):
        with pytest.raises(ValueError, match=word):
            EGNN(**{"elements": 5} | options)
