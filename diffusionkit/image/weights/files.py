"""The files of a checkpoint in the format of diffusers: settings as JSON, weights as safetensors; nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusionkit.errors import UserError
from diffusionkit.image.weights import names as naming
from diffusionkit.image.weights.names import Names, renewed

STEM = "diffusion_pytorch_model"
_MOST = 20  # megabytes that a file of settings may have


def read_json(path: Path) -> dict[str, Any]:
    """The settings in a file.

    Raises:
        UserError: if it cannot be read, or holds something else.
    """
    try:
        if path.stat().st_size > _MOST * 2**20:
            raise ValueError("it is too long")
        found = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is no JSON that can be read ({error})") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: must hold a mapping of settings")
    return found


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def weight_files(folder: Path) -> list[Path]:
    """The files with the weights of the network of a folder: one, or the parts that an index names.

    Raises:
        UserError: if there is none that is safe to read.
    """
    for stem in (STEM, f"{STEM}.fp16"):
        single, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
        if single.is_file():
            return [single]
        if index.is_file():
            return _parts(index)
    pickles = sorted(path.name for ending in ("*.bin", "*.ckpt", "*.pt") for path in folder.glob(ending))
    if pickles:
        raise UserError(
            f"{folder / pickles[0]}: is a pickle, which could run code when read, and is not opened; diffusers makes "
            "safetensors of it: load it there by from_pretrained, then save_pretrained(FOLDER, safe_serialization=True)"
        )
    raise UserError(f"{folder}: has no weights, {STEM}.safetensors is missing")


def _parts(index: Path) -> list[Path]:
    parts = read_json(index).get("weight_map")
    if not isinstance(parts, dict) or not all(isinstance(n, str) and Path(n).name == n for n in parts.values()):
        raise UserError(f"{index}: weight_map must name files beside it")
    return [index.parent / name for name in sorted(set(parts.values()))]


def read_weights(folder: Path, names: Names, shapes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of our network from the weights in a folder, in single precision.

    Args:
        folder: with the weights.
        names: which tensor is which.
        shapes: the state of our network, without memory.

    Raises:
        UserError: if tensors are missing, too many, of another shape, or not the same where they must be; weights are read
            after their names and shapes have been looked at.
    """
    from contextlib import ExitStack

    from safetensors import SafetensorError, safe_open

    wanted = naming.theirs(names, shapes)
    with ExitStack() as stack:
        found: dict[str, tuple[Any, str]] = {}
        for path in weight_files(folder):
            try:
                file = stack.enter_context(safe_open(path, framework="pt"))
            except (SafetensorError, OSError) as error:
                raise UserError(f"{path}: is damaged, or no safetensors file ({error})") from error
            found |= {renewed(name): (file, name) for name in file.keys() if name not in names.optional}
        _compare(folder, wanted, {name: tuple(file.get_slice(n).get_shape()) for name, (file, n) in found.items()})
        loaded = {name: file.get_tensor(n).to(torch.float32) for name, (file, n) in found.items()}
    for copy, of in names.copies.items():
        if not torch.equal(loaded[copy], loaded[of]):
            raise UserError(f"{folder}: {copy} differs from {of}; only one for all blocks is supported")
    return naming.ours(names, loaded)


def _compare(folder: Path, wanted: Mapping[str, Tensor], found: Mapping[str, tuple[int, ...]]) -> None:
    missing, extra = ([n for n in a if n not in b] for a, b in ((wanted, found), (found, wanted)))
    said = [f"{_some(missing)} missing"] if missing else []
    said += [f"{_some(extra)} unknown to the network of config.json"] if extra else []
    for name, tensor in wanted.items():
        if not said and found[name] != tuple(tensor.shape):
            said.append(f"{name} is {list(found[name])} where config.json makes it {list(tensor.shape)}")
    if said:
        raise UserError(f"{folder}: the weights do not fit: {'; '.join(said)}")


def _some(names: list[str]) -> str:
    return f"{names[0]} is" if len(names) == 1 else f"{len(names)} tensors, such as {names[0]}, are"


def write_network(folder: Path, config: Mapping[str, Any], names: Names, state: Mapping[str, Tensor]) -> None:
    """Leaves a network's settings and its weights, under their names, in a folder."""
    from safetensors.torch import save_file

    write_json(folder / "config.json", config)
    tensors = {name: value.detach().cpu().contiguous() for name, value in naming.theirs(names, state).items()}
    save_file(tensors, folder / f"{STEM}.safetensors", metadata={"format": "pt"})


__all__ = ["read_json", "read_weights", "weight_files", "write_json", "write_network"]
