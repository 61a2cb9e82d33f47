"""Molecules from Python: fit molecules, draw molecules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusionkit.core import Sampler
from diffusionkit.errors import UserError
from diffusionkit.molecule import generate, readers, wanted
from diffusionkit.molecule.data import from_file
from diffusionkit.molecule.export import Judged, judged, open_writer
from diffusionkit.molecule.pool import progress
from diffusionkit.molecule.sets import MoleculeSet
from diffusionkit.recipe import Recipe
from diffusionkit.training.fitted import Fitted
from diffusionkit.training.run import Run

if TYPE_CHECKING:
    from rdkit import Chem

PRESETS = {"default": "molecule/nci_small", "qm9": "molecule/qm9_small", "edm": "molecule/qm9"}


class MoleculeDiffusion(Fitted):
    """A diffusion model of molecules in three dimensions.

        model = MoleculeDiffusion().fit("my.sdf")
        molecules = model.sample(100)

    Args:
        preset: `default`, `qm9` or `edm` (Hoogeboom et al. 2022), or the name or path of a recipe; its data are replaced.
        hydrogens: whether hydrogens are atoms of the model; as the preset says by default.
        properties: what molecules may be drawn by: logP, TPSA, QED, weight, rings.
        steps: optimiser steps; as the preset says by default.
        settings: keys of the recipe to be changed, such as {"backbone.width": 256, "training.batch_size": 32}.
        device: where to train and to draw; the best there is by default.
        verbose: whether to show what is done, and how far it is.
        random_state: seed of training and, unless `sample` gets its own, of drawing; None draws anew each time.

    Attributes:
        history_: rows of training metrics.
        elements_: symbols of the elements that the model knows.
    """

    domain, what = "molecule", "molecules"

    def __init__(
        self,
        preset: str = "default",
        *,
        hydrogens: bool | None = None,
        properties: Sequence[str] = (),
        steps: int | None = None,
        settings: Mapping[str, Any] | None = None,
        device: str | None = None,
        verbose: bool = True,
        random_state: int | None = None,
    ) -> None:
        self.preset, self.hydrogens, self.properties = preset, hydrogens, properties
        self.steps, self.settings, self.device = steps, settings, device
        self.verbose, self.random_state = verbose, random_state

    # ---- training

    def fit(self, X: Any, y: Any = None) -> MoleculeDiffusion:
        """Learns from molecules.

        Args:
            X: RDKit molecules with coordinates, SMILES (made 3D by ETKDGv3 and MMFF), or the path of an SDF, SMILES or CSV file.
            y: not used.

        Raises:
            UserError: if the molecules or the settings have to be put right first; before anything long starts.
        """
        recipe = self._recipe()
        source = recipe.build("data")
        source.molecules = _molecules(X, source.hydrogens)
        codec, parts = source.prepared()
        seed = self._seed()
        run = self._begun(recipe, codec, seed)
        self.history_ = self._train(run, parts["train"], seed)
        self._keep(run)
        return self

    def _recipe(self) -> Recipe:
        name = PRESETS.get(self.preset, self.preset)
        preset = Recipe.load(name).sections["data"]
        kept = {key: preset[key] for key in ("hydrogens", "charge", "types", "scales") if key in preset}
        data = {"name": "memory", **kept, "properties": list(self.properties) or preset.get("properties", [])}
        return self._changed(name, data if self.hydrogens is None else {**data, "hydrogens": self.hydrogens})

    def _keep(self, run: Run) -> None:
        super()._keep(run)
        self.elements_ = run.codec.symbols

    # ---- drawing

    def sample(
        self,
        n: int = 1,
        *,
        where: Mapping[str, Any] | str | None = None,
        atoms: int | str | tuple[int, int] | None = None,
        formula: str | None = None,
        fragment: Chem.Mol | str | Path | None = None,
        valid_only: bool = False,
        resample: int = 1,
        guidance: float | None = None,
        steps: int | None = None,
        sampler: Sampler | None = None,
        batch_size: int | None = None,
        random_state: int | None = None,
        out: str | Path | None = None,
    ) -> Any:
        """New molecules.

        Args:
            n: how many.
            where: for each property a value or a range (low, high), or a text such as "logP=2..3; rings=1".
            atoms: how many, of those that the model draws, or a range of numbers; as in training by default.
            formula: elements and how many of each, such as "C6H6".
            fragment: an RDKit molecule with coordinates, or an SDF file; its atoms are in every molecule, where they are there.
            valid_only: draw on until n are valid and of one piece.
            resample: for a fragment or a formula, how often each piece of the way is gone.
            guidance: how strongly to follow `where`; 1 draws from the model's conditional distribution.
            steps: of the sampler; fewer are quicker and less exact.
            sampler: instead of the preset's.
            batch_size: molecules drawn at a time.
            random_state: seed; that of the model by default.
            out: a .sdf, .xyz, .smi or .csv file to write to, chunk by chunk, instead of a list: memory stays flat.

        Returns:
            RDKit molecules with one conformer each, sanitised where RDKit takes them: the property `diffusionkit_valid` is 1 for
            those and 0 for others, `diffusionkit_reason` says why. Or the path of the file.

        Raises:
            UserError: for a property, an element or a number of atoms that cannot be.
        """
        run = self._run()
        if n < 1:
            raise UserError(f"n: at least one molecule, not {n}")
        asked = wanted.read(
            run.codec,
            atoms=atoms,
            where=where,
            formula=formula,
            fragment=fragment,
            valid_only=valid_only,
            resample=resample,
        )
        states = self._states(n, asked, self._drawing(guidance, steps, sampler, batch_size), random_state)
        if out is None:
            return [one.mol for x in states for one in self._judged(x)]
        with open_writer(run.codec, out, n, told=valid_only and self.verbose) as writer:
            for x in states:
                writer.write(x)
        return Path(out)

    def _judged(self, x: Any) -> list[Judged]:
        codec = self._run().codec
        return [judged(z, pos, codec.hydrogens) for z, pos in codec.decode(x)]

    def _states(
        self, n: int, asked: wanted.Wanted, how: tuple[Any, Sampler, int], random_state: int | None
    ) -> Iterator[Any]:
        run, (diffusion, sampler, size) = self._run(), how
        bar = progress(f"drawing {n:,} molecules", n) if self.verbose else nullcontext(lambda _: None)
        with self._seeded(random_state), bar as tick:
            for first in range(0, n, size):
                count = min(size, n - first)
                yield generate.draw(diffusion, run.codec, sampler, count, asked)
                tick(count)


def _molecules(X: Any, hydrogens: bool) -> MoleculeSet:
    """Molecules of a list or of a file; what cannot be used is skipped and named.

    Raises:
        UserError: if nothing is left.
    """
    if isinstance(X, (str, Path)):
        return from_file(Path(X).expanduser(), hydrogens)
    if isinstance(X, MoleculeSet):
        return X
    try:
        given = list(X)
    except TypeError:
        raise UserError(f"fit takes RDKit molecules, SMILES or the path of a file, not {type(X).__name__}") from None
    found = readers.of_list(given, hydrogens)
    if not len(found):
        raise UserError("none of the molecules can be used" + "".join(f"; {note}" for note in found.notes))
    return found
