"""Pictures of a run: its curves, its forward chain, and how samples come out of noise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from diffusionkit.core import guided
from diffusionkit.core.state import tree_cat, tree_map

if TYPE_CHECKING:
    from diffusionkit.training.run import Run


def plot(run: Run, n: int = 8, frames: int = 12, seed: int = 0) -> list[Path]:
    """Draws `loss.png`, `forward.png`, `denoising.png` and `estimates.png` into the run's pictures; their paths.

    In the last three every row is one sample and time runs to the right: data that is diffused, then noise that is led to
    data, and what the network takes for the data meanwhile. Where a picture shows many samples together, it is `samples.png`
    instead of these three.
    """
    folder = run.folder / "pictures"
    folder.mkdir(exist_ok=True)
    torch.manual_seed(seed)
    drawn = [_curves(run, folder / "loss.png")]
    if run.domain.single:
        drawn += [_forward(run, n, frames, folder / "forward.png"), *_denoising(run, n, frames, folder)]
    else:
        drawn.append(_samples(run, folder / "samples.png"))
    return [path for path in drawn if path]


def _samples(run: Run, path: Path) -> Path:
    sampling = run.recipe.sampling()
    diffusion, indices = guided(run.diffusion, sampling.guidance, sampling.clip), torch.arange(sampling.batch_size)
    run.domain.picture(run.codec, run.domain.draw(diffusion, run.codec, run.sampler(), indices), path)
    return path


def _curves(run: Run, path: Path) -> Path | None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = run.metrics()
    if not rows:
        return None
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
    for name, label in (("loss", "training"), ("valid_loss", "held out, averaged weights")):
        found = [(row["step"], row[name]) for row in rows if name in row]
        if found:
            left.plot(*zip(*found, strict=True), label=label)
    left.set(xlabel="step", ylabel="loss", yscale="log", title="loss")
    left.legend(frameon=False)
    rates = [(row["step"], row["lr"]) for row in rows if "lr" in row]
    if rates:
        right.plot(*zip(*rates, strict=True), color="tab:green")
    right.set(xlabel="step", ylabel="learning rate", title="learning rate")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _forward(run: Run, n: int, frames: int, path: Path) -> Path | None:
    _, parts = run.domain.prepare(run.recipe.build("data"))
    data = parts.get("test", parts["train"])
    x0, process = data.batch(torch.arange(min(n, len(data)))).x, run.diffusion.process
    times = torch.linspace(0, 1, frames)
    _draw(run, [process.inputs(process.diffuse(x0, t)[0], t) if t > 0 else x0 for t in times], path)
    return path


def _denoising(run: Run, n: int, frames: int, folder: Path) -> list[Path]:
    seen: list[tuple[Any, Any]] = []
    sampling, sampler, process = run.recipe.sampling(), run.sampler(), run.diffusion.process
    device = next(run.diffusion.parameters()).device
    cond = tree_map(lambda leaf: leaf.to(device), run.domain.condition(run.codec, torch.arange(n)))

    def watch(t: torch.Tensor, x_t: Any, estimate: Any) -> None:
        seen.append((process.inputs(x_t, t), process.guess(estimate, x_t, t)))

    x0 = sampler(
        guided(run.diffusion, sampling.guidance, sampling.clip), like=run.codec.like(n), cond=cond, watch=watch
    )
    chosen = [seen[round(i * (len(seen) - 1) / (frames - 2))] for i in range(frames - 1)]
    paths = [folder / "denoising.png", folder / "estimates.png"]
    for k, path in enumerate(paths):
        _draw(run, [frame[k] for frame in chosen] + [x0], path)
    return paths


def _draw(run: Run, frames: list[Any], path: Path) -> None:
    """States of one time each, drawn so that a row is a sample."""
    count, together = len(frames), tree_cat([tree_map(lambda leaf: leaf.cpu(), frame) for frame in frames])
    n = (
        run.codec.like(1)
        and len(together if not isinstance(together, dict) else next(iter(together.values()))) // count
    )
    order = torch.arange(count * n).reshape(count, n).T.flatten()
    run.domain.picture(run.codec, tree_map(lambda leaf: leaf[order], together), path, columns=count)
