from __future__ import annotations

import json
from argparse import Namespace

import pytest
import torch

from benchmarks import molecule, molecule_memory, molecule_speed

TINY = ["--batch", "4", "--width", "8", "--depth", "1", "--repeats", "1"]


def test_the_speed_part_measures_every_cell_once(tmp_path, capsys):
    molecule.main(["speed", *TINY, "--out", str(tmp_path)])
    cells = json.loads((tmp_path / "molecule_speed.json").read_text())["cells"]
    assert list(cells) == [f"{name}/8x1, batch 4" for name in molecule_speed.CELLS]
    found = {name.split("/")[0]: cell for name, cell in cells.items()}
    assert found["equal"]["difference"] <= 1e-5 and found["equal"]["derivatives"] < 1e-4
    assert min(found["equal"]["size"].values()) > 0.01, "outputs of nearly nothing would be equal as well"
    assert len(found["training"]["edges"]) == 2, "every round has a batch of its own"
    for cell in (found["training"], found["sampling"], found["bf16"]):
        assert cell["ratio"] == pytest.approx(cell["rounds"]["padded"][0] / cell["rounds"]["ours"][0])
        assert all(a > b for a, b in zip(cell["padded_pairs"], cell["edges"], strict=True))
    assert found["edges"]["lines"]["QM9 x1"]["of_an_edge"] == 1
    assert found["edges"]["lines"]["QM9 x4"]["edges"] == 4 * found["edges"]["lines"]["QM9 x1"]["edges"]
    capsys.readouterr()
    molecule.main(["speed", *TINY, "--out", str(tmp_path)])
    assert capsys.readouterr().out.count("measured already") == len(molecule_speed.CELLS)


def test_sizes_are_those_of_qm9():
    assert sum(molecule_speed.QM9) == 100_000
    options = Namespace(batch=20_000)
    (_, rows), (_, others) = molecule_speed.batches(options, 2)
    counts = rows.counts().double()
    assert abs(counts.mean() - 18.03) < 0.1 and counts.min() >= 3 and counts.max() <= 29
    assert not torch.equal(rows.counts(), others.counts())


def test_both_networks_start_equal_and_train_apart():
    networks = molecule_speed.pair(Namespace(width=8, depth=1))
    ours, theirs = (list(network.parameters()) for network in networks.values())
    assert all(torch.equal(a, b) and a is not b for a, b in zip(ours, theirs, strict=True))


def test_an_unknown_part_is_refused(capsys):
    with pytest.raises(SystemExit):
        molecule.main(["quality of life"])
    assert "there is no part" in capsys.readouterr().err


@pytest.mark.slow  # molecules are made 3D, and two commands started
def test_memory_is_that_of_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(molecule_memory, "COUNTS", (3, 6))
    molecule.main(["memory", "--out", str(tmp_path)])
    cells = json.loads((tmp_path / "molecule_memory.json").read_text())["cells"]
    assert cells["memory/6"]["file_mb"] > cells["memory/3"]["file_mb"] > 0
    assert all(100 < cell["peak_mb"] < 10_000 for cell in cells.values())
    assert "at most 1.1 times" in capsys.readouterr().out
