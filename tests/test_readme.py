"""The README's commands are run as they stand, but for the length of the trainings."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = re.findall(r"^    (?:pip install -e \. && )?(diffusionkit .*)$", TEXT, re.MULTILINE)
SHORT = ["--training.steps", "6", "--training.pictures", "4", "--training.batch_size", "8", "--sampling.steps", "3"]
# What a test cannot do: several GPUs, and Ho et al.'s network; a folder of the reader's own.
LEFT_OUT = ("--trainer.devices", "my-pictures")


def table(rows: int = 300) -> pd.DataFrame:
    """A table of the reader's own."""
    rng = np.random.default_rng(0)
    age, income = rng.integers(18, 80, rows), rng.choice(["<=50K", ">50K"], rows)
    return pd.DataFrame({"age": age, "weight": rng.normal(70, 9, rows).round(1), "income": income})


def series(rows: int = 500, freq: str = "h") -> pd.DataFrame:
    """Series of the reader's own."""
    times = pd.date_range("2020-01-01", periods=rows, freq=freq, name="ds")
    return pd.DataFrame(np.random.default_rng(0).normal(size=(rows, 2)).cumsum(0) + 90, times, ["a", "b"])


def block(word: str) -> str:
    """The Python of the README in which a word occurs."""
    (found,) = [code for code in BLOCKS if word in code]
    return found


def complexed(folder: Path) -> None:
    """A protein with a known ligand at the README's place, and many others, of the reader's own."""
    from rdkit import Chem

    from diffusionkit.molecule import pose_checks
    from diffusionkit.molecule.pose_data import Made

    one = Made().load()["train"][0]
    shift = np.array([12.1, 3.4, -7.0]) - one.pocket.center
    (folder / "protein.pdb").write_text(pose_checks.pdb(replace(one.pocket, pos=one.pocket.pos + shift)))
    one.ligand.GetConformer().SetPositions(one.ligand.GetConformer().GetPositions() + shift)
    Chem.MolToMolFile(one.ligand, str(folder / "known.sdf"))
    (folder / "many.smi").write_text("CCO ethanol\nC( broken\nc1ccccc1CCN amine\n")


def run(words: list[str], folder: Path) -> str:
    data = os.environ.get("DIFFUSIONKIT_DATA", "")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DIFFUSIONKIT_DATA": data, "COLUMNS": "100"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_the_commands_work(tmp_path, monkeypatch):
    complexed(tmp_path)
    (tmp_path / "domains").symlink_to(ROOT / "domains")
    table().to_csv(tmp_path / "my.csv", index=False)
    series().to_csv(tmp_path / "my-series.csv")
    assert len(COMMANDS) >= 10
    trained, left_out = [], []
    for command in COMMANDS:
        words = shlex.split(command)[1:]
        if any(word in command for word in LEFT_OUT):
            left_out.append(command)
            continue
        if "mnist" in command and not os.environ.get("DIFFUSIONKIT_DATA"):
            left_out.append(command)  # the data set would be downloaded
            continue
        words = [sys.executable, "-m", "diffusionkit", *words]
        if words[3] == "train":
            words = [w for w in words if w not in ("--training.steps", "3000")] + SHORT
            words += (
                ["--data.name", "made"] if "poses" in command else []
            )  # those of the data take minutes to make ready
            trained.append(command)
        if words[3] == "dock":
            words += ["-n", "3"]
        if words[3] == "sample":
            words += ["-n", "4"] if "-n" not in words else []
        if words[3] == "evaluate":
            words += ["-n", "40"]
        run(words, tmp_path)
    assert trained and len(left_out) <= 4
    assert (tmp_path / "threes.png").is_file() and len(list((tmp_path / "pictures").iterdir())) == 4
    assert {"evaluation.png", "interpolation.png", "metrics.json"} <= {
        p.name for p in (tmp_path / "runs/digits").iterdir()
    }
    assert len(pd.read_parquet(tmp_path / "fake.parquet")) == 10_000
    ill = pd.read_csv(tmp_path / "ill.csv")
    assert len(ill) == 500 and (ill["mdvis"] >= 5).all() and (ill["hlthp"] == 1).all()
    assert (tmp_path / "runs/randhie/metrics.json").is_file() and (tmp_path / "runs/csv").is_dir()
    assert (tmp_path / "runs/macro/metrics.json").is_file() and (tmp_path / "runs/csv-2").is_dir()
    assert (tmp_path / "forecast.png").is_file()
    assert list(pd.read_csv(tmp_path / "poses.csv")["poses"]) == [3, 0, 3]
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(block("PoseDiffusion").replace("n=40", "n=2"), names)
    assert len(names["poses"]) == 2


def test_the_python_works_and_is_short():
    tables, code = block("TabularDiffusion"), block("load_digits")
    assert len([line for line in tables.splitlines() if line.strip()]) == 3
    names: dict[str, object] = {"df": table()}
    exec(
        tables.replace(
            "TabularDiffusion()", 'TabularDiffusion(steps=2, settings={"backbone.width": 16}, verbose=False)'
        ),
        names,
    )
    fake = names["fake"]
    assert isinstance(fake, pd.DataFrame) and len(fake) == 10_000 and (fake.dtypes == table().dtypes).all()
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith(("import", "from"))]
    assert len(lines) <= 10
    exec(code.replace("steps=1000", "steps=2, batch_size=4").replace("steps=50", "steps=2"), names)
    pictures = names["pictures"]
    assert isinstance(pictures, torch.Tensor) and pictures.shape == (64, 1, 8, 8) and pictures.isfinite().all()


def test_the_python_of_series_works(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = block("TimeSeriesDiffusion")
    names: dict[str, object] = {"df": series(freq="B")}
    exec(code.replace('freq="B")', 'freq="B", steps=2, verbose=False)'), names)
    assert names["forecast"].samples.shape == (100, 30, 2) and (tmp_path / "forecast.png").is_file()
    assert "random walk" in capsys.readouterr().out


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (ROOT / target).exists(), target
