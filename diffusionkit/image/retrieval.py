"""Whether pictures show what was asked for: is the prompt found among others?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diffusionkit.core.state import tree_map
from diffusionkit.errors import UserError
from diffusionkit.image.contrastive import Contrastive
from diffusionkit.image.pictures import Pictures
from diffusionkit.image.text import TextReader

AMONG = 100
_CHUNK = 256
_TIME = 0.02  # as clean as a model of noised pictures has often seen


def judge(run: Any, shape: tuple[int, ...]) -> Any:
    """The run, once it is seen to be one that compares pictures of this shape with texts.

    Raises:
        UserError: if it is not.
    """
    if not isinstance(run.diffusion.objective, Contrastive):
        raise UserError(
            f"{run.folder}: compares no pictures with texts; train one that does: diffusionkit train image/emoji_clip"
        )
    if tuple(run.codec.shape) != tuple(shape):
        found, wanted = ("x".join(map(str, one)) for one in (run.codec.shape, shape))
        raise UserError(f"{run.folder}: compares pictures of {found}, these are {wanted}")
    return run


@torch.no_grad()
def cosines(run: Any, pictures: Tensor, captions: list[str]) -> Tensor:
    """(N, M) cosines of uint8 pictures (N, C, H, W) and M captions, of a run that was trained to compare them."""
    diffusion, codec = run.diffusion, run.codec
    device = next(diffusion.parameters()).device
    network, words = diffusion.network, []
    for part in range(0, len(captions), _CHUNK):
        cond = codec.text.condition(captions[part : part + _CHUNK])
        words.append(network.words(tree_map(lambda leaf: leaf.to(device), cond)))
    seen = []
    for chunk in pictures.split(_CHUNK):
        x = codec.encode(chunk).to(device)
        t = torch.full((len(x),), _TIME, device=device)
        seen.append(network.picture(diffusion.process.inputs(x, t, None), t))
    return (torch.cat(seen) @ torch.cat(words).T).cpu()


def accuracy(similarity: Tensor, own: Tensor, among: int = AMONG, seed: int = 0) -> float:
    """The share of pictures whose own caption is the most similar of `among`, the others being drawn; a tie counts in part.

    Args:
        similarity: (N, M) of pictures and captions.
        own: (N,) which of the captions is that of each picture.
        among: how many captions there are to choose from.
        seed: of the choice.

    Raises:
        ValueError: if there are fewer captions.
    """
    n, m = similarity.shape
    if m < among:
        raise ValueError(f"{among} captions to choose from were asked for, there are {m}")
    generator = torch.Generator().manual_seed(seed)
    rank = torch.rand(n, m, generator=generator).scatter_(1, own[:, None], 2.0)
    others = rank.topk(among, 1).indices[:, 1:]  # the first is its own
    mine, theirs = similarity.gather(1, own[:, None]), similarity.gather(1, others)
    best, ties = (theirs <= mine).all(1), (theirs == mine).sum(1)
    return float((best / (1 + ties)).double().mean())


def retrieval(
    run: Any, pictures: Tensor, prompts: list[str], pool: list[str], among: int = AMONG, seed: int = 0
) -> float:
    """The share of pictures whose prompt a run finds among others.

    Args:
        run: a contrastive one.
        pictures: uint8 (N, C, H, W).
        prompts: of each picture.
        pool: where the other captions come from.
        among: how many captions there are to choose from; fewer where the pool has fewer.
        seed: of the choice.
    """
    captions = list(dict.fromkeys([*prompts, *pool]))
    place = {caption: i for i, caption in enumerate(captions)}
    own = torch.tensor([place[prompt] for prompt in prompts])
    return accuracy(cosines(run, pictures, captions), own, min(among, len(captions)), seed)


def measure(run: Any, text: TextReader, samples: Tensor, held_out: Pictures) -> dict[str, Any]:
    """Of samples that were drawn from a model's held-out captions in turn, and of held-out pictures.

    Args:
        run: a contrastive one.
        text: of the model.
        samples: uint8 (N, C, H, W).
        held_out: pictures with captions.
    """
    captions = [each[0] for each in held_out.captions or []]
    drawn = [text.examples[i % len(text.examples)] for i in range(len(samples))]
    among = min(AMONG, len(set(captions) | set(drawn)))
    found = {"samples": (samples, drawn), "held_out": (held_out.images, captions)}
    values = {name: retrieval(run, pictures, words, captions) for name, (pictures, words) in found.items()}
    return values | {"chance": 1 / among, "among": among, "judge": str(run.folder)}


__all__ = ["AMONG", "accuracy", "cosines", "judge", "measure", "retrieval"]
