"""Run the notebooks, and write each as a page that shows what its cells show.

python docs/scripts/notebooks.py [NAMES ...] [-o docs]

Writes notebooks/NAME.md and images/notebooks/NAME-CELL.png. The notebooks themselves are stored without output, so that
a change of one can be read. They run in an empty folder, in this process: no Jupyter is needed.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import json
import pprint
import re
import tempfile
import time
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[2]
NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "examples").glob("*.ipynb"))}
BLOB = "https://github.com/energycomp/energycomp/blob/main/examples"
COLAB = "https://colab.research.google.com/github/energycomp/energycomp/blob/main/examples"
LARGE = 960  # px: the greatest width of an image of a page


def main() -> None:
    """Writes the pages and their images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(NOTEBOOKS), help=" ".join(NOTEBOOKS))
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "docs")
    options = parser.parse_args()
    for name in options.names:
        began = time.perf_counter()
        images = options.out / "images" / "notebooks"
        images.mkdir(parents=True, exist_ok=True)
        page = options.out / "notebooks" / f"{name}.md"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(rendered(NOTEBOOKS[name], images.resolve()), encoding="utf-8")
        print(f"{page}  {time.perf_counter() - began:.0f} s", flush=True)


def rendered(path: Path, images: Path) -> str:
    """A notebook as a page: its text, its code, and what each cell prints and shows."""
    names: dict[str, Any] = {"__name__": "__main__"}
    parts = []
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for number, cell in enumerate(cells(path)):
            source = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                parts.append(with_links(source))
                continue
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                value = run(source, names, f"{path.name}[{number}]")
            parts.append(f"```python\n{source}\n```")
            seen = cell.get("metadata", {}).get("alt", "")
            parts += shown(value, printed.getvalue(), images / f"{path.stem}-{number}.png", seen)
    title, _, rest = "\n\n".join(parts).partition("\n\n")
    links = f"[The notebook]({BLOB}/{path.name}) | [open it in Colab]({COLAB}/{path.name})"
    return f"{title}\n\n{links}\n\n{rest}\n"


def cells(path: Path) -> list[dict[str, Any]]:
    """The cells of a notebook."""
    read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = read["cells"]
    return found


def run(source: str, names: dict[str, Any], where: str) -> Any:
    """Runs a cell; returns the value of its last line, as a notebook shows it."""
    tree = ast.parse(source, where)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, where, "exec"), names)  # noqa: S102 - the notebooks are ours
    return None if last is None else eval(compile(ast.Expression(last.value), where, "eval"), names)  # type: ignore[attr-defined]  # noqa: S307


def shown(value: Any, printed: str, file: Path, seen: str) -> Iterator[str]:
    """The image of a value, and its text below what the cell printed. Writes the image.

    `seen` says what the image shows: the entry "alt" in the metadata of the cell.
    """
    image = picture(value)
    if image is not None:
        image.thumbnail((LARGE, LARGE))
        image.convert("RGB").save(file, optimize=True)
        yield f"![{seen}](../images/notebooks/{file.name})"
    said = "\n".join(filter(None, [printed.rstrip(), text(value)]))
    if said:
        yield f"```text\n{said}\n```"


def picture(value: Any) -> Image.Image | None:
    """The image that a notebook shows for a value, if it shows one."""
    if isinstance(value, Image.Image):
        return value.copy()
    content = value._repr_png_() if hasattr(value, "_repr_png_") else None
    return Image.open(io.BytesIO(content)) if content else None


def text(value: Any) -> str:
    """The text that a notebook shows for a value: that of its HTML, or else what `pprint` makes of it."""
    if value is None or isinstance(value, Image.Image):
        return ""
    if hasattr(value, "_repr_html_"):
        found = re.search(r"<pre[^>]*>(.*?)</pre>", value._repr_html_(), re.DOTALL)
        return unescape(found[1]) if found else repr(value)
    return pprint.pformat(value, width=110, sort_dicts=False)


def with_links(source: str) -> str:
    """The text of a cell, whose links lead from the folder of the pages to where they led from `examples`."""
    return re.sub(r"\]\((\w+\.py)\)", rf"]({BLOB}/\1)", source.replace("](../docs/", "](../"))


if __name__ == "__main__":
    main()
