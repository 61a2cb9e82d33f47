"""Folders in the format of diffusers: what the commands `import` and `export` ask of the image domain.

Ours are `UNet2DModel`, `DiTTransformer2DModel` and `AutoencoderKL`, alone or in a pipeline with a scheduler. A run keeps the
settings that it came with, and they are written again as they were wherever they still say what the run says.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffusionkit.domain import Foreign
from diffusionkit.errors import UserError
from diffusionkit.image.backbones.autoencoder import Autoencoder
from diffusionkit.image.backbones.dit import DiT
from diffusionkit.image.backbones.unet import UNet
from diffusionkit.image.codec import PixelCodec
from diffusionkit.image.latent import LatentCodec
from diffusionkit.image.weights import configs, files, schedulers
from diffusionkit.image.weights import names as naming
from diffusionkit.image.weights.places import Places, find
from diffusionkit.image.weights.times import counted

_NETWORKS = {
    "UNet2DModel": "unet",
    "DiTTransformer2DModel": "dit",
    "Transformer2DModel": "dit",
    "AutoencoderKL": "autoencoder",
}


def knows(folder: Path) -> bool:
    """Whether a folder looks like a checkpoint of diffusers."""
    return find(Path(folder)) is not None


# ---- in ----


def read(folder: Path) -> Foreign:
    """Reads a checkpoint; settings are looked at before weights.

    Raises:
        UserError: if something in it is damaged, or of a kind that we have nothing for.
    """
    places = find(Path(folder))
    assert places is not None
    where = places.path(places.network, "config.json")
    config = files.read_json(where)
    complete = configs.complete(config, str(where))
    kind = _NETWORKS[config["_class_name"]]
    origin = {
        "text": f"{places.title or config['_class_name']} of diffusers in {folder}",
        "format": "diffusers", "network": config, "network_folder": places.network, "index": places.index,
    }  # fmt: skip
    if kind == "autoencoder":
        return _read_autoencoder(places, complete, where, origin)
    return _read_denoiser(places, complete, where, origin, kind)


def _read_autoencoder(places: Places, config: dict[str, Any], where: Path, origin: dict[str, Any]) -> Foreign:
    shape, arguments = configs.autoencoder(config, str(where))
    _pictures(shape[0], f"{where}: in_channels")
    sections = {
        "domain": "image",
        "data": _data(shape, None),
        "backbone": {"name": "autoencoder", **arguments},
        "objective": {"name": "reconstruction"},
    }
    configs.scaling(config, str(where))
    state = _autoencoder_state(places.folder / places.network, config, shape, arguments)
    return Foreign(sections, PixelCodec(shape), state, origin)


def _autoencoder_state(
    folder: Path, config: dict[str, Any], shape: tuple[int, ...], arguments: dict[str, Any]
) -> dict[str, Tensor]:
    with torch.device("meta"):
        network = Autoencoder(shape=shape, **arguments)
    return files.read_weights(folder, _autoencoder_names(network, arguments, config), network.state_dict())


def _autoencoder_names(network: Autoencoder, arguments: Mapping[str, Any], config: Mapping[str, Any]) -> naming.Names:
    quantised = config.get("use_quant_conv", True), config.get("use_post_quant_conv", True)
    return naming.of_autoencoder(network, arguments["blocks"], len(arguments["multipliers"]), quantised)


def _read_denoiser(places: Places, config: dict[str, Any], where: Path, origin: dict[str, Any], kind: str) -> Foreign:
    notes, scheduler, chain = [], {"_class_name": "DDPMScheduler"}, where
    if places.scheduler is None:
        notes.append("no scheduler lies beside the network: the chain of Ho et al. 2020, 1000 steps, is assumed")
    else:
        chain = places.path(places.scheduler, "scheduler_config.json")
        origin["scheduler"], origin["scheduler_folder"] = scheduler, _ = files.read_json(chain), places.scheduler
    settings = schedulers.complete(scheduler, str(chain))
    steps = settings["num_train_timesteps"]
    classes, null = _classes(places, config, kind)
    if kind == "unet":
        shape, arguments = configs.unet(config, str(where), null, steps)
    else:
        shape, arguments = configs.dit(config, str(where), steps)
    outputs = _outputs(config, where)
    process = schedulers.process(settings, str(chain), outputs == 2)
    sampling = schedulers.sampling(settings, str(chain), outputs == 2)
    with torch.device("meta"):
        network = (UNet if kind == "unet" else DiT)(
            shape=shape, classes=classes and len(classes), outputs=outputs, **arguments
        )
    codec, label = _codec(places, shape, classes, where, origin)
    state = files.read_weights(where.parent, _names(network, arguments, config, null), network.state_dict())
    sections = {
        "domain": "image",
        "data": _data(codec.shape, classes) | ({} if codec.pixels else {"autoencoder": label}),
        "process": process,
        "backbone": {"name": kind, **arguments},
        "objective": {"name": "simple", "drop": 0.1 if null else 0.0},
        "sampling": sampling,
    }
    if not codec.pixels and sampling.pop("clip", None) is not None:
        notes.append("the scheduler's bound on samples is left out: it is one for pixels, and these are latents")
    if not codec.pixels:
        codec.network.load_state_dict(_vae_state(places, codec, origin))
    return Foreign(sections, codec, state, origin, notes)


def _classes(places: Places, config: Mapping[str, Any], kind: str) -> tuple[list[str] | None, bool]:
    """The names of the classes, and whether the network has one more that stands for none."""
    count = config["num_embeds_ada_norm" if kind == "dit" else "num_class_embeds"]
    if type(count) is not int:
        return None, False
    named = (places.index or {}).get("id2label")
    known = {str(k): str(v) for k, v in named.items()} if isinstance(named, dict) else {}
    null = kind == "dit" or (count > 1 and len(known) == count - 1)
    return [known.get(str(i), str(i)) for i in range(count - (kind != "dit" and null))], null


def _outputs(config: Mapping[str, Any], where: Path) -> int:
    """2 if the network says something of the variance, too."""
    inputs, outputs = config["in_channels"], config["out_channels"] or config["in_channels"]
    if outputs not in (inputs, 2 * inputs):
        raise UserError(f"{where}: out_channels: must be in_channels, {inputs}, or twice as many, not {outputs}")
    return outputs // inputs


def _names(network: nn.Module, arguments: Mapping[str, Any], config: Mapping[str, Any], null: bool) -> naming.Names:
    if isinstance(network, DiT):
        return naming.of_dit(network)
    assert isinstance(network, UNet)
    first = config.get("flip_sin_to_cos", True)
    return naming.of_unet(network, len(arguments["multipliers"]), arguments["blocks"], first, null)


def _codec(
    places: Places, shape: tuple[int, int, int], classes: list[str] | None, where: Path, origin: dict[str, Any]
) -> tuple[Any, str]:
    """The codec, an autoencoder in it without its weights, and the run that would be its own."""
    if places.vae is None:
        _pictures(shape[0], f"{where}: in_channels", "; latents need the vae folder of their pipeline")
        return PixelCodec(shape, classes), ""
    path = places.path(places.vae, "config.json")
    origin["vae"], origin["vae_folder"] = files.read_json(path), places.vae
    config = configs.complete(origin["vae"], str(path))
    if config.get("_class_name", origin["vae"]["_class_name"]) != "AutoencoderKL":
        raise UserError(f"{path}: _class_name is {origin['vae']['_class_name']!r}; AutoencoderKL is supported")
    pixels, arguments = configs.autoencoder(config, str(path), shape[1:])
    _pictures(pixels[0], f"{path}: in_channels")
    if arguments["latent"] != shape[0]:
        raise UserError(f"{path}: latent_channels: is {arguments['latent']}, the network takes {shape[0]}")
    arguments = {"shape": list(pixels), **arguments}
    network = Autoencoder(**arguments).requires_grad_(False).eval()
    codec = LatentCodec(PixelCodec(pixels, classes), network, arguments, *configs.scaling(config, str(path)))
    return codec, f"runs/{places.folder.name}_vae"


def _vae_state(places: Places, codec: LatentCodec, origin: Mapping[str, Any]) -> dict[str, Tensor]:
    arguments = {name: value for name, value in codec.built.items() if name != "shape"}
    return _autoencoder_state(places.folder / places.vae, origin["vae"], tuple(codec.built["shape"]), arguments)


def _pictures(channels: int, key: str, hint: str = "") -> None:
    if channels not in (1, 3):
        raise UserError(f"{key}: must be 1 (grey) or 3 (colour) for pictures, not {channels}{hint}")


def _data(shape: tuple[int, ...], classes: list[str] | None) -> dict[str, Any]:
    """A folder of pictures of this size, which `sample` does without and `evaluate` needs."""
    return {
        "name": "folder",
        "path": "pictures",
        "size": list(shape[1:]),
        "channels": shape[0],
        "labels": bool(classes),
    }


# ---- out ----


def write(run: Any, origin: Mapping[str, Any] | None, folder: Path) -> None:
    """Leaves a run in an empty folder.

    Args:
        run: a loaded run.
        origin: that of `Foreign`, if the run has one.
        folder: an empty one.

    Raises:
        UserError: for what the format has no words for.
    """
    origin = origin or {}
    network, codec = run.diffusion.network, run.codec
    arguments = _arguments(run)
    if isinstance(network, Autoencoder):
        config = _autoencoder_config(network, arguments, origin.get("network"), [0.0], [1.0], network.state_dict())
        files.write_network(folder, config, _autoencoder_names(network, arguments, config), network.state_dict())
        return
    if not isinstance(network, UNet | DiT):
        raise UserError(f"{run.folder}: the format has no network like {type(network).__name__}")
    _wordless(run, network, arguments)
    sections = run.recipe.sections
    null = isinstance(network, DiT) or bool(sections["objective"]["drop"])
    scheduler = _scheduler(run, sections, origin)
    config = _network_config(run, arguments, null, origin.get("network"))
    state = counted(run, network.state_dict(), arguments)
    at = origin.get("network_folder", "unet" if isinstance(network, UNet) else "transformer")
    files.write_network(folder / at, config, _names(network, arguments, config, null), state)
    if not origin or "scheduler" in origin:
        files.write_json(folder / origin.get("scheduler_folder", "scheduler") / "scheduler_config.json", scheduler)
    vae_at = origin.get("vae_folder", "vae" if isinstance(network, DiT) else "vqvae")
    if not codec.pixels:
        vae, state = _vae(codec, origin.get("vae"))
        names = _autoencoder_names(codec.network, codec.built, vae)
        files.write_network(folder / vae_at, vae, names, state)
    index = _index(run, config, scheduler, null, origin, {"network": at, "vae": vae_at})
    if index is not None:
        files.write_json(folder / "model_index.json", index)


def _arguments(run: Any) -> dict[str, Any]:
    """Those of the network's constructor, with `groups` as the network has them."""
    found = {k: v for k, v in run.recipe.sections["backbone"].items() if k != "name"} | run.codec.arguments()
    taken = inspect.signature(type(run.diffusion.network)).parameters  # the codec may know more than a network asks for
    return _regrouped({k: v for k, v in found.items() if k in taken}, run.diffusion.network, "backbone.groups")


def _wordless(run: Any, network: nn.Module, arguments: Mapping[str, Any]) -> None:
    """Refuses a network with something that the format has no words for."""
    plain = {name: one.default for name, one in inspect.signature(type(network)).parameters.items()}
    for key, value in arguments.items():
        if key not in configs.WORDS and not _within(plain[key], value):
            raise UserError(
                f"{run.folder}: the format's networks have nothing for backbone.{key}, which is {value} here"
            )


def _regrouped(arguments: dict[str, Any], network: nn.Module, key: str) -> dict[str, Any]:
    groups = sorted({module.num_groups for module in network.modules() if isinstance(module, nn.GroupNorm)})
    if len(groups) > 1:
        raise UserError(
            f"{key}: the normalisations have {groups[0]} to {groups[-1]} groups, and the format has one number for all; "
            f"a network trained with --backbone.groups {groups[0]} can be exported"
        )
    return arguments | ({"groups": groups[0]} if groups else {})


def _within(part: Any, whole: Any) -> bool:
    """Whether all that `part` says `whole` says too."""
    if isinstance(part, Mapping) and isinstance(whole, Mapping):
        return all(key in whole and _within(value, whole[key]) for key, value in part.items())
    if isinstance(part, list | tuple) and isinstance(whole, list | tuple):
        return list(part) == list(whole)
    return part == whole


def _scheduler(run: Any, sections: Mapping[str, Any], origin: Mapping[str, Any]) -> dict[str, Any]:
    if "scheduler" in origin:
        came = schedulers.complete(origin["scheduler"], "scheduler")
        learned = run.diffusion.process.outputs == 2
        said = schedulers.process(came, "scheduler", learned), schedulers.sampling(came, "scheduler", learned)
        bounded = {"clip": None} | said[1] if run.codec.pixels else said[1] | {"clip": None}
        if _within(said[0], sections["process"]) and _within(bounded, sections["sampling"]):
            return origin["scheduler"]
    return schedulers.written(run.diffusion.process, sections["sampling"])


def _network_config(run: Any, arguments: dict[str, Any], null: bool, came: Mapping[str, Any] | None) -> dict[str, Any]:
    shape, outputs, steps = arguments["shape"], run.diffusion.process.outputs, run.diffusion.process.schedule.steps
    unet = isinstance(run.diffusion.network, UNet)
    if came is not None:
        whole = configs.complete(came, "config")
        known = configs.unet(whole, "config", null, steps) if unet else configs.dit(whole, "config", steps)
        count = whole["num_class_embeds"] if unet else whole["num_embeds_ada_norm"]
        mine = arguments["classes"] + (unet and null) if arguments["classes"] else None
        if known[0] == tuple(shape) and _within(known[1], arguments) and count == mine:
            return dict(came)
    derived = configs.of_unet(arguments, shape, outputs, null) if unet else configs.of_dit(arguments, shape, outputs)
    name = "UNet2DModel" if unet else "DiTTransformer2DModel"
    return {"_class_name": name} | configs.DEFAULTS[name] | derived


def _autoencoder_config(
    network: Autoencoder,
    arguments: dict[str, Any],
    came: Mapping[str, Any] | None,
    shift: list[float],
    scale: list[float],
    state: Mapping[str, Tensor],
) -> dict[str, Any]:
    """As it came, if that is what it is; `shift` and `scale` are one number each."""
    if came is not None:
        whole = configs.complete(came, "config")
        size = [side // network.factor for side in network.shape[1:]]
        known = configs.autoencoder(whole, "config", (size[0], size[1]))
        fixed = _autoencoder_names(network, arguments, came).fixed
        if _within(known[1], arguments) and all(torch.equal(state[name].cpu(), fixed[name]) for name in fixed):
            return dict(came)
    derived = configs.of_autoencoder(arguments | {"shape": network.shape})
    derived |= {"scaling_factor": scale[0], "shift_factor": shift[0] or None}
    return {"_class_name": "AutoencoderKL"} | configs.DEFAULTS["AutoencoderKL"] | derived


def _vae(codec: LatentCodec, came: Mapping[str, Any] | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and weights of the autoencoder of a codec.

    The format has one factor for all channels; where each has its own, they go into the convolutions next to the latents.
    """
    arguments = _regrouped(dict(codec.built), codec.network, "data.autoencoder: backbone.groups")
    arguments = {"attention": (), "groups": None} | arguments
    state = dict(codec.network.state_dict())
    shift, scale = codec.shift, codec.scale
    if came is not None and configs.scaling(configs.complete(came, "vae"), "vae") != (shift, scale):
        came = None
    if len(set(shift)) > 1 or len(set(scale)) > 1:
        state |= _scaled(state, torch.tensor(shift), torch.tensor(scale))
        shift, scale = [0.0], [1.0]
    return _autoencoder_config(codec.network, arguments, came, shift, scale, state), state


def _scaled(state: Mapping[str, Tensor], shift: Tensor, scale: Tensor) -> dict[str, Tensor]:
    """The two convolutions that touch the latents, of an autoencoder whose latents are (z - shift) * scale."""
    given, wide = {name: value.cpu() for name, value in state.items()}, (..., None, None, None)
    both = torch.cat([scale, torch.ones_like(scale)])
    added = torch.cat([-shift * scale, 2 * scale.log()])
    last, first = given["open.0.weight"], given["open.0.bias"]
    return {
        "moments.1.weight": given["moments.1.weight"] * both[wide],
        "moments.1.bias": given["moments.1.bias"] * both + added,
        "open.0.weight": last / scale[None, :, None, None],
        "open.0.bias": first + (last[..., 0, 0] * shift).sum(1),
    }


def _index(
    run: Any,
    config: Mapping[str, Any],
    scheduler: Mapping[str, Any],
    null: bool,
    origin: Mapping[str, Any],
    at: Mapping[str, str],
) -> dict[str, Any] | None:
    """What tells the pipeline; a network that came without one goes without one, and so does one that none fits."""
    if origin:
        index = origin["index"] and dict(origin["index"])
        return index and index | {"scheduler": ["diffusers", scheduler["_class_name"]]}
    latent, unet = not run.codec.pixels, config["_class_name"] == "UNet2DModel"
    if not unet and not latent:
        return None
    ddim = scheduler["_class_name"] == "DDIMScheduler"
    pipeline = "DiTPipeline" if not unet else "LDMPipeline" if latent else "DDIMPipeline" if ddim else "DDPMPipeline"
    index: dict[str, Any] = {"_class_name": pipeline}
    index[at["network"]] = ["diffusers", config["_class_name"]]
    index["scheduler"] = ["diffusers", scheduler["_class_name"]]
    if latent:
        index[at["vae"]] = ["diffusers", "AutoencoderKL"]
    if run.codec.classes:
        index["id2label"] = {str(i): name for i, name in enumerate(run.codec.classes)}
    return index


__all__ = ["knows", "read", "write"]
