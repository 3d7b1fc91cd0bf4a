"""The command `energycomp studio` in a process of its own, and a page of Chromium that shows it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from energycomp.errors import InputError

WAIT = 300_000  # ms


@contextmanager
def served(model: str) -> Iterator[tuple[str, int]]:
    """The address of a studio that shows a model first, and the number of its process."""
    command = [sys.executable, "-m", "energycomp", "studio", model, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603 - this command
        try:
            lines = process.stderr or ()
            address = next(word for line in lines for word in line.split() if word.startswith("http://"))
            yield address, process.pid
        finally:
            process.terminate()


@contextmanager
def open_page(address: str, **options: Any) -> Iterator[Any]:
    """A page of Chromium; `options` are those of a browser context of playwright."""
    from playwright.sync_api import sync_playwright

    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        raise InputError("got no Chromium; expected one in the path; apt-get install chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = opened.new_page(**options)
        page.set_default_timeout(WAIT)
        page.goto(address)
        yield page
        opened.close()


def wait_for_picture(page: Any, tab: str = "compose") -> None:
    """Waits until a tab shows an image."""
    page.wait_for_selector(f"#{tab}-scene .studio-picture[src^=data]")


def wait_for_change(page: Any, before: str, tab: str = "compose") -> None:
    """Waits until the image of a tab is another one."""
    page.wait_for_function(
        "([tab, before]) => document.querySelector(`#${tab}-scene .studio-picture`).src !== before", arg=[tab, before]
    )


def wait_for_status(page: Any, text: str, tab: str = "compose") -> None:
    """Waits until the status of a tab contains a text."""
    page.wait_for_function(
        "([tab, text]) => document.querySelector(`#${tab}-scene .studio-status`).innerText.includes(text)",
        arg=[tab, text],
    )


def memory(process: int) -> float:
    """Resident memory of a process in MB (Linux)."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024
