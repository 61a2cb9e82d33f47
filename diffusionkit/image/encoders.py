"""Frozen text encoders of others, CLIP or T5, in place of one that is trained: optional, with the library `transformers`.

They are read from folders on disk, as safetensors; nothing is downloaded and nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusionkit.errors import UserError
from diffusionkit.image.prompts import Prompt
from diffusionkit.image.vocabulary import warn_cut

KEY = "data.encoder"
_KEPT = 1e9  # bytes of encoded captions that are kept in memory
# By the model_type of config.json, the class in transformers and where the width stands.
_KINDS = {
    "clip": ("CLIPTextModel", "hidden_size"),
    "clip_text_model": ("CLIPTextModel", "hidden_size"),
    "t5": ("T5EncoderModel", "d_model"),
}


class Encoders:
    """Captions as the last hidden states of frozen encoders; those of two stand side by side, as in SDXL (Podell et al. 2023).

    Args:
        folders: of one or two encoders, each with its tokenizer in it or, as pipelines have it, beside it (`tokenizer` beside
            `text_encoder`, `tokenizer_2` beside `text_encoder_2`).
        length: tokens in a text, padding included; what is longer is cut.
        examples: captions that were held out, which take turns where nobody asks for anything.
    """

    kind = "encoders"

    def __init__(self, folders: Sequence[str], length: int, examples: Sequence[str] = ()) -> None:
        self.folders, self.length, self.examples = [str(folder) for folder in folders], length, list(examples)
        self._kept: dict[str, tuple[Tensor, ...]] = {}

    @classmethod
    def load(cls, folders: Sequence[str], length: int, examples: Sequence[str] = ()) -> Encoders:
        """Reads the weights.

        Raises:
            UserError: if a folder holds no encoder, the length is more than it knows, or transformers is not installed.
        """
        found = cls([str(Path(folder).expanduser().resolve()) for folder in folders], length, examples)
        for one in found._models:
            if one.longest is not None and length > one.longest:
                raise UserError(f"data.length: {one.folder} reads texts of at most {one.longest} tokens, not {length}")
        return found

    @cached_property
    def _models(self) -> list[Frozen]:
        return [Frozen(Path(folder)) for folder in self.folders]

    def condition(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Captions -> "tokens" (B, length, width), "tokens_mask" (B, length) and "pooled" (B, width)."""
        rows = []
        for caption in captions:
            row = self._kept.get(caption)
            if row is None:
                row = self._read(Prompt(caption))
                if (len(self._kept) + 1) * row[0].numel() * 4 < _KEPT:
                    self._kept[caption] = row
            rows.append(row)
        return self._joined(rows)

    def prompts(self, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
        """The same of prompts, whose weights multiply how far tokens are from the mean of the empty text; warns of what is cut."""
        return self._joined([self._read(prompt, warn=True) for prompt in prompts])

    def _read(self, prompt: Prompt, warn: bool = False) -> tuple[Tensor, ...]:
        parts = [one.read(prompt, self.length, warn) for one in self._models]
        tokens = torch.cat([tokens * mask[:, None] for tokens, mask, _ in parts], 1)
        return tokens, torch.stack([mask for _, mask, _ in parts]).any(0), torch.cat([pooled for *_, pooled in parts])

    @staticmethod
    def _joined(rows: Sequence[tuple[Tensor, ...]]) -> dict[str, Tensor]:
        names = ("tokens", "tokens_mask", "pooled")
        return {name: torch.stack(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}

    def arguments(self) -> dict[str, Any]:
        """Those of a network that is told these tokens."""
        return widths(self.folders)

    def notes(self) -> list[str]:
        """What a person should know of how the captions are read."""
        return [
            f"captions are read by {' and '.join(self.folders)}, which must be there whenever the run is drawn from"
        ]

    def described(self) -> dict[str, Any]:
        """What the codec's file says; the weights stay where they are."""
        return {"kind": self.kind, "length": self.length, "examples": self.examples, "folders": self.folders}

    @classmethod
    def read(cls, content: dict[str, Any]) -> Encoders:
        """The encoders that `described` described; their weights are read when they are needed.

        Raises:
            ValueError: if that is damaged.
        """
        folders, length, examples = content["folders"], content["length"], content["examples"]
        texts = [folders, examples]
        if not all(isinstance(one, list) and all(isinstance(text, str) for text in one) for one in texts):
            raise ValueError("folders and examples must be lists of texts")
        if type(length) is not int or length < 3 or not folders:
            raise ValueError("length must be an integer of at least 3, and folders must not be empty")
        return cls(folders, length, examples)


class Frozen:
    """One encoder with its tokenizer.

    Raises:
        UserError: if the folder holds none, or transformers is not installed.
    """

    def __init__(self, folder: Path) -> None:
        name = _KINDS[_config(folder)["model_type"]][0]
        try:
            import transformers
        except ImportError as error:
            raise UserError(f"{KEY}: needs the library transformers: pip install 'diffusionkit[text]'") from error
        beside = folder.parent / folder.name.replace("text_encoder", "tokenizer")
        own = any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer_config.json", "vocab.json"))
        try:
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(
                str(folder if own else beside), local_files_only=True, trust_remote_code=False
            )
            model = getattr(transformers, name).from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
        except Exception as error:  # the library raises many kinds
            raise UserError(f"{KEY}: {folder} cannot be read ({str(error).splitlines()[0]})") from error
        self.folder, self.device = folder, "cuda" if torch.cuda.is_available() else "cpu"
        self.model = model.requires_grad_(False).eval().to(self.device)
        self.longest: int | None = getattr(model.config, "max_position_embeddings", None)
        self._nothing: Tensor | None = None

    def read(self, prompt: Prompt, length: int, warn: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (length, width), which of them there are (length,), and one vector for all (width,)."""
        values, mask, pooled, spans = self._run(prompt.text, length)
        if warn:
            every = self.tokenizer(prompt.text, return_offsets_mapping=True)["offset_mapping"]
            if len(every) > length:
                warn_cut(prompt.text, max(last for _, last in spans), length)
        if prompt.weights is None:
            return values, mask, pooled
        if self._nothing is None:
            empty, there, *_ = self._run("", length)
            self._nothing = empty[there].mean(0)
        weights = torch.tensor([prompt.weight(first, last) for first, last in spans])
        values = torch.lerp(self._nothing.expand_as(values), values, weights[:, None])
        return values, mask, pooled

    @torch.no_grad()
    def _run(self, text: str, length: int) -> tuple[Tensor, Tensor, Tensor, list[tuple[int, int]]]:
        read = self.tokenizer(
            text, padding="max_length", truncation=True, max_length=length, return_offsets_mapping=True
        )
        ids, mask = (torch.tensor([read[key]], device=self.device) for key in ("input_ids", "attention_mask"))
        found = self.model(input_ids=ids, attention_mask=mask)
        values, there = found.last_hidden_state[0].cpu(), mask[0].bool().cpu()
        pooled = getattr(found, "pooler_output", None)
        pooled = values[there].mean(0) if pooled is None else pooled[0].cpu()
        return values, there, pooled, [tuple(span) for span in read["offset_mapping"]]


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        found = json.loads(path.read_text("utf-8"))
        known = found["model_type"] in _KINDS
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{KEY}: {folder} is no text encoder: its config.json cannot be read") from error
    if not known:
        raise UserError(f"{KEY}: {folder} holds a model of the kind {found['model_type']!r}; CLIP and T5 are known")
    return found


def widths(folders: Sequence[str]) -> dict[str, Any]:
    """`token_dim` and `pooled_dim` of a network for these encoders; `...` where they are not there (yet)."""
    total = 0
    for folder in folders:
        try:
            found = _config(Path(folder).expanduser())
        except UserError:
            return {"token_dim": ..., "pooled_dim": ...}
        total += int((found.get("text_config") or found)[_KINDS[found["model_type"]][1]])
    return {"token_dim": total, "pooled_dim": total}


__all__ = ["Encoders", "Frozen", "widths"]
