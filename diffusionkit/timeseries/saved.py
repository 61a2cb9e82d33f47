"""Forecasts as files: one .npz of plain arrays, nothing pickled, in which names and time zones come back as they were."""

from __future__ import annotations

import datetime
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from diffusionkit.errors import UserError
from diffusionkit.timeseries.covariates import plain, unplain
from diffusionkit.timeseries.forecast import Forecast
from diffusionkit.timeseries.tables import ID, TIME, VALUE, is_long, long_table, utc, zoned

FORMAT = 1


def write(forecast: Forecast, path: str | Path) -> Path:
    """Writes a forecast; see `Forecast.save`."""
    path = Path(path)
    if path.suffix.lower() != ".npz":
        raise UserError(f"{path}: forecasts are saved as .npz")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pack(forecast, part)
        os.replace(part, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        if part.exists():
            part.unlink()
    return path


def pack(forecast: Forecast, path: Path) -> None:
    """Writes a forecast to a file of any name: arrays of numbers, and `facts`, JSON as bytes.

    Raises:
        UserError: for names or a time zone that cannot be saved.
    """
    times = forecast.times if isinstance(forecast.times, pd.DatetimeIndex) else forecast.stamps()
    arrays = {"samples": forecast.samples, "times": times.asi8}
    clocks = {"times": _clock(times)}
    past = forecast.history
    if past is not None:
        index = pd.DatetimeIndex(past[TIME] if is_long(past) else past.index)
        arrays["past_times"], clocks["past"] = index.asi8, _clock(index)
        if is_long(past):
            arrays["past"] = past[VALUE].to_numpy()
            arrays["past_series"] = pd.Index(forecast.names, tupleize_cols=False).get_indexer(past[ID])
        else:
            arrays["past"] = past.to_numpy()
    facts = {"format": FORMAT, "freq": forecast.freq, "joint": forecast.joint, "clocks": clocks}
    facts["names"] = [plain(name, "forecast: series") for name in forecast.names]
    arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    with open(path, "wb") as file:  # a file object: to a path, NumPy would add an ending
        np.savez(file, **arrays)


def read(path: str | Path) -> Forecast:
    """Reads a forecast; see `Forecast.load`."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        facts = json.loads(arrays["facts"].tobytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: is not a forecast saved by Forecast.save") from error
    if facts["format"] > FORMAT:
        raise UserError(f"{path}: was saved by a later version of diffusionkit; update it")
    names, samples = tuple(map(unplain, facts["names"])), arrays["samples"]
    times = _index(arrays["times"], facts["clocks"]["times"])
    tz = times.tz
    if len(times) != samples.shape[1]:
        times = utc(times).reshape(len(names), -1).T
    past = _past(arrays, names, facts["clocks"].get("past"))
    return Forecast(samples, names, times, facts["freq"], past, facts["joint"], tz)


def _past(arrays: dict[str, np.ndarray], names: tuple[Any, ...], clock: dict[str, Any] | None) -> pd.DataFrame | None:
    if clock is None:
        return None
    index = _index(arrays["past_times"], clock)
    if "past_series" not in arrays:
        return pd.DataFrame(arrays["past"], index=index, columns=list(names))
    ids = pd.Index(names, tupleize_cols=False).take(arrays["past_series"])
    return long_table(ids, index, arrays["past"])


def _clock(index: pd.DatetimeIndex) -> dict[str, Any]:
    return {
        "unit": index.unit,
        "tz": _zone(index.tz),
        "freq": index.freqstr,
        "name": index.name if isinstance(index.name, str) else None,
    }


def _index(stamps: np.ndarray, clock: dict[str, Any]) -> pd.DatetimeIndex:
    index = zoned(stamps.view(f"M8[{clock['unit']}]"), clock["tz"])
    return pd.DatetimeIndex(index, freq=clock["freq"], name=clock["name"])


def _zone(tz: Any) -> str | None:
    """The name of a time zone that pandas reads: Europe/Berlin, UTC+01:00."""
    if tz is None:
        return None
    name = getattr(tz, "key", None) or getattr(tz, "zone", None)
    offset = tz.utcoffset(None) if name is None else None
    name = str(datetime.timezone(offset)) if offset is not None else name
    if name is None:
        raise UserError(
            f"forecast: time zone {tz!r} cannot be saved; use tz_convert with a name such as 'Europe/Berlin'"
        )
    return name
