from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import image
from benchmarks.peers import PEERS, Case, ours, parameters
from benchmarks.timing import Clocked, ratio, rounds

TINY = Case("tiny", (1, 8, 8), 2, 8, (1, 2), 1, (4,))
ROOT = Path(__file__).parent.parent


def test_rounds_measure_everyone_equally_often() -> None:
    order: list[str] = []
    seconds = rounds({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=4, warmup=2)
    assert {name: len(values) for name, values in seconds.items()} == {"a": 4, "b": 4}
    assert "".join(order) == "baabbaabbaab", "every other round goes backwards"
    assert ratio([2.0, 30.0, 4.0], [1.0, 10.0, 2.0]) == 2.0


def test_clocked_counts_the_calls_alone() -> None:
    clocked = Clocked(torch.nn.Identity())
    assert clocked(torch.ones(1)) == 1
    assert 0 < clocked.seconds < 1


@pytest.mark.parametrize("name", ["ours", *PEERS])
def test_contestants_train_and_sample(name: str) -> None:
    pytest.importorskip("torch" if name == "ours" else name.replace("-", "_"))
    torch.manual_seed(0)
    contestant = {"ours": ours, **PEERS}[name](TINY)
    contestant.loss(torch.zeros(2, 1, 8, 8)).backward()
    assert contestant.sample(2).shape == (2, 1, 8, 8)
    assert abs(parameters(contestant.network) / parameters(ours(TINY).network) - 1) < 0.5


def test_missing_peers_are_skipped_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(case: Case) -> None:
        raise ImportError

    monkeypatch.setattr(image, "PEERS", {"somebody": absent})
    rows = list(image._peers(TINY, bf16=False, repeats=1))
    assert [row["value"] for row in rows[:2]] == [1.0, 1.0], "ours against ours"
    assert "somebody is not installed" in image.show(rows[-1])


def test_gates_are_lower_bounds_for_ratios_and_upper_bounds_for_costs() -> None:
    assert image.row("p", "w", 1.1, "x", 1.0)["met"]
    assert not image.row("p", "w", 1.1, "times", 1.05)["met"]
    assert "MISSED" in image.show(image.row("p", "w", 4.0, "%", 3.0))


def test_runs_as_a_file_and_writes_json(tmp_path: Path) -> None:
    file = tmp_path / "numbers.json"
    command = [sys.executable, str(ROOT / "benchmarks/image.py"), "--quick", "--only", "cli", "--json", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (row,) = json.loads(file.read_text())["rows"]
    assert row["what"] == "diffusionkit --help"
    assert row["value"] > 0
