"""Small data sets with labels, of images, rows of a table and points."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from energycomp.models import NumberProcessor


def digits(low: float, high: float) -> Callable[[], tuple[Tensor, Tensor]]:
    def data() -> tuple[Tensor, Tensor]:
        from sklearn.datasets import load_digits

        loaded = load_digits()
        order = torch.randperm(len(loaded.target), generator=torch.Generator().manual_seed(0))
        images = torch.as_tensor(loaded.images).float()[:, None] / 16
        return (low + (high - low) * images)[order], torch.as_tensor(loaded.target)[order]

    return data


def table(name: str) -> Callable[..., tuple[Tensor, Tensor]]:
    def data(*, raw: bool = False) -> tuple[Tensor, Tensor]:
        from sklearn import datasets

        loaded = getattr(datasets, f"load_{name}")()
        order = torch.randperm(len(loaded.target), generator=torch.Generator().manual_seed(0))
        rows = torch.as_tensor(loaded.data).float()
        rows = rows if raw else (rows - rows.mean(0)) / rows.std(0)
        return rows[order], torch.as_tensor(loaded.target)[order]

    return data


def blobs(low: float, high: float) -> Callable[[], tuple[Tensor, Tensor]]:
    """A bright spot in one of four quarters: its label."""

    def data() -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        label = torch.randint(4, (4000,), generator=generator)
        centre = 2 + 3.5 * torch.stack([label % 2, label // 2], 1) + torch.rand(4000, 2, generator=generator) - 0.5
        width = 0.8 + 0.8 * torch.rand(4000, generator=generator)
        axis = torch.arange(8.0)
        far = (axis[None] - centre[:, :1]).square()[:, None] + (axis[None] - centre[:, 1:]).square()[:, :, None]
        return low + (high - low) * (-far / (2 * width.square())[:, None, None]).exp()[:, None], label

    return data


def bars(low: float, high: float) -> Callable[[], tuple[Tensor, Tensor]]:
    """A coloured bar on a grey ground; its label is one of three colours and of two directions."""

    def data() -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(1)
        label = torch.randint(6, (4000,), generator=generator)
        centre, width, ground = torch.rand(3, 4000, 1, generator=generator)
        centre, width, ground = 1.5 + 4 * centre, 0.6 + width, 0.2 + 0.3 * ground[:, 0]
        shape = (-(torch.arange(8.0) - centre).square() / (2 * width.square())).exp()
        along = torch.where((label % 2 == 0)[:, None, None], shape[:, None], shape[:, :, None]).expand(-1, 8, 8)
        colour = 0.15 + 0.8 * torch.eye(3)[label // 2]
        image = ground[:, None, None, None] * (1 - along[:, None]) + colour[..., None, None] * along[:, None]
        return low + (high - low) * image, label

    return data


def patches() -> tuple[Tensor, Tensor]:
    """Patches of two photos, halved; the label is the photo."""
    from sklearn.datasets import load_sample_images

    generator, found = torch.Generator().manual_seed(2), []
    for photo in load_sample_images().images:
        image = functional.avg_pool2d(torch.tensor(photo).float().permute(2, 0, 1)[None] / 127.5 - 1, 4)[0]
        y, x = (torch.randint(size - 8, (2000,), generator=generator).tolist() for size in image.shape[1:])
        found.append(torch.stack([image[:, a : a + 8, b : b + 8] for a, b in zip(y, x, strict=True)]))
    order = torch.randperm(4000, generator=generator)
    return torch.cat(found)[order], (torch.arange(4000) // 2000)[order]


def points(*, raw: bool = False) -> tuple[Tensor, Tensor]:
    """Points in the plane around one of four centres: its label."""
    generator = torch.Generator().manual_seed(3)
    label = torch.randint(4, (4000,), generator=generator)
    centres = torch.tensor([[-0.6, -0.4], [0.7, -0.5], [-0.3, 0.8], [0.5, 0.5]])
    x = centres[label] + 0.2 * torch.randn(4000, 2, generator=generator)
    return x * torch.tensor([3.0, 100.0]) + 20 if raw else x, label


def skewed(*, raw: bool = False) -> tuple[Tensor, Tensor]:
    """Rows of 8 numbers with long tails, such as amounts, as normal scores; a label moves one of two common factors."""
    generator = torch.Generator().manual_seed(5)
    label = torch.randint(2, (4000,), generator=generator)
    factors = torch.randn(4000, 2, generator=generator) + 2 * torch.stack([label, 0 * label], 1)
    columns = factors @ torch.randn(2, 8, generator=generator) + 0.4 * torch.randn(4000, 8, generator=generator)
    rows = (columns / columns.std(0)).mul(1.3).exp()
    return rows if raw else NumberProcessor.fit(rows, quantiles=100).encode(rows), label


def repeated(*, raw: bool = False) -> tuple[Tensor, Tensor]:
    """Rows of 13 numbers, skewed, whole or of two values, as normal scores; most of 1,025 are exact duplicates."""
    generator = torch.Generator().manual_seed(4)
    label = torch.randint(2, (300,), generator=generator)
    common = torch.randn(300, 1, generator=generator) + 1.2 * label[:, None]
    columns = 0.6 * common + torch.randn(300, 13, generator=generator)
    columns[:, 5:9] = columns[:, 5:9].round()  # such as counts
    columns[:, 9:] = (columns[:, 9:] > 0.5).float()  # yes or no
    columns[:, :2] = (1.5 * columns[:, :2]).exp()  # such as amounts
    rows = columns * torch.tensor([20.0, 5.0, 100.0, *[1.0] * 10]) + torch.tensor([0.0, 0.0, 150.0, *[0.0] * 10])
    index = torch.cat([torch.arange(300), torch.randint(300, (725,), generator=generator)])
    index = index[torch.randperm(len(index), generator=generator)]
    rows = rows[index]
    return rows if raw else NumberProcessor.fit(rows, quantiles=100).encode(rows), label[index]
