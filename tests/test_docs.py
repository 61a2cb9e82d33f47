"""The documentation: its Python runs, its recipes and commands are right, and it builds without a warning.

Every fence that opens with ```python is run, the fences of a page one after another with their names in common. One whose
first line is `# name.py` is kept as that module for those that follow. What is not to be run stands in a `code-block`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from diffusionkit.cli import app, options
from diffusionkit.recipe import Recipe

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
RUN = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
YAML = re.compile(r"^```yaml\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^(?:\$ )?diffusionkit (.+)$", re.MULTILINE)
SHELL = re.compile(r"^```(?:sh|\{code-block\} sh)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def fences(pattern: re.Pattern[str], page: Path) -> list[str]:
    return pattern.findall(page.read_text("utf-8"))


@pytest.mark.parametrize("page", [page for page in PAGES if fences(RUN, page)], ids=lambda page: page.stem)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before, names = set(sys.modules), {"__name__": "page"}
    try:
        for code in fences(RUN, page):
            module = re.match(r"# (\w+\.py)\n", code)
            if module:
                (tmp_path / module[1]).write_text(code, "utf-8")
            else:
                exec(compile(code, f"{page.name}: {code.splitlines()[0]}", "exec"), names)
    finally:
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).parent == tmp_path:
                del sys.modules[name]


@pytest.mark.parametrize("page", [page for page in PAGES if fences(YAML, page)], ids=lambda page: page.stem)
def test_the_recipes_of_a_page_are_right(page):
    for text in fences(YAML, page):
        Recipe.of(yaml.safe_load(text))


@pytest.mark.parametrize("page", [page for page in PAGES if fences(SHELL, page)], ids=lambda page: page.stem)
def test_the_commands_of_a_page_are_right(page):
    commands = [shlex.split(line) for text in fences(SHELL, page) for line in COMMAND.findall(text)]
    assert commands
    for name, *words in commands:
        assert name in list(app), name
        plain, given = options.split([("--number" if word == "-n" else word) for word in words])
        least = {"recipes": 0, "inpaint": 3, "edit": 2, "restore": 2, "upscale": 2}.get(name, 1)
        assert len(plain) == least or (name in ("sample", "compare") and plain), words
        if name == "train" and not plain[0].startswith("runs/"):  # that of a run that the page has made
            given = {key: value for key, value in given.items() if key not in ("out", "resume")}
            Recipe.load(plain[0], given)  # checks every key and value


def test_links_and_pictures_are_there():
    for page in PAGES:
        text = page.read_text("utf-8")
        targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text) + re.findall(r"\{image\} (\S+)", text)
        assert all((DOCS / target).is_file() for target in targets), (page.name, targets)


def test_figures_are_small():
    figures = list((DOCS / "figures").glob("*.png"))
    assert len(figures) == 5 and all(figure.stat().st_size < 300_000 for figure in figures)


@pytest.mark.slow
def test_the_figures_can_be_drawn_again(tmp_path):
    script = DOCS / "figures" / "one_dimension.py"
    code = f"""
import runpy
from pathlib import Path
names = runpy.run_path({str(script)!r})["main"].__globals__
names["MANY"], names["learn"].__defaults__ = 200, (100,)  # quick and bad
names["main"](Path({str(tmp_path)!r}))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert {path.name for path in tmp_path.glob("*.png")} == {path.name for path in script.parent.glob("*.png")}


@pytest.mark.slow
def test_the_docs_build_without_a_warning(tmp_path):
    missing = [name for name in ("sphinx", "furo", "myst_parser") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} (extra 'docs') not installed")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "-q",
        "-b",
        "html",
        "-d",
        str(tmp_path / "trees"),
        str(DOCS),
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
