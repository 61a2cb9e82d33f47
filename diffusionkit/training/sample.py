"""Drawing from a run: guidance and thresholds around its diffusion, and files of any number of samples at flat memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from diffusionkit.core import GradientGuidance, Sampler, class_log_prob, guided
from diffusionkit.core.state import tree_map
from diffusionkit.errors import UserError

if TYPE_CHECKING:
    from diffusionkit.training.run import Run


def sample(
    run: Run,
    n: int,
    out: str | Path | None = None,
    *,
    sampler: Sampler | None = None,
    guidance: float = 1.0,
    clip: float | str | None = None,
    batch_size: int = 64,
    seed: int = 0,
    condition: dict[str, Any] | None = None,
    classifier: str | Path | None = None,
) -> Path:
    """Draws n samples into a file; the same seed and batch size give the same bytes, the memory does not grow with n.

    Args:
        run: a loaded run.
        n: how many samples.
        out: where to; the ending decides the form. By default `samples` in the run folder.
        sampler: by default the recipe's.
        guidance: scale of classifier-free guidance, or with `classifier` of its gradient.
        clip: bound on the estimate of the clean data, or `dynamic`.
        batch_size: samples drawn at a time.
        seed: of torch's random numbers.
        condition: keyword arguments of the domain's `condition`.
        classifier: the run of a classifier trained with the objective `noisy_classifier`, whose gradient guides.

    Returns:
        Where the samples are.

    Raises:
        UserError: if the ending, the condition or the classifier does not fit; before anything is drawn.
    """
    if n < 1:
        raise UserError(f"-n: at least one sample, not {n}")
    path = str(run.folder / f"samples{run.domain.ending}") if out is None else str(out)
    sampler, device = sampler or run.sampler(), next(run.diffusion.parameters()).device
    steer = None if classifier is None else _classifier(run, classifier, device)
    aim, asked = steer or run, condition or {}
    aim.domain.condition(aim.codec, torch.arange(1), **asked)  # a wrong one is refused here
    diffusion = guided(run.diffusion, guidance, clip)
    torch.manual_seed(seed)
    with run.domain.writer(run.codec, path, n, **asked) as writer, _progress(n, sampler.steps, batch_size) as tick:
        for first in range(0, n, batch_size):
            indices = torch.arange(first, min(first + batch_size, n))
            if steer is None:
                writer.write(run.domain.draw(diffusion, run.codec, sampler, indices, tick, **asked))
                continue
            wanted = tree_map(lambda leaf: leaf.to(device), steer.domain.condition(steer.codec, indices, **asked))
            cond = wanted if run.domain.condition(run.codec, indices) is not None else None
            steered = guided(_steered(run.diffusion, steer.diffusion, wanted, guidance), clip=clip)
            writer.write(sampler(steered, like=run.codec.like(len(indices)), cond=cond, watch=tick))
    return Path(path)


def _classifier(run: Run, folder: str | Path, device: torch.device) -> Run:
    from diffusionkit.core import NoisyClassifier
    from diffusionkit.training.run import Run

    found = Run.load(folder, device)
    if not isinstance(found.diffusion.objective, NoisyClassifier):
        raise UserError(f"{folder}: is no noisy classifier; train one with --objective.name noisy_classifier")
    if found.codec.like(1) != run.codec.like(1):
        raise UserError(f"{folder}: classifies {found.codec.like(1)[1:]}, the run draws {run.codec.like(1)[1:]}")
    return found


def _steered(diffusion: nn.Module, classifier: nn.Module, wanted: Any, scale: float) -> nn.Module:
    log_prob = class_log_prob(classifier)
    return GradientGuidance(diffusion, lambda x_t, t, _: log_prob(x_t, t, wanted), scale)


@contextmanager
def _progress(n: int, steps: int, batch_size: int) -> Iterator[Any]:
    """A bar on the terminal; what it gives is called at every step of a sampler."""
    from rich.progress import Progress

    batches = -(-n // batch_size)
    with Progress(transient=True) as bar:
        task = bar.add_task(f"drawing {n:,}", total=batches * steps)
        yield lambda *_: bar.advance(task)
