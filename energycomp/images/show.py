"""How results show themselves: tables as text and as HTML, images as data URIs and in a window.

The HTML has no scripts, takes its colours from the page, dark or light, and escapes all text. An image is a PNG file
inside the page, so that a saved notebook needs no other file.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from energycomp.images.save import png

if TYPE_CHECKING:
    from PIL import Image
    from rich.table import Table

SHOWN = 6  # numbers of a list that a table shows as a whole
CELL = "padding:.25em .75em;text-align:left;border-bottom:1px solid #8886"  # a grey that both themes show
BLOCK = "display:flex;flex-wrap:wrap;gap:1em;align-items:flex-start"


def cell(value: Any) -> str:
    """A value of a table as text: numbers with three digits, of named probabilities the least, of long lists the first.

    >>> cell(0.123456), cell(None), cell("red"), cell({"size": 0.99, "shape": 0.75}), cell([0.123456, 2.0])
    ('0.123', '', 'red', '0.75', '0.123, 2')
    >>> cell([0.5] * 16)
    '0.5, 0.5, 0.5, ... (16 numbers)'
    """
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping) and value and all(isinstance(number, float) for number in value.values()):
        return f"{min(value.values()):.2f}"
    if isinstance(value, list | tuple) and all(isinstance(number, int | float) for number in value):
        shown = [f"{number:.3g}" for number in value]
        return ", ".join(shown if len(shown) <= SHOWN else [*shown[: SHOWN // 2], f"... ({len(shown)} numbers)"])
    return "" if value is None else str(value)


def table_cells(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The columns of rows, and their cells as text; a row may lack some of the columns.

    >>> table_cells([{"x": 0.5, "gain": 2.0}, {"x": 0.25, "shape": "cube", "gain": 1.0}])
    (['x', 'shape', 'gain'], [['0.5', '', '2'], ['0.25', 'cube', '1']])
    """
    columns: list[Any] = []
    for row in rows:
        place = 0
        for name in row:
            if name not in columns:
                columns.insert(place, name)
            place = columns.index(name) + 1
    return [str(name) for name in columns], [[cell(row.get(name)) for name in columns] for row in rows]


def rich_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """A table for the console: rows of text under a header; no columns, no header. What is not text stays as it is."""
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(*(Column(Text(column)) for column in columns), show_header=bool(columns))
    for row in rows:
        table.add_row(*(Text(one) if isinstance(one, str) else one for one in row))
    return table


def as_text(table: Table) -> str:
    """A table as the console shows it, without colours and without the last line break."""
    from rich.console import Console

    file = io.StringIO()
    Console(file=file, force_jupyter=False, force_terminal=False).print(table)
    return file.getvalue().rstrip("\n")


def html_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows of text under a header as HTML; no columns, no header.

    >>> "<td" in html_table(["x"], [["<b>"]]), "<b>" in html_table(["x"], [["<b>"]])
    (True, False)
    """

    def line(tag: str, texts: Iterable[str]) -> str:
        return "<tr>" + "".join(f'<{tag} style="{CELL}">{escape(text)}</{tag}>' for text in texts) + "</tr>"

    head = f"<thead>{line('th', columns)}</thead>" if columns else ""
    body = "".join(line("td", row) for row in rows)
    return f'<table style="border-collapse:collapse;color:inherit">{head}<tbody>{body}</tbody></table>'


def html_lines(lines: Iterable[str]) -> str:
    """One paragraph per line of text.

    >>> html_lines(["a < b"])
    '<p style="margin:.5em 0">a &lt; b</p>'
    """
    return "".join(f'<p style="margin:.5em 0">{escape(line)}</p>' for line in lines)


def html_image(image: Image.Image, alternative: str) -> str:
    """An image as an element of HTML that holds the file itself; the alternative text says what it shows."""
    source = f"data:image/png;base64,{base64.b64encode(png(image)).decode()}"
    style = "max-width:100%;height:auto;margin:0"
    return (
        f'<img src="{source}" alt="{escape(alternative)}" width="{image.width}" height="{image.height}" '
        f'style="{style}">'
    )


def html_block(*parts: str) -> str:
    """Parts beside each other, or below each other where the page is narrow; empty parts are left out."""
    shown = "".join(f"<div>{part}</div>" for part in parts if part)
    return f'<div style="{BLOCK}">{shown}</div>'
