"""The floors of the house hold, and nothing heavy is imported before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "diffusionkit"
DOMAINS = ("image", "tabular", "timeseries", "molecule")
ALLOWED = {
    "core": {"core"},
    "nn": {"core", "nn"},
    **{domain: {"core", "nn", "domain", "errors", "lazy", "writer", domain} for domain in DOMAINS},
    # The front door of a domain for Python stands beside the commands, above the loop; nothing in the domain imports it.
    **{f"{domain}.api": {"core", "domain", "errors", "recipe", "training", domain} for domain in DOMAINS},
    "training": {"core", "domain", "errors", "lazy", "recipe", "training"},
    "cli": {"core", "nn", "domain", "errors", "recipe", "schema", "training", "cli"},
    "errors": set(),
    "lazy": set(),
    "writer": {"errors"},
    "domain": {"core", "errors"},
    "schema": {"core", "errors"},
    "recipe": {"core", "domain", "errors", "schema"},
    "__main__": {"cli"},
    "__init__": set(),
}


def imports(path: Path) -> set[str]:
    """The floors of diffusionkit that a module imports from, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            names = [node.module or ""]
            if names == ["diffusionkit"]:
                names = [f"diffusionkit.{alias.name}" for alias in node.names]
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        # The options of the loop are part of the recipe's schema; they import nothing.
        names = [name for name in names if name != "diffusionkit.training.options"]
        found |= {
            parts[1] for parts in (name.split(".") for name in names) if parts[0] == "diffusionkit" and len(parts) > 1
        }
    return found - {"__version__"}


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_imports_only_from_its_floor_or_below(path):
    relative = path.relative_to(ROOT)
    floor = relative.parts[0] if len(relative.parts) > 1 else relative.stem
    if relative.parts[1:] in (("api.py",), ("conformers.py",), ("poses.py",)):  # a second front door
        floor = f"{floor}.api"
    assert imports(path) <= ALLOWED[floor], f"{relative} reaches up or across"


def test_the_core_needs_torch_alone():
    for path in (ROOT / "core").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in modules:
                root = (module or "").split(".")[0]
                assert root in {"diffusionkit", "torch"} or root in sys.stdlib_module_names, f"{path}: {module}"


HEAVY = ("lightning", "matplotlib", "pandas", "rdkit", "sklearn", "torch_geometric", "torchmetrics", "torchvision")


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import diffusionkit", ("torch", *HEAVY)),
        ("import diffusionkit.cli", ("torch", *HEAVY)),
        ("import diffusionkit.core", HEAVY),
        ("import diffusionkit.image.domain", HEAVY),
        ("from diffusionkit.image.backbones.unet import UNet", HEAVY),
        ("import diffusionkit.molecule.conformer_domain", HEAVY),
        ("from diffusionkit.molecule.backbones.torsion import TorsionNetwork", HEAVY),
        ("import diffusionkit.tabular", ("torch", *HEAVY)),
        ("import diffusionkit.tabular.domain", HEAVY),
        ("from diffusionkit.tabular.backbones.mlp import ResidualMLP", HEAVY),
        ("import diffusionkit.training.run, diffusionkit.training.sample, diffusionkit.training.edit", HEAVY),
        ("from diffusionkit.tabular import TabularDiffusion", ("lightning", "matplotlib")),
        ("from diffusionkit.timeseries import TimeSeriesDiffusion", ("lightning", "matplotlib")),
        ("from diffusionkit.molecule import MoleculeDiffusion, PoseDiffusion", ("lightning", "matplotlib")),
    ],
)
def test_imports_stay_light(statement, unwanted):
    code = f"{statement}; import sys; print(*[m for m in {unwanted!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_core_knows_no_domain():
    words = {"image", "images", "pixel", "pixels", "atom", "atoms", "horizon", "dataframe", "molecule", "molecules"}
    for path in (ROOT / "core").rglob("*.py"):
        found = {word.strip(".,:;()`'\"").lower() for word in path.read_text("utf-8").split()} & words
        assert not found, f"{path}: {found}"
