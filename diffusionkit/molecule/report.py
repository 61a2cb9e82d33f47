"""The rows that an evaluation shows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

COLUMNS = ("measure", "model", "held out", "comment")
_SHARES = (
    ("atoms_stable", "atoms stable", "valence as told by bond lengths (EDM)"),
    ("molecules_stable", "molecules stable", "all atoms; benzene and charged groups fail"),
    ("valid", "valid", "RDKit takes it, in pieces or not (EDM)"),
    ("connected", "of one piece", ""),
    ("valid_connected", "valid, of one piece", ""),
    ("complete", "no open valence", "orders by valence instead of length; nothing missing"),
    ("unique", "unique", "of the valid"),
    ("novel", "novel", "of the unique: not in the training part"),
)
_SHAPES = (("bond_lengths", "bond lengths", "Å"), ("bond_angles", "bond angles", "°"), ("torsions", "torsions", "°"))
BETTER = {
    **dict.fromkeys((name for _, name, _ in _SHARES if name not in ("of one piece",)), "higher"),
    **dict.fromkeys((*(f"{name} ({unit})" for _, name, unit in _SHAPES), "elements"), "lower"),
    **dict.fromkeys(("strain (kcal/mol atom)", "relaxation (Å)"), "lower"),
    "PoseBusters": "higher",
}


def table(found: Mapping[str, Any], posebusters: str = "") -> list[dict[str, str]]:
    """What was measured, the model's figure, that of held-out molecules, and a comment.

    Args:
        found: what `evaluate` has measured.
        posebusters: why its checks are missing, if they were asked for.
    """
    model, real = found["model"], found.get("held_out", {})
    rows = [
        (name, percent(model[key]), percent(real.get(key)), comment) for key, name, comment in _SHARES if key in model
    ]
    rows.append(("elements", number(model["elements"]), number(real.get("elements")), "total variation to training"))
    for key, name, unit in _SHAPES:
        lost = f", {percent(model[key]['missing'])} of types absent" if model[key]["missing"] > 0 else ""
        beside = number(real[key]["mean"]) if real else number(None)
        rows.append((f"{name} ({unit})", number(model[key]["mean"]), beside, f"Wasserstein to training{lost}"))
    sound = f"median, MMFF; {percent(model['strain_measured'])} measured"
    rows.append(("strain (kcal/mol atom)", number(model["strain"]), number(real.get("strain")), sound))
    rows.append(
        ("relaxation (Å)", number(model["relaxation"]), number(real.get("relaxation")), "median RMSD of heavy atoms")
    )
    if "posebusters" in model:
        checks = {name: share for name, share in model["posebusters"].items() if name != "all"}
        worst = min(checks, key=checks.__getitem__, default="")
        told = f"; most fail {worst.replace('_', ' ')}" if len(set(checks.values())) > 1 else ""
        beside = percent(real.get("posebusters", {}).get("all"))
        rows.append(
            ("PoseBusters", percent(model["posebusters"]["all"]), beside, f"all checks but that of energies{told}")
        )
    elif posebusters:
        rows.append(("PoseBusters", "–", "–", posebusters))
    for name, errors in found["properties"].items():
        comment = f"mean error; {number(errors['unconditional'])} without the condition"
        rows.append((f"asked for {name}", number(errors["model"]), "–", comment))
    if found.get("bound"):
        train = f"{number(found['bound'].get('train', {}).get('nats'))} of the training part; bound on -log p(x, h, N)"
        rows.append(("nats a molecule", "–", number(found["bound"].get("held_out", {}).get("nats")), train))
    if found["loss"]:
        train = f"{number(found['loss'].get('train'))} of the training part"
        rows.append(("loss", "–", number(found["loss"].get("held_out")), train))
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows]


def number(value: float | None) -> str:
    """Three digits that count; a dash where there is nothing."""
    return "–" if value is None or math.isnan(value) else f"{value:.3g}"


def percent(value: float | None) -> str:
    """A share as per cent; a dash where there is nothing."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:.1f} %"
