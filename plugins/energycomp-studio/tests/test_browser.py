"""The page in a real browser: Chromium, driven by playwright. Models in closed form, so that drawing takes no time."""

import base64
import itertools
import re
import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from energycomp import Composer, plugins
from energycomp.images import decode_formula, png, to_output
from energycomp.models import Calibration
from energycomp.sampling import Target
from energycomp.testing import attributes_model, labels_model, planted, stripes_model, tinted_model
from energycomp_cli.commands import app
from energycomp_datasets.shapes.source import shapes_source
from energycomp_studio.app import build
from energycomp_studio.server import running

pytest.importorskip("playwright", reason="no playwright: pip install playwright")
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium: apt-get install chromium")
WAIT = 180_000  # ms
expect.set_options(timeout=WAIT)  # beside other work, a page takes longer than the five seconds of playwright


def tinted(**_: Any) -> Any:
    own: dict[str, Any] = {"scheduler": "DDPMScheduler", "attribute_guidance": 1.5, "aspect": 1.5}
    return tinted_model(solver="pursuit", counts=(0, 4), num_inference_steps=8, beta=10.0, **own)


def amazed(**_: Any) -> Any:
    """A model to which every image is foreign."""
    usual = Calibration((1,), ((-20.0, -20.0),), ((1.0, 1.0),), scores=tuple(range(1, 10)), images=20)
    return tinted_model(solver="pursuit", counts=(0, 2), calibration=usual)


OWN: dict[str, Callable[..., Any]] = {
    "tinted": tinted,
    "amazed": amazed,
    "numbered": lambda **_: labels_model(3),
    "attributed": lambda **_: attributes_model(3),
    "striped": lambda **_: stripes_model(parts=4),
}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    for name, factory in OWN.items():
        plugins.register("models", name, factory)

    def calm(*arguments: Any, **options: Any) -> Any:
        """Looks for events as seldom as on Windows: elsewhere Gradio looks 1000 times a second."""
        blocks = build(*arguments, **options)
        blocks._queue.sleep_when_free, blocks._queue.progress_update_sleep_when_free = 0.05, 0.1
        return blocks

    plugins.register("datasets", "striped", shapes_source)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000")  # Gradio sums up its events by pandas: not each time
        patch.setattr("energycomp_studio.app.build", calm)
        patch.setattr("energycomp_studio.library.names", lambda _: [*OWN, "faces"])  # a list of all loads them all
        with running("tinted") as found:
            yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def wrong() -> list[str]:
    """Errors in any page, and requests to another server."""
    return []


@pytest.fixture(scope="module")
def new_context(browser: Browser, address: str, wrong: list[str]) -> Callable[..., BrowserContext]:
    def opened(**options: Any) -> BrowserContext:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        context.on("weberror", lambda error: wrong.append(str(error.error)))
        context.on("request", lambda request: wrong.append(request.url) if _foreign(request.url, address) else None)
        return context

    return opened


@pytest.fixture(scope="module")
def context(new_context: Callable[..., BrowserContext]) -> BrowserContext:
    """Of all pages without options of their own, which stay open: what they loaded stays in the browser's cache."""
    return new_context(reduced_motion="reduce")


@pytest.fixture
def new_page(
    new_context: Callable[..., BrowserContext], context: BrowserContext, address: str, wrong: list[str]
) -> Iterator[Callable[..., Page]]:
    """Opens the page, and fails the test for an error in it or a request to another server."""
    pages: list[Page] = []

    def opened(**options: Any) -> Page:
        there = [] if options else context.pages[len(pages) :]
        page = there[0] if there else (new_context(**options) if options else context).new_page()
        pages.append(page)
        page.set_default_timeout(WAIT)
        page.goto(address)
        expect(picture(page, "compose")).to_have_attribute("src", _DATA)
        expect(status(page, "compose")).to_contain_text("steps in")  # the image is no preview
        return page

    yield opened
    for page in pages:
        page.evaluate("localStorage.clear(); sessionStorage.clear()")  # the scene, which the next test starts without
        page.goto("about:blank")
    found = wrong.copy()
    wrong.clear()  # the next test starts without these too
    assert not found


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
    return page.locator(f"#{tab}-code .cm-content").nth(0)


def choose(page: Page, tab: str, model: str) -> None:
    """Opens a model in a tab, from the list of models."""
    page.get_by_role("tab", name="Models").click()
    page.locator(f"#models-list button[data-model={model}][data-tab={tab}]").click()
    expect(page.get_by_role("tab", name=tab.capitalize(), exact=True)).to_have_attribute("aria-selected", "true")


def at(page: Page, x: float, y: float, tab: str = "compose") -> tuple[float, float]:
    box = picture(page, tab).bounding_box()
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


def drop(page: Page, onto: str, file: Path) -> None:
    """Drops a PNG file onto what a selector finds."""
    page.evaluate(
        """([onto, content]) => {
            const data = new DataTransfer();
            data.items.add(new File([Uint8Array.from(atob(content), (one) => one.charCodeAt(0))], "scene.png"));
            const event = new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
            document.querySelector(onto).dispatchEvent(event);
        }""",
        [onto, base64.b64encode(file.read_bytes()).decode()],
    )


def read_scene(page: Page, file: Path) -> None:
    page.get_by_role("tab", name="Read").click()
    page.locator("#read-picture input").set_input_files(file)
    expect(status(page, "read")).to_contain_text("2 found")


def test_the_page_says_what_it_is_and_saves_what_the_command_saves(
    new_page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = new_page()
    expect(page.get_by_role("heading", name="energycomp studio")).to_be_visible()
    for name, end in (("Documentation", "/docs/studio.md"), ("Source", "/energycomp")):
        assert page.get_by_role("link", name=name).get_attribute("href").endswith(end)
    expect(page.locator("#compose-model")).to_contain_text(
        "Model tinted: 16x16 colour images; a component is an object"
    )
    expect(status(page, "compose")).to_contain_text("2 objects, guidance 1.5; 8 steps")
    box = picture(page, "compose").bounding_box()
    assert box["width"] / box["height"] == pytest.approx(1.5, abs=0.02)
    link = page.locator("#compose-scene .studio-download")
    assert link.get_attribute("download") == "scene.png"
    saved = base64.b64decode(link.get_attribute("href").partition(",")[2])
    monkeypatch.chdir(tmp_path)
    line = page.locator("#compose-code .cm-content").nth(1).inner_text().replace("\n", "")
    assert CliRunner().invoke(app, shlex.split(line)[1:]).exit_code == 0
    assert (tmp_path / "scene.png").read_bytes() == saved
    model = tinted()
    scene = model(0.3, 0.45, tint="green", width="wide") & model(0.7, 0.6, tint="blue", width="wide")
    image = model.shown(Composer(scene).sample(generator=0)[0], side=320)
    assert png(image, formula=decode_formula(saved)) == saved
    formula = page.locator("#compose-formula")
    expect(formula).to_contain_text("2 objects, guidance 1.5: the formula")
    expect(formula.locator(".cm-content")).not_to_be_visible()
    assert formula.bounding_box()["y"] > page.locator("#compose-code").bounding_box()["y"]


def test_an_image_that_is_dropped_is_its_scene_again(new_page: Any, tmp_path: Path) -> None:
    page = new_page()
    expect(status(page, "compose")).to_contain_text("8 steps")
    drawn = picture(page, "compose").get_attribute("src") or ""
    (file := tmp_path / "scene.png").write_bytes(base64.b64decode(drawn.partition(",")[2]))
    page.locator("#compose-seed input").fill("5")
    Image.new("RGB", (8, 8)).save(other := tmp_path / "other.png")
    page.locator("#compose-picture input").set_input_files(other)  # while the image of the new seed is drawn
    expect(page.locator("#compose-picture .studio-error")).to_contain_text("says nothing about how it was made")
    expect(picture(page, "compose")).not_to_have_attribute("src", drawn)
    expect(page.locator("#compose-seed input")).to_have_value("5")
    drop(page, "#compose-scene .studio-picture", file)
    expect(page.locator("#compose-picture .studio-error")).to_have_text("")
    expect(page.locator("#compose-seed input")).to_have_value("0")
    expect(picture(page, "compose")).to_have_attribute("src", drawn)


def test_click_adds_double_click_removes_and_all_survives_that_the_page_is_loaded_again(new_page: Any) -> None:
    page = new_page()
    expect(handles(page)).to_have_count(2)
    changed(page, lambda: page.mouse.click(*at(page, 0.5, 0.2)))
    expect(handles(page)).to_have_count(3)
    expect(rows(page)).to_have_count(3)
    expect(python(page)).to_contain_text("model(0.5, 0.2, tint=")
    changed(page, lambda: page.mouse.dblclick(*at(page, 0.5, 0.2)))
    expect(handles(page)).to_have_count(2)
    expect(python(page)).not_to_contain_text("model(0.5, 0.2, tint=")
    for count in (3, 2):  # Ctrl-Z takes back the one, then the other
        changed(page, lambda: page.keyboard.press("Control+z"))
        expect(handles(page)).to_have_count(count)
    for count in (3, 4, 5):
        changed(page, lambda: page.click("#compose-scene .studio-add"))
        expect(handles(page)).to_have_count(count)
    expect(status(page, "compose")).to_contain_text("5 objects, guidance 1.5; more than the 4 that tinted knows")
    changed(page, lambda: page.locator("#compose-seed input").fill("3"))
    expect(python(page)).to_contain_text("generator=3")
    before = picture(page, "compose").get_attribute("src")
    page.reload()
    expect(status(page, "compose")).to_contain_text("5 objects, guidance 1.5")
    expect(page.locator("#compose-seed input")).to_have_value("3")
    assert picture(page, "compose").get_attribute("src") == before


def test_drag_and_fields_change_the_scene(new_page: Any) -> None:
    page = new_page()
    page.mouse.move(*at(page, 0.3, 0.45))
    page.mouse.down()
    for step in range(1, 6):
        page.mouse.move(*at(page, 0.3 + 0.06 * step, 0.45))
        time.sleep(0.05)
    expect(status(page, "compose")).to_contain_text("a preview in")
    page.mouse.up()
    expect(status(page, "compose")).to_contain_text("8 steps")
    expect(rows(page).first.get_by_label("x of 1")).to_have_value("0.6")
    expect(python(page)).to_contain_text("model(0.6, 0.45")
    changed(page, lambda: rows(page).first.get_by_label("tint of 1").select_option("blue"))
    expect(python(page)).to_contain_text('tint="blue"')
    changed(page, lambda: rows(page).nth(1).get_by_label("not 2").check())
    expect(python(page)).to_contain_text("& ~model(0.7, 0.6")
    expect(rows(page).first.get_by_label("weight of 1")).to_have_attribute("max", "3")
    changed(page, lambda: rows(page).first.get_by_label("weight of 1").fill("2"))
    expect(python(page)).to_contain_text("2.0 * model(0.6")
    expect(page.locator("#compose-code .cm-content").nth(1)).to_contain_text(" * 2.0'")


def test_errors_are_one_line_and_or_chooses_its_sampler(new_page: Any, capfd: pytest.CaptureFixture[str]) -> None:
    page = new_page()
    for wrong in ("-1", ""):
        page.locator("#compose-seed input").fill(wrong)
        expect(status(page, "compose")).to_contain_text(f"got the seed {wrong or None}; expected a whole number")
    page.locator("#compose-steps input").fill("100000")
    page.locator("#compose-seed input").fill("0")
    expect(status(page, "compose")).to_contain_text("got 100000 steps")
    expect(handles(page)).to_have_count(2)
    page.locator("#compose-steps input").fill("")
    expect(status(page, "compose")).to_contain_text("8 steps")
    rows(page).nth(1).get_by_label("how 2 is joined").select_option("|")
    expect(status(page, "compose")).to_contain_text("2 objects, 2 alternatives; 8 steps")
    expect(python(page)).to_contain_text('sampler="mixture"')
    assert "Traceback" not in capfd.readouterr().err


def test_a_file_that_is_dropped_is_read_and_its_objects_are_shown_and_edited(
    new_page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = new_page()
    monkeypatch.setattr("energycomp_studio.tabs.read.questions", lambda _: ["what is left of the cube?"])
    page.get_by_role("tab", name="Read").click()
    paint = page.locator("#read-repaint")
    expect(paint).to_have_class(re.compile("secondary"))
    drop(page, "#read-picture .studio-drop", scene_file(tmp_path))
    expect(status(page, "read")).to_contain_text("2 found")
    expect(handles(page, "read")).to_have_count(2)
    card = rows(page, "read").first
    sure = card.locator("label").filter(has_text="tint").locator(".studio-sure")
    expect(sure).to_have_text(re.compile(r"\d+%"))
    expect(card.locator(".studio-gain")).to_have_text(re.compile(r"gain \d+\.\d"))
    expect(page.locator("#read-scene .studio-hint")).to_contain_text("Point at a ring or a card to see its pixels.")
    lit = page.locator("#read-scene .studio-lit")
    expect(lit).to_be_hidden()
    card.hover()
    expect(lit).to_be_visible()
    first = lit.get_attribute("src") or ""
    rows(page, "read").nth(1).hover()
    expect(lit).not_to_have_attribute("src", first)
    page.mouse.move(0, 0)
    expect(lit).to_be_hidden()
    handles(page, "read").first.hover()  # the ring on the image does the same
    expect(lit).to_have_attribute("src", first)
    expect(card).to_have_class(re.compile("studio-pointed"))
    page.mouse.move(0, 0)
    expect(lit).to_be_hidden()
    expect(page.locator("#read-scene .studio-arrows line")).to_have_count(0)  # tinted values are no objects of CLEVR
    question, said = page.get_by_label("Ask about the objects"), page.locator("#read-answer")
    question.fill("how many cubes are there?")
    page.keyboard.press("Enter")
    expect(said).to_have_text("Only what clevr and clevr-small read takes questions.")
    page.get_by_role("button", name="what is left of the cube?").click()
    expect(question).to_have_value("what is left of the cube?")
    page.click("#read-search button")
    expect(page.locator("#read-maps img").first).to_have_attribute("src", _DATA)
    card.get_by_label("tint of 1").select_option("green")
    expect(sure).to_have_text("")  # nobody read it
    expect(paint).to_have_class(re.compile("primary"))
    page.get_by_text("The same changes in code").click()
    expect(page.locator("#read-code .cm-content").nth(1)).to_contain_text("--move 1:")
    changed(page, lambda: page.click("#read-repaint"), "read")
    expect(status(page, "read")).to_contain_text("repainted")
    expect(card.get_by_label("tint of 1")).to_have_value("green")
    page.reload()  # the tab and its readings stay
    expect(status(page, "read")).to_have_text("as it was")
    expect(page.get_by_role("tab", name="Read")).to_have_attribute("aria-selected", "true")
    expect(card.get_by_label("tint of 1")).to_have_value("green")
    changed(page, lambda: page.click("#read-undo"), "read")
    expect(card.get_by_label("tint of 1")).to_have_value("red")
    page.get_by_role("tab", name="Track").click()
    for name in ("Read", "Compose"):
        page.go_back()
        expect(page.get_by_role("tab", name=name, exact=True)).to_have_attribute("aria-selected", "true")


def test_objects_of_a_video_are_tracked(new_page: Any, tmp_path: Path) -> None:
    model, page = tinted(), new_page()
    places = [model.conditioner.parse(0.3 + 0.05 * k, 0.5, tint="red", width="wide") for k in range(3)]
    frames = [to_output(planted(model, one), "pil")[0] for one in places]
    frames[0].save(tmp_path / "video.gif", save_all=True, append_images=frames[1:])
    page.get_by_role("tab", name="Track").click()
    page.locator("#track-video input").set_input_files(scene_file(tmp_path))
    expect(page.locator("#track-status")).to_contain_text("cannot be read as a GIF")
    page.locator("#track-video input").set_input_files(tmp_path / "video.gif")
    expect(page.locator("#track-status")).to_contain_text("1 object in 3 frames, tracked in")
    frame, cells = page.locator("#track-film img"), page.locator("#track-film td")
    expect(page.locator("#track-film th")).to_have_text(["number", "object", "x", "y"])
    expect(cells.nth(1)).to_have_text("red wide")
    before, first = float(cells.nth(2).inner_text()), frame.get_attribute("src") or ""
    page.get_by_role("button", name="Play").click()
    expect(page.locator("#track-film output")).to_have_text("3 of 3")
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    expect(frame).not_to_have_attribute("src", first)
    assert float(cells.nth(2).inner_text()) > before
    page.get_by_label("Frame", exact=True).fill("1")
    expect(frame).to_have_attribute("src", first)
    page.reload()  # the film stays
    expect(page.locator("#track-status")).to_contain_text("1 object in 3 frames, tracked in")
    expect(frame).to_have_attribute("src", first)


def test_an_upload_of_20_mb_is_refused_and_a_foreign_image_is_said_to_be_foreign_once(
    new_page: Any, tmp_path: Path
) -> None:
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
    choose(page, "read", "amazed")
    expect(page.locator("#read-model input")).to_have_value("amazed")
    page.locator("#read-picture input").set_input_files(scene_file(tmp_path))
    expect(page.get_by_text("not read by amazed")).to_be_visible()
    expect(page.get_by_text("of a kind that tinted does not know")).to_have_count(1)


def test_keyboard_only(new_page: Any) -> None:
    page = new_page()
    handles(page).first.focus()
    changed(page, lambda: page.keyboard.press("ArrowRight"))
    expect(rows(page).first.get_by_label("x of 1")).to_have_value("0.31")
    page.wait_for_timeout(1000)  # after which another move begins
    changed(page, lambda: [page.keyboard.press("ArrowRight") for _ in range(4)])
    expect(rows(page).first.get_by_label("x of 1")).to_have_value("0.35")
    for value in ("0.31", "0.3"):  # keys that follow each other are one move
        changed(page, lambda: page.keyboard.press("Control+z"))
        expect(rows(page).first.get_by_label("x of 1")).to_have_value(value)
    changed(page, lambda: page.keyboard.press("ArrowRight"))
    handles(page).first.focus()
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


def test_a_phone_in_the_dark(new_page: Any, tmp_path: Path) -> None:
    page = new_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, color_scheme="dark")
    background, text = (
        page.evaluate(f"getComputedStyle(document.querySelector('.studio-row')).{name}").strip()
        for name in ("backgroundColor", "color")
    )
    assert _brightness(background) < 80
    assert _brightness(text) > 160
    for name in ("Decompose", "Models", "Track", "Read", "Compose"):
        page.get_by_role("tab", name=name, exact=True).click()
        if name == "Read":
            read_scene(page, scene_file(tmp_path))
            assert picture(page, "read").bounding_box()["y"] < 400  # without scrolling
        if name == "Models":
            button = page.locator("#models-list button[data-tab=decompose]")
            expect(button).to_be_visible()
            box = button.bounding_box()
            assert box["x"] + box["width"] <= 390
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
    picture(page, "compose").scroll_into_view_if_needed()
    changed(page, lambda: page.touchscreen.tap(*at(page, 0.5, 0.2)))
    expect(handles(page)).to_have_count(3)


def _brightness(colour: str) -> float:
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3


def test_all_tabs_have_one_width_and_the_list_of_models_says_what_each_can_and_opens_it(new_page: Any) -> None:
    page, widths = new_page(), set()
    for name in ("Compose", "Read", "Track", "Decompose", "Models"):
        page.get_by_role("tab", name=name, exact=True).click()
        expect(page.get_by_role("tab", name=name, exact=True)).to_have_attribute("aria-selected", "true")
        widths.add(page.locator("#studio-tabs").bounding_box()["width"])
    assert len(widths) == 1
    described = (Path(__file__).parents[3] / "docs" / "studio.md").read_text(encoding="utf-8")
    assert all(f"\n## {name}\n" in described for name in page.get_by_role("tab").all_inner_texts())
    listed = page.locator("#models-list li")
    expect(listed.nth(1)).to_be_visible()
    expect(page.locator("#studio-stop")).not_to_be_visible()
    expect(listed.filter(has_text="numbered")).to_contain_text("A component is a text of the words: 0, 1, 2.")
    expect(listed.filter(has_text="numbered").locator("img")).to_have_attribute("src", _DATA)
    expect(listed.locator("img")).to_have_count(len(OWN) + 1)
    expect(listed.filter(has_text="numbered")).to_contain_text("sample, read, edit")
    expect(listed.filter(has_text="striped")).to_contain_text("decompose, recombine")
    expect(listed.filter(has_text="striped").get_by_role("button")).to_have_count(1)
    choose(page, "compose", "numbered")
    text = page.locator("#compose-scene .studio-text")
    expect(page.locator("#compose-model")).to_contain_text("Model numbered")
    expect(python(page)).to_contain_text("model(0)")
    expect(text).to_have_count(2)
    choose(page, "compose", "attributed")
    expect(python(page)).to_contain_text('load("attributed")')
    expect(text.first).to_have_value("0")

    def other() -> None:
        text.first.fill("3")
        page.keyboard.press("Tab")

    changed(page, other)
    text.first.fill("none")
    page.keyboard.press("Tab")
    expect(status(page, "compose")).to_contain_text("expected")
    page.reload()
    expect(page.locator("#compose-model")).to_contain_text("Model attributed")


def test_attributes_are_toggles(new_page: Any) -> None:
    pytest.importorskip("energycomp_faces", reason="no faces: pip install energycomp-faces")
    page = new_page()
    choose(page, "compose", "faces")
    toggles = page.get_by_role("group", name="smiling", exact=True).get_by_role("button")
    expect(toggles).to_have_text(["no", "yes"])
    page.locator("#compose-steps input").fill("2")
    for pressed in ("true", "false"):
        toggles.last.click()
        expect(toggles.last).to_have_attribute("aria-pressed", pressed)
        count = 3 if pressed == "true" else 2
        expect(status(page, "compose")).to_contain_text(f"{count} components; 2 steps")
    expect(page.locator("#compose-scene select")).to_have_count(0)


def test_parts_of_two_images_are_recombined(new_page: Any, tmp_path: Path) -> None:
    page, tiles = new_page(), "#parts-tiles"
    choose(page, "decompose", "striped")
    Image.linear_gradient("L").convert("RGB").rotate(90).save(tmp_path / "plain.png")
    files = (scene_file(tmp_path), tmp_path / "plain.png")
    for k, file in enumerate(files, 1):  # the second one at once, while the first one is decomposed
        page.locator(f"#parts-picture-{k} input").set_input_files(file)
        expect(page.locator(f"#parts-picture-{k}")).to_contain_text(file.name)
    expect(page.locator(f"{tiles} .studio-tile")).to_have_count(8)
    expect(page.locator(f"{tiles} figure")).to_have_text(["image 1", "reconstruction", "image 2", "reconstruction"])
    expect(page.locator("#parts-status")).to_contain_text(re.compile(r"4 parts in \d+ s"))
    expect(page.locator(f"{tiles} .warning")).to_have_count(1)
    expect(page.locator(f"{tiles} .warning")).to_contain_text(
        "Image 1 is out of distribution: parts of striped explain"
    )
    page.locator("#parts-tiles .studio-tile").first.click()
    expect(page.locator("#parts-result img")).to_have_attribute("src", _DATA)
    expect(page.locator("#parts-result a")).to_have_attribute("download", "recombined.png")
    page.get_by_text("The same image in code").last.click()
    expect(page.locator("#parts-code .cm-content").nth(1)).to_contain_text("energycomp recombine striped a.png b.png")
    before = page.locator(f"{tiles} img").first.get_attribute("src") or ""
    page.click("#parts-example")
    expect(page.locator(f"{tiles} img").first).not_to_have_attribute("src", before)
    expect(page.locator(f"{tiles} .studio-tile")).to_have_count(8)
    expect(page.locator("#parts-result img")).to_have_count(0)  # it was of other parts
    page.locator("#parts-tiles .studio-tile").first.click()
    made = page.locator("#parts-result img")
    expect(made).to_have_attribute("src", _DATA)
    shown = [page.locator(f"{tiles} img").first.get_attribute("src") or "", made.get_attribute("src") or ""]
    pressed = [one.get_attribute("aria-pressed") for one in page.locator(f"{tiles} .studio-tile").all()]
    page.reload()  # the parts, what was chosen of them and their image stay
    expect(page.locator("#parts-status")).to_have_text("as it was")
    expect(page.get_by_role("tab", name="Decompose")).to_have_attribute("aria-selected", "true")
    expect(made).to_have_attribute("src", shown[1])
    expect(page.locator(f"{tiles} img").first).to_have_attribute("src", shown[0])
    assert pressed == [one.get_attribute("aria-pressed") for one in page.locator(f"{tiles} .studio-tile").all()]


def test_two_pages_and_stop_and_waiting_and_what_is_newer(
    new_page: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page, other, compose, calls = new_page(), new_page(), Target.compose, itertools.count()
    read_scene(page, scene_file(tmp_path))
    changed(other, lambda: other.mouse.click(*at(other, 0.5, 0.2)))
    expect(handles(other)).to_have_count(3)
    expect(handles(page)).to_have_count(2)
    other.get_by_role("tab", name="Read").click()
    expect(other.locator("#read-repaint")).to_be_hidden()  # there is nothing to repaint
    expect(handles(page, "read")).to_have_count(2)
    for shown in (page, other):
        shown.get_by_role("tab", name="Compose", exact=True).click()

    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(0.02 if next(calls) < 40 else 0.3)  # quick at first, so that the older scene is ahead of the newer
        return compose(*args, **kwargs)

    monkeypatch.setattr(Target, "compose", slow)
    page.locator("#compose-steps input").fill("900")
    expect(status(page, "compose")).to_contain_text("of 900")
    bar = page.locator("#compose-scene progress")
    expect(bar).to_have_attribute("value", re.compile(r"0\.\d"))
    other.mouse.click(*at(other, 0.5, 0.8))
    expect(status(other, "compose")).to_contain_text("waiting for another page: drawing")
    other.click("#studio-stop")
    expect(status(other, "compose")).to_have_text("stopped")
    expect(other.locator("#studio-stop")).not_to_be_visible()
    expect(status(page, "compose")).to_contain_text(re.compile(r"step ([2-9]\d|\d{3}) of 900"))
    page.mouse.click(*at(page, 0.5, 0.2))  # the drawing of an older scene stops by itself
    expect(status(page, "compose")).to_contain_text(re.compile(r"step 1?\d of 900"))
    page.click("#studio-stop")
    expect(status(page, "compose")).to_have_text("stopped")
    expect(bar).to_be_hidden()
    page.locator("#compose-steps input").fill("5")
    changed(page, lambda: page.mouse.click(*at(page, 0.2, 0.2)))
    expect(status(page, "compose")).to_contain_text("4 objects")
