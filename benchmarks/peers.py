"""The U-Nets that are compared, at one shape and nearly one number of parameters, each used as its own users would.

Losses and samplers are those of each library, as its documentation shows them; layout and optimiser are left to the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionkit.core import DDIM, Diffusion, Gaussian, Linear
from diffusionkit.image.backbones.unet import UNet


@dataclass(frozen=True)
class Case:
    """Pictures and a U-Net for them."""

    name: str
    shape: tuple[int, int, int]
    batch: int
    channels: int
    multipliers: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]


@dataclass
class Contestant:
    """A network with its own library's way of training and sampling; `sample` takes `steps` steps."""

    network: nn.Module
    loss: Callable[[Tensor], Tensor]
    sample: Callable[[int], Tensor]


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def unet(case: Case) -> UNet:
    return UNet(
        shape=case.shape,
        channels=case.channels,
        multipliers=case.multipliers,
        blocks=case.blocks,
        attention=case.attention,
        dropout=0.0,
    )


def ours(case: Case) -> Contestant:
    network = unet(case)
    diffusion = Diffusion(network, Gaussian(Linear(), predict="eps"))
    return Contestant(
        network,
        lambda x: diffusion.loss(x).mean(),
        lambda steps: DDIM(steps)(diffusion, like=(case.batch, *case.shape)),
    )


def diffusers(case: Case) -> Contestant:
    """UNet2DModel with the same levels, blocks, attention (one head) and AdaGN; loss and loop as in its documentation."""
    from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel

    attends = [case.shape[1] // 2**level in case.attention for level in range(len(case.multipliers))]
    network = UNet2DModel(
        sample_size=case.shape[1],
        in_channels=case.shape[0],
        out_channels=case.shape[0],
        layers_per_block=case.blocks,
        block_out_channels=tuple(case.channels * m for m in case.multipliers),
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
        attention_head_dim=None,
        norm_num_groups=min(32, case.channels // 4),
        resnet_time_scale_shift="scale_shift",
    )
    train, ddim = DDPMScheduler(), DDIMScheduler()

    def loss(x: Tensor) -> Tensor:
        noise, t = torch.randn_like(x), torch.randint(0, 1000, (len(x),), device=x.device)
        return F.mse_loss(network(train.add_noise(x, noise, t), t, return_dict=False)[0], noise)

    @torch.no_grad()
    def sample(steps: int) -> Tensor:
        ddim.set_timesteps(steps)
        x = torch.randn(case.batch, *case.shape, device=network.device)
        for t in ddim.timesteps:
            x = ddim.step(network(x, t).sample, t, x).prev_sample
        return x

    return Contestant(network, loss, sample)


def denoising_diffusion_pytorch(case: Case) -> Contestant:
    """Unet, which has no choice of blocks or attention, in the width whose number of parameters is nearest to ours."""
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet
    from denoising_diffusion_pytorch import denoising_diffusion_pytorch as module

    module.tqdm = lambda steps, **_: steps  # its bar is not what is measured

    def build(width: int) -> Any:
        return Unet(dim=width, dim_mults=case.multipliers, channels=case.shape[0])

    with torch.device("meta"):
        goal = parameters(unet(case))
        width = min(range(4, 4 * case.channels, 2), key=lambda width: abs(parameters(build(width)) - goal))
    network = build(width)
    size = case.shape[1:]
    diffusion = GaussianDiffusion(network, image_size=size, objective="pred_noise", beta_schedule="linear")

    def sample(steps: int) -> Tensor:
        diffusion.sampling_timesteps = steps
        return diffusion.ddim_sample((case.batch, *case.shape))

    return Contestant(network, lambda x: diffusion((x + 1) / 2), sample)


PEERS: dict[str, Callable[[Case], Contestant]] = {
    "diffusers": diffusers,
    "denoising-diffusion-pytorch": denoising_diffusion_pytorch,
}
