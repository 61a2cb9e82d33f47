"""What is installed from a wheel works without a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_recipes_are_found_by_name_from_a_wheel(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("diffusionkit-*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(site)
    assert "diffusionkit/py.typed" in names and "diffusionkit/recipes/image/digits.yaml" in names
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "docs"))]
    short = ["--training.steps", "2", "--training.pictures", "0", "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "diffusionkit", "train", "image/digits", *short],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "weights.safetensors").is_file()
