"""The domain of conformers: what the commands ask of it. Its states are the torsion angles of molecules that are given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffusionkit.domain import Dataset, Domain


class ConformerDomain(Domain):
    """Torsion angles (R, 1) of all rotatable bonds of a batch; the molecules with their local structures are the condition."""

    name = "conformer"
    data = {
        "crystal": "diffusionkit.molecule.conformer_data:Crystal",
        "sdf": "diffusionkit.molecule.conformer_data:Sdf",
        "made": "diffusionkit.molecule.conformer_data:Made",
    }
    backbones = {"torsion": "diffusionkit.molecule.backbones.torsion:TorsionNetwork"}
    codec = "diffusionkit.molecule.conformer_codec:ConformerCodec"
    ending = ".sdf"
    single = False
    instead = {
        "interpolate": "angles go round in a circle",
        "inpaint": "bonds and rings are always given",
        "edit": "use `sample --begin`, which starts near ETKDGv3",
        "restore": "measurements in space are not modelled",
        "upscale": "a molecule has no resolution",
        "dock": "use a run of molecule/poses",
    }

    def sketch(self, data: Any) -> dict[str, Any]:
        from diffusionkit.molecule.conformer_codec import ConformerCodec

        return ConformerCodec().arguments()

    def prepare(self, data: Any) -> tuple[Any, dict[str, Dataset]]:
        from diffusionkit.molecule.conformer_data import fitted

        return fitted(data)

    def condition(
        self,
        codec: Any,
        indices: Any,
        *,
        smiles: str | None = None,
        molecules: str | None = None,
        begin: float = 1.0,
        pool: int = 1,
        relax: bool = False,
    ) -> Any:
        """The molecules whose conformers are drawn, and how; each of the indices is a conformer of every molecule.

        Args:
            codec: of the run.
            indices: running numbers (B,).
            smiles: of a molecule.
            molecules: a file of molecules, .sdf, .sdf.gz, .smi or .csv with a column smiles.
            begin: where to start: 1 at random torsions, less at those of ETKDGv3 with as much less noise.
            pool: so many times as many are drawn, of which those are kept that lie nearest to all.
            relax: minimise by MMFF94s at the end.

        Raises:
            UserError: if no molecule can be read. Broken ones among others are left out, and named when files are written.
        """
        from diffusionkit.molecule.conformer_draw import read

        return read(tuple(codec.examples), smiles, molecules, begin, pool, relax)

    def draw(
        self,
        diffusion: Any,
        codec: Any,
        sampler: Any,
        indices: Any,
        watch: Callable[..., None] | None = None,
        **wanted: Any,
    ) -> Any:
        from diffusionkit.molecule.conformer_draw import draw

        return draw(diffusion, sampler, self.condition(codec, indices, **wanted), indices.tolist(), watch)

    def picture(self, codec: Any, x: Any, path: Path, columns: int | None = None) -> None:
        from diffusionkit.molecule.conformer_plots import overlays

        overlays(x, path, columns)

    def writer(self, codec: Any, path: str | Path, n: int, **wanted: Any) -> Any:
        from diffusionkit.molecule.conformer_export import ConformerWriter

        return ConformerWriter(Path(path), n, self.condition(codec, [], **wanted))

    def evaluate(
        self,
        run: Any,
        *,
        n: int = 20,
        part: str = "test",
        seed: int = 0,
        begin: float = 1.0,
        pool: int = 1,
        clusters: int = 0,
        relaxed: bool = False,
        pictures: bool = True,
    ) -> dict[str, Any]:
        """How near the best of n conformers comes to the known one, beside ETKDGv3 and random torsions.

        Args:
            run: a loaded run.
            n: conformers of each molecule.
            part: of the data: test, or val to choose by.
            seed: of local structures and noise.
            begin: as in `condition`.
            pool: as in `condition`.
            clusters: so many conformers of ETKDGv3, of which n are picked, as well; 0 for none, since they take long.
            relaxed: ETKDGv3 and MMFF94s as well.
            pictures: draw the shares of near ones, and the best conformers over the known, into the run folder.

        Returns:
            A tree of numbers; `table` holds the rows that the command prints.
        """
        from diffusionkit.molecule.conformer_evaluate import evaluate

        return evaluate(run, n, part, seed, begin, pool, clusters, relaxed, pictures)
