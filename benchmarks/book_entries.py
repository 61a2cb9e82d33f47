"""Which cells of `benchmarks/results` are the figures of a recipe, and why a recipe has none."""

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    """Figures in a file of cells.

    Attributes:
        file: without its ending.
        cells: the name of the cells without their seeds, see `regress.without_seed`; a name that ends with `/*` is that of cells of
            many cases, of which a share is taken.
        way: to the figure within a cell; `*` stands for any name, of which the one with the lowest figure counts. ` < 2` behind it
            makes it the share of cells whose figure is below 2.
    """

    file: str
    cells: str
    way: str


class Entry(NamedTuple):
    """A recipe's figures.

    Attributes:
        command: that repeats them.
        figures: by the name of the measure; one whose name ends with " %" is shown in percent.
        beside: what they are to be compared with, by a word for it.
        steps: of the training.
        seconds: of the training; a name that ends with "minutes" is one of minutes.
    """

    command: str
    figures: dict[str, Place]
    beside: dict[str, Place]
    steps: Place
    seconds: Place


def _series(name: str, *measures: str) -> Entry:
    cells = f"own/{name}"
    joint = ("CRPS", "CRPS_sum") if not measures else measures
    baselines = {
        f"{m}, best baseline": Place("timeseries_quality", f"baselines/{name}", f"figures/*/{m}") for m in joint
    }
    return Entry(
        f"python -m benchmarks timeseries quality --sets {name}",
        {measure: Place("timeseries_quality", cells, f"figures/{measure}") for measure in joint},
        baselines,
        Place("timeseries_quality", cells, "steps"),
        Place("timeseries_quality", cells, "figures/cpu_seconds"),
    )


def _fashion(cells: str, name: str) -> Entry:
    return Entry(
        "python -m benchmarks image_quality latent",
        {"Fréchet distance": Place("image_quality", f"latent/{cells}", "frechet"),
         "class accuracy %": Place("image_quality", f"latent/{cells}", "accuracy")},
        {"Fréchet distance, real pictures": Place("image_quality", "latent/real pictures", "frechet")},
        Place("image_quality", "latent/cost", f"steps/{name}"),
        Place("image_quality", "latent/cost", f"minutes/{name}"),
    )  # fmt: skip


def _qm9(arguments: str, cells: str, n: int) -> Entry:
    shares = {"atoms stable": "atoms_stable", "valid": "valid", "valid, of one piece": "valid_connected"}
    return Entry(
        f"python -m benchmarks molecule_quality {arguments}",
        {f"{word} %": Place("molecule_quality", cells, key) for word, key in shares.items()},
        {f"{word}, QM9 %": Place("molecule_quality", f"qm9_small/real/{n}", shares[word])
         for word in ("atoms stable", "valid")},
        Place("molecule_quality", cells, "steps"),
        Place("molecule_quality", cells, "train_seconds"),
    )  # fmt: skip


_POSES = "poses/test/12 A/40/etkdg/relaxed/*"
_ADULT, _CONFORMERS = "default/adult", "test/20/model from conformers"
ENTRIES: dict[str, Entry] = {
    "image/fashion": _fashion("pixels, U-Net", "fashion"),
    "image/fashion_ldm": _fashion("latents, U-Net", "fashion_ldm"),
    "image/fashion_dit": _fashion("pixels, DiT", "fashion_dit"),
    "image/fashion_vae": _fashion("real ones through the autoencoder", "fashion_vae"),
    "tabular/adult": Entry(
        "python -m benchmarks tabular quality --tables adult",
        {"C2ST": Place("tabular_quality", _ADULT, "figures/c2st"),
         "shape error %": Place("tabular_quality", _ADULT, "figures/shape"),
         "trend error %": Place("tabular_quality", _ADULT, "figures/trend"),
         "AUC": Place("tabular_quality", _ADULT, "figures/auc")},
        {"AUC, real rows": Place("tabular_quality", "floor/adult", "figures/auc"),
         "trend error, independent columns %": Place("tabular_quality", "independent/adult", "figures/trend")},
        Place("tabular_quality", _ADULT, "steps"),
        Place("tabular_quality", _ADULT, "figures/fit_seconds"),
    ),
    "tabular/tabddpm": Entry(
        "python -m benchmarks tabular peers --seeds 0",
        {"adult: C2ST": Place("tabular_peers", "tabddpm/adult/equal", "figures/c2st"),
         "trend error %": Place("tabular_peers", "tabddpm/adult/equal", "figures/trend")},
        {"C2ST, default preset": Place("tabular_quality", _ADULT, "figures/c2st")},
        Place("tabular_peers", "tabddpm/adult/equal", "steps"),
        Place("tabular_peers", "tabddpm/adult/equal", "figures/fit_seconds"),
    ),
    "timeseries/exchange": _series("exchange_rate_nips"),
    "timeseries/etth1": _series("etth1"),
    "timeseries/wind": _series("irish_wind"),
    "timeseries/demand": _series("vic_electricity_hourly"),
    "timeseries/metr": _series("metr_la_week"),
    "timeseries/bus": _series("montevideo_bus"),
    "timeseries/m4": _series("m4_hourly", "CRPS", "MASE"),
    "timeseries/tourism": _series("tourism_monthly", "CRPS", "MASE"),
    "timeseries/timegrad": Entry(
        "python -m benchmarks timeseries quality --sets exchange_rate_nips --reference",
        {"exchange_rate_nips: CRPS_sum": Place("timeseries_quality", "timegrad/exchange_rate_nips/equal", "figures/CRPS_sum")},
        {"CRPS_sum, exchange": Place("timeseries_quality", "own/exchange_rate_nips", "figures/CRPS_sum")},
        Place("timeseries_quality", "timegrad/exchange_rate_nips/equal", "steps"),
        Place("timeseries_quality", "timegrad/exchange_rate_nips/equal", "figures/cpu_seconds"),
    ),
    "timeseries/air": Entry(
        "python -m benchmarks timeseries impute",
        {f"MAE, {100 * float(s):.0f} % hidden": Place("timeseries_impute", "own/air_quality_uci", f"figures/{s}/mae")
         for s in ("0.1", "0.9")},
        {f"{100 * float(s):.0f} % hidden, best simple way":
         Place("timeseries_impute", f"baselines/air_quality_uci/{s}", "figures/*/mae") for s in ("0.1", "0.9")},
        Place("timeseries_impute", "own/air_quality_uci", "steps"),
        Place("timeseries_impute", "own/air_quality_uci", "cpu_seconds"),
    ),
    "molecule/qm9_small": _qm9('steps --flow "" --steps 250 50 -n 1000', "qm9_small/1/DDPM/250/1000", 1000),
    "molecule/qm9_flow": _qm9("steps -n 128", "qm9_flow/1/flow, SDE/50/128", 128),
    "molecule/conformers": Entry(
        "python -m benchmarks molecule_conformers --runs runs/conformers",
        {"best of 20, median Å": Place("molecule_conformers", _CONFORMERS, "median"),
         "below .5 Å %": Place("molecule_conformers", _CONFORMERS, "below 0.5")},
        {"median Å, ETKDGv3": Place("molecule_conformers", "test/20/ETKDGv3", "median"),
         "random torsions": Place("molecule_conformers", "test/20/random torsions", "median")},
        Place("molecule_conformers", _CONFORMERS, "steps"),
        Place("molecule_conformers", _CONFORMERS, "train_seconds"),
    ),
    "molecule/poses": Entry(
        "python -m benchmarks molecule_poses quality --run runs/poses --relax",
        {"best of 40 below 2 Å %": Place("molecule_poses", _POSES, "ways/model, best of n/rmsd < 2"),
         "first %": Place("molecule_poses", _POSES, "ways/model, first by confidence and density/rmsd < 2"),
         "first, relaxed %": Place(
             "molecule_poses", _POSES, "ways/model, first by confidence and density, relaxed/rmsd < 2"
         ),
         "first drawn %": Place("molecule_poses", _POSES, "ways/model, first drawn/rmsd < 2")},
        {"best of 40 at random %": Place("molecule_poses", _POSES, "ways/random, best of n/rmsd < 2"),
         "first at random %": Place("molecule_poses", _POSES, "ways/random, first/rmsd < 2")},
        Place("molecule_poses", _POSES, "steps"),
        Place("molecule_poses", _POSES, "train_seconds"),
    ),
}  # fmt: skip

_GPU = "made for a GPU, and none was at hand: one step in the tests, never trained to the end"
_OWN = "for files of your own: one step in the tests, nothing to compare with"
_NIPS = "never trained: the files could not be had"
_CASCADE = "trained; its figures are those of `python -m benchmarks image_quality cascade`, in the domain's README"
_EVALUATED = "trained; its figures are those of `diffusionkit evaluate`, in the domain's README"
UNMEASURED = {
    "image/cifar": _GPU,
    "image/cifar_dit": _GPU,
    "image/cifar_edm": _GPU,
    "image/cifar_ldm": _GPU,
    "image/cifar_vae": _GPU,
    "image/cifar_sr": "1,200 of 2,500 steps; its figures are those of `python -m benchmarks superres`, in docs/image.md",
    "image/digits": _EVALUATED,
    "image/mnist": _EVALUATED,
    "image/fashion_sr": _CASCADE,
    "image/fashion_base": _CASCADE,
    "image/fashion_classifier": "trained; it steers, or lends an autoencoder its features",
    "image/emoji": "1,200 of 2,400 steps; its figures are those of `python -m benchmarks image_text`, in the domain's README",
    "image/emoji_text": "trained; its figures are those of `python -m benchmarks image_text`, in the domain's README",
    "image/emoji_clip": "trained; it judges, or steers, what others draw",
    "image/folder": _OWN,
    "tabular/randhie": _EVALUATED,
    "timeseries/macro": _EVALUATED,
    "molecule/nci_small": _EVALUATED,
    "tabular/csv": _OWN,
    "tabular/tabdiff": "one step in the tests, never trained to the end",
    "timeseries/csv": _OWN,
    "timeseries/many": _OWN,
    "timeseries/recurrent": _OWN,
    "timeseries/csdi": _OWN,
    **{f"timeseries/nips_{name}": _NIPS
       for name in ("exchange_rate", "solar", "electricity", "traffic", "taxi", "wikipedia")},
    "molecule/file": _OWN,
    "molecule/pose_confidence": "ranks the poses of molecule/poses, and is measured with them",
    "molecule/qm9": "for days on a GPU: one step in the tests, never trained to the end",
}  # fmt: skip
"""Why a recipe has no figure, shown as long as it has none."""
OTHERWISE = "no benchmark has kept a figure of it yet"
