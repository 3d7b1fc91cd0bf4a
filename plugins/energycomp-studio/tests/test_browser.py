"""The page in a real browser: Chromium, driven by playwright. Models in closed form, so that drawing takes no time."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from energycomp import plugins
from energycomp.sampling import Target
from energycomp.testing import attributes_model, labels_model, planted, stripes_model, tinted_model
from energycomp_studio.server import running

pytest.importorskip("playwright", reason="no playwright: pip install playwright")
from playwright.sync_api import Browser, Page, expect, sync_playwright

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium: apt-get install chromium")
WAIT = 180_000  # ms
expect.set_options(timeout=WAIT)  # beside other work, a page takes longer than the five seconds of playwright


def tinted(**_: Any) -> Any:
    return tinted_model(solver="pursuit", counts=(0, 4), num_inference_steps=20, beta=1.0)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    plugins.register("models", "tinted", tinted)
    plugins.register("models", "numbered", lambda **_: labels_model(3))
    plugins.register("models", "attributed", lambda **_: attributes_model(3))
    plugins.register("models", "striped", lambda **_: stripes_model(parts=4))
    with running("tinted") as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def new_page(browser: Browser, address: str) -> Iterator[Callable[..., Page]]:
    """Opens the page, and fails the test for an error in it or a request to another server."""
    contexts, wrong = [], []

    def opened(**options: Any) -> Page:
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options}))
        page = contexts[-1].new_page()
        page.set_default_timeout(WAIT)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: wrong.append(request.url) if _foreign(request.url, address) else None)
        page.goto(address)
        expect(picture(page, "compose")).to_have_attribute("src", _DATA)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not wrong


def _foreign(url: str, address: str) -> bool:
    return not url.startswith((address, "data:", "blob:"))


_DATA = re.compile("^data:image/png")


def picture(page: Page, tab: str) -> Any:
    return page.locator(f"#{tab}-scene .studio-picture")


def handles(page: Page, tab: str = "compose") -> Any:
    return page.locator(f"#{tab}-scene .studio-handle")


def rows(page: Page, tab: str = "compose") -> Any:
    return page.locator(f"#{tab}-scene .studio-row")


def status(page: Page, tab: str) -> Any:
    return page.locator(f"#{tab}-scene .studio-status")


def python(page: Page, tab: str = "compose") -> Any:
    return page.locator(f"#{tab}-code .cm-content").nth(1 if tab == "compose" else 0)


def at(page: Page, x: float, y: float, tab: str = "compose") -> tuple[float, float]:
    box = picture(page, tab).bounding_box()
    assert box is not None
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def changed(page: Page, act: Callable[[], object], tab: str = "compose") -> None:
    """Does something, and waits until the image is another one."""
    before = picture(page, tab).get_attribute("src")
    act()
    expect(picture(page, tab)).not_to_have_attribute("src", before or "")


def scene_file(path: Path) -> Path:
    model = tinted()
    parse = model.conditioner.parse
    true = torch.cat([parse(0.2, 0.3, tint="red", width="wide"), parse(0.7, 0.8, tint="blue", width="narrow")])
    model.decode(planted(model, true))[0].resize((64, 64), 0).save(path / "scene.png")
    return path / "scene.png"


def read_scene(page: Page, file: Path) -> None:
    page.get_by_role("tab", name="Read").click()
    page.locator("#read-picture input").set_input_files(file)
    expect(status(page, "read")).to_contain_text("2 found")


def test_click_adds_and_double_click_removes(new_page: Any) -> None:
    page = new_page()
    expect(handles(page)).to_have_count(2)
    changed(page, lambda: page.mouse.click(*at(page, 0.5, 0.2)))
    expect(handles(page)).to_have_count(3)
    expect(rows(page)).to_have_count(3)
    expect(python(page)).to_contain_text("model(0.5, 0.2)")
    changed(page, lambda: page.mouse.dblclick(*at(page, 0.5, 0.2)))
    expect(handles(page)).to_have_count(2)
    expect(python(page)).not_to_contain_text("model(0.5, 0.2)")


def test_drag_moves_and_draws_on_the_way(new_page: Any) -> None:
    page = new_page()
    page.mouse.move(*at(page, 0.3, 0.45))
    page.mouse.down()
    for step in range(1, 6):
        page.mouse.move(*at(page, 0.3 + 0.06 * step, 0.45))
        time.sleep(0.05)
    expect(status(page, "compose")).to_contain_text("5 steps")
    page.mouse.up()
    expect(status(page, "compose")).to_contain_text("20 steps")
    expect(rows(page).first.get_by_label("x of 1")).to_have_value("0.6")
    expect(python(page)).to_contain_text("model(0.6, 0.45")


def test_fields_change_the_scene(new_page: Any) -> None:
    page = new_page()
    changed(page, lambda: rows(page).first.get_by_label("tint of 1").select_option("blue"))
    expect(python(page)).to_contain_text('tint="blue"')
    changed(page, lambda: rows(page).nth(1).get_by_label("not 2").check())
    expect(python(page)).to_contain_text("& ~model(0.7, 0.6")
    changed(page, lambda: rows(page).first.get_by_label("weight of 1").fill("2"))
    expect(python(page)).to_contain_text("2.0 * model(0.3")
    expect(page.locator("#compose-code .cm-content").nth(2)).to_contain_text(" * 2.0'")


def test_errors_are_one_line_and_the_scene_stays(new_page: Any) -> None:
    page = new_page()
    joined = rows(page).nth(1).get_by_label("how 2 is joined")
    joined.select_option("|")
    expect(status(page, "compose")).to_contain_text("energ")
    expect(handles(page)).to_have_count(2)
    joined.select_option("&")
    expect(status(page, "compose")).to_contain_text("20 steps")


def test_read_shows_objects_and_edits_them(new_page: Any, tmp_path: Path) -> None:
    page = new_page()
    read_scene(page, scene_file(tmp_path))
    expect(handles(page, "read")).to_have_count(2)
    table = page.locator("#read-table")
    expect(table).to_contain_text("red")
    expect(table).to_contain_text("%")
    page.click("#read-search button")
    expect(page.locator("#read-maps img").first).to_have_attribute("src", _DATA)
    rows(page, "read").first.get_by_label("tint of 1").select_option("green")
    page.get_by_text("The same changes in code").click()
    expect(page.locator("#read-code .cm-content").nth(1)).to_contain_text("--move 1:")
    changed(page, lambda: page.click("#read-repaint"), "read")
    expect(status(page, "read")).to_contain_text("repainted")
    expect(rows(page, "read").first.get_by_label("tint of 1")).to_have_value("green")
    changed(page, lambda: page.click("#read-undo"), "read")
    expect(rows(page, "read").first.get_by_label("tint of 1")).to_have_value("red")


def test_drop_on_the_page_reads_a_file(new_page: Any, tmp_path: Path) -> None:
    page = new_page()
    page.get_by_role("tab", name="Read").click()
    content = list(scene_file(tmp_path).read_bytes())
    page.evaluate(
        """(content) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(content)], "scene.png", { type: "image/png" }));
            const zone = document.querySelector("#read-picture .studio-drop");
            zone.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
        content,
    )
    expect(status(page, "read")).to_contain_text("2 found")


def test_an_upload_of_20_mb_is_refused(new_page: Any, tmp_path: Path) -> None:
    page = new_page()
    page.get_by_role("tab", name="Read").click()
    (large := tmp_path / "large.png").write_bytes(bytes(20_000_000))
    page.locator("#read-picture input").set_input_files(large)
    alert = page.locator("#read-picture .studio-error")
    expect(alert).to_have_text("got a file of 20,000,000 bytes; expected at most 10,000,000; scale the image down")
    (small := tmp_path / "text.png").write_text("no image")
    page.locator("#read-picture input").set_input_files(small)
    expect(status(page, "read")).to_contain_text("cannot identify image file")
    expect(alert).to_have_text("")


def test_two_tabs_at_once(new_page: Any, tmp_path: Path) -> None:
    one, two = new_page(), new_page()
    read_scene(one, scene_file(tmp_path))
    changed(two, lambda: two.mouse.click(*at(two, 0.5, 0.2)))
    expect(handles(two)).to_have_count(3)
    expect(handles(one)).to_have_count(2)
    two.get_by_role("tab", name="Read").click()
    two.click("#read-repaint")
    expect(status(two, "read")).to_contain_text("got no image")
    expect(handles(one, "read")).to_have_count(2)


def test_keyboard_only(new_page: Any) -> None:
    page = new_page()
    handles(page).first.focus()
    changed(page, lambda: page.keyboard.press("ArrowRight"))
    expect(rows(page).first.get_by_label("x of 1")).to_have_value("0.31")
    page.keyboard.press("Tab")
    expect(handles(page).nth(1)).to_be_focused()
    changed(page, lambda: page.keyboard.press("Delete"))
    expect(handles(page)).to_have_count(1)
    for _ in range(30):  # on to the button, past the fields of what is left
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.className") == "studio-add":
            break
    changed(page, lambda: page.keyboard.press("Enter"))
    expect(handles(page)).to_have_count(2)
    expect(handles(page).nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.tagName") in ("SELECT", "INPUT")


def test_a_phone(new_page: Any) -> None:
    page = new_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    for name in ("Compose", "Read", "Decompose", "Models"):
        tab = page.get_by_role("tab", name=name, exact=True)
        if tab.is_visible():
            tab.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
    page.goto(page.url)
    expect(picture(page, "compose")).to_have_attribute("src", _DATA)
    picture(page, "compose").scroll_into_view_if_needed()
    changed(page, lambda: page.touchscreen.tap(*at(page, 0.5, 0.2)))
    expect(handles(page)).to_have_count(3)


def test_dark(new_page: Any) -> None:
    page = new_page(color_scheme="dark")
    background, text = (
        page.evaluate(f"getComputedStyle(document.querySelector('.studio-row')).{name}").strip()
        for name in ("backgroundColor", "color")
    )
    assert _brightness(background) < 80
    assert _brightness(text) > 160


def _brightness(colour: str) -> float:
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3


def test_any_registered_model_has_a_form(new_page: Any) -> None:
    page = new_page()
    page.get_by_role("tab", name="Models").click()

    def choose(name: str) -> None:
        page.click("#models-model input")
        page.get_by_role("option", name=name, exact=True).click()

    choose("numbered")
    expect(picture(page, "models")).to_have_attribute("src", _DATA)
    expect(page.locator("#models-scene .studio-text")).to_have_count(2)
    expect(page.locator("#models-code .cm-content").nth(1)).to_contain_text("model(0)")
    choose("attributed")
    expect(page.locator("#models-code .cm-content").nth(1)).to_contain_text('load("attributed")')
    expect(page.locator("#models-scene .studio-text").first).to_have_value("0")

    def other() -> None:
        page.locator("#models-scene .studio-text").first.fill("3")
        page.keyboard.press("Tab")

    changed(page, other, "models")
    page.locator("#models-scene .studio-text").first.fill("none")
    page.keyboard.press("Tab")
    expect(status(page, "models")).to_contain_text("expected")


def test_parts_of_two_images_are_recombined(new_page: Any, tmp_path: Path) -> None:
    page = new_page()
    page.get_by_role("tab", name="Decompose").click()
    page.click("#parts-model input")
    page.get_by_role("option", name="striped", exact=True).click()
    for k in (1, 2):
        page.locator(f"#parts-picture-{k} input").set_input_files(scene_file(tmp_path))
        expect(page.locator("#parts-tiles .studio-tile")).to_have_count(4 * k)
    page.locator("#parts-tiles .studio-tile").first.click()
    expect(page.locator("#parts-result img")).to_have_attribute("src", _DATA)
    page.get_by_text("The same image in code").last.click()
    expect(page.locator("#parts-code .cm-content").nth(1)).to_contain_text("energycomp recombine striped a.png b.png")


def test_stop(new_page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    page, compose = new_page(), Target.compose

    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(0.05)
        return compose(*args, **kwargs)

    monkeypatch.setattr(Target, "compose", slow)
    page.locator("#compose-steps input[type=number]").fill("200")
    page.locator("#compose-steps input[type=number]").press("Enter")
    expect(status(page, "compose")).to_contain_text("of 200")
    page.click("#compose-stop")
    expect(status(page, "compose")).to_have_text("stopped")
    page.locator("#compose-steps input[type=number]").fill("5")
    changed(page, lambda: page.mouse.click(*at(page, 0.5, 0.2)))
