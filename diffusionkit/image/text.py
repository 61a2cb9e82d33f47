"""What reads captions and prompts for a model: a learned vocabulary, or encoders of others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from diffusionkit.errors import UserError
from diffusionkit.image.prompts import Prompt, parse, read_file


class TextReader(Protocol):
    """Words -> what a network is told; saved with the codec as JSON.

    `examples` are captions that were held out. They take turns where nobody asks for anything.
    """

    examples: list[str]

    def condition(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Captions as the data have them -> entries of a condition, each with a row for each: "text", or "tokens", "tokens_mask"
        and "pooled"."""
        ...

    def prompts(self, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
        """The same of prompts with weights, and with a warning for what is too long."""
        ...

    def arguments(self) -> dict[str, Any]:
        """Those of a network that is told it."""
        ...

    def notes(self) -> list[str]:
        """What a person should know of how captions are read, a sentence each."""
        ...

    def described(self) -> dict[str, Any]:
        """What the codec's file says; `text_reader` reads it."""
        ...


def text_reader(content: dict[str, Any]) -> TextReader:
    """The reader that `described` described.

    Raises:
        ValueError: if the description is damaged.
    """
    if content["kind"] == "bytes":
        from diffusionkit.image.vocabulary import Vocabulary

        return Vocabulary.read(content)
    if content["kind"] == "encoders":
        from diffusionkit.image.encoders import Encoders

        return Encoders.read(content)
    raise ValueError('"kind" of the text must be "bytes" or "encoders"')


def asked(
    text: TextReader | None,
    indices: Tensor,
    prompt: str | None = None,
    negative: str | None = None,
    prompts: str | Path | None = None,
) -> dict[str, Tensor]:
    """The entries of a condition for the samples with these running numbers.

    Args:
        text: of the model; None if it is told none.
        indices: running numbers (B,).
        prompt: for all of them.
        negative: what they shall not be; it takes the place of no text in classifier-free guidance.
        prompts: a file with one prompt a line, which take turns.

    Raises:
        UserError: for a model without text, and for prompts that cannot be read.
    """
    for name, value in {"prompt": prompt, "negative": negative, "prompts": prompts}.items():
        if value is not None and text is None:
            raise UserError(f"--{name}: {str(value)!r} was asked for, but this model was trained without text")
    if text is None:
        return {}
    words = wanted(text, prompt, prompts)
    if words is None:
        found = text.condition([text.examples[i % len(text.examples)] for i in indices.tolist()])
    else:
        each = text.prompts([parse(words[i % len(words)]) for i in range(min(len(words), int(indices.max()) + 1))])
        found = {name: value[indices % len(words)] for name, value in each.items()}
    if negative is None:
        return found
    other = text.prompts([parse(negative)])
    for name in found.keys() ^ other.keys():  # weights that one of both has
        for side in (found, other):
            side.setdefault(name, torch.ones_like(next(iter(side.values())), dtype=torch.float32))
    return found | {"negative": {name: value.expand(len(indices), *value.shape[1:]) for name, value in other.items()}}


def wanted(text: TextReader | None, prompt: str | None = None, prompts: str | Path | None = None) -> list[str] | None:
    """The prompts as they were typed; None if there are none, and captions take turns.

    Raises:
        UserError: if there are two sorts of them, or none to fall back on.
    """
    if prompt is not None and prompts is not None:
        raise UserError("--prompt and --prompts: choose one of the two")
    if prompts is not None:
        return read_file(prompts)
    if prompt is None and text is not None and not text.examples:
        raise UserError("--prompt: is missing; this run has no captions to fall back on")
    return None if prompt is None else [prompt]


def said(
    text: TextReader | None, n: int, prompt: str | None = None, prompts: str | Path | None = None
) -> list[str] | None:
    """What each of n samples was drawn from, as it was typed or as the data have it; None where no words were used."""
    words = wanted(text, prompt, prompts) or (None if text is None else text.examples)
    return None if words is None else [words[i % len(words)] for i in range(n)]


__all__ = ["TextReader", "asked", "said", "text_reader", "wanted"]
