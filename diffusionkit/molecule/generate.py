"""Molecules drawn: how many atoms, under which conditions, around what is known of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionkit.core.guidance import Guided
from diffusionkit.core.rows import Rows, center
from diffusionkit.core.state import tree_map
from diffusionkit.errors import UserError
from diffusionkit.molecule.codec import MoleculeCodec
from diffusionkit.molecule.wanted import Wanted

NEAREST = 100  # molecules seen, at most, that lend their sizes where none has just the properties asked for
ROUNDS = 20  # draws for each valid molecule asked for, at most


class Completed(Guided):
    """A diffusion whose estimates hold what is known of the molecules: positions of some atoms, up to where they lie, and types.

    What is known of x0 is put into the estimate, so that the reverse kernel leads these entries through q(x_s | x_t, x0), the
    law of a known part. Where a fragment lies in the centred frame hangs on the atoms that are not known yet: it is put where its
    atoms are in the present estimate, and the whole is centred again. A network that was trained with fragments is shown it there,
    clean and marked.

    Args:
        diffusion: of molecules.
        pos: (N, 3) known positions in units of the state; others are arbitrary.
        placed: (N,) which atoms have one.
        features: the parts of the state that types decide, for all atoms.
        typed: (N,) which atoms have a known type.
    """

    raw = False

    def __init__(
        self, diffusion: nn.Module, pos: Tensor, placed: Tensor, features: dict[str, Tensor], typed: Tensor
    ) -> None:
        super().__init__(diffusion)
        self.pos, self.placed, self.features, self.typed = pos, placed, features, typed
        self.offset: Tensor | None = None  # of the fragments in the last estimate

    def estimate(self, x_t: Any, t: Tensor, cond: Any = None, rows: Any = None, given: Any = None) -> Any:
        shown = self.masks is not None and bool(self.placed.any())
        found = self._seen(x_t, t, cond, rows) if shown else self.diffusion.estimate(x_t, t, cond, rows, given)
        found = dict(found)  # type: ignore[arg-type]
        for name, known in self.features.items():
            known = F.one_hot(known, found[name].shape[1]).to(found[name]) if known.ndim == 1 else known
            found[name] = torch.where(self.typed[:, None], known, found[name])
        if self.placed.any():
            moved = self.pos + (self.offset if shown else self._offset(found["pos"], rows))
            found["pos"] = center(torch.where(self.placed[:, None], moved, found["pos"]), rows)
            self.offset = self._offset(found["pos"], rows)
        return found

    def _seen(self, x_t: Any, t: Tensor, cond: Any, rows: Rows) -> Any:
        """The estimate of a network that is shown the fragment, in the frame in which it is shown."""
        if self.offset is None or len(self.offset) != len(self.pos):
            self.offset = self._offset(torch.zeros_like(self.pos), rows)  # about the origin, to begin with
        placed = self.placed[:, None]
        state = {name: torch.where(self.placed if known.ndim == 1 else placed, known, x_t[name])
                 for name, known in self.features.items()}  # fmt: skip
        state["pos"] = torch.where(placed, self.pos + self.offset, x_t["pos"])
        marks = {name: (self.placed if x.ndim == 1 else placed).expand_as(x) for name, x in state.items()}
        output = self.diffusion(state, t, cond, rows, marks)
        # A centred estimate has lost the mean of all its rows. With nothing but zeros where atoms are known, for which the network
        # does not answer, these rows become that mean with a minus sign.
        blank = {"pos": torch.where(placed, 0.0, state["pos"])}
        found = self.process.estimate(
            {**output, "pos": torch.where(placed, 0.0, output["pos"])}, {**state, **blank}, t, rows
        )
        lost = torch.where(placed, found["pos"], 0.0)
        count = rows.pool(placed.to(lost.dtype)).clamp(min=1)
        return {**found, "pos": found["pos"] - rows.spread(rows.pool(lost) / count)}

    def _offset(self, pos: Tensor, rows: Rows) -> Tensor:
        """(N, 3) how far the known atoms lie from where they were asked for, the same for all atoms of a molecule."""
        placed = self.placed[:, None].to(pos.dtype)
        mean = rows.pool((pos - self.pos) * placed) / rows.pool(placed).clamp(min=1)
        return rows.spread(mean)

    def settled(self, x: dict[str, Tensor], rows: Rows) -> dict[str, Tensor]:
        """The state in the frame of the known atoms, which are where they were asked for to the last bit."""
        if not self.placed.any():
            return x
        pos = torch.where(self.placed[:, None], self.pos, x["pos"] - self._offset(x["pos"], rows))
        return {**x, "pos": pos}


def draw(
    diffusion: nn.Module,
    codec: MoleculeCodec,
    sampler: Any,
    n: int,
    wanted: Wanted | None = None,
    watch: Callable[..., None] | None = None,
) -> dict[str, Tensor]:
    """States of n molecules, with their sizes (n,) under "size" and how many were drawn for each under "drawn".

    Raises:
        UserError: if next to none of those drawn is valid, and only valid ones were asked for.
    """
    wanted = wanted or Wanted()
    if not wanted.valid:
        return _once(diffusion, codec, sampler, n, wanted, watch)
    from diffusionkit.molecule.export import judged

    kept: list[dict[str, Tensor]] = []
    missing, total = n, 0
    while missing:
        if total >= ROUNDS * n:
            raise UserError(
                f"valid_only: only {n - missing} of {total} molecules drawn are valid and of one piece; train longer, "
                "take more steps, or leave it out"
            )
        x = _once(diffusion, codec, sampler, missing, wanted, watch)
        total += missing
        good = torch.tensor([judged(z, pos, codec.hydrogens).valid for z, pos in codec.decode(x)], dtype=torch.bool)
        kept.append(chosen(x, good))
        missing -= int(good.sum())
    joined = {name: torch.cat([x[name] for x in kept]) for name in kept[0]}
    joined["drawn"] = torch.zeros(n, dtype=torch.long)
    joined["drawn"][0] = total
    return joined


def chosen(x: Mapping[str, Tensor], keep: Tensor) -> dict[str, Tensor]:
    """The molecules of a state where `keep` (B,) holds."""
    per_atom = torch.repeat_interleave(keep.to(x["size"].device), x["size"])
    return {k: v[keep.to(v.device)] if k in ("size", "drawn") else v[per_atom.to(v.device)] for k, v in x.items()}


def _once(
    diffusion: nn.Module, codec: MoleculeCodec, sampler: Any, n: int, wanted: Wanted, watch: Any
) -> dict[str, Tensor]:
    device = next(diffusion.parameters()).device
    sizes, values = plan(codec, n, wanted)
    rows = Rows.from_sizes(sizes).to(device)
    like = codec.like(len(rows.index))
    cond = None if values is None else {name: v.to(device) for name, v in codec.condition(values).items()}
    if wanted.formula is None and wanted.fragment is None:
        x = sampler(diffusion, like=like, cond=cond, rows=rows, watch=watch)
    else:
        model = _completed(diffusion, codec, sizes, wanted, device)
        nothing = {k: torch.zeros(shape, dtype=torch.bool, device=device) for k, shape in like.items()}
        blank = tree_map(lambda mask: mask.long() if mask.ndim == 1 else mask.float(), nothing)
        # Nothing is given to the sampler, which puts parts into x_t where they lie; it still goes the way of RePaint.
        x = sampler(
            model, like=like, cond=cond, rows=rows, given=nothing, known=blank, resample=wanted.resample, watch=watch
        )
        x = model.settled(x, rows)
    return {**x, "size": sizes.to(device), "drawn": torch.ones(n, dtype=torch.long)}


def plan(codec: MoleculeCodec, n: int, wanted: Wanted) -> tuple[Tensor, Tensor | None]:
    """Sizes (n,) and properties (n, P), NaN where none is asked for, of molecules to be drawn.

    Both are those of molecules seen in training that meet the conditions, or come nearest: a large weight goes with many atoms.
    A range of properties is drawn from as it was seen; a single value is taken as it is.
    """
    low, high = wanted.atoms or (0, codec.largest)
    seen, allowed = codec.seen, codec.histogram.double().clone()
    allowed[:low] = 0
    allowed[high + 1 :] = 0
    if not wanted.where:
        if not allowed.any():  # sizes never seen: each as likely as any other
            return torch.randint(low, high + 1, (n,)), None
        return torch.multinomial(allowed, n, replacement=True), None
    columns = [1 + codec.properties.index(name) for name in wanted.where]
    ends = torch.tensor([wanted.where[name] for name in wanted.where], dtype=torch.float64)
    values, scale = seen[:, columns].double(), codec.std[[c - 1 for c in columns]]
    away = ((ends[:, 0] - values).clamp(min=0) + (values - ends[:, 1]).clamp(min=0)) / scale
    away = away.square().sum(1).nan_to_num(torch.inf)
    fits = (seen[:, 0] >= low) & (seen[:, 0] <= high)
    away = torch.where(fits, away, torch.inf) if fits.any() else away
    few = min(NEAREST, max(len(seen) // 50, 1))
    near = torch.argsort(away, stable=True)[: max(few, int((away == 0).sum()))]
    near = near[away[near].isfinite()]
    picked = near[torch.randint(len(near), (n,))]
    sizes = seen[picked, 0].long() if fits.any() else torch.randint(low, high + 1, (n,))
    asked = torch.full((n, len(codec.properties)), torch.nan, dtype=torch.float64)
    asked[:, [c - 1 for c in columns]] = values[picked].clamp(ends[:, 0], ends[:, 1])
    return sizes, asked


def _completed(
    diffusion: nn.Module, codec: MoleculeCodec, sizes: Tensor, wanted: Wanted, device: torch.device
) -> Completed:
    """What is known of each molecule: a fragment is its first atoms, the rest of a formula follows."""
    total, first = int(sizes.sum()), torch.cumsum(sizes, 0) - sizes
    pos, codes = torch.zeros(total, 3), torch.zeros(total, dtype=torch.long)
    placed, typed = torch.zeros(total, dtype=torch.bool), torch.zeros(total, dtype=torch.bool)
    rest = wanted.formula
    if wanted.fragment is not None:
        types, places = wanted.fragment
        at = first[:, None] + torch.arange(len(types))
        pos[at], codes[at] = places / codec.scales[0], types
        placed[at] = typed[at] = True
        rest = None if rest is None else _without(rest, types)
    if rest is not None:
        codes[~typed], typed[:] = rest.repeat(len(sizes)), True
    pos, placed, typed = (part.to(device) for part in (pos, placed, typed))
    return Completed(diffusion, pos, placed, codec.features(codes.to(device)), typed)


def _without(types: Tensor, taken: Tensor) -> Tensor:
    left = torch.bincount(types) - torch.bincount(taken, minlength=int(types.max()) + 1)
    return torch.repeat_interleave(torch.arange(len(left)), left)


def molecules(
    run: Any, n: int, seed: int = 0, batch_size: int | None = None, **wanted: Any
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Atomic numbers and positions in Å of n molecules, drawn as the run's recipe says.

    Args:
        run: a loaded run.
        n: how many.
        seed: of torch's numbers.
        batch_size: molecules drawn at a time.
        wanted: keyword arguments of `MoleculeDomain.condition`.
    """
    from diffusionkit.core import guided
    from diffusionkit.molecule.pool import progress

    sampling, sampler, found = run.recipe.sampling(), run.sampler(), []
    diffusion, size = guided(run.diffusion, sampling.guidance, sampling.clip), batch_size or sampling.batch_size
    torch.manual_seed(seed)
    with progress(f"drawing {n:,} molecules", n) as tick:
        for start in range(0, n, size):
            indices = torch.arange(start, min(start + size, n))
            found += run.codec.decode(run.domain.draw(diffusion, run.codec, sampler, indices, **wanted))
            tick(len(indices))
    return found
