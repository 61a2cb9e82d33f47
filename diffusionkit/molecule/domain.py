"""The domain of molecules: what the commands ask of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from diffusionkit.domain import Dataset, Domain


class MoleculeDomain(Domain):
    """Molecules as ragged states {"pos": (N, 3), "type": (N, K) or (N,)[, "charge": (N, 1)]}."""

    name = "molecule"
    data = {
        "nci": "diffusionkit.molecule.data:NCI",
        "qm9": "diffusionkit.molecule.data:QM9",
        "file": "diffusionkit.molecule.data:File",
        "memory": "diffusionkit.molecule.data:Memory",
    }
    backbones = {"egnn": "diffusionkit.molecule.backbones.egnn:EGNN"}
    codec = "diffusionkit.molecule.codec:MoleculeCodec"
    ending = ".sdf"
    single = False
    instead = {
        "interpolate": "sizes differ, and types are codes",
        "inpaint": "use `sample --fragment`",
        "edit": "use `sample --fragment`",
        "restore": "measurements in space are not modelled",
        "upscale": "a molecule has no resolution",
        "dock": "use a run of molecule/poses",
    }

    def sketch(self, data: Any) -> dict[str, Any]:
        elements = sum(1 for number in data.elements if data.hydrogens or number > 1) or ...
        known = {"elements": elements, "sizes": elements, "charge": data.charge, "categorical": data.types == "codes"}
        return {**known, "properties": len(data.properties)}

    def check(self, sections: Mapping[str, Any]) -> list[tuple[str, str]]:
        from diffusionkit.core import Categorical, Product

        process, data = sections.get("process"), sections.get("data")
        if process is None or data is None:
            return []
        parts = dict(zip(process.names, process.parts, strict=True)) if isinstance(process, Product) else {}
        wanted = ["pos", "type", *(["charge"] if data.charge else [])]
        if sorted(parts) != sorted(wanted):
            return [("process.parts", f"must be {', '.join(wanted)}, the parts of a molecule's state")]
        problems = []
        if not getattr(parts["pos"], "centered", False):
            problems.append(("process.parts.pos.centered", "must be true: a molecule lies anywhere"))
        if isinstance(parts["type"], Categorical) != (data.types == "codes"):
            problems.append(
                ("data.types", "must be codes for a categorical process of types, and onehot for a gaussian")
            )
        return problems

    def prepare(self, data: Any) -> tuple[Any, dict[str, Dataset]]:
        return data.prepared()

    def condition(
        self,
        codec: Any,
        indices: Any,
        *,
        atoms: int | str | None = None,
        where: str | None = None,
        formula: str | None = None,
        fragment: str | None = None,
        valid_only: bool = False,
        resample: int = 1,
    ) -> Any:
        """What the molecules must be like.

        Args:
            codec: of the run.
            indices: running numbers (B,).
            atoms: how many atoms of those that the model draws, such as 18 or 15..20; as many as in training by default.
            where: properties that the model was trained with, such as "logP=2..3; rings=1".
            formula: elements and how many of each, such as C6H6.
            fragment: an SDF file; the atoms of its first record are in every molecule, where they are there.
            valid_only: draw on until n molecules are valid and of one piece.
            resample: for a fragment or a formula, how often each piece of the way is gone; more is slower and fits better.

        Raises:
            UserError: for what the model does not know, or what contradicts itself.
        """
        from diffusionkit.molecule.wanted import read

        return read(
            codec,
            atoms=atoms,
            where=where,
            formula=formula,
            fragment=fragment,
            valid_only=valid_only,
            resample=resample,
        )

    def draw(
        self,
        diffusion: Any,
        codec: Any,
        sampler: Any,
        indices: Any,
        watch: Callable[..., None] | None = None,
        **wanted: Any,
    ) -> Any:
        from diffusionkit.molecule.generate import draw

        return draw(diffusion, codec, sampler, len(indices), self.condition(codec, indices, **wanted), watch)

    def picture(self, codec: Any, x: Any, path: Path, columns: int | None = None) -> None:
        from diffusionkit.molecule.plots import grid

        grid(codec.decode(x), path, codec.hydrogens, columns)

    def writer(self, codec: Any, path: str | Path, n: int, **wanted: Any) -> Any:
        from diffusionkit.molecule.export import open_writer

        return open_writer(codec, path, n, told=bool(wanted.get("valid_only")))

    def evaluate(
        self, run: Any, *, n: int = 1000, seed: int = 0, pictures: bool = True, poses: bool = True
    ) -> dict[str, Any]:
        """Stability, validity, uniqueness, novelty and geometry of a run's molecules, beside those of held-out ones.

        Args:
            run: a loaded run.
            n: how many molecules to draw.
            seed: of the molecules.
            pictures: draw distributions and molecules into the run folder.
            poses: PoseBusters' checks, where it is installed.

        Returns:
            A tree of numbers; `table` holds the rows that the command prints.
        """
        from diffusionkit.molecule.evaluate import evaluate

        return evaluate(run, n=n, seed=seed, pictures=pictures, poses=poses)
