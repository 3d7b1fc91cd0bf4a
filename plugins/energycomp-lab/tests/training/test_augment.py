"""Where `augment` moves images to."""

import torch

from energycomp_lab.training import augment


def centres(images: torch.Tensor) -> torch.Tensor:
    """The mean position (B, 2) of what is bright, as shares of the image."""
    weight = (images[:, 0] + 1).clamp(min=0)
    axis = (torch.arange(images.shape[-1]) + 0.5) / images.shape[-1]
    total = weight.sum((1, 2))
    return torch.stack([(weight.sum(1) * axis).sum(1), (weight.sum(2) * axis).sum(1)], 1) / total[:, None]


def test_jitter_moves_and_scales_within_its_share() -> None:
    images = torch.zeros(400, 3, 64, 64, dtype=torch.uint8)
    images[:, :, 28:36, 28:36] = 255
    shown, _ = augment(images, 0, exposure=0, tint=0, jitter=0.1)
    moved = (centres(shown) - 0.5).abs()
    assert 0.08 < float(moved.max()) < 0.12
    area = (shown[:, 0] > 0).sum((1, 2)).float() / 64
    assert 0.6 < float(area.min()) < 0.9
    assert 1.1 < float(area.max()) < 1.5


def test_jitter_repeats_the_edge() -> None:
    images = torch.full((50, 3, 32, 32), 255, dtype=torch.uint8)
    shown, _ = augment(images, 0, exposure=0, tint=0, jitter=0.2)
    assert float(shown.min()) > 0.999


def test_no_jitter_leaves_images_where_they_are() -> None:
    images = torch.randint(256, (8, 3, 16, 16), dtype=torch.uint8)
    shown, flipped = augment(images, 0, exposure=0, tint=0)
    upright = torch.where(flipped[:, None, None, None], shown.flip(3), shown)
    torch.testing.assert_close(upright, images / 127.5 - 1, rtol=0, atol=1e-5)
