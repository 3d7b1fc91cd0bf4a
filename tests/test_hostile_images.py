"""Image files of every kind: each is read as what it shows, or refused by an error of ours, in little memory."""

import io
import os
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from PIL import Image

from energycomp.errors import EnergycompError
from energycomp.images import ImageProcessor, open_image

sys.path.insert(0, str(Path(__file__).parent))
from mutations import damaged_bytes, examples

PROCESS = ImageProcessor(size=(16, 16))
PNG, SIDE = b"\x89PNG\r\n\x1a\n", (24, 20)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    image.save(buffer := io.BytesIO(), kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of depths and chunks that Pillow does not write, or of sizes that its data do not have."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b"")]
    return PNG + b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)


def sealed(data: bytes) -> bytes:
    """A PNG whose checksums fit its chunks, so that decoding goes beyond them."""
    place, parts = 8, [data[:8]]
    while place + 12 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        chunk = data[place + 4 : place + 8 + length]
        parts.append(data[place : place + 4] + chunk + struct.pack(">I", zlib.crc32(chunk)))
        place += 12 + length
    return b"".join(parts)


def sound() -> dict[str, tuple[bytes, np.ndarray, float]]:
    """Files, the pixels (H, W, 3) that they show, computed without Pillow's conversions, and a tolerance."""
    small = np.random.default_rng(0).integers(0, 256, (SIDE[1] // 4, SIDE[0] // 4, 4), dtype=np.uint8)
    pixels = np.kron(small, np.ones((4, 4, 1), dtype=np.uint8))
    colour, alpha, grey = pixels[..., :3].astype(float), pixels[..., 3:] / 255, pixels[..., 0].copy()
    mono, seen = np.repeat(grey[..., None], 3, 2).astype(float), alpha * colour + (1 - alpha) * 255  # on white
    deep, later = grey.astype(np.uint16) * 257, Image.fromarray(pixels[::-1, :, :3].copy())
    rgb, clear, flat = Image.fromarray(pixels[..., :3].copy()), Image.fromarray(pixels), Image.fromarray(grey)
    la, bits = Image.fromarray(pixels[..., [0, 3]].copy()), np.where(grey > 127, 255, 0).astype(np.uint8)
    ink = Image.merge("CMYK", [*(Image.fromarray(255 - pixels[..., c]) for c in range(3)), Image.new("L", SIDE)])
    palette = rgb.quantize(16)
    table = np.asarray(palette.getpalette(), dtype=float).reshape(-1, 3)[np.asarray(palette)]
    one = int(np.asarray(palette)[0, 0])
    holes = np.where((np.asarray(palette) == one)[..., None], 255.0, table)
    rows, grey_rows = (b"".join(b"\0" + row.astype(">u2").tobytes() for row in part)
                       for part in (pixels[..., :3].astype(np.uint16) * 257, deep))  # fmt: skip
    fine: dict[str, Any] = {"quality": 100, "subsampling": 0}
    frames: dict[str, Any] = {"save_all": True, "append_images": [later]}
    found = {
        "PNG RGB": (encoded(rgb, "PNG"), colour, 0.5),
        "PNG RGBA": (encoded(clear, "PNG"), seen, 1),
        "PNG grey": (encoded(flat, "PNG"), mono, 0.5),
        "PNG grey and alpha": (encoded(la, "PNG"), alpha * mono + (1 - alpha) * 255, 1),
        "PNG 1 bit": (encoded(Image.fromarray(bits).convert("1"), "PNG"), np.repeat(bits[..., None], 3, 2), 0.5),
        "PNG palette, one clear": (encoded(palette, "PNG", transparency=one), holes, 0.5),
        "PNG 16 bit": (encoded(Image.fromarray(deep), "PNG"), mono, 0.5),
        "PNG 16 bit RGB": (png(*SIDE, 16, 2, rows), colour, 0.5),
        "PNG 16 bit, one level clear": (png(*SIDE, 16, 0, grey_rows, (b"tRNS", struct.pack(">H", deep[0, 0]))),
                                        np.where((deep == deep[0, 0])[..., None], 255.0, mono), 0.5),
        "PNG animated": (encoded(rgb, "PNG", **frames), colour, 0.5),
        "PNG 1x1": (encoded(rgb.crop((0, 0, 1, 1)), "PNG"), colour[:1, :1], 0.5),
        "JPEG progressive": (encoded(rgb, "JPEG", progressive=True, **fine), colour, 12),
        "JPEG grey": (encoded(flat, "JPEG", quality=100), mono, 12),
        "JPEG CMYK": (encoded(ink, "JPEG", quality=100), colour, 20),
        "WebP RGBA": (encoded(clear, "WEBP", lossless=True, exact=True), seen, 1),
        "WebP animated": (encoded(rgb, "WEBP", lossless=True, duration=50, **frames), colour, 0.5),
        "GIF, one clear": (encoded(palette, "GIF", transparency=one), holes, 0.5),
        "GIF animated": (encoded(palette, "GIF", save_all=True, append_images=[later.quantize(16)]), table, 0.5),
        "BMP": (encoded(rgb, "BMP"), colour, 0.5),
        "PGM in text": (b"P2 24 20 255 " + b" ".join(b"%d" % v for v in grey.ravel()), mono, 0.5),
        "TIFF LZW": (encoded(clear, "TIFF", compression="tiff_lzw"), seen, 1),
        "TIFF JPEG": (encoded(rgb, "TIFF", compression="jpeg", quality=100), colour, 20),
        "TIFF CMYK": (encoded(ink, "TIFF", compression="tiff_adobe_deflate"), colour, 1),
        "TIFF 32 bit": (encoded(Image.fromarray(deep.astype(np.int32)), "TIFF"), mono, 0.5),
        "TIFF float": (encoded(Image.fromarray(grey / np.float32(255)), "TIFF"), mono, 0.5),
        "TIFF of pages": (encoded(rgb, "TIFF", **frames), colour, 0.5),
    }  # fmt: skip
    for turn in range(1, 9):  # EXIF orientations, from the table of the standard
        (exif := Image.Exif())[0x0112] = turn
        shown = colour.swapaxes(0, 1) if turn > 4 else colour
        shown = shown[:: -1 if turn in (3, 4, 7, 8) else 1, :: -1 if turn in (2, 3, 6, 7) else 1]
        found[f"PNG turned {turn}"] = (encoded(rgb, "PNG", exif=exif), shown, 0.5)
        found[f"JPEG turned {turn}"] = (encoded(rgb, "JPEG", exif=exif, **fine), shown, 12)
    return found


SOUND = sound()


def opened(file: Path | str) -> Image.Image | None:
    """A whole image and the same tensor in [-1, 1] both times, or an error of ours, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            tensor = PROCESS(file)
        except EnergycompError:
            with pytest.raises(EnergycompError):
                open_image(file)
            return None
        image = open_image(file)
    assert image.mode == "RGB"
    assert tensor.shape == (1, 3, 16, 16)
    assert float(tensor.abs().max()) <= 1  # finite as well
    assert torch.equal(tensor, PROCESS(image))
    return image


@pytest.mark.parametrize("name", SOUND)
def test_sound_images_are_read_as_they_show(name: str, tmp_path: Path) -> None:
    data, expected, off = SOUND[name]
    (tmp_path / "image").write_bytes(data)
    np.testing.assert_allclose(np.asarray(opened(tmp_path / "image"), dtype=float), expected, rtol=0, atol=off)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Damaged once or twice; half of the PNGs are sealed."""
    data = SOUND[draw(st.sampled_from(sorted(SOUND)))][0]
    for _ in range(draw(st.sampled_from([1, 1, 2]))):
        data = draw(damaged_bytes(data))
    return sealed(data) if data.startswith(PNG) and draw(st.booleans()) else data


@examples(150)
@given(damaged())
def test_damaged_images(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "damaged"
    file.write_bytes(data)
    opened(file)


def test_paths_without_an_image(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "script.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%ls) (w) file\n")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    with (tmp_path / "sparse.png").open("wb") as sparse:
        sparse.truncate(2**40)
    for name in ("text.png", "script.eps", "pipe.png", "loop.png", "sparse.png", "absent.png", "", "n" * 300):
        assert opened(tmp_path / name) is None
    for path in ("/dev/zero", "/dev/stdin", "/proc/self/mem", "a\0.png", "https://localhost/x.png", "x" * 10_000):
        assert opened(path) is None


GIF, BMP = SOUND["GIF, one clear"][0], SOUND["BMP"][0]


def large() -> dict[str, bytes]:
    text = zlib.compress(bytes(10**6), 9)
    return {
        "PNG that says 50000x50000": png(50_000, 50_000, 8, 2, bytes(1000)),
        "PNG that says 2147483647x2147483647": png(2**31 - 1, 2**31 - 1, 8, 2, bytes(1000)),
        "PNG of 9400x9400, under Pillow's own limit": png(9400, 9400, 1, 0, bytes(9400 * 1176)),
        "GIF that says 65535x65535": GIF[:6] + b"\xff" * 4 + GIF[10:],
        "BMP that says 2147483647 rows": BMP[:22] + struct.pack("<i", 2**31 - 1) + bytes(100),
        "PPM that says 10^9x10^9": b"P6 1000000000 1000000000 255\n" + bytes(100),
        "PNG with 63 MB of text": png(*SIDE, 8, 2, bytes(20 * 73), *[
            (b"zTXt", b"k%d\0\0" % n + text) for n in range(63)]),
    }  # fmt: skip


READ = """
import re, sys; from pathlib import Path; from energycomp.errors import EnergycompError
from energycomp.images import open_image
def resident(of): return int(re.search(of + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
open_image(sys.argv[1])  # what a first image imports
for file in sys.argv[2:]:
    Path("/proc/self/clear_refs").write_text("5"); before = resident("VmRSS")
    try: open_image(file); refused = False
    except EnergycompError: refused = True
    print(refused, resident("VmHWM") - before)
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak of memory is read from Linux")
def test_files_that_need_much_memory(tmp_path: Path) -> None:
    """What states a size that is not accepted takes none; the largest accepted image takes less than 256 MB."""
    refusals = large()
    files = [tmp_path / str(number) for number in range(len(refusals) + 2)]
    largest = encoded(Image.new("RGB", (4900, 5000)), "JPEG", progressive=True, subsampling=0)
    for file, data in zip(files, [SOUND["PNG RGB"][0], *refusals.values(), largest], strict=True):
        file.write_bytes(data)
    done = subprocess.run([sys.executable, "-c", READ, *files], check=True, capture_output=True, text=True)
    found = [line.split() for line in done.stdout.splitlines()]
    for name, (refused, megabytes) in zip(refusals, found[:-1], strict=True):
        assert float(megabytes) < 64, name
        assert refused == "True" or "text" in name, name
    assert found[-1][0] == "False"
    assert float(found[-1][1]) < 256
