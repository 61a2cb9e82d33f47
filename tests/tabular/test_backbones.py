import itertools
import math

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from diffusionkit.core import Diffusion, Sampler
from diffusionkit.core.processes import Categorical, Gaussian, Product
from diffusionkit.nn import sinusoidal
from diffusionkit.tabular.backbones.entries import Codes, Numbers, Padded, waves
from diffusionkit.tabular.backbones.mlp import ResidualMLP
from diffusionkit.tabular.backbones.mtabgen import MTabGen
from diffusionkit.tabular.backbones.tabddpm import TabDDPM
from diffusionkit.tabular.backbones.transformer import ColumnTransformer
from diffusionkit.tabular.masks import ColumnMasks

NETWORKS = {
    "mlp": (ResidualMLP, dict(width=16, depth=2)),
    "tabddpm": (TabDDPM, dict(layers=[24, 16], width=16, masked=0.5)),
    "transformer": (ColumnTransformer, dict(width=8, depth=2, heads=2)),
    "mixer": (ColumnTransformer, dict(width=4, depth=2, heads=1, mixer=16)),
    "mtabgen": (MTabGen, dict(width=8, depth=2, heads=2)),
}
TABLES = {
    "mixed": (3, [2, 5, 17]),
    "numbers": (3, []),
    "codes": (0, [4, 2]),
    "one number": (1, []),
    "one code": (0, [6]),
    "400 columns": (200, [2, 3] * 100),
    "2,000 levels": (2, [2000, 3]),
}


def build(name, numbers, sizes, **options):
    kind, small = NETWORKS[name]
    positions = [(i + 0.5) / size if size % 2 else math.nan for size in sizes for i in range(size)]
    data = dict(
        numbers=numbers,
        sizes=sizes,
        owners={"num": range(numbers), "cat": range(numbers, numbers + len(sizes))},
        positions=positions,
        shares=[1 / size for size in sizes for _ in range(size)],
    )
    if kind is TabDDPM:
        del data["positions"], data["shares"]
    return kind(**data, **{**small, **options})


def states(n, numbers, sizes, seed=0, masks=True):
    draw = torch.Generator().manual_seed(seed)
    most = torch.tensor(sizes, dtype=torch.double) + masks
    codes = (torch.rand(n, len(sizes), generator=draw, dtype=torch.double) * most).long()
    return {"num": torch.randn(n, numbers, generator=draw), "cat": codes}


def stirred(network, seed=0):
    """The network with all parameters drawn anew: many start at zero."""
    draw = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=draw) * 0.3
    return network


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("name", NETWORKS)
def test_shapes_and_gradients(name, table):
    numbers, sizes = TABLES[table]
    network = stirred(build(name, numbers, sizes))
    x, t = states(6, numbers, sizes), torch.linspace(0.1, 1, 6)
    given = {key: (torch.arange(leaf.numel()) % 3 == 0).view(leaf.shape) for key, leaf in x.items()}
    output = network(x, t, None, given=given)
    assert output["num"].shape == (6, numbers) and output["cat"].shape == (6, sum(sizes))
    (output["num"].square().sum() + output["cat"].square().sum()).backward()
    for key, parameter in network.named_parameters():
        if not parameter.numel():
            continue
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        # Of a single token all attention goes to itself, whatever the queries are.
        if numbers + len(sizes) > 1:
            assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", NETWORKS)
def test_all_or_nothing_given_is_finite(name):
    network, x = stirred(build(name, 2, [3, 4])), states(4, 2, [3, 4])
    for value in (True, False):
        given = {key: torch.full(leaf.shape, value) for key, leaf in x.items()}
        output = network(x, torch.rand(4), None, given=given)
        assert all(leaf.isfinite().all() for leaf in output.values())
    bare, shown = network(x, torch.ones(4)), network(x, torch.ones(4), None, given=given)
    assert all(torch.allclose(bare[key], shown[key], atol=1e-5) for key in bare)  # no mask is a mask of nothing


@pytest.mark.parametrize("name", NETWORKS)
def test_a_given_value_reaches_the_others_and_a_hidden_one_does_not(name):
    network = stirred(build(name, 2, [3, 5])).eval()
    x, t = states(8, 2, [3, 5], masks=False), torch.full((8,), 0.5)
    given = {"num": torch.zeros(8, 2, dtype=torch.bool), "cat": torch.tensor([[True, False]]).expand(8, 2)}
    other = {**x, "cat": x["cat"] + torch.tensor([1, 0])}
    other["cat"][:, 0] %= 3
    first, second = network(x, t, None, given=given), network(other, t, None, given=given)
    assert ((first["num"] - second["num"]).abs().sum(1) > 1e-4).all()
    assert ((first["cat"][:, 3:] - second["cat"][:, 3:]).abs().sum(1) > 1e-4).all()
    # What the process has masked is one and the same code, so that the value behind it cannot tell.
    process = Categorical([3, 5], "absorbing")
    hidden = [process.diffuse(leaf, torch.ones(8))[0] for leaf in (x["cat"], other["cat"])]
    given = {"num": given["num"], "cat": torch.zeros(8, 2, dtype=torch.bool)}
    first, second = (network({**x, "cat": codes}, t, None, given=given) for codes in hidden)
    assert torch.equal(first["num"], second["num"]) and torch.equal(first["cat"], second["cat"])


def test_mtabgen_reads_given_columns_in_the_encoder_alone():
    network = stirred(build("mtabgen", 2, [3, 5])).eval()
    x, t = states(8, 2, [3, 5], masks=False), torch.full((8,), 0.5)
    given = {"num": torch.tensor([[True, False]]).expand(8, 2), "cat": torch.zeros(8, 2, dtype=torch.bool)}
    seen = []
    network.between.register_forward_hook(lambda module, inputs, output: seen.append(output))
    for noisy in (0.0, 5.0):
        network({**x, "num": x["num"] + torch.tensor([0.0, noisy])}, t, None, given=given)
    assert torch.equal(seen[0][:, [0, -1]], seen[1][:, [0, -1]])  # the given number, and the place that is always there


class _Largest(TorchDispatchMode):
    """The number of elements of the largest tensor made."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(leaf, torch.Tensor):
                self.numel = max(self.numel, leaf.numel())
        return result


@pytest.mark.parametrize("name", NETWORKS)
def test_memory_is_linear_in_the_levels(name):
    sizes, n = [3] * 99 + [2001], 64
    network, x = build(name, 0, sizes, **({"width": 4} if name == "transformer" else {})), states(n, 0, sizes)
    with _Largest() as made:
        output = network(x, torch.rand(n))
        output["cat"].square().sum().backward()
    assert n * sum(sizes) <= made.numel <= 2.1 * n * sum(sizes)


@pytest.mark.parametrize("sizes", [[3, 1, 8, 2, 9], [5], [], [2, 2, 2]])
def test_padded_products_are_those_of_a_loop(sizes):
    generator = torch.Generator().manual_seed(0)
    padded = Padded(torch.tensor(sizes, dtype=torch.long))
    h, table = torch.randn(4, len(sizes), 6, generator=generator), torch.randn(sum(sizes), 6, generator=generator)
    blocks = [h[:, i] @ rows.T for i, rows in enumerate(table.split(sizes))] if sizes else [torch.zeros(4, 0)]
    torch.testing.assert_close(padded.products(h, table), torch.cat(blocks, 1))
    weights = torch.randn(len(sizes), 6, 3, generator=generator)
    made = padded.combinations([table[rows] for _, rows in padded.stacked()], weights)
    blocks = [rows @ weights[i] for i, rows in enumerate(table.split(sizes))] if sizes else [torch.zeros(0, 3)]
    torch.testing.assert_close(made, torch.cat(blocks))


# ---- TabDDPM


def _adult(**options):
    sizes = [8, 16, 7, 14, 6, 5, 2, 41, 2]
    return TabDDPM(6, sizes, {"num": range(6), "cat": range(6, 15)}, target=8, **options), sizes


def test_tabddpm_has_the_published_number_of_parameters():
    network, sizes = _adult()
    d, width = 6 + sum(sizes[:-1]), 128
    layers = [width, 256, 1024, 1024, 1024, 1024, 256, d]
    expected = d * width + width + 2 * (width * width + width) + 2 * width
    expected += sum(a * b + b for a, b in itertools.pairwise(layers))
    assert sum(p.numel() for p in network.parameters()) == expected


@pytest.mark.parametrize("target", [None, 0, 1, 2])
def test_tabddpm_is_the_published_computation(target):
    sizes, free = [3, 2, 4], [i for i in range(3) if i != target]
    network = stirred(TabDDPM(2, sizes, {"num": [0, 1], "cat": [2, 3, 4]}, target, layers=[8, 6], width=10, steps=100))
    x, t = states(5, 2, sizes, masks=False), torch.tensor([0.01, 0.3, 0.5, 0.99, 1.0])
    logs = [F.one_hot(x["cat"][:, i], sizes[i]).float().clamp(min=1e-30).log() for i in free]
    h = network.entry(torch.cat([x["num"], *logs], 1)) + network.time.layers(
        sinusoidal(torch.tensor([0.0, 29, 49, 98, 99]), 10, scale=1.0)
    )
    if target is not None:
        h = h + F.silu(network.classes(x["cat"][:, target]))
    for layer in network.layers:
        h = F.relu(layer[0](h))
    h = network.head(h)
    output = network(x, t)
    torch.testing.assert_close(output["num"], h[:, :2], rtol=1e-3, atol=1e-2)
    blocks, rest = list(output["cat"].split(sizes, 1)), h[:, 2:]
    torch.testing.assert_close(torch.cat([blocks[i] for i in free], 1), rest, rtol=1e-3, atol=1e-2)
    if target is not None:
        assert not blocks[target].any()


def _process(sizes, kind="absorbing"):
    return Product({"num": Gaussian(predict="v"), "cat": Categorical(sizes, kind)})


def test_tabddpm_learns_nothing_of_the_logits_of_the_class():
    network, sizes = _adult(layers=[8])
    diffusion, x0 = Diffusion(network, _process(sizes, "uniform")), states(16, 6, sizes, masks=False)
    torch.manual_seed(0)
    loss = diffusion.loss(x0)
    network.register_forward_hook(
        lambda module, inputs, output: {**output, "cat": output["cat"] + F.pad(torch.tensor([3.0, -7.0]), (99, 0))}
    )
    torch.manual_seed(0)
    assert torch.equal(diffusion.loss(x0), loss) and loss.isfinite().all()


def test_tabddpm_without_a_class_is_told_of_no_column():
    assert TabDDPM(1, [2], {"num": [0], "cat": [1]}).masks is None


# ---- learning


@pytest.mark.parametrize("name", NETWORKS)
def test_a_tiny_table_is_learned(name):
    torch.manual_seed(0)
    # The first code says the second (0 and 1 say 0, 2 says 1 or 2), and about where the number lies.
    code = torch.tensor([0, 1, 2, 2] * 64)
    second = torch.where(code < 2, 0, 1 + torch.arange(256) // 4 % 2)
    x0 = {"num": code[:, None] - 1.25 + 0.2 * torch.randn(256, 1), "cat": torch.stack([code, second], 1)}
    options = {"tabddpm": dict(layers=[64, 64], width=64), "mixer": dict(width=8, mixer=64)}.get(name, {})
    network = build(name, 1, [3, 3], **options)
    steps, rate = (600, 3e-3) if name == "tabddpm" else (200, 1e-2)
    diffusion = Diffusion(network, _process([3, 3], "uniform" if name == "tabddpm" else "absorbing"))
    optimizer = torch.optim.Adam(diffusion.parameters(), rate)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * min(1, 2 - 2 * step / steps)
        optimizer.zero_grad()
        diffusion.loss(x0).mean().backward()
        optimizer.step()
    sampler, like = Sampler(steps=20), {"num": (400, 1), "cat": (400, 2)}
    with torch.no_grad():
        made = sampler(diffusion, like=like)
        _follows(made)
        share = made["cat"][:, 0].bincount(minlength=3) / 400
        assert (share - torch.tensor([0.25, 0.25, 0.5])).abs().max() < 0.15
        given = {"num": torch.zeros(400, 1, dtype=torch.bool), "cat": torch.tensor([[True, False]]).expand(400, 2)}
        known = {"num": torch.zeros(400, 1), "cat": torch.full((400, 2), 1)}
        made = sampler(diffusion, like=like, given=given, known=known)
        _follows(made)
        assert (made["cat"][:, 0] == 1).all()


def _follows(made):
    code, second = made["cat"].unbind(1)
    right = ((code < 2) == (second == 0)) & ((code - 1.25 - made["num"][:, 0]).abs() < 0.8)
    assert right.float().mean() > 0.7


# ---- masks


OWNERS = {"num": [0, 2, 4], "cat": [0, 1, 2, 3]}


def test_masks_show_whole_columns():
    torch.manual_seed(0)
    given = ColumnMasks(OWNERS, 1.0)(states(2000, 3, [2, 2, 2, 2]))
    assert torch.equal(given["num"][:, :2], given["cat"][:, [0, 2]])
    columns = torch.cat([given["num"], given["cat"][:, [1, 3]]], 1).float()
    assert (columns.mean(0) - 0.5).abs().max() < 0.05
    # From none to all with a chance that is itself even: every number of columns is as frequent as any other.
    counts = columns.sum(1).long().bincount(minlength=6) / 2000
    assert (counts - 1 / 6).abs().max() < 0.04


def test_masks_show_something_to_a_share_of_the_rows_and_a_column_always():
    torch.manual_seed(0)
    x = states(4000, 3, [2, 2, 2, 2])
    given = ColumnMasks(OWNERS, 0.3)(x)
    some = torch.cat(list(given.values()), 1).any(1).float().mean()
    assert abs(some - 0.3 * 5 / 6) < 0.03
    given = ColumnMasks(OWNERS, 0.0, always=[2])(x)
    assert given["num"].all(0).tolist() == [False, True, False] == given["num"].any(0).tolist()
    assert given["cat"].all(0).tolist() == [False, False, True, False] == given["cat"].any(0).tolist()


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_masks_refuse_what_is_no_share(share):
    with pytest.raises(ValueError, match="share of the rows"):
        ColumnMasks(OWNERS, share)


# ---- entries


@pytest.mark.parametrize("way", ["in", "out"])
def test_neighbours_of_an_ordered_column_move_together(way):
    torch.manual_seed(0)
    places = (torch.arange(20) + 0.5) / 20
    codes = Codes([20, 20], 4, torch.cat([places, torch.full((20,), math.nan)]), torch.full((40,), 0.05))
    if way == "in":
        moved = lambda: codes.tokens(torch.arange(20)[:, None].expand(-1, 2)).transpose(0, 1)  # noqa: E731
    else:
        moved = lambda: codes.logits(torch.ones(1, 4)).view(2, 20, 1)  # noqa: E731
    before = moved().detach()
    optimizer = torch.optim.SGD(codes.parameters(), 0.1)
    moved()[:, 10].sum().backward()
    optimizer.step()
    ordered, plain = (moved() - before).detach().abs().sum(2)
    assert plain[10] > 0 and plain.count_nonzero() == 1
    assert (ordered > 0).sum() > 15 and ordered.argmax() == 10
    assert ordered[9] > 0.4 * ordered[10] > 2 * ordered[2] * 0.4


def test_waves():
    found = waves(torch.tensor([0.5, 0.25]), 4)
    assert found.shape == (2, 9)
    straight, sines, cosines = found[0].split([1, 4, 4])
    root = torch.arange(1, 5).sqrt()
    torch.testing.assert_close(straight, torch.zeros(1))
    torch.testing.assert_close(sines * root, torch.tensor([1.0, 0, -1, 0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(cosines * root, torch.tensor([0.0, -1, 0, 1]), atol=1e-6, rtol=0)
    assert abs(found[1, 0] + 0.67449) < 1e-4
    assert waves(torch.tensor([0.0, 1.0]), 0).isfinite().all()


def test_numbers():
    z = torch.tensor([[-9.0, 9.0], [0.0, 1.0]])
    assert torch.equal(Numbers(2, "linear")(z), z[:, :, None])
    periodic = Numbers(2, "periodic", 2)(z)
    torch.testing.assert_close(
        periodic[1, 1], torch.tensor([1.0, *(f(k) for f in (math.sin, math.cos) for k in (1, 2))])
    )
    piecewise = Numbers(2, "piecewise", 4)
    found = piecewise(z)
    assert found.shape == (2, 2, 5) and piecewise.size == 5
    assert found[0, 0].tolist() == [-9, 0, 0, 0, 0] and found[0, 1].tolist() == [9, 1, 1, 1, 1]
    torch.testing.assert_close(found[1, 0], torch.tensor([0.0, 1, 1, 0, 0]), atol=1e-6, rtol=0)
    edges = torch.special.ndtri(torch.linspace(0.01, 0.99, 5))
    at = Numbers(5, "piecewise", 4)(edges[None])[0, :, 1:]
    torch.testing.assert_close(at, torch.ones(5, 4).tril(-1), atol=1e-5, rtol=0)


def test_refusals():
    owners = {"num": [0], "cat": [1]}
    with pytest.raises(ValueError, match="embedding must be"):
        Numbers(1, "cubic")
    with pytest.raises(ValueError, match="target is one of 1 codes, not 1"):
        TabDDPM(1, [2], owners, target=1)
    with pytest.raises(ValueError, match="depth must be even"):
        build("mixer", 1, [2], depth=3)
    with pytest.raises(ValueError, match="heads must divide"):
        build("mtabgen", 1, [2], heads=3)


def test_with_nothing_revealed_the_residual_network_says_the_frequencies():
    torch.manual_seed(0)
    shares = torch.tensor([0.2, 0.5, 0.3, 0.9, 0.1])
    network = ResidualMLP(
        0, [3, 2], {"num": [], "cat": [0, 1]}, [-1.0] * 5, shares.tolist(), 16, 2, timed=False, masked=0.0
    )
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    x = {"num": torch.zeros(4, 0), "cat": torch.tensor([[3, 2], [0, 2], [3, 1], [1, 0]])}
    first, *rest = torch.stack(
        [network.eval()(x, torch.ones(4))["cat"][:, part].softmax(1)[:, 0] for part in (slice(3), slice(3, 5))], 1
    )
    assert first.tolist() == pytest.approx([0.2, 0.9], abs=1e-4)
    assert not any(torch.allclose(first, other, atol=1e-2) for other in rest)
    assert not torch.allclose(network.train()(x, torch.ones(4))["cat"][0, :3].softmax(0), shares[:3], atol=1e-2)
