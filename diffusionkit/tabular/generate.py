"""Rows drawn under conditions: what is given is shown to the network, what is not allowed is never drawn."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from diffusionkit.core.guidance import Guided
from diffusionkit.errors import UserError
from diffusionkit.tabular.codec import TableCodec
from diffusionkit.tabular.conditions import Wanted, known


class Allowed(Guided):
    """A diffusion that draws no other levels than those allowed, and numbers within bounds.

    Args:
        diffusion: of a table.
        levels: (B or 1, sum(sizes)) which levels may be drawn.
        bounds: lowest and highest value of each number, (B or 1, D) each, or None.
    """

    def __init__(self, diffusion: nn.Module, levels: Tensor, bounds: tuple[Tensor, Tensor] | None = None) -> None:
        super().__init__(diffusion)
        self.levels, self.bounds = levels, bounds

    def forward(self, x_t: Any, t: Tensor, cond: Any = None, rows: Any = None, given: Any = None) -> Any:
        output = self.diffusion(x_t, t, cond, rows, given)
        return {**output, "cat": output["cat"].masked_fill(~self.levels, -math.inf)}

    def estimate(self, x_t: Any, t: Tensor, cond: Any = None, rows: Any = None, given: Any = None) -> Any:
        estimate = super().estimate(x_t, t, cond, rows, given)
        if self.bounds is None:
            return estimate
        low, high = self.bounds
        return {**estimate, "num": torch.minimum(torch.maximum(estimate["num"], low), high)}


def draw(
    diffusion: nn.Module,
    codec: TableCodec,
    sampler: Any,
    indices: Tensor,
    wanted: Wanted | None = None,
    watch: Callable[..., None] | None = None,
) -> dict[str, Tensor]:
    """States of rows under conditions; see `fill` for the arguments.

    Columns with a choice of levels or a range are drawn first, one after the other, each given all that is known by then: drawn
    along with the rest, they would be chosen when others have been drawn that know nothing of the choice.
    """
    wanted = wanted or Wanted()
    given, state = known(codec, wanted, indices)
    if not wanted:
        return fill(diffusion, codec, sampler, len(indices), watch=watch)
    return fill(diffusion, codec, sampler, len(indices), given, state, wanted, watch)


def fill(
    diffusion: nn.Module,
    codec: TableCodec,
    sampler: Any,
    n: int,
    given: dict[str, Tensor] | None = None,
    state: dict[str, Tensor] | None = None,
    wanted: Wanted | None = None,
    watch: Callable[..., None] | None = None,
    present: bool = False,
) -> dict[str, Tensor]:
    """What is not given of n rows, drawn.

    Args:
        diffusion: of the table.
        codec: of the table.
        sampler: how to step from noise to data.
        n: how many rows.
        given: masks of what is known.
        state: the known values.
        wanted: choices and ranges of columns that are not given.
        watch: called at every step of the sampler.
        present: never draw a missing value where there is another.
    """
    device = next(diffusion.parameters()).device
    always = getattr(diffusion.masks, "always", ())
    if given is None or state is None:
        given, state = known(codec, Wanted(), torch.arange(n)) if always else (None, None)
    if given is not None and state is not None:
        given, state = _settled(codec, always, given, state)
        _refuse_unseen(diffusion, codec, always, given)
        given = {name: mask.to(device) for name, mask in given.items()}
        state = {name: value.to(device) for name, value in state.items()}
    levels, bounds = limits(codec, wanted or Wanted(), present, device)
    if levels is not None:
        diffusion = Allowed(diffusion, levels, bounds)
        for column in wanted.codes if wanted else ():
            given, state = _first(diffusion, codec, column, given, state)
    return sampler(diffusion, like=codec.like(n), given=given, known=state, watch=watch)


def _settled(
    codec: TableCodec, always: Any, given: dict[str, Tensor], state: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What a network is always shown, drawn as frequently as it was seen where it is not given."""
    given, state = {k: v.clone() for k, v in given.items()}, {k: v.clone() for k, v in state.items()}
    for place in (place for place, owner in enumerate(codec.cat) if owner in always):
        counts = torch.tensor(codec.coders[codec.cat[place]].counts, dtype=torch.float64)
        drawn = torch.multinomial(counts, len(state["cat"]), replacement=True)
        state["cat"][:, place] = torch.where(given["cat"][:, place], state["cat"][:, place], drawn)
        given["cat"][:, place] = True
    return given, state


def _refuse_unseen(diffusion: nn.Module, codec: TableCodec, always: Any, given: dict[str, Tensor]) -> None:
    """Refuses conditions that the network was not trained for: they would be ignored or misread."""
    masks = diffusion.masks
    free = masks is not None and (masks.share > 0 or masks.plain)
    others = [owner for name, owners in (("num", codec.num), ("cat", codec.cat))
              for owner, shown in zip(owners, given[name].any(0).tolist(), strict=True) if shown and owner not in always]  # fmt: skip
    if others and not free:
        raise UserError(
            f"column {codec.schema.names[others[0]]!r} cannot be given: this model was trained without given columns; "
            "train with backbone.masked above 0, or use the default preset"
        )


def limits(
    codec: TableCodec, wanted: Wanted, present: bool, device: torch.device
) -> tuple[Tensor | None, tuple[Tensor, Tensor] | None]:
    """Which levels may be drawn, (1, sum(sizes)), and the bounds of all numbers, (1, D) each; None where there is no limit."""
    if not (wanted.codes or present):
        return None, None
    blocks = [torch.ones(size, dtype=torch.bool) for size in codec.arguments()["sizes"]]
    if present:
        for place, owner in enumerate(codec.cat):
            if codec.coders[owner].missing:
                blocks[place][-1] = False
    low = torch.full((1, codec.like(1)["num"][1]), -math.inf)
    high = -low
    for column, codes in wanted.codes.items():
        places = codec.entries(column)
        for place in places["cat"]:
            allowed = torch.zeros_like(blocks[place])
            allowed[codes] = True
            blocks[place] &= allowed
        for place in places["num"] if column in wanted.ranges and not places["cat"] else ():
            low[0, place], high[0, place] = (edge.item() for edge in wanted.ranges[column])
    levels = torch.cat(blocks)[None] if blocks else torch.ones(1, 0, dtype=torch.bool)
    bounds = (low.to(device), high.to(device)) if low.isfinite().any() or high.isfinite().any() else None
    return levels.to(device), bounds


def _first(
    diffusion: nn.Module, codec: TableCodec, column: Any, given: dict[str, Tensor], state: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The code of one column drawn from what the network says at the chain's end, given what is known so far."""
    (place,) = codec.entries(column)["cat"] or (None,)
    if place is None or given["cat"][:, place].all():
        return given, state
    process, like = diffusion.process, codec.like(len(given["cat"]))
    t = torch.tensor(process.t_max, dtype=torch.float64)
    with torch.no_grad():
        x = process.prior(like, t, device=given["cat"].device)
        x = {name: torch.where(given[name], state[name], value) for name, value in x.items()}
        was = diffusion.training
        diffusion.eval()
        estimate = diffusion.estimate(x, t, given=given)
        diffusion.train(was)
        drawn = dict(zip(process.names, process.parts, strict=True))["cat"].blocks.sample(estimate["cat"])
    given, state = {k: v.clone() for k, v in given.items()}, {k: v.clone() for k, v in state.items()}
    state["cat"][:, place] = torch.where(given["cat"][:, place], state["cat"][:, place], drawn[:, place])
    given["cat"][:, place] = True
    return given, state
