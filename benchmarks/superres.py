"""How well a run enlarges whole photographs: `python -m benchmarks superres RUN [--factor 4] [--pictures FOLDER]`.

Each photograph of a folder (Kodak's, where DIFFUSIONKIT_DATA has them) is made smaller, quantised to 8 bits, enlarged by the run
as `diffusionkit upscale` does, and compared with what it was: PSNR, SSIM, and how far the result, made smaller again, agrees
with what it was made of. Bicubic enlargement of the same small picture stands beside it, as it is and made to agree.
"""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.cells import Cell, command_line, opened, say
from benchmarks.timing import timed
from diffusionkit.image.grid import as_rows, save_grid
from diffusionkit.image.readers import picture_files, read_whole
from diffusionkit.image.rebuilt import psnr, ssim
from diffusionkit.image.resize import enlarge, match
from diffusionkit.image.smaller import shrunk
from diffusionkit.image.upscale import upscale
from diffusionkit.training.run import Run

WAYS = ("bicubic", "bicubic, consistent", "ours", "ours, consistent")
_CUT = 128  # pixels of a detail in the picture


def measured(run: Run, path: Path, factor: int, seed: int, noise: float) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The measures of one photograph, and the pictures."""
    from PIL import Image

    whole = read_whole(path)[None]
    whole = whole[..., : whole.shape[2] // factor * factor, : whole.shape[3] // factor * factor]
    small = shrunk(whole, factor)
    plain = enlarge(small.float(), factor)
    found = {"bicubic": plain, "bicubic, consistent": match(plain, small.float(), factor)}
    seen = {way: made.round().clamp(0, 255).to(torch.uint8) for way, made in found.items()}
    seconds, clip = {}, run.recipe.sampling().clip
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "small.png"
        Image.fromarray(as_rows(small)[0].squeeze()).save(file)
        for way in WAYS[2:]:
            task = upscale(run.codec, file, factor=factor, noise=noise, consistent=way != "ours")
            torch.manual_seed(seed)
            cond = run.domain.condition(run.codec, torch.arange(1))
            cond = run.diffusion.null(cond, torch.ones(1, dtype=torch.bool))
            seen[way], seconds[way] = timed(partial(task.draw, run.diffusion, run.sampler(), 1, clip, cond=cond))
    rows = {
        way: {
            "psnr": psnr(made, whole),
            "ssim": ssim(made, whole),
            "consistency": psnr(shrunk(made, factor), small),
            **({"seconds": seconds[way]} if way in seconds else {}),
        }
        for way, made in seen.items()
    }
    return rows, {"small": small, **seen, "original": whole}


def details(pictures: dict[str, Tensor], factor: int) -> Tensor:
    """The same detail of each picture, (6, C, H, W): the small one with its pixels as squares."""
    large = pictures | {"small": pictures["small"].repeat_interleave(factor, 2).repeat_interleave(factor, 3)}
    height, width = pictures["original"].shape[2:]
    y, x = max(0, (height - _CUT) // 2), max(0, (width - _CUT) // 2)
    return torch.cat([large[name][..., y : y + _CUT, x : x + _CUT] for name in ("small", *WAYS, "original")])


def means(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Of all photographs."""
    every = list(rows.values())
    return {way: {k: sum(row[way][k] for row in every) / len(every) for k in every[0][way]} for way in WAYS}


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Measures all photographs, prints a line for each and the means, and returns these."""
    parser = command_line("superres", __doc__, threads=1)
    parser.add_argument("run", help="folder of a run that enlarges")
    parser.add_argument("--factor", type=int, help="that of the run by default, or a power of it")
    parser.add_argument("--noise", type=float, default=0.0, help="put on the small pictures, in levels of 255")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="of photographs; by default $DIFFUSIONKIT_DATA/image/kodak")
    parser.add_argument("-n", type=int, help="how many of them; all by default")
    parser.add_argument("--pictures", metavar="FOLDER", help="draw a detail of the first three there")
    options = parser.parse_args(arguments)
    run = Run.load(options.run)
    factor = options.factor or (run.codec.smaller.factor if run.codec.smaller else 2)
    folder = Path(options.folder or Path(os.environ.get("DIFFUSIONKIT_DATA", ".")) / "image" / "kodak")
    files = picture_files(folder)[: options.n] if folder.is_dir() else []
    if not files:
        parser.error(f"{folder}: holds no pictures; name a folder of them by --folder")
    cells = opened(parser, options, arguments, "image_superres.json")
    about = f"{run.folder.name}/step {run.step}/x{factor}/noise {options.noise:g}/seed {options.seed}"
    rows, shown = {}, []
    for path in files:
        drawn: list[Tensor] = []

        def make(path: Path = path, drawn: list[Tensor] = drawn) -> Cell:
            found, pictures = measured(run, path, factor, options.seed, options.noise)
            drawn.append(details(pictures, factor))
            return {"ways": found}

        rows[path.stem] = cells.get(f"{about}/{path.stem}", make)["ways"]
        if options.pictures and len(shown) < 3:
            if not drawn:  # measured already, but not kept
                make()
            shown += drawn
        say(f"{path.stem} {_words(rows[path.stem])}")
    found = means(rows)
    say(f"mean {_words(found)}")
    if shown:
        place = Path(options.pictures)
        place.mkdir(parents=True, exist_ok=True)
        same = [one for one in shown if one.shape == shown[0].shape]
        save_grid(torch.cat(same), place / "superres.png", columns=2 + len(WAYS), upscale=1)
    return found


def _words(found: dict[str, Any]) -> str:
    return "; ".join(
        f"{way} {one['psnr']:.2f} dB, {one['ssim']:.3f}, again {one['consistency']:.1f} dB"
        for way, one in found.items()
    )


if __name__ == "__main__":
    main()
