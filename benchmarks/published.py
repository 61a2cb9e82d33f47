"""Figures that others have published for what a recipe does, each with its source and with how it came to be known here.

`read`: in the repository or package named, "second hand": in documents that cite the paper, "memory": recalled from the paper and
not read again, to be checked before it is quoted. `same` says whether data, split and measure are those of our figure.
"""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """A published figure."""

    figure: str
    source: str
    known: str
    same: bool
    note: str = ""


_TABPC = "independent rerun of five trainings, april-tools/tabpc 3f92668"
_TABDDPM = "Kotelnikov et al. 2023 (TabDDPM), yandex-research/tab-ddpm b476257"
_TIMEGRAD, _CSDI = "Rasul et al. 2021 (TimeGrad), table 2", "Tashiro et al. 2021 (CSDI), table 5"
_TSDIFF = "Kollovieh et al. 2023 (TSDiff)"
_FILES = "the files could not be had here"


def _nips(timegrad: str, csdi: str | None) -> tuple[Published, ...]:
    first = Published(f"CRPS_sum {timegrad}", _TIMEGRAD, "second hand", True, _FILES)
    return (first, Published(f"CRPS_sum {csdi}", _CSDI, "second hand", True, _FILES)) if csdi else (first,)


PUBLISHED: dict[str, tuple[Published, ...]] = {
    "image/cifar": (
        Published("FID 3.17", "Ho et al. 2020 (DDPM), 800,000 steps", "memory", True, "on the original pictures"),
    ),
    "image/cifar_edm": (
        Published("FID 1.79", "Karras et al. 2022 (EDM), 200 M pictures, by class", "memory", True),
        Published("FID 2.04 to 2.08", "reruns of its model without classes (1.97), NVlabs/edm#16", "read", False),
    ),
    "image/cifar_dit": (
        Published("FID 68.4", "Peebles and Xie 2023 (DiT-S/2), latents of ImageNet at 256, no guidance", "memory", False),
    ),
    "tabular/adult": (
        Published("C2ST .841, shape .68 %, trend 1.54 %, AUC .913", f"TabDiff: {_TABPC}", "read", True,
                  "three hours on a GPU; its trend has bin edges of its own for either table"),
    ),
    "tabular/tabddpm": (
        Published("adult: macro F1 .795 (real .815)", _TABDDPM, "read", False, "CatBoost, its own split and settings"),
    ),
    "tabular/tabdiff": (
        Published("adult: C2ST .841, shape .68 %, trend 1.54 %", f"TabDiff: {_TABPC}", "read", True, "three hours on a GPU"),
    ),
    "timeseries/exchange": (
        Published("CRPS_sum .006 ± .001", _TIMEGRAD, "second hand", True, "the last value alone has .0062"),
    ),
    "timeseries/timegrad": (
        Published("exchange_rate_nips: CRPS_sum .006 ± .001", _TIMEGRAD, "second hand", True),
    ),
    "timeseries/csdi": (
        Published("PhysioNet, 10 / 50 / 90 % hidden: CRPS .238 / .330 / .522", "Tashiro et al. 2021 (CSDI)", "second hand", False),
    ),
    "timeseries/m4": (
        Published("CRPS .036", f"{_TSDIFF}, nine levels", "second hand", False),
        Published("CRPS .052", f"DeepAR, in {_TSDIFF}", "second hand", False),
    ),
    "timeseries/nips_exchange_rate": _nips(".006 ± .001", None),
    "timeseries/nips_solar": _nips(".287 ± .02", ".298"),
    "timeseries/nips_electricity": _nips(".0206 ± .001", ".017"),
    "timeseries/nips_traffic": _nips(".044 ± .006", ".020"),
    "timeseries/nips_taxi": _nips(".114 ± .02", ".123"),
    "timeseries/nips_wikipedia": _nips(".0485 ± .002", ".047"),
    "molecule/qm9": (
        Published("atoms stable 98.7 %, molecules 82.0 %, valid 91.9 %", "Hoogeboom et al. 2022 (EDM)", "second hand", True),
    ),
    "molecule/qm9_small": (
        Published("atoms stable 98.7 %, molecules 82.0 %, valid 91.9 %", "Hoogeboom et al. 2022 (EDM)", "second hand", False,
                  "nine blocks of width 256, a week on a GPU"),
    ),
    "molecule/qm9_flow": (
        Published("atoms stable 98.9 %, molecules 88.3 %, valid 94.7 %", "Song et al. 2023 (EquiFM)", "memory", False),
    ),
    "molecule/conformers": (
        Published("GEOM-Drugs: AMR-R .582 Å, COV-R 72.7 % (ETKDG 1.058 Å, 38.4 %)", "Jing et al. 2022", "second hand", False),
    ),
    "molecule/poses": (
        Published("PDBbind time split, blind: 38.2 % of the first poses below 2 Å", "Corso et al. 2023 (DiffDock)",
                  "second hand", False),
        Published("PoseBusters set, pocket known: 60 % below 2 Å", "AutoDock Vina, in Buttenschoen et al. 2024",
                  "second hand", False),
    ),
}  # fmt: skip
