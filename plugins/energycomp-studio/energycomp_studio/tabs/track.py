"""Track: a GIF in; its objects with the same number in all frames, and a slider of time, out."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attrs
import gradio as gr
from PIL import Image

from energycomp.errors import InputError
from energycomp.images import data_url
from energycomp_datasets.clevr.videos import Asked, video_of
from energycomp_scenes.films import read_frames
from energycomp_scenes.tracking import Track, TrackedFrame, check_model, track_frame
from energycomp_studio.library import Library
from energycomp_studio.parts import FREE, NETWORK, QUIET, chooser, followed, session_of
from energycomp_studio.pictures import content_of
from energycomp_studio.scene import Settings
from energycomp_studio.worker import Running, Worker

MOST, EXAMPLE = 40, 12  # frames
FORGOTTEN = 3_600  # s after which the frames of a browser tab are forgotten


def frames_of(url: Any) -> list[Image.Image]:
    """The frames of a GIF that was dropped, at most 40 of them.

    Raises:
        InputError: no GIF, or fewer than two frames.
    """
    with TemporaryDirectory() as folder:
        file = Path(folder) / "video.gif"
        file.write_bytes(content_of(url))
        found = read_frames([file])
    if len(found) > MOST:
        raise InputError(f"got {len(found)} frames; expected at most {MOST}; use energycomp track")
    return found


def shown(track: Track, frame: int) -> str:
    """A frame with the numbers of its objects, and a table of them, in HTML."""
    rows = "".join(_row(row) for row in track.frames[frame].objects)
    picture = f"<img class='studio-result' src='{data_url(track.picture(frame))}' alt='Frame {frame + 1}'>"
    return f"<div class='studio-track'>{picture}<table>{rows}</table></div>"


def _row(row: dict[str, Any]) -> str:
    words = " ".join(str(one) for name, one in row.items() if isinstance(one, str))
    seen = "" if row["visible"] else "hidden"
    cells = (row["identity"], words, f"{row['x']:.2f}, {row['y']:.2f}", seen)
    return f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in cells)}</tr>"


@attrs.frozen
class _Tracking:
    """What happens in the tab. The state of a browser tab is the track."""

    library: Library
    worker: Worker

    def take(self, url: Any, name: str, seed: Any, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Tracks the objects of a GIF that was dropped."""
        yield from self._track(lambda: frames_of(url), name, seed, request)

    def example(self, name: str, seed: Any, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Tracks the objects of a drawn video."""

        def drawn() -> list[Image.Image]:
            wanted = Asked(objects=(3, 4), size=(240, 160), frames=EXAMPLE)
            video = video_of(Settings(seed).seed, 0, wanted)
            return [video.frame(index, wanted.size) for index in range(EXAMPLE)]

        yield from self._track(drawn, name, seed, request)

    def _track(
        self, frames: Callable[[], list[Image.Image]], name: str, seed: Any, request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        def task(report: Callable[[Any], None]) -> Track:
            report(f"loading {name}")
            model = check_model(self.library.model(name))
            images, read = frames(), list[TrackedFrame]()
            for number, image in enumerate(images, 1):
                report(f"frame {number} of {len(images)}")
                read.append(track_frame(image, model, read[-1] if read else None, seed=Settings(seed).seed))
            return Track(tuple(read), tuple(model.shown(image) for image in images))

        def running(event: Running) -> tuple[Any, ...]:
            return gr.skip(), f"{event.reported or 'tracking'}, {event.seconds:.0f} s", gr.skip(), gr.skip()

        def done(track: Track, seconds: float) -> tuple[Any, ...]:
            time = gr.update(maximum=len(track.frames), value=1, visible=True)
            return track, f"{track!r} in {seconds:.0f} s", time, shown(track, 0)

        yield None, "tracking", gr.update(visible=False), "", gr.skip()
        yield from followed(
            self.worker, session_of(request), "tracking", task, running=running, done=done,
            failed=lambda message: (None, message, gr.skip(), gr.skip()),
        )  # fmt: skip

    def at(self, track: Track | None, time: Any) -> Any:
        """The frame of a time, from 1."""
        return gr.skip() if track is None else shown(track, min(max(int(time), 1), len(track.frames)) - 1)


def track_tab(library: Library, worker: Worker, stop: gr.Button) -> gr.Dropdown:
    """The components of the tab; returns that of its model."""
    own = _Tracking(library, worker)
    state = gr.State(None, time_to_live=FORGOTTEN)
    with gr.Row():
        model = gr.Dropdown(library.names, value=library.first, label="Model", min_width=180, elem_id="track-model")
        seed = gr.Number(0, label="Seed", precision=0, min_width=100, elem_id="track-seed")
    video = chooser("track-video", f"Drop a GIF here, or choose one (10 MB and {MOST} frames at most)")
    example = gr.Button("Track an example", size="md", elem_id="track-example")
    note = gr.Markdown("", elem_id="track-status")
    time = gr.Slider(1, 2, value=1, step=1, label="Time", visible=False, elem_id="track-time")
    picture = gr.HTML("", elem_id="track-frame")
    once: dict[str, Any] = {**QUIET, "trigger_mode": "once"}
    outputs = [state, note, time, picture, stop]
    video.taken(own.take, [video, model, seed], outputs, **once, **NETWORK)
    example.click(own.example, [model, seed], outputs, **once, **NETWORK)
    time.change(own.at, [state, time], picture, **FREE, trigger_mode="always_last")
    return model
