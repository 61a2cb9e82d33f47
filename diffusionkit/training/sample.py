"""Drawing from a run: guidance and thresholds around its diffusion, and files of any number of samples at flat memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from diffusionkit.core import GradientGuidance, Sampler, guided
from diffusionkit.core.state import tree_map
from diffusionkit.errors import UserError

if TYPE_CHECKING:
    from diffusionkit.training.run import Run


class Stage(NamedTuple):
    """A run that goes on from the samples of another one, and how it is drawn from; see `sample`."""

    run: Run
    sampler: Sampler | None = None
    guidance: float = 1.0
    clip: float | str | None = None


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
    strength: float | None = None,
    then: Sequence[Stage] = (),
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
        classifier: a run whose gradient guides: one trained with an objective that has a `log_prob`, such as `noisy_classifier`.
        strength: scale of that gradient, beside classifier-free guidance; by default `guidance` is this scale, and nothing else.
        then: further stages, each of which goes on from the samples of the one before; the last one's are written.

    Returns:
        Where the samples are.

    Raises:
        UserError: if the ending, the condition, the classifier or a stage does not fit; before anything is drawn.
    """
    if n < 1:
        raise UserError(f"-n: at least one sample, not {n}")
    domain, last = run.domain, then[-1].run if then else run
    path = str(last.folder / f"samples{domain.ending}") if out is None else str(out)
    sampler, device = sampler or run.sampler(), next(run.diffusion.parameters()).device
    steer = None if classifier is None else _steering(run, classifier, device)
    asked, *later = _asked([run, *(stage.run for stage in then)], condition or {})
    aim = steer or run
    aim.domain.condition(aim.codec, torch.arange(1), **asked)  # a wrong one is refused here
    for stage, wanted in zip(then, later, strict=True):
        domain.condition(stage.run.codec, torch.arange(1), **wanted)
    diffusion = guided(run.diffusion, guidance, clip)
    steps = sampler.steps + sum((stage.sampler or stage.run.sampler()).steps for stage in then)
    torch.manual_seed(seed)
    with domain.writer(last.codec, path, n, **asked) as writer, _progress(n, steps, batch_size) as tick:
        for first in range(0, n, batch_size):
            indices = torch.arange(first, min(first + batch_size, n))
            if steer is None:
                x = domain.draw(diffusion, run.codec, sampler, indices, tick, **asked)
            else:
                wanted = tree_map(lambda leaf: leaf.to(device), steer.domain.condition(steer.codec, indices, **asked))
                steered = guided(_steered(run, steer, wanted, guidance, strength), clip=clip)
                own = {} if domain.condition(run.codec, indices) is None else asked
                x = domain.draw(steered, run.codec, sampler, indices, tick, **own)
            before = run
            for stage, wanted in zip(then, later, strict=True):
                x, before = _go_on(before, x, stage, indices, wanted, tick), stage.run
            writer.write(x)
    return Path(path)


def _asked(runs: list[Run], condition: dict[str, Any]) -> list[dict[str, Any]]:
    """What each stage is asked for."""
    for run in runs[1:]:
        if run.domain.name != runs[0].domain.name:
            names = f"{run.domain.name}, {runs[0].folder} to {runs[0].domain.name}"
            raise UserError(f"{run.folder}: belongs to the domain {names}: stages are of one domain")
    return runs[0].domain.stages(runs, condition)


def _go_on(before: Run, x: Any, stage: Stage, indices: torch.Tensor, wanted: dict[str, Any], tick: Any) -> Any:
    """The samples of a stage that goes on from x."""
    run, device = stage.run, next(stage.run.diffusion.parameters()).device
    cond = run.domain.onward(before.codec, x, run.codec, indices, **wanted)
    cond = tree_map(lambda leaf: leaf.to(device), cond)
    diffusion = guided(run.diffusion, stage.guidance, stage.clip)
    return (stage.sampler or run.sampler())(diffusion, like=run.codec.like(len(indices)), cond=cond, watch=tick)


def _steering(run: Run, folder: str | Path, device: torch.device) -> Run:
    from diffusionkit.training.run import Run

    found = Run.load(folder, device)
    if not hasattr(found.diffusion.objective, "log_prob"):
        raise UserError(
            f"{folder}: is no noisy classifier, nor another run that steers; train one with --objective.name noisy_classifier"
        )
    if found.codec.like(1) != run.codec.like(1):
        raise UserError(f"{folder}: judges {found.codec.like(1)[1:]}, the run draws {run.codec.like(1)[1:]}")
    half = torch.tensor(0.5, dtype=torch.float64)
    theirs, ours = (float(one.diffusion.process.schedule.log_snr(half)) for one in (found, run))
    if abs(theirs - ours) > 0.1:
        raise UserError(
            f"{folder}: knows other levels of noise than {run.folder}; train both with the same process.schedule"
        )
    return found


def _steered(run: Run, steer: Run, wanted: Any, guidance: float, strength: float | None) -> nn.Module:
    log_prob = steer.diffusion.objective.log_prob(steer.diffusion)  # type: ignore[operator, union-attr]
    diffusion, scale = (run.diffusion, guidance) if strength is None else (guided(run.diffusion, guidance), strength)
    return GradientGuidance(diffusion, lambda x_t, t, _: log_prob(x_t, t, wanted), scale)


@contextmanager
def _progress(n: int, steps: int, batch_size: int) -> Iterator[Any]:
    """A bar on the terminal; what it gives is called at every step of a sampler."""
    from rich.progress import Progress

    batches = -(-n // batch_size)
    with Progress(transient=True) as bar:
        task = bar.add_task(f"drawing {n:,}", total=batches * steps)
        yield lambda *_: bar.advance(task)
