"""The tutorials are run from top to bottom as they stand, but for the length of the trainings."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from diffusionkit.cli import app
from diffusionkit.domain import domains
from tests.cli.words import call

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(DOCS.glob("tutorial_*.md"))
FENCE = re.compile(r"^```(python|sh)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHORT = {"--training.steps": "6", "--training.batch_size": "8", "--training.pictures": "4", "--sampling.steps": "3"}
FEW = {"image": 40, "tabular": 200, "timeseries": 4, "molecule": 20}


def shortened(words: list[str], few: int) -> list[str]:
    """The words of a command with less to do."""
    if words[0] == "train":
        kept = [w for i, w in enumerate(words) if w not in SHORT and words[max(i - 1, 0)] not in SHORT]
        return kept + [word for pair in SHORT.items() for word in pair]
    return [*words, *(["-n", str(few)] if words[0] == "evaluate" and "-n" not in words else [])]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_works_from_data_to_report(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names: dict[str, object] = {"__name__": "page"}
    done = []
    for kind, code in FENCE.findall(page.read_text("utf-8")):
        if kind == "python":
            exec(compile(code, page.name, "exec"), names)
            continue
        for line in code.splitlines():
            words = shlex.split(line.removeprefix("diffusionkit "))
            call(shortened(words, FEW[page.stem.removeprefix("tutorial_")]))
            done.append(words[0])
            out = words[words.index("--out") + 1] if "--out" in words else f"{words[1]}/report.html"
            assert Path(out).exists(), line
    assert {"train", "sample", "evaluate", "compare"} <= set(done)


def test_tutorials_are_short_and_in_the_table_of_contents():
    contents = (DOCS / "index.md").read_text("utf-8")
    assert len(PAGES) == 4
    for page in PAGES:
        assert len(page.read_text("utf-8").splitlines()) <= 80 and f"\n{page.stem}\n" in contents


def test_the_table_of_commands_is_that_of_the_code():
    """Each domain's column has a dot, or what the command answers, and each command has a row."""
    lines = re.findall(r"^\| (.*) \|$", (DOCS / "start.md").read_text("utf-8"), re.MULTILINE)
    head = next(i for i, line in enumerate(lines) if "| image | timeseries |" in f"| {line} |")
    names = [cell.strip() for cell in f"| {lines[head]}".split("|")][2:]
    rows = {}
    for line in lines[head + 1 : head + 30]:
        cells = [cell.strip() for cell in line.split(" | ")]
        if len(cells) == len(names) + 1:
            rows[cells[0].strip("`")] = dict(zip(names, cells[1:], strict=True))
    found = domains()
    assert set(names) == set(found)
    commands = {name for name in app if not name.startswith("-")}
    assert set(rows) - {"samples go to"} == commands
    for name, domain in found.items():
        assert not set(domain.instead) & {*domain.edits, *domain.exchange}, name
        lacking = dict(domain.instead)
        if not domain.exchange:  # an import has no run yet that could answer
            lacking |= dict.fromkeys(("import", "export"), domain.without("export").rpartition(": ")[2])
        assert {c: rows[c][name] for c in commands} == {c: lacking.get(c, "•") for c in commands}, name
        assert f"`{domain.ending}`" in rows["samples go to"][name]
