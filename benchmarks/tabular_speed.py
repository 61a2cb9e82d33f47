"""How fast tables are trained on and drawn: the step, the samplers, and a million rows into a file.

As a program, `python -m benchmarks.tabular_speed FOLDER N FILE` writes rows of a kept model and prints seconds and memory: a
process of its own, whose highest memory is that of the writing alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import torch
from torch import nn

from benchmarks.cells import Cell, Cells, say, show
from benchmarks.tabular_quality import fit, folder, key
from benchmarks.tabular_reference import Predict, dense, sample
from benchmarks.tabular_tables import Table, load
from benchmarks.timing import peak, ratio, rounds, timed
from diffusionkit.core import DDPM, Diffusion
from diffusionkit.core.schedules import Cosine
from diffusionkit.recipe import Recipe
from diffusionkit.tabular import TableCodec, TabularDiffusion, generate, metrics
from diffusionkit.tabular.prepare import prepared
from diffusionkit.training.run import assemble

STEP, SAME, DEFAULT, FLAT = 1.3, 4.0, 20.0, 1.1
LOOP = "loop over columns"
Draw = Callable[[], pd.DataFrame]


def speed(cells: Cells, options: Namespace) -> None:
    """A training step beside its bare network, our sampler beside a loop over columns, a million rows into a file."""
    name = (options.tables or ["adult"])[0]
    table = load(name, options.data, options.rows)
    lines = [_stepped(cells.get(f"step/{table.label}/{options.batch}", lambda: step(table, options)))]
    lines += _drawn(cells.get(f"sampling/{table.label}/{options.batch}", lambda: sampling(table, options)))
    lines += _streamed([_stream(cells, table, n, options) for n in options.stream])
    show(lines)


# ---- the TabDDPM-sized network ----


def tabddpm(table: Table, options: Namespace) -> tuple[Diffusion, TableCodec, str]:
    """The TabDDPM preset of this table with weights of an earlier run where there are some, and a word on them."""
    for name in (f"tabddpm/{table.label}/0", f"tabddpm/{table.label}/0/equal"):  # of `quality`, else of `peers`
        kept = folder(options.models, name)
        if (kept / "recipe.yaml").exists():
            run = TabularDiffusion.load(kept, device="cpu").run_
            return run.diffusion, run.codec, f"weights of {run.step:,} steps"
    changes = {"data.name": "frame"} | ({"backbone.layers": str(options.layers)} if options.layers else {})
    recipe = Recipe.load("tabular/tabddpm", changes)
    source = recipe.build("data")
    source.columns, source.target = table.columns, table.target
    codec, _ = prepared(source, {"train": table.train})
    return assemble(recipe, codec), codec, "untrained"


def step(table: Table, options: Namespace) -> Cell:
    """Loss, backward, clipping and AdamW beside forward and backward of the network alone, in turns."""
    diffusion, codec, _ = tabddpm(table, options)
    diffusion.train()
    rows, network = codec.table(table.train), diffusion.network
    indices = torch.arange(options.batch) % len(rows)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
    x = rows.batch(indices).x
    t = diffusion.objective.draw(diffusion.process, options.batch, torch.device("cpu"))
    x_t, _ = diffusion.process.diffuse(x, t)
    slopes = [torch.randn_like(leaf) for leaf in network(x_t, t).values()]

    def bare() -> None:
        network.zero_grad()
        torch.autograd.backward(list(network(x_t, t).values()), slopes)

    def whole(x: dict) -> None:
        optimiser.zero_grad()
        diffusion.loss(x).mean().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()

    works = {"bare": bare, "step": lambda: whole(x), "with its batch": lambda: whole(rows.batch(indices).x)}
    seconds = rounds(works, options.repeats)
    return {
        "batch": options.batch,
        "parameters": sum(p.numel() for p in network.parameters()),
        "milliseconds": {name: 1e3 * median(found) for name, found in seconds.items()},
        "ratios": {name: ratio(seconds[name], seconds["bare"]) for name in works},
    }


def sampling(table: Table, options: Namespace) -> Cell:
    """Rows a second of every sampler, and the shape error of all the rows that it drew, decoding included."""
    works, words, calls = _samplers(table, options)
    frames: dict[str, list[pd.DataFrame]] = {name: [] for name in works}

    def keeping(name: str, work: Draw) -> Callable[[], None]:
        return lambda: frames[name].append(work())

    seconds = rounds({name: keeping(name, work) for name, work in works.items()}, options.repeats, warmup=1)
    rows = {name: pd.concat(found, ignore_index=True) for name, found in frames.items()}
    samplers = {
        name: {
            "rows_per_second": options.batch / median(seconds[name]),
            "ratio": ratio(seconds[LOOP], seconds[name]),
            "calls": calls[name],
            "weights": words[name],
            "shape_error": metrics.average(metrics.shape(table.train, rows[name], table.kinds)),
            "rows": len(rows[name]),
        }
        for name in works
    }
    return {"samplers": samplers, "milliseconds_beside_network": _beside(table, options)}


def _beside(table: Table, options: Namespace) -> dict[str, float]:
    """Milliseconds of a step that are not spent in the network, of the same run that the network was clocked in."""
    diffusion, codec, _ = tabddpm(table, options)
    network, chain, found = diffusion.eval().network, _chain(diffusion), {}
    forward = network.forward
    for name in (LOOP, ours(chain)):
        spent: list[float] = []
        network.forward = _clocked(forward, spent)
        if name == LOOP:
            work = partial(_loop, diffusion, codec, chain, options.batch, partial(_clocked, spent=spent))
        else:
            work = partial(_ours, diffusion, codec, chain, options.batch)
        _, seconds = timed(work)
        found[name] = 1e3 * (seconds - sum(spent)) / chain
    return found


def _clocked(call: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    """The function, noting the seconds of each call."""

    def clocked(*arguments: Any, **named: Any) -> Any:
        found, seconds = timed(lambda: call(*arguments, **named))
        spent.append(seconds)
        return found

    return clocked


def _chain(diffusion: Diffusion) -> int:
    """The length of the chain that was trained for."""
    return diffusion.process.parts[diffusion.process.names.index("cat")].steps


def ours(steps: int) -> str:
    """What our sampler with the same network is called."""
    return f"the same network, {steps} steps"


def _samplers(table: Table, options: Namespace) -> tuple[dict[str, Draw], dict[str, str], dict[str, int]]:
    """What draws a batch of rows, with a word on its weights and how often it calls the network; the loop comes first."""
    diffusion, codec, word = tabddpm(table, options)
    diffusion.eval()
    chain = _chain(diffusion)
    model, other = _default(table, options)
    usual = model.run_.sampler().steps
    works: dict[str, Draw] = {LOOP: partial(_loop, diffusion, codec, chain, options.batch)}
    words, calls = {LOOP: word}, {LOOP: chain}
    for steps in (chain, *(steps for steps in options.fast if steps < chain)):
        name = ours(steps)
        works[name], words[name], calls[name] = partial(_ours, diffusion, codec, steps, options.batch), word, steps
    for steps in (usual, *(steps for steps in options.fast if steps < usual)):
        name = f"default preset, {steps} steps"
        works[name] = partial(model.sample, options.batch, steps=steps, batch_size=options.batch)
        words[name], calls[name] = other, steps
    for name in [name for name in works if name != LOOP]:
        halved = f"{name}, bf16"
        works[halved], words[halved], calls[halved] = partial(_halved, works[name]), words[name], calls[name]
    return works, words, calls


def _halved(draw: Draw) -> pd.DataFrame:
    """The same under automatic casting to bf16, as a user would ask for it."""
    with torch.autocast("cpu", torch.bfloat16):
        return draw()


def _loop(
    diffusion: Diffusion, codec: TableCodec, chain: int, n: int, wrap: Callable[[Predict], Predict] = lambda call: call
) -> pd.DataFrame:
    """Rows by the reference's way, the class drawn as often as it was seen; `wrap` is done to the network's call."""
    network, sizes = diffusion.network, codec.arguments()["sizes"]
    target = network.target
    if target is None:
        numbers, codes = sample(wrap(dense(network)), Cosine(chain).alphas_cumprod, network.split, sizes, n)
        return codec.decode({"num": numbers, "cat": codes})
    counts = torch.tensor(codec.coders[codec.cat[target]].counts, dtype=torch.float64)
    classes = torch.multinomial(counts, n, replacement=True)
    rest = [size for k, size in enumerate(sizes) if k != target]
    numbers, codes = sample(wrap(dense(network, classes)), Cosine(chain).alphas_cumprod, network.split, rest, n)
    codes = torch.cat([codes[:, :target], classes[:, None], codes[:, target:]], 1)
    return codec.decode({"num": numbers, "cat": codes})


def _ours(diffusion: Diffusion, codec: TableCodec, steps: int, n: int) -> pd.DataFrame:
    return codec.decode(generate.draw(diffusion, codec, DDPM(steps), torch.arange(n)))


def _default(table: Table, options: Namespace) -> tuple[TabularDiffusion, str]:
    """The default preset's model that `quality` has left, or one that was hardly trained, and a word on it."""
    kept = folder(options.models, key(options.preset, table.label, 0, options))
    if (kept / "recipe.yaml").exists():
        model = TabularDiffusion.load(kept, device="cpu").set_params(verbose=False)
        return model, f"weights of {model.run_.step:,} steps"
    model, _ = fit(table, table.train, options.preset, 0, steps=2, device="cpu")
    return model.set_params(verbose=False), "untrained"


# ---- a million rows ----


def _stream(cells: Cells, table: Table, n: int, options: Namespace) -> Cell:
    def make() -> Cell:
        with tempfile.TemporaryDirectory() as place:
            model, word = _default(table, options)
            model.save(Path(place) / "model")
            command = [
                sys.executable,
                "-m",
                "benchmarks.tabular_speed",
                f"{place}/model",
                str(n),
                f"{place}/rows.parquet",
            ]
            found = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
            )
            return {**json.loads(found.stdout.splitlines()[-1]), "weights": word}

    return cells.get(f"stream/{table.label}/{n}", make)


def write(model: str, n: int, file: str) -> Cell:
    """Writes n rows of a kept model; MB are the highest of this process, torch and pandas included."""
    estimator = TabularDiffusion.load(model, device="cpu").set_params(verbose=False)
    before = peak()
    path, seconds = timed(lambda: estimator.sample(n, out=file))
    return {"rows": n, "sampling_seconds": seconds, "peak_mb": peak(), "loaded_mb": before,
            "file_mb": Path(path).stat().st_size / 1e6}  # fmt: skip


# ---- what is shown ----


def _gate(reached: bool, gate: float, sign: str) -> str:
    return f"{sign} {gate:g}: {'met' if reached else 'MISSED'}"


def _stepped(cell: Cell) -> dict[str, str]:
    found = cell["ratios"]["step"]
    times = ", ".join(f"{name} {value:.0f} ms" for name, value in cell["milliseconds"].items())
    return {
        "what": f"training step, batch {cell['batch']:,}, {cell['parameters'] / 1e6:.2f} M parameters, over bare network",
        "value": f"{found:.2f} times",
        "gate": _gate(found <= STEP, STEP, "at most"),
        "details": f"{times}; with its batch {cell['ratios']['with its batch']:.2f} times",
    }


def _drawn(cell: Cell) -> list[dict[str, str]]:
    lines = []
    for name, found in cell["samplers"].items():
        gate = SAME if name.startswith("the same") else DEFAULT if name.startswith("default") else None
        shape = f"shape error {100 * found['shape_error']:.2f} % of {found['rows']:,} rows"
        lines.append(
            {
                "what": f"sampling, {name}",
                "value": f"{found['ratio']:.2f} times",
                "gate": "" if gate is None else _gate(found["ratio"] >= gate, gate, "at least"),
                "details": f"{found['rows_per_second']:,.0f} rows a second; {found['weights']}"
                + ("" if found["weights"] == "untrained" else f", {shape}"),
            }
        )
    beside = [f"{name} {value:.1f}" for name, value in cell["milliseconds_beside_network"].items()]
    lines.append(
        {"what": "of each step beside the network", "value": "", "details": f"milliseconds: {', '.join(beside)}"}
    )
    return lines


def _streamed(cells: list[Cell]) -> list[dict[str, str]]:
    lines = []
    for cell in cells:
        flat = cell["peak_mb"] / cells[0]["peak_mb"]
        lines.append(
            {
                "what": f"{cell['rows']:,} rows into parquet",
                "value": f"{cell['sampling_seconds'] / 60:.1f} min",
                "gate": "" if cell is cells[0] else f"memory {_gate(flat <= FLAT, FLAT, 'at most')}",
                "details": f"peak {cell['peak_mb']:,.0f} MB ({cell['loaded_mb']:,.0f} when loaded), {flat:.2f} times the "
                f"first; {cell['file_mb']:.1f} MB file; {cell['weights']}",
            }
        )
    return lines


if __name__ == "__main__":
    folder_, count, target = sys.argv[1:]
    say(json.dumps(write(folder_, int(count), target)))
