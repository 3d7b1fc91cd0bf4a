"""Moving pictures: the frames of GIF and MP4 files, read and written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image, ImageSequence

from energycomp.errors import InputError
from energycomp.files import atomic_file
from energycomp.images.formula import gif_comment
from energycomp.images.read import as_rgb, open_image

MOVIES = (".gif", ".mp4")
MOST_FRAMES = 1_000  # that are held in memory


def frames_of(path: str | Path) -> Iterator[Image.Image]:
    """The frames of a GIF or MP4 file one after another, as RGB images; transparent pixels are blended with white.

    Raises:
        InputError: a file that cannot be read, at first or from some frame on, or MP4 without energycomp[mp4].

    >>> with TemporaryDirectory() as folder:
    ...     save_frames([Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")], f"{folder}/a.gif")
    ...     [frame.size for frame in frames_of(f"{folder}/a.gif")]
    [(8, 8), (8, 8)]
    """
    path = Path(path)
    if path.suffix.lower() == ".gif" or not path.is_file():
        open_image(path)  # has the limits and the errors of images
        with _read_as(path, "a GIF file"), Image.open(path, formats=["GIF"]) as opened:
            yield from map(as_rgb, ImageSequence.Iterator(opened))
        return
    with _read_as(path, "a video"), _imageio().get_reader(path, format="FFMPEG") as reader:
        yield from map(Image.fromarray, reader)


@contextmanager
def _read_as(path: Path, what: str) -> Iterator[None]:
    """Turns the errors of decoders into ours."""
    try:
        yield
    except InputError:
        raise
    except (OSError, RuntimeError, ValueError, IndexError) as error:
        raise InputError(f"got {path}, which cannot be read as {what}; expected GIF or MP4; convert it") from error


def frame_count(path: str | Path) -> int:
    """The number of frames of a GIF or MP4 file; raises as `frames_of`."""
    path = Path(path)
    if path.suffix.lower() == ".gif" or not path.is_file():
        open_image(path)
        with _read_as(path, "a GIF file"), Image.open(path, formats=["GIF"]) as opened:
            return int(opened.n_frames)  # type: ignore[attr-defined]
    with _read_as(path, "a video"), _imageio().get_reader(path, format="FFMPEG") as reader:
        return int(reader.count_frames())


def is_movie(path: str | Path) -> bool:
    """Whether a file is read frame by frame: MP4, and GIF of several frames. A file that cannot be read is none.

    >>> is_movie("a.mp4"), is_movie("a.png"), is_movie("missing.gif")
    (True, False, False)
    """
    kind = Path(path).suffix.lower()
    if kind != ".gif":
        return kind in MOVIES
    try:
        return frame_count(path) > 1
    except InputError:
        return False


def read_frames(paths: Sequence[str | Path]) -> list[Image.Image]:
    """The frames of image files, or of one GIF or MP4 file.

    Raises:
        InputError: a file that cannot be read, or not from 2 to 1,000 frames of one size.

    >>> with TemporaryDirectory() as folder:
    ...     files = [Path(folder) / f"{k}.png" for k in range(3)]
    ...     for file in files:
    ...         Image.new("RGB", (8, 8)).save(file)
    ...     len(read_frames(files))
    3
    """
    found = [Path(path) for path in paths]
    of_one_file = len(found) == 1 and found[0].suffix.lower() in MOVIES
    frames: list[Image.Image] = []
    for frame in frames_of(found[0]) if of_one_file else map(open_image, found):
        frames.append(frame)
        if frame.size != frames[0].size or len(frames) > MOST_FRAMES:
            break
    sizes = sorted({f"{frame.width}x{frame.height}" for frame in frames})
    if len(sizes) != 1 or not 2 <= len(frames) <= MOST_FRAMES:
        got = f"got {len(frames)} frames of {' and '.join(sizes) or 'no'} pixels"
        raise InputError(
            f"{got}; expected from 2 to {MOST_FRAMES:,} frames of one size; name other files, or resize them"
        )
    return frames


def save_frames(
    frames: Sequence[Image.Image], path: str | Path, *, fps: float = 8.0, formula: Mapping[str, Any] | None = None
) -> None:
    """Writes frames as a GIF or MP4 file, by the end of its name, whole or not at all.

    Args:
        fps: frames per second.
        formula: what made the frames, which `read_formula` and `energycomp show` read; written to GIF files only.

    Raises:
        InputError: another end, no frames, MP4 without energycomp[mp4], or a formula that `formula_text` refuses.
        CheckpointError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in MOVIES or not frames or not 0 < fps <= 100:
        got = f"got {path} for {len(frames)} frames at {fps:g} a second"
        raise InputError(f"{got}; expected a name that ends in {' or '.join(MOVIES)}, frames, and up to 100 a second")
    even = [frame.convert("RGB").crop((0, 0, frame.width // 2 * 2, frame.height // 2 * 2)) for frame in frames]
    with atomic_file(path) as temporary:
        if path.suffix.lower() == ".gif":
            more: dict[str, Any] = {"append_images": even[1:], "duration": round(1000 / fps), "loop": 0}
            more |= gif_comment(formula)
            even[0].save(temporary, format="GIF", save_all=True, **more)
            return
        with TemporaryDirectory() as folder:  # ffmpeg goes by the end of a name
            made = Path(folder) / "film.mp4"
            _imageio().mimwrite(made, list(map(np.asarray, even)), format="FFMPEG", fps=fps, macro_block_size=2)
            temporary.write_bytes(made.read_bytes())


def _imageio() -> Any:
    try:
        import imageio.v2 as imageio
        import imageio_ffmpeg  # noqa: F401 - what reads and writes
    except ImportError as error:
        missing = "got an MP4 file without imageio-ffmpeg; expected it, or a GIF file"
        raise InputError(f"{missing}; pip install 'energycomp[mp4]'") from error
    return imageio
