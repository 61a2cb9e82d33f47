"""Entries that are missing from the data (NaN where a mask gives them) count neither in losses nor in gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from diffusionkit.core import DDIM, DDPM, Diffusion, Gaussian, Heun
from diffusionkit.core.objectives import EDMWeighting, MinSNR, Simple


class Shown(nn.Module):
    """Sees zeros where entries are missing, and that they are."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mix = nn.Linear(13, 6)

    @staticmethod
    def masks(x0, rows=None):
        return x0.isnan()

    def forward(self, x, t, cond=None, given=None):
        absent = x.isnan()
        return self.mix(torch.cat([x.nan_to_num(0.0), absent.to(x.dtype), t[:, None]], 1))


def run(diffusion: Diffusion, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    diffusion.zero_grad()
    loss = diffusion.loss(x)
    loss.sum().backward()
    return loss.detach(), torch.cat([p.grad.flatten() for p in diffusion.parameters()])


@pytest.mark.parametrize("objective", [Simple, MinSNR, EDMWeighting])
@pytest.mark.parametrize("predict", ["eps", "x0", "v", "flow"])
def test_the_loss_is_the_mean_over_what_is_there(predict, objective):
    diffusion = Diffusion(Shown(), Gaussian(predict=predict), objective())
    x = torch.randn(5, 6)
    x[0, :2] = x[1, 3] = x[2] = torch.nan
    loss, gradient = run(diffusion, x)
    assert loss.isfinite().all() and gradient.isfinite().all() and gradient.abs().sum() > 0
    assert loss[2] == 0 and (loss[[0, 1, 3, 4]] > 0).all()
    # gradients of a sample without values are zero
    only = x.clone()
    only[[0, 1, 3, 4]] = torch.nan
    assert run(diffusion, only)[1].abs().sum() == 0
    # the error of an output at a missing entry costs nothing
    before = loss
    with torch.no_grad():
        diffusion.network.mix.bias[:2] += 100.0
    after = run(diffusion, x)[0]
    assert torch.allclose(after[0], before[0]) and (after[[1, 3, 4]] > before[[1, 3, 4]]).all()


def test_data_without_gaps_lose_nothing_by_the_mask():
    network = Shown()
    plain = Diffusion(network, Gaussian())
    plain.masks = None
    x = torch.randn(5, 6)
    assert torch.allclose(run(Diffusion(network, Gaussian()), x)[0], run(plain, x)[0])


@pytest.mark.parametrize("sampler", [DDIM(5), DDPM(5), Heun(5)])
def test_given_gaps_stay_gaps_and_leave_the_rest_finite(sampler):
    known = torch.randn(3, 6)
    known[:, 1] = torch.nan
    given = torch.tensor([True, True, False, False, True, False]).expand(3, 6)
    x = sampler(Diffusion(Shown(), Gaussian()), like=(3, 6), given=given, known=known)
    assert torch.equal(x[:, [0, 4]], known[:, [0, 4]]) and x[:, 1].isnan().all() and x[:, [2, 3, 5]].isfinite().all()
