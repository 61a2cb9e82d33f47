"""The results book: nothing in it is typed, nothing is missing, and it says what was not trained to the end."""

from __future__ import annotations

import json

import pytest

from benchmarks import book
from benchmarks.book_entries import ENTRIES, UNMEASURED
from benchmarks.published import PUBLISHED

RECIPES = [name for domain in book.TITLES for name in book.shipped(domain)]
MACHINE = {"threads": 1, "cores": 2, "architecture": "x86_64", "capability": "AVX512", "torch": "2.15.0"}


def shelf(folder, **files):
    for name, cells in files.items():
        cells = {key: {"machine": MACHINE, "seconds": 1.0, **cell} for key, cell in cells.items()}
        (folder / f"{name}.json").write_text(json.dumps({"cells": cells}))
    return book.Shelf(folder)


def test_the_book_is_what_the_results_say():
    assert book.BOOK.read_text("utf-8") == book.page(), "python -m benchmarks book"


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_in_it(recipe):
    domain, _, name = recipe.partition("/")
    section = book.BOOK.read_text("utf-8").partition(f"## {book.TITLES[domain]}\n")[2].partition("\n## ")[0]
    assert f"\n| `{name}` | " in section


def test_every_table_of_the_book_names_recipes_that_there_are():
    assert {*ENTRIES, *UNMEASURED, *PUBLISHED} <= {*RECIPES}
    assert all(one.known in book.KNOWN for found in PUBLISHED.values() for one in found)


def test_seeds_are_averaged_and_short_trainings_said(tmp_path):
    own = {
        f"own/etth1/{seed}": {"figures": {"CRPS": 0.1 + 0.02 * seed, "cpu_seconds": 240}, "steps": steps}
        for seed, steps in enumerate((100, 90))
    }
    baselines = {"baselines/etth1/0": {"figures": {"walk": {"CRPS": 0.3}, "naive": {"CRPS": 0.2}}}}
    line = book.row(shelf(tmp_path, timeseries_quality=own | baselines), "timeseries/etth1")
    assert "**100 of 700 steps: not trained to the end**, 4 min" in line
    assert "CRPS 0.11 ± 0.01" in line and "best baseline 0.2 " in line
    note = book.note(shelf(tmp_path), "timeseries/etth1")
    assert "--sets etth1`; 2 seeds, 1 thread of 2 cores (x86_64, AVX512), torch 2.15.0." in note


def test_figures_of_all_domains_stand_in_where_there_are_no_others(tmp_path):
    cells = {
        "image/digits/own/seed 0": {
            "value": 3.0,
            "measure": "Fréchet distance",
            "steps": 500,
            "samples_per_second": 250.0,
            "evaluations": 20.0,
            "network_share": 0.9,
        },
        "image/digits/training/seed 0": {"train_seconds": 30.0, "steps": 500, "planned": 2000, "parameters": 1234},
        "image/digits/beside": {"value": 1.0, "what": "300 training pictures"},
        "image/digits/DDIM/5/seed 0": {"value": 4.0},
    }
    found = shelf(tmp_path, domains_quick=cells)
    line = book.row(found, "image/digits")
    assert (
        "**500 of 2,000 steps: not trained to the end**, 30 s | Fréchet distance 3 | 300 training pictures 1 |" in line
    )
    assert "benchmarks domains --quick`" in book.note(found, "image/digits")
    page = book.page(tmp_path)
    assert "| DDIM | 4 |" in page and "300 training pictures: 1)" in page
    assert "| 500 of 2,000 | 30 s | 1,234 | 250 | 20 | 90 % |" in page


def test_shares_of_cases_count_those_without_a_figure(tmp_path):
    ways = [{"model, best of n": {"rmsd": far}, "random, best of n": {"rmsd": 9.0}} for far in (1.0, 1.5, 3.0)]
    cells = {f"poses/test/12 A/40/etkdg/seed 0/relaxed/{k}": {"ways": way} for k, way in enumerate(ways)}
    found = shelf(
        tmp_path, molecule_poses=cells | {"poses/test/12 A/40/etkdg/seed 0/relaxed/x": {"reason": "too large"}}
    )
    line = book.row(found, "molecule/poses")
    assert "best of 40 below 2 Å 50 %" in line and "at random 0 %" in line
    assert "4 cases, 1 thread" in book.note(found, "molecule/poses")


def test_what_has_no_figure_says_why(tmp_path):
    empty = shelf(tmp_path)
    assert "never trained to the end" in book.row(empty, "image/cifar") and "FID 3.17" in book.row(empty, "image/cifar")
    assert book.OTHERWISE in book.row(empty, "timeseries/etth1"), "its cells are not there"
    assert "from memory, not read again" in book.note(empty, "image/cifar")
    assert "No CUDA card was at hand" in book.page(tmp_path)


def test_figures_of_a_card_are_shown(tmp_path):
    step = {"mfu": 0.4, "batch": 128, "samples_per_second": 5000.0, "peak_gib": 12.0}
    quality = {"frechet": 2.0, "real": 1.0, "n": 100, "steps": 1000}
    cells = {"unet/H100": step, "peers/H100": {"contestants": {"diffusers": step}}, "quality/H100/1000 steps": quality}
    shelf(tmp_path, gpu=cells)
    text = book.page(tmp_path)
    assert "| unet | 128 | 5,000 | 40 % | 12.0 GiB | H100 |" in text and "| diffusers |" in text
    assert "No CUDA card" not in text and "after 1,000 steps (H100): Fréchet distance 2.00" in text


def test_an_old_book_is_noticed(tmp_path):
    book.main(["--out", str(tmp_path / "a.md"), "--results", str(tmp_path)])
    book.main(["--out", str(tmp_path / "a.md"), "--results", str(tmp_path), "--check"])
    (tmp_path / "a.md").write_text("old")
    with pytest.raises(SystemExit, match="out of date"):
        book.main(["--out", str(tmp_path / "a.md"), "--results", str(tmp_path), "--check"])


def test_no_paths_of_a_machine_are_in_it():
    text = book.BOOK.read_text("utf-8")
    assert not any(word in text for word in ("/root", "/home", "/work", "/tmp"))
