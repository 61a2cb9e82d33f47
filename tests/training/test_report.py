"""Pages of runs: whole, escaped, self-contained, and right in what they show."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from diffusionkit.errors import UserError
from diffusionkit.training import chart, folder, page
from diffusionkit.training.compare import compare
from diffusionkit.training.report import duration, leaves, report, said

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VOID = {"meta", "img", "br", "hr", "link"}
RECIPE = """# recipe: fake/dots
# Dots & <script>alert("dots")</script> of two kinds.
domain: {domain}
data: {{name: dots}}
process: {{name: gaussian, predict: eps}}
backbone: {{name: net, width: {width}}}
training: {{steps: 40, lr: 0.001}}
seed: 0
"""
MEASURES = {
    "n": 64,
    "frechet": {"samples": 1.234567, "train": 0.5},
    "share": 0.4321,
    "many": list(range(20)),
    "verdict": "It beats <i>nothing</i>.",
    "better": {"frechet": "lower", "share": "higher"},
    "table": [
        {"measure": "frechet", "model": "1.235", "training": "0.500", "comment": "64 to <b>32</b> held out"},
        {"measure": "  of which", "model": "–", "training": "", "comment": ""},
        {"measure": "share", "model": "43.2 %", "training": "50.0 %", "comment": "& more"},
    ],
    "pictures": {"pictures/dots.png": 'Dots, "as they are".'},
}


def made(folder: Path, domain: str = "fake", width: int = 8, side: int = 40, **measures: Any) -> Path:
    """A run folder as `train` and `evaluate` leave it."""
    (folder / "pictures").mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE.format(domain=domain, width=width), "utf-8")
    save_file({"a": torch.zeros(3, 5), "b": torch.zeros(width)}, str(folder / "weights.safetensors"), {"step": "40"})
    rows = "".join(f"{k},{1 / k:.4f},0.001,{'' if k % 10 else 1.1 / k},{k / 2}\n" for k in range(1, 41))
    (folder / "metrics.csv").write_text("step,loss,lr,valid_loss,seconds\n" + rows)
    (folder / "environment.json").write_text(json.dumps({"torch": "2.0", "device": "cpu", "git_commit": "a" * 40}))
    noise = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    for name in ("final", "dots"):
        Image.fromarray(noise).save(folder / "pictures" / f"{name}.png")
    (folder / "metrics.json").write_text(json.dumps(MEASURES | measures))
    return folder


class Reader(HTMLParser):
    """Refuses tags that do not match; keeps tags with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join("\n".join(self.text).split())


def checked(path: Path) -> Reader:
    """What every page has to be."""
    text = path.read_text("utf-8")
    found = Reader(text)
    for tag, attrs in found.tags:
        assert tag not in ("script", "link", "iframe", "object")
        for name in ("src", "href"):
            assert attrs.get(name, "data:").startswith("data:")
        assert tag != "img" or attrs["alt"]
        assert tag != "svg" or (attrs["role"] == "img" and attrs["aria-label"])
    assert "url(" not in text and "@import" not in text and "http" not in text.lower()
    assert text.startswith("<!DOCTYPE html>") and ("viewport" in text) and ("prefers-color-scheme" in text)
    assert path.stat().st_size < 2_000_000
    levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1 and set(levels[1:]) == {2}
    return found


def test_a_report_holds_all_and_stands_alone(tmp_path):
    run = made(tmp_path / "run")
    path = report(run, "diffusionkit evaluate runs/x -n 64 --where 'a<b'")
    found = checked(path)
    for _, value in leaves({k: v for k, v in MEASURES.items() if k not in ("table", "pictures", "better", "verdict")}):
        assert said(value) in found.words
    for row in MEASURES["table"]:
        assert all(text.strip() in found.words for text in row.values())
    wanted = ("fake/dots", "23", "20 s", "cpu", "a" * 12, "--where 'a<b'", "width: 8", "It beats <i>nothing</i>.")
    assert all(word in found.words for word in wanted), found.words
    assert sum(tag == "img" for tag, _ in found.tags) == 2 and sum(tag == "svg" for tag, _ in found.tags) == 2
    assert not [entry for entry in run.iterdir() if entry.name.startswith(".")]
    assert report(run).read_text() != "" and f"diffusionkit evaluate {run}" in checked(run / "report.html").words


def test_what_files_hold_is_escaped(tmp_path):
    run = made(tmp_path / "run<1>")
    (run / "origin.json").write_text(json.dumps({"text": "<script>alert(1)</script>"}))
    text = report(run).read_text("utf-8")
    assert "<script" not in text and "&lt;script&gt;alert(&quot;dots&quot;)" in text and "<b>32</b>" not in text
    assert "diffusionkit train" not in checked(run / "report.html").words  # an imported run cannot be trained again


def test_pictures_that_are_broken_missing_or_elsewhere(tmp_path):
    Image.new("RGB", (3, 3)).save(tmp_path / "secret.png")
    pictures = {"pictures/dots.png": "dots", "none.png": "none", "../secret.png": "secret"}
    run = made(tmp_path / "run", pictures=pictures)
    (run / "pictures" / "dots.png").write_bytes(b"no picture")
    found = checked(report(run))
    assert "dots.png is no picture that can be read" in found.words
    assert sum(tag == "img" for tag, _ in found.tags) == 1


def test_heavy_pictures_are_packed(tmp_path):
    run = made(tmp_path / "run", side=8)
    smooth = np.add.outer(np.arange(900), np.arange(900)) // 10 % 256
    for name in ("final", "dots"):
        noise = np.random.default_rng(0).integers(0, 6, (900, 900))
        Image.fromarray((smooth + noise).astype(np.uint8)).save(run / "pictures" / f"{name}.png")
    assert (run / "pictures" / "final.png").stat().st_size > 300_000
    sources = [attrs["src"] for tag, attrs in checked(report(run)).tags if tag == "img"]
    assert all(source.startswith("data:image/webp;base64,") for source in sources)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda run: (run / "metrics.json").unlink(), "has not been evaluated; run `diffusionkit evaluate"),
        (lambda run: (run / "metrics.json").write_text("{"), "metrics.json: is damaged"),
        (lambda run: (run / "origin.json").write_text("{}"), "origin.json: is damaged: it does not say"),
        (lambda run: (run / "recipe.yaml").unlink(), "is no run: it has no recipe.yaml"),
        (
            lambda run: (run / "weights.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0nonsense"),
            "no readable weights file",
        ),
    ],
)
def test_a_damaged_run_is_told_and_nothing_is_written(tmp_path, spoil, expected):
    run = made(tmp_path / "run")
    spoil(run)
    with pytest.raises(UserError, match=expected):
        report(run)
    assert not (run / "report.html").exists()


def test_a_run_without_curves_and_environment_has_a_report(tmp_path):
    run = made(tmp_path / "run", table=None, pictures=None)
    for name in ("metrics.csv", "environment.json", "pictures/final.png"):
        (run / name).unlink()
    found = checked(report(run))
    assert "1.235" in found.words and not any(tag in ("svg", "img") for tag, _ in found.tags)


def test_comparing_marks_the_best_and_shows_what_differs(tmp_path):
    better = json.loads(json.dumps(MEASURES["table"]))
    better[0]["model"], better[2]["model"] = "0.9", "43.2 %"
    one, two = made(tmp_path / "one"), made(tmp_path / "two", width=16, table=better, n=32)
    path = compare([one, two], tmp_path / "page.html")
    text, found = path.read_text("utf-8"), checked(path)
    assert re.findall(r'<td class="[^"]*best[^"]*"><span>([^<]*)', text) == ["0.9"]  # a tie is no win
    assert "backbone.width" in found.words and "training.lr" not in found.words
    assert "evaluations were not alike" in found.words and "on one scale" not in found.words
    assert sum(tag == "img" for tag, _ in found.tags) == 4
    charts = re.findall(r"<svg.*?</svg>", text)
    assert len(charts) == 2 and all(svg.count("<polyline") == 2 for svg in charts)


@pytest.mark.parametrize(
    ("names", "out", "expected"),
    [
        (["one"], "x.html", "two or more different ones"),
        (["one", "one"], "x.html", "two or more different ones"),
        (["one", "other"], "x.html", "other: is of the domain other, .*one of fake"),
        (["one", "bare"], "x.html", "bare: has not been evaluated; run `diffusionkit evaluate .*bare` first"),
        (["one", "two"], "x.pdf", "--out: a page ends in .html, and not in .pdf"),
        (["one", "none"], "x.html", "none is no run"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, names, out, expected):
    made(tmp_path / "one"), made(tmp_path / "two"), made(tmp_path / "other", domain="other")
    (made(tmp_path / "bare") / "metrics.json").unlink()
    with pytest.raises(UserError, match=expected):
        compare([tmp_path / name for name in names], tmp_path / out)
    assert not (tmp_path / out).exists()


def test_runs_of_the_same_name_are_told_apart_by_their_paths(tmp_path):
    runs = [made(tmp_path / part / "run") for part in "ab"]
    found = checked(compare(runs, tmp_path / "c.html"))
    assert all(str(run) in found.words for run in runs) and "Nothing." in found.words


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(("low", "high"), [(0.2, 0.9), (1e-5, 3.0), (7, 8), (3, 3), (1, 800_000), (99.99, 100.01)])
def test_marks_are_round_few_and_within(low, high, log):
    axis = chart._Axis([low, high], 100, log)
    marks = axis.marks(5)
    assert 1 <= len(marks) <= 6 and all(axis.low * (1 - 1e-9) <= mark <= axis.high * (1 + 1e-9) for mark in marks)
    assert marks == sorted(marks) and len({chart.short(mark) for mark in marks}) == len(marks)
    places = [axis(mark) for mark in (axis.low, *marks, axis.high)]
    assert places == sorted(places) and places[0] == 0 and places[-1] == pytest.approx(100)


def test_a_curve_goes_where_its_points_are():
    svg = chart.curves({"a": [(0, 1.0), (5, 10.0), (10, 100.0)], "none": []}, "T", "x", "y", log=True)
    points = [tuple(map(float, p.split(","))) for p in re.search(r'points="([^"]*)"', svg)[1].split()]
    (x0, y0), (x1, y1), (x2, y2) = points
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11) and y0 - y1 == pytest.approx(y1 - y2, abs=0.11) and y0 > y2
    long = chart.curves({"a": [(k, float(k)) for k in range(10_001)]}, "T", "x", "y")
    assert len(re.search(r'points="([^"]*)"', long)[1].split()) <= 400
    assert chart.curves({"a": [(0, float("nan"))]}, "T", "x", "y") == ""
    assert chart.curves({"a<b": [(0, -1.0), (1, 2.0)]}, "T&", "x", "y", log=True).count("<polyline") == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [("1.71 ± 0.07", 1.71), ("92.7 %", 92.7), ("1,234", 1234), ("-3e-5", -3e-5), ("−2", -2), ("absent", None), ("–", None)],
)  # fmt: skip
def test_the_figure_of_a_cell(text, value):
    assert page.figure_of(text) == value


def test_durations_are_said_as_people_do():
    assert [duration(s) for s in (0.5, 59, 200, 7500)] == ["0.5 s", "59 s", "3 min 20 s", "2 h 5 min"]


@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
def test_a_browser_shows_it_without_scrolling_sideways(tmp_path):
    """In frames as wide as a phone and a screen, since a window of Chromium's is never narrower than 500."""
    run = made(tmp_path / "run", table=[{f"column {k}": "1,000.5" for k in range(30)}])
    ask = (
        "<script>onload = () => (d => parent.postMessage([innerWidth, d.scrollWidth - d.clientWidth, "
        "[...document.images].every(i => i.naturalWidth > 0), getComputedStyle(document.body).backgroundColor], '*'))"
        "(document.documentElement)</script>"
    )
    Image.new("L", (1500, 60), 128).save(run / "pictures" / "dots.png")
    (tmp_path / "asked.html").write_text(report(run).read_text("utf-8").replace("</body>", f"{ask}</body>"), "utf-8")
    frames = "".join(f'<iframe width="{width}" height="700" src="asked.html"></iframe>' for width in (390, 1280))
    told = "<script>onmessage = e => document.body.append(e.data.join(' ') + '; ')</script>"
    (tmp_path / "frames.html").write_text(f"<style>iframe {{ border: 0 }}</style>{told}{frames}")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--blink-settings=preferredColorScheme=0"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,900", "--virtual-time-budget=5000"]
    command = [str(BROWSER), *options, "--dump-dom", (tmp_path / "frames.html").as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    dark = "rgb(18, 22, 27)"
    assert sorted(re.findall(r"(\d+ \d+ \w+ rgb[^;]*);", dom)) == [f"{w} 0 true {dark}" for w in (1280, 390)]


def test_measures_that_are_no_numbers_are_kept_as_json_knows_them(tmp_path):
    path = folder.keep_measures(
        tmp_path, {"auc": math.nan, "bins": [1.5, math.inf, 2], "of": {"a": (math.nan, "b", True)}}
    )
    strict = json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(word))
    assert strict == {"auc": None, "bins": [1.5, None, 2], "of": {"a": [None, "b", True]}} == folder.measured(tmp_path)
