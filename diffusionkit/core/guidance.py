"""Guidance wraps a diffusion into a diffusion: what it returns is called, and sampled, like what it was given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from diffusionkit.core.processes import Process
from diffusionkit.core.rows import batch_size, repeat_rows
from diffusionkit.core.state import tree_cat, tree_leaves, tree_map


class Guided(nn.Module):
    """A diffusion around another one; as it stands it changes nothing."""

    raw = True
    """Whether it acts on raw outputs; what acts on estimates goes around it."""

    def __init__(self, diffusion: nn.Module) -> None:
        super().__init__()
        if self.raw and not getattr(diffusion, "raw", True):
            raise ValueError(
                f"{type(diffusion).__name__} acts on estimates: wrap it around {type(self).__name__}, not the other way round"
            )
        self.diffusion = diffusion
        self.training = diffusion.training  # a sampler that is through puts back the mode that it has found here

    @property
    def process(self) -> Process:
        return self.diffusion.process  # type: ignore[return-value]

    @property
    def masks(self) -> Any:
        return self.diffusion.masks

    def null(self, cond: Any, drop: Tensor) -> Any:
        return self.diffusion.null(cond, drop)  # type: ignore[operator]

    def forward(self, x_t: Any, t: Tensor, cond: Any = None, rows: Any = None, given: Any = None) -> Any:
        return self.diffusion(x_t, t, cond, rows, given)

    def estimate(self, x_t: Any, t: Tensor, cond: Any = None, rows: Any = None, given: Any = None) -> Any:
        return self.process.estimate(self(x_t, t, cond, rows, given), x_t, t, rows)


class ClassifierFree(Guided):
    """output = null + scale (conditional - null), both in one batch (Ho & Salimans 2022): 1 is conditional, 0 unconditional.

    It acts on raw outputs, which is right in every space: eps, x0 and v agree, logits mix log-probabilities, scores add.
    Without a condition it is the given parts of the state, shown by a mask, that guide: null is the output where they are
    hidden, as noisy as the rest and not marked.

    Args:
        diffusion: trained with an objective whose `drop` is above 0, or with masks that leave some samples without.
        scale: the paper's 1 + w.
        interval: guide only at times within it (Kynkaanniemi et al. 2024); outside, the conditional output alone is computed.
        rescale: how far the output's standard deviation is brought back to the conditional one's (Lin et al. 2024, eq. 16).
    """

    def __init__(
        self, diffusion: nn.Module, scale: float, interval: tuple[float, float] = (0.0, 1.0), rescale: float = 0.0
    ) -> None:
        super().__init__(diffusion)
        if not interval[0] < interval[1]:
            raise ValueError(f"interval must rise, not run from {interval[0]:g} to {interval[1]:g}")
        self.scale, self.interval, self.rescale = scale, interval, rescale

    def forward(self, x_t: Any, t: Tensor, cond: Any = None, rows: Any = None, given: Any = None) -> Any:
        inside = (t >= self.interval[0]) & (t <= self.interval[1])
        if (cond is None and given is None) or self.scale == 1 or not inside.any():
            return self.diffusion(x_t, t, cond, rows, given)
        hidden, bare, unmarked = x_t, cond, given
        if cond is not None:
            device = tree_leaves(x_t)[0].device
            bare = self.null(cond, torch.ones(batch_size(x_t, rows), dtype=torch.bool, device=device))
        else:
            hidden = tree_map(torch.where, given, self.process.diffuse(x_t, t, rows=rows)[0], x_t)
            unmarked = tree_map(torch.zeros_like, given)
        both = self.diffusion(
            tree_cat([x_t, hidden]),
            torch.cat([t, t]) if t.ndim else t,
            None if cond is None else tree_cat([cond, bare]),
            repeat_rows(rows, 2),
            None if given is None else tree_cat([given, unmarked]),
        )
        conditional, null = (tree_map(lambda leaf, k=k: leaf.chunk(2)[k], both) for k in range(2))
        return self.process.blend(conditional, null, lambda a, b: self._mix(a, b, inside))

    def _mix(self, conditional: Tensor, null: Tensor, inside: Tensor) -> Tensor:
        output = torch.lerp(null, conditional, self.scale)
        if self.rescale:
            dims = tuple(range(1, output.ndim))
            ratio = conditional.std(dims, keepdim=True) / output.std(dims, keepdim=True)
            output = output * torch.lerp(torch.ones_like(ratio), ratio, self.rescale)
        if inside.ndim and not inside.all():
            if len(inside) != len(output):
                raise ValueError("an interval of guidance needs one time for all samples of a ragged batch")
            output = torch.where(inside.reshape(-1, *[1] * (output.ndim - 1)), output, conditional)
        return output


class GradientGuidance(Guided):
    """The score plus scale times the gradient of a log-probability of the noised state (Dhariwal & Nichol 2021).

    Args:
        diffusion: conditional or not.
        log_prob: `log_prob(x_t, t, cond) -> (B,)`, differentiable in x_t; see `class_log_prob`.
        scale: how strongly to follow it; 1 is Bayes' rule.
    """

    def __init__(
        self, diffusion: nn.Module, log_prob: Callable[[Any, Tensor, Any], Tensor], scale: float = 1.0
    ) -> None:
        super().__init__(diffusion)
        self.log_prob, self.scale = log_prob, scale

    def forward(self, x_t: Any, t: Tensor, cond: Any = None, rows: Any = None, given: Any = None) -> Any:
        output = self.diffusion(x_t, t, cond, rows, given)
        with torch.enable_grad():
            x = tree_map(lambda leaf: leaf.detach().requires_grad_() if leaf.is_floating_point() else leaf, x_t)
            value = self.log_prob(x, t, cond).sum() * self.scale
            wanted = [leaf for leaf in tree_leaves(x) if leaf.requires_grad]
            if not wanted:
                raise ValueError("codes have no gradient to be guided by: use classifier-free guidance")
            found = iter(torch.autograd.grad(value, wanted, allow_unused=True))
        gradient = tree_map(lambda leaf: next(found) if leaf.requires_grad else None, x)
        return self.process.guide(output, x_t, t, gradient, rows)


def class_log_prob(classifier: nn.Module, label: str = "class") -> Callable[[Any, Tensor, Any], Tensor]:
    """log p(class | x_t) of a diffusion trained with the objective `NoisyClassifier`; the class is `cond[label]` (B,)."""

    def log_prob(x_t: Any, t: Tensor, cond: Any) -> Tensor:
        logits = classifier(x_t, t)
        return logits.log_softmax(-1).gather(1, cond[label][:, None])[:, 0]

    return log_prob


class Threshold(Guided):
    """Estimates of x0 brought back to the data's range.

    Static: clipped to [-limit, limit] (Ho et al. 2020). Dynamic, with a quantile such as .995: each sample is clipped to that
    quantile of its |x0| where it exceeds the limit, and scaled back to the limit (Saharia et al. 2022, Imagen, section 2.3).
    """

    raw = False

    def __init__(self, diffusion: nn.Module, limit: float = 1.0, quantile: float | None = None) -> None:
        super().__init__(diffusion)
        if not limit > 0:
            raise ValueError(f"limit must be above 0, not {limit:g}")
        if quantile is not None and not 0 < quantile < 1:
            raise ValueError(f"quantile must lie between 0 and 1, not {quantile:g}")
        self.limit, self.quantile = limit, quantile

    def estimate(self, x_t: Any, t: Tensor, cond: Any = None, rows: Any = None, given: Any = None) -> Any:
        return self.process.clip(self.diffusion.estimate(x_t, t, cond, rows, given), self._clip)  # type: ignore[operator]

    def _clip(self, x0: Tensor) -> Tensor:
        if self.quantile is None:
            return x0.clamp(-self.limit, self.limit)
        bound = torch.quantile(x0.abs().flatten(1), self.quantile, dim=1).clamp(min=self.limit)
        bound = bound.reshape(-1, *[1] * (x0.ndim - 1))
        return torch.minimum(torch.maximum(x0, -bound), bound) / bound * self.limit


def guided(diffusion: nn.Module, scale: float = 1.0, clip: float | str | None = None) -> nn.Module:
    """A diffusion with classifier-free guidance and a threshold, in the right order.

    Args:
        diffusion: the model.
        scale: of the guidance; 1 leaves it out.
        clip: limit of the threshold; "dynamic" for the quantile of Saharia et al. 2022; None for no threshold.
    """
    if scale != 1:
        diffusion = ClassifierFree(diffusion, scale)
    if clip is None:
        return diffusion
    return Threshold(diffusion, quantile=0.995) if clip == "dynamic" else Threshold(diffusion, float(clip))
