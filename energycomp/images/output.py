"""Images out: (B, C, H, W) in [-1, 1] as users want them; and other ranges of numbers, both ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from energycomp.errors import InputError

GREY, RGB = 1, 3  # channels
TOLERANCE = 1e-3  # of the ends of a range, for rounding


def is_picture(shape: Sequence[int]) -> bool:
    """Whether samples of a shape are drawn as images: (1 or 3, H, W).

    >>> is_picture((3, 64, 64)), is_picture((1, 8))
    (True, False)
    """
    return len(shape) == 3 and shape[0] in (GREY, RGB)


def to_output(images: Tensor, output_type: str, value_range: tuple[float, float] | None = (-1.0, 1.0)) -> Any:
    """Images, or other data, (B, ...) as users want them.

    Args:
        images: numbers in the value range; others are clipped.
        output_type: "pt" (a tensor (B, C, H, W)) or "np" ((B, H, W, C)), both (B, ...) for data of other axes, with the
            value range mapped to [0, 1]; or "pil" (a list of grey or RGB images).
        value_range: (-r, r); None for data without bounds, which "pt" and "np" give as they are.

    Raises:
        InputError: another type, or "pil" for data without bounds or of other than 1 or 3 channels.

    >>> to_output(torch.zeros(1, 1, 4, 6), "pil")[0].mode, to_output(torch.zeros(1, 5, 4, 6), "np").shape
    ('L', (1, 4, 6, 5))
    """
    if output_type not in ("pt", "np", "pil"):
        raise InputError(f"got output_type {output_type!r}; expected 'pil', 'pt', 'np' or 'latent'")
    channels = images.shape[1]
    if output_type == "pil" and (value_range is None or not is_picture(images.shape[1:])):
        what = "without a value range" if value_range is None else f"of {channels} channels"
        raise InputError(
            f"got output_type 'pil' for samples {what}; expected samples of 1 or 3 channels in a value range; use "
            "output_type 'np' or 'pt'"
        )
    numbers = images
    if value_range is not None:
        low, high = value_range
        numbers = numbers.clamp(low, high).sub(low).div(high - low)
    if output_type == "pt":
        return numbers
    numbers = numbers.detach().float()
    array = (numbers.permute(0, 2, 3, 1) if numbers.ndim == 4 else numbers).cpu().numpy()
    if output_type == "np":
        return array
    levels = (array * 255).round().astype(np.uint8)
    return [Image.fromarray(level[..., 0] if channels == GREY else level) for level in levels]


def to_unit(images: Tensor) -> Tensor:
    """Images in [-1, 1], as networks take them, in [0, 1], as `infer` takes them.

    >>> to_unit(torch.tensor([-1.0, 0.0, 1.0]))
    tensor([0.0000, 0.5000, 1.0000])
    """
    return (images + 1) / 2


def from_unit(images: Any) -> Any:
    """Images as a user gives them, as `ImageProcessor` takes them: float tensors in [0, 1] are mapped to [-1, 1].

    All else stays as it is: paths, Pillow images, uint8 arrays, and tensors of another kind, which the processor
    refuses.

    Raises:
        InputError: numbers outside of [0, 1].

    >>> from_unit([torch.tensor([0.0, 1.0]), "image.png"])
    [tensor([-1.,  1.]), 'image.png']
    """
    if isinstance(images, Sequence) and not isinstance(images, str | bytes):
        return [from_unit(image) for image in images]
    if not isinstance(images, Tensor) or not images.is_floating_point() or not images.numel():
        return images
    low, high = float(images.min()), float(images.max())
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
        raise InputError(
            f"got a tensor between {low:g} and {high:g}; expected an image in [0, 1], as output_type='pt' gives it; "
            "map [-1, 1] to it by x / 2 + 0.5"
        )
    return images.clamp(0, 1) * 2 - 1


def to_bytes(images: Tensor) -> Tensor:
    """Images in [-1, 1] as uint8, rounded; `from_bytes` gives them back to within half a level.

    >>> to_bytes(torch.tensor([-1.0, 0.0, 1.0]))
    tensor([  0, 128, 255], dtype=torch.uint8)
    """
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def from_bytes(bytes: Tensor) -> Tensor:  # noqa: A002 - what it holds
    """Images of uint8 as float32 in [-1, 1]."""
    return bytes.float() / 127.5 - 1


def decoded(
    samples: Tensor,
    output_type: str,
    *,
    decode: Callable[[Tensor], Tensor] | None,
    value_range: tuple[float, float] | None,
) -> Any:
    """Samples (B, ...) of a noised space as users want them, see `to_output`; "latent" gives them as they are.

    Args:
        decode: of the codec, latents to images in [-1, 1], or to numbers; None where samples are the data.
        value_range: of samples that are images.
    """
    if output_type == "latent":
        return samples
    if decode is None:
        return to_output(samples, output_type, value_range)
    data = decode(samples)
    return to_output(data, output_type, (-1.0, 1.0) if is_picture(data.shape[1:]) else None)
