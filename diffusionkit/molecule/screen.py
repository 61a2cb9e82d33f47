"""Docking of many ligands to one pocket: a bad one stops nothing, and what was interrupted goes on where it was."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import diffusionkit
from diffusionkit.errors import UserError
from diffusionkit.molecule import pose_draw, pose_export
from diffusionkit.molecule.docking import Docking
from diffusionkit.molecule.pool import progress

_NAMED = 5  # ligands that are left out and named in an error; the table has all


@dataclass(frozen=True)
class Screened:
    """What a screen has left.

    Args:
        path: the SDF file of all poses.
        rows: of the table, one for each ligand: its best pose, or the reason why there is none.
        again: how many ligands were there already.
    """

    path: Path
    rows: list[dict[str, Any]]
    again: int = 0

    @property
    def failed(self) -> list[str]:
        """Why ligands have no poses, a sentence each."""
        return [row["reason"] for row in self.rows if row["reason"]]


def screen(how: Docking, ligands: Iterable[tuple[str, Any]], out: str | Path, fresh: bool = False) -> Screened:
    """Docks ligands one after another into an SDF file, and puts a table of them beside it where there are several.

    Each finished ligand goes into `OUT.part`, which the same call takes up again after an interruption. The files themselves
    are written at the end.

    Args:
        how: they are docked.
        ligands: names, with SMILES or an RDKit molecule or None for what could not be read.
        out: an .sdf or .sdf.gz file.
        fresh: forget what was begun.

    Raises:
        UserError: if there is no ligand, none can be docked, or what was begun was begun otherwise.
    """
    path, given = Path(out), list(ligands)
    if not path.name.lower().endswith(pose_export.ENDINGS):
        raise UserError(f"{path}: poses go into files that end in {', '.join(pose_export.ENDINGS)}")
    if not given:
        raise UserError("there is no ligand to dock")
    part = path.with_name(f"{path.name}.part")
    keys = [_key(number, *one) for number, one in enumerate(given, 1)]
    steps = how.sampler.steps * -(-how.n // pose_draw.TOGETHER)
    path.parent.mkdir(parents=True, exist_ok=True)
    done = begun(part, _settings(how), fresh)
    again = sum(key in done for key in keys)
    with progress(f"{len(given):,} ligands docked", len(given) * steps) as tick, part.open("a") as file:
        tick(again * steps)
        for key, (name, one) in zip(keys, given, strict=True):
            if key not in done:
                done[key] = _docked(how, name, one, tick, steps)
                file.write(json.dumps({"key": key, **done[key]}) + "\n")
                file.flush()
    found = [done[key] for key in keys]
    rows = [entry["row"] for entry in found]
    texts = [text for entry in found for text in entry["texts"]]
    if texts:
        pose_export.write(path, texts)
        if len(given) > 1:
            _table(rows, table_of(path))
    part.unlink()
    if not texts:
        raise UserError("no ligand could be docked: " + "; ".join(row["reason"] for row in rows[:_NAMED]))
    return Screened(path, rows, again)


def table_of(path: Path) -> Path:
    """The table that belongs to an SDF file: its name with .csv."""
    return path.with_name(path.name.removesuffix(".gz").removesuffix(".sdf") + ".csv")


def _docked(how: Docking, name: str, given: Any, tick: Callable[[int], None], steps: int) -> dict[str, Any]:
    """The records and the row of a ligand."""
    ticks = 0

    def watch(*_: Any) -> None:
        nonlocal ticks
        ticks += 1
        tick(1)

    try:
        poses = how.poses(pose_draw.ligand(name, given), watch)
    except (ValueError, RuntimeError) as error:  # those of RDKit as well as our own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        texts, row = [], {"ligand": name, "poses": 0, "reason": reason if name in reason else f"{name}: {reason}"}
    else:
        best = {key: _number(getattr(poses[0], key)) for key in ("confidence", "density", "clashes", "strain")}
        texts, row = poses.texts(), {"ligand": name, "poses": len(poses), **best, "reason": ""}
    tick(steps - ticks)
    return {"texts": texts, "row": row}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def _table(rows: list[dict[str, Any]], path: Path) -> None:
    columns = ("ligand", "poses", "confidence", "density", "clashes", "strain", "reason")
    part = path.with_name(f".{path.name}.part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(part, path)


# ---- what was begun


def begun(part: Path, settings: dict[str, Any], fresh: bool) -> dict[str, dict[str, Any]]:
    """The finished ligands of a part file, by key; makes the file ready to be added to.

    Raises:
        UserError: if it was begun with other settings.
    """
    done, lines = {}, part.read_bytes().splitlines(keepends=True) if part.exists() and not fresh else []
    good = b""
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:  # cut off when it was interrupted
            break
        if not good and entry != settings:
            wrong = [name for name in settings if entry.get(name) != settings[name]]
            raise UserError(f"{part}: was begun with another {', '.join(wrong)}; --fresh begins anew")
        if good:
            done[entry.pop("key")] = entry
        good += line if line.endswith(b"\n") else b""
    if not good or good != b"".join(lines):
        part.write_bytes(good or (json.dumps(settings) + "\n").encode())
    return done


def _settings(how: Docking) -> dict[str, Any]:
    """All that poses depend on but the ligand, short enough to be compared by."""
    judge, arrays = how.judge, [how.pocket.pos, how.pocket.z, how.pocket.center]
    return {
        "diffusionkit": diffusionkit.__version__,
        "model": _digest(*_weights(how.diffusion)),
        "confidence": judge and _digest(*_weights(judge.diffusion), judge.scale, judge.shift),
        "pocket": _digest(*arrays),
        "sampler": f"{type(how.sampler).__name__} {sorted((k, str(v)) for k, v in vars(how.sampler).items())}",
        "n": how.n,
        "relax": how.relax,
        "seed": how.seed,
    }


def _weights(diffusion: Any) -> list[np.ndarray]:
    return [p.detach().cpu().numpy() for p in diffusion.parameters()]


def _key(number: int, name: str, given: Any) -> str:
    text = given if isinstance(given, str) or given is None else given.ToBinary()
    return f"{number} {name} {_digest(text)}"


def _digest(*parts: Any) -> str:
    found = hashlib.blake2b(digest_size=8)
    for part in parts:
        found.update(
            part.tobytes() if isinstance(part, np.ndarray) else part if isinstance(part, bytes) else repr(part).encode()
        )
    return found.hexdigest()
