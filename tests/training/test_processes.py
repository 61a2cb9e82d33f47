"""Runs in processes of their own: killed without warning, and several that train together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffusionkit.training import train
from diffusionkit.training.callbacks import read_metrics
from diffusionkit.training.files import load_weights
from tests.training.toys import QUIET, Toy, data, same

pytestmark = pytest.mark.slow

HEAD = """
import os, signal, sys
from pathlib import Path
import torch
from diffusionkit.training import train
from tests.training.toys import QUIET, Toy, data
def die():
    os.kill(os.getpid(), signal.SIGKILL)
"""

KILLED = """
import diffusionkit.training.callbacks as callbacks
class Doomed(Toy):
    def loss(self, x, cond=None, rows=None):
        if len(self.seen) == {call}:
            die()
        return super().loss(x, cond, rows)
if {half}:
    save, count = torch.save, []
    def half(content, path):
        count.append(path)
        if len(count) == {half}:
            path.write_bytes(b"half a checkpoint")
            die()
        save(content, path)
    torch.save = half
train(Doomed(seed=3), data(), out=sys.argv[1], resume=True, **{settings})
"""

STOPPED = """
class Stopped(Toy):
    def loss(self, x, cond=None, rows=None):
        if len(self.seen) == 12 and int(os.environ.get("LOCAL_RANK", 0)) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return super().loss(x, cond, rows)
train(Stopped(), data(), out=sys.argv[1], steps=1000, batch_size=4,
      trainer={"devices": 2, "accelerator": "cpu", "strategy": "ddp"})
"""

TOGETHER = """
import warnings
from lightning.fabric.utilities.rank_zero import rank_zero_only
toy = Toy()
rows = train(toy, data(), out=sys.argv[1], held_out=data(9), steps=25, batch_size=4, every=10,
             trainer={"devices": 2, "accelerator": "cpu", "strategy": "ddp"})
torch.save({"weights": [p.detach() for p in toy.parameters()], "seen": torch.stack(toy.seen[:3]), "rows": rows},
           Path(sys.argv[1]) / f"rank{rank_zero_only.rank}.pt")
"""


def run(script: Path, text: str, out: Path) -> subprocess.CompletedProcess[str]:
    script.write_text(HEAD + text)
    root = Path(__file__).parent.parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(script), str(out)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        cwd=out.parent,
    )


def test_killed_at_any_moment_and_resumed_gives_the_same_bits(tmp_path: Path) -> None:
    settings = {"steps": 20, "batch_size": 5, "every": 3, "accumulate": 2, "lr": 0.01, "ema": 0.9}
    out = tmp_path / "run"
    for call, half in [(4, 0), (11, 0), (-1, 2)]:  # before any checkpoint, after one, and while one is written
        text = KILLED.replace("{call}", str(call)).replace("{half}", str(half)).replace("{settings}", repr(settings))
        assert run(tmp_path / "script.py", text, out).returncode == -9
    assert torch.load(out / "last.ckpt", weights_only=True)["global_step"] == 6
    assert list(out.glob(".last.ckpt.*"))
    resumed, whole = Toy(seed=4), Toy(seed=3)
    train(resumed, data(), out=out, resume=True, console=QUIET, **settings)
    train(whole, data(), console=QUIET, **settings)
    assert same(resumed, whole)
    assert not list(out.glob(".*"))
    assert read_metrics(out / "metrics.csv")[-1]["step"] == 20


def test_two_processes_train_one_model(tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = run(tmp_path / "script.py", TOGETHER, out)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    assert all(
        torch.equal(a, b) and a.isfinite().all() for a, b in zip(first["weights"], second["weights"], strict=True)
    )
    assert not torch.equal(first["seen"], second["seen"])
    assert [row["step"] for row in first["rows"]] == list(range(1, 26)) and all(r["loss"] > 0 for r in first["rows"])
    assert done.stdout.count("25 steps of 4 samples x 2 processes") == 1
    assert done.stdout.count("samples/s") == 1 and not done.stderr
    assert torch.load(out / "last.ckpt", weights_only=True)["global_step"] == 25


def test_processes_agree_on_stopping(tmp_path: Path) -> None:
    done = run(tmp_path / "script.py", STOPPED, tmp_path / "run")
    assert "Stopped after step 20; all is saved in" in done.stdout
    assert done.returncode == -2 and "KeyboardInterrupt" in done.stderr
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["global_step"] == 20


def test_a_compiled_network_keeps_its_names(tmp_path: Path) -> None:
    toy, plain = Toy(), Toy()
    rows = train(toy, data(), out=tmp_path, held_out=data(9), steps=3, batch_size=4, compile=True, console=QUIET)
    assert load_weights(plain, tmp_path / "weights.safetensors") == 3 and same(toy, plain)
    assert rows[-1]["loss"] > 0 and toy.network._compiled_call_impl is None
