"""Several spaces diffused together: a dict of states goes in, a dict comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from diffusionkit.core.processes.base import Process, Rule, Weight


class Product(Process):
    """The product of named processes, at one time for all; each answers for its own part.

    `rows`, where given, is one `Rows` for all parts or a dict of them; a part without an entry is dense.

    Args:
        parts: the process of each part.
        weights: how much each part's loss counts, 1 by default.
    """

    def __init__(self, parts: Mapping[str, Process], weights: Mapping[str, float] | None = None) -> None:
        super().__init__()
        if not parts:
            raise ValueError("a product needs at least one part")
        unknown = set(weights or {}) - set(parts)
        if unknown:
            raise ValueError(
                f"weights for parts that are not there: {', '.join(sorted(unknown))}; parts: {', '.join(parts)}"
            )
        self.names = tuple(parts)
        self.parts = nn.ModuleList(parts.values())  # a ModuleDict refuses names such as "type"
        self.weights = {name: float((weights or {}).get(name, 1.0)) for name in parts}
        self.linear = any(part.linear for part in parts.values())
        # Time grids, and times of training, go by the first linear part, else by the first.
        leader = next((part for part in parts.values() if part.linear), next(iter(parts.values())))
        self.schedule, self.steps = leader.schedule, leader.steps

    @property
    def t_max(self) -> float:
        return min(part.t_max for _, part in self._each())

    def _each(self) -> list[tuple[str, Process]]:
        return list(zip(self.names, self.parts, strict=True))  # type: ignore[arg-type]

    def _map(self, call: Callable[..., Any], rows: Any, *states: Any) -> dict[str, Any]:
        """`call(part, rows of the part, states of the part...)` for every part."""
        of = rows if isinstance(rows, dict) else dict.fromkeys(self.names, rows)
        return {name: call(part, of.get(name), *(state[name] for state in states)) for name, part in self._each()}

    def _sum(self, terms: dict[str, Tensor], weighted: bool = False) -> Tensor:
        return reduce(torch.add, (self.weights[k] * v if weighted else v for k, v in terms.items()))

    def prior(
        self,
        shape: dict[str, Any],
        t: Tensor | None = None,
        rows: Any = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> dict[str, Any]:
        return self._map(lambda part, r, like: part.prior(like, t, r, device, dtype), rows, shape)

    def diffuse(self, x_s: Any, t: Tensor, s: Tensor | None = None, rows: Any = None) -> tuple[Any, Any]:
        both = self._map(lambda part, r, x: part.diffuse(x, t, s, r), rows, x_s)
        return {k: v[0] for k, v in both.items()}, {k: v[1] for k, v in both.items()}

    def inputs(self, x_t: Any, t: Tensor, rows: Any = None) -> Any:
        return self._map(lambda part, r, x: part.inputs(x, t, r), rows, x_t)

    def estimate(self, output: Any, x_t: Any, t: Tensor, rows: Any = None) -> Any:
        return self._map(lambda part, r, o, x: part.estimate(o, x, t, r), rows, output, x_t)

    def guess(self, estimate: Any, x_t: Any, t: Tensor, rows: Any = None) -> Any:
        return self._map(lambda part, r, e, x: part.guess(e, x, t, r), rows, estimate, x_t)

    def loss(
        self,
        output: Any,
        x0: Any,
        x_t: Any,
        noise: Any,
        t: Tensor,
        rows: Any = None,
        weight: Weight | None = None,
        keep: Any = None,
    ) -> Tensor:
        keep = keep if isinstance(keep, dict) else dict.fromkeys(self.names, keep)
        terms = self._map(
            lambda part, r, o, x, y, n, k: part.loss(o, x, y, n, t, r, weight, k), rows, output, x0, x_t, noise, keep
        )
        return self._sum(terms, weighted=True)

    def step(
        self,
        x_t: Any,
        estimate: Any,
        t: Tensor,
        s: Tensor,
        eta: float = 1.0,
        rows: Any = None,
        variance: str = "small",
        temperature: float | Mapping[str, float] = 1.0,
    ) -> Any:
        """`temperature` is one for all parts, or a dict of them; a part without an entry has 1."""
        own = {
            name: temperature.get(name, 1.0) if isinstance(temperature, Mapping) else temperature for name in self.names
        }
        return self._map(
            lambda part, r, x, e, warm: part.step(x, e, t, s, eta, r, variance, warm), rows, x_t, estimate, own
        )

    def kl(self, x0: Any, x_t: Any, estimate: Any, t: Tensor, s: Tensor, rows: Any = None) -> Tensor:
        return self._sum(self._map(lambda part, r, x, y, e: part.kl(x, y, e, t, s, r), rows, x0, x_t, estimate))

    def prior_kl(self, x0: Any, rows: Any = None) -> Tensor:
        return self._sum(self._map(lambda part, r, x: part.prior_kl(x, r), rows, x0))

    def reconstruction(self, x0: Any, x_t: Any, estimate: Any, t: Tensor, rows: Any = None, bin: Any = None) -> Tensor:
        """`bin` may be a dict of those parts that are quantised."""
        bins = dict.fromkeys(self.names) | bin if isinstance(bin, dict) else dict.fromkeys(self.names, bin)
        return self._sum(
            self._map(lambda part, r, x, y, e, b: part.reconstruction(x, y, e, t, r, b), rows, x0, x_t, estimate, bins)
        )

    def dimensions(self, x: Any, rows: Any = None) -> Tensor:
        return self._sum(self._map(lambda part, r, y: part.dimensions(y, r), rows, x))

    def blend(self, output: Any, other: Any, rule: Callable[[Tensor, Tensor], Tensor]) -> Any:
        return self._map(lambda part, _, o, p: part.blend(o, p, rule), None, output, other)

    def combine(self, estimates: list[Any], times: list[Tensor], s: Tensor, rule: Rule) -> Any:
        return {
            name: part.combine([estimate[name] for estimate in estimates], times, s, rule)
            for name, part in self._each()
        }

    def clip(self, estimate: Any, rule: Callable[[Tensor], Tensor]) -> Any:
        return self._map(lambda part, _, e: part.clip(e, rule), None, estimate)

    def guide(self, output: Any, x_t: Any, t: Tensor, gradient: Any, rows: Any = None) -> Any:
        """Each part guided by its own gradient; a part without one (None) stays as it is."""
        return self._map(
            lambda part, r, o, x, g: o if g is None else part.guide(o, x, t, g, r), rows, output, x_t, gradient
        )
