"""The loop: it learns, leaves its files, resumes to the same bits, and stops well."""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from diffusionkit.core.rows import Rows, mean
from diffusionkit.core.state import Batch
from diffusionkit.errors import TrainingStopped, UserError
from diffusionkit.training import train
from diffusionkit.training.callbacks import read_metrics
from diffusionkit.training.files import load_weights
from tests.training.toys import QUIET, Toy, data, same, weights

SETTINGS: dict[str, Any] = {"steps": 12, "batch_size": 5, "every": 5, "lr": 0.01, "ema": 0.9, "console": QUIET}


class Stopper(Toy):
    """Presses Ctrl-C in the given call of `loss`."""

    def __init__(self, call: int, how: Any = None) -> None:
        super().__init__()
        self.call, self.calls = call, 0
        self.how = how or (lambda: os.kill(os.getpid(), signal.SIGINT))

    def loss(self, x: Tensor, cond: Any = None, rows: Any = None) -> Tensor:
        self.calls += self.training
        if self.training and self.calls == self.call:
            out = self.how()
            if out is not None:
                return out * super().loss(x)
        return super().loss(x, cond, rows)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Toy, Path]:
    """An uninterrupted run."""
    toy, folder = Toy(), tmp_path_factory.mktemp("whole")
    train(toy, data(), out=folder, held_out=data(9), **SETTINGS)
    return toy, folder


def test_the_run_folder(whole: tuple[Toy, Path]) -> None:
    toy, folder = whole
    raw = Toy(seed=1)
    assert load_weights(raw, folder / "weights_raw.safetensors") == 12
    ema = Toy(seed=2)
    assert load_weights(ema, folder / "weights.safetensors") == 12
    assert same(ema, toy) and not same(raw, toy) and not toy.training
    rows = read_metrics(folder / "metrics.csv")
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert [row["step"] for row in rows if "valid_loss" in row] == [5, 10, 12]
    assert list((folder / "tensorboard").iterdir())
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["torch"] == torch.__version__ and environment["device"] == "cpu" and environment["seed"] == 0
    assert str(Path.home()) not in (folder / "environment.json").read_text()
    assert not list(folder.glob(".*"))


def test_the_loss_falls_and_the_callers_random_numbers_stay() -> None:
    state = torch.get_rng_state()
    rows = train(Toy(), torch.zeros(64, 3), steps=300, batch_size=64, lr=0.01, console=QUIET)
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("call", [2, 7])
def test_interrupted_and_resumed_gives_the_same_bits(call: int, whole: tuple[Toy, Path], tmp_path: Path) -> None:
    toy, folder = whole
    with pytest.raises(KeyboardInterrupt):
        train(Stopper(call), data(), out=tmp_path, held_out=data(9), **SETTINGS)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == call
    resumed = Toy(seed=4)
    train(resumed, data(), out=tmp_path, resume=True, held_out=data(9), **SETTINGS)
    assert same(resumed, toy)
    for name in ("weights.safetensors", "weights_raw.safetensors"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    ours, theirs = (read_metrics(path / "metrics.csv") for path in (tmp_path, folder))
    timed = ("samples_per_second", "seconds")
    assert [{k: v for k, v in row.items() if k not in timed} for row in ours] == [
        {k: v for k, v in row.items() if k not in timed} for row in theirs
    ]


def test_resuming_amid_accumulation_and_an_epoch(tmp_path: Path) -> None:
    settings = {**SETTINGS, "accumulate": 3, "steps": 6}
    toy = Toy()
    train(toy, data(), **settings)
    with pytest.raises(KeyboardInterrupt):
        train(Stopper(8), data(), out=tmp_path, **settings)  # in the second of the third step's three batches
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 3
    resumed = Toy(seed=4)
    train(resumed, data(), out=tmp_path, resume=True, **settings)
    assert same(resumed, toy) and len(resumed.seen) == 9


def test_a_crash_leaves_the_last_checkpoint(whole: tuple[Toy, Path], tmp_path: Path) -> None:
    def crash() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        train(Stopper(9, crash), data(), out=tmp_path, held_out=data(9), **SETTINGS)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 5
    assert read_metrics(tmp_path / "metrics.csv")[-1]["step"] == 8
    resumed = Toy(seed=4)
    rows = train(resumed, data(), out=tmp_path, resume=True, held_out=data(9), **SETTINGS)
    assert same(resumed, whole[0])
    assert [row["step"] for row in rows] == list(range(1, 13))


def test_a_finished_run_says_so_and_goes_on_with_more_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {**SETTINGS, "steps": 4, "decay": "constant", "warmup": 0}
    train(Toy(), data(), out=tmp_path, **settings)
    rows = train(Toy(seed=1), data(), out=tmp_path, resume=True, **{**settings, "console": Console(width=200)})
    assert "trained to the end, step 4; raise training.steps" in capsys.readouterr().out
    assert len(rows) == 4
    longer, straight = Toy(seed=1), Toy()
    train(longer, data(), out=tmp_path, resume=True, **{**settings, "steps": 7})
    train(straight, data(), **{**settings, "steps": 7})
    assert same(longer, straight)


def test_accumulation_is_one_step_of_the_larger_batch() -> None:
    toy = Toy()
    train(toy, data(), steps=2, batch_size=5, accumulate=3, console=QUIET)
    assert len(toy.seen) == 6


def test_pictures_and_held_out_losses_leave_training_alone(tmp_path: Path) -> None:
    plain, watched, drawn = Toy(), Toy(), []

    def draw(diffusion: Toy, path: Path) -> None:
        assert not diffusion.training and not diffusion.network[2].training
        drawn.append((path.name, float(torch.rand(())), weights(diffusion)))
        path.write_bytes(b"")

    settings = {**SETTINGS, "steps": 6}
    train(plain, data(), **settings)
    train(watched, data(), out=tmp_path, held_out=data(9), draw=draw, **{**settings, "every": 2})
    assert same(plain, watched)
    assert [name for name, _, _ in drawn] == ["step_000002.png", "step_000004.png", "final.png"]
    assert len({number for _, number, _ in drawn}) == 1  # comparable pictures
    assert all(torch.equal(a, b) for a, b in zip(drawn[-1][2], weights(watched), strict=True))


def test_held_out_loss_is_comparable() -> None:
    rows = train(Toy(), data(), held_out=data(9), steps=3, every=1, batch_size=4, lr=1e-12, console=QUIET)
    assert len({f"{row['valid_loss']:.5f}" for row in rows}) == 1


def test_average_of_weights_follows_its_formula() -> None:
    raw = []

    class Toyed(Toy):
        def loss(self, x: Tensor, cond: Any = None, rows: Any = None) -> Tensor:
            raw.append(weights(self))
            return super().loss(x, cond, rows)

    toy, last = Toyed(), Toyed()
    train(toy, data(), steps=4, batch_size=5, lr=0.1, ema=0.35, console=QUIET)
    train(last, data(), steps=4, batch_size=5, lr=0.1, ema=0.0, console=QUIET)
    states = [*raw[:4], weights(last)]
    expected = states[0]
    for n in range(1, 5):
        decay = min(0.35, (1 + n) / (10 + n))
        expected = [decay * e + (1 - decay) * w for e, w in zip(expected, states[n], strict=True)]
    assert all(torch.allclose(e, w, atol=1e-6) for e, w in zip(expected, weights(toy), strict=True))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_good_weights(value: float, tmp_path: Path) -> None:
    with pytest.raises(TrainingStopped, match=r"step 8; .* checkpoint of step 5. Try a smaller training.lr than 0.01"):
        train(Stopper(8, lambda: value), data(), out=tmp_path, **SETTINGS)
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 5 and all(v.isfinite().all() for v in kept["state_dict"].values())
    assert load_weights(Toy(), tmp_path / "weights.safetensors") == 5


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    class Poisoned(Stopper):
        def loss(self, x: Tensor, cond: Any = None, rows: Any = None) -> Tensor:
            loss = super().loss(x, cond, rows)
            if self.calls == 10 and self.training:
                loss.register_hook(lambda grad: grad * float("nan"))
            return loss

    with pytest.raises(TrainingStopped, match="checkpoint of step 5"):
        train(Poisoned(0), data(), out=tmp_path, **SETTINGS)
    assert load_weights(Toy(), tmp_path / "weights.safetensors") == 5


@pytest.mark.parametrize("damage", ["cut", "flipped", "other"])
def test_damaged_checkpoints_are_one_sentence(damage: str, whole: tuple[Toy, Path], tmp_path: Path) -> None:
    good = bytearray((whole[1] / "last.ckpt").read_bytes())
    if damage == "flipped":
        good[len(good) // 2] ^= 255
    (tmp_path / "last.ckpt").write_bytes({"cut": good[:-500], "flipped": good, "other": b"no"}[damage])
    with pytest.raises(UserError, match=r"last.ckpt: damaged, not a checkpoint that can be resumed \([^\n]*\)$"):
        train(Toy(), data(), out=tmp_path, resume=True, **SETTINGS)


def test_a_checkpoint_is_data_and_executes_nothing(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"global_step": 1, "state_dict": Evil(), "loops": {}}, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match="damaged"):
        train(Toy(), data(), out=tmp_path, resume=True, **SETTINGS)
    assert not (tmp_path / "executed").exists()


def test_weights_that_do_not_fit_or_are_damaged(whole: tuple[Toy, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not fit the network"):
        load_weights(Toy(size=4), whole[1] / "weights.safetensors")
    content = (whole[1] / "weights.safetensors").read_bytes()
    (tmp_path / "weights.safetensors").write_bytes(content[:-10])
    with pytest.raises(UserError, match="weights.safetensors: damaged"):
        load_weights(Toy(), tmp_path / "weights.safetensors")
    (tmp_path / "last.ckpt").write_bytes((whole[1] / "last.ckpt").read_bytes())
    with pytest.raises(UserError, match=r"last.ckpt: does not fit this network"):
        train(Toy(size=4), data(size=4), out=tmp_path, resume=True, **{**SETTINGS, "steps": 20})


def test_no_space_left_keeps_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save, calls = torch.save, []

    def full(content: Any, path: Path) -> None:
        calls.append(path)
        if len(calls) > 1:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(content, path)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"last.ckpt: cannot be written: No space left on device"):
        train(Toy(), data(), out=tmp_path, **SETTINGS)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 5
    assert not list(tmp_path.glob(".*"))


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match="file"):
            train(Toy(), data(), out=out, **SETTINGS)


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ({"max_steps": 3}, "trainer.max_steps: is set by the loop itself; use training.steps"),
        ({"accelerator": "abacus"}, "trainer: .*abacus"),
        ({"strategy": "fsdp"}, "trainer.strategy: 'fsdp' splits the weights"),
    ],
)
def test_trainers_that_cannot_be(trainer: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        train(Toy(), data(), trainer=trainer, **SETTINGS)


def test_bf16_and_clipping_with_the_fused_optimiser() -> None:
    rows = train(Toy(), data(), steps=3, precision="bf16", clip=0.1, console=QUIET, trainer={"accelerator": "cpu"})
    assert len(rows) == 3


def test_fp16_without_a_gpu_is_refused() -> None:
    with pytest.raises(UserError, match="fp16"):
        train(Toy(), data(), steps=3, precision="fp16", console=QUIET, trainer={"accelerator": "cpu"})


class Ragged:
    """Samples of one to three rows, in dict states."""

    def __len__(self) -> int:
        return 20

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Batch:
        rows = Rows.from_sizes(indices % 3 + 1)
        x = indices[rows.index].float()[:, None].expand(-1, 3)
        return Batch({"positions": x, "atoms": x.long()}, {"charge": indices}, rows)


class RaggedToy(Toy):
    def loss(self, x: Any, cond: Any = None, rows: Any = None) -> Tensor:
        assert len(cond["charge"]) == rows.size == 4 and len(rows.index) == len(x["atoms"])
        return mean(self.network(x["positions"]).square(), rows)


def test_ragged_batches_of_dicts() -> None:
    rows = train(RaggedToy(), Ragged(), held_out=Ragged(), steps=4, batch_size=4, console=QUIET)
    assert len(rows) == 4 and rows[-1]["valid_loss"] > 0


def test_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    train(Toy(), data(), steps=200, batch_size=4, console=Console(width=120))
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0].startswith("training  200 steps of 4 samples, 32-bit, on ")
    assert len(lines) <= 4 and "samples/s" in lines[-1] and not said.err


def test_a_bar_on_a_terminal() -> None:
    console = Console(force_terminal=True, width=120, record=True, quiet=False, file=open(os.devnull, "w"))
    train(Toy(), data(), steps=5, batch_size=4, console=console)
    said = console.export_text()
    assert "step 5 of 5" in said and "loss" in said and "samples/s" in said and "left" in said
