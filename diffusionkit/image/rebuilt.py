"""How good an autoencoder is: its reconstructions of held-out pictures, beside real pictures and a smaller size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusionkit.image import features, metrics, plots
from diffusionkit.image.grid import save_grid
from diffusionkit.image.reconstruction import divergence

_CHUNK = 128  # pictures that the network sees at a time
_SHOWN, _COLUMNS = 40, 10
_LOSSLESS = 100.0  # dB, given to a picture that comes back as it was

Finish = Callable[[Path, dict[str, Any]], list[dict[str, str]]]


def measure(work: Any, network: Any, stage: Any) -> tuple[dict[str, Any], Finish]:
    """Measures of the reconstructions of n held-out pictures, each beside that of a bicubic enlargement of the small size.

    Args:
        work: what is measured; see `evaluate`.
        network: Inception, or why it is absent.
        stage: shows progress.

    Returns:
        A tree of numbers, and what draws the picture and makes the table of it.
    """
    chosen = work.test.some(work.n, work.seed)
    seen, latent = _seen(work, chosen, stage)
    measures = {"loss": losses(work, stage), "latents": latent, **compared(work, seen, chosen, network, stage)}
    measures["pictures"] = {plots.EVALUATION: "Held-out pictures, and below each what came back from its latents."}

    def finish(path: Path, found: dict[str, Any]) -> list[dict[str, str]]:
        draw(path, seen["held"], seen["reconstructions"])
        return _table(found)

    return measures, finish


def compared(work: Any, seen: dict[str, Tensor], chosen: Tensor, network: Any, stage: Any) -> dict[str, Any]:
    """How near pictures are to the held-out ones that they were made of: PSNR, SSIM, Fréchet distances and class accuracy.

    Args:
        work: what is measured.
        seen: uint8 pictures for the eye: "held", "bicubic" and others of them.
        chosen: which ones of the held-out part they are.
        network: Inception, or why it is absent.
        stage: shows progress.
    """
    made = [name for name in seen if name != "held"]
    measures: dict[str, Any] = {}
    for name, rule in (("psnr", psnr), ("ssim", ssim)):
        measures[name] = {part: rule(seen[part], seen["held"]) for part in made}
    seen = seen | {"train": work.shown(work.train, work.train.some(work.n, work.seed))}
    sizes = {"n": len(chosen), "n_train": len(seen["train"]), "n_held_out": len(chosen)}
    with work.clock("features"):
        looked = {name: work.judge.look(pictures) for name, pictures in seen.items()}
    measures["frechet_classifier"] = _frechet({name: found[0] for name, found in looked.items()}) | sizes
    if isinstance(network, str):
        measures["fid_inception"] = {"absent": network}
    else:
        with work.clock("fid_inception"), stage("FID with Inception weights", sum(map(len, seen.values()))) as tick:
            wide = {name: features.inception_features(network, pictures, tick) for name, pictures in seen.items()}
        measures["fid_inception"] = _frechet(wide) | sizes
    labels = work.test.pictures.labels
    if labels is not None and work.judge.task == "classes":
        right = {name: looked[name][1] == labels[chosen] for name in ("held", *made)}
        measures["class_accuracy"] = {name: float(value.double().mean()) for name, value in right.items()}
    return measures


def psnr(pictures: Tensor, originals: Tensor) -> float:
    """Mean over pictures of the peak signal-to-noise ratio 10 log10(255^2 / mean squared error), in dB.

    Args:
        pictures: uint8 (N, C, H, W).
        originals: of the same shape.
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio

    def rule(a: Tensor, b: Tensor) -> Tensor:
        found = peak_signal_noise_ratio(a, b, data_range=255.0, dim=(1, 2, 3), reduction="none")
        return found.clamp(max=_LOSSLESS)

    return _mean(rule, pictures, originals)


def ssim(pictures: Tensor, originals: Tensor) -> float:
    """Mean over pictures of the structural similarity in windows of 11x11 (Wang et al. 2004).

    Args:
        pictures: uint8 (N, C, H, W) of more than 5 pixels either way.
        originals: of the same shape.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure as similarity

    return _mean(lambda a, b: similarity(a, b, data_range=255.0, reduction="none"), pictures, originals)


def _mean(rule: Callable[[Tensor, Tensor], Tensor], pictures: Tensor, originals: Tensor) -> float:
    pairs = zip(pictures.split(_CHUNK), originals.split(_CHUNK), strict=True)
    return float(torch.cat([rule(a.float(), b.float()).reshape(-1).double() for a, b in pairs]).mean())


def _seen(work: Any, chosen: Tensor, stage: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Pictures for the eye (held out, what comes back of them, of a smaller size), and what the latents are like."""
    codec, network = work.run.codec, work.run.diffusion.network
    back, small, nats, spread = [], [], [], []
    with work.clock("reconstructions"), stage("reconstructions", len(chosen)) as tick, torch.no_grad():
        for part in chosen.split(_CHUNK):
            x = codec.encode(work.test.pictures.images[part].to(work.device))
            decoded, mean, logvar = network(x)
            back.append(codec.decode(decoded).cpu())
            small.append(codec.decode(enlarged(x, network.factor)).cpu())
            nats.append(divergence(mean, logvar).cpu())
            spread.append(torch.stack([mean.square().mean(), logvar.exp().mean()]).cpu() * len(part))
            tick(len(part))
    power = torch.stack(spread).sum(0) / len(chosen)
    held = work.shown(work.test, chosen)
    latent = {"shape": list(network.latent_shape), "of": list(codec.shape), "nats": float(torch.cat(nats).mean())}
    latent |= {"rms": float(power[0].sqrt()), "posterior_rms": float(power[1].sqrt())}
    return {"held": held, "reconstructions": torch.cat(back), "bicubic": torch.cat(small)}, latent


def enlarged(x: Tensor, factor: int) -> Tensor:
    """Pictures made smaller by a factor and large again, both bicubic."""
    small = F.interpolate(x, scale_factor=1 / factor, mode="bicubic", antialias=True)
    return F.interpolate(small, size=x.shape[2:], mode="bicubic")


def losses(work: Any, stage: Any) -> dict[str, float]:
    """The objective's mean loss on either part."""
    found = {}
    with work.clock("loss"), stage("loss", 2 * work.m) as tick, torch.no_grad():
        for name, data in work.parts.items():
            torch.manual_seed(work.seed)
            total = 0.0
            for x0, cond in work.batches(data):
                total += float(work.run.diffusion.loss(x0, cond).double().sum())
                tick(len(x0))
            found[name] = total / work.m
    return found


def _frechet(seen: dict[str, Tensor]) -> dict[str, float]:
    return {name: metrics.frechet(seen["held"], other) for name, other in seen.items() if name != "held"}


def draw(path: Path, *rows: Tensor) -> None:
    """The first pictures of each of these, those of one number below one another: originals and what becomes of them."""
    pairs = torch.cat([pictures[:_SHOWN] for pictures in rows], 2)
    side = max(1, 64 // max(rows[0].shape[2:]))
    features.replace(path, lambda part: save_grid(pairs, part, columns=_COLUMNS, upscale=side, gap=4))


def _table(measures: dict[str, Any]) -> list[dict[str, str]]:
    latent, loss = measures["latents"], measures["loss"]
    shape, of = ("x".join(map(str, latent[name])) for name in ("shape", "of"))
    less = torch.Size(latent["of"]).numel() / torch.Size(latent["shape"]).numel()
    number = plots.number
    rows = [("latents", shape, f"{of} pixels", f"{less:.1f} times fewer numbers, of rms {number(latent['rms'])} "
             f"with noise {number(latent['posterior_rms'])}; {number(latent['nats'])} nats from a standard normal"),
            ("loss", number(loss["held_out"]), f"{number(loss['train'])} training", "of held-out pictures")]  # fmt: skip
    rows += compared_rows(measures, "reconstructions", "bicubic: made smaller as much and large again")
    return [dict(zip(plots.COLUMNS, row, strict=True)) for row in rows]


def compared_rows(measures: dict[str, Any], of: str, about: str) -> list[tuple[str, str, str, str]]:
    """The rows of a table of what `compared` measures of the pictures `of`, beside bicubic ones."""
    rows, number, percent = [], plots.number, plots.percent
    count = f"{measures['frechet_classifier']['n']:,} held-out pictures; {about}"
    for name, unit, comment in (("psnr", " dB", count), ("ssim", "", "1 is equal")):
        ours, bicubic = (f"{number(measures[name][part])}{unit}" for part in (of, "bicubic"))
        rows.append((name.upper(), ours, f"{bicubic} bicubic", comment))
    for name, title in (("frechet_classifier", "Fréchet, classifier"), ("fid_inception", "FID, Inception")):
        found = measures[name]
        if "absent" in found:
            rows.append((title, "absent", "", found["absent"]))
            continue
        comment = f"bicubic {number(found['bicubic'])}; {found['n']:,} to their originals, or to other real ones"
        rows.append((title, number(found[of]), f"{number(found['train'])} training", comment))
    if "class_accuracy" in measures:
        found = measures["class_accuracy"]
        comment = f"bicubic {percent(found['bicubic'])}"
        rows.append(("class accuracy", percent(found[of]), f"{percent(found['held'])} held out", comment))
    return rows


__all__ = ["compared", "compared_rows", "draw", "enlarged", "losses", "measure", "psnr", "ssim"]
