"""The domain of docking poses: what the commands ask of it. Its states are translation, rotation and torsions of ligands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from diffusionkit.domain import Dataset, Domain


class PoseDomain(Domain):
    """Poses {"tr": (B, 3), "rot": (B, 3, 3), "tor": (R, 1)} of ligands in pockets, which are the condition."""

    name = "pose"
    data = {
        "complexes": "diffusionkit.molecule.pose_data:Complexes",
        "folder": "diffusionkit.molecule.pose_data:Folder",
        "made": "diffusionkit.molecule.pose_data:Made",
        "posed": "diffusionkit.molecule.pose_confidence:Posed",
    }
    backbones = {"pose": "diffusionkit.molecule.backbones.pose:PoseNetwork"}
    codec = "diffusionkit.molecule.pose_codec:PoseCodec"
    objectives = {"confidence": "diffusionkit.molecule.pose_confidence:Confidence"}
    edits = {"dock": "diffusionkit.molecule.dock_command:command"}
    ending = ".sdf"
    single = False
    instead = {
        "interpolate": "no two ligands share a pocket",
        "inpaint": "use `dock --pocket-from`",
        "edit": "use `dock --relax`",
        "restore": "measurements in space are not modelled",
        "upscale": "a molecule has no resolution",
    }

    def sketch(self, data: Any) -> dict[str, Any]:
        from diffusionkit.molecule.pose_codec import PoseCodec

        return PoseCodec(embedding=data.embedding).arguments()

    def check(self, sections: Mapping[str, Any]) -> list[tuple[str, str]]:
        from diffusionkit.core import Product

        process, network = sections.get("process"), sections.get("backbone")
        objective = sections.get("objective")
        if process is not None:
            parts = process.names if isinstance(process, Product) else ()
            if sorted(parts) != ["rot", "tor", "tr"]:
                return [("process.parts", "must be tr, rot and tor, the parts of a pose")]
        if network is not None and objective is not None and network.confidence != hasattr(objective, "log_odds"):
            said = "must be true for the objective confidence, and for no other"
            return [("backbone.confidence", said)]
        return []

    def prepare(self, data: Any) -> tuple[Any, dict[str, Dataset]]:
        return data.prepared()

    def condition(
        self,
        codec: Any,
        indices: Any,
        *,
        protein: str | None = None,
        ligand: str | None = None,
        center: str | None = None,
        pocket_from: str | None = None,
        residues: str | None = None,
        radius: float | None = None,
    ) -> Any:
        """The pocket and the ligand that are docked; those of a few held-out complexes if none is named.

        Args:
            codec: of the run.
            indices: running numbers (B,).
            protein: a .pdb or .cif file.
            ligand: SMILES, or a file whose first molecule it is.
            center: of the pocket, as x,y,z in Angstrom.
            pocket_from: a file of a ligand that lies in the pocket.
            residues: of the pocket, such as A:45,A:47.
            radius: of the pocket in Angstrom; that of training by default.

        Raises:
            UserError: if a file cannot be read, or there is no pocket.
        """
        from diffusionkit.molecule.pose_wanted import read

        return read(codec, protein, ligand, center, pocket_from, residues, radius)

    def draw(
        self,
        diffusion: Any,
        codec: Any,
        sampler: Any,
        indices: Any,
        watch: Callable[..., None] | None = None,
        **wanted: Any,
    ) -> Any:
        from diffusionkit.molecule.pose_draw import asked

        return asked(diffusion, sampler, self.condition(codec, indices, **wanted), indices.tolist(), watch)

    def picture(self, codec: Any, x: Any, path: Path, columns: int | None = None) -> None:
        from diffusionkit.molecule.pose_plots import panels

        panels(x, path, columns)

    def writer(self, codec: Any, path: str | Path, n: int, **wanted: Any) -> Any:
        from diffusionkit.molecule.pose_export import PoseWriter

        return PoseWriter(Path(path), n, self.condition(codec, [], **wanted))

    def evaluate(
        self,
        run: Any,
        *,
        n: int = 40,
        part: str = "test",
        seed: int = 0,
        start: str = "etkdg",
        relax: bool = False,
        limit: int = 0,
        checks: bool = True,
    ) -> dict[str, Any]:
        """How near the poses of a part's ligands come to the true ones, beside random placement.

        All poses go into `poses_PART.npz` in the run folder, from which models that judge poses are trained. Of such a model the
        ROC curve and the calibration are measured.

        Args:
            run: a loaded run.
            n: poses of each ligand.
            part: of the data: test, val to choose by, or train.
            seed: of start structures and noise.
            start: where lengths, angles and rings come from: etkdg, or crystal for the known conformer. Torsions are drawn.
            relax: add rows of poses that are minimised in the pocket.
            limit: so many complexes of the part; 0 for all.
            checks: PoseBusters' checks (but that of energies) of the poses that are chosen, where it is installed.

        Returns:
            A tree of numbers; `table` holds the rows that the command prints.
        """
        from diffusionkit.molecule.pose_evaluate import evaluate

        return evaluate(run, n=n, part=part, seed=seed, start=start, relax=relax, limit=limit, checks=checks)
