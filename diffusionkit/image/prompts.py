"""Prompts as they are typed: `a (red:1.5) heart` is the text "a red heart" in which red counts one and a half times."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import NamedTuple

from diffusionkit.errors import UserError

STRESS = 1.1
"""The weight of brackets without a number, which is the usual one."""
_PIECE = re.compile(r"\\[()\\]|[()]|[^()\\]+|\\")
_WEIGHT = re.compile(r"(.*):\s*([^:]*?)\s*", re.DOTALL)


class Prompt(NamedTuple):
    """A text, and a weight for each of its characters; None where all weigh 1."""

    text: str
    weights: list[float] | None = None

    def weight(self, first: int, last: int) -> float:
        """Of the token that covers the characters from `first` to before `last`."""
        return 1.0 if self.weights is None or last <= first else self.weights[last - 1]


def parse(typed: str) -> Prompt:
    r"""Reads brackets: `(red:1.5)` weighs 1.5, `(red)` 1.1, brackets in brackets multiply, `\(` is a bracket.

    Raises:
        UserError: for a bracket without its other half, and for a weight that is none.
    """
    characters: list[str] = []
    weights: list[float] = []
    open_at: list[int] = []
    for piece in _PIECE.findall(typed):
        if piece == "(":
            open_at.append(len(characters))
        elif piece == ")":
            if not open_at:
                raise UserError(rf"--prompt: {typed!r} closes a bracket that was not opened; \) is a bracket as such")
            _close(open_at.pop(), characters, weights, typed)
        else:
            text = piece[1:] if piece[0] == "\\" and len(piece) == 2 else piece
            characters += text
            weights += [1.0] * len(text)
    if open_at:
        raise UserError(rf"--prompt: {typed!r} does not close a bracket; \( is a bracket as such")
    return Prompt("".join(characters), weights if any(weight != 1 for weight in weights) else None)


def _close(first: int, characters: list[str], weights: list[float], typed: str) -> None:
    """Multiplies the weights from `first` on by the number at their end, and takes it away."""
    found, by = _WEIGHT.fullmatch("".join(characters[first:])), STRESS
    if found:
        try:
            by = float(found[2])
        except ValueError:
            by = math.nan
        if not 0 <= by <= 100:
            raise UserError(f"--prompt: {typed!r} has the weight {found[2]!r}; it must be a number from 0 to 100")
        del characters[first + len(found[1]) :], weights[first + len(found[1]) :]
    weights[first:] = [weight * by for weight in weights[first:]]


def read_file(path: str | Path) -> list[str]:
    """The prompts of a file, one a line; empty lines are left out.

    Raises:
        UserError: if it cannot be read, or has none.
    """
    try:
        lines = Path(path).read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise UserError(f"--prompts: {path} cannot be read ({reason})") from error
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise UserError(f"--prompts: {path} holds no prompt; it has one a line")
    return found


__all__ = ["STRESS", "Prompt", "parse", "read_file"]
