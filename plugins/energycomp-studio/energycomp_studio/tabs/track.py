"""Track: a GIF or MP4 in; a film of its objects, with the same number in all frames, out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attrs
import gradio as gr
from PIL import Image

from energycomp.errors import InputError
from energycomp.images import data_url
from energycomp.images.frames import frames_of as frames_of_file
from energycomp_datasets.clevr.videos import VideoOptions, video_of
from energycomp_scenes.tracking import Track, TrackedFrame, check_model, track_frame
from energycomp_studio.kept import Kept
from energycomp_studio.library import Library
from energycomp_studio.parts import (
    FREE,
    NETWORK,
    OF_PAGE,
    QUIET,
    chooser,
    element,
    follow,
    model_and_seed,
    note,
    session_of,
)
from energycomp_studio.pictures import content_of
from energycomp_studio.settings import Settings
from energycomp_studio.worker import Running, Step, Worker

MOST, EXAMPLE = 40, 12  # frames
FRAMES = "reading frames"


def frames_of(url: Any) -> list[Image.Image]:
    """Reads the frames of a GIF or MP4 that was dropped, 2 to 40 of them; raises `InputError` for anything else."""
    content = content_of(url)
    with TemporaryDirectory() as folder:
        file = Path(folder) / ("video.mp4" if content[4:8] == b"ftyp" else "video.gif")
        file.write_bytes(content)
        found = [*islice(frames_of_file(file), MOST + 1)]
    if not 2 <= len(found) <= MOST:
        got = f"{MOST} or more" if len(found) > MOST else len(found)
        raise InputError(f"got {got} frames; expected from 2 to {MOST}; use energycomp track")
    return found


def film(track: Track) -> list[dict[str, Any]]:
    """Each frame with the numbers of its objects, and the rows of a table of them, as JSON data."""
    shown = []
    for number, frame in enumerate(track.frames):
        shown.append({"picture": data_url(track.picture(number)), "rows": list(map(_cells, frame.objects))})
    return shown


def _cells(row: dict[str, Any]) -> list[str]:
    words = " ".join(str(one) for one in row.values() if isinstance(one, str)) or "object"
    seen = words if row["visible"] else f"{words} (hidden)"
    return [str(row["identity"]), seen, f"{row['x']:.2f}", f"{row['y']:.2f}"]


def in_words(track: Track) -> str:
    frames = len(track.frames)
    objects = max(frame.known for frame in track.frames)
    return f"{objects} object{'' if objects == 1 else 's'} in {frames} frames"


@attrs.frozen
class _Tracking:
    library: Library
    worker: Worker
    kept: Kept[tuple[str, list[Any]]] = attrs.field(factory=Kept)  # of each browser tab: a line, its last film

    def take(self, key: str, url: Any, name: str, seed: Any, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Tracks the objects of a film that was dropped."""
        yield from self._track(lambda: frames_of(url), key, name, seed, request)

    def example(self, key: str, name: str, seed: Any, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Tracks the objects of a drawn video."""

        def drawn() -> list[Image.Image]:
            wanted = VideoOptions(objects=(3, 4), size=(240, 160), frames=EXAMPLE)
            video = video_of(Settings(seed).seed, 0, wanted)
            return [video.frame(index, wanted.size) for index in range(EXAMPLE)]

        yield from self._track(drawn, key, name, seed, request)

    def again(self, key: str) -> tuple[Any, ...]:
        """What a browser tab had tracked before the page was loaded again."""
        if (kept := self.kept.get(key)) is None:
            return gr.skip(), gr.skip()
        line, frames = kept
        return line, gr.update(frames=frames)

    def _track(
        self, frames: Callable[[], list[Image.Image]], key: str, name: str, seed: Any, request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        def task(report: Callable[[Any], None]) -> Track:
            report(f"loading {name}")
            model = check_model(self.library.model(name))
            images = frames()
            read = list[TrackedFrame]()
            for number, image in enumerate(images):
                report(Step(FRAMES, number, len(images)))
                read.append(track_frame(image, model, read[-1] if read else None, seed=Settings(seed).seed))
            return Track(tuple(read), tuple(model.shown(image) for image in images))

        def running(event: Running) -> tuple[Any, ...] | None:
            if isinstance(event.reported, Step) and event.reported.what != FRAMES:
                return None  # a loop inside of a frame
            return note(event.told("tracking"), event), gr.skip()

        def done(track: Track, seconds: float) -> tuple[Any, ...]:
            self.kept.put(key, (note(f"{in_words(track)}, tracked in {seconds:.0f} s"), film(track)))
            return self.again(key)

        yield note("tracking"), gr.update(frames=[]), gr.skip()
        yield from follow(
            self.worker, session_of(request), "tracking", task, running=running, done=done,
            failed=lambda message: (note(message), gr.skip()),
        )  # fmt: skip


def track_tab(library: Library, worker: Worker, stop: gr.Button) -> gr.Dropdown:
    """The components of the tab; returns that of its model."""
    own = _Tracking(library, worker)
    with gr.Row(elem_classes="studio-bar"):
        kinds = "GIF or MP4" if find_spec("imageio_ffmpeg") else "GIF"
        video = chooser(
            "track-video", f"Drop a {kinds} here, or choose one (10 MB and {MOST} frames at most)", also="video/mp4"
        )
        example = gr.Button("Track an example", size="md", min_width=210, scale=0, elem_id="track-example")
    status = gr.HTML("", elem_id="track-status")
    key = gr.Textbox("", visible=False)
    shown = element("film", "track-film", frames=[])
    model, seed = model_and_seed("track", library.names, library.first)
    once: dict[str, Any] = {**QUIET, **NETWORK, "trigger_mode": "once", "js": OF_PAGE}
    video.taken(own.take, [key, video, model, seed], [status, shown, stop], **once)
    example.click(own.example, [key, model, seed], [status, shown, stop], **once)
    shown.opened(own.again, [key], [status, shown], js=OF_PAGE, **FREE)
    return model
