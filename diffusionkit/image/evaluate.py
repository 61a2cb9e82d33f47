"""How good a run's pictures are: every figure beside the one that real pictures get."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from diffusionkit.core import NoisyClassifier, bound, guided
from diffusionkit.domain import finite
from diffusionkit.errors import UserError
from diffusionkit.image import enlarged, features, metrics, plots, rebuilt, retrieval
from diffusionkit.image.pictures import PictureSet
from diffusionkit.image.reconstruction import Reconstruction
from diffusionkit.image.text import asked

N = 1000
LEAST = 8  # pictures of a part, below which no measure says anything
_CHUNK = 128  # pictures that the network sees at a time
_K = 3  # the neighbour of precision and recall (Kynkäänniemi et al. 2019)
_COPYING = 0.5  # ratio of distances below which a model is said to copy


def evaluate(
    run: Any,
    *,
    n: int | None = None,
    seed: int = 0,
    levels: int = 20,
    draws: int = 20,
    chain: int | None = None,
    inception: str = "auto",
    judge: Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Measures a run on its data set's held-out part; see `ImageDomain.evaluate`, which has the options.

    Args:
        run: a loaded run.
        n: how many samples to draw, and at most how many pictures of each part to measure losses on; 1000 by default.
        seed: of the noise, the samples and the choice of pictures.
        levels: noise levels at which the loss is measured.
        draws: terms of the variational bound drawn for each picture.
        chain: number of steps of the bound's chain; see `chain_length` for the default.
        inception: "auto", "download", "off" or the path of Inception's weights.
        judge: run of an image-text model that looks for the captions of samples.
        console: where progress is shown.

    Returns:
        A tree of numbers; `table` holds the rows to be read: measure, model, beside, comment.

    Raises:
        UserError: if the run, the data or an option does not allow it.
    """
    work = _prepare(run, N if n is None else n, seed, levels, draws, chain)
    work.reader = _reader(work, judge)
    network = features.inception(inception, work.device)  # a wrong path is refused before the long work
    console = console or Console(highlight=False)
    with torch.random.fork_rng(devices=_cuda(work.device)), _bar(console) as stage, work.clock("all"):
        with stage("classifier, trained for its features", None) as tick:
            work.judge = features.judge(work.train, work.test, run.folder, work.device, tick.set)
        share = f"{100 * work.judge.accuracy:.1f} %"
        console.print(f"The classifier that lends its features is right on {share} of held-out pictures.")
        measures, finish = _rule(run)(work, network, stage)
    measures = finite({**_facts(work), **measures, "classifier": _about(work), "seconds": work.seconds})
    measures["better"] = plots.BETTER
    measures["table"] = finish(run.folder / plots.EVALUATION, measures)
    return measures


def _rule(run: Any) -> Callable[..., Any]:
    """What measures a run of this kind."""
    if isinstance(run.diffusion.objective, Reconstruction):
        return rebuilt.measure
    return enlarged.measure if run.codec.smaller else _measure


def _measure(work: Work, network: Any, stage: Stage) -> tuple[dict[str, Any], Callable[..., Any]]:
    """All measures of what is drawn, and what draws the picture and makes the table of them."""
    measures: dict[str, Any] = {"loss": _losses(work, stage)}
    measures["bits_per_dimension"] = _bits(work, stage) if work.chain else {"absent": "states are latents, not pixels"}
    measures["pictures"] = {plots.EVALUATION: plots.SEEN}
    samples, classes = _draw(work, stage)
    measures |= _compare(work, samples, classes, network, stage)
    measures["nearest_training"], near = _memorised(work, samples, stage)
    if work.reader is not None:
        measures["retrieval"] = retrieval.measure(work.reader, work.run.codec.text, samples, work.test.pictures)

    def finish(path: Path, found: dict[str, Any]) -> list[dict[str, str]]:
        plots.evaluation(path, found, samples, near)
        return plots.table(found)

    return measures, finish


@dataclass
class Work:
    """What all measures share; `chain` is None where states have no bits."""

    run: Any
    train: PictureSet
    test: PictureSet
    n: int
    seed: int
    levels: int
    draws: int
    chain: int | None
    device: torch.device
    judge: Any = None
    reader: Any = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def m(self) -> int:
        """How many pictures of each part the losses are measured on."""
        return min(self.n, len(self.test), len(self.train))

    def shown(self, data: PictureSet, indices: Tensor) -> Tensor:
        """uint8 pictures for the eye."""
        return data.codec.display(data.pictures.images[indices])

    def batches(self, data: PictureSet) -> Iterator[tuple[Tensor, Any]]:
        """The m pictures of a part as states with their conditions."""
        for indices in data.some(self.m, self.seed).split(_CHUNK):
            batch = data.batch(indices)
            yield batch.x.to(self.device), batch.cond and {k: v.to(self.device) for k, v in batch.cond.items()}

    @property
    def parts(self) -> dict[str, PictureSet]:
        return {"held_out": self.test, "train": self.train}

    @contextmanager
    def clock(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - start


def _prepare(run: Any, n: int, seed: int, levels: int, draws: int, chain: int | None) -> Work:
    asked = (("-n", n, LEAST), ("--levels", levels, 1), ("--draws", draws, 1), ("--chain", chain, 2))
    for name, value, least in asked:
        if value is not None and value < least:
            raise UserError(f"{name}: must be at least {least}, not {value}")
    if hasattr(run.diffusion.objective, "log_prob"):
        what = "a noisy classifier" if isinstance(run.diffusion.objective, NoisyClassifier) else "an image-text model"
        raise UserError(f"{run.folder}: is {what}, which draws nothing; evaluate the run that it guides")
    if not run.diffusion.process.linear:
        name = type(run.diffusion.process).__name__
        raise UserError(f"{run.folder}: the measures of pictures need a Gaussian process, not {name}")
    parts = _parts(run)
    for part in ("train", "test"):
        if len(parts.get(part, ())) < LEAST:
            found = len(parts.get(part, ()))
            raise UserError(f"{run.folder}: needs {LEAST} {part} pictures, there are {found}; see data.holdout")
    device = next(run.diffusion.parameters()).device
    steps = None
    if run.codec.pixels:
        steps = chain or chain_length(run.diffusion.process, 2 / (run.codec.levels - 1))
    return Work(run, parts["train"], parts["test"], n, seed, levels, draws, steps, device)


def _parts(run: Any) -> dict[str, PictureSet]:
    """The data of a run, as states of its codec; latents are computed as they are asked for."""
    data = run.recipe.build("data")
    parts, now, then = data.parts(run.codec), data.codec, run.codec
    if any(getattr(now, name) != getattr(then, name) for name in ("shape", "classes", "levels")):
        raise UserError(f"{run.folder}: its data have changed: other sizes or classes than it was trained on")
    return parts


def _reader(work: Work, folder: Path | None) -> Any:
    """The run that looks for captions, on the same device; None where nobody asks for one."""
    if folder is None:
        return None
    if work.run.codec.text is None:
        raise UserError(f"--judge: {work.run.folder} was trained without captions, so there are none to be found")
    return retrieval.judge(type(work.run).load(folder, work.device), work.run.codec.shape)


def chain_length(process: Any, bin: float) -> int:
    """The most steps, up to the process's own, whose first adds noise of at least half the distance of two levels.

    Values that lie on levels are known exactly below that noise, but a network that treats them as numbers pays for each
    further step: the bound of a longer chain is looser, and may exceed log2(levels). The published chains of 1000 steps
    for 256 levels fulfil it, and keep their length.
    """
    t = torch.arange(1, process.steps + 1, dtype=torch.float64) / process.steps
    alpha, sigma = process.schedule(t)
    enough = (sigma >= alpha * bin / 2).nonzero()
    first = float(t[enough[0, 0]]) if len(enough) else 1.0
    return max(2, min(process.steps, math.floor(1 / first + 1e-9)))


# ---- what the network is worth on real pictures ----


def _losses(work: Work, stage: Stage) -> dict[str, Any]:
    """Mean squared errors per noise level, and the objective's own loss."""
    times = (torch.arange(work.levels, device=work.device) + 0.5) / work.levels
    process = work.run.diffusion.process
    found: dict[str, Any] = {"objective": {}, "t": times.tolist(), "log_snr": process.schedule.log_snr(times).tolist()}
    with work.clock("loss"), stage("loss per noise level", 2 * work.m * (work.levels + 4)) as tick, torch.no_grad():
        for name, data in work.parts.items():
            torch.manual_seed(work.seed)  # the same noise for both parts
            sums, objective = torch.zeros(3, work.levels, dtype=torch.float64), 0.0
            for x0, cond in work.batches(data):
                for i, t in enumerate(times):
                    sums[:, i] += _errors(work.run.diffusion, x0, cond, t)
                    tick(len(x0))
                for _ in range(4):
                    objective += float(work.run.diffusion.loss(x0, cond).double().sum()) / 4
                    tick(len(x0))
            found["objective"][name] = objective / work.m
            found[name] = dict(zip(("x0_mse", "eps_mse", "objective"), (sums / work.m).tolist(), strict=True))
    return found


def _errors(diffusion: Any, x0: Tensor, cond: Any, t: Tensor) -> Tensor:
    """(3,) sums over a batch: squared error of x0 and of eps per dimension, and the objective's term at time t."""
    process = diffusion.process
    times = t.expand(len(x0))
    x_t, noise = process.diffuse(x0, times)
    output = diffusion(x_t, times, cond)
    guess = process.guess(process.estimate(output, x_t, times), x_t, times)
    x0_error = (guess - x0).double().square().flatten(1).mean(1).sum()
    eps_error = x0_error * process.schedule.log_snr(t).exp()  # both follow from x_t, of which the state is known
    own = process.loss(output, x0, x_t, noise, times, None, diffusion.objective.weight).double().sum()
    return torch.stack([x0_error, eps_error, own]).cpu()


def _bits(work: Work, stage: Stage) -> dict[str, Any]:
    """The variational bound in bits per dimension and its terms; given the class where there are classes."""
    found: dict[str, Any] = {"steps": work.chain}
    levels = work.run.codec.levels
    with work.clock("bits_per_dimension"), stage("bits per dimension", 2 * work.m) as tick:
        for name, data in work.parts.items():
            torch.manual_seed(work.seed)
            terms = []
            for x0, cond in work.batches(data):
                terms.append(bound(work.run.diffusion, x0, cond, None, work.chain, work.draws, bin=2 / (levels - 1)))
                tick(len(x0))
            found[name] = _terms(terms)
    pictures = work.test.pictures.images[work.test.some(work.m, work.seed)]
    found["independent_pixels"] = metrics.independent_bits(work.train.pictures.images, pictures, levels)
    found["uniform"] = math.log2(levels)
    return found


def _terms(bounds: list[Any]) -> dict[str, Any]:
    def bits(values: Tensor, dimensions: Tensor) -> Tensor:
        return (values / (dimensions * math.log(2))).double().cpu()

    totals = torch.cat([b.bits_per_dimension().double().cpu() for b in bounds])
    count = len(bounds[0].L_t)
    # The j-th draw of each picture lies in the j-th of `count` equal intervals from t = 1 / steps to 1. The error of the
    # mean is at most what is given, since the draws are spread over the pictures.
    intervals = torch.cat([bits(b.L_t * (b.steps - 1) / max(1, count), b.dimensions) for b in bounds], 1).mean(1)
    return {
        "total": float(totals.mean()),
        "standard_error": float(totals.std() / math.sqrt(len(totals))),
        "L_T": float(torch.cat([bits(b.L_T, b.dimensions) for b in bounds]).mean()),
        "L_t": float(intervals.sum()),
        "L_0": float(torch.cat([bits(b.L_0, b.dimensions) for b in bounds]).mean()),
        "L_t_per_interval": intervals.tolist(),
    }


# ---- what its samples are worth ----


def _draw(work: Work, stage: Stage) -> tuple[Tensor, Tensor | None]:
    """n pictures (uint8) drawn as the recipe's section `sampling` says, and the classes asked for, as often as in training.

    Captions that were held out take turns.
    """
    run, common, sampler = work.run, work.run.recipe.sampling(), work.run.sampler()
    model = guided(run.diffusion, common.guidance, common.clip)
    labels = work.train.pictures.labels
    if labels is not None:
        place = (torch.arange(work.n, dtype=torch.float64) + 0.5) * len(labels) / work.n
        labels = labels.sort().values[place.long()]
    pictures = []
    torch.manual_seed(work.seed)
    batches = torch.arange(work.n).split(common.batch_size)
    with work.clock("samples"), stage(f"drawing {work.n:,} samples", len(batches) * sampler.steps) as tick:
        for chosen in batches:
            cond = {} if labels is None else {"class": labels[chosen]}
            cond |= asked(run.codec.text, chosen)
            cond = {name: value.to(work.device) for name, value in cond.items()} or None
            x = sampler(model, like=run.codec.like(len(chosen)), cond=cond, watch=lambda *_: tick(1))
            if not x.isfinite().all():
                raise UserError(f"{run.folder}: its samples are not finite numbers; the training diverged")
            pictures.append(run.codec.decode(x).cpu())
    return torch.cat(pictures), labels


def _compare(work: Work, samples: Tensor, classes: Tensor | None, network: Any, stage: Stage) -> dict[str, Any]:
    """Fréchet distances, precision, recall and class accuracy; `train` is what real pictures reach, the floor."""
    real = work.shown(work.train, work.train.some(work.n, work.seed))
    held = work.shown(work.test, torch.arange(len(work.test)))
    with work.clock("features"):
        shown = {"held": held, "samples": samples, "train": real}
        if not work.run.codec.pixels:  # the best that the codec allows
            shown["decoded"] = _decoded(work)
        looked = {name: work.judge.look(p) for name, p in shown.items()}
    seen = {name: value[0] for name, value in looked.items()}
    sizes = {"n": len(samples), "n_train": len(real), "n_held_out": len(held)}
    found: dict[str, Any] = {"frechet_classifier": _frechet(seen) | sizes | {"features": seen["held"].shape[1]}}
    if isinstance(network, str):
        found["fid_inception"] = {"absent": network}
    else:
        with work.clock("fid_inception"), stage("FID with Inception weights", sum(map(len, shown.values()))) as tick:
            wide = {name: features.inception_features(network, value, tick) for name, value in shown.items()}
            found["fid_inception"] = _frechet(wide) | sizes
    count = min(map(len, seen.values()))
    order = torch.Generator().manual_seed(work.seed)
    equal = {name: value[torch.randperm(len(value), generator=order)[:count]] for name, value in seen.items()}
    both = {name: metrics.precision_recall(equal["held"], equal[name], _K) for name in ("samples", "train")}
    for i, name in enumerate(("precision", "recall")):
        found[name] = {"samples": both["samples"][i], "train": both["train"][i], "n": count, "k": _K}
    if classes is not None and work.judge.task == "classes":
        right = looked["samples"][1] == classes
        found["class_accuracy"] = {
            "samples": float(right.double().mean()),
            "held_out": work.judge.accuracy,
            "chance": 1 / work.judge.outputs,
            "per_class": {
                name: float(right[classes == i].double().mean())
                for i, name in enumerate(work.run.codec.classes)
                if (classes == i).any()
            },
        }
    return found


def _frechet(seen: dict[str, Tensor]) -> dict[str, float]:
    return {name: metrics.frechet(seen["held"], other) for name, other in seen.items() if name != "held"}


def _decoded(work: Work) -> Tensor:
    """Training pictures, as many as samples, encoded into latents and decoded: uint8, for the eye."""
    codec, chosen = work.run.codec, work.train.some(work.n, work.seed)
    with torch.no_grad():
        parts = [codec.decode(codec.encode(work.train.pictures.images[part])) for part in chosen.split(_CHUNK)]
    return torch.cat(parts).cpu()


@dataclass
class Near:
    """For each sample its distance to the nearest training picture, and that picture."""

    distances: Tensor
    pictures: Tensor


def _memorised(work: Work, samples: Tensor, stage: Stage) -> tuple[dict[str, Any], Near]:
    """Distances to the nearest training picture: of samples, and of held-out pictures, which cannot have been copied."""
    train = work.shown(work.train, torch.arange(len(work.train)))
    if work.train.flip:  # mirrored ones were training pictures too
        train = torch.cat([train, train.flip(3)])
    held = work.shown(work.test, work.test.some(work.n, work.seed))
    scale = 255 * math.sqrt(train[0].numel())
    with work.clock("nearest_training"), stage("nearest training pictures", 2 * len(train)) as tick:
        distances, index = metrics.nearest_distances(samples.to(work.device), train, 2, tick)
        real, _ = metrics.nearest_distances(held.to(work.device), train, 2, tick)
    distances, index, real = distances.cpu(), index.cpu(), real.cpu()
    ratio = float(distances[:, 0].mean() / real[:, 0].mean().clamp(min=1e-12))
    copies = {"samples": metrics.near_copies(distances), "held_out": metrics.near_copies(real)}
    shares = {name: float(value.double().mean()) for name, value in copies.items()}
    measures = {
        "samples": float(distances[:, 0].mean()) / scale,
        "held_out": float(real[:, 0].mean()) / scale,
        "ratio": ratio,
        "near_copies": shares,
        "copying": ratio < _COPYING or shares["samples"] > shares["held_out"] + 0.05,
        "n": len(samples),
        "n_held_out": len(held),
        "n_train": len(train),
    }
    return measures, Near(distances[:, 0] / scale, train[index[:, 0]])


# ---- what belongs to it ----


def _facts(work: Work) -> dict[str, Any]:
    run, common, sampler = work.run, work.run.recipe.sampling(), work.run.sampler()
    arguments = {key: value for key, value in vars(sampler).items() if isinstance(value, int | float | str)}
    shared = {"guidance": common.guidance, "clip": common.clip, "batch_size": common.batch_size}
    names = ("diffusionkit", "torch", "torchmetrics")
    return {
        "n": work.n,
        "seed": work.seed,
        "step": run.step,
        "data": {"train": len(work.train), "held_out": len(work.test), "measured": work.m},
        "sampling": {"sampler": type(sampler).__name__, **arguments, **shared},
        "device": torch.cuda.get_device_name(work.device) if work.device.type == "cuda" else str(work.device),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in names}},
    }


def _about(work: Work) -> dict[str, Any]:
    return {"task": work.judge.task, "outputs": work.judge.outputs, "accuracy": work.judge.accuracy}


def _cuda(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []


# ---- progress ----


class Tick:
    """Moves a bar: by so many when called, to a place with `set`."""

    def __init__(self, bar: Progress, task: Any) -> None:
        self.bar, self.task = bar, task

    def __call__(self, by: int) -> None:
        self.bar.advance(self.task, by)

    def set(self, done: int, total: int) -> None:
        self.bar.update(self.task, completed=done, total=total)


Stage = Callable[[str, "int | None"], Any]


@contextmanager
def _bar(console: Console) -> Iterator[Stage]:
    """A bar on a terminal, which goes away at the end; nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:

        @contextmanager
        def stage(name: str, total: int | None) -> Iterator[Tick]:
            task = bar.add_task(name, total=total)
            yield Tick(bar, task)
            bar.update(task, visible=False)

        yield stage
