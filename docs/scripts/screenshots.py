"""Draws the images of the page about the studio: desktop and phone, light and dark.

python docs/scripts/screenshots.py [-o docs/images]

Each file has the stamp of `benchmarks.common.made`, by which a test sees that its weights are those of today. Needs
playwright and Chromium: pip install playwright, apt-get install chromium.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

import energycomp
from benchmarks.common.made import made_with
from benchmarks.common.studio import open_page, served, wait_for_picture, wait_for_status

DESKTOP: dict[str, Any] = {"viewport": {"width": 1200, "height": 900}}
MARGIN = 100  # px at both sides of a desktop that hold nothing; without them, words are larger on a page
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


def main() -> None:
    """Writes one PNG file for each look."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--model", default="clevr")
    options = parser.parse_args()
    stamp = made_with(options.model)
    steps = energycomp.load(options.model).defaults.num_inference_steps
    with served(options.model) as (address, _):
        for look in ("light", "dark"):
            with open_page(address, color_scheme=look, **DESKTOP) as page:
                compose(page, steps)
                save(page, options.out / f"studio-{look}.png", stamp)
                if look == "light":
                    for tab in (read, track, decompose):
                        tab(page)
                        save(page, options.out / f"studio-{tab.__name__}.png", stamp)
            with open_page(address, color_scheme=look, **PHONE) as page:
                compose(page, steps)
                save(page, options.out / f"studio-phone-{look}.png", stamp)


def compose(page: Any, steps: int) -> None:
    """A scene of three objects."""
    wait_for_picture(page)
    wait_for_status(page, f"{steps} steps")
    page.click("#compose-scene .studio-add")
    for name, word in (("size", "large"), ("color", "yellow"), ("material", "metal"), ("shape", "sphere")):
        page.locator("#compose-scene").get_by_label(f"{name} of 3").select_option(word)
    code = "document.querySelector('#compose-code').innerText.replaceAll(String.fromCharCode(160), ' ')"
    page.wait_for_function(f"{code}.includes('large yellow metal sphere at')")
    wait_for_status(page, f"3 objects, guidance 2; {steps} steps")
    page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")


def read(page: Any) -> None:
    """An example that was read, whose first object is pointed at."""
    page.get_by_role("tab", name="Read").click()
    page.click("#read-example")
    wait_for_status(page, "found in", "read")
    page.locator("#read-scene .studio-row").first.hover()
    page.wait_for_selector("#read-scene .studio-lit", state="visible")
    page.wait_for_timeout(500)


def track(page: Any) -> None:
    """An example that was tracked."""
    page.get_by_role("tab", name="Track").click()
    page.click("#track-example")
    page.wait_for_selector("#track-film img[src^=data]")
    page.get_by_label("Frame", exact=True).fill("6")
    page.wait_for_timeout(500)


def decompose(page: Any) -> None:
    """An example that was decomposed, and the image of its chosen parts."""
    page.get_by_role("tab", name="Decompose").click()
    page.click("#parts-example")
    page.wait_for_selector("#parts-tiles .studio-tile")
    page.click("#parts-compose")
    page.wait_for_selector("#parts-result img")
    page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(500)


def save(page: Any, file: Path, stamp: str) -> None:
    """The page as it is on the screen, without the seconds, which are those of the machine that draws it."""
    seconds = "/,? (tracked )?in [0-9.]+ s(?=,|$)/"
    page.evaluate(
        f"document.querySelectorAll('.studio-status').forEach((one) => "
        f"{{ one.textContent = one.textContent.replace({seconds}, ''); }})"
    )
    page.screenshot(path=file)
    text = PngInfo()
    text.add_text("Comment", stamp)
    with Image.open(file) as picture:
        margin = MARGIN if picture.width == DESKTOP["viewport"]["width"] else 0
        shown = picture.convert("RGB").crop((margin, 0, picture.width - margin, picture.height))
    shown.save(file, optimize=True, pnginfo=text)
    print(file)


if __name__ == "__main__":
    main()
