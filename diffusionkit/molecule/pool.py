"""Work on many molecules on all cores. Nothing here imports torch: the processes that are started import what their work needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np


def flat(molecules: Sequence[tuple[Any, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Atomic numbers (A,), positions (A, 3) and atom counts (M,) of molecules given one by one as (z, pos)."""
    n = np.array([len(z) for z, _ in molecules], dtype=np.int64)
    z = np.concatenate([np.zeros(0, np.int64), *(np.asarray(z, dtype=np.int64) for z, _ in molecules)])
    pos = np.concatenate(
        [np.zeros((0, 3)), *(np.asarray(pos, dtype=np.float64).reshape(-1, 3) for _, pos in molecules)]
    )
    return z, pos, n


def parted(z: np.ndarray, pos: np.ndarray, n: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The molecules (z, pos) of flat arrays, one by one."""
    ends = np.cumsum(n)[:-1]
    return list(zip(np.split(np.asarray(z), ends), np.split(np.asarray(pos), ends), strict=True)) if len(n) else []


def each(
    work: Callable[..., Sequence[Any]],
    z: np.ndarray,
    pos: np.ndarray,
    n: np.ndarray,
    what: str,
    few: int = 64,
    **more: Any,
) -> list[Any]:
    """What `work` gives for each molecule, in order, behind a bar on a terminal.

    Args:
        work: a function of a module: `work([(z, pos), ...], **more)` gives a list with an entry for each molecule.
        z: atomic numbers (A,).
        pos: positions (A, 3) in Å.
        n: atom counts (M,).
        what: the name of the bar.
        few: see `shared_out`.
        more: further arguments, the same for all.
    """
    with progress(what, len(n)) as tick:
        return [entry for part in shared_out(work, parted(z, pos, n), tick, few, **more) for entry in part]


def shared_out(
    work: Callable[..., Any], items: Sequence[Any], tick: Callable[[int], None], few: int = 64, **more: Any
) -> list[Any]:
    """`work(chunk, **more)` for chunks of the items, in order, on all cores.

    Each process has one thread. Where none can be started (within another pool, say) joblib does the work here.

    Args:
        work: a function of a module, and small results.
        items: in whatever can be pickled.
        tick: told how many more items are done.
        few: so many items, or fewer, are done here: processes take seconds to start.
        more: further arguments, the same for all.
    """
    from joblib import Parallel, cpu_count, delayed, parallel_config

    workers = cpu_count() if len(items) > few else 1
    size = max(1, min(200, -(-len(items) // (8 * workers))))
    chunks = [items[i : i + size] for i in range(0, len(items), size)]
    settings = {"backend": "loky", "inner_max_num_threads": 1} if workers > 1 else {"backend": "sequential"}
    found = []
    with parallel_config(**settings):
        results = Parallel(n_jobs=workers, return_as="generator")(delayed(work)(chunk, **more) for chunk in chunks)
        for chunk, result in zip(chunks, results, strict=True):
            found.append(result)
            tick(len(chunk))
    return found


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; what it gives is told how many more are done."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda more: bar.advance(task, more)
