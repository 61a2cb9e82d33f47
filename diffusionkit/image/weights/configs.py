"""The settings of diffusers' networks as arguments of ours, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from diffusionkit.errors import UserError

Config = Mapping[str, Any]
Arguments = dict[str, Any]

# What a setting is where a file leaves it out.
DEFAULTS: dict[str, dict[str, Any]] = {
    "UNet2DModel": {
        "sample_size": None, "in_channels": 3, "out_channels": 3, "center_input_sample": False,
        "time_embedding_type": "positional", "time_embedding_dim": None, "freq_shift": 0, "flip_sin_to_cos": True,
        "down_block_types": ["DownBlock2D", *["AttnDownBlock2D"] * 3], "mid_block_type": "UNetMidBlock2D",
        "up_block_types": [*["AttnUpBlock2D"] * 3, "UpBlock2D"], "block_out_channels": [224, 448, 672, 896],
        "layers_per_block": 2, "mid_block_scale_factor": 1, "downsample_padding": 1, "downsample_type": "conv",
        "upsample_type": "conv", "dropout": 0.0, "act_fn": "silu", "attention_head_dim": 8, "norm_num_groups": 32,
        "attn_norm_num_groups": None, "norm_eps": 1e-5, "resnet_time_scale_shift": "default", "add_attention": True,
        "class_embed_type": None, "num_class_embeds": None, "num_train_timesteps": None,
    },
    "AutoencoderKL": {
        "in_channels": 3, "out_channels": 3, "down_block_types": ["DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D"], "block_out_channels": [64], "layers_per_block": 1, "act_fn": "silu",
        "latent_channels": 4, "norm_num_groups": 32, "sample_size": 32, "scaling_factor": 0.18215, "shift_factor": None,
        "latents_mean": None, "latents_std": None, "force_upcast": True, "use_quant_conv": True,
        "use_post_quant_conv": True, "mid_block_add_attention": True,
    },
    "DiTTransformer2DModel": {
        "num_attention_heads": 16, "attention_head_dim": 72, "in_channels": 4, "out_channels": None, "num_layers": 28,
        "dropout": 0.0, "norm_num_groups": 32, "attention_bias": True, "sample_size": 32, "patch_size": 2,
        "activation_fn": "gelu-approximate", "num_embeds_ada_norm": 1000, "upcast_attention": False,
        "norm_type": "ada_norm_zero", "norm_elementwise_affine": False, "norm_eps": 1e-5,
    },
}  # fmt: skip
# The older name of the same network; its defaults are for others, so that a file has to say what it is.
DEFAULTS["Transformer2DModel"] = DEFAULTS["DiTTransformer2DModel"] | {
    "num_attention_heads": 16, "attention_head_dim": 88, "num_layers": 1, "attention_bias": False, "patch_size": None,
    "in_channels": None, "sample_size": None, "norm_type": "layer_norm", "norm_elementwise_affine": True,
    "activation_fn": "geglu", "num_embeds_ada_norm": None, "cross_attention_dim": None, "num_vector_embeds": None,
    "use_linear_projection": False, "only_cross_attention": False, "double_self_attention": False,
    "attention_type": "default", "caption_channels": None,
}  # fmt: skip
# The only values of settings that our networks have no argument for.
_ONLY: dict[str, dict[str, tuple[Any, ...]]] = {
    "UNet2DModel": {
        "center_input_sample": (False,), "time_embedding_type": ("positional",), "mid_block_type": ("UNetMidBlock2D",),
        "mid_block_scale_factor": (1,), "downsample_padding": (0, 1), "downsample_type": ("conv", "resnet"),
        "upsample_type": ("conv", "resnet"), "act_fn": ("silu", "swish"), "add_attention": (True,),
        "resnet_time_scale_shift": ("default", "scale_shift"), "class_embed_type": (None,),
    },
    "AutoencoderKL": {"act_fn": ("silu", "swish"), "mid_block_add_attention": (True,), "latents_mean": (None,),
                      "latents_std": (None,)},
    "DiTTransformer2DModel": {
        "attention_bias": (True,), "activation_fn": ("gelu-approximate",), "norm_type": ("ada_norm_zero",),
        "norm_elementwise_affine": (False,),
    },
}  # fmt: skip
_ONLY["Transformer2DModel"] = _ONLY["DiTTransformer2DModel"] | {
    "cross_attention_dim": (None,), "num_vector_embeds": (None,), "only_cross_attention": (False,),
    "double_self_attention": (False,), "attention_type": ("default",), "caption_channels": (None,),
}  # fmt: skip

# The arguments of our U-Net and DiT that can be said in the format, or make no difference to what the network computes.
WORDS = {
    "shape", "classes", "channels", "multipliers", "blocks", "attention", "heads", "head_channels", "dropout", "scale_shift",
    "resample", "groups", "eps", "asymmetric", "time_steps", "time_shift", "outputs", "checkpoint", "channels_last", "patch",
    "width", "depth", "mlp", "qk_norm",
}  # fmt: skip


def complete(config: Config, where: str) -> dict[str, Any]:
    """A network's settings with all that are left out.

    Raises:
        UserError: for a network or a setting that we have nothing for.
    """
    name = config.get("_class_name")
    if name not in DEFAULTS:
        raise UserError(f"{where}: _class_name is {name!r}; supported are {', '.join(DEFAULTS)}")
    known = DEFAULTS[name]
    for key, value in config.items():
        if key not in known and not key.startswith("_") and value not in (None, False):
            raise UserError(f"{where}: {key}: this setting of {name} is unknown here and cannot be honoured")
    found = known | {key: value for key, value in config.items() if key in known}
    for key, allowed in _ONLY[name].items():
        if found[key] not in allowed:
            choice = " or ".join(map(repr, allowed))
            raise UserError(f"{where}: {key}: {found[key]!r} is not supported; {choice} is")
    return found


class Reader:
    """Settings of one file, whose mistakes are told with its path and the key."""

    def __init__(self, config: dict[str, Any], where: str) -> None:
        self.config, self.where = config, where

    def refuse(self, key: str, sentence: str) -> UserError:
        return UserError(f"{self.where}: {key}: {sentence}")

    def whole(self, key: str) -> int:
        value = self.config[key]
        if type(value) is not int or value < 1:
            raise self.refuse(key, f"must be an integer from 1 on, not {value!r}")
        return value

    def number(self, key: str) -> float:
        value = self.config[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.refuse(key, f"must be a number, not {value!r}")
        return float(value)

    def several(self, key: str, kind: type) -> list[Any]:
        value = self.config[key]
        if not isinstance(value, list) or not value or not all(type(one) is kind for one in value):
            raise self.refuse(key, f"must be a list of {kind.__name__}, not {value!r}")
        return value

    def size(self, levels: int = 1) -> tuple[int, int]:
        """`sample_size`, which must be halved so often as there are levels below the first."""
        value = self.config["sample_size"]
        height, width = (value, value) if type(value) is int else (value if isinstance(value, list) else (0, 0))
        if not all(type(side) is int and side > 0 for side in (height, width)):
            raise self.refuse("sample_size", f"must be the side of the pictures, or height and width, not {value!r}")
        factor = 2 ** (levels - 1)
        if height % factor or width % factor:
            raise self.refuse("sample_size", f"{height}x{width} cannot be halved {levels - 1} times")
        return height, width

    def multiples(self) -> tuple[int, list[int]]:
        """`block_out_channels` as a width and its multiples."""
        widths = self.several("block_out_channels", int)
        first = widths[0]
        if min(widths) < 1 or any(width % first for width in widths):
            raise self.refuse("block_out_channels", f"must be multiples of the first, not {widths}")
        return first, [width // first for width in widths]

    def kinds(self, levels: int, down: Config, up: Config) -> list[Any]:
        """What `down` and `up` say of the blocks of each level, which must be the same on both ways."""
        found = []
        for key, known in (("down_block_types", down), ("up_block_types", up)):
            names = self.several(key, str)
            if len(names) != levels:
                raise self.refuse(key, f"must have {levels} entries, as block_out_channels has, not {len(names)}")
            short = [name.removeprefix("UNetRes") for name in names]
            for name in short:
                if name not in known:
                    raise self.refuse(key, f"{name!r} is not supported; {', '.join(known)} are")
            found.append([known[name] for name in short])
        if found[0] != found[1][::-1]:
            raise self.refuse("up_block_types", "must be those of down_block_types the other way round")
        return found[0]


# ---- U-Net ----


def unet(config: dict[str, Any], where: str, null: bool, steps: int) -> tuple[tuple[int, int, int], Arguments]:
    """The shape of the states and the arguments of our U-Net, of complete settings.

    Args:
        config: of `complete`.
        where: the file.
        null: whether the last class stands for none.
        steps: length of the chain.
    """
    read = Reader(config, where)
    channels, multipliers = read.multiples()
    levels = len(multipliers)
    size = read.size(levels)
    blocks = read.kinds(
        levels,
        {"DownBlock2D": (False, False), "AttnDownBlock2D": (True, None), "ResnetDownsampleBlock2D": (False, True)},
        {"UpBlock2D": (False, False), "AttnUpBlock2D": (True, None), "ResnetUpsampleBlock2D": (False, True)},
    )
    attended = [attends for attends, _ in blocks]
    shape = (read.whole("in_channels"), *size)
    groups, head = read.whole("norm_num_groups"), config["attention_head_dim"]
    if any((channels * m) % groups for m in multipliers):
        raise read.refuse("norm_num_groups", f"{groups} does not divide block_out_channels")
    wide = [channels * m for m, attends in zip(multipliers, attended, strict=True) if attends]
    if head is not None and any(
        width % read.whole("attention_head_dim") for width in [*wide, channels * multipliers[-1]]
    ):
        raise read.refuse("attention_head_dim", f"{head} does not divide the channels of each level with attention")
    scale_shift = config["resnet_time_scale_shift"] == "scale_shift"
    if config["attn_norm_num_groups"] != groups and (scale_shift or config["attn_norm_num_groups"] is not None):
        raise read.refuse(
            "attn_norm_num_groups", f"must be norm_num_groups, {groups}, not {config['attn_norm_num_groups']}"
        )
    if config["time_embedding_dim"] not in (None, 4 * channels):
        raise read.refuse("time_embedding_dim", f"must be 4 times the first of block_out_channels, {4 * channels}")
    arguments = {
        "channels": channels, "multipliers": multipliers, "blocks": read.whole("layers_per_block"),
        "attention": _attended(attended, size, read), "heads": 1, "head_channels": head,
        "dropout": read.number("dropout"), "scale_shift": scale_shift, "resample": _resample(blocks, config, read),
        "groups": groups, "eps": read.number("norm_eps"), "asymmetric": config["downsample_padding"] == 0,
        "time_steps": steps, "time_shift": read.number("freq_shift"),
    }  # fmt: skip
    read.whole("out_channels")
    if config["num_class_embeds"] is not None and read.whole("num_class_embeds") - null < 1:
        raise read.refuse("num_class_embeds", "holds no class")
    return shape, arguments


def _attended(attended: list[bool], size: tuple[int, int], read: Reader) -> list[int]:
    """The heights at which there is attention, as our U-Net asks for it."""
    sides = [(size[0] // 2**level, size[1] // 2**level) for level in range(len(attended))]
    heights = [height for (height, _), wanted in zip(sides, attended, strict=True) if wanted]
    if [any(side in heights for side in pair) for pair in sides] != attended:
        raise read.refuse("down_block_types", f"levels of {heights} pixels with attention are like others without")
    return heights


def _resample(blocks: list[tuple[bool, bool | None]], config: dict[str, Any], read: Reader) -> str:
    """Whether levels are joined by convolutions or by residual blocks: the same everywhere."""
    kinds = set()
    for attends, block in blocks[:-1]:  # the last has nothing below
        down, up = (config[key] == "resnet" for key in ("downsample_type", "upsample_type"))
        if attends and down != up:
            raise read.refuse("upsample_type", f"must be that of downsample_type, {config['downsample_type']}")
        kinds.add(down if attends else block)
    if len(kinds) > 1:
        raise read.refuse("down_block_types", "convolutions and residual blocks cannot both halve the size")
    return "block" if kinds == {True} else "conv"


def of_unet(arguments: Arguments, shape: tuple[int, int, int], outputs: int, null: bool) -> dict[str, Any]:
    """Settings of a `UNet2DModel` of our arguments, what the normalisations have included as `groups`."""
    multipliers, size = arguments["multipliers"], shape[1:]
    levels = len(multipliers)
    if any(side % 2 ** (levels - 1) for side in size):
        raise UserError(f"backbone.multipliers: the format halves sides exactly, and {size[0]}x{size[1]} cannot be")
    sides = [tuple(side // 2**level for side in size) for level in range(levels)]
    attended = [any(side in arguments["attention"] for side in pair) for pair in sides]
    widths = [arguments["channels"] * m for m in multipliers]
    asked = [width for width, wanted in zip(widths, attended, strict=True) if wanted] + [widths[-1]]
    block = arguments["resample"] == "block"
    down = ["AttnDownBlock2D" if a else "ResnetDownsampleBlock2D" if block else "DownBlock2D" for a in attended]
    up = ["AttnUpBlock2D" if a else "ResnetUpsampleBlock2D" if block else "UpBlock2D" for a in attended]
    classes, groups = arguments.get("classes"), arguments["groups"]
    return {
        "sample_size": size[0] if size[0] == size[1] else list(size),
        "in_channels": shape[0], "out_channels": outputs * shape[0], "freq_shift": _plain(arguments["time_shift"]),
        "down_block_types": down, "up_block_types": up[::-1], "block_out_channels": widths,
        "layers_per_block": arguments["blocks"], "downsample_padding": 0 if arguments["asymmetric"] else 1,
        "downsample_type": "resnet" if block else "conv", "upsample_type": "resnet" if block else "conv",
        "dropout": arguments["dropout"], "attention_head_dim": _head(arguments, asked), "norm_num_groups": groups,
        "attn_norm_num_groups": groups if arguments["scale_shift"] else None, "norm_eps": arguments["eps"],
        "resnet_time_scale_shift": "scale_shift" if arguments["scale_shift"] else "default",
        "num_class_embeds": classes + null if classes else None,
    }  # fmt: skip


def _head(arguments: Arguments, widths: list[int]) -> int | None:
    if arguments["head_channels"] is None and arguments["heads"] == 1:
        return None
    heads = {w // (arguments["heads"] if arguments["head_channels"] is None else max(1, w // arguments["head_channels"]))
             for w in widths}  # fmt: skip
    if len(heads) > 1:
        raise UserError("backbone.heads: the format has heads of one width for all levels; head_channels gives them")
    return heads.pop()


def _plain(value: float) -> int | float:
    return int(value) if float(value).is_integer() else value


# ---- autoencoder ----


def autoencoder(
    config: dict[str, Any], where: str, latent_size: tuple[int, int] | None = None
) -> tuple[tuple[int, int, int], Arguments]:
    """The shape of the pictures and the arguments of our autoencoder; `latent_size` where latents of it are known."""
    read = Reader(config, where)
    channels, multipliers = read.multiples()
    levels = len(multipliers)
    attended = read.kinds(
        levels,
        {"DownEncoderBlock2D": False, "AttnDownEncoderBlock2D": True},
        {"UpDecoderBlock2D": False, "AttnUpDecoderBlock2D": True},
    )
    if config["out_channels"] != read.whole("in_channels"):
        raise read.refuse(
            "out_channels", f"must be in_channels, {config['in_channels']}, not {config['out_channels']!r}"
        )
    size = read.size(levels) if latent_size is None else tuple(side * 2 ** (levels - 1) for side in latent_size)
    groups = read.whole("norm_num_groups")
    if any((channels * m) % groups for m in multipliers):
        raise read.refuse("norm_num_groups", f"{groups} does not divide block_out_channels")
    arguments = {
        "channels": channels, "multipliers": multipliers, "blocks": read.whole("layers_per_block"),
        "latent": read.whole("latent_channels"), "attention": _attended(attended, size, read), "groups": groups,
    }  # fmt: skip
    return (config["in_channels"], *size), arguments


def scaling(config: dict[str, Any], where: str) -> tuple[list[float], list[float]]:
    """Shift and scale of each channel of the latents, as our codec has them."""
    read = Reader(config, where)
    if not read.number("scaling_factor") > 0:
        raise read.refuse("scaling_factor", f"must be above 0, not {config['scaling_factor']}")
    shift = 0.0 if config["shift_factor"] is None else read.number("shift_factor")
    n = read.whole("latent_channels")
    return [shift] * n, [read.number("scaling_factor")] * n


def of_autoencoder(arguments: Arguments) -> dict[str, Any]:
    """Settings of an `AutoencoderKL` of our arguments, the shape of the pictures and `groups` included."""
    channels, *size = arguments["shape"]
    levels = len(arguments["multipliers"])
    attended = [any(side // 2**level in arguments["attention"] for side in size) for level in range(levels)]
    return {
        "in_channels": channels, "out_channels": channels,
        "down_block_types": ["AttnDownEncoderBlock2D" if a else "DownEncoderBlock2D" for a in attended],
        "up_block_types": ["AttnUpDecoderBlock2D" if a else "UpDecoderBlock2D" for a in attended][::-1],
        "block_out_channels": [arguments["channels"] * m for m in arguments["multipliers"]],
        "layers_per_block": arguments["blocks"], "latent_channels": arguments["latent"],
        "norm_num_groups": arguments["groups"], "sample_size": size[0] if size[0] == size[1] else list(size),
    }  # fmt: skip


# ---- transformer ----


def dit(config: dict[str, Any], where: str, steps: int) -> tuple[tuple[int, int, int], Arguments]:
    """The shape of the states and the arguments of our DiT; they are told classes, `num_embeds_ada_norm` of them."""
    read = Reader(config, where)
    heads, size, patch = read.whole("num_attention_heads"), read.size(), read.whole("patch_size")
    width = heads * read.whole("attention_head_dim")
    read.whole("num_embeds_ada_norm")
    if width % 4:
        raise read.refuse("attention_head_dim", f"times num_attention_heads must be a multiple of 4, not {width}")
    if size[0] != size[1] or size[0] % patch:
        raise read.refuse(
            "patch_size", f"must divide the sides of squares, and {patch} does not those of {size[0]}x{size[1]}"
        )
    arguments = {
        "patch": patch, "width": width, "depth": read.whole("num_layers"), "heads": heads, "mlp": 4.0,
        "dropout": read.number("dropout"), "eps": read.number("norm_eps"), "time_steps": steps, "time_shift": 1.0,
    }  # fmt: skip
    return (read.whole("in_channels"), *size), arguments


def of_dit(arguments: Arguments, shape: tuple[int, int, int], outputs: int) -> dict[str, Any]:
    """Settings of a `DiTTransformer2DModel` of our arguments."""
    fixed = {"mlp": 4.0, "qk_norm": False, "time_shift": 1.0}
    for key, value in fixed.items():
        if arguments[key] != value:
            raise UserError(f"backbone.{key}: the format's DiT has {value}, not {arguments[key]}")
    if not arguments.get("classes"):
        raise UserError("data.labels: the format's DiT is always told a class, and this run has none")
    if shape[1] != shape[2]:
        raise UserError(f"data: the format's DiT has square pictures, not {shape[1]}x{shape[2]}")
    return {
        "num_attention_heads": arguments["heads"], "attention_head_dim": arguments["width"] // arguments["heads"],
        "in_channels": shape[0], "out_channels": outputs * shape[0], "num_layers": arguments["depth"],
        "dropout": arguments["dropout"], "sample_size": shape[1], "patch_size": arguments["patch"],
        "num_embeds_ada_norm": arguments["classes"], "norm_eps": arguments["eps"],
    }  # fmt: skip


__all__ = ["DEFAULTS", "autoencoder", "complete", "dit", "of_autoencoder", "of_dit", "of_unet", "scaling", "unet"]
