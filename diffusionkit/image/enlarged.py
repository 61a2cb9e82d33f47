"""How good a model enlarges: what it makes of held-out pictures made smaller, beside bicubic enlargement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusionkit.core import guided
from diffusionkit.errors import UserError
from diffusionkit.image import plots
from diffusionkit.image.rebuilt import Finish, compared, compared_rows, draw, losses, psnr
from diffusionkit.image.resize import bicubic
from diffusionkit.image.smaller import shrunk

_SEEN = (
    "Held-out pictures made smaller and enlarged: by bicubic interpolation, by the model, and below both the originals."
)


def measure(work: Any, network: Any, stage: Any) -> tuple[dict[str, Any], Finish]:
    """Measures of n held-out pictures that were made smaller and are enlarged as the recipe's section `sampling` says.

    Args:
        work: what is measured; see `evaluate`.
        network: Inception, or why it is absent.
        stage: shows progress.

    Returns:
        A tree of numbers, and what draws the picture and makes the table of it.
    """
    chosen, codec = work.test.some(work.n, work.seed), work.run.codec
    factor, images = codec.smaller.factor, work.test.pictures.images[chosen]
    small = shrunk(images, factor, codec.levels)
    plain = bicubic(codec.display(small), factor)
    seen = {"held": codec.display(images), "enlarged": _enlarged(work, chosen, stage), "bicubic": plain}
    measures: dict[str, Any] = {"loss": losses(work, stage), "factor": factor, "of": list(codec.small)}
    measures |= compared(work, seen, chosen, network, stage)
    again = {name: shrunk(pictures, factor) for name, pictures in seen.items()}
    measures["pictures"] = {plots.EVALUATION: _SEEN}
    measures["consistency"] = {name: psnr(pictures, codec.display(small)) for name, pictures in again.items()}

    def finish(path: Path, found: dict[str, Any]) -> list[dict[str, str]]:
        draw(path, plain, seen["enlarged"], seen["held"])
        return _table(found)

    return measures, finish


def _enlarged(work: Any, chosen: Tensor, stage: Any) -> Tensor:
    """uint8 pictures, drawn from these held-out ones, made smaller, without noise on them."""
    run, common, sampler = work.run, work.run.recipe.sampling(), work.run.sampler()
    model = guided(run.diffusion, common.guidance, common.clip)
    parts, found = chosen.split(common.batch_size), []
    torch.manual_seed(work.seed)
    with work.clock("samples"), stage(f"enlarging {len(chosen):,} pictures", len(parts) * sampler.steps) as tick:
        for part in parts:
            cond = {key: value.to(work.device) for key, value in work.test.batch(part).cond.items()}
            x = sampler(model, like=run.codec.like(len(part)), cond=cond, watch=lambda *_: tick(1))
            if not x.isfinite().all():
                raise UserError(f"{run.folder}: its samples are not finite numbers; the training diverged")
            found.append(run.codec.decode(x).cpu())
    return torch.cat(found)


def _table(measures: dict[str, Any]) -> list[dict[str, str]]:
    number, loss, again = plots.number, measures["loss"], measures["consistency"]
    size = "x".join(map(str, measures["of"][1:]))
    rows = [("loss", number(loss["held_out"]), f"{number(loss['train'])} training", "of held-out pictures")]
    rows += compared_rows(measures, "enlarged", f"enlarged by {measures['factor']} from {size}")
    about = "PSNR of the results, made smaller again, to what they were made of"
    rows.append(("consistency", f"{number(again['enlarged'])} dB", f"{number(again['bicubic'])} dB bicubic", about))
    return [dict(zip(plots.COLUMNS, row, strict=True)) for row in rows]


__all__ = ["measure"]
