"""The pages of docs as a site: it is built without a warning, and used in a real browser."""

import functools
import http.server
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from energycomp import Composer

pytest.importorskip("mkdocs", reason="no mkdocs: pip install --group docs")
pytest.importorskip("mkdocstrings", reason="no mkdocstrings: pip install --group docs")
pytest.importorskip("playwright", reason="no playwright: pip install playwright")
from playwright.sync_api import Page, expect, sync_playwright

ROOT = Path(__file__).parents[1]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WAIT = 60_000  # ms


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds the pages: 10 s, once."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder


@pytest.fixture(scope="module")
def page(site: Path) -> Iterator[Page]:
    """A tab of Chromium, from the path or else of playwright, whose links begin at the site."""
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as server,
        sync_playwright() as playwright,
    ):
        if BROWSER is None and not Path(playwright.chromium.executable_path).exists():
            pytest.skip("no Chromium: python -m playwright install chromium")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        context = browser.new_context(base_url=address, permissions=["clipboard-read", "clipboard-write"])
        context.set_default_timeout(WAIT)
        yield context.new_page()
        browser.close()
        server.shutdown()


FIRST = ["diffusion", "decompose", "labels", "conditions", "probability", "explain", "pipeline", "studio", "network"]
# Asks the worker that a page starts for its search, as the page does: 0 is the index, 2 a question, 3 its answer.
SEARCH = """async ([worker, words]) => {
    const search = new Worker(worker), index = await (await fetch("/search/search_index.json")).json();
    const answer = (kind) => new Promise((done) =>
        search.addEventListener("message", ({data}) => data.type == kind && done(data.data), {once: true}));
    const ready = answer(1);
    search.postMessage({type: 0, data: {...index, options: {suggest: false}}});
    await ready;
    const found = {};
    for (const word of words) {
        const items = answer(3);
        search.postMessage({type: 2, data: word});
        found[word] = (await items).items.flat().map((item) => item.location);
    }
    search.terminate();
    return found;
}"""


def test_words_of_the_pages_are_found(page: Page) -> None:
    with page.expect_worker() as started:
        page.goto("/")
        page.locator(".md-search__input").fill("decompose")
    expect(page.locator(".md-search-result__item").first).to_contain_text("ecompose", timeout=WAIT)
    shown = page.locator("article.md-content__inner").inner_text().lower()
    assert all(word in shown for word in FIRST)
    words = [*FIRST, "composition", "move", "num_inference_steps", "x0", "custom dataset"]
    found = page.evaluate(SEARCH, [started.value.url, words])
    assert [word for word in words if not found[word]] == []
    assert "decompose/" in found["decompose"]
    assert found["diffusion"][0].startswith("concepts/")
    assert found["custom dataset"][0].startswith("own/")


def copied(page: Page, path: str, text: str) -> str:
    """What the copy button of the first block that holds a text puts on the clipboard."""
    page.goto(path)
    page.locator(".highlight", has_text=text).first.hover()
    page.locator(".highlight", has_text=text).first.locator("[data-clipboard-target]").click()
    expect(page.locator(".md-dialog--active")).to_be_visible(timeout=WAIT)  # "Copied to clipboard"
    return str(page.evaluate("navigator.clipboard.readText()"))


def test_a_copied_command_runs_in_a_shell(page: Page) -> None:
    shown = re.search(r"```console\n(\$ git clone.*?)\n```", (ROOT / "docs" / "start.md").read_text(), re.DOTALL)
    assert shown
    lines = [line.removeprefix("$ ") for line in shown[1].splitlines()]
    assert copied(page, "/start/", "git clone").splitlines() == lines
    continued = copied(page, "/objects/", "large object at 0.4,0.55 * 2")
    assert shlex.split(continued.replace("\\\n", ""))[:2] == ["energycomp", "sample"]
    assert continued.count("\n") >= 1


def test_a_copied_example_of_the_reference_runs_in_python(page: Page) -> None:
    code = copied(page, "/api/sampling/", "composer.sample(2, num_inference_steps=2")
    names: dict[str, Any] = {"Composer": Composer}
    exec(code, names)  # noqa: S102 - an example of ours, without its prompts and output
    assert isinstance(names["composer"], Composer)
