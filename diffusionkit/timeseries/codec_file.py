"""The codec of a run as files: codec.json and codec.safetensors; nothing in them is executed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffusionkit.errors import UserError
from diffusionkit.timeseries import covariates
from diffusionkit.timeseries.panel import Block, Panel
from diffusionkit.timeseries.targets import Target
from diffusionkit.timeseries.windows import Stats

if TYPE_CHECKING:
    from diffusionkit.timeseries.codec import SeriesCodec

FILE, TENSORS = "codec.json", "codec.safetensors"
_PLAIN = ("horizon", "context", "season", "form", "sample", "limit", "shown", "recent", "reasons")
_PANEL = ("freq", "joint", "past_names", "known_names", "schema")
_ARRAYS = ("values", "past", "known")


def write(codec: SeriesCodec, folder: Path) -> None:
    """Writes both files; see `SeriesCodec.save`."""
    blocks: list[dict[str, Any]] = []
    tensors: dict[str, Tensor] = {}
    for i, block in enumerate(codec.tail.blocks):
        names = [covariates.plain(name, "series") for name in block.names]
        blocks.append({"names": names, "start": block.index[0].isoformat(), "unit": block.index.unit})
        tensors |= {f"{i}.{key}": torch.tensor(getattr(block, key)) for key in _ARRAYS}
    for key, (mean, deviation) in codec.moments.items():
        tensors |= {f"{key}.mean": mean, f"{key}.deviation": deviation}
    tensors |= {f"stats.{key}": part.contiguous() for key, part in codec.stats._asdict().items()}
    tensors |= {"static": torch.tensor(codec.tail.static), "integer": torch.tensor(codec.tail.integer)}
    kept = {name: getattr(codec, name) for name in _PLAIN}
    panel = {name: getattr(codec.tail, name) for name in _PANEL}
    content = {"codec": "series", **kept, "target": asdict(codec.target), "panel": panel, "blocks": blocks}
    (folder / FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    save_file(
        {name: part.clone(memory_format=torch.contiguous_format) for name, part in tensors.items()}, folder / TENSORS
    )


def read(kind: type[SeriesCodec], folder: Path) -> SeriesCodec:
    """Reads both files; see `SeriesCodec.load`."""
    path = folder / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.pop("codec", None) != "series":
            raise ValueError('"codec" must be "series"')
        path = folder / TENSORS
        tensors = load_file(path)
        panel = _panel(content.pop("panel"), content.pop("blocks"), tensors)
        moments = {key: (tensors[f"{key}.mean"], tensors[f"{key}.deviation"]) for key in ("past", "known")}
        stats = Stats(*(tensors[f"stats.{key}"] for key in Stats._fields))
        return kind(panel, target=Target(**content.pop("target")), moments=moments, stats=stats, **content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: cannot be read, so this is no run of series: {error}") from error
    except Exception as error:  # safetensors has an error class of its own
        raise UserError(f"{path}: damaged: {error}") from error


def _panel(kept: dict[str, Any], blocks: list[dict[str, Any]], tensors: dict[str, Tensor]) -> Panel:
    made, schema = [], kept["schema"]
    for i, block in enumerate(blocks):
        values, past, known = (tensors[f"{i}.{key}"].numpy() for key in _ARRAYS)
        index = _index(block, len(values), kept["freq"], schema.get("tz"))
        made.append(Block(tuple(map(covariates.unplain, block["names"])), index, values, past, known))
    return Panel(
        tuple(made), kept["freq"], kept["joint"], tuple(kept["past_names"]), tuple(kept["known_names"]),
        tensors["static"].numpy(), schema, tensors["integer"].numpy(),
    )  # fmt: skip


def _index(block: dict[str, Any], rows: int, freq: str, zone: str | None) -> pd.DatetimeIndex:
    start = pd.Timestamp(block["start"])
    return pd.date_range(start.tz_convert(zone) if zone else start, periods=rows, freq=freq).as_unit(block["unit"])
