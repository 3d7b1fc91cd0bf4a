"""What the tests of samplers share: draws with their report, and the moments of Gaussians in closed form."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from energycomp import Composer


@pytest.fixture(scope="session")
def drawn() -> Callable[..., tuple[Tensor, Any]]:
    """Latents of a component, and the report of the run: quiet, of the seed 0 unless `options` say another."""

    def draw(component: Any, sampler: Any, n: int = 4000, steps: int = 50, **options: Any) -> tuple[Tensor, Any]:
        reports: list[Any] = []
        options = {"generator": 0, "output_type": "latent", "progress": False, "report": reports.append} | options
        return Composer(component).sample(n, sampler=sampler, num_inference_steps=steps, **options), reports[0]

    return draw


@pytest.fixture(scope="session")
def expect_normal() -> Callable[[Tensor, Tensor, Tensor], None]:
    """Samples (n, ...) have a mean (D,) and a covariance (D, D): whitened squares are chi-square within 3 s.e."""

    def expect(x: Tensor, mean: Tensor, covariance: Tensor) -> None:
        root = torch.linalg.cholesky(covariance)
        white = torch.linalg.solve_triangular(root, (x.flatten(1).double() - mean).T, upper=False)
        size, n = white.shape
        of_mean = float(n * white.mean(1).square().sum())
        of_covariance = float(n / 2 * (white @ white.T / n - torch.eye(size)).square().sum())
        for found, degrees in ((of_mean, size), (of_covariance, size * (size + 1) / 2)):
            assert found < degrees + 3.0 * (2.0 * degrees) ** 0.5

    return expect
