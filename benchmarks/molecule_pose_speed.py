"""How fast poses are drawn: 20 steps of 40 poses at once beside a search of Vina, and what a second ligand costs.

The second ligand is taken twice: within a program, where all that it saves is to read and encode the protein, and as whole
commands, `diffusionkit dock` with one ligand and with two, where it also saves the start of Python and the loading of the model.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import molecule_vina
from benchmarks.cells import Cell, Cells, say, show
from benchmarks.timing import ratio, rounds, timed
from diffusionkit.molecule import docking, pose_checks, pose_draw, structures
from diffusionkit.molecule.docking import Docking
from diffusionkit.molecule.made_pockets import surround
from diffusionkit.molecule.pockets import ATOM_NAMES, RESIDUES, Pocket
from diffusionkit.molecule.pose_codec import PoseCodec
from diffusionkit.recipe import Recipe
from diffusionkit.training.run import Run, assemble

POSES, STEPS, RESIDUES_THERE = 40, 20, 300
LIGANDS = ("O=C(Nc1ccc(OCc2ccccn2)cc1)C1CCN(Cc2ccc(Cl)cc2)CC1", "COc1ccc(CN2CCC(C(=O)Nc3ccc(OCc4cccnc4)cc3)CC2)cc1")
"""Two of 31 and 32 heavy atoms."""
_APART, _ATOMS = 2.62, 8  # Å between atoms of the outer shell, about as dense as proteins, and atoms of a residue


def poses(cells: Cells, options: Namespace) -> None:
    """20 steps of 40 poses of a 30-atom ligand in a 300-residue pocket beside Vina, and the second ligand beside the first."""
    key = f"{STEPS} steps x {POSES} poses, {RESIDUES_THERE} residues, {options.threads} threads"
    lines = _against(cells.get(f"vina/{key}", lambda: against(options))) if molecule_vina.installed() else []
    if not lines:
        say("Vina is not installed: pip install vina meeko")
    lines += _second(cells.get(f"second/{key}", lambda: second(options)), "second ligand over first")
    lines += _second(cells.get(f"commands/{key}", lambda: commands(options)), "the same, as whole commands")
    show(lines)


def against(options: Namespace) -> Cell:
    """Seconds of one batched run and of a search of Vina with exhaustiveness 8 on as many threads, in turns."""
    how, ligand = _docking(), pose_draw.ligand("first", LIGANDS[0])
    start = docking.starts(ligand.mol, 1, 0)[0]

    def vina() -> None:
        molecule_vina.dock(how.pocket, ligand.mol, start, cores=options.threads)

    seconds = rounds({"ours": lambda: how.poses(ligand), "Vina": vina}, options.repeats, warmup=1)
    return {"ratio": ratio(seconds["ours"], seconds["Vina"]), "rounds": seconds, "atoms": ligand.mol.GetNumAtoms()}


def second(options: Namespace) -> Cell:
    """Seconds of the first ligand, with the protein read and encoded, and of a second one."""
    found: dict[str, list[float]] = {"first": [], "second": [], "reading": []}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "protein.pdb"
        file.write_text(pose_checks.pdb(pocket()))
        how, (one, other) = _docking(), (pose_draw.ligand(f"{k}", text) for k, text in enumerate(LIGANDS))
        for _ in range(options.repeats):
            there, reading = timed(lambda: structures.pocket(structures.read(file), center=(0, 0, 0), radius=60.0))
            again = replace(how, pocket=there)
            found["reading"].append(reading)
            found["first"].append(reading + timed(lambda again=again: again.poses(one))[1])
            found["second"].append(timed(lambda again=again: again.poses(other))[1])
    return {"ratio": ratio(found["second"], found["first"]), "rounds": found}


def commands(options: Namespace) -> Cell:
    """Seconds of `diffusionkit dock` with one ligand, and what it takes longer with two."""
    with tempfile.TemporaryDirectory() as name:
        folder, how, recipe = Path(name), _docking(), Recipe.load("molecule/poses")
        run = Run(folder, recipe, recipe.domain, PoseCodec(), how.diffusion, 0).save(folder / "run")
        (folder / "protein.pdb").write_text(pose_checks.pdb(how.pocket))
        for count in (1, 2):
            (folder / f"{count}.smi").write_text("\n".join(LIGANDS[:count]))
        place = ["--protein", str(folder / "protein.pdb"), "--center", "0,0,0", "--radius", "60", "--steps", str(STEPS)]

        def dock(count: int) -> None:
            wanted = ["--ligand", str(folder / f"{count}.smi"), "-n", str(POSES), "--out", str(folder / "out.sdf")]
            command = [sys.executable, "-m", "diffusionkit", "dock", str(run), *place, *wanted, "--fresh"]
            environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
            subprocess.run(command, check=True, capture_output=True, env=environment)
            (folder / "out.sdf").unlink()

        taken = rounds({"one": lambda: dock(1), "two": lambda: dock(2)}, options.repeats, warmup=1)
    found = {"first": taken["one"], "second": [b - a for a, b in zip(taken["one"], taken["two"], strict=True)]}
    return {"ratio": ratio(found["second"], found["first"]), "rounds": found}


def pocket() -> Pocket:
    """A made pocket about a drug, in a shell of atoms as dense as a protein, of 300 residues in all."""
    ligand = pose_draw.ligand("shape", LIGANDS[0]).mol
    from diffusionkit.molecule.conformer_draw import with_conformers

    inner = surround(with_conformers(ligand, docking.starts(ligand, 1, 0)), 0)
    pos = inner.pos - inner.center
    axis = np.arange(-40, 40, _APART)
    cloud = np.stack(np.meshgrid(axis, axis, axis), -1).reshape(-1, 3)
    cloud = cloud[np.argsort((cloud**2).sum(1))]
    near = ((cloud[:, None] - pos[None]) ** 2).sum(-1).min(1) < 3.0**2
    inside = (cloud**2).sum(1) < np.quantile((pos**2).sum(1), 0.9)
    missing = _ATOMS * (RESIDUES_THERE - int(inner.group.max()) - 1)
    outer = cloud[~near & ~inside][:missing]
    outer = outer + np.random.default_rng(0).normal(scale=0.1, size=outer.shape)
    names = [ATOM_NAMES.index(name) for name in ("N", "CA", "C", "O", "CB", "CG", "CD1", "CD2")]
    groups = int(inner.group.max()) + 1 + np.arange(len(outer)) // _ATOMS
    return Pocket(
        "made",
        z=np.concatenate([inner.z, np.tile([7, 6, 6, 8, 6, 6, 6, 6], len(outer) // _ATOMS)]),
        pos=np.concatenate([pos, outer]),
        residue=np.concatenate([inner.residue, np.full(len(outer), RESIDUES.index("LEU"))]),
        atom=np.concatenate([inner.atom, np.tile(names, len(outer) // _ATOMS)]),
        group=np.concatenate([inner.group, groups]),
        center=np.zeros(3),
    )


def _docking() -> Docking:
    """The network of molecule/poses, untrained: it takes as long."""
    recipe = Recipe.load("molecule/poses")
    sampler = recipe.build("sampling")
    sampler.steps = STEPS
    return Docking(assemble(recipe, PoseCodec()).eval(), sampler, pocket(), n=POSES)


def _judged(value: float, gate: float, ambition: float | None = None) -> str:
    told = f"at most {gate:.2f}: {'met' if value <= gate else 'MISSED'}"
    return told if ambition is None else f"{told}; {ambition:.2f}: {'met' if value <= ambition else 'missed'}"


def _against(cell: Cell) -> list[dict[str, str]]:
    took = ", ".join(f"{who} {median(seconds):.1f} s" for who, seconds in cell["rounds"].items())
    return [
        {
            "what": f"{STEPS} steps x {POSES} poses of {cell['atoms']} atoms: ours over Vina",
            "value": f"{cell['ratio']:.2f}",
            "gate": _judged(cell["ratio"], 1.0, 0.25),
            "details": took,
        }
    ]


def _second(cell: Cell, what: str) -> list[dict[str, str]]:
    took = ", ".join(f"{who} {median(seconds):.1f} s" for who, seconds in cell["rounds"].items())
    return [
        {
            "what": what,
            "value": f"{cell['ratio']:.2f}",
            "gate": _judged(cell["ratio"], 2 / 3),
            "details": took,
        }
    ]
