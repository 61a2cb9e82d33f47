"""Options that no command declares: keys of a recipe, a sampler or a domain, read from the words left on the line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_type_hints

from diffusionkit.errors import UserError
from diffusionkit.schema import Misfit, Reader, Typed, nearest

_ASSIGNED = re.compile(r"(?:--)?([A-Za-z][\w.-]*)=(.*)", re.DOTALL)


def split(words: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """The plain words, and `--key value`, `--key=value`, `key=value` as a dict; an option without a value is 'true'."""
    plain: list[str] = []
    options: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        assigned = _ASSIGNED.fullmatch(word)
        if assigned:
            options[_key(assigned[1])] = assigned[2]
        elif word.startswith("--") and len(word) > 2:
            options[_key(word[2:])] = rest.pop(0) if rest and not _is_option(rest[0]) else "true"
        elif _is_option(word):
            raise UserError(f"unknown option {word}")
        else:
            plain.append(word)
    return plain, options


def one(words: list[str], what: str) -> str:
    """The only plain word of a command.

    Raises:
        UserError: if there is none, or more than one.
    """
    if len(words) == 1:
        return words[0]
    raise UserError(f"{what} is missing" if not words else f"only one {what} can be given, not {', '.join(words)}")


def keywords(function: Callable[..., Any]) -> dict[str, Any]:
    """The keyword-only parameters of a function by option name ('class' for `class_`), with their annotations."""
    hints = get_type_hints(function)
    found = inspect.signature(function).parameters.values()
    return {p.name.rstrip("_"): hints.get(p.name, Any) for p in found if p.kind is p.KEYWORD_ONLY}


def arguments(function: Callable[..., Any], options: Mapping[str, str]) -> dict[str, Any]:
    """Options as keyword arguments of a function, each read as its annotation asks.

    Raises:
        UserError: if one is of the wrong type.
    """
    names = {p.rstrip("_"): p for p in inspect.signature(function).parameters}
    found, reader = {}, Reader({}, trusted=False)
    for name, annotation in keywords(function).items():
        if name in options:
            try:
                found[names[name]] = reader.read(Typed(options[name]), annotation, name).make()
            except Misfit as problem:
                raise UserError(f"{flag(name)}: {problem}") from problem
    return found


def refuse(options: Iterable[str], right: Iterable[str]) -> None:
    """Raises a `UserError` for options that nobody takes; `right` are the names that could have been meant."""
    names = sorted({flag(name) for name in right})
    wrong = [f"unknown option {flag(o)}{nearest(flag(o), names)} (options: {', '.join(names)})" for o in options]
    if wrong:
        raise UserError("\n".join(wrong))


def flag(name: str) -> str:
    """'batch_size' as it is typed: '--batch-size'."""
    return f"--{name.replace('_', '-')}"


def _key(text: str) -> str:
    return text.replace("-", "_")


def _is_option(word: str) -> bool:
    return word.startswith("-") and not re.fullmatch(r"-[\d.].*|-", word)
