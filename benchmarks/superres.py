"""How well a run enlarges whole photographs: `python -m benchmarks.superres RUN [--factor 4] [--json FILE] [--picture FILE]`.

Each photograph of a folder (Kodak's, where DIFFUSIONKIT_DATA has them) is made smaller, quantised to 8 bits, enlarged by the run
as `diffusionkit upscale` does, and compared with what it was: PSNR, SSIM, and how far the result, made smaller again, agrees
with what it was made of. Bicubic enlargement of the same small picture stands beside it, as it is and made to agree.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

if not __package__:  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch
from torch import Tensor

from benchmarks.timing import machine
from diffusionkit.image.grid import as_rows
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
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "small.png"
        Image.fromarray(as_rows(small)[0].squeeze()).save(file)
        for way in WAYS[2:]:
            task = upscale(run.codec, file, factor=factor, noise=noise, consistent=way != "ours")
            torch.manual_seed(seed)
            begun = time.perf_counter()
            cond = run.domain.condition(run.codec, torch.arange(1))
            cond = run.diffusion.null(cond, torch.ones(1, dtype=torch.bool))
            seen[way] = task.draw(run.diffusion, run.sampler(), 1, run.recipe.sampling().clip, cond=cond)
            seconds[way] = time.perf_counter() - begun
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


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measures all photographs, prints a line for each and the means, and returns them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of a run that enlarges")
    parser.add_argument("--factor", type=int, help="that of the run by default, or a power of it")
    parser.add_argument("--noise", type=float, default=0.0, help="put on the small pictures, in levels of 255")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="of photographs; by default $DIFFUSIONKIT_DATA/image/kodak")
    parser.add_argument("-n", type=int, help="how many of them; all by default")
    parser.add_argument("--json", metavar="FILE", help="write the numbers there as well")
    parser.add_argument("--picture", metavar="FILE", help="draw a detail of the first three there")
    parser.add_argument("--threads", type=int, default=1, help="of torch; 1 by default")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    run = Run.load(options.run)
    factor = options.factor or (run.codec.smaller.factor if run.codec.smaller else 2)
    folder = Path(options.folder or Path(os.environ.get("DIFFUSIONKIT_DATA", ".")) / "image" / "kodak")
    files = picture_files(folder)[: options.n] if folder.is_dir() else []
    if not files:
        parser.error(f"{folder}: holds no pictures; name a folder of them by --folder")
    rows, shown = {}, []
    for path in files:
        rows[path.stem], pictures = measured(run, path, factor, options.seed, options.noise)
        shown.append(details(pictures, factor))
        print(path.stem, _words(rows[path.stem]), flush=True)
    result = {"factor": factor, "step": run.step, "seed": options.seed, "noise": options.noise, "machine": machine()}
    result |= {"means": means(rows), "pictures": rows}
    print("mean", _words(result["means"]))
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if options.picture:
        from diffusionkit.image.grid import save_grid

        same = [one for one in shown if one.shape == shown[0].shape][:3]
        save_grid(torch.cat(same), Path(options.picture), columns=2 + len(WAYS), upscale=1)
    return result


def _words(found: dict[str, Any]) -> str:
    return "; ".join(
        f"{way} {one['psnr']:.2f} dB, {one['ssim']:.3f}, again {one['consistency']:.1f} dB"
        for way, one in found.items()
    )


if __name__ == "__main__":
    main()
