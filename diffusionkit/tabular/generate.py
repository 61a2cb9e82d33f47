"""Rows drawn under conditions: what is given is shown to the network, what is not allowed is never drawn."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from diffusionkit.core.guidance import Guided, Threshold
from diffusionkit.errors import UserError
from diffusionkit.tabular.codec import TableCodec
from diffusionkit.tabular.conditions import Wanted, known


class Allowed(Guided):
    """A diffusion that draws no other levels than those allowed, and numbers within bounds.

    Args:
        diffusion: of a table.
        levels: (B or 1, sum(sizes)) the logarithm of the share of each level that may be drawn: 0 for all of it, -inf for none.
        bounds: lowest and highest value of each number, (B or 1, D) each, or None.
    """

    def __init__(self, diffusion: nn.Module, levels: Tensor, bounds: tuple[Tensor, Tensor] | None = None) -> None:
        super().__init__(diffusion)
        self.levels, self.bounds = levels, bounds

    def forward(self, x_t: Any, t: Tensor, cond: Any = None, rows: Any = None, given: Any = None) -> Any:
        output = self.diffusion(x_t, t, cond, rows, given)
        return {**output, "cat": output["cat"] + self.levels}

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
    wanted = wanted or Wanted()
    device = next(diffusion.parameters()).device
    always = getattr(diffusion.masks, "always", ())
    levels = limits(codec, wanted, present)
    if (given is None or state is None) and (always or levels is not None):
        given, state = known(codec, Wanted(), torch.arange(n))
    if given is not None and state is not None:
        given, state = _settled(codec, always, given, state, levels)
        _refuse_unseen(diffusion, codec, always, given, wanted)
        given = {name: mask.to(device) for name, mask in given.items()}
        state = {name: value.to(device) for name, value in state.items()}
    if getattr(diffusion.masks, "plain", False) and sampler.steps > len(codec.cat) > 0:
        # Codes that are revealed evenly are revealed one at a time by then: more steps reveal nothing.
        sampler = copy.copy(sampler)
        sampler.steps = len(codec.cat)
    if levels is None:
        return sampler(diffusion, like=codec.like(n), given=given, known=state, watch=watch)
    threshold = diffusion if isinstance(diffusion, Threshold) else None  # which stays outside: it acts on estimates
    allowed = diffusion = Allowed(threshold.diffusion if threshold else diffusion, levels.to(device))
    if threshold:
        diffusion = Threshold(allowed, threshold.limit, threshold.quantile)
    for column in wanted.codes:
        given, state = _first(diffusion, codec, column, given, state)
    bounds = allowed.bounds = _bounds(codec, wanted, state)
    x = sampler(diffusion, like=codec.like(n), given=given, known=state, watch=watch)
    return x if bounds is None else {**x, "num": torch.minimum(torch.maximum(x["num"], bounds[0]), bounds[1])}


def _settled(
    codec: TableCodec, always: Any, given: dict[str, Tensor], state: dict[str, Tensor], levels: Tensor | None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What a network is always shown, drawn as frequently as it was seen where it is not given."""
    given, state = {k: v.clone() for k, v in given.items()}, {k: v.clone() for k, v in state.items()}
    sizes = codec.arguments()["sizes"]
    for place in (place for place, owner in enumerate(codec.cat) if owner in always):
        counts = torch.tensor(codec.coders[codec.cat[place]].counts, dtype=torch.float64)
        shares = counts if levels is None else counts * levels[0].split(sizes)[place].exp()
        drawn = torch.multinomial(shares, len(state["cat"]), replacement=True)
        state["cat"][:, place] = torch.where(given["cat"][:, place], state["cat"][:, place], drawn)
        given["cat"][:, place] = True
    return given, state


def _refuse_unseen(
    diffusion: nn.Module, codec: TableCodec, always: Any, given: dict[str, Tensor], wanted: Wanted
) -> None:
    """Refuses conditions that the network was not trained for: they would be ignored or misread."""
    masks = diffusion.masks
    if masks is not None and (masks.share > 0 or masks.plain):
        return
    owners = torch.tensor([*codec.num, *codec.cat], dtype=torch.long)
    shown = owners[torch.cat([given["num"], given["cat"]], 1).any(0)].tolist()
    others = [i for i in [*shown, *map(codec.schema.position, wanted.codes)] if i not in always]
    if others:
        raise UserError(
            f"column {codec.schema.names[others[0]]!r} cannot be given: this model was trained without given columns; "
            "train with backbone.masked above 0, or use the default preset"
        )


def limits(codec: TableCodec, wanted: Wanted, present: bool = False) -> Tensor | None:
    """(1, sum(sizes)) the logarithm of the share of each level that may be drawn; None where nothing is limited.

    Of a bin that a range cuts through it is the share of its values that lie within.
    """
    if not (wanted.codes or present):
        return None
    blocks = [torch.zeros(size) for size in codec.arguments()["sizes"]]
    for place, owner in enumerate(codec.cat):
        if present and codec.coders[owner].missing:
            blocks[place][-1] = -math.inf
    for column, codes in wanted.codes.items():
        for place in codec.entries(column)["cat"]:
            allowed = torch.full_like(blocks[place], -math.inf)
            allowed[codes] = 0.0
            if column in wanted.ranges:
                low, high = (torch.special.ndtr(edge.double()) for edge in wanted.ranges[column])
                allowed[codes] = (high - low).clamp(min=1e-12).log().float()
            blocks[place] += allowed
    return torch.cat([*blocks, torch.zeros(0)])[None]


def _bounds(codec: TableCodec, wanted: Wanted, state: dict[str, Tensor]) -> tuple[Tensor, Tensor] | None:
    """The lowest and the highest value (B, D) of each number; None without ranges of numbers."""
    low = torch.full_like(state["num"], -math.inf)
    high = -low
    for column, edges in wanted.ranges.items():
        places = codec.entries(column)
        for place in places["num"]:
            codes = wanted.codes[column].to(low.device)
            own = torch.searchsorted(codes, state["cat"][:, places["cat"][0]].contiguous()) if places["cat"] else 0
            low[:, place], high[:, place] = (edge.to(low)[own] for edge in edges)
    return (low, high) if low.isfinite().any() or high.isfinite().any() else None


def _first(
    diffusion: nn.Module, codec: TableCodec, column: Any, given: dict[str, Tensor], state: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The code of one column drawn from what the network says at the chain's end, given what is known so far."""
    places = codec.entries(column)["cat"]
    if not places or given["cat"][:, places[0]].all():
        return given, state
    process, [place] = diffusion.process, places
    t = torch.tensor(process.t_max, dtype=torch.float64)
    x = process.prior(codec.like(len(given["cat"])), t, device=given["cat"].device)
    x = {name: torch.where(given[name], state[name], value) for name, value in x.items()}
    was = diffusion.training
    with torch.no_grad():
        estimate = diffusion.eval().estimate(x, t, given=given)
    diffusion.train(was)
    drawn = dict(zip(process.names, process.parts, strict=True))["cat"].blocks.sample(estimate["cat"])
    given, state = {k: v.clone() for k, v in given.items()}, {k: v.clone() for k, v in state.items()}
    state["cat"][:, place] = torch.where(given["cat"][:, place], state["cat"][:, place], drawn[:, place])
    given["cat"][:, place] = True
    return given, state
