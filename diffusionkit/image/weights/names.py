"""Which tensor of a diffusers network is which of ours: the same list serves both ways."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from diffusionkit.image.backbones.autoencoder import Autoencoder
from diffusionkit.image.backbones.dit import DiT
from diffusionkit.image.backbones.layers import Block, SpatialAttention, Stage
from diffusionkit.image.backbones.unet import UNet

_OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}  # attention before version 0.17


@dataclass(frozen=True)
class Piece:
    """A tensor of ours and those of theirs that lie in it one after another, along the first dimension.

    Attributes:
        ours: its name.
        theirs: their names.
        swapped: the two halves of the columns change places (cosines and sines of the time).
        extra: rows at the end of ours that they do not have; zeros.
        rows: of each of theirs; equally many by default.
    """

    ours: str
    theirs: tuple[str, ...]
    swapped: bool = False
    extra: int = 0
    rows: tuple[int, ...] = ()

    def split(self, tensor: Tensor) -> dict[str, Tensor]:
        """What is theirs of the tensor of ours."""
        tensor = _swap(tensor) if self.swapped else tensor
        tensor = tensor[: len(tensor) - self.extra]
        rows = self.rows or (len(tensor) // len(self.theirs),) * len(self.theirs)
        return {name: part.contiguous() for name, part in zip(self.theirs, tensor.split(rows), strict=True)}

    def join(self, found: Mapping[str, Tensor]) -> Tensor:
        """The tensor of ours from those of theirs."""
        tensor = torch.cat([found[name] for name in self.theirs])
        if self.extra:
            tensor = torch.cat([tensor, tensor.new_zeros(self.extra, *tensor.shape[1:])])
        return _swap(tensor) if self.swapped else tensor


@dataclass
class Names:
    """All pieces of a network.

    Attributes:
        pieces: what holds weights.
        copies: names of theirs that must hold the same as another of theirs.
        fixed: tensors of ours that theirs does without.
        optional: names of theirs that tell nothing.
    """

    pieces: list[Piece] = field(default_factory=list)
    copies: dict[str, str] = field(default_factory=dict)
    fixed: dict[str, Tensor] = field(default_factory=dict)
    optional: tuple[str, ...] = ()

    def layer(self, ours: str, *theirs: str, swapped: bool = False) -> None:
        """Weight and bias of a layer."""
        for part in ("weight", "bias"):
            names = tuple(f"{name}.{part}" for name in theirs)
            self.pieces.append(Piece(f"{ours}.{part}", names, swapped and part == "weight"))


def theirs(names: Names, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors under their names; also the shapes that they must have, of a network without memory."""
    found: dict[str, Tensor] = {}
    for piece in names.pieces:
        found |= piece.split(state[piece.ours])
    return found | {copy: found[of].clone() for copy, of in names.copies.items()}


def ours(names: Names, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors as the state of our network."""
    return {piece.ours: piece.join(found) for piece in names.pieces} | names.fixed


def renewed(name: str) -> str:
    """The present name of a tensor whose name may be an old one."""
    for new, old in _OLD.items():
        name = name.replace(f".{old}.", f".{new}.") if "attentions." in name else name
    return name


def _swap(tensor: Tensor) -> Tensor:
    first, second = tensor.chunk(2, 1)
    return torch.cat([second, first], 1)


# ---- parts ----


def _block(names: Names, ours: str, theirs: str, module: Block) -> None:
    for layer in ("norm1", "conv1", "norm2", "conv2"):
        names.layer(f"{ours}.{layer}", f"{theirs}.{layer}")
    if not isinstance(module.shortcut, nn.Identity):
        names.layer(f"{ours}.shortcut", f"{theirs}.conv_shortcut")


def _attention(names: Names, ours: str, theirs: str) -> None:
    names.layer(f"{ours}.norm", f"{theirs}.group_norm")
    _heads(names, f"{ours}.attention", theirs)


def _heads(names: Names, ours: str, theirs: str) -> None:
    names.layer(f"{ours}.project", *(f"{theirs}.{part}" for part in ("to_q", "to_k", "to_v")))
    names.layer(f"{ours}.out", f"{theirs}.to_out.0")


# ---- networks ----


def of_unet(network: UNet, levels: int, blocks: int, cosines_first: bool, null: bool) -> Names:
    """The names of a `UNet2DModel`.

    Args:
        network: ours.
        levels: number of them.
        blocks: residual blocks per level of the encoder.
        cosines_first: whether their features of the time are in our order.
        null: whether their last class stands for none.
    """
    names, conditions = Names(), []
    names.layer("conditions.time.layers.0", "time_embedding.linear_1", swapped=not cosines_first)
    names.layer("conditions.time.layers.2", "time_embedding.linear_2")
    if network.classes:
        names.pieces.append(Piece("conditions.label.weight", ("class_embedding.weight",), extra=int(not null)))
    names.layer("encoder.first", "conv_in")
    places = [
        ("encoder", "down_blocks.{}", blocks, "downsamplers.0"),
        ("decoder", "up_blocks.{}", blocks + 1, "upsamplers.0"),
    ]

    def stage(ours: str, block: str, attention: str, module: Stage) -> None:
        _block(names, f"{ours}.block", block, module.block)
        conditions.append((f"{block}.time_emb_proj", module.block.conditions))
        if module.attention is not None:
            _attention(names, f"{ours}.attention", attention)

    def half(ours: str, theirs: str, count: int, sampler: str) -> None:
        steps, k = getattr(network, ours).steps, 0
        for level in range(levels):
            at = theirs.format(level)
            for i in range(count):
                stage(f"{ours}.steps.{k}", f"{at}.resnets.{i}", f"{at}.attentions.{i}", steps[k])
                k += 1
            if level + 1 < levels:
                if isinstance(steps[k], Block):
                    _block(names, f"{ours}.steps.{k}", f"{at}.{sampler}", steps[k])
                    conditions.append((f"{at}.{sampler}.time_emb_proj", steps[k].conditions))
                else:
                    names.layer(f"{ours}.steps.{k}", f"{at}.{sampler}.conv")
                k += 1

    half(*places[0])
    for i, module in enumerate(network.middle):
        stage(f"middle.{i}", f"mid_block.resnets.{i}", "mid_block.attentions.0", module)
    half(*places[1])
    names.layer("norm", "conv_norm_out")
    names.layer("last", "conv_out")
    return _conditioned(names, conditions)


def _conditioned(names: Names, conditions: list[tuple[str, int]]) -> Names:
    """With the one matrix that holds what every block is told, in the order of the blocks."""
    widths = tuple(width for _, width in conditions)
    for part in ("weight", "bias"):
        inside = tuple(f"{name}.{part}" for name, _ in conditions)
        names.pieces.append(Piece(f"conditions.project.{part}", inside, rows=widths))
    return names


def of_autoencoder(network: Autoencoder, blocks: int, levels: int, quantised: tuple[bool, bool]) -> Names:
    """The names of an `AutoencoderKL`; `quantised` says whether it has convolutions after the encoder, before the decoder."""
    names = Names()

    def walk(ours: str, place: Iterator[tuple[str, str]], modules: nn.Sequential, start: int, stop: int) -> None:
        resnet = ""
        for k in range(start, stop):
            module = modules[k]
            if isinstance(module, SpatialAttention):
                _attention(names, f"{ours}.{k}", resnet.replace("resnets", "attentions"))
                continue
            kind, resnet = next(place)
            if kind == "block":
                _block(names, f"{ours}.{k}", resnet, module)
            else:
                names.layer(f"{ours}.{k}", resnet)

    def places(half: str, count: int, sampler: str) -> Iterator[tuple[str, str]]:
        for level in range(levels):
            for i in range(count):
                yield "block", f"{half}.{level}.resnets.{i}"
            if level + 1 < levels:
                yield "conv", f"{half}.{level}.{sampler}.0.conv"

    def middle(half: str) -> Iterator[tuple[str, str]]:
        for i in range(2):
            yield "block", f"{half}.mid_block.resnets.{i}"

    encoder, decoder = network.encoder, network.decoder
    names.layer("encoder.0", "encoder.conv_in")
    walk("encoder", places("encoder.down_blocks", blocks, "downsamplers"), encoder, 1, len(encoder) - 4)
    walk("encoder", middle("encoder"), encoder, len(encoder) - 4, len(encoder) - 1)
    names.layer(f"encoder.{len(encoder) - 1}.norm", "encoder.conv_norm_out")
    names.layer("moments.0", "encoder.conv_out")
    names.layer("open.1", "decoder.conv_in")
    walk("decoder", middle("decoder"), decoder, 0, 3)
    walk("decoder", places("decoder.up_blocks", blocks + 1, "upsamplers"), decoder, 3, len(decoder) - 2)
    names.layer(f"decoder.{len(decoder) - 2}.norm", "decoder.conv_norm_out")
    names.layer(f"decoder.{len(decoder) - 1}", "decoder.conv_out")
    for ours, theirs, there in (("moments.1", "quant_conv", quantised[0]), ("open.0", "post_quant_conv", quantised[1])):
        if there:
            names.layer(ours, theirs)
        else:
            names.fixed |= _identity(ours, len(network.get_submodule(ours).bias))
    return names


def _identity(ours: str, channels: int) -> dict[str, Tensor]:
    return {f"{ours}.weight": torch.eye(channels)[:, :, None, None], f"{ours}.bias": torch.zeros(channels)}


def of_dit(network: DiT) -> Names:
    """The names of a `DiTTransformer2DModel`, in which every block has a copy of what embeds time and class."""
    names, width = Names(optional=("pos_embed.pos_embed",)), network.norm.normalized_shape[0]
    first = "transformer_blocks.0.norm1.emb"
    names.layer("conditions.time.layers.0", f"{first}.timestep_embedder.linear_1")
    names.layer("conditions.time.layers.2", f"{first}.timestep_embedder.linear_2")
    names.pieces.append(Piece("conditions.label.weight", (f"{first}.class_embedder.embedding_table.weight",)))
    shared = [name for piece in names.pieces for name in piece.theirs]
    names.layer("embed", "pos_embed.proj")
    conditions = []
    for i in range(len(network.blocks)):
        at = f"transformer_blocks.{i}"
        if i:
            names.copies |= {name.replace("transformer_blocks.0", at): name for name in shared}
        conditions.append((f"{at}.norm1.linear", 6 * width))
        _heads(names, f"blocks.{i}.attention", f"{at}.attn1")
        names.layer(f"blocks.{i}.mlp.0", f"{at}.ff.net.0.proj")
        names.layer(f"blocks.{i}.mlp.3", f"{at}.ff.net.2")
    conditions.append(("proj_out_1", 2 * width))
    names.layer("last", "proj_out_2")
    return _conditioned(names, conditions)


__all__ = ["Names", "Piece", "of_autoencoder", "of_dit", "of_unet", "ours", "renewed", "theirs"]
