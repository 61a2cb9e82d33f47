"""What `diffusionkit dock` does with a run of the domain of poses."""

from __future__ import annotations

import sys
from typing import Any

from diffusionkit.molecule import structures
from diffusionkit.molecule.docking import Docking, pocket, unseen
from diffusionkit.molecule.pose_ranking import judge_of
from diffusionkit.molecule.screen import Screened, screen, table_of

_NAMED = 5  # ligands that are left out and named on the terminal; the table has all


def command(
    run: Any,
    sampler: Any,
    out: str,
    n: int,
    seed: int,
    fresh: bool,
    *,
    protein: str,
    ligand: str,
    center: str | None = None,
    pocket_from: str | None = None,
    residues: str | None = None,
    radius: float | None = None,
    without: str = "",
    embedding: str | None = None,
    relax: bool = False,
    confidence: str | None = None,
) -> str:
    """What `diffusionkit dock` does; its keyword-only arguments are options of the command.

    Args:
        run: a loaded model of poses.
        sampler: how to step from noise to data.
        out: an .sdf or .sdf.gz file.
        n: poses of each ligand.
        seed: of start structures and noise.
        fresh: forget what was begun.
        protein, ligand, center, pocket_from, residues, radius, without, embedding, relax, confidence: see docs/poses.md.

    Returns:
        The closing line.
    """
    where = pocket(run.codec, protein, center, pocket_from, residues, radius, without, embedding)
    how = Docking(run.diffusion, sampler, where, judge_of(run, confidence), n, relax, seed)
    given = list(structures.ligands(ligand))
    for note in (*where.notes, *unseen(run.codec, where, (one for _, one in given))):
        _say(note)
    try:
        found = screen(how, given, out, fresh)
    except KeyboardInterrupt:
        _say(f"{out} is not finished; the same command goes on with it")
        raise
    failed = found.failed
    for text in failed[:_NAMED]:
        _say(f"left out: {text}")
    return _closing(found, len(failed))


def _closing(found: Screened, failed: int) -> str:
    poses = sum(row["poses"] for row in found.rows)
    said = f"{poses:,} poses of {len(found.rows) - failed:,} ligands in {found.path}"
    if len(found.rows) == 1:
        best = found.rows[0]["confidence"]
        ranking = "no model judges them, the densest first" if best is None else f"confidence of the first {best:.2f}"
        return f"{poses:,} poses in {found.path} ({ranking})"
    said += f", their table in {table_of(found.path)}"
    said += f"; {found.again:,} were there already" if found.again else ""
    return said + (f"; {failed:,} left out, the reasons are in the table" if failed else "")


def _say(text: str) -> None:
    print(text, file=sys.stderr)
