"""The autoencoder with a normal posterior of Rombach et al. 2022: pictures to small latents and back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffusionkit.image.backbones.layers import Block, Down, SpatialAttention, UpConv, conv, group_norm, silu
from diffusionkit.image.backbones.norm import settle

_LOGVAR = (-30.0, 20.0)  # a standard deviation beyond these is none
_EPS = 1e-6  # of the normalisations, as in the published weights


class Autoencoder(nn.Module):
    """A residual encoder and decoder with attention at the lowest level (Rombach et al. 2022, appendix G).

    The defaults are KL-f4, 55.3 million parameters; with multipliers (1, 2, 4, 4) and 4 latent channels it is the KL-f8 of
    Stable Diffusion, 83.7 million. It is trained by the objective `reconstruction`, not as a denoiser.

    Args:
        shape: channels, height and width of the pictures.
        channels: width of the first level.
        multipliers: width of each level, in units of `channels`; each further level has half the size, so that n levels
            make latents smaller by a factor of 2^(n-1).
        blocks: residual blocks per level of the encoder; the decoder has one more.
        latent: channels of the latents.
        attention: sizes (height or width of a level, in pixels) at which self-attention follows each block, besides the one
            in the middle.
        dropout: share of features left out in training, in each block.
        groups: number of groups of all normalisations; by default as many as divide the channels, at most 32, each of at least 4.
        channels_last: compute in channels-last layout.

    Raises:
        ValueError: for impossible values.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, int, int] = (3, 32, 32),
        channels: int = 128,
        multipliers: tuple[int, ...] = (1, 2, 4),
        blocks: int = 2,
        latent: int = 3,
        attention: tuple[int, ...] = (),
        dropout: float = 0.0,
        groups: int | None = None,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        for name, value in {"channels": channels, "blocks": blocks, "latent": latent}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if not multipliers or min(multipliers) < 1:
            raise ValueError(f"multipliers must be one or more positive integers, not {list(multipliers)}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), not {dropout:g}")
        self.factor = 2 ** (len(multipliers) - 1)
        if any(side % self.factor for side in shape[1:]):
            size = f"{shape[1]}x{shape[2]}"
            raise ValueError(
                f"multipliers have {len(multipliers)} levels, whose factor {self.factor} does not divide pictures of {size}"
            )
        self.shape = tuple(shape)
        self.latent_shape = (latent, shape[1] // self.factor, shape[2] // self.factor)
        self.channels_last = channels_last
        widths = [channels * m for m in multipliers]
        attend = [any(side // 2**level in attention for side in shape[1:]) for level in range(len(widths))]
        self.encoder = _encoder(shape[0], widths, blocks, attend, dropout)
        self.moments = nn.Sequential(conv(widths[-1], 2 * latent), conv(2 * latent, 2 * latent, 1))
        self.open = nn.Sequential(conv(latent, latent, 1), conv(latent, widths[-1]))
        self.decoder = _decoder(shape[0], widths, blocks, attend, dropout)
        settle(self, groups, _EPS)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (B, C, H, W) in [-1, 1] -> mean and log-variance (B, latent, H / factor, W / factor) of the posterior."""
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        mean, logvar = self.moments(self.encoder(x)).chunk(2, 1)
        return mean.contiguous(), logvar.clamp(*_LOGVAR).contiguous()

    def decode(self, z: Tensor) -> Tensor:
        """Latents (B, latent, H / factor, W / factor) -> pictures (B, C, H, W), about in [-1, 1]."""
        h = self.open(z)
        if self.channels_last:
            h = h.contiguous(memory_format=torch.channels_last)
        return self.decoder(h).contiguous()

    @property
    def last(self) -> Tensor:
        """The weight of the decoder's last layer, which all gradients of its pictures pass through."""
        return self.decoder[-1].weight

    def forward(self, x: Tensor, noise: Tensor | None = None, cond: None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures (B, C, H, W) -> pictures decoded, mean and log-variance.

        Args:
            noise: of the latents' shape, with which a latent is drawn from the posterior; by default its mean is decoded.

        Raises:
            ValueError: if it is called as a denoiser.
        """
        if noise is not None and noise.ndim != x.ndim:  # the times of a denoiser
            raise ValueError("the backbone autoencoder does not denoise: it is trained by the objective reconstruction")
        mean, logvar = self.encode(x)
        z = mean if noise is None else torch.addcmul(mean, (logvar / 2).exp(), noise)
        return self.decode(z), mean, logvar


class Activate(nn.Module):
    """Normalisation and SiLU before a last convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = group_norm(width)

    def forward(self, x: Tensor) -> Tensor:
        return silu(self.norm(x))


def _encoder(inputs: int, widths: list[int], blocks: int, attend: list[bool], dropout: float) -> nn.Sequential:
    """Pictures -> features of the lowest level."""
    layers: list[nn.Module] = [conv(inputs, widths[0])]
    width = widths[0]
    for level, wanted in enumerate(widths):
        for _ in range(blocks):
            layers += _stage(width, wanted, attend[level], dropout)
            width = wanted
        if level + 1 < len(widths):
            layers.append(Down(width))
    return nn.Sequential(*layers, *_middle(width, dropout), Activate(width))


def _decoder(outputs: int, widths: list[int], blocks: int, attend: list[bool], dropout: float) -> nn.Sequential:
    """Features of the lowest level -> pictures."""
    width = widths[-1]
    layers = _middle(width, dropout)
    for level in reversed(range(len(widths))):
        for _ in range(blocks + 1):
            layers += _stage(width, widths[level], attend[level], dropout)
            width = widths[level]
        if level:
            layers.append(UpConv(width, width))
    return nn.Sequential(*layers, Activate(width), conv(width, outputs))


def _stage(inputs: int, outputs: int, attend: bool, dropout: float) -> list[nn.Module]:
    return [Block(inputs, outputs, dropout), *([SpatialAttention(outputs)] if attend else [])]


def _middle(width: int, dropout: float) -> list[nn.Module]:
    return [Block(width, width, dropout), SpatialAttention(width), Block(width, width, dropout)]


__all__ = ["Autoencoder"]
