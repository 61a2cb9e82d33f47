"""Byte-pair vocabularies learned from captions (Sennrich et al. 2016, over bytes as in GPT-2)."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffusionkit.image.backbones.text import END, PAD, START
from diffusionkit.image.prompts import Prompt

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

_FIRST = max(PAD, START, END) + 1  # what the library calls 0; no text can name the three that come before
LEAST = _FIRST + 256


class Vocabulary:
    """Texts as ids of frequent runs of bytes, so that there is no text that it cannot say.

    Args:
        tokenizer: of the library `tokenizers`.
        length: the most ids in a text, start and end included; what is longer is cut.
        examples: captions that were held out, which take turns where nobody asks for anything.
        cut: how many captions of the training part are longer.

    Raises:
        ValueError: for an impossible length.
    """

    kind = "bytes"

    def __init__(self, tokenizer: Tokenizer, length: int, examples: Sequence[str] = (), cut: int = 0) -> None:
        if type(length) is not int or length < 3:
            raise ValueError(f"length must be an integer of at least 3, not {length!r}")
        self.tokenizer, self.length, self.examples, self.cut = tokenizer, length, list(examples), cut
        self._known: dict[str, list[int]] = {}

    @classmethod
    def learn(cls, captions: Iterable[str], size: int, length: int, examples: Sequence[str] = ()) -> Vocabulary:
        """The vocabulary of these captions: all bytes, and the most frequent pairs joined until there are `size` ids.

        Args:
            captions: of the training part.
            size: the most ids; where captions have no more pairs that come twice there are fewer.
            length: the most ids in a text.
            examples: captions that were held out.
        """
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size - _FIRST,
            min_frequency=2,
            show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        )
        captions = list(captions)
        tokenizer.train_from_iterator([f" {caption}" for caption in captions], trainer)
        found = cls(tokenizer, length, examples)
        found.cut = sum(len(found.ids(caption)) > length - 2 for caption in captions)
        return found

    def __len__(self) -> int:
        return self.tokenizer.get_vocab_size() + _FIRST

    def _encoded(self, text: str) -> Encoding:
        """Of the text with a space before it, as before every other word, so that the first one is no word of its own."""
        return self.tokenizer.encode(f" {text}" if text else "", add_special_tokens=False)

    def ids(self, text: str) -> list[int]:
        """The ids of a text, without start and end."""
        return [i + _FIRST for i in self._encoded(text).ids]

    def text(self, ids: Iterable[int]) -> str:
        """The text of ids; start, end and padding are left out."""
        return self.tokenizer.decode([i - _FIRST for i in ids if i >= _FIRST])[1:]

    def condition(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Captions as the data have them -> {"text": ids (B, length)}, padded with 0."""
        ids = torch.full((len(captions), self.length), PAD)
        for row, caption in zip(ids, captions, strict=True):
            known = self._known.get(caption)
            if known is None:
                known = self._known[caption] = [START, *self.ids(caption)[: self.length - 2], END]
            row[: len(known)] = torch.tensor(known)
        return {"text": ids}

    def prompts(self, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
        """Prompts -> {"text": ids, "text_weights": (B, length)}, of which the latter are left out where all are 1.

        Warns of what is cut.
        """
        found = self.condition([prompt.text for prompt in prompts])
        weights = torch.ones(found["text"].shape)
        for row, prompt in zip(weights, prompts, strict=True):
            spans = [(max(0, first - 1), last - 1) for first, last in self._encoded(prompt.text).offsets]
            most = self.length - 2
            if len(spans) > most:
                warn_cut(prompt.text, spans[most - 1][1], self.length)
            for i, span in enumerate(spans[:most], 1):
                row[i] = prompt.weight(*span)
        return found if (weights == 1).all() else found | {"text_weights": weights}

    def arguments(self) -> dict[str, Any]:
        """Those of a network that reads these texts."""
        return {"vocabulary": len(self), "text_length": self.length}

    def notes(self) -> list[str]:
        """What a person should know of how the captions were read."""
        cut = f"; {self.cut:,} captions are longer and cut" if self.cut else ""
        return [f"a vocabulary of {len(self):,} byte pairs was learned; texts have {self.length} at most{cut}"]

    def described(self) -> dict[str, Any]:
        """What the codec's file says."""
        tokenizer = json.loads(self.tokenizer.to_str())
        return {"kind": self.kind, "length": self.length, "examples": self.examples, "tokenizer": tokenizer}

    @classmethod
    def read(cls, content: dict[str, Any]) -> Vocabulary:
        """The vocabulary that `described` described.

        Raises:
            ValueError: if that is damaged.
        """
        from tokenizers import Tokenizer

        examples = content["examples"]
        if not isinstance(examples, list) or not all(isinstance(text, str) for text in examples):
            raise ValueError("examples must be a list of texts")
        try:
            tokenizer = Tokenizer.from_str(json.dumps(content["tokenizer"]))
        except Exception as error:  # the library raises nothing more special
            raise ValueError(f"its tokenizer cannot be read ({error})") from error
        return cls(tokenizer, content["length"], examples)


def warn_cut(text: str, kept: int, length: int) -> None:
    """Says which part of a prompt is not read."""
    warnings.warn(
        f"--prompt: {text!r} is longer than the {length} tokens that the model reads; this is cut: {text[kept:]!r}",
        stacklevel=2,
    )


__all__ = ["LEAST", "Vocabulary", "warn_cut"]
