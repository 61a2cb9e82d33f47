"""Settings of Sphinx: `python -m sphinx -W -b html docs docs/_build`."""

import re

import diffusionkit

project = "diffusionkit"
copyright = "the diffusionkit developers"
author = "the diffusionkit developers"
version = release = diffusionkit.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon"]
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"diffusionkit {release}"


def _literal(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """The docstrings write code in single backticks and tables as Markdown does; Sphinx reads neither."""

    def plain(part: str) -> str:
        return re.sub(r"([*|])", r"\\\1", part)

    def marked(line: str) -> str:
        parts = line.replace("``", "`").split("`")
        return "``".join(part if k % 2 else plain(part) for k, part in enumerate(parts))

    text, table = [], False
    for line in lines:
        row = line.lstrip().startswith("|")
        if row and not table:
            text += ["::", ""]
        text.append(f"   {line}" if row else marked(line))
        table = row
    lines[:] = text


def setup(app: object) -> None:
    app.connect("autodoc-process-docstring", _literal, priority=100)  # type: ignore[attr-defined]
