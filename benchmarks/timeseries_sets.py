"""The series that are measured on, what is to be reached on them, and what others have published."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from diffusionkit.recipe import Recipe
from diffusionkit.timeseries import calendar
from diffusionkit.timeseries.api import PRESETS
from diffusionkit.timeseries.backtest import Windows, rolling
from diffusionkit.timeseries.evaluate import held_out
from diffusionkit.timeseries.panel import Panel

FOUR = ("persistence", "seasonal naive", "random walk", "seasonal blocks")
"""The baselines that gates refer to, at whatever season; the others of `diffusionkit.timeseries.baselines` stand beside them."""
COVER = (0.72, 0.88)


class Goal(NamedTuple):
    """Figures to stay at or below; with baselines, shares of the best of them, and their own figure is not enough."""

    gate: float
    ambition: float | None = None
    of: tuple[str, ...] = ()

    def bounds(self, baselines: Mapping[str, float]) -> tuple[float, float | None]:
        """Gate and ambition, given the figures of all baselines."""
        if not self.of:
            return self.gate, self.ambition
        best = min(value for name, value in baselines.items() if name.partition(" (")[0] in self.of)
        return self.gate * best, None if self.ambition is None else self.ambition * best

    def met(self, value: float, baselines: Mapping[str, float]) -> str:
        """ "ambition", "gate" or "MISSED"."""
        gate, ambition = self.bounds(baselines)
        reached = [
            bound is not None and (value < bound or (value == bound and not self.of)) for bound in (gate, ambition)
        ]
        return "ambition" if reached[1] else "gate" if reached[0] else "MISSED"


BELOW, TENTH, NAIVE = Goal(1.0, None, FOUR), Goal(1.0, 0.9, FOUR), Goal(1.0, None, ("seasonal naive",))


@dataclass(frozen=True)
class Set:
    """A published set of `diffusionkit.timeseries.data.Named`.

    Attributes:
        recipe: the model that is judged.
        goals: for each measure.
        data: of the recipe's section, for other recipes.
        published: for each measure, as it is shown.
    """

    recipe: str
    goals: dict[str, Goal]
    data: dict[str, Any] = field(default_factory=dict)
    published: dict[str, str] = field(default_factory=dict)


# TimeGrad (Rasul et al. 2021, table 2) with its VAR and GP-copula; TSDiff (Kollovieh et al. 2023) with its DeepAR. Chronos-T5
# (base) and the seasonal naive: amazon-science/chronos-forecasting 72ab6416, 67358b23, 94967999 and fead4ecb, scripts/evaluation/
# results; their CRPS is a mean over nine levels, and their tourism_monthly is the copy of the Monash archive.
SETS = {
    "exchange_rate_nips": Set(
        "timeseries/exchange",
        {"CRPS_sum": Goal(0.0049, 0.0045), "CRPS": Goal(0.0070, 0.0066), "energy": Goal(0.0208, 0.0200)},
        published={"CRPS_sum": "TimeGrad .006, VAR .005, GP-copula .007"},
    ),
    "etth1": Set("timeseries/etth1", {"CRPS_sum": Goal(0.130, 0.118), "CRPS": Goal(0.155, 0.145)}),
    "irish_wind": Set("timeseries/wind", {"CRPS": TENTH, "energy": TENTH}),
    "vic_electricity_hourly": Set("timeseries/demand", {"CRPS": TENTH, "energy": TENTH}),
    "metr_la_week": Set("timeseries/metr", {"CRPS_sum": BELOW, "peak_mb": Goal(4096)}),
    "montevideo_bus": Set("timeseries/bus", {"CRPS_sum": BELOW, "peak_mb": Goal(4096)}),
    "m4_hourly": Set(
        "timeseries/m4",
        {"CRPS": NAIVE, "MASE": NAIVE},
        {"joint": False},
        {
            "CRPS": "seasonal naive .048, DeepAR .052, TSDiff .036, Chronos-T5 .026",
            "MASE": "seasonal naive 1.193, Chronos-T5 .694",
        },
    ),
    "tourism_monthly": Set(
        "timeseries/tourism",
        {"CRPS": NAIVE, "MASE": NAIVE},
        {"joint": False},
        {"CRPS": "seasonal naive .104, Chronos-T5 .103", "MASE": "seasonal naive 1.631, Chronos-T5 1.794"},
    ),
}
AIR = "air_quality_uci"
REFERENCE = ("exchange_rate_nips", "etth1")


@dataclass(frozen=True)
class Task:
    """A set with a recipe and the windows in which it is judged.

    Attributes:
        name: of the set.
        label: what cells are named after: the recipe where it is not the set's own, the set, and where it is judged.
        recipe: with the changes that were asked for.
        train: what models see.
        test: the windows.
    """

    name: str
    label: str
    recipe: Recipe
    train: Panel
    test: Windows

    @property
    def judged(self) -> str:
        """The name of the windows, whatever the model."""
        return self.label.partition("/")[2]


def task(name: str, options: Namespace, preset: str | None = None) -> Task:
    """A set with its own recipe, or another one, as the options say."""
    preset = preset or options.recipe or options.preset
    own = SETS[name].recipe if name in SETS else "timeseries/air"
    chosen = own if preset == "default" else PRESETS.get(preset, preset)
    made = recipe(name, chosen, options)
    source = made.build("data")
    parts = source.load()
    if not options.validation:
        test, train = held_out(source, parts["test"]), parts["train"]
    else:  # as many rows before the test, in windows like its own
        test = rolling(parts["train"], source.prediction_length, source.windows, source.stride)
        train = test.head(0)
    label = "own" if preset == "default" else preset.rpartition("/")[2].removesuffix(".yaml")
    return Task(name, f"{label}/{name}{'@validation' if options.validation else ''}", made, train, test)


def recipe(name: str, chosen: str, options: Namespace) -> Recipe:
    """A recipe with the data of a set, and what the options change in it."""
    loaded = Recipe.load(chosen)
    if loaded.sections["data"].get("set") != name:
        codec = loaded.sections["data"].get("codec", {})
        extra = SETS[name].data if name in SETS else {}
        loaded = replace(loaded, raw={**loaded.raw, "data": {"name": "named", "set": name, "codec": codec, **extra}})
    changes = {"training.pictures": "0", **dict(pair.split("=", 1) for pair in options.settings)}
    changes |= {"training.steps": str(options.steps)} if options.steps else {}
    changes |= {"data.root": options.data} if options.data else {}
    return loaded.override(changes)


def seasons(test: Windows) -> list[int]:
    """The season of a test, and the other ones of its frequency of which there are two before it."""
    rows = int(test.cuts.min())
    others = [season for season in calendar.seasons(test.panel.freq) if season != test.season and 2 * season <= rows]
    return [test.season, *others]
