"""States, batches and the few helpers that walk over them.

A state is a tensor, or a dict of states (a product of spaces). Whatever else travels with it, such as conditions, is a
tree of the same kind: a tensor, a dict, or None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

State: TypeAlias = "Tensor | dict[str, Any]"


class Batch(NamedTuple):
    """What the training loop is handed: a state x, its condition and, for ragged data, which row belongs to which sample."""

    x: Any
    cond: Any = None
    rows: Any = None


def tree_map(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """The tree with `function` applied to its tensors (and to the matching leaves of `others`); None stays None."""
    if tree is None:
        return None
    if isinstance(tree, dict):
        return {
            k: tree_map(function, v, *(o[k] if isinstance(o, dict) else o for o in others)) for k, v in tree.items()
        }
    return function(tree, *others)


def tree_leaves(tree: Any) -> list[Tensor]:
    """The tensors of a tree, in order."""
    if tree is None:
        return []
    if isinstance(tree, dict):
        return [leaf for value in tree.values() for leaf in tree_leaves(value)]
    return [tree]


def tree_cat(trees: list[Any]) -> Any:
    """Trees of one shape joined along the first dimension."""
    return tree_map(lambda *leaves: torch.cat(leaves), *trees)
