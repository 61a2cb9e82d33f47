"""The questions that every space answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from diffusionkit.core.schedules import Schedule

Weight: TypeAlias = Callable[[Schedule, Tensor], Tensor]
"""A weighting of noise levels: the weight of the squared error in x0 at times t (B,) of a schedule."""

Rule: TypeAlias = Callable[[list[float], float], Sequence[float]]
"""A linear multistep rule: from half log-SNRs of past estimates (newest first) and of the goal to one weight for each."""


class Process(nn.Module, ABC):
    """The Markov chain of one space, forward and back.

    Times are (B,) tensors, one per sample, or tensors without dimensions, one for all. `rows` tells the samples of a
    ragged batch apart and is None for dense ones.

    An *estimate* is what a network knows of the data given x_t, in the terms of the space: the posterior mean of x0 where
    the space is linear, the probabilities of x0 for categories, the score of angles and rotations.
    """

    schedule: Schedule

    steps: int = 1000
    """The length of the discrete chain that the process is taken for where one is needed."""

    linear: bool
    """Whether estimates are vectors that may be extrapolated by multistep rules, clipped and differentiated."""

    outputs: int = 1
    """How many numbers the network gives for each one of the state's."""

    @property
    def t_max(self) -> float:
        """The largest time from which an estimate is well conditioned; sampling starts there."""
        return 1.0

    @abstractmethod
    def prior(
        self,
        shape: Any,
        t: Tensor | None = None,
        rows: Any = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Any:
        """A state of this shape drawn from the chain's end, at time t (default 1)."""

    @abstractmethod
    def diffuse(self, x_s: Any, t: Tensor, s: Tensor | None = None, rows: Any = None) -> tuple[Any, Any]:
        """x_t drawn given x_s in one jump, and the noise that was drawn; without s, x_s is data."""

    def inputs(self, x_t: Any, t: Tensor, rows: Any = None) -> Any:
        """What the network is shown of x_t: itself, or rescaled."""
        return x_t

    @abstractmethod
    def estimate(self, output: Any, x_t: Any, t: Tensor, rows: Any = None) -> Any:
        """The estimate that a network's raw output stands for."""

    @abstractmethod
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
        """(B,) training loss; `keep` marks the entries that count (all by default)."""

    @abstractmethod
    def step(
        self,
        x_t: Any,
        estimate: Any,
        t: Tensor,
        s: Tensor,
        eta: float = 1.0,
        rows: Any = None,
        variance: str = "small",
        temperature: float = 1.0,
    ) -> Any:
        """x_s drawn from the reverse kernel: ancestral with eta 1, as little random as the space allows with eta 0.

        `variance` is read where the space has a choice (see `Gaussian`); `temperature` scales what is drawn.
        """

    @abstractmethod
    def kl(self, x0: Any, x_t: Any, estimate: Any, t: Tensor, s: Tensor, rows: Any = None) -> Tensor:
        """(B,) KL(q(x_s | x_t, x0) || p(x_s | x_t)) in nats: a term L_t of the variational bound."""

    @abstractmethod
    def prior_kl(self, x0: Any, rows: Any = None) -> Tensor:
        """(B,) KL(q(x_1 | x0) || prior) in nats: the term L_T of the variational bound."""

    @abstractmethod
    def reconstruction(
        self, x0: Any, x_t: Any, estimate: Any, t: Tensor, rows: Any = None, bin: float | None = None
    ) -> Tensor:
        """(B,) -log p(x0 | x_t) at the chain's first step, in nats: the term L_0 of the variational bound.

        `bin` is the distance of the data's values where they are quantised, between -1 and 1: their probability then, not
        a density.
        """

    @abstractmethod
    def dimensions(self, x: Any, rows: Any = None) -> Tensor:
        """(B,) how many numbers or categories make up each sample."""

    @abstractmethod
    def guess(self, estimate: Any, x_t: Any, t: Tensor, rows: Any = None) -> Any:
        """The one state that the estimate points to."""

    def blend(self, output: Any, other: Any, rule: Callable[[Tensor, Tensor], Tensor]) -> Any:
        """Two raw outputs made one by a rule such as guidance; what is no part of the estimate proper stays the first's."""
        return rule(output, other)

    def combine(self, estimates: list[Any], times: list[Tensor], s: Tensor, rule: Rule) -> Any:
        """The estimates (newest first) made at `times`, combined by a multistep rule; the newest where the space is not linear."""
        return estimates[0]

    def clip(self, estimate: Any, rule: Callable[[Tensor], Tensor]) -> Any:
        """The estimate with `rule` applied to the x0 in it, where the space is linear."""
        return estimate

    def guide(self, output: Any, x_t: Any, t: Tensor, gradient: Any, rows: Any = None) -> Any:
        """The raw output whose score has `gradient` (of a log-probability with respect to x_t) added."""
        raise ValueError(f"{type(self).__name__} has no gradient to be guided by: use classifier-free guidance")
