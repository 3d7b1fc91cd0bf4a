"""Frames of GIF and MP4 files, written and read."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from energycomp.errors import InputError
from energycomp.images import frame_count, frames_of, read_frames, save_frames


def frames(count: int = 3, size: tuple[int, int] = (32, 24)) -> list[Image.Image]:
    return [Image.new("RGB", size, (80 * k, 40, 200)) for k in range(count)]


@pytest.mark.parametrize("name", ["film.gif", "film.mp4"])
def test_frames_are_written_and_read(tmp_path: Path, name: str) -> None:
    if name.endswith("mp4"):
        pytest.importorskip("imageio_ffmpeg")
    save_frames(frames(), tmp_path / name)
    found = read_frames([tmp_path / name])
    assert frame_count(tmp_path / name) == 3
    assert [frame.size for frame in found] == [(32, 24)] * 3
    levels = [float(np.asarray(frame)[..., 0].mean()) for frame in found]
    assert np.allclose(levels, [0, 80, 160], atol=12)


def test_mp4_without_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(InputError, match=r"pip install 'energycomp\[mp4\]'"):
        save_frames(frames(), tmp_path / "film.mp4")
    assert not list(tmp_path.iterdir())
    (tmp_path / "film.mp4").write_bytes(b"whatever is in it")
    for read in (frame_count, lambda path: list(frames_of(path))):
        with pytest.raises(InputError, match=r"pip install 'energycomp\[mp4\]'"):
            read(tmp_path / "film.mp4")


def test_files_that_are_no_frames(tmp_path: Path) -> None:
    for k, frame in enumerate([*frames(2), *frames(1, (16, 16))]):
        frame.save(tmp_path / f"{k}.png")
    with pytest.raises(InputError, match="16x16 and 32x24 pixels; expected from 2 to 1,000 frames of one size"):
        read_frames(sorted(tmp_path.iterdir()))
    with pytest.raises(InputError, match="got 1 frames"):
        read_frames([tmp_path / "0.png"])
    for broken in ("broken.gif", "broken.mp4"):
        (tmp_path / broken).write_bytes(b"no frames")
        with pytest.raises(InputError, match="cannot be"):
            read_frames([tmp_path / broken])
    with pytest.raises(InputError, match="is no file"):
        read_frames([tmp_path / "none.mp4"])
    with pytest.raises(InputError, match=r"ends in \.gif or \.mp4"):
        save_frames(frames(), tmp_path / "film.png")


def test_transparent_pixels_of_frames_are_white(tmp_path: Path) -> None:
    clear = [Image.new("RGBA", (8, 8), (0, 0, 0, 0)), Image.new("RGBA", (8, 8), (255, 0, 0, 255))]
    clear[0].save(tmp_path / "clear.gif", save_all=True, append_images=clear[1:], disposal=2)
    assert [frame.getpixel((4, 4)) for frame in frames_of(tmp_path / "clear.gif")] == [(255, 255, 255), (255, 0, 0)]
