"""The command `dock`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from diffusionkit.cli import options
from diffusionkit.cli.draw import Folder, load, resettled
from diffusionkit.cli.start import Words
from diffusionkit.errors import UserError


def dock(
    run: Folder,
    /,
    *words: Words,
    n: Annotated[int, Parameter(name=("-n", "--number"))] = 40,
    out: str = "poses.sdf",
    sampler: str | None = None,
    seed: int = 0,
    fresh: Annotated[bool, Parameter(negative=())] = False,
    device: str | None = None,
    recipe: str | None = None,
) -> None:
    """Find how ligands sit in the pocket of a protein, with a run of molecule/poses.

    `--protein p.pdb` (or .cif, also .gz) and `--ligand`, which is SMILES, or a file or folder of one or many ligands (.sdf, .mol2,
    .smi, .csv with a column smiles), are needed. The pocket is given by one of
    `--center x,y,z`, in Angstrom; `--pocket-from ref.sdf`, a ligand that lies in it; `--residues A:45,A:47`, which line it;
    a small protein is searched as a whole without any. `--radius 12` is how far the pocket reaches, by default as in training;
    `--without SO4,A:301` leaves hetero groups out; `--embedding FILE.npy` is for models that need one; `--relax` minimises every
    pose in the fixed pocket, which clears clashes.
    Further options are arguments of the sampler, such as `--steps 20`.

    Poses are ranked by a model of confidence, `--confidence RUN` or the folder `confidence` in that of the run, and by how many
    others lie near; without such a model by the latter alone. A bad ligand among many stops nothing, and a screen that was
    interrupted goes on where it was when the command is given again.

    Example: `diffusionkit dock runs/poses --protein p.pdb --ligand "CC(=O)Nc1ccc(O)cc1" --pocket-from ref.sdf --out poses.sdf`

    Args:
        run: The folder of a run.
        n: Poses of each ligand.
        out: The .sdf or .sdf.gz file; a table of many ligands goes beside it, as .csv.
        sampler: How to step from noise to data: ddpm, ddim.
        seed: Seed of the random numbers.
        fresh: Forget what an interrupted screen has finished.
        device: Such as cpu or cuda:1; the best there is if not given.
        recipe: Recipe file of the run, needed if it names classes of your own.
    """
    plain, extra = options.split([run, *words])
    folder = options.one(plain, "run")

    from diffusionkit.recipe import Recipe
    from diffusionkit.training.edit import function

    make = function((Recipe.load(recipe) if recipe else Recipe.from_run(folder)).domain, "dock")
    own = options.keywords(make)
    for name in ("protein", "ligand"):
        if name not in extra:
            raise UserError(f"{options.flag(name)} is missing")
    loaded = load(folder, device, recipe)
    others = {*own, *options.keywords(dock)} - {"n"}
    settled, rest = resettled(loaded, {"sampler": sampler} if sampler else {}, extra, others)
    print(make(loaded, settled.build("sampling"), out, n, seed, fresh, **options.arguments(make, rest)))
