"""Editing with a run: what a domain can do to what its users have, with models that were not trained for it."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from diffusionkit.core import Sampler, guided
from diffusionkit.core.state import tree_leaves, tree_map
from diffusionkit.domain import Codec, Domain, Edit
from diffusionkit.errors import UserError

if TYPE_CHECKING:
    from diffusionkit.training.run import Run


def function(domain: Domain, name: str) -> Callable[..., Edit]:
    """The function behind a command that edits.

    Raises:
        UserError: if the domain has none.
    """
    if name not in domain.edits:
        raise UserError(domain.without(name))
    return pkgutil.resolve_name(domain.edits[name])


def codec_of(domain: Domain, folder: str | Path) -> Codec:
    """The codec of a run alone, which is read sooner than its network."""
    return pkgutil.resolve_name(domain.codec).load(Path(folder))


def edit(
    run: Run,
    task: Edit,
    n: int,
    out: str | Path,
    *,
    sampler: Sampler | None = None,
    guidance: float = 1.0,
    clip: float | str | None = None,
    batch_size: int = 64,
    seed: int = 0,
    condition: dict[str, Any] | None = None,
) -> Path:
    """Draws n results of an edit into a file; the same seed and batch size give the same bytes.

    Args:
        run: a loaded run.
        task: what to do, of the domain's `edits`.
        n: how many results.
        out: where to; the ending decides the form.
        sampler: by default the recipe's.
        guidance: scale of classifier-free guidance.
        clip: bound on the estimate of the clean data, or `dynamic`.
        batch_size: results drawn at a time.
        seed: of torch's random numbers.
        condition: keyword arguments of the domain's `condition`; without any the model draws without a condition.

    Returns:
        Where the results are.

    Raises:
        UserError: if the ending or the condition does not fit; before anything is drawn.
    """
    if n < 1:
        raise UserError(f"-n: at least one result, not {n}")
    sampler, device = sampler or run.sampler(), next(run.diffusion.parameters()).device
    diffusion = guided(run.diffusion, guidance if condition else 1.0)
    _condition(run, torch.arange(1), condition, device)  # a wrong one is refused here
    torch.manual_seed(seed)
    with task.writer(out, n) as writer, _progress(n) as tick:
        for first in range(0, n, batch_size):
            indices = torch.arange(first, min(first + batch_size, n))
            cond = _condition(run, indices, condition, device)
            writer.add(task.draw(diffusion, sampler, len(indices), clip, cond=cond, watch=tick))
    return Path(out)


def _condition(run: Run, indices: torch.Tensor, wanted: dict[str, Any] | None, device: torch.device) -> Any:
    """The condition that was asked for, or what stands for none."""
    cond = run.domain.condition(run.codec, indices, **(wanted or {}))
    cond = tree_map(lambda leaf: leaf.to(device), cond)
    if cond is None or wanted:
        return cond
    bare = run.diffusion.null(cond, torch.ones(len(indices), dtype=torch.bool, device=device))
    pairs = zip(tree_leaves(cond), tree_leaves(bare), strict=False)
    if not run.diffusion.objective.drop and any(not torch.equal(one, other) for one, other in pairs):
        raise UserError(
            f"{run.folder}: draws under a condition only (it was trained with objective.drop 0): name one, as for `sample`"
        )
    return bare


@contextmanager
def _progress(n: int) -> Iterator[Callable[..., None]]:
    """A count on the terminal; what it gives is called at every step of a sampler, of which edits may take more than its own."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("drawing {task.description}, step {task.completed:,.0f}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task(f"{n:,}", total=None)
        yield lambda *_: bar.advance(task)
