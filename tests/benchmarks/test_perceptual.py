"""Distances of pictures against closed forms, scipy's square root of a matrix, and sums written out."""

from itertools import product

import numpy as np
import pytest
import torch
import torchmetrics.image.fid
import torchmetrics.image.kid
from scipy.linalg import sqrtm
from torch import Tensor, nn

from benchmarks.common.perceptual import (
    FrechetDistance,
    KernelDistance,
    PerceptualDistance,
    perceptual_distance,
)
from benchmarks.decomposition.features import ShapeFeatures
from energycomp.errors import InputError, NonFiniteError
from energycomp.seeds import seeded

pytestmark = pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`:UserWarning")


class Pixels(nn.Module):
    """Features are pixels (B, 3 H W); layers are the picture and its sums of two by two pixels."""

    def __init__(self, size: int = 2) -> None:
        super().__init__()
        self.num_features = 3 * size**2

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)

    def layers(self, images: Tensor) -> list[Tensor]:
        return [images, nn.functional.avg_pool2d(images, 2) * 4]


def pictures(count: int, seed: int, *, size: int = 2) -> Tensor:
    return torch.rand(count, 3, size, size, generator=seeded(seed)) * 0.8 - 0.4


def network() -> Pixels:
    return Pixels().eval()


@pytest.fixture(autouse=True)
def _no_torch_fidelity(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (torchmetrics.image.fid, torchmetrics.image.kid):
        monkeypatch.setattr(module, "_TORCH_FIDELITY_AVAILABLE", False)


def test_frechet_distance_against_scipy() -> None:
    a, b, distance = pictures(40, 0), pictures(30, 1) ** 2, FrechetDistance(network())
    for part in a.split(7):
        distance.update(part, real=True)
    distance.update(b, real=False)
    x, y = (images.flatten(1).double().numpy() for images in (a, b))
    s, t = np.cov(x.T), np.cov(y.T)
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s + t - 2 * sqrtm(s @ t).real)
    assert distance.compute().item() == pytest.approx(expected, rel=1e-9)
    assert distance.compute().dtype == torch.float64


def test_kernel_distance_against_all_pairs() -> None:
    a, b, distance = pictures(5, 0), pictures(5, 1), KernelDistance(network(), subsets=3, subset_size=5)
    distance.update(a[:2], real=True)
    distance.update(a[2:], real=True)
    distance.update(b, real=False)
    x, y = (images.flatten(1).double().numpy() for images in (a, b))

    def mean(p: np.ndarray, q: np.ndarray, *, same: bool) -> float:
        pairs = [(i, j) for i, j in product(range(5), range(5)) if not same or i != j]
        return float(np.mean([(p[i] @ q[j] / 12 + 1) ** 3 for i, j in pairs]))

    expected = mean(x, x, same=True) + mean(y, y, same=True) - 2 * mean(x, y, same=False)
    found, std = distance.compute()
    assert found.item() == pytest.approx(expected, rel=1e-9)
    assert std.item() == pytest.approx(0, abs=1e-12)  # every subset is the whole set


def test_subsets_follow_from_the_seed_alone() -> None:
    values = []
    for seed in (0, 0, 1):
        distance = KernelDistance(network(), subsets=2, subset_size=6, seed=seed)
        distance.update(pictures(20, 0), real=True)
        distance.update(pictures(20, 1), real=False)
        before = torch.get_rng_state()
        values.append(distance.compute()[0].item())
        assert torch.equal(torch.get_rng_state(), before)
        torch.rand(3)
    assert values[0] == values[1] != values[2]


def test_perceptual_distance_is_that_of_angles() -> None:
    """|a / |a| - b / |b||^2 = 2 - 2 cos(a, b), at every place of every layer."""
    a, b = pictures(3, 0, size=4), pictures(3, 1, size=4)
    expected = []
    for x, y in zip(a.numpy(), b.numpy(), strict=True):
        sums = [z.reshape(3, 2, 2, 2, 2).sum((2, 4)) for z in (x, y)]
        layers = []
        for p, q in ((x, y), sums):
            cosine = (p * q).sum(0) / np.linalg.norm(p, axis=0) / np.linalg.norm(q, axis=0)
            layers.append((2 - 2 * cosine).mean())
        expected.append(np.mean(layers))
    found = perceptual_distance(network(), a, b)
    assert found.tolist() == pytest.approx(expected, rel=1e-4)
    metric = PerceptualDistance(network())
    metric.update(a[:1], b[:1])
    metric.update(a[1:], b[1:])
    assert metric.compute().item() == pytest.approx(np.mean(expected), rel=1e-4)


def test_equal_pictures_are_at_distance_0_and_gradients_reach_pictures_through_the_function_only() -> None:
    assert perceptual_distance(network(), pictures(2, 0), pictures(2, 0)).tolist() == [0, 0]
    assert perceptual_distance(network(), torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)).tolist() == [0]
    a, b = pictures(1, 0).requires_grad_(), pictures(1, 1)
    perceptual_distance(network(), a, b).sum().backward()
    assert a.grad is not None
    metric = PerceptualDistance(network())
    metric.update(a, b)
    assert not metric.compute().requires_grad


def test_foreign_pictures_are_refused() -> None:
    metric = FrechetDistance(network())
    for images, message in (
        (torch.zeros(2, 3, 2, 2, dtype=torch.uint8), "of torch.uint8; expected floats"),
        (torch.zeros(3, 2, 2), "expected floats"),
        (torch.full((1, 3, 2, 2), 255.0), "from 255 to 255; expected"),
        (torch.full((1, 3, 2, 2), torch.nan), "expected"),
        (torch.zeros(2, 3, 4, 4), r"got features \(2, 48\); expected \(2, 12\)"),
    ):
        with pytest.raises(InputError, match=message):
            metric.update(images, real=True)
    with pytest.raises(InputError, match="the same shape"):
        perceptual_distance(network(), torch.zeros(2, 3, 2, 2), torch.zeros(1, 3, 2, 2))


class Broken(Pixels):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) / 0


def test_networks_must_be_ready() -> None:
    for call, error, message in (
        (lambda: FrechetDistance(Pixels()).update(pictures(2, 0), real=True), InputError, "training mode"),
        (lambda: perceptual_distance(Pixels(), pictures(2, 0), pictures(2, 1)), InputError, "training mode"),
        (
            lambda: KernelDistance(Broken().eval(), subset_size=2).update(pictures(2, 0), real=True),
            NonFiniteError,
            "weights of the network",
        ),
    ):
        with pytest.raises(error, match=message):
            call()


def test_images_of_float64_are_read() -> None:
    """By a network of weights, which takes float32 only."""
    network, a, b = ShapeFeatures((8, 8, 8)).eval(), pictures(4, 0, size=32), pictures(4, 1, size=32)
    assert perceptual_distance(network, a.double(), b.double()).equal(perceptual_distance(network, a, b))
    FrechetDistance(network).update(a.double(), real=True)
