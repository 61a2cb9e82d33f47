"""Do emoji show what was asked for? `python -m benchmarks.image_text --text RUN --plain RUN --clip RUN --judge RUN [--json FILE]`.

For each of the held-out captions a picture is drawn: by the text model with guidance 1 and 4, by the model without text that the
image-text model steers, and by that model alone. The judge, another image-text model than the one that steers, looks for the
caption among 100. Beside them stand real held-out pictures, and chance. The same is done with as many training captions.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

if not __package__:  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch
from torch import Tensor

from benchmarks.timing import machine
from diffusionkit.core import DDIM, GradientGuidance, guided
from diffusionkit.image.data import Pictures, chosen_of
from diffusionkit.image.grid import save_grid
from diffusionkit.image.prompts import Prompt
from diffusionkit.image.retrieval import AMONG, judge, retrieval
from diffusionkit.training.run import Run

_BATCH = 64
Draw = Callable[[list[str]], Any]


def drawn(run: Run, captions: list[str], steps: int, model: Draw, told: Draw) -> Tensor:
    """A picture (uint8) for each caption, by a model and with a condition that are made for each batch of captions."""
    torch.manual_seed(0)
    found = []
    for first in range(0, len(captions), _BATCH):
        chunk = captions[first : first + _BATCH]
        found.append(run.codec.decode(DDIM(steps)(model(chunk), like=run.codec.like(len(chunk)), cond=told(chunk))))
    return torch.cat(found)


def ways(text: Run, plain: Run, clip: Run, scale: float, steps: int) -> dict[str, Callable[[list[str]], Tensor]]:
    """By name, what draws a picture for each caption."""

    def words(run: Run, captions: list[str]) -> dict[str, Tensor]:
        return run.codec.text.prompts([Prompt(caption) for caption in captions])

    def by_text(guidance: float) -> Callable[[list[str]], Tensor]:
        model = guided(text.diffusion, guidance, 1.0)
        return lambda captions: drawn(text, captions, steps, lambda _: model, lambda chunk: words(text, chunk))

    log_prob = clip.diffusion.objective.log_prob(clip.diffusion)  # type: ignore[operator]

    def steered(chunk: list[str]) -> Any:
        wanted = words(clip, chunk)
        return guided(GradientGuidance(plain.diffusion, lambda x, t, _: log_prob(x, t, wanted), scale), clip=1.0)

    unguided = guided(plain.diffusion, clip=1.0)
    return {
        "text, guidance 1": by_text(1.0),
        "text, guidance 4": by_text(4.0),
        f"without text, steered at {scale:g}": lambda captions: drawn(plain, captions, steps, steered, lambda _: None),
        "without text": lambda captions: drawn(plain, captions, steps, lambda _: unguided, lambda _: None),
    }


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Draws, judges, prints a table and returns the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("text", "plain", "clip", "judge"):
        parser.add_argument(f"--{name}", required=True, metavar="RUN", type=Path)
    parser.add_argument("--scale", type=float, default=50.0, help="of the steering gradient; 50 by default")
    parser.add_argument("--steps", type=int, default=50, help="of DDIM; 50 by default")
    parser.add_argument("-n", type=int, default=None, help="captions of each part; all held-out ones by default")
    parser.add_argument("--pictures", type=Path, help="a folder for the pictures drawn")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the numbers there as well")
    options = parser.parse_args(arguments)
    if options.judge.resolve() == options.clip.resolve():
        parser.error("--judge must be another run than --clip, which steers")
    text, plain, clip = (Run.load(getattr(options, name)) for name in ("text", "plain", "clip"))
    by = judge(Run.load(options.judge), text.codec.shape)
    parts = {name: part.pictures for name, part in text.recipe.domain.prepare(text.recipe.build("data"))[1].items()}
    count = min(options.n or len(parts["test"].images), *(len(part.images) for part in parts.values()))
    order = torch.randperm(len(parts["train"].images), generator=torch.Generator().manual_seed(0))[:count]
    chosen: dict[str, Pictures] = {
        "held out": chosen_of(parts["test"], torch.arange(count)),
        "training": chosen_of(parts["train"], order),
    }
    makers = ways(text, plain, clip, options.scale, options.steps)
    rows: dict[str, dict[str, float]] = {}
    for part, real in chosen.items():
        captions = [each[0] for each in real.captions or []]
        pool = [each[0] for each in (parts["test" if part == "held out" else "train"].captions or [])]
        for name, pictures in {"real": lambda _, real=real: real.images, **makers}.items():
            shown = pictures(captions)
            rows.setdefault(name, {})[part] = retrieval(by, shown, captions, pool)
            print(f"{part:<10} {name:<32} {100 * rows[name][part]:6.1f} %", flush=True)
            if options.pictures:
                options.pictures.mkdir(parents=True, exist_ok=True)
                save_grid(
                    shown[:100], options.pictures / f"{part}, {name}.png".replace(" ", "_").replace(",", ""), columns=10
                )
    found = {
        "captions": count,
        "among": AMONG,
        "chance": 1 / AMONG,
        "found": rows,
        "scale": options.scale,
        "steps": options.steps,
    }
    print(f"{count} captions of each part, {AMONG} to choose from, chance {100 / AMONG:g} %")
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), **found}, indent=1) + "\n", encoding="utf-8")
    return found


if __name__ == "__main__":
    main()
