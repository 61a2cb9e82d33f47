"""How good pictures of Fashion-MNIST are: `python -m benchmarks image_quality [latent|guidance|samplers|repaint|cascade]`.

See README.md in this folder for what each part measures and what it has to reach.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.cells import Cell, Cells, command_line, panels, run_parts, say, show
from benchmarks.image_cascade import cascade
from benchmarks.image_judge import Judge, drawn, line, model
from benchmarks.timing import Work, rounds
from diffusionkit.core import DDIM, DDPM, DPMSolver, Heun, Sampler, UniPC, guided
from diffusionkit.image.grid import save_grid
from diffusionkit.recipe import Recipe
from diffusionkit.training.run import Run, assemble

SCALES = (0.0, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
CALLS = (5, 10, 20, 50, 100)  # evaluations of the network
SAMPLERS: dict[str, tuple[Callable[[int], Sampler], int]] = {  # and evaluations a step
    "ddpm": (DDPM, 1),
    "ddim": (DDIM, 1),
    "heun": (Heun, 2),
    "dpmpp, order 2": (DPMSolver, 1),
    "dpmpp, order 3": (lambda steps: DPMSolver(steps, order=3), 1),
    "dpmpp, order 2, eta 1": (lambda steps: DPMSolver(steps, eta=1.0), 1),
    "unipc": (UniPC, 1),
}


# ---- latents against pixels ----


def latent(cells: Cells, options: argparse.Namespace) -> None:
    """Models of pixels and of latents, each drawn as its recipe says, beside real pictures."""
    judge, recipes = Judge(Path(options.models)), _recipes(options)

    def run(name: str) -> Run:  # one whose figures are there already is not trained
        if name == "fashion_ldm":
            model("fashion_vae", options)
        return model(name, options, recipes[name])

    names = {"pixels, U-Net": "fashion", "latents, U-Net": "fashion_ldm"}
    names |= {"pixels, DiT": "fashion_dit"} if options.dit else {}
    works: dict[str, Callable[[int], Cell]] = {
        title: lambda seed, name=name: _recipe(judge, run(name), options.n, seed) for title, name in names.items()
    }
    works["real pictures"] = lambda seed: judge.figures(*judge.real(options.n, seed))
    works["real ones through the autoencoder"] = lambda seed: _decoded(judge, run("fashion_ldm"), options.n, seed)
    rows, timed = [], {"fashion_vae": recipes["fashion_vae"]}
    for title, work in works.items():
        found = [cells.get(f"latent/{title}/{seed}", partial(work, seed)) for seed in options.seeds]
        rows += [line(cell, f"{title}, seed {seed}") for cell, seed in zip(found, options.seeds, strict=True)]
        if title in names:  # however long it was trained
            timed[names[title]] = {**recipes[names[title]], "training.steps": str(found[0]["steps"])}
    show(rows)
    cost = cells.get("latent/cost", lambda: _cost(timed))
    for name, minutes in cost["minutes"].items():
        say(f"{name}: {cost['steps'][name]:,} steps are {minutes:.1f} minutes of training on this machine")


def _recipes(options: argparse.Namespace) -> dict[str, dict[str, str]]:
    """What is changed in each recipe: the length, and where the autoencoder lies."""
    return {
        "fashion": {"training.steps": str(options.pixel_steps)},
        "fashion_vae": {},
        "fashion_ldm": {"data.autoencoder": f"{options.models}/fashion_vae"},
        "fashion_dit": {},
    }


def _cost(recipes: dict[str, dict[str, str]], repeats: int = 7) -> Cell:
    """Minutes of each training: its steps by the time of one, taken in turns so that other work hits all of them alike.

    The networks are fresh ones, for which a step takes as long as for trained ones.
    """
    made = {name: Recipe.load(f"image/{name}", settings) for name, settings in recipes.items()}
    times = rounds({name: _step(recipe) for name, recipe in made.items()}, repeats, 2)
    steps = {name: recipe.build("training").steps for name, recipe in made.items()}
    return {"minutes": {name: steps[name] * median(times[name]) / 60 for name in made}, "steps": steps}


def _step(recipe: Recipe) -> Work:
    """A training step of a recipe: batch, loss, gradients, optimiser."""
    options: Any = recipe.build("training")
    codec, parts = recipe.domain.prepare(recipe.build("data"))
    diffusion = assemble(recipe, codec).train()
    optimiser = torch.optim.AdamW(diffusion.parameters(), 1e-9, fused=True)

    def work() -> None:
        data = parts["train"]
        batch = data.batch(torch.randint(len(data), (options.batch_size,)), torch.Generator().manual_seed(0))
        optimiser.zero_grad()
        diffusion.loss(*batch).mean().backward()
        optimiser.step()

    return work


def _recipe(judge: Judge, run: Run, n: int, seed: int) -> Cell:
    pictures, classes = drawn(run, n, run.sampler(), run.recipe.sampling().guidance, seed)
    return {**judge.figures(pictures, classes), "n": n, "steps": run.step}


def _decoded(judge: Judge, run: Run, n: int, seed: int) -> Cell:
    pictures, classes = judge.real(n, seed)
    with torch.no_grad():
        back = [run.codec.decode(run.codec.encode(part)) for part in pictures.split(100)]
    return judge.figures(torch.cat(back), classes)


# ---- guidance ----


def guidance(cells: Cells, options: argparse.Namespace) -> None:
    """Class accuracy, Fréchet distance, precision and recall for each scale of classifier-free guidance."""
    judge, rows = Judge(Path(options.models)), []
    run = model(options.model, options)
    for scale in SCALES:
        cell = cells.get(f"guidance/{options.model}/{scale:g}", lambda s=scale: _guided(judge, run, s, options.n))
        rows.append((scale, cell))
    real = cells.get("guidance/real", lambda: judge.figures(*judge.real(options.n)))
    show([line(cell, f"scale {scale:g}") for scale, cell in rows] + [line(real, "real pictures")])
    best = max(rows, key=lambda row: row[1]["accuracy"])
    say(f"class accuracy rises up to scale {best[0]:g}: {100 * best[1]['accuracy']:.1f} %")
    if options.pictures:
        _guidance_picture([(s, c) for s, c in rows], real, Path(options.pictures) / "guidance.png")


def _guided(judge: Judge, run: Run, scale: float, n: int) -> Cell:
    return {**judge.figures(*drawn(run, n, run.sampler(), scale, 0)), "n": n}


def _guidance_picture(rows: list[tuple[float, Cell]], real: Cell, path: Path) -> None:
    with panels(path, 2) as axes:
        scales = [scale for scale, _ in rows]
        axes[0].plot(scales, [cell["frechet"] for _, cell in rows], "o-")
        axes[0].axhline(real["frechet"], color="0.5", linestyle=":")
        axes[0].set(xlabel="guidance", ylabel="Fréchet distance (dotted: real pictures)", ylim=(0, None))
        for i, name in enumerate(("accuracy", "precision", "recall")):
            axes[1].plot(scales, [cell[name] for _, cell in rows], "o-", color=f"C{i}", label=name)
            axes[1].axhline(real[name], color=f"C{i}", linestyle=":")
        axes[1].set(xlabel="guidance", ylim=(0, 1.02))
        axes[1].legend(frameon=False)


# ---- samplers ----


def samplers(cells: Cells, options: argparse.Namespace) -> None:
    """Fréchet distance of every sampler at equal numbers of evaluations, without guidance."""
    judge, run = Judge(Path(options.models)), model(options.model, options)
    found: dict[str, list[float]] = {}
    for name, (make, cost) in SAMPLERS.items():
        key = f"samplers/{options.model}/{name}"
        work = {calls: partial(_sampled, judge, run, make(max(1, calls // cost)), options.n) for calls in CALLS}
        found[name] = [cells.get(f"{key}/{calls}", work[calls])["frechet"] for calls in CALLS]
    real = cells.get("samplers/real", lambda: judge.figures(*judge.real(options.n)))["frechet"]
    show([{"sampler": name} | {str(c): f"{v:.2f}" for c, v in zip(CALLS, values, strict=True)}
          for name, values in found.items()] + [{"sampler": f"real pictures {real:.2f}"}])  # fmt: skip
    if options.pictures:
        with panels(Path(options.pictures) / "samplers.png", size=(6, 4)) as axes:
            for name, values in found.items():
                axes[0].plot(CALLS, values, "o-", label=name)
            axes[0].axhline(real, color="0.5", linestyle=":", label="real pictures")
            axes[0].set(xscale="log", yscale="log", xlabel="evaluations of the network", ylabel="Fréchet distance")
            axes[0].set_xticks(CALLS, [str(c) for c in CALLS])
            axes[0].legend(frameon=False, fontsize=8)


def _sampled(judge: Judge, run: Run, sampler: Sampler, n: int) -> Cell:
    return {**judge.figures(*drawn(run, n, sampler, 1.0, 0)), "n": n}


# ---- gaps ----


def repaint(cells: Cells, options: argparse.Namespace) -> None:
    """The lower halves of held-out pictures filled by plain replacement and by RePaint, without their class being told."""
    judge, run = Judge(Path(options.models)), model("fashion", options, {"training.steps": str(options.pixel_steps)})
    steps, rows = options.gap_steps, []
    ways = {  # steps, resamplings, length of the pieces
        "replacement": (steps, 1, 1),
        "replacement, five times the steps": (5 * steps, 1, 1),
        "RePaint, each piece 5 times": (steps, 5, 5),
        "RePaint, each piece 10 times": (steps, 10, 5),
    }
    for name, way in ways.items():
        rows.append(line(cells.get(f"repaint/{name}", partial(_filled, judge, run, options, *way)), name))
    rows.append(line(cells.get("repaint/real", lambda: _real_halves(judge, options.gaps)), "the pictures themselves"))
    show(rows)


def _halves(judge: Judge, n: int) -> tuple[Tensor, Tensor, Tensor]:
    given = torch.zeros(28, 28, dtype=torch.bool)
    given[:14] = True
    return *judge.held_out(n), given


def _filled(judge: Judge, run: Run, options: argparse.Namespace, steps: int, resample: int, jump: int) -> Cell:
    pictures, labels, mask = _halves(judge, options.gaps)
    sampler, found = DDIM(steps, eta=1.0), []
    diffusion = guided(run.diffusion, 0.0, run.recipe.sampling().clip)
    torch.manual_seed(0)
    for chunk, part in zip(pictures.split(100), labels.split(100), strict=True):
        x0 = run.codec.encode(chunk)
        x = sampler(diffusion, x0.shape, {"class": part}, None, mask.expand_as(x0), x0, resample, jump)
        found.append(run.codec.decode(x))
    filled = torch.cat(found)
    if options.pictures:
        path = Path(options.pictures) / f"repaint_{steps}_{resample}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_grid(torch.cat([pictures[:12], filled[:12]]), path, columns=12, upscale=2)
    return _half_figures(judge, filled, pictures, labels)


def _real_halves(judge: Judge, n: int) -> Cell:
    pictures, labels, _ = _halves(judge, n)
    return _half_figures(judge, pictures, pictures, labels)


def _half_figures(judge: Judge, filled: Tensor, pictures: Tensor, labels: Tensor) -> Cell:
    error = (filled.double() - pictures.double())[:, :, 14:].square().mean().sqrt()
    seam = (filled[:, :, 14].double() - filled[:, :, 13].double()).abs().mean()
    return {**judge.figures(filled, labels), "rmse": float(error), "seam": float(seam), "n": len(filled)}


PARTS: dict[str, Callable[[Cells, argparse.Namespace], None]] = {
    f.__name__: f for f in (latent, guidance, samplers, repaint, cascade)
}


def main(arguments: list[str] | None = None) -> None:
    """Runs the parts and prints their tables; what is finished stays in the JSON file and is not measured again."""
    parser = command_line("image_quality", __doc__, tuple(PARTS), models=True)
    add = parser.add_argument
    add("-n", type=int, default=2000, help="samples of each figure")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], help="latent, cascade: of the samples")
    add("--model", default="fashion_ldm", help="guidance, samplers: recipe and folder of the model")
    add("--pixel-steps", type=int, default=2200, help="training steps of the model of pixels")
    add("--dit", action="store_true", help="latent: the transformer as well")
    add("--gaps", type=int, default=500, help="repaint: pictures to fill")
    add("--gap-steps", type=int, default=40, help="repaint: steps of the sampler")
    add("--pictures", metavar="FOLDER", help="draw pictures of the results into it")
    run_parts(PARTS, parser, parser.parse_args(arguments), arguments, "image_quality.json")


if __name__ == "__main__":
    main()
