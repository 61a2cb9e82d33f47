"""Networks whose features pictures are compared in: a small classifier trained here, and Inception where its weights lie."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionkit.errors import UserError
from diffusionkit.image.pictures import PictureSet

FILE = "classifier.safetensors"
INCEPTION = "weights-inception-2015-12-05-6726825d.pth"  # as torch-fidelity names it in the cache of torch.hub
_VERSION = "1"  # of the classifier and its training: a stored one of another version is trained anew
_STEPS, _BATCH, _RATE = 500, 64, 3e-3


class SmallClassifier(nn.Module):
    """A small convolutional classifier with 64 features before its last layer.

    Args:
        shape: channels, height and width of the pictures.
        outputs: number of classes.
        width: channels of the first level; the others have twice as many.
        features: how many features.
    """

    def __init__(self, shape: tuple[int, int, int], outputs: int, width: int = 16, features: int = 64) -> None:
        super().__init__()
        channels, height, width_ = shape
        levels = max(1, round(math.log2(max(1, min(height, width_)) / 4)))
        layers: list[nn.Module] = [*_block(channels, width)]
        for level in range(levels):
            layers += [nn.MaxPool2d(2, ceil_mode=True), *_block(width * (1 if level == 0 else 2), 2 * width)]
        self.body = nn.Sequential(*layers, *_block(2 * width, 2 * width), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.squeeze = nn.Linear(8 * width, features)
        self.last = nn.Linear(features, outputs)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # twice as fast on CPUs

    def features(self, pictures: Tensor) -> Tensor:
        """uint8 brightness (B, C, H, W) -> features (B, 64)."""
        scaled = (pictures.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        return F.silu(self.squeeze(self.body(scaled)))

    def forward(self, pictures: Tensor) -> Tensor:
        """uint8 brightness (B, C, H, W) -> logits (B, outputs)."""
        return self.last(self.features(pictures))


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


@dataclass(frozen=True)
class Judge:
    """A trained classifier.

    Attributes:
        network: the classifier, in evaluation mode.
        task: what it tells apart: "classes", or "rotations" for pictures without classes (Gidaris et al. 2018).
        outputs: how many.
        accuracy: its share of right answers on held-out pictures.
    """

    network: SmallClassifier
    task: str
    outputs: int
    accuracy: float

    def look(self, pictures: Tensor, batch_size: int = 512) -> tuple[Tensor, Tensor]:
        """Features (N, 64) and the most probable class (N,) of uint8 pictures, on the CPU."""
        device = self.network.last.weight.device
        features, classes = [], []
        with torch.no_grad():
            for block in pictures.split(batch_size):
                found = self.network.features(block.to(device))
                features.append(found.double().cpu())
                classes.append(self.network.last(found).argmax(1).cpu())
        return torch.cat(features), torch.cat(classes)


def judge(
    train: PictureSet, test: PictureSet, folder: Path, device: torch.device, watch: Callable[[int, int], object]
) -> Judge:
    """The classifier stored in a run folder if it fits these data, else a new one, trained and stored.

    Args:
        train: what it learns.
        test: what it is measured on.
        folder: of the run.
        device: where it trains and stays.
        watch: called with (steps done, of how many).

    Raises:
        UserError: if it cannot be stored.
    """
    codec, path = train.codec, Path(folder) / FILE
    labels = train.pictures.labels
    task = "classes" if labels is not None and len(codec.classes or ()) > 1 else "rotations"
    square = codec.shape[1] == codec.shape[2]
    outputs = len(codec.classes or ()) if task == "classes" else 4 if square else 2
    about = {"version": _VERSION, "task": task, "outputs": str(outputs), "shape": str(list(codec.shape))}
    about["data"] = train.fingerprint()
    network = SmallClassifier(codec.shape, outputs)
    accuracy = _stored(network, path, about)
    if accuracy is None:
        _train(network.to(device), train, task, outputs, watch)
        accuracy = _accuracy(network, test, task, outputs)
        _store(network, path, {**about, "accuracy": repr(accuracy)})
    return Judge(network.to(device).eval(), task, outputs, accuracy)


def _train(
    network: SmallClassifier, data: PictureSet, task: str, outputs: int, watch: Callable[[int, int], object]
) -> None:
    """A fixed number of steps from a fixed seed, so that the features depend on the data alone."""
    generator = torch.Generator().manual_seed(0)
    device = network.last.weight.device
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        for module in network.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        optimiser = torch.optim.AdamW(network.parameters(), _RATE, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, _STEPS, pct_start=0.1)
        network.train()
        for step in range(_STEPS):
            chosen = torch.randint(len(data), (min(_BATCH, len(data)),), generator=generator)
            pictures, labels = _question(data, chosen, task, outputs, generator)
            loss = F.cross_entropy(network(_shift(pictures, generator).to(device)), labels.to(device))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            watch(step + 1, _STEPS)
        network.eval()


def _question(
    data: PictureSet, chosen: Tensor, task: str, outputs: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Pictures (B, C, H, W) for the eye, mirrored at random where the data are, and the right answers (B,)."""
    pictures = data.codec.display(data.pictures.images[chosen])
    if data.flip and generator is not None:
        mirrored = torch.rand(len(chosen), generator=generator) < 0.5
        pictures = torch.where(mirrored[:, None, None, None], pictures.flip(3), pictures)
    if task == "classes":
        assert data.pictures.labels is not None
        return pictures, data.pictures.labels[chosen]
    turns = torch.arange(len(chosen)) % outputs
    quarter = 4 // outputs
    turned = torch.empty_like(pictures)
    for turn in range(outputs):
        turned[turns == turn] = pictures[turns == turn].rot90(turn * quarter, (2, 3))
    return turned, turns


def _shift(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """All pictures moved by the same few pixels, their edges repeated."""
    by = min(pictures.shape[2:]) // 24  # none for pictures of a few pixels
    y, x = torch.randint(2 * by + 1, (2,), generator=generator).tolist()
    padded = F.pad(pictures.float(), [by] * 4, mode="replicate")
    return padded[:, :, y : y + pictures.shape[2], x : x + pictures.shape[3]]


def _accuracy(network: SmallClassifier, data: PictureSet, task: str, outputs: int) -> float:
    right = 0
    with torch.no_grad():
        for chosen in torch.arange(len(data)).split(512):
            pictures, labels = _question(data, chosen, task, outputs)
            answers = network(pictures.to(network.last.weight.device)).argmax(1).cpu()
            right += int((answers == labels).sum())
    return right / len(data)


def _stored(network: SmallClassifier, path: Path, about: dict[str, str]) -> float | None:
    """Loads a stored classifier of these data and returns its accuracy; None if there is none, or a damaged one."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            written = file.metadata() or {}
            if {k: v for k, v in written.items() if k != "accuracy"} != about:
                return None
            network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})
            return float(written["accuracy"])
    except (SafetensorError, OSError, RuntimeError, KeyError, ValueError):
        return None


def _store(network: SmallClassifier, path: Path, about: dict[str, str]) -> None:
    from safetensors.torch import save

    state = {
        name: value.detach().cpu().contiguous(memory_format=torch.contiguous_format)
        for name, value in network.state_dict().items()
    }
    replace(path, lambda place: place.write_bytes(save(state, metadata=about)))


def replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes a file beside `path` that takes its place once it is whole.

    Raises:
        UserError: if it cannot be written.
    """
    part = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        write(part)
        os.replace(part, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


# ---- Inception ----


def inception(choice: str, device: torch.device) -> nn.Module | str:
    """The Inception network of the published FIDs (Heusel et al. 2017), or a line that says why it is absent.

    Args:
        choice: "auto" takes the weights that lie in the cache of torch.hub, "download" fetches them there, "off" does
            without, anything else is the path of the weights.
        device: where the network goes.

    Raises:
        UserError: if a path was given, or a download asked for, and it cannot be had.
    """
    if choice == "off":
        return "left out by --inception off"
    cached = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION
    path = cached if choice in ("auto", "download") else Path(choice).expanduser()
    if importlib.util.find_spec("torch_fidelity") is None:
        reason = "torch-fidelity is not installed; pip install 'diffusionkit[fid]'"
        if choice == "auto":
            return "torch-fidelity is not installed"
        raise UserError(f"--inception: {reason}")
    if not path.is_file() and choice == "auto":
        return "no weights; see --inception"
    if not path.is_file() and choice != "download":
        raise UserError(f"--inception: there is no file {path}; give {INCEPTION}, 'auto', 'download' or 'off'")
    try:
        return _inception(path if path.is_file() else None).to(device).eval()
    except Exception as error:  # the network, the file and torch each raise their own
        raise UserError(f"--inception: {path if path.is_file() else 'the download'}: failed: {error}") from error


def _inception(path: Path | None) -> nn.Module:
    from torchmetrics.image.fid import FrechetInceptionDistance

    if path is None:
        return FrechetInceptionDistance(feature=2048).inception
    torch.load(path, map_location="cpu", weights_only=True)  # torch-fidelity would execute what is in a hostile file
    return FrechetInceptionDistance(feature=2048, feature_extractor_weights_path=str(path)).inception


def inception_features(network: nn.Module, pictures: Tensor, watch: Callable[[int], object]) -> Tensor:
    """Features (N, 2048) of uint8 pictures (N, C, H, W), on the CPU; grey ones are given three equal channels."""
    device = next(network.parameters()).device
    found = []
    with torch.no_grad():
        for block in pictures.split(32):
            colour = block if block.shape[1] == 3 else block[:, :1].expand(-1, 3, -1, -1)
            found.append(network(colour.to(device)).double().cpu())
            watch(len(block))
    return torch.cat(found)
