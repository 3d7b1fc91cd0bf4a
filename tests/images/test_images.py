"""Pictures of every kind, good and bad: one tensor, or one error of ours."""

import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from energycomp.errors import InputError
from energycomp.images import ImageProcessor, as_picture, from_bytes, open_image, to_bytes, to_output
from energycomp_lab.checks import check_processor

PROCESS = ImageProcessor(size=(8, 8))


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 3)])
@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_odd_sizes(size: tuple[int, int], resize: Any) -> None:
    out = ImageProcessor(size=(8, 8), resize=resize)(Image.new("RGB", size, "white"))
    assert out.shape == (1, 3, 8, 8)
    assert out.min() == 1
    tensor = torch.full((3, size[1], size[0]), 0.5)
    torch.testing.assert_close(ImageProcessor(size=(8, 4), resize=resize)(tensor), torch.full((1, 3, 8, 4), 0.5))


def test_squash_keeps_all_and_crop_keeps_the_middle() -> None:
    array = np.zeros((8, 16, 3), dtype=np.uint8)
    array[:, 4:12] = 255
    squashed, cropped = (ImageProcessor(size=(8, 8), resize=kind)(array) for kind in ("squash", "crop"))
    assert cropped.min() == 1
    assert squashed[0, 0, 0].tolist() == pytest.approx([-1, -1, 1, 1, 1, 1, -1, -1])
    crop = ImageProcessor(size=(8, 8), resize="crop")
    torch.testing.assert_close(crop(torch.from_numpy(array / 127.5 - 1).permute(2, 0, 1).float()), cropped)


def test_shrinking_averages() -> None:
    array = np.random.default_rng(0).integers(0, 256, (32, 16, 3), dtype=np.uint8)
    expected = array.reshape(8, 4, 8, 2, 3).mean((1, 3)) / 127.5 - 1
    np.testing.assert_allclose(PROCESS(array)[0].permute(1, 2, 0).numpy(), expected, atol=1.01 / 127.5)


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    """Damaged ones are in test_hostile_images.py; here are those of a size that is refused before it is decoded."""
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    content, chunk = (tmp_path / "plain.png").read_bytes(), b"prIv" + bytes(40_000_000)
    part = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "header.png").write_bytes(content[:33] + part + content[33:])
    for name, said in (
        ("absent.png", r"expected an? (whole )?image"),
        ("huge.png", "of 400 megapixels; expected at most 24.5; scale"),
        ("header.png", "header over 32,000,000 bytes"),
    ):
        with pytest.raises(InputError, match=said):
            open_image(tmp_path / name)


@pytest.mark.parametrize(
    "given",
    [
        torch.full((3, 8, 8), float("nan")), torch.full((3, 8, 8), float("inf")), torch.full((3, 8, 8), 200.0),
        torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(1, 8, 8), torch.zeros(3, 0, 8), torch.zeros(8, 8),
        np.zeros((8, 8, 3)), np.zeros((3, 8, 8), dtype=np.uint8), np.zeros((0, 8, 3), dtype=np.uint8),
        np.zeros((2, 8, 8, 3), dtype=np.uint8), Image.fromarray(np.full((4, 4), np.nan, dtype=np.float32)),
        [], None, 3, b"bytes",
    ],
)  # fmt: skip
def test_what_is_no_picture(given: Any) -> None:
    with pytest.raises(InputError, match="expected"):
        PROCESS(given)


def test_several_pictures() -> None:
    tensor = torch.rand(2, 3, 8, 8)
    out = PROCESS([Image.new("RGB", (9, 9)), tensor, np.zeros((4, 4, 3), dtype=np.uint8)])
    assert out.shape == (4, 3, 8, 8)
    assert torch.equal(out[1:3], tensor)
    assert PROCESS(tensor.double()).dtype == torch.float32


def test_to_output_and_back() -> None:
    images = PROCESS(np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    assert torch.allclose(PROCESS(to_output(images, "pil")), images)
    assert to_output(images * 3, "np").max() <= 1
    with pytest.raises(InputError, match="output_type"):
        to_output(images, "jpg")


def test_grey_images() -> None:
    grey = ImageProcessor(size=(8, 8), channels=1)
    levels = np.random.default_rng(1).integers(0, 256, (8, 8), dtype=np.uint8)
    expected = torch.from_numpy(levels).float() / 127.5 - 1
    for given in (levels, Image.fromarray(levels), Image.fromarray(levels).convert("RGB"), expected[None]):
        torch.testing.assert_close(grey(given)[0, 0], expected)
    assert grey([np.zeros((4, 4, 3), dtype=np.uint8), torch.zeros(1, 16, 16)]).shape == (2, 1, 8, 8)
    assert as_picture(expected[None]).getpixel((2, 3)) == (levels[3, 2],) * 3
    pictures = to_output(grey(levels), "pil")
    assert pictures[0].mode == "L"
    assert torch.equal(grey(pictures), grey(levels))
    for wrong in (torch.zeros(3, 8, 8), torch.full((1, 8, 8), 2.0)):
        with pytest.raises(InputError):
            grey(wrong)


def test_data_that_are_no_images() -> None:
    points = ImageProcessor(size=(1, 2), channels=1, bounded=False)
    given = torch.tensor([[3.0, -40.0]])[None]
    assert torch.equal(points(given), given[None])
    assert points([given, given]).shape == (2, 1, 1, 2)
    many = ImageProcessor(size=(4, 4), channels=5)
    assert many(torch.zeros(2, 5, 8, 8)).shape == (2, 5, 4, 4)
    for wrong in (torch.zeros(1, 2, 2), torch.full((1, 1, 2), math.nan), torch.zeros(2, 1, 2)):
        with pytest.raises(InputError, match="got a tensor"):
            points(wrong)
    for processor in (points, many):
        with pytest.raises(InputError, match="got Image; expected float tensors"):
            processor(Image.new("RGB", (8, 8)))


@pytest.mark.parametrize("processor", [PROCESS, ImageProcessor((8, 4), "crop"), ImageProcessor((4, 4), channels=5)])
def test_processors_conform_and_refuse_options_that_cannot_be(processor: ImageProcessor) -> None:
    check_processor(processor, factory=ImageProcessor)
    for size in ((0, 8), (8,), (8, 8, 3), (-1, 8)):
        with pytest.raises(InputError, match="height, width"):
            ImageProcessor(size=size)
    for channels in (0, 1.0, "3"):
        with pytest.raises(InputError, match="got channels"):
            ImageProcessor(size=(8, 8), channels=channels)


def test_bytes_and_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    images = from_bytes(levels)
    assert images.dtype == torch.float32
    torch.testing.assert_close(images, levels.float() / 127.5 - 1.0, rtol=0, atol=0)
    assert torch.equal(to_bytes(images), levels)
    drawn = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(to_bytes(drawn), ((drawn + 1) * 127.5).round().byte())
    assert to_bytes(torch.tensor([-1.1, 1.1])).tolist() == [0, 255]
