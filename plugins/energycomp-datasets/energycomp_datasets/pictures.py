"""Image files in folders, and images in memory to train on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from energycomp.errors import InputError
from energycomp.files import atomic_file, read_tensors, write_tensors
from energycomp.images import FORMATS, ImageProcessor, from_bytes, save_image, to_bytes
from energycomp.progress import progress
from energycomp_lab.evaluation import Example

IMAGES = "images"
MASKS = "masks"


class Pictures(Dataset[Tensor]):
    """Images (N, 3, H, W) uint8, without labels."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]

    def median(self) -> Tensor:
        """The median of every pixel and channel, (3, H, W) in [-1, 1]."""
        return from_bytes(torch.stack([channel.median(0).values for channel in self.images.unbind(1)]))


def make_once(path: Path, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of a file, which is written with those that `make` gives where it is not there yet."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = make()
        with atomic_file(path) as temporary:
            write_tensors(temporary, tensors)
    return read_tensors(path)


def in_folder(folder: Path, processor: ImageProcessor) -> Pictures:
    """The images of a folder at the model's size, in memory."""
    images = [to_bytes(processor(path)[0]) for path in progress(image_files(folder), "reading")]
    return Pictures(torch.stack(images))


def image_files(folder: str | Path) -> list[Path]:
    """The image files of a folder, or of its subfolder `images/` if there is one, ordered by name."""
    path = Path(folder)
    if not path.is_dir():
        raise InputError(f"got {path}, which is not a folder; expected a folder of images; check the path")
    inside = path / IMAGES if (path / IMAGES).is_dir() else path
    found = sorted(file for file in inside.iterdir() if file.suffix.lower() in FORMATS and file.is_file())
    if not found:
        raise InputError(f"got {inside} without images; expected files such as 1.png; check the path")
    return found


def masks_of(path: Path) -> Tensor:
    """The masks (K, H, W) that `write_examples` wrote for an image file; (0, 1, 1) for an image without masks."""
    file = path.parent.parent / MASKS / f"{path.stem}.png"
    if path.parent.name != IMAGES or not file.is_file():
        return torch.zeros(0, 1, 1, dtype=torch.bool)
    try:
        with Image.open(file) as opened:
            numbers = torch.from_numpy(np.array(opened.convert("L")))
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"got {file}, which cannot be read ({error}); expected the masks of {path.name}") from error
    return numbers == torch.arange(1, int(numbers.max()) + 1)[:, None, None]


def write_examples(folder: Path, examples: Sequence[Example], progress: Callable[[int], None]) -> None:
    """Writes images (3, H, W) in [-1, 1] to `images/`, and each pixel's object, from 1, to `masks/`."""
    for index in range(len(examples)):
        made = examples[index]
        name = f"{index + 1:06d}.png"
        image = to_bytes(made.image).permute(1, 2, 0).numpy()
        masks = torch.zeros(0, *image.shape[:2]) if made.masks is None else made.masks
        order = torch.arange(1, len(masks) + 1)[:, None, None]
        numbers = (masks * order).amax(0).byte().numpy() if len(order) else np.zeros(image.shape[:2], np.uint8)
        save_image(Image.fromarray(image), folder / IMAGES / name)
        save_image(Image.fromarray(numbers), folder / MASKS / name)
        progress(index + 1)
