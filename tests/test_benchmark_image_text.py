"""The measuring of prompts: chance is chance, the real pictures are judged by the judge, and the judge is not the one who steers."""

import os
from pathlib import Path

import pytest

from benchmarks.cells import read
from benchmarks.image_text import main
from diffusionkit.recipe import Recipe
from diffusionkit.training.run import Run, assemble

pytestmark = [
    pytest.mark.slow,  # the emoji are read for each of four runs
    pytest.mark.skipif(
        not (Path(os.environ.get("DIFFUSIONKIT_DATA", "/nowhere")) / "image/emoji").is_dir(),
        reason="the emoji are not at hand: set DIFFUSIONKIT_DATA",
    ),
]
SMALL = {
    "backbone.channels": "8",
    "backbone.multipliers": "[1, 2]",
    "backbone.text_width": "8",
    "backbone.attention": "[]",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name, base in {"text": "emoji_text", "plain": "emoji", "clip": "emoji_clip", "judge": "emoji_clip"}.items():
        changes = {k: v for k, v in SMALL.items() if base != "emoji" or "text" not in k}
        recipe = Recipe.load(f"image/{base}").override(changes)
        codec, _ = recipe.domain.prepare(recipe.build("data"))
        Run(folder / name, recipe, recipe.domain, codec, assemble(recipe, codec).eval(), 0).save(folder / name)
    return folder


def words(runs: Path, judge: str = "judge") -> list[str]:
    return [
        w
        for k, v in {"text": "text", "plain": "plain", "clip": "clip", "judge": judge}.items()
        for w in (f"--{k}", str(runs / v))
    ]


def test_every_way_is_judged_on_both_parts(runs, tmp_path, capsys):
    found = main([*words(runs), "-n", "3", "--steps", "2", "--pictures", str(tmp_path), "--out", str(tmp_path)])
    cells = read(tmp_path / "image_text.json")
    assert len(cells) == 10 and all(cell["captions"] == 3 and cell["among"] == 100 for cell in cells.values())
    assert len(found) == 5 and all(set(row) == {"held out", "training"} for row in found.values())
    assert all(0 <= share <= 1 for row in found.values() for share in row.values())
    assert len(list(tmp_path.glob("*.png"))) == 10
    assert "chance 1 %" in capsys.readouterr().out


def test_the_judge_does_not_steer(runs, capsys):
    with pytest.raises(SystemExit):
        main(words(runs, "clip"))
    assert "must be another run" in capsys.readouterr().err


def test_the_model_without_text_and_what_steers_it_come_together(runs, tmp_path, capsys):
    alone = ["--text", str(runs / "text"), "--judge", str(runs / "judge")]
    found = main([*alone, "-n", "2", "--steps", "1", "--out", str(tmp_path)])
    assert set(found) == {"real", "text, guidance 1", "text, guidance 4"}
    with pytest.raises(SystemExit):
        main([*alone, "--clip", str(runs / "clip")])
    assert "belong together" in capsys.readouterr().err


def test_a_model_that_reads_captions_is_not_needed(runs, tmp_path, capsys):
    steered = [f"--{name}={runs / name}" for name in ("plain", "clip", "judge")]
    found = main([*steered, "-n", "2", "--steps", "1", "--out", str(tmp_path)])
    assert set(found) == {"real", "without text, steered at 50", "without text"}
    with pytest.raises(SystemExit):
        main(steered[2:])
    assert "nothing draws" in capsys.readouterr().err
