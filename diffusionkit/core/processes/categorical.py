"""Categories: a whole block of entries at once; codes go in, logits come out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusionkit.core.processes.base import Process, Weight
from diffusionkit.core.rows import Rows, mean, spread, total
from diffusionkit.core.schedules import Cosine, LinearVariance, Schedule


class Categorical(Process):
    """An entry keeps its value with probability alpha_t^2 = 1 - sigma_t^2, else it is drawn anew or masked.

    The state holds integer codes. With one size S for all, it has any shape (B, ...) and the logits one more dimension (B, ..., S).
    With a list of K sizes it has shape (B, K) and the logits, one block after another, shape (B, sum(sizes)): the cost is linear
    in the number of levels and no loop runs over the entries. With `absorbing` the code S (one beyond the last) is the mask.

    The reverse kernel is the exact mixture of q(x_s | x_t, x0) over the estimated probabilities of x0: with the true ones, and
    entries that are independent given x_t, it has the chain's law. (Hoogeboom et al. 2021 put the probabilities themselves in the
    place of x0.)

    Args:
        sizes: the number of values of every entry, or of each of K entries.
        kind: `uniform` (Hoogeboom et al. 2021, multinomial diffusion) or `absorbing` (Austin et al. 2021, D3PM).
        schedule: alpha(t)^2 is the probability that an entry still has its first value; by default the cosine table for
            `uniform` and 1 - t for `absorbing`.
        objective: `ce`, the cross-entropy of x0 (for `absorbing` that of masked entries with weight 1 / t, which is the bound), or
            `kl`, the bound's own terms over a chain of `steps`.
        steps: length of the chain for `kl`; by default the schedule's.
        even: for `absorbing`: of m entries that leave or enter the mask with probability p, floor(m p) or one more do so,
            instead of a number that may be anything from 0 to m; and `ce` is the mean over the masked entries. A step then
            reveals few entries that know nothing of each other (none, where there are as many steps as entries), and every
            sample of a batch teaches as much as any other. Each entry by itself has the chain's law.
    """

    linear = False

    def __init__(
        self,
        sizes: int | list[int],
        kind: Literal["uniform", "absorbing"] = "uniform",
        schedule: Schedule | None = None,
        objective: Literal["ce", "kl"] = "ce",
        steps: int | None = None,
        even: bool = False,
    ) -> None:
        super().__init__()
        if kind not in ("uniform", "absorbing"):
            raise ValueError(f"kind must be uniform or absorbing, not {kind!r}")
        if objective not in ("ce", "kl"):
            raise ValueError(f"objective must be ce or kl, not {objective!r}")
        if any(size < 1 for size in ([sizes] if isinstance(sizes, int) else sizes)):
            raise ValueError(f"sizes must be at least 1, not {sizes}")
        if even and kind != "absorbing":
            raise ValueError("even is a choice of absorbing chains; uniform ones have no mask")
        self.sizes, self.kind, self.objective, self.even = sizes, kind, objective, even
        self.schedule = schedule or (Cosine() if kind == "uniform" else LinearVariance())
        self.steps = steps or self.schedule.steps
        self.blocks = _Equal(sizes) if isinstance(sizes, int) else _Packed(sizes)

    def extra_repr(self) -> str:
        return f"sizes={self.sizes}, kind={self.kind!r}, {self.schedule!r}"

    # ---- forward

    def prior(
        self,
        shape: tuple[int, ...],
        t: Tensor | None = None,
        rows: Rows | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        return self._noise(torch.empty(shape, device=device, dtype=torch.long))

    def diffuse(
        self, x_s: Tensor, t: Tensor, s: Tensor | None = None, rows: Rows | None = None
    ) -> tuple[Tensor, Tensor]:
        kept = self._kept(t, x_s, rows)
        if s is not None:
            kept = kept / self._kept(s, x_s, rows)
        noise = self._noise(x_s)
        lost = self._chosen(1 - kept, ~self._masked(x_s), rows)
        return torch.where(lost, noise, x_s), noise

    # ---- what the network says

    def estimate(self, output: Tensor, x_t: Tensor, t: Tensor, rows: Rows | None = None) -> Tensor:
        """The probabilities of x0; an entry that is not masked is its own value for sure."""
        probabilities = self.blocks.log_softmax(output).exp()
        if self.kind == "uniform":
            return probabilities
        seen = self.blocks.one_hot(x_t, probabilities)
        return torch.where(self.blocks.spread(self._masked(x_t)), probabilities, seen)

    def guess(self, estimate: Tensor, x_t: Tensor, t: Tensor, rows: Rows | None = None) -> Tensor:
        """The most probable codes."""
        return self.blocks.best(estimate)

    def loss(
        self,
        output: Tensor,
        x0: Tensor,
        x_t: Tensor,
        noise: Tensor,
        t: Tensor,
        rows: Rows | None = None,
        weight: Weight | None = None,
        keep: Tensor | None = None,
    ) -> Tensor:
        """Mean over the entries, in nats."""
        if self.objective == "kl":
            s = (t - 1 / self.steps).clamp(min=0)
            estimate = self.estimate(output, x_t, t, rows)
            return self.steps * mean(self._kl(x0, x_t, estimate, t, s, rows), rows, keep)
        entropy = -self.blocks.gather(self.blocks.log_softmax(output), x0)
        if self.kind == "uniform":
            return mean(entropy, rows, keep)
        if self.even:
            counted = self._masked(x_t) if keep is None else self._masked(x_t) & keep
            return mean(entropy, rows, counted)
        # -d(alpha^2)/dt / sigma^2 is the bound's weight of a masked entry; 1 / t for the default schedule.
        h = 1e-3
        later, earlier = (t + h).clamp(max=1), (t - h).clamp(min=0)
        slope = (self.schedule(earlier)[0] ** 2 - self.schedule(later)[0] ** 2) / (later - earlier)
        masked = torch.where(self._masked(x_t), entropy, torch.zeros_like(entropy))
        return slope / self.schedule(t)[1] ** 2 * mean(masked, rows, keep)

    # ---- backward

    def step(
        self,
        x_t: Tensor,
        estimate: Tensor,
        t: Tensor,
        s: Tensor,
        eta: float = 1.0,
        rows: Rows | None = None,
        variance: str = "small",
        temperature: float = 1.0,
    ) -> Tensor:
        """With eta 1 ancestral; with eta 0 an entry stays as it is as often as its law allows (Song et al. 2021, appendix A)."""
        if temperature != 1:
            estimate = self.blocks.softmax(estimate.clamp(min=1e-20).log() / max(temperature, 1e-6))
        moves = 1 - (1 - self._kept(s, x_t, rows)) / (1 - self._kept(t, x_t, rows))
        if self.kind == "absorbing":
            return torch.where(self._chosen(moves, self._masked(x_t), rows), self.blocks.sample(estimate), x_t)
        ancestral = x_t if eta == 0 else self.blocks.sample(self._reverse(x_t, estimate, t, s, rows))
        if eta == 1:
            return ancestral
        chosen = self._chosen(moves, torch.ones_like(x_t, dtype=torch.bool), rows)
        plain = torch.where(chosen, self.blocks.sample(estimate), x_t)
        return torch.where(torch.rand(x_t.shape, device=x_t.device) < eta, ancestral, plain)

    def _reverse(self, x_t: Tensor, estimate: Tensor, t: Tensor, s: Tensor, rows: Rows | None) -> Tensor:
        """p(x_s | x_t) = sum over x0 of p(x0 | x_t) q(x_s | x_t, x0), for uniform noise, up to rounding normalised.

        q(x_s | x_t, x0) = q(x_t | x_s) q(x_s | x0) / q(x_t | x0) has one form for all values but the present one, so that little is
        computed for every level: p(x0 | x_t) / q(x_t | x0), summed over x0, follows from the entry of the present value.
        """
        kept_t, kept_s, size = self._kept(t, x_t, rows), self._kept(s, x_t, rows), self.blocks.entry_sizes(x_t)
        lost, on = (1 - kept_t).clamp(min=1e-20), kept_t / kept_s
        here = self.blocks.gather(estimate, x_t)
        odds = here / (kept_t + lost / size)
        anew = (1 - kept_s) / size * (odds + (1 - here) * size / lost)  # by way of another value at s
        away, stay = (1 - on) / size * anew, (on + (1 - on) / size) * (kept_s * odds + anew)
        factor = ((1 - on) * kept_s / lost).expand(x_t.shape)
        away, stay, factor = (entries.to(estimate.dtype) for entries in (away, stay, factor))
        return self.blocks.put(torch.addcmul(self.blocks.spread(away), self.blocks.spread(factor), estimate), x_t, stay)

    # ---- the bound

    def _kl(self, x0: Tensor, x_t: Tensor, estimate: Tensor, t: Tensor, s: Tensor, rows: Rows | None) -> Tensor:
        """The KL per entry; at s = 0 it is -log p(x0 | x_t)."""
        truth = self.blocks.one_hot(x0, estimate)
        if self.kind == "absorbing":
            kept_t, kept_s = self._kept(t, x0, rows), self._kept(s, x0, rows)
            chance = (kept_s - kept_t) / (1 - kept_t)
            surprise = -self.blocks.gather(estimate, x0).clamp(min=1e-20).log()
            return torch.where(self._masked(x_t), chance * surprise, torch.zeros_like(surprise))
        q, p = self._reverse(x_t, truth, t, s, rows), self._reverse(x_t, estimate, t, s, rows)
        return self.blocks.sum(torch.xlogy(q, q) - q * p.clamp(min=1e-20).log())

    def kl(self, x0: Tensor, x_t: Tensor, estimate: Tensor, t: Tensor, s: Tensor, rows: Rows | None = None) -> Tensor:
        return total(self._kl(x0, x_t, estimate, t, s, rows), rows)

    def prior_kl(self, x0: Tensor, rows: Rows | None = None) -> Tensor:
        kept = self._kept(torch.ones((), device=x0.device), x0, rows).expand(x0.shape)
        if self.kind == "absorbing":
            # What is left unmasked at t = 1 has no place in the prior: its surprise is counted, not its (infinite) KL.
            return total(kept * self.blocks.entry_sizes(x0).log(), rows)
        size = self.blocks.entry_sizes(x0)
        same, other = kept + (1 - kept) / size, (1 - kept) / size
        return total(torch.xlogy(same, same * size) + (size - 1) * torch.xlogy(other, other * size), rows)

    def reconstruction(
        self, x0: Tensor, x_t: Tensor, estimate: Tensor, t: Tensor, rows: Rows | None = None, bin: float | None = None
    ) -> Tensor:
        return self.kl(x0, x_t, estimate, t, torch.zeros_like(t), rows)

    def dimensions(self, x: Tensor, rows: Rows | None = None) -> Tensor:
        return total(torch.ones(x.shape, device=x.device), rows)

    # ---- arithmetic

    def _kept(self, t: Tensor, like: Tensor, rows: Rows | None) -> Tensor:
        return spread(self.schedule(t)[0] ** 2, like, rows)

    def _masked(self, x: Tensor) -> Tensor:
        return x == self.blocks.entry_sizes(x).long()

    def _chosen(self, chance: Tensor, among: Tensor, rows: Rows | None) -> Tensor:
        """Which of the entries marked in `among` are chosen, each with this chance; `even`: nearly as many in each sample."""
        draws = torch.rand(among.shape, device=among.device)
        if not self.even or rows is not None:
            return among & (draws < chance)
        among_, draws = among.flatten(1), draws.flatten(1)
        count = (chance.expand(among.shape).flatten(1)[:, :1] * among_.sum(1, keepdim=True)).double()
        count = (count + torch.rand(len(count), 1, device=count.device)).floor()
        place = draws.masked_fill(~among_, 2.0).argsort(1).argsort(1)
        return (among_ & (place < count)).view(among.shape)

    def _noise(self, like: Tensor) -> Tensor:
        size = self.blocks.entry_sizes(like)
        if self.kind == "absorbing":
            return size.long().expand(like.shape).clone()
        # The product can round up to the size itself.
        return torch.minimum((torch.rand(like.shape, device=like.device) * size).long(), size.long() - 1)


class _Equal:
    """Blocks of one size S: probabilities of shape (..., S)."""

    def __init__(self, size: int) -> None:
        self._size = size

    def entry_sizes(self, codes: Tensor) -> Tensor:
        return torch.tensor(float(self._size), device=codes.device)

    def spread(self, entries: Tensor) -> Tensor:
        return entries.unsqueeze(-1) if entries.ndim else entries

    def sum(self, blocks: Tensor) -> Tensor:
        return blocks.sum(-1)

    def softmax(self, blocks: Tensor) -> Tensor:
        return blocks.softmax(-1)

    def log_softmax(self, blocks: Tensor) -> Tensor:
        return blocks.log_softmax(-1)

    def one_hot(self, codes: Tensor, like: Tensor) -> Tensor:
        """One-hot in the dtype of `like`; a mask is all zeros."""
        return F.one_hot(codes, self._size + 1)[..., :-1].to(like.dtype)

    def gather(self, blocks: Tensor, codes: Tensor) -> Tensor:
        return blocks.gather(-1, codes.unsqueeze(-1)).squeeze(-1)

    def put(self, blocks: Tensor, codes: Tensor, values: Tensor) -> Tensor:
        return blocks.scatter(-1, codes.unsqueeze(-1), values.unsqueeze(-1))

    def best(self, blocks: Tensor) -> Tensor:
        return blocks.argmax(-1)

    def sample(self, probabilities: Tensor) -> Tensor:
        return self.best(probabilities.log() + _gumbel(probabilities))


class _Packed:
    """Blocks of different sizes, one after another: probabilities of shape (B, sum(sizes))."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = torch.tensor(sizes, dtype=torch.long)
        self._first = torch.cat([self._sizes.new_zeros(1), self._sizes.cumsum(0)[:-1]]) if len(sizes) else self._sizes
        self._entry = torch.repeat_interleave(torch.arange(len(sizes)), self._sizes)
        self._code = torch.arange(len(self._entry)) - self._first[self._entry]
        self._index: dict[torch.device, tuple[Tensor, ...]] = {}

    def _on(self, device: torch.device) -> tuple[Tensor, ...]:
        """(sizes, first, entry, code) on this device."""
        if device not in self._index:
            self._index[device] = tuple(x.to(device) for x in (self._sizes, self._first, self._entry, self._code))
        return self._index[device]

    def entry_sizes(self, codes: Tensor) -> Tensor:
        return self._on(codes.device)[0].float()

    def spread(self, entries: Tensor) -> Tensor:
        if entries.ndim == 0 or entries.shape[-1] == 1:
            return entries
        return entries.index_select(1, self._on(entries.device)[2])

    def sum(self, blocks: Tensor) -> Tensor:
        sizes, _, entry, _ = self._on(blocks.device)
        return blocks.new_zeros(len(blocks), len(sizes)).index_add_(1, entry, blocks)

    def _max(self, blocks: Tensor) -> Tensor:
        sizes, _, entry, _ = self._on(blocks.device)
        start = blocks.new_full((len(blocks), len(sizes)), -math.inf)
        return start.scatter_reduce(1, entry.expand(blocks.shape), blocks, "amax")

    def log_softmax(self, blocks: Tensor) -> Tensor:
        blocks = blocks - self.spread(self._max(blocks.detach()))
        return blocks - self.spread(self.sum(blocks.exp()).log())

    def softmax(self, blocks: Tensor) -> Tensor:
        return self.log_softmax(blocks).exp()

    def one_hot(self, codes: Tensor, like: Tensor) -> Tensor:
        return (self.spread(codes) == self._on(codes.device)[3]).to(like.dtype)

    def gather(self, blocks: Tensor, codes: Tensor) -> Tensor:
        return blocks.gather(1, self._on(codes.device)[1] + codes)

    def put(self, blocks: Tensor, codes: Tensor, values: Tensor) -> Tensor:
        return blocks.scatter(1, self._on(codes.device)[1] + codes, values)

    def best(self, blocks: Tensor) -> Tensor:
        sizes, _, entry, code = self._on(blocks.device)
        highest = blocks == self.spread(self._max(blocks))
        codes = sizes.expand(len(blocks), -1) - 1
        return codes.scatter_reduce(1, entry.expand(blocks.shape), torch.where(highest, code, sizes[entry] - 1), "amin")

    def sample(self, probabilities: Tensor) -> Tensor:
        """Where a uniform draw falls among the running sums: one pass over the levels, one search for each entry."""
        sizes, first, _, _ = self._on(probabilities.device)
        # In float32 the sums of many blocks would swallow rare levels.
        sums = F.pad(probabilities.to(_exact(probabilities.device)).cumsum(1), (1, 0))
        low, high = sums[:, first], sums[:, first + sizes]
        drawn = torch.rand(low.shape, dtype=sums.dtype, device=sums.device)
        found = torch.searchsorted(sums[:, 1:].contiguous(), low + drawn * (high - low), right=True) - first
        return torch.minimum(found.clamp(min=0), sizes - 1)


def _exact(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64  # which Apple's GPUs do not have


def _gumbel(like: Tensor) -> Tensor:
    return -torch.empty_like(like).exponential_().log()
