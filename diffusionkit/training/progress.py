"""Showing how far training is: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import lightning.pytorch as pl
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from diffusionkit.training.callbacks import AfterStep
from diffusionkit.training.module import Trainee

REFRESH = 0.5  # seconds between two updates of the bar
LINE = 30.0  # seconds between two plain lines


class Bar(AfterStep):
    """Loss, samples per second and time left.

    The loss is that of the running interval of metrics.csv; reading it waits for the device, so that is done seldom.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar: Progress | None = None

    def on_train_start(self, trainer: pl.Trainer, module: Trainee) -> None:
        self._step = trainer.global_step
        self._seen = self._mark = time.monotonic()
        self._loss = float("nan")
        if not trainer.is_global_zero or not self.console.is_terminal:
            return
        columns = (
            TextColumn("step {task.completed:,.0f} of {task.total:,.0f}"),
            BarColumn(bar_width=None),
            TextColumn("loss {task.fields[loss]:.4f}"),
            TextColumn("{task.fields[speed]:,.0f} samples/s"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
        )
        # `auto_refresh` would be a thread that takes turns with the training.
        self._bar = Progress(*columns, console=self.console, auto_refresh=False, speed_estimate_period=60)
        total = module.options.steps
        self._task = self._bar.add_task("", total=total, completed=self._step, loss=self._loss, speed=0.0)
        self._bar.start()

    def after_step(self, trainer: pl.Trainer, module: Trainee, step: int) -> None:
        now = time.monotonic()
        last = step == module.options.steps
        if not trainer.is_global_zero or not (last or now - self._seen >= (REFRESH if self._bar else LINE)):
            return
        loss = float(module.total) / module.count if module.count else self._loss
        samples = (step - self._step) * module.options.accumulate * module.options.batch_size * trainer.world_size
        self._loss, speed = loss, samples / max(now - self._mark - module.away, 1e-9)
        if self._bar:
            self._bar.update(self._task, completed=step, loss=loss, speed=speed, refresh=True)
        else:
            left = timedelta(seconds=round((module.options.steps - step) * (now - self._mark) / (step - self._step)))
            self.console.print(
                f"step {step} of {module.options.steps}  loss {loss:.4f}  {speed:,.0f} samples/s  {left} left",
                highlight=False,
            )
        self._seen = now

    def teardown(self, trainer: pl.Trainer, module: Trainee, stage: Any) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None
