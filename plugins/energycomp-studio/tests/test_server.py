"""What the server refuses: other hosts, other pages, other paths, large requests. And tasks that are stopped."""

import asyncio
import base64
import http.client
import io
import re
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import gradio as gr
import numpy as np
import pytest
import torch
from PIL import Image

from energycomp import infer, plugins
from energycomp.errors import InputError
from energycomp.images import data_url, save_frames
from energycomp.inference import Solution
from energycomp.models import Calibration
from energycomp.progress import progress
from energycomp.testing import planted, stripes_model, tinted_model
from energycomp_lab.checks import check_plugin
from energycomp_studio.drawing import PLAIN
from energycomp_studio.first import first_scene
from energycomp_studio.forms import form_of
from energycomp_studio.library import Library
from energycomp_studio.pairs import draw_examples
from energycomp_studio.parts import static
from energycomp_studio.pictures import MAX_UPLOAD, decode_upload
from energycomp_studio.repainting import repaint_changes
from energycomp_studio.scene import Draft, Item
from energycomp_studio.server import MAX_BODY, OpenStream, running, serve
from energycomp_studio.settings import Settings
from energycomp_studio.staged import Reading, describe_answer, read, scene_read
from energycomp_studio.tabs.compose import _Compose
from energycomp_studio.tabs.decompose import _Decompose, choice
from energycomp_studio.tabs.read import _Read
from energycomp_studio.tabs.track import _Tracking, frames_of
from energycomp_studio.worker import Done, Failed, Running, StoppedError, Worker


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    plugins.register("models", "tinted", lambda **_: tinted_model())
    with running("tinted") as address:
        number = int(address.rpartition(":")[2])
        for _ in range(300):
            try:
                request(number, "/config")
            except OSError:
                time.sleep(0.1)
            else:
                break
        yield number


def request(port: int, path: str, method: str = "GET", body: Any = None, **headers: str) -> tuple[int, str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body=body, headers=named)
    answer = connection.getresponse()
    text = answer.read().decode(errors="replace")
    connection.close()
    return answer.status, text, answer.headers


def test_the_page_is_served_with_a_policy(port: int) -> None:
    status, text, headers = request(port, "/")
    assert status == 200
    assert "energycomp studio" in text
    assert "connect-src 'self'" in headers["content-security-policy"]
    assert headers["x-frame-options"] == "DENY"
    assert "--overlay-found: rgb(255 214 0);" in text  # the rings of the page have the colour of `overlay`
    assert "stroke: var(--overlay-found)" in static("page.css")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "", "192.0.2.1"])
def test_foreign_hosts_are_refused(port: int, host: str) -> None:
    for path in ("/", "/config", "/gradio_api/queue/join"):
        assert request(port, path, host=host)[0] == 403


def test_other_pages_are_refused(port: int) -> None:
    """And the page itself is served on this computer, by each of its names."""
    own = f"127.0.0.1:{port}"
    for host in ("localhost", "127.0.0.1:1", "[::1]:7860"):
        assert request(port, "/", host=host)[0] == 200
    assert request(port, "/", origin=f"http://{own}", host=own)[0] == 200
    assert request(port, "/gradio_api/queue/join", "POST", "{}", origin="http://evil.example")[0] == 403
    assert request(port, "/", origin="null")[0] == 403


PATHS = (
    "/gradio_api/file=/etc/passwd", "/gradio_api/file=pyproject.toml", "/gradio_api/file/etc/passwd",
    "/file=/etc/passwd", "/gradio_api/proxy=http://example.org/", "/gradio_api/upload", "/gradio_api/component_server",
    "/gradio_api/info", "/gradio_api/openapi.json", "/gradio_api/vibe-code", "/gradio_api/run/predict", "/monitoring",
    "/docs", "/openapi.json", "/static/../../../etc/passwd", "/assets/%2e%2e/%2e%2e/etc/passwd",
)  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_no_other_path_is_served(port: int, path: str) -> None:
    for method in ("GET", "POST"):
        assert request(port, path, method)[0] in (403, 404), method


def test_large_requests_are_refused(port: int) -> None:
    assert request(port, "/gradio_api/queue/join", "POST", None, content_length=str(MAX_BODY + 1))[0] == 413
    chunks = (bytes(1_000_000) for _ in range(MAX_BODY // 1_000_000 + 2))
    try:
        status = request(port, "/gradio_api/queue/join", "POST", chunks, transfer_encoding="chunked")[0]
    except (BrokenPipeError, ConnectionResetError):  # it was refused before all was sent
        status = 413
    assert status == 413


def test_it_listens_on_this_computer_only(port: int) -> None:
    own = socket.gethostbyname(socket.gethostname())
    if own.startswith("127."):
        pytest.skip("this computer has no other address")
    with pytest.raises(OSError, match="refused"):
        http.client.HTTPConnection(own, port, timeout=5).connect()


def test_a_port_that_is_taken_is_one_error(port: int) -> None:
    with pytest.raises(InputError, match=f"got --port {port}, which cannot be used .*; name another"):
        serve("tinted", port=port)


def test_the_installed_plugin_conforms() -> None:
    assert not [check for check in check_plugin("energycomp-studio") if check.passed is False]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (None, "got no image"),
        ("https://example.org/a.png", "got no image"),
        ("data:image/png;base64,!!!", "damaged upload"),
        ("data:image/png;base64,AAAA", "cannot identify image file"),
        ("data:image/png;base64," + "A" * (MAX_UPLOAD * 4 // 3 + 100), "expected at most 10,000,000"),
        (data_url(Image.new("1", (6_000, 6_000))), "megapixels"),
    ],
    ids=["none", "address", "damaged", "no image", "large", "pixels"],
)
def test_uploads_are_checked(url: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        decode_upload(url)
    assert "/tmp" not in str(caught.value)  # noqa: S108 - no path of this computer


def test_an_upload_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large one is scaled down, in memory."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert decode_upload(data_url(Image.new("RGB", (3_000, 1_500)))).size == (1_024, 512)
    assert list(tmp_path.iterdir()) == []


def test_a_task_is_stopped_between_layers() -> None:
    worker, layers = Worker(), []
    layer = torch.nn.Identity()

    def task(report: Any) -> None:
        report("begun")
        while True:
            layers.append(layer(torch.zeros(1)))
            time.sleep(0.001)

    found = []
    for event in worker.run("tab", task):
        found.append(event)
        worker.stop("other")
        if isinstance(event, Running) and event.reported is None:
            worker.stop("tab")
    assert found[-1] == Failed("stopped")
    assert layers
    assert isinstance([*worker.run("tab", lambda _: 3)][-1], Done)
    layer(torch.zeros(1))  # no hook is left


def test_a_closed_iterator_stops_its_task() -> None:
    worker, ended = Worker(), threading.Event()

    def task(report: Any) -> None:
        try:
            while True:
                report("more")
                time.sleep(0.001)
        except StoppedError:
            ended.set()
            raise

    events = worker.run("tab", task)
    next(events)
    events.close()
    assert ended.is_set()


def test_a_task_with_a_loop_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("energycomp_studio.worker.EVERY", 0.0)
    events = list(Worker().run("tab", lambda _: list(progress(range(2), "repainting", show=False))))
    assert [event.share for event in events if isinstance(event, Running)] == [0.5, 1.0]
    assert events[0].told("working") == "repainting, step 1 of 2, 0 s"


def opened(kind: Any, name: str = "tinted", make: Any = tinted_model, **options: Any) -> tuple[Any, gr.Request]:
    """A tab of a page with a model, and the page's request."""
    model = make(**options)
    plugins.register("models", name, lambda **_: model)
    return kind(Library(name, "cpu"), Worker()), gr.Request(session_hash="tab")


def test_two_images_that_are_dropped_at_once_are_both_decomposed() -> None:
    own, tab = opened(_Decompose, "striped", stripes_model, parts=4)
    urls = [data_url(Image.new("RGB", (16, 16), colour)) for colour in ("red", "blue")]
    both = [own.take("key", url, "striped", 0, place, tab) for place, url in enumerate(urls)]
    for one in both:
        next(one)  # both begin before one of them ends
    said = [update[1] for one in both for update in one]
    assert "image 2: " in said[-2]
    assert re.search(r"4 parts in \d+ s", said[-1])
    tiles = own.show("key")["tiles"]
    assert len(tiles) == 2
    # Another page of the same browser tab, which was loaded again.
    value = {"chosen": [[True] * 4, [False] * 4]}
    *_, (result, *_) = own.mix("key", value, "striped", 0, gr.Request(session_hash="later"))
    again, _, name, shown, python, _ = own.again("key")
    assert (again["tiles"], again["value"], name, shown) == (tiles, value, "striped", result)
    assert "recombined.png" in python
    assert own.again("another")[0] == gr.skip()


def test_an_example_is_drawn_by_the_data_set_of_the_model() -> None:
    pytest.importorskip("energycomp_decomp", reason="no decomp: pip install energycomp-decomp")
    one, other = draw_examples("decomp", Settings(3))
    assert one.size == other.size == (32, 32)
    assert one.tobytes() != other.tobytes()
    with pytest.raises(InputError, match="got tinted, for which there is no example; drop an image"):
        draw_examples("tinted", Settings())


def test_tasks_wait_for_their_turn() -> None:
    worker, running_now, most = Worker(), [], []

    def task(_: Any) -> None:
        running_now.append(1)
        most.append(len(running_now))
        time.sleep(0.05)
        running_now.pop()

    threads = [threading.Thread(target=lambda k=k: list(worker.run(str(k), task))) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]


def test_an_older_drawing_leaves_the_end_of_a_newer_one() -> None:
    own, tab = opened(_Compose, num_inference_steps=20)
    scene = first_scene(form_of(own.library.model("tinted"))).as_json()
    older = own.draw({**scene, "final": True, "first": True}, "tinted", 0, 20, PLAIN, None, tab)
    next(older)  # its draft is shown
    list(own.draw({**scene, "final": True}, "tinted", 0, 0, PLAIN, "wide", tab))  # 0 steps: an empty field
    list(older)
    shown, again = own.show(tab), own.show(tab)
    assert "got the canvas 'wide'" in shown[0]["status"]
    assert "status" not in again[0]


def test_an_image_that_is_dropped_is_its_scene_again_and_another_leaves_the_scene() -> None:
    own, tab = opened(_Compose, num_inference_steps=2)
    items = [{"given": {"x": 0.25, "y": 0.3125, "tint": "blue"}, "weight": 2.0, "negated": False, "either": False}]
    list(own.open("tinted", "", tab))
    list(own.draw({"items": items, "final": True}, "tinted", 7, 3, "DDIMScheduler", None, tab))
    picture = own.show(tab)[0]["picture"]
    _, scene, _, name, seed, steps, sampler, _, _ = list(own.take(picture, tab))[-1]
    restored = [{key: item[key] for key in items[0]} for item in scene["value"]["items"]]
    assert (restored, name, seed, steps["value"], sampler) == (items, "tinted", 7, 3, "DDIMScheduler")
    list(own.draw_opened(tab, {"items": [], "final": True}, "tinted", 5, None, PLAIN, None))  # the page of before
    assert own.show(tab)[0]["picture"] == picture
    foreign = {"command": "sample", "model": "tinted", "options": {"sampler": "pndm"}, "seed": 0}
    for wrong, said in (
        (data_url(Image.new("RGB", (8, 8))), "says nothing about how it was made"),
        (data_url(Image.new("RGB", (8, 8)), formula={"model": "/root"}), "got an image of the model '/root'"),
        (data_url(Image.new("RGB", (8, 8)), formula=foreign), "got an image of the sampler 'pndm'"),
        ("data:image/png;base64,AAAA", "cannot be decoded"),
    ):
        first, *_, last = list(own.take(wrong, tab))
        assert first[0]["error"] == "", "a message that is the same again is shown again"
        assert said in last[0]["error"]
        assert "value" not in last[1]
        assert len(last) == 9
        list(own.draw_opened(tab))
        assert "picture" not in own.show(tab)[0], "nothing is drawn"


def test_a_film_is_there_again_when_the_page_is_loaded_again() -> None:
    own, tab = opened(_Tracking, solver="pursuit", counts=(0, 2), num_inference_steps=4, beta=10.0)
    model, stream = own.library.model("tinted"), io.BytesIO()
    one, other = (model.decode(planted(model, model.conditioner.parse(x, 0.5, tint="red")))[0] for x in (0.3, 0.35))
    one.save(stream, "GIF", save_all=True, append_images=[other])
    url = f"data:image/gif;base64,{base64.b64encode(stream.getvalue()).decode()}"
    line, shown, _ = list(own.take("page", url, "tinted", 0, tab))[-1]
    assert "1 object in 2 frames" in line
    assert len(shown["frames"]) == 2
    assert own.again("page") == (line, shown)
    assert own.again("another page") == (gr.skip(), gr.skip())


@pytest.mark.parametrize(("kind", "count"), [("gif", 3), ("mp4", 3), ("gif", 1), ("mp4", 41)])
def test_frames_of_a_gif_or_mp4(kind: str, count: int, tmp_path: Path) -> None:
    images = [Image.new("RGB", (64, 48), (6 * number, 0, 0)) for number in range(count)]
    save_frames(images, tmp_path / f"film.{kind}")
    url = f"data:video/{kind};base64,{base64.b64encode((tmp_path / f'film.{kind}').read_bytes()).decode()}"
    if 2 <= count <= 40:
        assert [frame.size for frame in frames_of(url)] == [(64, 48)] * count
    else:
        with pytest.raises(InputError, match="expected from 2 to 40; use energycomp track"):
            frames_of(url)


def test_errors_of_a_task_are_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    def failing(error: Exception) -> Any:
        def task(_: Any) -> None:
            raise error

        return task

    assert list(Worker().run("tab", failing(InputError("got a; expected b")))) == [Failed("got a; expected b")]
    assert list(Worker().run("tab", failing(KeyError("c")))) == [Failed("unexpected KeyError: 'c'")]
    assert "Traceback" in capsys.readouterr().err


def scene() -> tuple[Any, Any]:
    model = tinted_model(solver="pursuit", counts=(0, 4), beta=10.0)
    parse = model.conditioner.parse
    true = torch.cat([parse(0.2, 0.3, tint="red", width="wide"), parse(0.7, 0.8, tint="blue", width="narrow")])
    return model, model.decode(planted(model, true))[0]


def test_a_task_says_for_what_it_waits() -> None:
    worker, begun, ended = Worker(), threading.Event(), threading.Event()

    def long(_: Any) -> None:
        begun.set()
        ended.wait(30)

    thread = threading.Thread(target=lambda: list(worker.run("one", long, "reading an image")))
    thread.start()
    begun.wait(30)
    events = worker.run("two", lambda _: 7)
    assert next(events).reported == "waiting for another page: reading an image"
    stopped = worker.run("one", lambda _: 8)
    assert next(stopped).reported == "waiting for this page: reading an image"
    worker.stop("one")
    assert list(stopped)[-1] == Failed("stopped")
    ended.set()
    assert [event for event in events if not isinstance(event, Running)][-1].result == 7
    thread.join()


def test_reading_reports_on_the_way_and_answers_as_infer_does() -> None:
    model, picture = scene()
    stages: list[Any] = []
    found, direct = read(picture, model, stages.append, seed=3), infer(picture, model, generator=3)
    assert found.solution.conditions.equal(direct.conditions)
    assert found.solution.certainty.equal(direct.certainty)
    assert list(dict.fromkeys(stage.kind for stage in stages)) == ["maps", "guess", "places", "attributes"]
    first, guess = stages[0].values[0], stages[1].values
    y, x = divmod(int(first.argmax()), first.shape[1])  # the first object is where the first map is greatest
    assert guess[0].tolist() == pytest.approx([(x + 0.5) / first.shape[1], (y + 0.5) / first.shape[0]])
    shown = describe_answer(found, model)
    assert [one["given"]["tint"] for one in shown] == ["red", "blue"]
    assert [one["sure"]["tint"] for one in shown] == pytest.approx(direct.certainty[:, 0].tolist())
    assert [one["gain"] for one in shown] == pytest.approx(direct.component_gain.tolist())
    assert [one["tint"] for one in found.described] == ["red", "blue"]
    foreign = attrs.evolve(found, solution=attrs.evolve(found.solution, typicality=0.001))
    assert [(one["sure"], one["gain"]) for one in describe_answer(foreign, model)] == [({}, None), ({}, None)]


def test_a_photo_is_shown_with_the_reason_and_no_cards() -> None:
    known = Calibration((1,), mean=((0.0, 0.0),), std=((9.0, 9.0),), scores=(9.0,) * 9, images=99, background=(-12, 2))
    own, tab = opened(_Read, calibration=known, solver="pursuit")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8))
    updates = list(own.take(data_url(noise), "tinted", 0, tab))
    assert any(update[0].get("picture", "").startswith("data:") for update in updates)
    scene, said = updates[-1][4]
    assert (scene["value"]["items"], scene["found"], scene["status"]) == ([], [], "not read by tinted")
    assert "Got an image of a kind that tinted does not know" in said
    assert updates[-1][3] == []  # nothing to ask about, or to repaint


def test_a_file_that_is_no_image_takes_the_old_one_away() -> None:
    own, tab = opened(_Read)
    ((scene, said, searched, history, *_),) = own.take("data:text/plain;base64,aGVsbG8=", "tinted", 0, tab)
    assert (scene["picture"], scene["value"]["items"], scene["found"]) == ("", [], [])
    assert "cannot be decoded" in scene["status"]
    assert (said, searched, history) == ("", "", [])


def test_repainting_changes_the_answer() -> None:
    model, picture = scene()
    reading = read(picture, model, lambda _: None)
    items = scene_read(reading.described).items
    changed = Draft((Item({**items[0].given, "tint": "green"}, origin=0),))
    after = repaint_changes(reading, changed, model, Settings(steps=4))
    assert [one["tint"] for one in after.described] == ["green"]
    assert after.picture.size == picture.size
    with pytest.raises(InputError, match="got nothing to change"):
        repaint_changes(reading, Draft(items), model, Settings(steps=4))


def reading(described: tuple[Any, ...] = ()) -> Reading:
    found = Solution(torch.tensor([[0.3, 0.4, 1, 1, 1, 1]]), 1, 1.0, 0.1, 0)
    return Reading(Image.new("RGB", (4, 4)), found, described)


def test_questions_have_short_answers() -> None:
    own, _ = opened(_Read)
    assert "1 (100%)" in own.ask("how many things are there?", [reading()])
    for wrong in ("what is the box?", "two red cubes", "<b>"):
        said = own.ask(wrong, [reading()])
        assert "Not understood. Ask, for example: how many cubes are there?" in said
        assert "<b>" not in said
    assert "Read an image first" in own.ask("how many things are there?", [])


def test_examples_of_questions_are_about_what_was_read_and_are_understood() -> None:
    own, _ = opened(_Read)
    red = reading(({"size": "small", "color": "red", "material": "rubber", "shape": "cube"},))
    field, *buttons = own.examples([red])
    assert field["visible"]
    offered = [one["value"] for one in buttons if one["visible"]]
    assert offered == ["how many cubes are there?", "what is left of the red cube?", "what size is the red cube?"]
    assert all("Not understood" not in own.ask(question, [red]) for question in offered)
    foreign = attrs.evolve(red, solution=Solution(torch.rand(1, 2), 1, 1.0, 0.1, 0))
    for history in ([], [foreign]):
        assert [one["visible"] for one in own.examples(history)] == [False] * 4


def test_a_choice_of_other_parts_is_refused() -> None:
    assert choice({"chosen": [[True, False]]}, [2]) == [[0]]
    for wrong in (None, {}, {"chosen": [[True]]}, {"chosen": [[True, False], [True, False]]}, {"chosen": 3}):
        with pytest.raises(InputError, match="got a choice of other parts"):
            choice(wrong, [2])


def test_the_stream_of_updates_stays_open() -> None:
    """What Gradio puts into the queue after it has closed the stream reaches the page, in one response."""
    waiting, sent = [[b'{"msg":"a"}', b'{"msg":"close_stream"}'], [b'{"msg":"b"}']], []

    async def gradio(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        for body in waiting.pop(0):
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def send(message: Any) -> None:
        sent.append(message.get("body", message["type"]))

    scope = {"type": "http", "path": "/gradio_api/queue/data"}
    asyncio.run(OpenStream(gradio)(scope, send, send))
    assert sent == ["http.response.start", b'{"msg":"a"}', b'{"msg":"b"}', b""]
