"""Files that are either whole or not there: a run survives being killed at any moment."""

from __future__ import annotations

import errno
import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusionkit.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

# What the machine refuses, as against what the program does wrong.
_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, which takes its place once the block is through.

    Raises:
        UserError: if it cannot be written, for want of space or of permission; what was at `path` stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path):
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a refusal of the machine while `path` is written into a sentence."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = _refusal(error)
        if reason is None:
            raise
        raise UserError(f"{path}: cannot be written: {reason}") from error


def _refusal(error: BaseException) -> str | None:
    if isinstance(error, OSError) and error.errno in _REFUSALS:
        return os.strerror(error.errno)
    if isinstance(error, RuntimeError) and "PytorchStreamWriter" in str(error):  # torch.save out of space
        return os.strerror(errno.ENOSPC)
    return None


def make_folder(path: Path, clean: bool = True) -> Path:
    """The folder, made if it is not there.

    Args:
        path: of the folder.
        clean: take away what a killed run may have left half written in it; left to one process of those that share it.

    Raises:
        UserError: if it cannot be made.
    """
    with writing(path):
        if path.exists() and not path.is_dir():
            raise UserError(f"{path}: is a file, and a run needs a folder")
        path.mkdir(parents=True, exist_ok=True)
        for rest in path.glob(".*.tmp") if clean else ():
            rest.unlink(missing_ok=True)
    return path


def save_weights(diffusion: nn.Module, path: Path, step: int) -> None:
    """The diffusion's state as safetensors, with the step in the header."""
    from safetensors.torch import save

    state = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in diffusion.state_dict().items()}
    with replacing(path) as temporary:
        temporary.write_bytes(save(state, metadata={"step": str(step)}))


def load_weights(diffusion: nn.Module, path: Path) -> int:
    """Puts the weights of a file into the diffusion; returns the step they are from.

    Raises:
        UserError: if the file is damaged or does not fit the network.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            state: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}
            step = int((file.metadata() or {}).get("step", 0))
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: damaged, not a whole safetensors file ({error})") from error
    try:
        diffusion.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"{path}: does not fit the network of recipe.yaml beside it: {reason}") from error
    return step


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint, read as data: nothing in it can be executed.

    Raises:
        UserError: if the file is damaged.
    """
    import torch

    try:
        with zipfile.ZipFile(path) as file:  # torch itself does not look at the checksums
            damaged = file.testzip()
        if damaged:
            raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        if not {"state_dict", "global_step", "loops"} <= checkpoint.keys():
            raise ValueError("parts are missing")
        return checkpoint
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such checkpoint") from None
    except Exception as error:  # a damaged pickle may raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: damaged, not a checkpoint that can be resumed ({reason})") from error


def write_json(path: Path, content: Any) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
