"""The benchmark of conformers, on a few molecules."""

from __future__ import annotations

import numpy as np

from benchmarks import molecule_conformers as bench
from diffusionkit.molecule.conformer_data import Made, readable


def test_a_line_has_the_difference_and_its_error_over_molecules():
    base = [np.array([1.0, 0.6, 0.4, np.nan]), np.array([1.0, 0.8, 0.4, np.nan])]
    row = bench.line("model", [best - np.array([0.1, 0.2, 0.3, 0.0]) for best in base], base)
    assert row["mean - ETKDGv3"] == "-0.200 ± 0.058" and row["below 1"] == "0.750" and row["below 0.5"] == "0.375"


def test_a_cell_holds_every_molecule():
    known, _, _ = readable(Made().load()["test"])
    cell = bench.measured(known, lambda: [mol.GetConformer().GetPositions()[None] for mol in known])
    assert cell["best"] == [0.0] * 4 and cell["below 0.5"] == 1 and cell["molecules"] == 4
