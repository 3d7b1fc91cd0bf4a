"""Seconds until the page shows what was done, and memory after many interactions.

python benchmarks/studio/latency.py [--model clevr] [--interactions 200]

Needs playwright and Chromium: pip install playwright, apt-get install chromium.
"""

from __future__ import annotations

import json
import statistics
import time
from typing import Any

from benchmarks.common.options import parser
from benchmarks.common.studio import memory, open_page, served, wait_for_change, wait_for_picture, wait_for_status


def main() -> None:
    """Prints JSON."""
    model, drags = (
        ("clevr", "registered name or folder of a model of places"),
        (200, "drags, each of which is released"),
    )
    options = parser(__doc__, model=model, interactions=drags, reads=1).parse_args()
    begun = time.perf_counter()
    with served(options.model) as (address, process):
        found: dict[str, Any] = {"server": time.perf_counter() - begun}
        with open_page(address, viewport={"width": 1280, "height": 900}) as page:
            wait_for_picture(page)
            found["first image"] = time.perf_counter() - begun
            wait_for_status(page, "100 steps")
            before = memory(process), heap(page)
            drags, releases = zip(*(drag(page, k) for k in range(options.interactions)), strict=True)
            after = memory(process), heap(page)
            reads = [read(page) for _ in range(options.reads)]
    found |= {"drag": summary(drags), "release": summary(releases), "read": summary(reads)}
    found["server MB"], found["page MB"] = ((one, two) for one, two in zip(before, after, strict=True))
    print(json.dumps(found, indent=2, default=lambda number: round(number, 3)))


def source(page: Any) -> str:
    """The image that the first tab shows."""
    return str(page.get_attribute("#compose-scene .studio-picture", "src"))


def drag(page: Any, number: int) -> tuple[float, float]:
    """Seconds from a movement of the pointer to a preview, and from its release to an image of 100 steps."""
    box = page.locator("#compose-scene .studio-picture").bounding_box()

    def place(x: float) -> tuple[float, float]:
        return box["x"] + x * box["width"], box["y"] + 0.5 * box["height"]

    ends = (0.3, 0.5) if number % 2 == 0 else (0.5, 0.3)
    page.mouse.move(*place(ends[0]))
    page.mouse.down()
    shown, begun = source(page), time.perf_counter()
    page.mouse.move(*place(ends[1]))
    wait_for_change(page, shown)
    dragged = time.perf_counter() - begun
    shown, begun = source(page), time.perf_counter()
    page.mouse.up()
    wait_for_change(page, shown)
    return dragged, time.perf_counter() - begun


def read(page: Any) -> float:
    """Seconds to draw and to read a scene of two objects."""
    page.get_by_role("tab", name="Read").click()
    begun = time.perf_counter()
    page.click("#read-example")
    page.wait_for_timeout(1_000)
    wait_for_status(page, "found in", "read")
    return time.perf_counter() - begun


def heap(page: Any) -> float:
    """Memory of the page's JavaScript in MB."""
    return float(page.evaluate("performance.memory.usedJSHeapSize")) / 2**20


def summary(seconds: Any) -> dict[str, float]:
    """Median, and the 95th percentile."""
    ordered = sorted(seconds)
    return {"median": statistics.median(ordered), "95 %": ordered[int(0.95 * (len(ordered) - 1))], "n": len(ordered)}


if __name__ == "__main__":
    main()
