"""Networks of diffusers, read and written: the peer has random weights, and the same inputs go through both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffusionkit.core import DDIM
from diffusionkit.errors import UserError
from diffusionkit.image.backbones.autoencoder import Autoencoder
from diffusionkit.image.backbones.unet import UNet
from diffusionkit.image.codec import PixelCodec
from diffusionkit.image.latent import LatentCodec
from diffusionkit.recipe import Recipe
from diffusionkit.training.exchange import export_run, import_run
from diffusionkit.training.run import Run, assemble

diffusers = pytest.importorskip("diffusers", reason="diffusers (extra 'peers') is not installed")
diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()

KEPT = ("process", "backbone", "sampling", "objective")
DDPM = {
    "in_channels": 3, "out_channels": 3, "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1,
    "norm_eps": 1e-6, "attention_head_dim": None, "sample_size": 32, "layers_per_block": 2,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
}  # fmt: skip
TWO = {
    "sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1, "block_out_channels": [8, 16],
    "norm_num_groups": 4, "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "attention_head_dim": 8,
}  # fmt: skip
UNETS: dict[str, dict[str, Any]] = {
    "ddpm-cifar10": {**DDPM, "block_out_channels": [16, 32, 32, 32], "norm_num_groups": 8},
    "defaults": TWO,
    "heads and classes": {**TWO, "attention_head_dim": 4, "num_class_embeds": 5},
    "AdaGN": {**TWO, "resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 4},
    "residual halving": {
        **TWO, "sample_size": 16, "block_out_channels": [8, 8, 16], "downsample_type": "resnet", "upsample_type": "resnet",
        "down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"],
        "up_block_types": ["ResnetUpsampleBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"],
    },
    "not square": {**TWO, "sample_size": [8, 12], "dropout": 0.1},
}  # fmt: skip
VAES: dict[str, dict[str, Any]] = {
    "f4": {"block_out_channels": [8, 16, 16], "latent_channels": 3},
    "f8": {"block_out_channels": [8, 8, 16, 16], "latent_channels": 4, "layers_per_block": 2},
    "plain": {
        "block_out_channels": [8, 16],
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "shift_factor": 0.1,
    },
    "attention": {
        "block_out_channels": [8, 16],
        "down_block_types": ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
        "up_block_types": ["AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
    },
}
DIT = {
    "num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 3, "out_channels": 6, "num_layers": 2,
    "sample_size": 4, "patch_size": 2, "num_embeds_ada_norm": 5,
}  # fmt: skip


def awake(network: nn.Module) -> nn.Module:
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            weight = parameter.ndim > 1
            parameter.normal_(0, 2 / parameter[0].numel() ** 0.5 if weight else 0.3)
            if not weight and name.endswith("weight"):
                parameter.add_(1)
    return network.eval()


def vae(**options: Any) -> nn.Module:
    levels = len(options["block_out_channels"])
    kinds = {"down_block_types": ["DownEncoderBlock2D"] * levels, "up_block_types": ["UpDecoderBlock2D"] * levels}
    return awake(diffusers.AutoencoderKL(**{"sample_size": 16, "norm_num_groups": 4, **kinds, **options}))


def dit() -> Any:
    network = awake(diffusers.DiTTransformer2DModel(**DIT))
    shared = network.transformer_blocks[0].norm1.emb.state_dict()
    for block in network.transformer_blocks:
        block.norm1.emb.load_state_dict(shared)
    return network


def imported(folder: Path, out: Path, **overrides: str) -> Run:
    import_run(folder, out, {key.replace("__", "."): value for key, value in overrides.items()})
    return Run.load(out)


def close(a: Tensor, b: Tensor) -> None:
    assert float(b.std()) > 0.1  # a comparison of zeros would say nothing
    assert float((a - b).abs().max()) <= 1e-5 * max(1.0, float(b.abs().max()))


def files(folder: Path) -> dict[str, Any]:
    """All that a folder holds, tensors by name."""
    from safetensors.torch import load_file

    found: dict[str, Any] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = str(path.relative_to(folder))
        found[name] = load_file(path) if path.suffix == ".safetensors" else json.loads(path.read_text())
    return found


def same(a: Path, b: Path) -> None:
    ours, theirs = files(a), files(b)
    assert ours.keys() == theirs.keys()
    for name, content in ours.items():
        if name.endswith(".json"):
            assert content == theirs[name], name
        else:
            assert content.keys() == theirs[name].keys()
            assert all(torch.equal(content[key], theirs[name][key]) for key in content)


def same_run(a: Run, b: Run) -> None:
    first, second = a.recipe.sections, b.recipe.sections
    for sections in (first, second):
        sections["backbone"].pop("classes", None)  # written where the data are not at hand to say so
    assert {name: first[name] for name in KEPT} == {name: second[name] for name in KEPT}
    ours, theirs = a.diffusion.state_dict(), b.diffusion.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


# ---- in ----


@pytest.mark.parametrize("name", UNETS)
def test_a_unet_computes_the_same_and_comes_back_as_it_was(name: str, tmp_path: Path) -> None:
    peer = awake(diffusers.UNet2DModel(**UNETS[name]))
    peer.save_pretrained(tmp_path / "a")
    run = imported(tmp_path / "a", tmp_path / "run")
    x, n = torch.randn(3, *run.codec.shape), torch.tensor([0, 1, 999])
    classes = torch.tensor([0, 3, 4]) if run.codec.classes else None
    with torch.no_grad():
        theirs = peer(x, n, class_labels=classes).sample
        close(run.diffusion(x, (n + 1) / 1000, None if classes is None else {"class": classes}), theirs)
    export_run(run, tmp_path / "b")
    same(tmp_path / "a", tmp_path / "b")
    same_run(run, imported(tmp_path / "b", tmp_path / "again"))


@pytest.mark.slow
def test_the_published_cifar_network_in_full_size(tmp_path: Path) -> None:
    peer = awake(diffusers.UNet2DModel(**DDPM, block_out_channels=[128, 256, 256, 256]))
    assert sum(p.numel() for p in peer.parameters()) == 35_746_307
    peer.save_pretrained(tmp_path / "a")
    run = imported(tmp_path / "a", tmp_path / "run")
    x, n = torch.randn(1, 3, 32, 32), torch.tensor([500])
    with torch.no_grad():
        close(run.diffusion(x, (n + 1) / 1000), peer(x, n).sample)


@pytest.mark.parametrize("name", VAES)
def test_an_autoencoder_computes_the_same_and_comes_back_as_it_was(name: str, tmp_path: Path) -> None:
    peer = vae(**VAES[name])
    peer.save_pretrained(tmp_path / "a")
    run = imported(tmp_path / "a", tmp_path / "run")
    assert not run.generates
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        posterior, (mean, logvar) = peer.encode(x).latent_dist, run.diffusion.network.encode(x)
        close(mean, posterior.mean)
        close(logvar, posterior.logvar)
        close(run.diffusion.network.decode(mean), peer.decode(mean).sample)
    export_run(run, tmp_path / "b")
    same(tmp_path / "a", tmp_path / "b")
    same_run(run, imported(tmp_path / "b", tmp_path / "again"))


def test_a_latent_transformer_with_its_autoencoder(tmp_path: Path) -> None:
    transformer, coder = dit(), vae(**VAES["f4"], scaling_factor=0.5, shift_factor=0.2)
    names = {str(i): f"kind {i}" for i in range(5)}
    scheduler = diffusers.DDIMScheduler(
        clip_sample=False, beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012
    )
    diffusers.DiTPipeline(transformer, coder, scheduler).save_pretrained(tmp_path / "a")
    index = tmp_path / "a" / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"id2label": names}))
    run = imported(tmp_path / "a", tmp_path / "run")
    assert run.codec.classes == list(names.values()) and run.codec.shape == (3, 16, 16)
    x, n, classes = torch.randn(3, 3, 4, 4), torch.tensor([0, 500, 999]), torch.tensor([0, 4, 5])
    with torch.no_grad():
        theirs = transformer(x, timestep=n, class_labels=classes).sample
        close(run.diffusion(x, (n + 1) / 1000, {"class": classes}), theirs)
        close(
            run.diffusion(x[:1], torch.tensor(1.0)), transformer(x[:1], timestep=n[2:], class_labels=classes[2:]).sample
        )
        close(run.codec.render(x), coder.decode(x / 0.5 + 0.2).sample)
    table = scheduler.alphas_cumprod
    assert torch.allclose(run.diffusion.process.schedule.alphas_cumprod.float(), table, atol=1e-6)
    export_run(run, tmp_path / "b")
    same(tmp_path / "a", tmp_path / "b")
    assert diffusers.DiTPipeline.from_pretrained(tmp_path / "b").labels["kind 3"] == 3


def test_old_names_of_attention_and_parts_in_several_files(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    peer = awake(diffusers.UNet2DModel(**TWO))
    peer.save_pretrained(tmp_path / "a")
    run = imported(tmp_path / "a", tmp_path / "run")
    path = tmp_path / "a" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    path.unlink()
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for new, name in old.items():
        state = {key.replace(f".{new}.", f".{name}."): value for key, value in state.items()}
    assert any("proj_attn" in key for key in state)
    parts: dict[str, dict[str, Tensor]] = {"one.safetensors": {}, "two.safetensors": {}}
    for i, (key, value) in enumerate(state.items()):
        list(parts.values())[i % 2][key] = value
    for name, tensors in parts.items():
        save_file(tensors, tmp_path / "a" / name)
    index = {"weight_map": {key: name for name, tensors in parts.items() for key in tensors}}
    path.with_name(path.name + ".index.json").write_text(json.dumps(index))
    same_run(run, imported(tmp_path / "a", tmp_path / "old"))


# ---- schedules ----


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize(
    "options",
    [
        {"beta_schedule": "linear"},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "linear", "num_train_timesteps": 500, "beta_end": 0.03},
        {"beta_schedule": "linear", "clip_sample": True, "clip_sample_range": 0.5},
    ],
)
def test_ddim_goes_the_same_way(prediction: str, options: dict[str, Any], tmp_path: Path) -> None:
    scheduler = diffusers.DDIMScheduler(
        **{"clip_sample": False, **options}, prediction_type=prediction, timestep_spacing="trailing"
    )
    peer = awake(diffusers.UNet2DModel(**TWO))
    diffusers.DDIMPipeline(peer, scheduler).save_pretrained(tmp_path / "a")
    run = imported(tmp_path / "a", tmp_path / "run", sampling__steps="10")
    assert isinstance(run.sampler(), DDIM) and run.recipe.sampling().clip == (0.5 if "clip_sample" in options else None)
    scheduler = diffusers.DDIMScheduler.from_pretrained(tmp_path / "a" / "scheduler")
    scheduler.set_timesteps(10)
    y = x = torch.randn(2, 1, 8, 8)
    from diffusionkit.core import guided

    model, sampler = guided(run.diffusion, 1.0, run.recipe.sampling().clip), run.sampler()
    steps = run.diffusion.process.schedule.steps
    assert (
        sampler.times(run.diffusion.process)[:-1] * steps - 1
    ).round().long().tolist() == scheduler.timesteps.tolist()
    with torch.no_grad():
        for n in scheduler.timesteps:
            y = scheduler.step(peer(y, n).sample, n, y, use_clipped_model_output="clip_sample" in options).prev_sample
        found = sampler(model, like=x, start=x)
    assert float(y.std()) > 0.1
    assert torch.allclose(found, y, atol=1e-4, rtol=1e-4)


def test_the_cosine_schedule_and_a_variance_that_is_learned(tmp_path: Path) -> None:
    options = {"beta_schedule": "squaredcos_cap_v2", "variance_type": "learned_range", "clip_sample": False}
    scheduler = diffusers.DDPMScheduler(**options)
    peer = awake(diffusers.UNet2DModel(**{**TWO, "out_channels": 2}))
    diffusers.DDPMPipeline(peer, scheduler).save_pretrained(tmp_path / "a")
    run = imported(tmp_path / "a", tmp_path / "run")
    assert run.recipe.sections["process"]["predict"] == "eps+variance" and run.sampler().variance == "learned"
    x, n = torch.randn(2, 1, 8, 8), 400
    t, s = torch.tensor((n + 1) / 1000, dtype=torch.float64), torch.tensor(n / 1000, dtype=torch.float64)
    with torch.no_grad():
        output = run.diffusion(x, t)
        torch.manual_seed(3)
        theirs = scheduler.step(output, n, x, generator=torch.Generator().manual_seed(3)).prev_sample
        torch.manual_seed(3)
        ours = run.diffusion.process.step(x, run.diffusion.process.estimate(output, x, t), t, s, variance="learned")
    assert torch.allclose(ours, theirs, atol=1e-4, rtol=1e-4)


# ---- out ----


def made(folder: Path, backbone: dict[str, Any], data: dict[str, Any] | None = None, **sections: Any) -> Run:
    """A run with random weights, as if it had been trained here."""
    recipe = Recipe.of(
        {
            "domain": "image",
            "data": {"name": "digits"} | (data or {}),
            "backbone": backbone,
            "process": {"name": "gaussian", "schedule": "linear", "predict": "v"},
            "objective": {"name": "simple", "drop": 0.1},
            "sampling": {"sampler": "ddim", "steps": 5, "clip": 1.0},
            **sections,
        }
    )
    codec = recipe.build("data").codec
    diffusion = assemble(recipe, codec)
    awake(diffusion.network)
    Run(folder, recipe, recipe.domain, codec, diffusion, 7).save(folder)
    return Run.load(folder)


SMALL = {"name": "unet", "channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": [4], "groups": 4}


def test_a_unet_trained_here_that_counts_as_they_do_comes_back_bit_by_bit(tmp_path: Path) -> None:
    run = made(tmp_path / "run", {**SMALL, "time_steps": 1000, "asymmetric": True, "heads": 1})
    export_run(run, tmp_path / "a")
    again = imported(tmp_path / "a", tmp_path / "again", sampling__steps="5")
    same_run(run, again)
    assert again.codec.classes == run.codec.classes
    pipeline = diffusers.DDIMPipeline.from_pretrained(tmp_path / "a")
    x, classes = torch.randn(2, 1, 8, 8), torch.tensor([3, 10])
    with torch.no_grad():
        theirs = pipeline.unet(x, torch.tensor([4, 900]), class_labels=classes).sample
        close(theirs, run.diffusion(x, torch.tensor([0.005, 0.901]), {"class": classes}))


@pytest.mark.parametrize("options", [{}, {"time_shift": 1.0}, {"channels": 12, "groups": 3}])
def test_a_unet_that_is_told_1000_t_is_told_steps_of_them(options: dict[str, Any], tmp_path: Path) -> None:
    run = made(tmp_path / "run", {**SMALL, **options}, {"labels": False}, objective={"name": "simple"})
    export_run(run, tmp_path / "a")
    peer = diffusers.DDIMPipeline.from_pretrained(tmp_path / "a").unet
    x, n = torch.randn(3, 1, 8, 8), torch.tensor([0, 500, 999])
    with torch.no_grad():
        close(peer(x, n).sample, run.diffusion(x, (n + 1) / 1000))
        close(imported(tmp_path / "a", tmp_path / "b").diffusion(x, (n + 1) / 1000), run.diffusion(x, (n + 1) / 1000))


def test_a_transformer_trained_here(tmp_path: Path) -> None:
    backbone = {"name": "dit", "width": 16, "depth": 2, "heads": 2, "time_steps": 1000, "time_shift": 1.0, "eps": 1e-5}
    run = made(tmp_path / "run", backbone)
    export_run(run, tmp_path / "a")
    peer = diffusers.DiTTransformer2DModel.from_pretrained(tmp_path / "a" / "transformer").eval()
    x, n, classes = torch.randn(2, 1, 8, 8), torch.tensor([2, 700]), torch.tensor([1, 10])
    with torch.no_grad():
        close(peer(x, timestep=n, class_labels=classes).sample, run.diffusion(x, (n + 1) / 1000, {"class": classes}))
    again = imported(tmp_path / "a", tmp_path / "again", sampling__steps="5")
    same_run(run, again)


@pytest.mark.parametrize("even", [True, False])
def test_a_latent_run_trained_here(even: bool, tmp_path: Path) -> None:
    """Where each channel has a scale of its own, it goes into the autoencoder's weights."""
    arguments = {"shape": [1, 8, 8], "channels": 8, "multipliers": [1, 2], "blocks": 1, "latent": 2, "groups": 4}
    network = awake(Autoencoder(**arguments))
    shift, scale = ([0.5, 0.5], [2.0, 2.0]) if even else ([0.5, -0.3], [2.0, 0.7])
    codec = LatentCodec(PixelCodec((1, 8, 8), levels=17), network, arguments, shift, scale)
    run = made(tmp_path / "run", {**SMALL, "time_steps": 1000}, {"labels": False}, objective={"name": "simple"})
    unet = UNet(**{k: v for k, v in SMALL.items() if k != "name"}, shape=(2, 4, 4), time_steps=1000)
    run.codec, run.diffusion.network = codec, awake(unet)
    export_run(run, tmp_path / "a")
    pipeline = diffusers.LDMPipeline.from_pretrained(tmp_path / "a")
    coder, factor = pipeline.vqvae.eval(), pipeline.vqvae.config.scaling_factor
    offset = pipeline.vqvae.config.shift_factor or 0.0
    z, pixels = torch.randn(2, 2, 4, 4), torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        close(coder.decode(z / factor + offset).sample, codec.render(z))
        close((coder.encode(pixels).latent_dist.mean - offset) * factor, codec.normalise(network.encode(pixels)[0]))
        logvar = network.encode(pixels)[1] + (0 if even else 2 * torch.tensor(scale).log()[:, None, None])
        close(coder.encode(pixels).latent_dist.logvar, logvar)
    again = imported(tmp_path / "a", tmp_path / "again")
    assert torch.allclose(again.codec.render(z), codec.render(z), atol=1e-5)
    state = again.diffusion.network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in unet.state_dict().items())


@pytest.mark.parametrize(
    ("backbone", "sections", "message"),
    [
        ({"groups": None}, {}, r"backbone.groups: the normalisations have 2 to 8 groups"),
        ({"time_steps": 500}, {}, "is told steps of 500, and the format wants the steps of its chain of 1000"),
        ({"token_dim": 4}, {}, "nothing for backbone.token_dim"),
        ({"multipliers": [1, 1, 1, 1]}, {"data": {"name": "fashion"}}, "halves sides exactly, and 28x28 cannot be"),
        (
            {},
            {"process": {"name": "gaussian", "schedule": "flow", "predict": "flow"}},
            "process.predict: the format knows",
        ),
        ({}, {"process": {"name": "gaussian", "schedule": "sigmoid", "predict": "v"}}, "process.schedule: the format"),
    ],
)
def test_runs_that_the_format_has_no_words_for(
    backbone: dict[str, Any], sections: dict[str, Any], message: str, tmp_path: Path
) -> None:
    sections = dict(sections)
    run = made(tmp_path / "run", {**SMALL, **backbone}, sections.pop("data", None), **sections)
    with pytest.raises(UserError, match=message):
        export_run(run, tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


# ---- refusals ----


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "UNet2DConditionModel"}, "_class_name is 'UNet2DConditionModel'; supported are UNet2DModel"),
        ({"down_block_types": ["DownBlock2D", "SkipDownBlock2D"]}, "'SkipDownBlock2D' is not supported; DownBlock2D"),
        ({"up_block_types": ["UpBlock2D", "UpBlock2D"]}, "up_block_types: must be those of down_block_types"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type: 'fourier' is not supported; 'positional' is"),
        ({"add_attention": False}, "add_attention: False is not supported; True is"),
        ({"sample_size": None}, "sample_size: must be the side"),
        ({"sample_size": 7}, "sample_size: 7x7 cannot be halved 1 times"),
        ({"block_out_channels": [8, 12]}, "block_out_channels: must be multiples of the first"),
        ({"norm_num_groups": 3}, "norm_num_groups: 3 does not divide"),
        ({"attention_head_dim": 5}, "attention_head_dim: 5 does not divide"),
        ({"in_channels": 4, "out_channels": 4}, "in_channels: must be 1 .* latents need the vae folder"),
        ({"out_channels": 3}, "out_channels: must be in_channels, 1, or twice as many, not 3"),
        ({"layers_per_block": "two"}, "layers_per_block: must be an integer from 1 on, not 'two'"),
        ({"newer_setting": 3}, "newer_setting: this setting of UNet2DModel is unknown here"),
        ({"num_class_embeds": 5}, "weights do not fit: class_embedding.weight is missing"),
        ({"layers_per_block": 2}, r"weights do not fit: \d+ tensors, such as .* are missing"),
        ({"down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2}, "unknown to the network"),
        ({"block_out_channels": [8, 8]}, r"is \[16, 8, 3, 3\] where config.json makes it \[8, 8, 3, 3\]|unknown to"),
    ],
)
def test_what_is_not_supported_is_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    awake(diffusers.UNet2DModel(**TWO)).save_pretrained(tmp_path / "a")
    path = tmp_path / "a" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError, match=message):
        import_run(tmp_path / "a", tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beta_schedule": "sigmoid"}, "beta_schedule: 'sigmoid' is not supported"),
        ({"prediction_type": "flow"}, "prediction_type: 'flow' is not supported"),
        ({"trained_betas": [0.1, 0.2]}, "trained_betas: "),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr: True is not supported"),
        ({"variance_type": "learned"}, "variance_type: 'learned' is not supported"),
        ({"variance_type": "learned_range"}, "variance_type: .* twice as many channels"),
        ({"beta_end": 2.0}, "beta_start: betas must lie"),
        (
            {"_class_name": "FlowMatchEulerDiscreteScheduler"},
            "_class_name is 'FlowMatch.*; supported are DDPMScheduler",
        ),
    ],
)
def test_schedulers_that_are_not_supported(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    diffusers.DDPMPipeline(awake(diffusers.UNet2DModel(**TWO)), diffusers.DDPMScheduler()).save_pretrained(
        tmp_path / "a"
    )
    path = tmp_path / "a" / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError, match=f"scheduler_config.json: {message}"):
        import_run(tmp_path / "a", tmp_path / "run")


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    peer = awake(diffusers.UNet2DModel(**TWO))
    peer.save_pretrained(tmp_path / "a")
    (tmp_path / "a" / "diffusion_pytorch_model.safetensors").unlink()
    (tmp_path / "a" / "diffusion_pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(UserError, match=r"diffusion_pytorch_model.bin: is a pickle.*save_pretrained\(FOLDER, safe_ser"):
        import_run(tmp_path / "a", tmp_path / "run")


def test_transformers_whose_blocks_embed_the_time_differently(tmp_path: Path) -> None:
    network = dit()
    with torch.no_grad():
        network.transformer_blocks[1].norm1.emb.timestep_embedder.linear_1.bias[0] += 1
    diffusers.DiTPipeline(network, vae(**VAES["f4"]), diffusers.DDIMScheduler()).save_pretrained(tmp_path / "a")
    with pytest.raises(UserError, match="transformer_blocks.1.norm1.emb.* differs from transformer_blocks.0"):
        import_run(tmp_path / "a", tmp_path / "run")
