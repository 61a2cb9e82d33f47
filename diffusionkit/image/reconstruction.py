"""The objective of autoencoders: pictures that come back, from latents near a standard normal (Rombach et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from diffusionkit.core import Objective, Process
from diffusionkit.errors import UserError
from diffusionkit.image.backbones.autoencoder import Autoencoder
from diffusionkit.image.backbones.layers import conv, group_norm
from diffusionkit.image.backbones.unet import Stage
from diffusionkit.image.saved import described

Distance = Callable[[Tensor, Tensor], Tensor]
KEY = "objective.perceptual"


class Reconstruction(Objective, nn.Module):
    """Trains an autoencoder: distance of pictures + kl KL(posterior | N(0, 1)) / pixels + what makes them look real.

    The sum is per pixel, so that `kl` weighs as in the published settings, where either term is a sum. In training the
    latent is drawn from the posterior. The discriminator learns in the same step, from the same optimiser: its own loss sees
    pictures whose gradient is cut, the autoencoder's loss sees the discriminator with its weights cut.

    Args:
        distance: of pixels: "absolute" (a Laplace likelihood) or "squared" (a Gaussian one).
        kl: weight of the Kullback-Leibler divergence of the posterior from a standard normal.
        perceptual: what else pictures are compared by: the run of a noisy classifier of the same data, for its features at
            t = 0, or "lpips" for LPIPS with VGG's weights (Zhang et al. 2018), which torchvision fetches.
        perceptual_weight: of that comparison.
        adversarial: weight of a discriminator of patches (Isola et al. 2017) with hinge losses; 0 for none.
        start: batches before the discriminator joins in.
        adaptive: multiply its weight by the ratio of the gradients that the other terms and the discriminator's have at the
            last layer (Esser et al. 2021, eq. 7).
        width: channels of the discriminator's first layer.
        depth: its layers that halve the size.
        shape: channels, height and width of the pictures.

    Raises:
        ValueError: for impossible values.
    """

    use = "as an autoencoder it lends a model its latents: diffusionkit train image/fashion_ldm --autoencoder {run}"

    def __init__(
        self,
        distance: Literal["absolute", "squared"] = "absolute",
        kl: float = 1e-6,
        perceptual: str | None = None,
        perceptual_weight: float = 1.0,
        adversarial: float = 0.0,
        start: int = 0,
        adaptive: bool = True,
        width: int = 64,
        depth: int = 2,
        shape: tuple[int, int, int] = (3, 32, 32),
    ) -> None:
        nn.Module.__init__(self)
        Objective.__init__(self)
        if distance not in ("absolute", "squared"):
            raise ValueError(f"distance must be 'absolute' or 'squared', not {distance!r}")
        weights = {"kl": kl, "perceptual_weight": perceptual_weight, "adversarial": adversarial, "start": start}
        for name, value in weights.items():
            if not value >= 0:
                raise ValueError(f"{name} must not be negative, not {value:g}")
        if width < 1 or depth < 0:
            name, value = ("width", width) if width < 1 else ("depth", depth)
            raise ValueError(f"{name} must be at least {int(name == 'width')}, not {value}")
        self.pixels = F.l1_loss if distance == "absolute" else F.mse_loss
        self.kl, self.perceptual, self.perceptual_weight = kl, perceptual, perceptual_weight
        self.adversarial, self.start, self.adaptive, self.shape = adversarial, start, adaptive, tuple(shape)
        self.discriminator = discriminator(shape[0], width, depth) if adversarial else None
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))  # batches trained on; resumed with the weights
        self._look: Distance | None = None

    def check(self, process: Process) -> None:
        """Any process will do: nothing is diffused."""

    def __call__(self, diffusion: Any, x0: Tensor, cond: Any = None, rows: Any = None) -> Tensor:
        """(B,) losses; out of training those of the pictures and the latents alone."""
        network = diffusion.network
        if not isinstance(network, Autoencoder):
            raise ValueError(
                f"the objective reconstruction trains the backbone autoencoder, not {type(network).__name__}"
            )
        noise = torch.randn(len(x0), *network.latent_shape, device=x0.device, dtype=x0.dtype)
        decoded, mean, logvar = network(x0, noise)
        loss = self.pixels(decoded, x0, reduction="none").flatten(1).mean(1)
        if self.perceptual is not None:
            loss = loss + self.perceptual_weight * self._looks(decoded, x0)
        if self.training:
            self.seen += 1
            if self.discriminator is not None:
                loss = loss + self._contest(loss, decoded, x0, network.last)
        return loss + self.kl / x0[0].numel() * divergence(mean, logvar)

    def _contest(self, loss: Tensor, decoded: Tensor, real: Tensor, last: Tensor) -> Tensor:
        """(B,) what the autoencoder and the discriminator have to pay for each other."""
        judge = self.discriminator
        assert judge is not None
        if self.seen <= self.start:
            return 0 * torch.stack([p.sum() for p in judge.parameters()]).sum()  # DDP asks for every gradient
        of_real, of_decoded = (patches.flatten(1) for patches in judge(torch.cat([real, decoded.detach()])).chunk(2))
        told = (F.relu(1 - of_real).mean(1) + F.relu(1 + of_decoded).mean(1)) / 2
        frozen = {name: p.detach() for name, p in judge.named_parameters()}
        deceit = -functional_call(judge, frozen, (decoded,)).flatten(1).mean(1)
        weight = self.adversarial * (_ratio(loss, deceit, last) if self.adaptive else 1.0)
        return weight * deceit + told

    def _looks(self, a: Tensor, b: Tensor) -> Tensor:
        """(B,) distances of pictures by features of a frozen network, which is no part of the model's weights."""
        if self._look is None:
            assert self.perceptual is not None
            self._look = (
                _lpips(a.device) if self.perceptual == "lpips" else _features(self.perceptual, self.shape, a.device)
            )
        return self._look(a, b)


def divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """(B,) KL(N(mean, exp(logvar)) | N(0, 1)) in nats, summed over all dimensions."""
    return (mean.square() + logvar.exp() - 1 - logvar).flatten(1).sum(1) / 2


def discriminator(channels: int, width: int = 64, depth: int = 2) -> nn.Sequential:
    """Judges overlapping patches: (B, C, H, W) -> (B, 1, h, w), high for real ones (Isola et al. 2017, PatchGAN).

    With group normalisation instead of the published one over batches, which a single optimiser step of two losses would
    disturb.
    """
    layers: list[nn.Module] = [conv(channels, width, 3), nn.LeakyReLU(0.2)]
    for level in range(depth):
        inputs, outputs = (width * min(2**k, 8) for k in (level, level + 1))
        layers += [nn.Conv2d(inputs, outputs, 4, 2, 1), group_norm(outputs), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, conv(width * min(2**depth, 8), 1, 3))


def _ratio(loss: Tensor, deceit: Tensor, last: Tensor) -> Tensor:
    """How much larger the gradient of the loss is at the last layer than that of the discriminator's."""
    first, second = (torch.autograd.grad(part.mean(), last, retain_graph=True)[0].norm() for part in (loss, deceit))
    return (first / (second + 1e-4)).clamp(max=1e4).detach()


def check_perceptual(objective: Reconstruction, shape: tuple[int, int, int]) -> None:
    """Refuses a run that is no noisy classifier of such pictures, before anything is read or trained.

    Raises:
        UserError: then.
    """
    if objective.perceptual not in (None, "lpips"):
        described(objective.perceptual, "classifier", KEY, shape)


def _features(folder: str, shape: tuple[int, int, int], device: torch.device) -> Distance:
    """Squared differences of a noisy classifier's features, each of unit length over the channels (Zhang et al. 2018, eq. 1)."""
    network: Any = described(folder, "classifier", KEY, shape).network(KEY).to(device)
    stages = [isinstance(step, Stage) for step in network.encoder.steps]

    def features(x: Tensor) -> list[Tensor]:
        conditions = iter(network.conditions(x.new_zeros(len(x))))
        results = network.encoder(x, conditions)[1:]
        return [F.normalize(h, dim=1, eps=1e-6) for h, stage in zip(results, stages, strict=True) if stage]

    def distance(a: Tensor, b: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = features(b)
        found = [(one - other).square().sum(1).mean((1, 2)) for one, other in zip(features(a), wanted, strict=True)]
        return torch.stack(found).mean(0)

    return distance


def _lpips(device: torch.device) -> Distance:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    try:
        network = LearnedPerceptualImagePatchSimilarity(net_type="vgg").net.requires_grad_(False).eval().to(device)
    except Exception as error:  # torchvision, urllib and the file system each raise their own
        why = " ".join(str(error).split())
        raise UserError(
            f"{KEY}: the weights of LPIPS cannot be had ({why}); put VGG16's into the cache of torch.hub, or name the run of a "
            "noisy classifier instead"
        ) from error

    def distance(a: Tensor, b: Tensor) -> Tensor:
        a, b = (x if x.shape[1] == 3 else x[:, :1].expand(-1, 3, -1, -1) for x in (a, b))
        return network(a.clamp(-1, 1), b).flatten()

    return distance


__all__ = ["Reconstruction", "check_perceptual", "discriminator", "divergence"]
