"""How figures of forecasts are shown beside goals, baselines and what others have published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.timeseries_sets import COVER, FOUR, SETS

Figures = Mapping[str, float | None]
MEASURES = {
    "CRPS_sum": "CRPS_sum",
    "CRPS": "CRPS",
    "CRPS_sample": "CRPS, from all paths",
    "energy": "energy score, a step",
    "energy_path": "energy score, a path",
    "ND": "ND",
    "ND_sum": "ND_sum",
    "NRMSE": "NRMSE",
    "MASE": "MASE",
    "coverage_80": "80 % cover",
    "coverage_80_sum": "80 % cover of the sum",
    "width_80": "width of it",
    "prepare_seconds": "seconds to prepare",
    "train_seconds": "seconds to train",
    "cpu_seconds": "of all cores",
    "backtest_seconds": "seconds to backtest",
    "peak_mb": "peak memory, MB",
}

SAID = ("CRPS_sum", "CRPS", "energy", "energy_path", "MASE")


def mean(runs: Sequence[Figures], measure: str) -> float | None:
    """Over the runs that have the figure."""
    found = [run[measure] for run in runs if run.get(measure) is not None]
    return sum(found) / len(found) if found else None


def summary(runs: Sequence[Figures], measure: str) -> str:
    """Mean and half the range over the runs."""
    found = [run[measure] for run in runs if run.get(measure) is not None]
    if not found:
        return ""
    middle, spread = sum(found) / len(found), (max(found) - min(found)) / 2
    return number(middle) + (f" ± {spread:.1g}" if spread else "")


def number(value: float | None) -> str:
    """Three digits that count, all of those before the point."""
    return "" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def comparison(
    name: str, models: Mapping[str, Sequence[Figures]], baselines: Sequence[Mapping[str, Figures]]
) -> list[dict[str, str]]:
    """A row for each measure: models, gate, ambition, what is reached by the first model, baselines, published figures.

    Args:
        name: of the set.
        models: for each of them its runs.
        baselines: for each seed the figures of all of them.
    """
    ours, rows = next(iter(models.values())), []
    for measure, label in MEASURES.items():
        value = mean(ours, measure)
        if value is None:
            continue
        means = {who: mean([run[who] for run in baselines], measure) for who in (baselines[0] if baselines else ())}
        known = {who: found for who, found in means.items() if found is not None}
        row = {"measure": label, **{who: summary(runs, measure) for who, runs in models.items()}}
        row |= dict(zip(("gate", "ambition", "reached"), judged(name, measure, value, known), strict=True))
        row |= {head(who): number(found) for who, found in means.items()}
        published = SETS[name].published if name in SETS else {}
        rows.append(row | ({"published": published.get(measure, "")} if published else {}))
    return rows


def head(baseline: str) -> str:
    """A baseline's name, marked where gates do not refer to it."""
    return baseline if baseline.partition(" (")[0] in FOUR else f"{baseline} *"


def judged(name: str, measure: str, value: float, baselines: Mapping[str, float]) -> tuple[str, str, str]:
    """Gate, ambition and what is reached, as they are read."""
    if measure == "coverage_80":
        return "{} to {}".format(*COVER), "", "gate" if COVER[0] <= value <= COVER[1] else "MISSED"
    goal = SETS[name].goals.get(measure) if name in SETS else None
    if goal is None:
        return "", "", ""
    gate, ambition = goal.bounds(baselines)
    return number(gate), number(ambition), goal.met(value, baselines)


def missed(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The measures whose gates are missed."""
    return [row["measure"] for row in rows if row["reached"] == "MISSED"]


def verdict(runs: Sequence[Figures], baselines: Sequence[Mapping[str, Figures]]) -> str:
    """One line: which baselines are better than the model, and by which of the main measures."""
    lost = []
    for measure in SAID:
        value = mean(runs, measure)
        found = {who: mean([run[who] for run in baselines], measure) for who in baselines[0]}
        better = [who for who, other in found.items() if None not in (value, other) and other < value]
        if better:
            lost.append(f"{', '.join(head(who) for who in better)} by {measure}")
    return f"better than the model: {'; '.join(lost) or 'nothing'} (*: no gate refers to it)"
