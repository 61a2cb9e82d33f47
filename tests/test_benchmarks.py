from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import __main__, image
from benchmarks.cells import read
from benchmarks.peers import PEERS, Case, ours, parameters
from benchmarks.timing import Clock, peak, ratio, rounds, spent

TINY = Case("tiny", (1, 8, 8), 2, 8, (1, 2), 1, (4,))
ROOT = Path(__file__).parent.parent


def test_rounds_measure_everyone_equally_often() -> None:
    order: list[str] = []
    seconds = rounds({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=4, warmup=2)
    assert {name: len(values) for name, values in seconds.items()} == {"a": 4, "b": 4}
    assert "".join(order) == "baabbaabbaab", "every other round goes backwards"
    assert ratio([2.0, 30.0, 4.0], [1.0, 10.0, 2.0]) == 2.0


def test_a_clock_counts_the_calls_until_it_is_left() -> None:
    module = torch.nn.Identity()
    with Clock(module) as clock:
        assert module(torch.ones(1)) == module(torch.ones(1)) == 1
    module(torch.ones(1))
    assert clock.calls == 2 and 0 < clock.seconds < 1


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


@pytest.mark.slow
@pytest.mark.parametrize("words", [["benchmarks", "image"], ["benchmarks.image"]])
def test_the_program_and_its_modules_run_and_keep_their_cells(words: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", *words, "cli", "--quick", "--out", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    ((key, cell),) = read(tmp_path / "image_speed.json").items()
    (row,) = cell["rows"]
    assert key == "cli/quick" and row["what"] == "diffusionkit --help" and row["value"] > 0
    assert cell["command"].startswith("python -m benchmarks image cli")


def test_the_program_lists_its_benchmarks_and_refuses_others(capsys: pytest.CaptureFixture) -> None:
    __main__.main([])
    said = capsys.readouterr().out
    assert all(any(line.split()[0] == name for line in said.splitlines() if line) for name in __main__.PROGRAMS)
    with pytest.raises(SystemExit):
        __main__.main(["imag"])
    assert "did you mean image?" in capsys.readouterr().err


@pytest.mark.parametrize("name", __main__.PROGRAMS)
def test_every_benchmark_is_a_module_with_a_sentence(name: str) -> None:
    module = importlib.import_module(__main__.PROGRAMS[name])
    assert callable(module.main) and __main__.sentence(name).endswith((".", "?"))


# ---- memory and time of other processes ----


def test_a_commands_memory_is_its_own_and_not_ours():
    ours = bytearray(400_000_000)
    ours[::4096] = bytes(len(ours[::4096]))  # touched, so that it is there
    assert peak() > 400
    small = spent([sys.executable, "-S", "-c", "pass"])
    large = spent([sys.executable, "-S", "-c", "x = b'1' * 200_000_000"])
    assert small.code == large.code == 0
    assert small.peak_mb < 100 and 200 < large.peak_mb < 300


def test_a_programs_peak_is_not_that_of_who_started_it():
    ours = bytearray(1_200_000_000)  # more than torch takes to be imported
    ours[::4096] = bytes(len(ours[::4096]))
    code = "from benchmarks.timing import peak; print(peak())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert float(found.stdout) < 1100 < peak()


def test_a_commands_exit_code_and_time_come_back():
    found = spent([sys.executable, "-S", "-c", "import time; time.sleep(0.3); raise SystemExit(7)"])
    assert found.code == 7 and found.seconds >= 0.3 and 0 <= found.cpu_seconds < 5
