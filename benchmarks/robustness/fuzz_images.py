"""Image files that are valid, damaged, huge or no images, and the verdict: refused, or the right image."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.robustness.fuzz_mutations import PNG
from benchmarks.robustness.fuzz_watch import expect, outcome
from energycomp.images import ImageProcessor, open_image

SIDE = (24, 20)  # (width, height)
PROCESS = ImageProcessor(size=(16, 16))
ORIENTATION = 0x0112


def rgba(seed: int = 0, size: tuple[int, int] = SIDE) -> np.ndarray:
    """Blocks of colour and transparency, (H, W, 4) uint8."""
    small = np.random.default_rng(seed).integers(0, 256, (size[1] // 4, size[0] // 4, 4), dtype=np.uint8)
    return np.kron(small, np.ones((4, 4, 1), dtype=np.uint8))


def over_white(pixels: np.ndarray) -> np.ndarray:
    """An (H, W, 4) image on white: alpha c + (1 - alpha) 255, (H, W, 3) in float64."""
    colour, alpha = pixels[..., :3].astype(np.float64), pixels[..., 3:].astype(np.float64) / 255
    return alpha * colour + (1 - alpha) * 255


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The bytes of a file of that format."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG with depths and chunks that Pillow does not write, or sizes that the data does not have."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
    return PNG + body


@attrs.frozen
class Sound:
    """A file that must be read as `expected` (H, W, 3) in 0 to 255, within `off`."""

    data: bytes
    expected: np.ndarray
    off: float = 0.5


def sound_images() -> dict[str, Sound]:
    """Valid files of every kind, with the pixels that they show, computed without Pillow's conversions."""
    pixels = rgba()
    seen, colour, grey = over_white(pixels), pixels[..., :3].astype(np.float64), pixels[..., :1]
    rgb, clear = Image.fromarray(pixels[..., :3].copy()), Image.fromarray(pixels)
    mono, la = np.repeat(grey.astype(np.float64), 3, 2), Image.fromarray(pixels[..., [0, 3]].copy())
    la_seen = over_white(pixels[..., [0, 0, 0, 3]])
    binary = np.where(pixels[..., 3] > 127, 255, 0).astype(np.uint8)
    deep = grey[..., 0].astype(np.uint16) * 257
    palette, cmyk = rgb.quantize(16), Image.merge("CMYK", [Image.fromarray(255 - pixels[..., c]) for c in range(3)] + [
        Image.new("L", SIDE, 0)])  # fmt: skip
    table = np.asarray(palette.getpalette(), dtype=np.float64).reshape(-1, 3)[np.asarray(palette)]
    one = int(np.asarray(palette)[0, 0])
    holes = np.where((np.asarray(palette) == one)[..., None], 255.0, table)
    later = Image.fromarray(rgba(1)[..., :3].copy())
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels[..., :3].astype(np.uint16) * 257)
    grey_rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    level = int(deep[0, 0])
    turned = {n: turn(colour, n) for n in range(1, 9)}
    found = {
        "PNG RGB": Sound(encoded(rgb, "PNG"), colour),
        "PNG RGBA": Sound(encoded(clear, "PNG"), seen, 1.0),
        "PNG grey": Sound(encoded(Image.fromarray(grey[..., 0]), "PNG"), mono),
        "PNG grey and alpha": Sound(encoded(la, "PNG"), la_seen, 1.0),
        "PNG 1 bit": Sound(encoded(Image.fromarray(binary).convert("1"), "PNG"), np.repeat(binary[..., None], 3, 2)),
        "PNG palette": Sound(encoded(palette, "PNG"), table),
        "PNG palette, one clear": Sound(encoded(palette, "PNG", transparency=one), holes),
        "PNG palette, alpha table": Sound(encoded(palette, "PNG", transparency=bytes(
            [0 if k == one else 255 for k in range(16)])), holes),
        "PNG 16 bit": Sound(encoded(Image.fromarray(deep), "PNG"), mono),
        "PNG 16 bit RGB": Sound(png(*SIDE, 16, 2, rows), colour),
        "PNG 16 bit, one level clear": Sound(
            png(*SIDE, 16, 0, grey_rows, (b"tRNS", struct.pack(">H", level))),
            np.where((deep == level)[..., None], 255.0, mono)),
        "PNG one colour clear": Sound(encoded(rgb, "PNG", transparency=tuple(map(int, pixels[0, 0, :3]))), np.where(
            (colour == colour[0, 0]).all(-1, keepdims=True), 255.0, colour)),
        "PNG animated": Sound(encoded(rgb, "PNG", save_all=True, append_images=[later]), colour),
        "PNG 1x1": Sound(encoded(rgb.crop((0, 0, 1, 1)), "PNG"), colour[:1, :1]),
        "JPEG": Sound(encoded(rgb, "JPEG", quality=100, subsampling=0), colour, 12.0),
        "JPEG progressive": Sound(encoded(rgb, "JPEG", quality=100, subsampling=0, progressive=True), colour, 12.0),
        "JPEG grey": Sound(encoded(Image.fromarray(grey[..., 0]), "JPEG", quality=100), mono, 12.0),
        "JPEG CMYK": Sound(encoded(cmyk, "JPEG", quality=100), colour, 20.0),
        "WebP": Sound(encoded(rgb, "WEBP", lossless=True), colour),
        "WebP RGBA": Sound(encoded(clear, "WEBP", lossless=True, exact=True), seen, 1.0),
        "WebP lossy": Sound(encoded(Image.fromarray(grey[..., 0]), "WEBP", quality=100), mono, 12.0),
        "WebP animated": Sound(
            encoded(rgb, "WEBP", save_all=True, append_images=[later], lossless=True, duration=50), colour),
        "GIF": Sound(encoded(palette, "GIF"), table),
        "GIF, one clear": Sound(encoded(palette, "GIF", transparency=one), holes),
        "GIF animated": Sound(encoded(palette, "GIF", save_all=True, append_images=[later.quantize(16)]), table),
        "BMP": Sound(encoded(rgb, "BMP"), colour),
        "BMP palette": Sound(encoded(palette, "BMP"), table),
        "PPM": Sound(encoded(rgb, "PPM"), colour),
        "PGM in text": Sound(b"P2 24 20 255 " + b" ".join(b"%d" % v for v in grey.ravel()), mono),
        "TIFF": Sound(encoded(rgb, "TIFF"), colour),
        "TIFF LZW": Sound(encoded(clear, "TIFF", compression="tiff_lzw"), seen, 1.0),
        "TIFF JPEG": Sound(encoded(rgb, "TIFF", compression="jpeg", quality=100), colour, 20.0),
        "TIFF CMYK": Sound(encoded(cmyk, "TIFF", compression="tiff_adobe_deflate"), colour, 1.0),
        "TIFF 16 bit": Sound(encoded(Image.fromarray(deep), "TIFF"), mono),
        "TIFF 32 bit": Sound(encoded(Image.fromarray(deep.astype(np.int32)), "TIFF"), mono),
        "TIFF float": Sound(encoded(Image.fromarray(grey[..., 0] / np.float32(255)), "TIFF"), mono),
        "TIFF of pages": Sound(encoded(rgb, "TIFF", save_all=True, append_images=[later]), colour),
    }  # fmt: skip
    for number, pixels_turned in turned.items():
        exif = Image.Exif()
        exif[ORIENTATION] = number
        for kind, off, options in (
            ("PNG", 0.5, {}),
            ("WEBP", 0.5, {"lossless": True}),
            ("TIFF", 0.5, {}),
            ("JPEG", 12.0, {"quality": 100, "subsampling": 0}),
        ):
            found[f"{kind} turned {number}"] = Sound(encoded(rgb, kind, exif=exif, **options), pixels_turned, off)
    return found


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """What a viewer shows of stored pixels under EXIF orientations 1 to 8, from the standard's table."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    rows = orientation in (3, 4, 7, 8)
    columns = orientation in (2, 3, 6, 7)
    return pixels[:: -1 if rows else 1, :: -1 if columns else 1]


def judge_right(sound: Sound, folder: Path) -> str:
    """The verdict on a valid file: "right", or it is wrong."""
    file = folder / "image"
    file.write_bytes(sound.data)
    image, error = outcome(lambda: open_image(file))
    expect(error is None, f"{error}")
    got = np.asarray(image, dtype=np.float64)
    expect(got.shape == sound.expected.shape, f"shape {got.shape}, expected {sound.expected.shape}")
    off = float(np.abs(got - sound.expected).max())
    expect(off <= sound.off, f"off by {off}")
    with Image.open(file) as lazily:
        expect(torch.equal(PROCESS(lazily), PROCESS(image)), "another tensor from an open image than from its file")
    return "right"


def judge(data: bytes, folder: Path) -> str:
    """The verdict on bytes: "refused", or "an image", which is complete, repeatable, and a tensor in [-1, 1]."""
    file = folder / "image"
    file.write_bytes(data)
    image, error = outcome(lambda: open_image(file))
    tensor, _ = outcome(lambda: PROCESS(file))
    expect((tensor is None) == (image is None), f"{error} once, a tensor the other time")
    if image is None:
        return "refused"
    expect(image.mode == "RGB" and min(image.size) >= 1, f"an image {image.mode} {image.size}")
    expect(_legal(tensor) and torch.equal(tensor, PROCESS(image)), "another tensor from the same bytes")
    return "an image"


def judge_bomb(file: Path) -> str:
    """The verdict on a file that may need memory, which is measured: "refused", or "an image"."""
    tensor, _ = outcome(lambda: PROCESS(file))
    expect(tensor is None or _legal(tensor), "no tensor in [-1, 1]")
    return "refused" if tensor is None else "an image"


def judge_path(action: Callable[[], Any]) -> str:
    """The verdict on a path without an image: "refused", or it is wrong."""
    _, error = outcome(action)
    expect(error is not None, "opened")
    return "refused"


def _legal(tensor: Tensor) -> bool:
    return tensor.shape == (1, 3, 16, 16) and bool(torch.isfinite(tensor).all()) and float(tensor.abs().max()) <= 1


def bombs() -> dict[str, bytes]:
    """Files that state or need far more memory than their size."""
    huge = Image.new("1", (20_000, 20_000))
    text = [(b"zTXt", b"k%d\0\0" % n + zlib.compress(bytes(10**6), 9)) for n in range(63)]
    segment = b"\xff\xe1" + struct.pack(">H", 65_535) + b"Exif\0\0" + bytes(65_527)
    tags = b"".join(struct.pack("<HHII", 40_000 + n, 7, 100_000, 8) for n in range(5000))
    tiff = b"II*\0" + struct.pack("<I", 100_008) + bytes(100_000) + struct.pack("<H", 5000) + tags + bytes(4)
    exif = [b"\xff\xe1" + struct.pack(">H", len(part) + 8) + b"Exif\0\0" + part
            for part in (tiff[k : k + 60_000] for k in range(0, len(tiff), 60_000))]  # fmt: skip
    small = Image.fromarray(rgba()[..., :3].copy())
    jpeg, gif = encoded(small, "JPEG"), encoded(small, "GIF")
    comment, palette = (b"\xff" + bytes(255)) * 370_000 + b"\0", 13 + 3 * 2 ** ((gif[10] & 7) + 1)
    webp = encoded(Image.new("RGB", (16_000, 765)), "WEBP", quality=1)
    return {
        **stated(),
        "PNG of 20000x20000": encoded(huge, "PNG"),
        "TIFF of 20000x20000": encoded(huge, "TIFF", compression="group4"),
        "PNG with 63 MB of text": png(24, 20, 8, 2, bytes(20 * 73), *text),
        "PNG with a chunk of 95 MB": png(24, 20, 8, 2, bytes(20 * 73), (b"prIv", bytes(95_000_000))),
        "JPEG with 95 MB of EXIF": jpeg[:2] + segment * 1450 + jpeg[20:],
        "GIF with 95 MB of comment": gif[:palette] + b"!\xfe" + comment + gif[palette:],
        "PNG in a million parts": png(24, 20, 8, 2, bytes(20 * 73), *[(b"prIv", b"")] * 10**6),
        "PNG of 24 megapixels": encoded(Image.new("RGBA", (4900, 5000), (9, 9, 9, 9)), "PNG"),
        "PNG of 24 megapixels, 16 bit": encoded(Image.fromarray(np.zeros((4900, 5000), dtype=np.uint16)), "PNG"),
        "JPEG of 24 megapixels, progressive": encoded(
            Image.new("RGB", (4900, 5000)), "JPEG", progressive=True, subsampling=0
        ),
        "JPEG of 12 megapixels, CMYK, progressive": encoded(
            Image.new("CMYK", (4900, 2500)), "JPEG", progressive=True, subsampling=0
        ),
        "GIF of 24 megapixels, animated": encoded(
            Image.new("P", (4900, 5000)), "GIF", save_all=True, append_images=[Image.new("P", (4900, 5000), 1)]
        ),
        "WebP of 12 megapixels": webp,
        "WebP of 12 megapixels, animated, clear": encoded(
            Image.new("RGBA", (12_240, 1000)), "WEBP", save_all=True, lossless=True,
            append_images=[Image.new("RGBA", (12_240, 1000), (255, 0, 0, 9))],
        ),
        "TIFF float of 24 megapixels": encoded(
            Image.fromarray(np.zeros((4900, 5000), dtype=np.float32)), "TIFF", compression="tiff_lzw"
        ),
        "TIFF of 5000 tags that share their data": tiff,
        "JPEG with such tags": jpeg[:2] + b"".join(exif) + jpeg[20:],
        "a line of 24 million pixels": png(24_000_000, 1, 8, 4, bytes(1 + 48_000_000)),
    }  # fmt: skip


def stated() -> dict[str, bytes]:
    """Small files with large stated sizes; one of them is as large as stated."""
    small, flat = Image.fromarray(rgba()[..., :3].copy()), bytes(1000)
    gif, bmp = encoded(small, "GIF"), encoded(small, "BMP")
    return {
        "PNG that says 50000x50000": png(50_000, 50_000, 8, 2, flat),
        "PNG that says 2147483647x2147483647": png(2**31 - 1, 2**31 - 1, 8, 2, flat),
        "PNG of 9400x9400, under Pillow's own limit": png(9400, 9400, 1, 0, bytes(9400 * 1176)),
        "GIF that says 65535x65535": gif[:6] + b"\xff" * 4 + gif[10:],
        "BMP that says 2147483647 rows": bmp[:22] + struct.pack("<i", 2**31 - 1) + bytes(100),
        "PPM that says 10^9x10^9": b"P6 1000000000 1000000000 255\n" + bytes(100),
    }


def odd_paths(folder: Path) -> dict[str, Callable[[], Any]]:
    """Actions on paths without an image, which must neither hang nor read it."""
    (folder / "text.png").write_text("no image")
    (folder / "empty.png").touch()
    (folder / "script.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%ls) (w) file\n")
    os.mkfifo(folder / "pipe.png")
    (folder / "loop.png").symlink_to("loop.png")
    with (folder / "sparse.png").open("wb") as sparse:
        sparse.truncate(2**40)
    names = ("text.png", "empty.png", "script.eps", "pipe.png", "loop.png", "sparse.png", "absent.png", "", "n" * 300)
    others = ("/dev/zero", "/dev/stdin", "/proc/self/mem", "image\0.png", "https://localhost/x.png", "x" * 10_000)
    found = {name[:20]: (lambda path=folder / name: open_image(path)) for name in names}
    found |= {name[:20]: (lambda path=name: open_image(path)) for name in others}
    return found | {f"{name} processed": (lambda path=name: PROCESS(path)) for name in ("/dev/zero", "x\0y")}


def write_bombs(folder: str) -> None:
    """Writes each of `bombs` as a file NAME.bomb."""
    for title, content in bombs().items():
        (Path(folder) / f"{title}.bomb").write_bytes(content)
