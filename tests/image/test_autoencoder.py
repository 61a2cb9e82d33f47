from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch.nn import functional as F

from diffusionkit.cli import main
from diffusionkit.core import Diffusion, Gaussian
from diffusionkit.errors import UserError
from diffusionkit.image import features
from diffusionkit.image.backbones.autoencoder import Autoencoder
from diffusionkit.image.backbones.unet import UNet
from diffusionkit.image.rebuilt import enlarged, psnr, ssim
from diffusionkit.image.reconstruction import Reconstruction, divergence
from diffusionkit.recipe import Recipe
from diffusionkit.training import Run, fit

SMALL = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "latent": 2}
RECIPE = {
    "domain": "image",
    "data": {"name": "digits"},
    "backbone": {"name": "autoencoder", **SMALL, "multipliers": [1, 2]},
    "objective": {"name": "reconstruction"},
    "training": {"steps": 3, "batch_size": 8, "warmup": 0, "lr": 1e-3, "pictures": 0},
}


def made(objective: dict[str, Any] | None = None, **training: Any) -> Recipe:
    sections: dict[str, Any] = {**RECIPE, "objective": RECIPE["objective"] | (objective or {})}
    return Recipe.of({**sections, "training": RECIPE["training"] | training})


def trained(folder: Path, **objective: Any) -> Run:
    return fit(made(objective), folder, console=Console(quiet=True))


def small(shape: tuple[int, int, int] = (1, 8, 8), **more: Any) -> Autoencoder:
    """An autoencoder none of whose layers is zero."""
    network = Autoencoder(shape=shape, **{**SMALL, **more})
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1)
    return network


# ---- the network ----


@pytest.mark.parametrize(
    ("options", "count"),
    [({}, 55_312_063), ({"multipliers": (1, 2, 4, 4), "latent": 4}, 83_653_863)],
    ids=["KL-f4", "KL-f8"],
)
def test_the_published_networks_in_size(options: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        network = Autoencoder(shape=(3, 256, 256), **options)
    assert sum(p.numel() for p in network.parameters()) == count
    assert network.latent_shape == ((3, 64, 64) if not options else (4, 32, 32))


def test_it_is_the_published_network() -> None:
    """With the same weights, in the order of the layers, it is the AutoencoderKL of another implementation."""
    diffusers = pytest.importorskip("diffusers")
    peer = diffusers.AutoencoderKL(
        block_out_channels=(8, 16), down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=2, layers_per_block=1, norm_num_groups=2, in_channels=1, out_channels=1,
    ).eval()  # fmt: skip
    network = small()
    for module in network.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.num_groups = 2
    blocks = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2", "shortcut": "conv_shortcut"}

    def copy(to: Any, source: Any) -> None:
        to.load_state_dict(source.state_dict())

    def block(to: Any, source: Any) -> None:
        for mine, theirs in blocks.items():
            if getattr(source, theirs, None) is not None:
                copy(getattr(to, mine), getattr(source, theirs))

    def attention(to: Any, source: Any) -> None:
        copy(to.norm, source.group_norm)
        parts = (source.to_q, source.to_k, source.to_v)
        to.attention.project.weight.copy_(torch.cat([p.weight for p in parts]))
        to.attention.project.bias.copy_(torch.cat([p.bias for p in parts]))
        copy(to.attention.out, source.to_out[0])

    def middle(to: Any, source: Any) -> None:
        block(to[0], source.resnets[0])
        attention(to[1], source.attentions[0])
        block(to[2], source.resnets[1])

    with torch.no_grad():
        e, theirs = network.encoder, peer.encoder
        copy(e[0], theirs.conv_in)
        block(e[1], theirs.down_blocks[0].resnets[0])
        copy(e[2], theirs.down_blocks[0].downsamplers[0].conv)
        block(e[3], theirs.down_blocks[1].resnets[0])
        middle(e[4:7], theirs.mid_block)
        copy(e[7].norm, theirs.conv_norm_out)
        copy(network.moments[0], theirs.conv_out)
        copy(network.moments[1], peer.quant_conv)
        d, theirs = network.decoder, peer.decoder
        copy(network.open[0], peer.post_quant_conv)
        copy(network.open[1], theirs.conv_in)
        middle(d[0:3], theirs.mid_block)
        for i, resnet in enumerate(theirs.up_blocks[0].resnets):
            block(d[3 + i], resnet)
        d[5].weight.copy_(theirs.up_blocks[0].upsamplers[0].conv.weight)
        d[5].bias.copy_(theirs.up_blocks[0].upsamplers[0].conv.bias)
        for i, resnet in enumerate(theirs.up_blocks[1].resnets):
            block(d[6 + i], resnet)
        copy(d[8].norm, theirs.conv_norm_out)
        copy(d[9], theirs.conv_out)
        x = torch.randn(3, 1, 8, 8)
        posterior = peer.encode(x).latent_dist
        mean, logvar = network.encode(x)
        assert torch.allclose(mean, posterior.mean, atol=1e-5) and torch.allclose(logvar, posterior.logvar, atol=1e-5)
        assert torch.allclose(network.decode(mean), peer.decode(mean).sample, atol=1e-5)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 16)])
def test_shapes_and_gradients(shape: tuple[int, int, int], channels_last: bool) -> None:
    network = small(shape, channels_last=channels_last, attention=(shape[1],), multipliers=(1, 2, 2))
    x = torch.randn(2, *shape)
    decoded, mean, logvar = network(x, torch.randn(2, *network.latent_shape))
    assert decoded.shape == x.shape
    assert mean.shape == logvar.shape == (2, *network.latent_shape) == (2, 2, shape[1] // 4, shape[2] // 4)
    (decoded.square().sum() + divergence(mean, logvar).sum()).backward()
    assert [name for name, p in network.named_parameters() if not p.grad.any()] == []


def test_noise_moves_the_latent_by_its_standard_deviation() -> None:
    network, x = small().double(), torch.randn(2, 1, 8, 8).double()
    noise = torch.randn(2, *network.latent_shape).double()
    mean, logvar = network.encode(x)
    assert torch.allclose(network(x, noise)[0], network.decode(mean + logvar.exp().sqrt() * noise))
    assert torch.equal(network(x)[0], network.decode(mean))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"multipliers": (1, 1, 1, 1, 1)}, "factor 16 does not divide pictures of 8x8"),
        ({"multipliers": ()}, "multipliers must be"),
        ({"latent": 0}, "latent must be at least 1"),
        ({"dropout": 1.0}, "dropout must lie"),
    ],
)
def test_impossible_networks(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Autoencoder(**{"shape": (1, 8, 8), **options})


# ---- the objective ----


def test_divergence_is_that_of_torch() -> None:
    mean, logvar = torch.randn(3, 2, 4, 5).double(), torch.randn(3, 2, 4, 5).double()
    normal = torch.distributions.Normal
    known = torch.distributions.kl_divergence(normal(mean, (logvar / 2).exp()), normal(0.0, 1.0)).flatten(1).sum(1)
    assert torch.allclose(divergence(mean, logvar), known)


@pytest.mark.parametrize(("distance", "rule"), [("absolute", F.l1_loss), ("squared", F.mse_loss)])
def test_the_loss_is_distance_and_divergence_per_pixel(distance: Any, rule: Any) -> None:
    network, x = small(), torch.randn(4, 1, 8, 8)
    diffusion = Diffusion(network, Gaussian(), Reconstruction(distance, kl=0.3, shape=(1, 8, 8))).eval()
    torch.manual_seed(5)
    loss = diffusion.loss(x)
    torch.manual_seed(5)
    decoded, mean, logvar = network(x, torch.randn(4, *network.latent_shape))
    known = torch.stack([rule(a, b) for a, b in zip(decoded, x, strict=True)]) + 0.3 * divergence(mean, logvar) / 64
    assert torch.allclose(loss, known)


def test_either_side_of_the_contest_moves_its_own_weights() -> None:
    """The gradient of the one loss is that of the autoencoder's for it, and of the discriminator's for the discriminator."""
    network, x = small().double(), torch.randn(4, 1, 8, 8).double()
    objective = Reconstruction(kl=0.0, adversarial=0.7, adaptive=False, width=4, depth=1, shape=(1, 8, 8)).double()
    diffusion, judge = Diffusion(network, Gaussian(), objective), objective.discriminator
    torch.manual_seed(5)
    diffusion.loss(x).mean().backward()
    found = {name: p.grad.clone() for name, p in diffusion.named_parameters()}
    for name, parameter in diffusion.named_parameters():
        torch.manual_seed(5)
        decoded = network(x, torch.randn(4, *network.latent_shape, dtype=x.dtype))[0]
        if name.startswith("network."):
            loss = F.l1_loss(decoded, x) - 0.7 * judge(decoded).mean()
        else:
            real, fake = judge(x), judge(decoded.detach())
            loss = ((1 - real).relu().mean() + (1 + fake).relu().mean()) / 2
        known = torch.autograd.grad(loss, parameter)[0]
        assert torch.allclose(found[name], known, atol=1e-9), name


def test_the_adaptive_weight_makes_both_gradients_equal_at_the_last_layer() -> None:
    network, x = small(), torch.randn(4, 1, 8, 8)
    options: dict[str, Any] = {"kl": 0.0, "width": 4, "depth": 1, "shape": (1, 8, 8)}
    objective = Reconstruction(adversarial=1.0, adaptive=True, **options)
    diffusion, plain = (
        Diffusion(network, Gaussian(), objective),
        Diffusion(network, Gaussian(), Reconstruction(**options)),
    )

    def gradient(model: Diffusion) -> torch.Tensor:
        torch.manual_seed(5)
        return torch.autograd.grad(model.loss(x).mean(), network.last)[0]

    alone = gradient(plain)
    assert float((gradient(diffusion) - alone).norm()) == pytest.approx(float(alone.norm()), rel=0.05)


def test_the_discriminator_waits_and_is_left_out_of_the_held_out_loss() -> None:
    network, x = small(), torch.randn(4, 1, 8, 8)
    objective = Reconstruction(adversarial=1.0, start=2, width=4, shape=(1, 8, 8))
    diffusion = Diffusion(network, Gaussian(), objective)
    moved = []
    for _ in range(4):
        diffusion.zero_grad()
        diffusion.loss(x).mean().backward()
        grads = [p.grad for p in objective.discriminator.parameters()]
        assert all(grad is not None for grad in grads)  # which several devices together ask for
        moved.append(any(bool(grad.any()) for grad in grads))
    assert moved == [False, False, True, True]
    diffusion.eval()
    diffusion.loss(x)
    assert int(objective.seen) == 4


def test_an_autoencoder_learns_two_pictures() -> None:
    torch.manual_seed(0)
    x = torch.where(torch.rand(2, 1, 8, 8) < 0.5, -1.0, 1.0)
    diffusion = Diffusion(Autoencoder(shape=(1, 8, 8), **SMALL), Gaussian(), Reconstruction(shape=(1, 8, 8)))
    optimiser = torch.optim.Adam(diffusion.parameters(), 5e-3)
    for _ in range(100):
        optimiser.zero_grad()
        diffusion.loss(x).mean().backward()
        optimiser.step()
    assert torch.equal(diffusion.eval().network(x)[0].sign(), x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kl": -1.0}, "kl must not"),
        ({"distance": "l1"}, "distance must be"),
        ({"width": 0}, "width must be at least 1"),
    ],
)
def test_impossible_objectives(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Reconstruction(**options)


def test_networks_that_do_not_fit_the_objective() -> None:
    x = torch.zeros(2, 1, 8, 8)
    unet = UNet(shape=(1, 8, 8), channels=8, multipliers=(1,), blocks=1)
    with pytest.raises(ValueError, match="trains the backbone autoencoder, not UNet"):
        Diffusion(unet, Gaussian(), Reconstruction()).loss(x)
    with pytest.raises(ValueError, match="does not denoise"):
        Diffusion(small(), Gaussian()).loss(x)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective.name": "simple"}, "objective.name: must be 'reconstruction'"),
        ({"backbone.name": "unet"}, "backbone.name: must be 'autoencoder'|backbone.latent: unknown key"),
        ({"objective.perceptual": "nowhere"}, "objective.perceptual: there is no run nowhere"),
    ],
)
def test_recipes_whose_parts_do_not_fit(changes: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        made().override(changes).check()


# ---- runs ----


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    changes = {"training.steps": "2", "backbone.channels": "8"}
    fit(Recipe.load("image/digits_classifier", changes), folder, console=Console(quiet=True))
    return folder


def test_features_of_a_classifier_compare_pictures(classifier: Path, tmp_path: Path) -> None:
    objective = Reconstruction(perceptual=str(classifier), shape=(1, 8, 8))
    x = torch.randn(3, 1, 8, 8)
    near, far = (objective._looks(x + size * torch.randn_like(x), x) for size in (0.01, 1.0))
    assert torch.equal(objective._looks(x, x), torch.zeros(3)) and bool((near < far).all())
    assert not objective.state_dict().keys() - {"seen"}  # the classifier is no part of the model
    run = trained(tmp_path / "run", perceptual=str(classifier))
    (classifier / "recipe.yaml").rename(classifier / "away")
    try:
        assert Run.load(run.folder).step == 3  # needs it no more
    finally:
        (classifier / "away").rename(classifier / "recipe.yaml")


def test_a_classifier_of_other_pictures_is_refused(classifier: Path) -> None:
    sections = made().raw
    wrong = {
        **sections,
        "data": {"name": "fashion"},
        "objective": {"name": "reconstruction", "perceptual": str(classifier)},
    }
    with pytest.raises(
        UserError, match=r"objective.perceptual: .* was trained on pictures of 1x8x8, these are 1x28x28"
    ):
        Recipe.of(wrong)


def test_lpips_without_its_weights_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchmetrics.functional.image.lpips._get_tv_model_features", nothing)
    with pytest.raises(UserError, match="objective.perceptual: the weights of LPIPS cannot be had"):
        Reconstruction(perceptual="lpips")._looks(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32))


def test_lpips_compares_pictures_grey_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def untrained(name: str, *_: Any, **__: Any) -> Any:
        torchvision = pytest.importorskip("torchvision")
        return getattr(torchvision.models, name)(weights=None).features

    monkeypatch.setattr("torchmetrics.functional.image.lpips._get_tv_model_features", untrained)
    x = torch.rand(2, 1, 32, 32) * 2 - 1
    objective = Reconstruction(perceptual="lpips", shape=(1, 32, 32))
    assert torch.equal(objective._looks(x, x), torch.zeros(2))
    moved = (x + 0.3).requires_grad_()
    found = objective._looks(moved, x)
    found.sum().backward()
    assert found.shape == (2,) and bool((found > 0).all()) and bool(moved.grad.any())


def test_interrupted_and_resumed_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The discriminator and the count of what it has seen come back with the checkpoint."""
    adversarial = {"adversarial": 0.5, "start": 2, "width": 4}
    whole = trained(tmp_path / "whole", **adversarial).diffusion.state_dict()
    from diffusionkit.training.callbacks import Checkpoints

    saved, after = Checkpoints.save, Checkpoints.after_step

    def stop(self: Any, trainer: Any, module: Any, step: int) -> None:
        after(self, trainer, module, step)
        if step == 2:
            saved(self, trainer, module, step)
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "after_step", stop)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trained(tmp_path / "parts", **adversarial)
    monkeypatch.undo()
    run = fit(made(adversarial), tmp_path / "parts", resume=True, console=Console(quiet=True))
    assert all(torch.equal(value, whole[name]) for name, value in run.diffusion.state_dict().items())


def test_a_run_is_evaluated_but_not_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(features, "_STEPS", 40)
    run = trained(tmp_path / "run")
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", str(run.folder), "-n", "60", "--inception", "off"])
    assert not stop.value.code
    told = capsys.readouterr().out
    assert all(name in told for name in ("latents", "PSNR", "SSIM", "Fréchet, classifier", "class accuracy", "bicubic"))
    assert (run.folder / "evaluation.png").is_file()
    with pytest.raises(SystemExit) as stop:
        main(["sample", str(run.folder)])
    assert stop.value.code == 2 and "lends a model its latents" in capsys.readouterr().err


# ---- measures ----


def test_psnr_and_ssim_of_known_pictures() -> None:
    torch.manual_seed(0)
    x = torch.randint(0, 250, (130, 3, 12, 12), dtype=torch.uint8)
    assert (psnr(x, x), ssim(x, x)) == (100.0, pytest.approx(1.0))
    assert psnr(x + 5, x) == pytest.approx(20 * math.log10(255 / 5), abs=1e-4)
    assert ssim(x, torch.randint(0, 250, x.shape, dtype=torch.uint8)) < 0.2


def test_enlarging_keeps_what_is_smooth() -> None:
    flat = torch.full((1, 1, 8, 8), 0.3)
    assert torch.allclose(enlarged(flat, 2), flat, atol=1e-5)
    checks = (torch.arange(8)[:, None] + torch.arange(8)).remainder(2).float().mul(2).sub(1)[None, None]
    assert enlarged(checks, 2).abs().max() < 0.5
