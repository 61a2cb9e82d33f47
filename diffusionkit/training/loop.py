"""The loop that trains any diffusion on any data: Lightning's trainer, set up for it."""

from __future__ import annotations

import logging
import platform
import subprocess
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only
from rich.console import Console
from torch import nn

import diffusionkit
from diffusionkit.errors import UserError
from diffusionkit.training.callbacks import (
    EMA,
    Checkpoints,
    HeldOut,
    Idle,
    Metrics,
    Pictures,
    SafeCheckpointIO,
    interruptible,
)
from diffusionkit.training.console import say, tell
from diffusionkit.training.files import load_checkpoint, load_weights, make_folder, write_json
from diffusionkit.training.folder import read_metrics
from diffusionkit.training.loader import as_dataset
from diffusionkit.training.module import Trainee
from diffusionkit.training.options import Training
from diffusionkit.training.progress import Bar

_PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
_SHARDED = ("fsdp", "deepspeed", "model_parallel")
# Arguments of Lightning's trainer that the loop sets itself, and what to write instead.
_SETTLED = {
    "max_steps": "training.steps",
    "max_epochs": "training.steps",
    "min_steps": "training.steps",
    "min_epochs": "training.steps",
    "precision": "training.precision",
    "gradient_clip_val": "training.clip",
    "gradient_clip_algorithm": "training.clip",
    "accumulate_grad_batches": "training.accumulate",
    "val_check_interval": "training.every",
    "check_val_every_n_epoch": "training.every",
    "default_root_dir": "--out",
    **dict.fromkeys(("callbacks", "logger", "plugins", "barebones", "fast_dev_run", "use_distributed_sampler"), ""),
    **dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary", "inference_mode"), ""),
    **dict.fromkeys(("limit_train_batches", "limit_val_batches", "num_sanity_val_steps", "overfit_batches"), ""),
    **dict.fromkeys(("reload_dataloaders_every_n_epochs", "model_registry", "enable_autolog_hparams"), ""),
}


def train(
    diffusion: nn.Module,
    data: Any,
    options: Training | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    held_out: Any = None,
    seed: int = 0,
    trainer: Mapping[str, Any] | None = None,
    draw: Callable[[nn.Module, Path], None] | None = None,
    console: Console | None = None,
    **settings: Any,
) -> list[dict[str, float]]:
    """Trains a diffusion in place; it ends on the CPU, in evaluation mode, with the averaged weights.

    Args:
        diffusion: a `Diffusion`, or any module with `.loss(x, cond, rows) -> (B,)`.
        data: the training part: a tensor (n, ...), a dict of tensors, a pair (x, cond) of those, or anything with
            `len(data)` and `data.batch(indices, generator) -> Batch`.
        options: how to train; or give its fields as keywords: `train(diffusion, images, steps=2000, batch_size=64)`.
        out: a folder for weights, checkpoint, metrics and pictures; None writes nothing.
        resume: go on from the checkpoint in `out`, if there is one.
        held_out: data like `data`, whose loss is measured at intervals.
        seed: of the order of the data and of the noise.
        trainer: further arguments of `lightning.Trainer`, such as {"devices": 2, "strategy": "ddp"}.
        draw: `draw(diffusion, path)` draws samples into a picture, at intervals and at the end; needs `out`.
        console: where to show progress; `Console(quiet=True)` for nowhere.

    Returns:
        The rows of metrics, each with step, loss, lr, samples_per_second, seconds and, where measured, valid_loss.

    Raises:
        UserError: if the machine cannot do what is asked, or the checkpoint is damaged.
        TrainingStopped: if the loss is no longer finite.
        KeyboardInterrupt: after Ctrl-C, once the run has been saved.
    """
    if options is not None and settings:
        raise ValueError(f"give options or keywords, not both: {', '.join(settings)}")
    options = options or Training(**settings)
    if not options.steps:
        raise ValueError("steps must be at least 1, not 0")
    console = (console or Console()) if is_first() else Console(quiet=True)
    folder = None if out is None else make_folder(Path(out), clean=is_first())
    last = folder / "last.ckpt" if folder and resume and (folder / "last.ckpt").exists() else None
    if last and load_checkpoint(last)["global_step"] >= options.steps:
        return _finished(diffusion, last.parent, console)
    ema = EMA(options.ema) if options.ema else Idle()
    metrics = Metrics(folder)
    with _quiet(), interruptible() as wish, torch.random.fork_rng(devices=[]):
        callbacks = [
            ema,
            HeldOut(None if held_out is None else as_dataset(held_out), ema, seed),
            Bar(console),  # before `Metrics` starts a new mean
            metrics,
            Checkpoints(folder, ema, wish),
            *([Pictures(folder, ema, draw, seed)] if folder and draw else []),
        ]
        lightning_trainer = _trainer(options, callbacks, trainer or {}, folder)
        if folder and is_first():
            write_json(folder / "environment.json", _environment(lightning_trainer, seed))
        tell(console, "training", _plan(options, lightning_trainer))
        diffusion.train()
        with _compiled(diffusion, options.compile):
            _fit(lightning_trainer, Trainee(diffusion, as_dataset(data), options, seed), last)
    diffusion.eval()
    if wish.is_set() and lightning_trainer.global_step < options.steps and is_first():
        kept = f"all is saved in {folder}" if folder else "nothing was saved"
        say(console, f"Stopped after step {lightning_trainer.global_step}; {kept}.")
        raise KeyboardInterrupt
    return metrics.rows


def is_first() -> bool:
    """Whether this process is the one that writes and prints, among those that train together."""
    return rank_zero_only.rank == 0


def _finished(diffusion: nn.Module, folder: Path, console: Console) -> list[dict[str, float]]:
    step = load_weights(diffusion, folder / "weights.safetensors")
    diffusion.eval()
    say(console, f"{folder} is trained to the end, step {step}; raise training.steps to go on.")
    return read_metrics(folder / "metrics.csv")


def _trainer(
    options: Training, callbacks: list[pl.Callback], further: Mapping[str, Any], folder: Path | None
) -> pl.Trainer:
    for name in further:
        if name in _SETTLED:
            instead = f"; use {_SETTLED[name]}" if _SETTLED[name] else ""
            raise UserError(f"trainer.{name}: is set by the loop itself{instead}")
    if str(further.get("strategy", "")).startswith(_SHARDED):
        raise UserError(
            f"trainer.strategy: {further['strategy']!r} splits the weights, the average cannot follow; use 'ddp'"
        )
    arguments = {
        "devices": 1,
        "log_every_n_steps": max(1, min(50, options.steps // 100)),
        **further,
        "max_steps": options.steps,
        "max_epochs": -1,
        "accumulate_grad_batches": options.accumulate,
        "precision": _PRECISION[options.precision],
        "callbacks": callbacks,
        "plugins": [SafeCheckpointIO()],
        "default_root_dir": folder or Path(),
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
    }
    try:
        made = pl.Trainer(**arguments)
    except (MisconfigurationException, ValueError, TypeError, RuntimeError, ImportError) as error:
        raise UserError(f"trainer: {_sentence(error)}") from error
    if options.precision == "fp16" and made.strategy.root_device.type == "cpu":
        raise UserError("training.precision: 'fp16' needs a GPU; use 'bf16' or '32'")
    return made


def _fit(trainer: pl.Trainer, module: Trainee, last: Path | None) -> None:
    try:
        trainer.fit(module, ckpt_path=last, weights_only=True)
    except MisconfigurationException as error:
        raise UserError(f"trainer: {_sentence(error)}") from error
    except RuntimeError as error:
        if last and "Error(s) in loading state_dict" in str(error):
            raise UserError(f"{last}: does not fit this network: {str(error).splitlines()[-1].strip()}") from error
        raise


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _plan(options: Training, trainer: pl.Trainer) -> str:
    device, many = trainer.strategy.root_device, trainer.world_size
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    batch = f"{options.batch_size} samples"
    batch += f" x {options.accumulate} accumulated" if options.accumulate > 1 else ""
    batch += f" x {many} processes" if many > 1 else ""
    precision = {"32": "32-bit", "bf16": "bf16 mixed", "fp16": "fp16 mixed"}[options.precision]
    return (
        f"{options.steps:,} steps of {batch}, {precision}{', compiled' if options.compile else ''}, on {name}{threads}"
    )


def _environment(trainer: pl.Trainer, seed: int) -> dict[str, Any]:
    """What the run was made with: no names of users, no paths."""
    device = trainer.strategy.root_device
    return {
        "diffusionkit": diffusionkit.__version__,
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processes": trainer.world_size,
        "threads": torch.get_num_threads(),
        "seed": seed,
        "git_commit": commit(),
    }


def commit() -> str | None:
    """The commit of the checkout that this package is imported from, if it is one."""
    checkout = Path(diffusionkit.__file__).parent.parent
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


@contextmanager
def _compiled(diffusion: nn.Module, wanted: bool) -> Iterator[None]:
    network = getattr(diffusion, "network", diffusion)
    if wanted:
        network.compile()  # in place: the names of the weights stay as they are
    try:
        yield
    finally:
        if wanted:
            network._compiled_call_impl = None


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's banners, tips and warnings are about choices that the loop has made."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for pattern in (r"lightning\.", r"torch\.utils\.data"):
                warnings.filterwarnings("ignore", module=pattern)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
