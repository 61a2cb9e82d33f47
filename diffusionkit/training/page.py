"""Pages that stand alone: one HTML file with its style and pictures inside, which asks nothing of a network and runs no script."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from html import escape
from pathlib import Path
from typing import Any

import diffusionkit

_HEAVY = 300_000  # bytes of a picture, above which it is packed more tightly
_WIDE = 900  # pixels, above which a picture holds letters that a phone would make too small
_SIDE = 1600  # pixels that a packed picture is wide at most
_NUMBER = re.compile(r"[+±-]?\d[\d,]*\.?\d*(e[+-]?\d+)?", re.IGNORECASE)
_LONG = 28  # letters of a cell that are given room
_EMPTY = ("", "–")


def page(title: str, head: str, sections: Iterable[str]) -> str:
    """A whole page.

    Args:
        title: of the window and of the page.
        head: what stands below the title, as HTML.
        sections: as `section` makes them.
    """
    style = (Path(__file__).parent / "page.css").read_text("utf-8")
    made = f"Written on {date.today():%d %B %Y} by diffusionkit {diffusionkit.__version__}."
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"<header>\n<h1>{escape(title)}</h1>\n{head}\n</header>\n<main>\n{''.join(sections)}</main>\n"
        f"<footer>{escape(made)}</footer>\n</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A part of a page; empty where all of its parts are."""
    return f"<section>\n<h2>{escape(title)}</h2>\n{''.join(parts)}</section>\n" if any(parts) else ""


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph; empty for an empty text."""
    style = f' class="{kind}"' if kind else ""
    return f"<p{style}>{escape(text)}</p>\n" if text else ""


def facts(pairs: Mapping[str, Any]) -> str:
    """Names with their values, side by side; those that are not known are left out."""
    shown = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>\n"
        for name, value in pairs.items()
        if value not in ("", None)
    )
    return f"<dl>\n{shown}</dl>\n" if shown else ""


def code(text: str, name: str) -> str:
    """Text as it is, in a box that can be scrolled by the keyboard as well."""
    return f'<pre tabindex="0" role="region" aria-label="{escape(name)}"><code>{escape(text)}</code></pre>\n'


def folded(title: str, content: str) -> str:
    """What is seen after a click."""
    return f"<details>\n<summary>{escape(title)}</summary>\n{content}</details>\n" if content else ""


def table(
    rows: Sequence[Mapping[str, Any]],
    caption: str,
    best: Mapping[int, Sequence[str]] | None = None,
    beside: bool = False,
) -> str:
    """A table in a box of its own that scrolls where it is wider than the page; empty without rows.

    Args:
        rows: with the same columns, the first of which names the row.
        caption: above it.
        best: by the row's number, the columns whose figures are to be marked.
        beside: whether the figures of all columns count alike, or those after the second stand behind it.
    """
    if not rows:
        return ""
    columns = list(rows[0])
    kinds = [_kind([str(row.get(column, "")) for row in rows], k, beside) for k, column in enumerate(columns)]
    head = "".join(f'<th scope="col"{_style(k)}>{escape(c)}</th>' for c, k in zip(columns, kinds, strict=True))
    lines = []
    for number, row in enumerate(rows):
        name = str(row.get(columns[0], ""))
        cells = [f'<th scope="row"{_style("part" if name.startswith(" ") else "")}>{escape(name.strip())}</th>']
        for column, kind in zip(columns[1:], kinds[1:], strict=True):
            text, marked = escape(str(row.get(column, ""))), column in (best or {}).get(number, ())
            more = " best" if marked else ""
            cells.append(f"<td{_style(kind + more)}>{f'<span>{text}</span>' if marked else text}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>\n")
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">\n<table>\n'
        f"<caption>{escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{''.join(lines)}</tbody>\n"
        "</table>\n</div>\n"
    )


def _kind(cells: list[str], place: int, beside: bool) -> str:
    """The style of a column: figures to the right, words to the left, the second column and its equals in full ink."""
    if place == 0:
        return ""
    filled = [cell for cell in cells if cell not in _EMPTY]
    figures = sum(_NUMBER.match(cell) is not None and len(cell) < _LONG for cell in filled)
    if filled and figures > len(filled) / 2:
        return "n m" if place == 1 or beside else "n"
    long = " long" if any(len(cell) > _LONG for cell in filled) else ""
    return f"w{long}{' m' if place == 1 or beside else ''}"


def _style(kind: str) -> str:
    return f' class="{kind.strip()}"' if kind.strip() else ""


def figure(path: Path, caption: str, folder: Path | None = None) -> str:
    """A picture, written into the page; a sentence in its place where the file is no picture, and nothing where there is none.

    Args:
        path: of a picture.
        caption: what is to be seen.
        folder: that the picture has to lie in.
    """
    if not path.is_file() or (folder is not None and not path.resolve().is_relative_to(folder.resolve())):
        return ""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            image.load()
            wide, high = image.size
            kind, data = _packed(path, image)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return paragraph(f"{path.name} is no picture that can be read.", "note")
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    style = ' class="wide"' if wide > _WIDE else ""
    alt = escape(caption)
    return (
        f'<figure>\n<div class="scroll"><img{style} src="{source}" width="{wide}" height="{high}" alt="{alt}"></div>\n'
        f"<figcaption>{alt}</figcaption>\n</figure>\n"
    )


def _packed(path: Path, image: Any) -> tuple[str, bytes]:
    """The kind and the bytes of a picture: its file, or where that is large and of no kind that browsers know, WebP."""
    data, kind = path.read_bytes(), str(image.format).lower()
    known = kind in ("png", "jpeg", "webp", "gif")
    if known and len(data) <= _HEAVY:
        return kind, data
    copy, packed = image.convert("RGB"), io.BytesIO()
    copy.thumbnail((_SIDE, 4 * _SIDE))
    copy.save(packed, "WEBP", quality=82, method=4)
    return ("webp", packed.getvalue()) if not known or len(packed.getvalue()) < len(data) else (kind, data)


def side_by_side(parts: Sequence[str]) -> str:
    """Figures beside each other where there is room; the only one as it is."""
    parts = [part for part in parts if part]
    return f'<div class="beside">\n{"".join(parts)}</div>\n' if len(parts) > 1 else "".join(parts)


def figure_of(text: Any) -> float | None:
    """The number that a cell starts with; None where it starts with none."""
    found = _NUMBER.match(str(text).strip().replace("−", "-"))
    try:
        return float(found[0].replace(",", "").lstrip("±")) if found else None
    except ValueError:
        return None
