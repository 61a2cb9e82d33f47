"""The measuring of a card, on a CPU: the whole way, going on where it was, with what a plain image of PyTorch and Lightning has."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, gpu_quality, gpu_trials
from benchmarks.cells import read

ROOT = Path(__file__).parent.parent
ABSENT = (
    "rdkit", "cyclopts", "pyarrow", "statsmodels", "torch_geometric", "posebusters", "diffusers",
    "xgboost",
)  # fmt: skip


@pytest.fixture
def run(tmp_path, capsys):
    def call(*words):
        where = ["--out", str(tmp_path), "--models", str(tmp_path / "models"), "--device", "cpu", "--tiny"]
        gpu.main([*words, *where, "--repeats", "1"])
        return capsys.readouterr().out

    return call


@pytest.mark.parametrize("part", gpu.TRIALS)
def test_every_step_is_measured_once(run, tmp_path, part):
    run(part)
    ((key, cell),) = read(tmp_path / "gpu_tiny.json").items()
    assert key == f"{part}/CPU" and cell["samples_per_second"] == pytest.approx(
        1e3 * cell["batch"] / cell["milliseconds"]
    )
    assert cell["tflop_per_step"] > 0 and cell["mfu"] is None and not cell["compiled"]
    assert "measured already" in run(part)


def test_operations_are_those_of_forward_and_backward():
    """A product (B, I) x (I, O) takes 2BIO, and its derivatives as much for the weights; the input needs none."""
    layer, x = torch.nn.Linear(8, 4, bias=False), torch.randn(3, 8)
    options = gpu._parser().parse_args(["--device", "cpu", "--tiny", "--repeats", "1"])
    cell = gpu._measured(layer, lambda: layer(x).square().mean(), 3, options)
    assert cell["tflop_per_step"] == pytest.approx(2 * 2 * 3 * 8 * 4 / 1e12) and cell["parameters"] == 32


def test_the_share_of_the_peak_is_that_of_the_card(monkeypatch):
    options = gpu._parser().parse_args(["--device", "cuda"])
    for name, peak in (
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA L40S", 362),
        ("Unknown", None),
    ):
        monkeypatch.setattr(gpu, "card", lambda _, name=name: name)
        mfu = gpu._speed({"tflop_per_step": 1.0}, 0.01, 8, options)["mfu"]
        assert mfu == (None if peak is None else pytest.approx(100 / peak))


def test_settings_are_those_of_the_recipes():
    made = gpu_trials.pictures("image/cifar", False, None)
    assert sum(p.numel() for p in made.network.parameters()) == pytest.approx(35.7e6, rel=0.01)
    options = gpu._parser().parse_args(["--device", "cpu", "--steps", "10"])
    settings = gpu_quality._settings(options)
    assert settings["lr"] == 2e-4 and settings["batch_size"] == 128 and settings["precision"] == "bf16"
    assert settings["compile"] and settings["steps"] == 10


def test_a_training_goes_on_with_the_next_call(run, tmp_path, monkeypatch):
    from diffusionkit.image import features

    monkeypatch.setattr(features, "_STEPS", 5)
    assert "stopped in time" in run("quality", "--steps", "3", "-n", "12", "--minutes", "0")
    assert not (tmp_path / "gpu_tiny.json").exists()
    said = run("quality", "--steps", "3", "-n", "12")
    (cell,) = read(tmp_path / "gpu_tiny.json").values()
    assert cell["steps"] == 3 and cell["n"] == 12 and cell["frechet"] > 0 < cell["real"] and "3 steps" in said
    assert "measured already" in run("quality", "--steps", "3", "-n", "12", "--minutes", "0")


def test_no_time_is_no_measuring(run):
    begun = time.monotonic()
    said = run("unet", "dit", "--minutes", "0")
    assert said.count("no time left") == 2 and time.monotonic() - begun < 60


def test_without_a_card_it_says_so(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "there is no CUDA card here" in capsys.readouterr().err


@pytest.mark.slow
def test_a_plain_image_is_enough(tmp_path):
    code = f"""
import sys
for name in {ABSENT!r}:
    sys.modules[name] = None
import diffusionkit.domain
diffusionkit.domain.entry_points = lambda **_: ()  # nothing is installed
from benchmarks.__main__ import main
main(["gpu", "--device", "cpu", "--tiny", "--steps", "3", "-n", "12", "--repeats", "1", "--out", {str(tmp_path)!r},
      "--models", {str(tmp_path / "models")!r}])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "diffusers is not installed" in done.stdout
    assert {key.partition("/")[0] for key in read(tmp_path / "gpu_tiny.json")} == {*gpu.TRIALS, "quality"}
