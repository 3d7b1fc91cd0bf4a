"""How results show themselves: tables as text, and text beside an image in a notebook."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from PIL import Image, ImageShow
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Column, Table
from rich.text import Text

from energycomp.errors import InputError
from energycomp.images.save import data_url

SHOWN = 6  # numbers of a list that a table shows as a whole
WIDEST = 10_000  # columns of a console for which no table is too wide


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
    """The columns of rows, and their cells as text; a row may lack some of the columns."""
    columns: list[Any] = []
    for row in rows:
        place = 0
        for name in row:
            if name not in columns:
                columns.insert(place, name)
            place = columns.index(name) + 1
    return [str(name) for name in columns], [[cell(row.get(name)) for name in columns] for row in rows]


class _Fitting(Table):
    """A table whose cells stand closer together where the console would otherwise break its words."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        usual = self.padding
        most = options.max_width
        if self.__rich_measure__(console, options.update_width(WIDEST)).minimum > most:
            self.padding = (0, 0)
        yield from super().__rich_console__(console, options)
        self.padding = usual


def rich_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """A table for the console: rows of text under a header; no columns, no header. What is not text stays as it is.

    Where words do not fit into the console, there are no spaces around them. Words that are still longer than their
    column go on in the next line, so that nothing is left out.
    """
    table = _Fitting(*(Column(Text(column), overflow="fold") for column in columns), show_header=bool(columns))
    for row in rows:
        table.add_row(*(Text(one) if isinstance(one, str) else one for one in row))
    return table


def as_text(table: Table) -> str:
    """A table as the console shows it, without colours and without the last line break."""
    file = io.StringIO()
    Console(file=file, force_jupyter=False, force_terminal=False).print(table)
    return file.getvalue().rstrip("\n")


def html(text: str, image: Image.Image | None = None) -> str:
    """Text, and an image beside it or above it where the page is narrow, as an element of a page.

    It has no scripts, takes its colours from the page, dark or light, and escapes the text. The image is a PNG file
    inside the page, so that a saved notebook needs no other file; its alternative text is the last line.

    >>> html("a < b")
    '<div style="display:flex;flex-wrap:wrap;gap:1em"><pre style="line-height:normal">a &lt; b</pre></div>'
    """
    shown = f'<pre style="line-height:normal">{escape(text)}</pre>'
    if image is not None:
        size = f'width="{image.width}" height="{image.height}" style="max-width:100%;height:auto;margin:0"'
        shown = f'<div><img src="{data_url(image)}" alt="{escape(text.splitlines()[-1])}" {size}></div>{shown}'
    return f'<div style="display:flex;flex-wrap:wrap;gap:1em">{shown}</div>'


def open_window(image: Image.Image) -> None:
    """Opens an image in a window, or in the notebook that runs this; raises `InputError` where nothing can show it."""
    if not ImageShow.show(image):
        raise InputError(
            "got an image on a machine without a program that shows it; expected one, such as xdg-open; write it to a "
            "file with its `save`"
        )
