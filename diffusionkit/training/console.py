"""Lines on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text


def say(console: Console, text: str) -> None:
    """One line as it is."""
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def tell(console: Console, label: str, text: str) -> None:
    """One line of what is about to happen."""
    console.print(Text.assemble((f"{label:<10}", "bold"), text), soft_wrap=True)
