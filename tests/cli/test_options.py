"""The words of a command line that no command declares."""

from __future__ import annotations

import pytest

from diffusionkit.cli import options
from diffusionkit.errors import UserError


@pytest.mark.parametrize(
    ("words", "plain", "found"),
    [
        ("r --a.b 1", ["r"], {"a.b": "1"}),
        ("--a.b 1 r", ["r"], {"a.b": "1"}),
        ("r --a.b=1 --c=x=y", ["r"], {"a.b": "1", "c": "x=y"}),
        ("r a.b=1", ["r"], {"a.b": "1"}),
        ("r --a.b -1 --c -.5", ["r"], {"a.b": "-1", "c": "-.5"}),
        ("r --flip --a.b 1", ["r"], {"flip": "true", "a.b": "1"}),
        ("r --flip", ["r"], {"flip": "true"}),
        ("r --batch-size 3", ["r"], {"batch_size": "3"}),
        ("dir/file.yaml s", ["dir/file.yaml", "s"], {}),
    ],
)
def test_words_are_split(words: str, plain: list[str], found: dict[str, str]) -> None:
    assert options.split(words.split()) == (plain, found)


def test_a_short_option_that_nobody_declared_is_refused() -> None:
    with pytest.raises(UserError, match="unknown option -q"):
        options.split(["-q"])


def test_exactly_one_word_is_asked_for() -> None:
    assert options.one(["x"], "recipe") == "x"
    with pytest.raises(UserError, match="recipe is missing"):
        options.one([], "recipe")
    with pytest.raises(UserError, match="only one run can be given, not a, b"):
        options.one(["a", "b"], "run")


def condition(codec: object, indices: object, *, class_: int | None = None, names: tuple[str, ...] = ()) -> None: ...


def test_keyword_only_arguments_are_options() -> None:
    assert list(options.keywords(condition)) == ["class", "names"]
    assert options.arguments(condition, {"class": "3", "names": "a,b"}) == {"class_": 3, "names": ("a", "b")}
    assert options.arguments(condition, {}) == {}
    with pytest.raises(UserError, match="--class: must be an integer or null, not 'three'"):
        options.arguments(condition, {"class": "three"})


def test_unknown_options_suggest_the_nearest() -> None:
    options.refuse([], ["class"])
    with pytest.raises(UserError, match="unknown option --clas; did you mean '--class'.*--batch-size"):
        options.refuse(["clas"], ["class", "batch_size"])
