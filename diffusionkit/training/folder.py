"""What a run folder says of itself, read without its network: no torch, and nothing in it is executed."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusionkit.domain import finite
from diffusionkit.errors import UserError
from diffusionkit.recipe import parse
from diffusionkit.training.files import write_json

ORIGIN = "origin.json"


def described(folder: str | Path) -> tuple[str, str, dict[str, Any]]:
    """The name of a run's recipe, its description, and its sections as they stand in the file.

    Raises:
        UserError: if the folder holds no recipe that can be read.
    """
    path = Path(folder) / "recipe.yaml"
    if not path.is_file():
        raise UserError(f"{folder} is no run: it has no recipe.yaml; `diffusionkit train` makes runs")
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: this is no text file in UTF-8, so it cannot be a recipe") from error
    head = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        head.append(line.lstrip("# "))
    name = head.pop(0).removeprefix("recipe: ") if head else path.parent.name
    return name, "\n".join(head), parse(text, str(path))


def weights(folder: str | Path) -> tuple[int, int]:
    """The number of averaged weights and the step they are from, of the file's header alone; zeros where there is no file yet.

    Raises:
        UserError: if the file is corrupt.
    """
    path = Path(folder) / "weights.safetensors"
    if not path.is_file():
        return 0, 0
    with path.open("rb") as file:
        try:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(size, 100_000_000)))
            about = header.pop("__metadata__", {})
            return sum(math.prod(tensor["shape"]) for tensor in header.values()), int(about.get("step", 0))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: this is no readable weights file; it may have been cut off") from error


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The whole rows of a metrics.csv; empty cells are left out."""
    if not path.is_file():
        return []
    rows = []
    for row in csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))):
        try:
            numbers = {name: float(value) for name, value in row.items() if value}
            rows.append({**numbers, "step": int(numbers["step"])})
            if None in row.values():
                rows.pop()
        except (TypeError, ValueError, KeyError, AttributeError):
            continue  # a row that was cut off when the run was killed
    return rows


def latest(rows: list[dict[str, float]]) -> dict[str, float]:
    """The last value of each column of a metrics.csv."""
    found: dict[str, float] = {}
    for row in rows:
        found |= row
    return found


def origin(folder: str | Path) -> dict[str, Any] | None:
    """What a run folder says of where it was imported from; None if it was not.

    Raises:
        UserError: if the file is damaged.
    """
    path = Path(folder) / ORIGIN
    if not path.is_file():
        return None
    found = _json(path)
    if not isinstance(found.get("text"), str):
        raise UserError(f"{path}: is damaged: it does not say where the run is from")
    return found


def keep_measures(folder: str | Path, measures: Mapping[str, Any]) -> Path:
    """Writes metrics.json into a run folder; figures that are no numbers, for which JSON has no word, become null."""
    path = Path(folder) / "metrics.json"
    write_json(path, finite(measures))
    return path


def measured(folder: str | Path) -> dict[str, Any]:
    """What `diffusionkit evaluate` has left in metrics.json.

    Raises:
        UserError: if the run has not been evaluated, or the file is damaged.
    """
    path = Path(folder) / "metrics.json"
    if not path.is_file():
        raise UserError(f"{folder}: has not been evaluated; run `diffusionkit evaluate {folder}` first")
    return _json(path)


def environment(folder: str | Path) -> dict[str, Any]:
    """Versions, device and seed of the training; empty for a run that was not trained here.

    Raises:
        UserError: if the file is damaged.
    """
    path = Path(folder) / "environment.json"
    return _json(path) if path.is_file() else {}


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: is damaged: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: is damaged: it holds no object")
    return found
