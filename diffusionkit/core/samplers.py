"""From noise to data: one loop, time grids, given parts; ancestral sampling and DDIM.

Every deterministic Gaussian solver is the DDIM step with a better estimate, so those in `solvers` override one hook, `refine`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from diffusionkit.core.processes import Process, Product
from diffusionkit.core.state import tree_leaves, tree_map

Grid = Literal["uniform", "quadratic", "karras", "log_snr"]
Temperature: TypeAlias = float | dict[str, float]


class Past(NamedTuple):
    """A state that the network has looked at."""

    t: Tensor
    x: Any
    estimate: Any


class Sampler:
    """The reverse chain over a grid of times, from noise at the process's `t_max` to data at 0.

    Args:
        steps: how many steps to take.
        eta: 1 is ancestral, 0 as deterministic as the space allows.
        grid: times `uniform` or `quadratic` in t, `karras` (uniform in (sigma / alpha)^(1/7), Karras et al. 2022, eq. 5), or
            uniform in `log_snr`; the last two end with a step from t = 0.001 to 0.
        temperature: scales the noise that is drawn; for a product also a dict of one for each part, 1 where it has no entry.
    """

    order = 1
    variance = "small"

    def __init__(
        self, steps: int = 50, eta: float = 0.0, grid: Grid = "uniform", temperature: Temperature = 1.0
    ) -> None:
        if steps < 1:
            raise ValueError(f"steps must be at least 1, not {steps}")
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must lie between 0 (deterministic) and 1 (ancestral), not {eta:g}")
        for value in temperature.values() if isinstance(temperature, dict) else [temperature]:
            if value < 0:
                raise ValueError(f"temperature must not be negative, not {value:g}")
        self.steps, self.eta, self.grid, self.temperature = steps, eta, grid, temperature
        if grid not in ("uniform", "quadratic", "karras", "log_snr"):
            raise ValueError(f"grid must be uniform, quadratic, karras or log_snr, not {grid!r}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in vars(self).items())})"

    def check(self, process: Process) -> None:
        """Refuses, with one sentence, a process that this sampler does not fit."""
        if not isinstance(self.temperature, dict):
            return
        if not isinstance(process, Product):
            raise ValueError(f"temperature must be one number: {type(process).__name__} has no parts")
        if unknown := set(self.temperature) - set(process.names):
            listed = f"{', '.join(sorted(unknown))}; parts: {', '.join(process.names)}"
            raise ValueError(f"temperature for parts that are not there: {listed}")

    def times(self, process: Process) -> Tensor:
        """(steps + 1,) falling times in float64, from `process.t_max` to 0."""
        top = torch.tensor(process.t_max, dtype=torch.float64)
        falling = torch.linspace(1, 0, self.steps + 1, dtype=torch.float64)
        if self.grid == "uniform" or self.steps == 1:
            return top * falling
        if self.grid == "quadratic":
            return top * falling**2
        ends = process.schedule.log_snr(torch.stack([top, torch.full_like(top, 1e-3)]))
        along = torch.linspace(0, 1, self.steps, dtype=torch.float64)
        if self.grid == "log_snr":
            log_snr = torch.lerp(ends[0], ends[1], along)
        else:  # exp(-log_snr / 2) is sigma / alpha
            first, last = (-ends / 14).exp()
            log_snr = -14 * torch.lerp(first, last, along).log()
        return torch.cat([top[None], process.schedule.t_at(log_snr)[1:], top.new_zeros(1)])

    def refine(
        self, process: Process, past: list[Past], s: Tensor, look: Callable[[Any, Tensor], Any], rows: Any
    ) -> tuple[Any, Any]:
        """The state and the estimate from which to step to s; `past` starts with the present, `look` asks the network."""
        return past[0].x, past[0].estimate

    def shake(self, process: Process, x: Any, t: Tensor, rows: Any) -> tuple[Any, Tensor]:
        """The state brought to a higher noise level before a step; as it is by default."""
        return x, t

    def __call__(
        self,
        diffusion: Any,
        like: Any,
        cond: Any = None,
        rows: Any = None,
        given: Any = None,
        known: Any = None,
        resample: int = 1,
        jump: int = 1,
        start: Any = None,
        begin: float = 1.0,
        watch: Callable[[Tensor, Any, Any], None] | None = None,
    ) -> Any:
        """Draws samples.

        Args:
            diffusion: a `Diffusion`, or a guided one.
            like: the shape of the states to draw, batch included, or a state of that shape; a dict of them for products.
            cond: the condition, as in training.
            rows: for ragged data, which sample each row belongs to.
            given: masks of the entries that are known; `known` holds their values. They come back bit-equal.
            resample: how often each piece of the way is gone when a network not trained with masks fills in the rest (r of
                Lugmayr et al. 2022, RePaint).
            jump: length of these pieces in steps: so far back up to noise the states are taken (their j).
            start: the state to begin from, instead of a random one at `t_max`.
            begin: where `start` lies on the way, as a share of `t_max`; the grid is cut there.
            watch: called with (t, x_t, estimate) at every step.

        Raises:
            ValueError: if the process does not fit this sampler, or the arguments do not fit each other.
        """
        process = diffusion.process
        self.check(process)
        if (given is None) != (known is None):
            raise ValueError("`given` says which entries are known and `known` holds their values: pass both")
        if not 0 < begin <= 1 or (begin < 1 and start is None):
            raise ValueError("`begin` must lie above 0 and not above 1, and below 1 it needs a state to `start` from")
        times = self.times(process)
        if begin < 1:
            top = begin * times[0]
            times = torch.cat([top[None], times[times < top]])
        with torch.no_grad(), evaluating(diffusion):
            return self._run(diffusion, times, like, cond, rows, given, known, resample, jump, start, watch)

    def _run(
        self,
        diffusion: Any,
        times: Tensor,
        like: Any,
        cond: Any,
        rows: Any,
        given: Any,
        known: Any,
        resample: int,
        jump: int,
        start: Any,
        watch: Any,
    ) -> Any:
        process, shown = diffusion.process, _shown(diffusion, like, given)

        def look(x: Any, t: Tensor) -> Any:
            if shown is not None and given is not None:  # a state ahead has moved its known entries
                x = _put(given, known, x)
            return diffusion.estimate(x, t, cond, rows, shown)

        x = _prior(diffusion, like, times[0], rows) if start is None else start
        past: list[Past] = []
        route = repaint_route(len(times) - 1, resample if given is not None and shown is None else 1, jump)
        for t, s in pairwise(times[route]):
            if s > t:
                x, past = process.diffuse(x, s, t, rows)[0], []
                continue
            if given is not None:
                clean = known if shown is not None else process.diffuse(known, t, rows=rows)[0]
                x = _put(given, clean, x)
            x, now = self.shake(process, x, t, rows)
            past = [Past(now, x, look(x, now)), *past][: self.order]
            if watch:
                watch(now, x, past[0].estimate)
            x, estimate = self.refine(process, past, s, look, rows)
            past[0] = past[0]._replace(x=x)
            x = process.step(x, estimate, now, s, self.eta, rows, self.variance, self.temperature)
        return x if given is None else _put(given, known, x)


class DDPM(Sampler):
    """Ancestral sampling (Ho et al. 2020, algorithm 2).

    Args:
        variance: `small` is that of q(x_s | x_t, x0), `large` that of q(x_t | x_s), `learned` what the network says (predict
            'eps+variance').
    """

    def __init__(
        self,
        steps: int = 1000,
        variance: Literal["small", "large", "learned"] = "small",
        grid: Grid = "uniform",
        temperature: Temperature = 1.0,
    ) -> None:
        super().__init__(steps, 1.0, grid, temperature)
        if variance not in ("small", "large", "learned"):
            raise ValueError(f"variance must be small, large or learned, not {variance!r}")
        self.variance = variance

    def check(self, process: Process) -> None:
        super().check(process)
        if self.variance == "small":
            return
        parts = parts_of(process)
        if not any(part.linear for part in parts):
            raise ValueError(
                f"variance {self.variance!r} is a choice of Gaussian processes; {names_of(process)} has none"
            )
        if self.variance == "learned" and any(getattr(p, "predict", "eps+variance") != "eps+variance" for p in parts):
            raise ValueError("variance 'learned' needs a process with predict 'eps+variance'")


class DDIM(Sampler):
    """Song et al. 2021: the same marginals with as little randomness as wanted."""


def repaint_route(steps: int, resample: int = 1, jump: int = 1) -> list[int]:
    """Places on a grid of so many steps, 0 the noise and `steps` the data, in the order in which RePaint goes through them.

    After every `jump` steps, counted from the step before the data, it goes back up as many, `resample` - 1 times, as in the
    schedule of Lugmayr et al. 2022.

    Raises:
        ValueError: for less than one resampling, or jumps that are not shorter than the way.
    """
    if resample < 1:
        raise ValueError(f"resample must be at least 1, not {resample}")
    if jump < 1 or (resample > 1 and jump >= steps > 1):
        raise ValueError(f"jump must lie between 1 and {steps - 1}, one below the number of steps, not {jump}")
    left = dict.fromkeys(range(steps - 1, jump - 1, -jump), resample - 1)
    route, at = [0], 0
    while at < steps:
        at += 1
        route.append(at)
        if left.get(at):
            left[at] -= 1
            at -= jump
            route.append(at)
    return route


def encode(
    diffusion: Any, x0: Any, cond: Any = None, rows: Any = None, steps: int = 100, grid: Grid = "uniform"
) -> Any:
    """The state at `t_max` that deterministic sampling leads back to x0: DDIM run backwards (Song et al. 2021, section 5.4).

    Only for processes whose steps are linear in estimates. The first step takes data for a state at log-SNR 9.
    """
    process = diffusion.process
    if not all(part.linear for part in parts_of(process)):
        raise ValueError(f"encoding runs the deterministic chain backwards, which {names_of(process)} does not allow")
    rising = DDIM(steps, grid=grid).times(process).flip(0)
    rising[0] = torch.minimum(process.schedule.t_at(torch.tensor(9.0, dtype=torch.float64)), rising[1] / 2)
    x = x0
    with torch.no_grad(), evaluating(diffusion):
        for t, s in pairwise(rising):
            x = process.step(x, diffusion.estimate(x, t, cond, rows), t, s, 0.0, rows)
    return x


def slerp(a: Tensor, b: Tensor, weight: Tensor | float) -> Tensor:
    """Spherical interpolation between latents (B, ...), each sample on its own great circle; weight 0 gives a, 1 gives b."""
    flat_a, flat_b = a.flatten(1), b.flatten(1)
    cosine = (flat_a * flat_b).sum(1) / (flat_a.norm(dim=1) * flat_b.norm(dim=1))
    angle = cosine.clamp(-1, 1).acos().clamp(min=1e-6).reshape(-1, *[1] * (a.ndim - 1))
    return (torch.sin((1 - weight) * angle) * a + torch.sin(weight * angle) * b) / torch.sin(angle)


def parts_of(process: Process) -> list[Process]:
    """The factors of a product, or the process itself."""
    return [part for _, part in process._each()] if isinstance(process, Product) else [process]


def names_of(process: Process) -> str:
    """What a process is called in a refusal."""
    return " x ".join(type(part).__name__ for part in parts_of(process))


def _put(given: Any, clean: Any, x: Any) -> Any:
    return tree_map(torch.where, given, clean, x)


def _shape(like: Any) -> Any:
    if isinstance(like, dict):
        return {name: _shape(entry) for name, entry in like.items()}
    return tuple(like.shape) if isinstance(like, Tensor) else tuple(like)


def _prior(diffusion: Any, like: Any, t: Tensor, rows: Any) -> Any:
    example = next((leaf for leaf in tree_leaves(like) if isinstance(leaf, Tensor) and leaf.is_floating_point()), None)
    example = next(diffusion.parameters(), torch.zeros(())) if example is None else example
    return diffusion.process.prior(_shape(like), t, rows, example.device, example.dtype)


def _shown(diffusion: Any, like: Any, given: Any) -> Any:
    """The mask that a network trained with masks is shown: nothing given is a mask as well."""
    if diffusion.masks is None or given is not None:
        return None if diffusion.masks is None else given
    device = next(diffusion.parameters(), torch.zeros(())).device

    def empty(shape: Any) -> Any:
        if isinstance(shape, dict):
            return {name: empty(entry) for name, entry in shape.items()}
        return torch.zeros(shape, dtype=torch.bool, device=device)

    return empty(_shape(like))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Dropout and the like switched off for as long as it lasts."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


__all__ = ["DDIM", "DDPM", "Past", "Sampler", "encode", "evaluating", "repaint_route", "slerp"]
