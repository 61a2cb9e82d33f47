"""How fast EDM's network is beside the padded dense way to compute it, and how its cost grows."""

from __future__ import annotations

import copy
from argparse import Namespace
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from itertools import cycle
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.cells import Cell, Cells, show
from benchmarks.molecule_reference import Padded
from benchmarks.timing import Work, ratio, rounds
from diffusionkit.core import DDPM, Cosine, Diffusion, Gaussian, Product
from diffusionkit.core.rows import Rows
from diffusionkit.molecule.backbones.egnn import EGNN

# fmt: off
QM9 = [0, 0, 0, 1, 4, 5, 9, 16, 49, 124, 362, 807, 1689, 3060, 5136, 7796, 10644, 13025, 13364, 13832, 9482, 9970, 3393, 4848, 539,
       1506, 48, 266, 0, 25]
# fmt: on
"""How many of the 100,000 molecules of QM9's training part (EDM's split) have 0, 1, ... 29 atoms, hydrogens included."""
TIMES, ERROR, LINEAR = 4.0, 1e-5, 1.25
COMPARED = 16
"""Molecules whose outputs are compared."""
CELLS = ("equal", "training", "sampling", "bf16", "edges")
_GRID = {"QM9": None, "10 atoms": 10, "20 atoms": 20, "29 atoms": 29, "60 atoms": 60}
State = dict[str, Tensor]


def speed(cells: Cells, options: Namespace) -> None:
    """Training and sampling steps of the padded dense network over ours, equal outputs, and the cost of an edge."""
    made = {
        "equal": lambda: equal(options),
        "training": lambda: steps(options, "training"),
        "sampling": lambda: steps(options, "sampling"),
        "bf16": lambda: steps(options, "training", bf16=True),
        "edges": lambda: edges(options),
    }
    size = f"{options.width}x{options.depth}, batch {options.batch}"
    lines = []
    for name in options.only or CELLS:
        cell = cells.get(f"{name}/{size}", made[name])
        lines += {"equal": _equal, "edges": _edges}.get(name, partial(_times, name))(cell)
    show(lines)


# ---- what is run ----


def batches(options: Namespace, count: int) -> list[tuple[State, Rows]]:
    """Batches of noised states with sizes drawn from those of QM9; the sizes alone decide what a step costs."""
    generator = torch.Generator().manual_seed(0)
    histogram = torch.tensor(QM9, dtype=torch.float64)
    drawn = torch.multinomial(histogram.expand(count, -1), options.batch, replacement=True, generator=generator)
    return [state(sizes, generator) for sizes in drawn]


def state(sizes: Tensor, generator: torch.Generator) -> tuple[State, Rows]:
    rows = Rows.from_sizes(sizes)
    widths = {"pos": 3, "type": 5, "charge": 1}
    return {name: torch.randn(len(rows.index), width, generator=generator) for name, width in widths.items()}, rows


def network(options: Namespace) -> EGNN:
    """EDM's, but that its atoms move from the first, so that all of it is seen in what comes out."""
    torch.manual_seed(0)
    found = EGNN(5, charge=True, width=options.width, depth=options.depth)
    for block in found.blocks:
        nn.init.normal_(block.moves.head.weight, std=0.0005)
    return found


def pair(options: Namespace) -> dict[str, nn.Module]:
    """Ours and the padded one, with the same values of their own parameters."""
    ours = network(options)
    return {"ours": ours, "padded": Padded(copy.deepcopy(ours))}


def diffusion(network: nn.Module) -> Diffusion:
    parts = {"pos": Gaussian(Cosine(), centered=True), "type": Gaussian(Cosine()), "charge": Gaussian(Cosine())}
    return Diffusion(network, Product(parts))


# ---- cells ----


def equal(options: Namespace) -> Cell:
    """The largest difference between the outputs of both, and between their derivatives relative to those' norm."""
    some = Namespace(batch=min(options.batch, COMPARED))
    (x, rows), networks = batches(some, 1)[0], pair(options)
    t, outputs, slopes = torch.rand(rows.size), [], []
    for one in networks.values():
        out = one(x, t, None, rows)
        sum(value.square().mean() for value in out.values()).backward()
        outputs.append({name: value.detach() for name, value in out.items()})
        slopes.append([parameter.grad for parameter in one.parameters()])
    ours, theirs = outputs
    return {
        "molecules": rows.size,
        "difference": max(float((ours[k] - theirs[k]).abs().max()) for k in ours),
        "size": {k: float(v.std()) for k, v in theirs.items()},
        "derivatives": max(float((a - b).norm() / b.norm()) for a, b in zip(*slopes, strict=True)),
        "parameters": sum(parameter.numel() for parameter in networks["ours"].parameters()),
    }


def steps(options: Namespace, kind: str, bf16: bool = False) -> Cell:
    """A step of each in turns, on the same batch in the same round and on another one in the next."""
    found = batches(options, options.repeats + 1)
    make = _training if kind == "training" else _sampling
    works = {name: make(diffusion(one), cycle(found), bf16) for name, one in pair(options).items()}
    seconds = rounds(works, options.repeats, warmup=1)
    pairs = [_edge_count(rows) for _, rows in found]
    padded = [rows.size * int(rows.counts().max()) ** 2 for _, rows in found]
    return {
        "ratio": ratio(seconds["padded"], seconds["ours"]),
        "took": {name: median(values) for name, values in seconds.items()},
        "rounds": seconds, "edges": pairs, "padded_pairs": padded, "bf16": bf16,
    }  # fmt: skip


def _training(model: Diffusion, data: Iterator[tuple[State, Rows]], bf16: bool) -> Work:
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def work() -> None:
        x, rows = next(data)
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            loss = model.loss(x, rows=rows).mean()
        loss.backward()
        optimiser.step()

    return work


def _sampling(model: Diffusion, data: Iterator[tuple[State, Rows]], bf16: bool) -> Work:
    sampler = DDPM(1)

    def work() -> None:
        x, rows = next(data)
        sampler(model.eval(), {name: tuple(value.shape) for name, value in x.items()}, rows=rows)

    return work


def edges(options: Namespace) -> Cell:
    """Nanoseconds that a call of ours takes for one edge, of batches of about as many edges in molecules of several sizes."""
    net, generator = network(options).eval(), torch.Generator().manual_seed(0)
    rows = batches(options, 1)[0][1]
    whole, count = rows.counts(), _edge_count(rows)
    sizes = {f"{name} x1": whole if n is None else _alike(n, count) for name, n in _GRID.items()}
    sizes |= {"QM9 x1/4": whole[: len(whole) // 4], "QM9 x4": whole.repeat(4)}
    found = {name: state(some, generator) for name, some in sizes.items()}

    @torch.no_grad()
    def call(x: State, rows: Rows) -> Any:
        return net(x, torch.rand(rows.size), None, rows)

    seconds = rounds({name: partial(call, *some) for name, some in found.items()}, options.repeats, warmup=1)
    lines = {}
    for name, (_, rows) in found.items():
        pairs = _edge_count(rows)
        lines[name] = {
            "molecules": rows.size, "atoms": len(rows.index), "edges": pairs,
            "milliseconds": 1e3 * median(seconds[name]), "nanoseconds_per_edge": 1e9 * median(seconds[name]) / pairs,
            "of_an_edge": ratio(seconds[name], seconds["QM9 x1"]) * _edge_count(found["QM9 x1"][1]) / pairs,
        }  # fmt: skip
    return {"lines": lines}


def _edge_count(rows: Rows) -> int:
    return int((rows.counts() * (rows.counts() - 1)).sum())


def _alike(n: int, count: int) -> Tensor:
    """Sizes of molecules of n atoms that have about `count` edges together."""
    return torch.full((max(1, round(count / (n * (n - 1)))),), n)


# ---- what is shown ----


def _equal(cell: Cell) -> list[dict[str, str]]:
    judged = "met" if cell["difference"] <= ERROR else "MISSED"
    return [
        {
            "what": f"largest difference of outputs, {cell['molecules']} molecules, {cell['parameters']:,} parameters",
            "value": f"{cell['difference']:.1e}",
            "gate": f"at most {ERROR:g}: {judged}",
            "details": f"derivatives of parameters {cell['derivatives']:.1e} of their norm",
        }
    ]


def _times(name: str, cell: Cell) -> list[dict[str, str]]:
    judged = "met" if cell["ratio"] >= TIMES else "MISSED"
    took = ", ".join(f"{who} {1e3 * seconds:.0f} ms" for who, seconds in cell["took"].items())
    share = median(a / b for a, b in zip(cell["padded_pairs"], cell["edges"], strict=True))
    return [
        {
            "what": "training step, bf16: padded over ours" if name == "bf16" else f"{name} step: padded over ours",
            "value": f"{cell['ratio']:.1f} times",
            "gate": "" if name == "bf16" else f"at least {TIMES:g}: {judged}",
            "details": f"{took}; {share:.2f} padded pairs for one edge",
        }
    ]


def _edges(cell: Cell) -> list[dict[str, str]]:
    lines = []
    for name, found in cell["lines"].items():
        own = name.startswith("QM9")
        judged = "met" if found["of_an_edge"] <= LINEAR else "MISSED"
        lines.append(
            {
                "what": f"time of an edge, {name}: {found['molecules']} molecules, {found['edges']:,} edges",
                "value": f"{found['of_an_edge']:.2f} of QM9's",
                "gate": f"at most {LINEAR:g}: {judged}" if own and found["of_an_edge"] != 1 else "",
                "details": f"{found['nanoseconds_per_edge'] / 1e3:.1f} us, a call {found['milliseconds']:.0f} ms",
            }
        )
    return lines
