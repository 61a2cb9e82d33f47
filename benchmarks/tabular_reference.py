"""The sampler of TabDDPM (Kotelnikov et al. 2023, arXiv 2209.15421), written from its equations with a loop over the columns.

Categories are logarithms of one-hot codes throughout, and each column has its own softmax, posterior, draw and one-hot code, one
after the other: multinomial diffusion (Hoogeboom et al. 2021, section 4) as the paper describes it. The numbers are one block.
Here to be compared with: `diffusionkit` does the same for all columns at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusionkit.tabular.backbones.tabddpm import TabDDPM

Predict = Callable[[Tensor, Tensor], Tensor]
"""(B, numbers + sum(sizes)) entries and (B,) steps from 0 to (B, numbers + sum(sizes)): noise, and logits of x0."""

_TINY = 1e-30


def log_one_hot(codes: Tensor, size: int) -> Tensor:
    """(B,) -> (B, size): 0, and log 1e-30 for the levels not taken."""
    return F.one_hot(codes, size).float().clamp(min=_TINY).log()


def posterior(log_x0: Tensor, log_x: Tensor, step: int, alpha_bar: Tensor) -> Tensor:
    """log q(x_{t-1} | x_t, x0) of one column (B, K), with the probabilities of x0 in the place of x0.

    Args:
        log_x0: logarithms of the probabilities of x0.
        log_x: logarithms of the one-hot code of x_t.
        step: t counted from 0.
        alpha_bar: (T,) products of the alphas, in float64.
    """
    size = log_x.shape[1]
    before = alpha_bar[step - 1] if step else torch.ones_like(alpha_bar[0])
    kept = alpha_bar[step] / before
    onward = torch.logaddexp(log_x + kept.log().float(), ((1 - kept) / size).log().float())
    if step:
        log_x0 = torch.logaddexp(log_x0 + before.log().float(), ((1 - before) / size).log().float())
    joint = onward + log_x0
    return joint - joint.logsumexp(1, keepdim=True)


def draw(log_chances: Tensor) -> Tensor:
    """(B, K) -> (B,) by Gumbel noise."""
    uniform = torch.rand_like(log_chances)
    return (log_chances - (-(uniform + _TINY).log() + _TINY).log()).argmax(1)


def gaussian(x: Tensor, noise: Tensor, step: int, alpha_bar: Tensor) -> Tensor:
    """x_{t-1} of the numbers (B, D) given x_t and the predicted noise, with the variance beta_t; nothing is drawn at the end."""
    before = alpha_bar[step - 1] if step else torch.ones_like(alpha_bar[0])
    here = alpha_bar[step]
    beta = 1 - here / before
    x0 = (x - (1 - here).sqrt().float() * noise) / here.sqrt().float()
    mean = (before.sqrt() * beta / (1 - here)).float() * x0
    mean = mean + ((here / before).sqrt() * (1 - before) / (1 - here)).float() * x
    fresh = torch.randn_like(x)
    return mean + beta.sqrt().float() * fresh if step else mean


@torch.no_grad()
def sample(predict: Predict, alpha_bar: Tensor, numbers: int, sizes: Sequence[int], n: int) -> tuple[Tensor, Tensor]:
    """Ancestral sampling over all T steps.

    Args:
        predict: the network.
        alpha_bar: (T,) float64.
        numbers: how many numbers there are.
        sizes: levels of each column of categories.
        n: how many rows to draw.

    Returns:
        The numbers (n, numbers) and the codes (n, len(sizes)).
    """
    blocks = [slice(end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True)]
    x = torch.randn(n, numbers)
    z = [log_one_hot(draw(torch.zeros(n, size)), size) for size in sizes]
    for step in reversed(range(len(alpha_bar))):
        output = predict(torch.cat([x, *z], 1), torch.full((n,), step))
        x = gaussian(x, output[:, :numbers], step, alpha_bar)
        logits = output[:, numbers:]
        for k, block in enumerate(blocks):
            chances = posterior(logits[:, block].log_softmax(1), z[k], step, alpha_bar)
            z[k] = log_one_hot(draw(chances), sizes[k])
    codes = [log_code.argmax(1) for log_code in z]
    return x, torch.stack(codes, 1) if codes else torch.empty(n, 0, dtype=torch.long)


def dense(network: TabDDPM, classes: Tensor | None = None) -> Predict:
    """A `TabDDPM` as the reference calls it: the logarithms of all one-hot codes pass through one linear layer.

    Args:
        network: whose weights are used.
        classes: (B,) the class of each row, for a network that has one.
    """

    def predict(entries: Tensor, step: Tensor) -> Tensor:
        h = network.entry(entries) + network.time(step.float() / 1000)
        if network.classes is not None:
            h = h + F.silu(network.classes(classes))
        return network.head(network.layers(h))

    return predict
