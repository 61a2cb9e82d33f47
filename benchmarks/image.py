"""How fast the image domain is, on a CPU: `python -m benchmarks image [--quick]`.

See README.md in this folder for what each part measures and what it has to reach.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial, wraps
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cells import Cells, command_line, run_parts, say
from benchmarks.peers import PEERS, Case, Contestant, ours, parameters
from benchmarks.timing import Clock, Work, ratio, rounds
from diffusionkit.core import DDIM, DDPM, ClassifierFree, Diffusion, DPMSolver, Heun, UniPC
from diffusionkit.image.backbones.unet import UNet
from diffusionkit.recipe import Recipe

DIGITS = Case("digits 8x8", (1, 8, 8), 64, 32, (1, 2), 1, (4,))
CASES = [
    DIGITS,
    Case("grey 28x28", (1, 28, 28), 32, 32, (1, 2, 2), 1, (7,)),
    Case("colour 32x32", (3, 32, 32), 8, 64, (1, 2, 2, 2), 2, (16,)),
]
STEPS = 2  # DDIM steps in one measurement
Row = dict[str, Any]


def row(part: str, what: str, value: float | None, unit: str, gate: float | None = None, **further: Any) -> Row:
    """One number; a gate is a lower bound for ratios ("x") and an upper bound for everything else."""
    met = None if gate is None or value is None else value >= gate if unit == "x" else value <= gate
    return {"part": part, "what": what, "value": value, "unit": unit, "gate": gate, "met": met, **further}


# ---- 1. against other libraries ----


def peers(quick: bool) -> Iterator[Row]:
    """Training and sampling steps; the ratio is the other's time over ours."""
    for case in CASES[:1] if quick else CASES:
        for bf16 in (False, True):
            yield from _peers(case, bf16, repeats=5 if quick else 15)


def _peers(case: Case, bf16: bool, repeats: int) -> Iterator[Row]:
    contestants, missing = _contestants(case)
    x = torch.randn(case.batch, *case.shape).clamp(-1, 1)
    works = {
        "training step": {name: _training(c, x, bf16) for name, c in contestants.items()},
        "sampling step": {name: _sampling(c, bf16) for name, c in contestants.items()},
    }
    for what, work in works.items():
        seconds = rounds(work, repeats)
        for name, contestant in contestants.items():
            title = f"{case.name}, batch {case.batch}, {what}, {'bf16' if bf16 else 'float32'}: {name}"
            further = {
                "milliseconds": 1e3 * median(seconds[name]) / (STEPS if what == "sampling step" else 1),
                "parameters": parameters(contestant.network),
                "gflop": _flop(lambda c=contestant: c.loss(x)) / 1e9,
            }
            gate = None if bf16 or name == "ours" else 1.0
            yield row("peers", title, ratio(seconds[name], seconds["ours"]), "x", gate, **further)
    for name in missing:
        yield row("peers", f"{name} is not installed and was skipped: pip install -e '.[peers]'", None, "")


def _contestants(case: Case) -> tuple[dict[str, Contestant], list[str]]:
    """Ours, and each peer as its users get it and once more in channels-last layout; the names of those not installed."""
    found, missing = {"ours": ours(case)}, []
    for name, build in PEERS.items():
        try:
            found[name] = build(case)
        except ImportError:
            missing.append(name)
            continue
        found[f"{name}, channels-last"] = build(case)
        found[f"{name}, channels-last"].network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return found, missing


def _cast(bf16: bool) -> Any:
    return torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext()


def _training(contestant: Contestant, x: Tensor, bf16: bool) -> Work:
    network, optimiser = contestant.network, torch.optim.AdamW(contestant.network.parameters(), fused=True)

    def work() -> None:
        network.train()
        optimiser.zero_grad()
        with _cast(bf16):
            loss = contestant.loss(x)
        loss.backward()
        optimiser.step()

    return work


def _sampling(contestant: Contestant, bf16: bool) -> Work:
    def work() -> None:
        contestant.network.eval()
        with _cast(bf16):
            contestant.sample(STEPS)

    return work


# ---- 2. against the machine ----


def _flop(work: Work) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def ceiling(quick: bool) -> Iterator[Row]:
    """FLOP/s of our own steps as a share of the best that a large product or convolution reaches in the same rounds."""
    case = CASES[0] if quick else CASES[-1]
    contestant, x = ours(case), torch.randn(case.batch, *case.shape)
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    picture = torch.randn(16, 128, 32, 32).contiguous(memory_format=torch.channels_last)
    kernel = torch.randn(128, 128, 3, 3).contiguous(memory_format=torch.channels_last)
    works: dict[str, Work] = {
        "product of 1024x1024 matrices": lambda: a @ b,
        "convolution 3x3, 128 channels, 32x32, batch 16": lambda: F.conv2d(picture, kernel, padding=1),
        "training step": _training(contestant, x, False),
        "sampling step": _sampling(contestant, False),
    }
    seconds = rounds(works, 5 if quick else 15)
    speed = {name: _flop(work) / median(seconds[name]) / 1e9 for name, work in works.items()}
    best = max(list(speed.values())[:2])
    for name, value in speed.items():
        yield row("ceiling", f"{case.name}, {name}" if "step" in name else name, value, "GFLOP/s", share=value / best)


# ---- 3. the samplers' own cost ----


def samplers(quick: bool) -> Iterator[Row]:
    """What a sampler takes beside the network's own calls, in the same run of it."""
    makes: list[Callable[[int], Any]] = [DDIM, DDPM, DPMSolver, Heun, UniPC]
    for case in CASES[:1] if quick else CASES[:2]:
        diffusion = _digits(case)
        clock = Clock(diffusion.network)
        like = (64, *case.shape)
        cond = {"class": torch.arange(64) % 10}
        steps, repeats = (20, 3 if quick else 8) if case is DIGITS else (5, 3)
        works = {make.__name__: _share(make(steps), diffusion, clock, like, cond) for make in makes}
        shares: dict[str, list[float]] = {name: [] for name in works}
        for number in range(1 + repeats):
            for name, work in works.items():
                share = work()
                if number:
                    shares[name].append(share)
        for name, values in shares.items():
            yield row("samplers", f"{case.name}, batch 64, {name}", 100 * median(values), "%", 3.0)


def _share(sampler: Any, diffusion: Diffusion, clock: Clock, like: tuple[int, ...], cond: Any) -> Work:
    def work() -> float:
        clock.seconds, begun = 0.0, time.perf_counter()
        sampler(diffusion, like, cond)
        return (time.perf_counter() - begun) / clock.seconds - 1

    return work


def _digits(case: Case) -> Diffusion:
    """The digits recipe's diffusion, or a like one for another case."""
    recipe = Recipe.load("image/digits")
    network = recipe.build("backbone", shape=DIGITS.shape, classes=10)
    if case is not DIGITS:
        network = UNet(
            shape=case.shape,
            classes=10,
            channels=case.channels,
            multipliers=case.multipliers,
            blocks=case.blocks,
            attention=case.attention,
        )
    return Diffusion(network, recipe.build("process"), recipe.build("objective")).eval()


# ---- 4. guidance ----


def guidance(quick: bool) -> Iterator[Row]:
    """Guided sampling against the plain sampling of twice as many."""
    for case in CASES[:1] if quick else CASES[:2]:
        diffusion = _digits(case)
        guided, sampler, n = ClassifierFree(diffusion, 2.0), DDIM(5), 64 if case is DIGITS else 16
        one, two = ({"class": torch.arange(k) % 10} for k in (n, 2 * n))
        works: dict[str, Work] = {
            "guided": partial(sampler, guided, (n, *case.shape), one),
            "double": partial(sampler, diffusion, (2 * n, *case.shape), two),
        }
        seconds = rounds(works, 9 if quick else 21)
        what = f"{case.name}, {n} guided pictures over {2 * n} plain ones"
        yield row("guidance", what, ratio(seconds["guided"], seconds["double"]), "times", 1.05)


# ---- 5. the training loop ----


class _Beside:
    """A data set that, whenever the real loop takes a batch, lets a bare loop take a step as well, and keeps both times."""

    def __init__(self, dataset: Any, bare: Callable[[Any], None]) -> None:
        self.dataset, self.bare = dataset, bare
        self.real_seconds: list[float] = []
        self.bare_seconds: list[float] = []
        self._left = 0.0

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Any:
        batch = self.dataset.batch(indices, generator)
        fetched = time.perf_counter()
        state = torch.get_rng_state()
        self.bare(batch)
        torch.set_rng_state(state)
        done = time.perf_counter()
        if self._left:
            self.real_seconds.append(fetched - self._left)
            self.bare_seconds.append(done - fetched)
        self._left = time.perf_counter()
        return batch


def loop(quick: bool) -> Iterator[Row]:
    """The digits recipe in the real loop, and beside each of its steps one of forward, backward and optimiser alone.

    Metrics and averages are in it; held-out losses, pictures and checkpoints, which come ten times in a run, are not.
    """
    from diffusionkit.training import Training, train

    recipe = Recipe.load("image/digits")
    _, parts = recipe.domain.prepare(recipe.build("data"))
    options: Training = recipe.build("training")
    steps = 40 if quick else 200
    other = _digits(DIGITS).train()
    optimiser = torch.optim.AdamW(other.parameters(), lr=options.lr, betas=options.betas, fused=True)

    def bare(batch: Any) -> None:
        optimiser.zero_grad()
        other.loss(*batch).mean().backward()
        optimiser.step()

    beside = _Beside(parts["train"], bare)
    with tempfile.TemporaryDirectory() as folder:
        train(
            _digits(DIGITS),
            beside,
            Training(**{**vars(options), "steps": steps, "every": steps}),
            out=Path(folder) / "run",
            console=Console(quiet=True),
        )
    real, plain = beside.real_seconds[5:], beside.bare_seconds[5:]
    share = 100 * (1 - 1 / ratio(real, plain))
    title = f"digits recipe, batch {options.batch_size}, {steps} steps: neither forward, backward nor optimiser"
    together = 100 * (1 - sum(plain) / sum(real))
    yield row("loop", title, share, "%", 10.0, milliseconds=1e3 * median(real), of_sums=together)


# ---- 6. the command line ----


def cli(quick: bool) -> Iterator[Row]:
    """`diffusionkit --help` as a process of its own."""
    command = [sys.executable, "-m", "diffusionkit", "--help"]
    works = {"help": lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)}
    yield row("cli", "diffusionkit --help", median(rounds(works, 3 if quick else 9, 1)["help"]), "s", 1.0)


def show(entry: Row) -> str:
    """One line: number, what it is of, details, and whether it meets its gate."""
    number = f"{entry['value']:9.2f} {entry['unit']:7}" if entry["unit"] else " " * 17
    details = []
    if "milliseconds" in entry:
        details.append(f"{entry['milliseconds']:.1f} ms")
    if "parameters" in entry:
        details.append(f"{entry['parameters'] / 1e6:.2f} M parameters, {entry['gflop']:.2f} GFLOP forward")
    if "of_sums" in entry:
        details.append(f"median step; {entry['of_sums']:.1f} % of all steps together")
    if "share" in entry:
        details.append(f"{100 * entry['share']:.0f} % of the ceiling")
    gate = "" if entry["met"] is None else f"  gate {entry['gate']:g}: {'met' if entry['met'] else 'MISSED'}"
    return f"{number} {entry['what']}{'  (' + '; '.join(details) + ')' if details else ''}{gate}"


def _kept(part: Callable[[bool], Iterator[Row]]) -> Callable[[Cells, Namespace], None]:
    """A part whose rows are a cell."""

    @wraps(part)
    def run(cells: Cells, options: Namespace) -> None:
        key = f"{part.__name__}/quick" if options.quick else part.__name__
        rows = cells.get(key, lambda: {"rows": list(part(options.quick))})["rows"]
        for entry in rows:
            say(show(entry))
        gated = [entry["met"] for entry in rows if entry["met"] is not None]
        if gated:
            say(f"{sum(gated)} of {len(gated)} gates met")

    return run


PARTS = {f.__name__: _kept(f) for f in (peers, ceiling, samplers, guidance, loop, cli)}


def main(arguments: list[str] | None = None) -> None:
    """Runs the parts and prints a line for each number; what is finished stays in the JSON file."""
    parser = command_line("image", __doc__, tuple(PARTS), threads=1)
    parser.add_argument("--quick", action="store_true", help="small cases and few repetitions; their cells are others")
    run_parts(PARTS, parser, parser.parse_args(arguments), arguments, "image_speed.json")


if __name__ == "__main__":
    main()
