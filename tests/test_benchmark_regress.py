"""Comparing figures: what is worse is named, what is noise is not, and only equal settings are compared."""

from __future__ import annotations

import json

import pytest

from benchmarks.regress import compared, figures, main, without_seed


def cell(value, seed=0, n=100, share=0.9, **more):
    figures = {"value": value, "measure": "CRPS", "seed": seed, "n": n, "network_share": share, "seconds": 5.0 * value}
    return figures | {"machine": {"commit": "abc", "CRPS": 7}} | more


def kept(path, **cells):
    path.write_text(json.dumps({"cells": {name.replace("_", "/"): one for name, one in cells.items()}}))
    return str(path)


def test_figures_are_gathered_over_seeds_by_the_way_to_them():
    nested = {"figures": {"persistence": {"CRPS": 3.0, "width": 1.0}}, "steps": 4, "recipe": {"CRPS": 9}}
    found = figures({"a/own/seed 0": cell(1.0), "a/own/seed 1": cell(3.0, 1), "own/set/0": nested})
    assert found["a/own: CRPS"].values == [1.0, 3.0] and found["a/own: CRPS"].spread == 1.0
    assert found["own/set: figures/persistence/CRPS"].mean == 3.0 and len(found) == 3
    assert found["a/own: network_share"].values == [0.9, 0.9]
    assert without_seed("samplers/ldm/5") == "samplers/ldm/5", "five evaluations are no seed"


@pytest.mark.parametrize(("now", "worse"), [(1.04, False), (1.06, True), (0.5, False)])
def test_one_seed_is_judged_by_the_tolerance_of_the_measure(now, worse):
    (verdict,) = [v for v in compared({"a": cell(1.0)}, {"a": cell(now)})[0] if v.before.measure == "CRPS"]
    assert verdict.worse is worse


def test_several_seeds_are_judged_by_their_spread():
    before = {f"a/seed {k}": cell(value, k) for k, value in enumerate((1.0, 1.4))}
    noisy = {f"a/seed {k}": cell(value, k) for k, value in enumerate((1.3, 1.5))}
    assert not any(v.worse for v in compared(before, noisy)[0])
    steady = {f"a/seed {k}": cell(value, k) for k, value in enumerate((1.5, 1.6))}
    assert [v.name for v in compared(before, steady)[0] if v.worse] == ["a: CRPS"]


def test_more_is_better_where_it_is(tmp_path):
    before, after = ({"a": {"value": value, "measure": "valid and of one piece"}} for value in (0.8, 0.7))
    assert compared(before, after)[0][0].worse and not compared(after, before)[0][0].worse


@pytest.mark.parametrize(("share", "worse"), [(0.82, False), (0.80, True)])
def test_ratios_of_speeds_may_be_a_tenth_worse(share, worse):
    (verdict,) = [v for v in compared({"a": cell(1.0)}, {"a": cell(1.0, share=share)})[0] if v.name.endswith("share")]
    assert verdict.worse is worse


def test_other_settings_and_missing_cells_are_said_and_not_compared():
    verdicts, left = compared({"a": cell(1.0), "b": cell(1.0)}, {"a": cell(9.0, n=50)})
    assert not verdicts and len(left) == 4
    assert any("n was 100, is 50" in line for line in left) and any("not in the new file" in line for line in left)


def test_the_command_names_what_is_worse_and_keeps_a_history(tmp_path, capsys):
    old = kept(tmp_path / "old.json", a_own=cell(1.0), b_own=cell(1.0), c=cell(5.0))
    good, bad = (kept(tmp_path / f"{k}.json", a_own=cell(1.0), b_own=cell(k)) for k in (1, 2))
    history = tmp_path / "history.jsonl"
    main(["--against", old, "--new", good, "--history", str(history)])
    with pytest.raises(SystemExit) as stopped:
        main(["--against", old, "--new", bad, "--history", str(history), "--plot", str(tmp_path / "h.png")])
    said = capsys.readouterr().out
    assert stopped.value.code == 1 and "WORSE" in said and "b/own: CRPS" in said and "c: CRPS: is not in" in said
    lines = [json.loads(line) for line in history.read_text().splitlines()]
    assert [line["worse"] for line in lines] == [[], ["b/own: CRPS"]] and lines[0]["commit"] == "abc"
    assert lines[1]["figures"]["b/own: CRPS"] == 2 and (tmp_path / "h.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--against FILE"),
        (["--against", "nowhere.json", "--new", "other.json"], "nowhere.json: No such file"),
        (["--against", "{path}", "--new", "{path}"], "is the same file"),
        (["--against", "{path}", "--new", "{empty}"], "has no figure in common"),
        (["--against", "{broken}", "--new", "{path}"], "is no file of cells"),
        (["--plot", "a.png", "--history", "nowhere.jsonl"], "there is no history yet"),
    ],
)
def test_what_cannot_be_compared_is_refused(words, said, tmp_path, capsys):
    paths = {"path": kept(tmp_path / "a.json", a=cell(1.0)), "empty": kept(tmp_path / "b.json")}
    (tmp_path / "c.json").write_text("[1, 2]")
    with pytest.raises(SystemExit) as stopped:
        main([word.format(**paths, broken=tmp_path / "c.json") for word in words])
    assert stopped.value.code == 2 and said in capsys.readouterr().err
