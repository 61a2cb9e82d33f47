"""What happens after an optimiser step: the weights' average, the held-out loss, metrics, checkpoints, pictures."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from diffusionkit.core.seeds import drawing
from diffusionkit.domain import Dataset
from diffusionkit.errors import TrainingStopped
from diffusionkit.training.files import load_checkpoint, replacing, save_weights, writing
from diffusionkit.training.folder import read_metrics
from diffusionkit.training.loader import mix
from diffusionkit.training.module import Trainee, learning_rate

COLUMNS = ("step", "loss", "lr", "samples_per_second", "valid_loss", "seconds")
HELD_OUT = 1024  # samples of the held-out part that the held-out loss looks at
MINUTES = 2.0  # between two checkpoints, at most
PULSE = 10  # steps between two agreements of several processes
LOOK = 50  # steps between two looks at the loss on an accelerator, which has to be waited for


class AfterStep(pl.Callback):
    """A callback with `after_step(trainer, module, step)`, called after every optimiser step."""

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (batch_idx + 1) % module.options.accumulate == 0:
            self.after_step(trainer, module, trainer.global_step)

    def after_step(self, trainer: pl.Trainer, module: Trainee, step: int) -> None:
        raise NotImplementedError


def eager() -> AbstractContextManager[Any]:
    """Inside, compiled networks run as written: sampling would compile them again for its own shapes."""
    set_stance = getattr(torch.compiler, "set_stance", None)  # torch 2.6
    return set_stance("force_eager") if set_stance else nullcontext()


class EMA(AfterStep):
    """A moving average of the weights with warm-up: decay min(ema, (1 + n) / (10 + n)) at step n.

    Lightning's `WeightAveraging` keeps its count on the device and reads it at every step, which makes a GPU wait, and
    copies the whole module; here an update is one fused operation on lists. Buffers are not averaged: they are the
    network's own.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.average: list[Tensor] = []
        self._restored: dict[str, Tensor] = {}

    def on_train_start(self, trainer: pl.Trainer, module: Trainee) -> None:
        named = dict(module.diffusion.named_parameters())
        self.params = [p.detach() for p in named.values()]
        self.average = [self._restored.pop(name, p.detach()).to(p, copy=True) for name, p in named.items()]
        self.names = list(named)

    @torch.no_grad()
    def after_step(self, trainer: pl.Trainer, module: Trainee, step: int) -> None:
        torch._foreach_lerp_(self.average, self.params, 1 - min(self.decay, (1 + step) / (10 + step)))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The network has the averaged weights inside."""
        raw = [p.clone() for p in self.params]
        self.apply()
        try:
            yield
        finally:
            torch._foreach_copy_(self.params, raw)

    def apply(self) -> None:
        torch._foreach_copy_(self.params, self.average)

    def state_dict(self) -> dict[str, Any]:
        return {"average": dict(zip(self.names, self.average, strict=True))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._restored = state["average"]


class Idle(pl.Callback):
    """Stands where an average would when there is none: the raw weights are the weights."""

    def in_place(self) -> AbstractContextManager[None]:
        return nullcontext()

    def apply(self) -> None:
        pass


class HeldOut(AfterStep):
    """The loss of held-out data under the averaged weights, with the same times and noise each time it is measured."""

    def __init__(self, dataset: Dataset | None, ema: EMA | Idle, seed: int) -> None:
        self.dataset, self.ema, self.seed = dataset, ema, seed

    def after_step(self, trainer: pl.Trainer, module: Trainee, step: int) -> None:
        module.valid_loss = None
        if due(module, step) and self.dataset is not None and len(self.dataset) and trainer.is_global_zero:
            with aside(module, self.ema), trainer.precision_plugin.forward_context():
                module.valid_loss = self.measure(module, self.dataset)

    @torch.no_grad()
    def measure(self, module: Trainee, dataset: Dataset) -> float:
        count = min(len(dataset), HELD_OUT)
        chosen = torch.linspace(0, len(dataset) - 1, count, dtype=torch.float64).round().long()
        losses = []
        for i, indices in enumerate(chosen.split(module.options.batch_size)):
            batch = module.transfer_batch_to_device(dataset.batch(indices), module.device)
            with drawing(mix(self.seed, i, 3), module.device):
                losses.append(module.diffusion.loss(*batch).float())
        return float(torch.cat(losses).mean())


class Metrics(AfterStep):
    """Rows of numbers: in `rows`, and with a folder in metrics.csv and TensorBoard's events."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.rows: list[dict[str, float]] = []
        self._writer: Any = None
        self._seconds = 0.0  # spent before the run was resumed

    def on_train_start(self, trainer: pl.Trainer, module: Trainee) -> None:
        self._step, self._mark, self._away = trainer.global_step, time.monotonic(), module.away
        self._begun = self._mark - self._seconds
        if self.folder is None or not trainer.is_global_zero:
            return
        if trainer.global_step:
            self.rows = [row for row in read_metrics(self.folder / "metrics.csv") if row["step"] <= trainer.global_step]
        with replacing(self.folder / "metrics.csv") as path:
            path.write_text(_csv(COLUMNS) + "".join(_csv(row.get(c, "") for c in COLUMNS) for row in self.rows))
        from torch.utils.tensorboard import SummaryWriter

        purge = trainer.global_step + 1 if trainer.global_step else None
        with writing(self.folder / "tensorboard"):
            self._writer = SummaryWriter(self.folder / "tensorboard", purge_step=purge)

    def after_step(self, trainer: pl.Trainer, module: Trainee, step: int) -> None:
        if step % trainer.log_every_n_steps and not due(module, step):
            return
        loss = float(module.total) / module.count  # waits for the device
        now = time.monotonic()
        samples = (step - self._step) * module.options.accumulate * module.options.batch_size * trainer.world_size
        row = {
            "step": step,
            "loss": loss,
            "lr": learning_rate(module.options, step - 1),
            "samples_per_second": samples / max(now - self._mark - (module.away - self._away), 1e-9),
            "seconds": now - self._begun,
        }
        if module.valid_loss is not None:
            row["valid_loss"] = module.valid_loss
        if not math.isfinite(loss):
            return  # left standing for `Checkpoints` to see
        module.total, module.count = 0.0, 0
        self._step, self._mark, self._away = step, now, module.away
        self.rows.append(row)
        if self._writer is not None and self.folder is not None:
            path = self.folder / "metrics.csv"
            with writing(path), path.open("a", encoding="utf-8") as file:
                file.write(_csv(f"{row[c]:.6g}" if c in row and c != "step" else row.get(c, "") for c in COLUMNS))
            with writing(self.folder / "tensorboard"):
                for name in COLUMNS[1:]:
                    if name in row:
                        self._writer.add_scalar(name, row[name], step)

    def teardown(self, trainer: pl.Trainer, module: Trainee, stage: str) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def on_save_checkpoint(self, trainer: pl.Trainer, module: Trainee, checkpoint: dict[str, Any]) -> None:
        seconds = time.monotonic() - self._begun
        checkpoint["metrics"] = {"total": float(module.total), "count": module.count, "seconds": seconds}

    def on_load_checkpoint(self, trainer: pl.Trainer, module: Trainee, checkpoint: dict[str, Any]) -> None:
        kept = checkpoint["metrics"]
        module.total, module.count, self._seconds = kept["total"], kept["count"], kept["seconds"]


class Checkpoints(AfterStep):
    """Saves the run when due, every two minutes and on a wish to stop; ends it when the loss is not finite.

    Several processes have to save together, so they agree every few steps on what any of them wants.
    """

    def __init__(self, folder: Path | None, ema: EMA | Idle, interrupt: threading.Event) -> None:
        self.folder, self.ema, self.interrupt = folder, ema, interrupt
        self.saved_step = 0
        self.kept: dict[str, Tensor] = {}  # in place of files, where there is no folder

    def on_train_start(self, trainer: pl.Trainer, module: Trainee) -> None:
        self.saved_step, self._saved_at = trainer.global_step, time.monotonic()

    def after_step(self, trainer: pl.Trainer, module: Trainee, step: int) -> None:
        alone, fixed = trainer.world_size == 1, due(module, step)
        if not (alone or fixed or step % PULSE == 0):
            return
        stop = self.interrupt.is_set() or trainer.received_sigterm
        save = fixed or stop or time.monotonic() - self._saved_at > 60 * MINUTES
        look = save or step % LOOK == 0 or module.device.type == "cpu"
        bad = look and not math.isfinite(module.total)
        if not alone:
            wishes = torch.tensor([stop, save, bad], dtype=torch.float32, device=module.device)
            stop, save, bad = (bool(w) for w in trainer.strategy.reduce(wishes, reduce_op="max").tolist())
        if bad or (save and not _finite(module)):
            if self.kept:
                module.diffusion.load_state_dict(self.kept)
            raise TrainingStopped(self._explain(module, step))
        if save:
            self.save(trainer, module, step)
        if stop:
            self.interrupt.set()  # whichever process was asked
            trainer.should_stop = True

    def on_train_end(self, trainer: pl.Trainer, module: Trainee) -> None:
        if trainer.global_step != self.saved_step and _finite(module):  # stopped by another callback, as by max_time
            self.save(trainer, module, trainer.global_step)
        self.ema.apply()

    def save(self, trainer: pl.Trainer, module: Trainee, step: int) -> None:
        self.saved_step, self._saved_at = step, time.monotonic()
        if self.folder is None:
            with self.ema.in_place():
                self.kept = {name: part.clone() for name, part in module.diffusion.state_dict().items()}
            return
        if trainer.is_global_zero:
            save_weights(module.diffusion, self.folder / "weights_raw.safetensors", step)
            with self.ema.in_place():
                save_weights(module.diffusion, self.folder / "weights.safetensors", step)
        trainer.save_checkpoint(self.folder / "last.ckpt")  # last, for one of the last step means a finished run
        module.away += time.monotonic() - self._saved_at

    def _explain(self, module: Trainee, step: int) -> str:
        if self.folder is None:
            left = f"the model has the weights of step {self.saved_step}" if self.kept else "nothing was saved"
        elif self.saved_step:
            left = f"{self.folder} still holds the good weights and checkpoint of step {self.saved_step}"
        else:
            left = "no checkpoint had been saved before"
        tries = [f"a smaller training.lr than {module.options.lr:g}", "a longer training.warmup"]
        tries += [] if module.options.clip else ["training.clip: 1"]
        tries += [] if module.options.precision == "32" else ["training.precision: '32'"]
        where = "at" if module.device.type == "cpu" else "at or shortly before"
        return f"the loss is not a finite number {where} step {step}; {left}. Try {' or '.join(tries)}"


class Pictures(AfterStep):
    """Has `draw(diffusion, path)` draw samples of the averaged weights at intervals and at the end."""

    def __init__(self, folder: Path, ema: EMA | Idle, draw: Callable[[Any, Path], None], seed: int) -> None:
        self.folder, self.ema, self.draw, self.seed = folder, ema, draw, seed

    def after_step(self, trainer: pl.Trainer, module: Trainee, step: int) -> None:
        if not due(module, step) or not trainer.is_global_zero:
            return
        path = self.folder / "pictures" / ("final.png" if step == module.options.steps else f"step_{step:06d}.png")
        with aside(module, self.ema), drawing(mix(self.seed, 4), module.device), writing(path):
            path.parent.mkdir(exist_ok=True)
            self.draw(module.diffusion, path)


class SafeCheckpointIO(TorchCheckpointIO):
    """Checkpoints written whole or not at all, and read as data."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with replacing(Path(path)) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        return load_checkpoint(Path(path))


def due(module: Trainee, step: int) -> bool:
    """Whether this step ends an interval of the run, or the run."""
    return step % module.options.interval == 0 or step == module.options.steps


@contextmanager
def aside(module: Trainee, ema: EMA | Idle) -> Iterator[None]:
    """Evaluation with the averaged weights; its time does not count as training."""
    begun, modes = time.monotonic(), [(part, part.training) for part in module.diffusion.modules()]
    module.diffusion.eval()
    try:
        with ema.in_place(), eager():
            yield
    finally:
        for part, training in modes:
            part.training = training
        module.away += time.monotonic() - begun


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets, for the loop to stop after a whole step; the second stops at once."""
    wish = threading.Event()

    def heard(number: int, frame: FrameType | None) -> None:
        if wish.is_set():
            raise KeyboardInterrupt
        wish.set()

    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    before = signal.signal(signal.SIGINT, heard)
    try:
        yield wish
    finally:
        signal.signal(signal.SIGINT, before)


def _finite(module: Trainee) -> bool:
    norms = torch._foreach_norm([p.detach() for p in module.diffusion.parameters() if p.numel()])
    return bool(torch.stack(norms).isfinite().all())


def _csv(cells: Any) -> str:
    return ",".join(str(cell) for cell in cells) + "\n"
