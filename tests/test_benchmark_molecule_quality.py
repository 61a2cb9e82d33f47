"""The measuring of molecules: shares of known ones are known."""

import numpy as np
import pytest

from benchmarks.molecule_quality import SHARES, _line, _picture, figures, main
from diffusionkit.molecule.pool import flat

METHANE = np.array([6, 1, 1, 1, 1]), 0.63 * np.array([[0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1.0]])
APART = METHANE[0], METHANE[1] * [[1], [20], [1], [1], [1]]  # one hydrogen far away


def test_methane_is_all_that_it_should_be():
    found = figures(*flat([METHANE, METHANE]), frozenset())
    assert found["n"] == 2 and found["unique"] == 0.5 and found["novel"] == 1
    assert all(found[key] == 1 for key in ("atoms_stable", "molecules_stable", "valid", "valid_connected"))
    assert figures(*flat([METHANE]), frozenset({"C"}))["novel"] == 0


def test_a_hydrogen_too_far_is_seen_by_every_share_that_can_see_it():
    found = figures(*flat([METHANE, APART]), frozenset())
    assert found["molecules_stable"] == 0.5 and found["valid_connected"] == 0.5
    assert found["atoms_stable"] == pytest.approx(0.8)  # that hydrogen and its carbon


def test_lines_and_pictures_take_what_is_missing(tmp_path):
    nothing = dict.fromkeys(SHARES, None)
    assert _line("none", nothing)["novel"] == "–"
    cell = figures(*flat([METHANE]), frozenset())
    _picture(tmp_path / "deep" / "curve.png", {"DDPM": [(50, cell), (250, cell)]}, "evaluations")
    assert (tmp_path / "deep" / "curve.png").stat().st_size > 1000


def test_a_part_that_there_is_not_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["nothing"])
    assert "steps, times" in capsys.readouterr().err
