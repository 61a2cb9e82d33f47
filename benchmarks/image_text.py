"""Do emoji show what was asked for? `python -m benchmarks image_text --judge RUN [--text RUN] [--plain RUN --clip RUN]`.

For each of the held-out captions a picture is drawn: by the text model, where it is given, with guidance 1 and 4, and, where both
are given, by the model without text that the image-text model steers, and by that model alone. The judge, another image-
text model than the one that steers, looks for the caption among 100. Beside them stand real held-out pictures, and
chance. The same is done with as many training captions.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.cells import Cell, command_line, opened, say
from diffusionkit.core import DDIM, GradientGuidance, guided
from diffusionkit.image.grid import save_grid
from diffusionkit.image.pictures import Pictures, chosen_of
from diffusionkit.image.prompts import Prompt
from diffusionkit.image.retrieval import AMONG, judge, retrieval
from diffusionkit.training.run import Run

GUIDANCE = (1.0, 4.0)
RUNS = {
    "text": "of image/emoji_text, which reads captions",
    "plain": "of image/emoji, which does not",
    "clip": "of image/emoji_clip, which steers the latter",
    "judge": "another one of image/emoji_clip",
}
_BATCH = 64
Draw = Callable[[list[str]], Any]
Ways = dict[str, Callable[[list[str]], Tensor]]


def drawn(run: Run, captions: list[str], steps: int, model: Draw, told: Draw) -> Tensor:
    """A picture (uint8) for each caption, by a model and with a condition that are made for each batch of captions."""
    torch.manual_seed(0)
    found = []
    for first in range(0, len(captions), _BATCH):
        chunk = captions[first : first + _BATCH]
        found.append(run.codec.decode(DDIM(steps)(model(chunk), like=run.codec.like(len(chunk)), cond=told(chunk))))
    return torch.cat(found)


def told_by_text(text: Run, steps: int) -> Ways:
    """What draws with a model that reads captions."""

    def by_text(guidance: float) -> Callable[[list[str]], Tensor]:
        model = guided(text.diffusion, guidance, 1.0)
        return lambda captions: drawn(text, captions, steps, lambda _: model, lambda chunk: _words(text, chunk))

    return {f"text, guidance {guidance:g}": by_text(guidance) for guidance in GUIDANCE}


def steered_by_clip(plain: Run, clip: Run, scale: float, steps: int) -> Ways:
    """What draws with a model without text, steered by an image-text model and left alone."""
    log_prob = clip.diffusion.objective.log_prob(clip.diffusion)  # type: ignore[operator]

    def steered(chunk: list[str]) -> Any:
        wanted = _words(clip, chunk)
        return guided(GradientGuidance(plain.diffusion, lambda x, t, _: log_prob(x, t, wanted), scale), clip=1.0)

    unguided = guided(plain.diffusion, clip=1.0)
    return {
        f"without text, steered at {scale:g}": lambda captions: drawn(plain, captions, steps, steered, lambda _: None),
        "without text": lambda captions: drawn(plain, captions, steps, lambda _: unguided, lambda _: None),
    }


def _words(run: Run, captions: list[str]) -> dict[str, Tensor]:
    return run.codec.text.prompts([Prompt(caption) for caption in captions])


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Draws, judges, prints a line for each way and part, and returns the shares."""
    parser = command_line("image_text", __doc__)
    add = parser.add_argument
    for name in RUNS:
        add(f"--{name}", required=name == "judge", metavar="RUN", type=Path, help=RUNS[name])
    add("--scale", type=float, default=50.0, help="of the steering gradient; 50 by default")
    add("--steps", type=int, default=50, help="of DDIM; 50 by default")
    add("-n", type=int, default=None, help="captions of each part; all held-out ones by default")
    add("--pictures", metavar="FOLDER", type=Path, help="a folder for the pictures drawn")
    options = parser.parse_args(arguments)
    if (options.plain is None) != (options.clip is None):
        parser.error("--plain and --clip belong together: the latter steers the former")
    if not (options.text or options.plain):
        parser.error("nothing draws: give --text, or --plain and --clip")
    if options.clip and options.judge.resolve() == options.clip.resolve():
        parser.error("--judge must be another run than --clip, which steers")
    cells = opened(parser, options, arguments, "image_text.json")
    runs = {name: Run.load(getattr(options, name)) for name in RUNS if getattr(options, name)}
    by, makers = judge(runs["judge"], next(iter(runs.values())).codec.shape), Ways()
    if "text" in runs:
        makers |= told_by_text(runs["text"], options.steps)
    if "clip" in runs:
        makers |= steered_by_clip(runs["plain"], runs["clip"], options.scale, options.steps)
    rows: dict[str, dict[str, float]] = {}
    for part, (real, pool) in _parts(runs["judge"], options.n).items():
        captions = [each[0] for each in real.captions or []]
        for name, pictures in {"real": lambda _, real=real: real.images, **makers}.items():

            def make(part: str = part, name: str = name, pictures: Any = pictures, pool: Any = pool) -> Cell:
                shown = pictures(captions)  # noqa: B023  # called at once
                if options.pictures:
                    options.pictures.mkdir(parents=True, exist_ok=True)
                    file = f"{part}, {name}.png".replace(" ", "_").replace(",", "")
                    save_grid(shown[:100], options.pictures / file, columns=10)
                found = retrieval(by, shown, captions, pool)  # noqa: B023
                return {"found": found, "captions": len(captions), "among": AMONG, "steps": options.steps}  # noqa: B023

            cell = cells.get(f"{part}/{name}/{options.steps} steps/{len(captions)} captions", make)
            rows.setdefault(name, {})[part] = cell["found"]
            say(f"{part:<10} {name:<32} {100 * cell['found']:6.1f} %")
    say(f"{AMONG} captions to choose from, chance {100 / AMONG:g} %")
    return rows


def _parts(run: Run, n: int | None) -> dict[str, tuple[Pictures, list[str]]]:
    """Equally many held-out and training pictures, and all captions of either part."""
    parts = {name: part.pictures for name, part in run.recipe.domain.prepare(run.recipe.build("data"))[1].items()}
    count = min(n or len(parts["test"].images), *(len(part.images) for part in parts.values()))
    order = torch.randperm(len(parts["train"].images), generator=torch.Generator().manual_seed(0))[:count]
    return {
        "held out": (chosen_of(parts["test"], torch.arange(count)), _first(parts["test"])),
        "training": (chosen_of(parts["train"], order), _first(parts["train"])),
    }


def _first(pictures: Pictures) -> list[str]:
    return [each[0] for each in pictures.captions or []]


if __name__ == "__main__":
    main()
