"""DPS and DiffPIR of deepinv on a composition, whose prediction is their denoiser.

deepinv is no dependency of this project: `pip install deepinv`.

deepinv has images x in [0, 1], and its samplers run in [-1, 1]. Samples z of a space without a value range are brought
there by a reach r, x = (z / r + 1) / 2: DiffPIR cuts off what is beyond it. Noise levels are those of deepinv,
z + sigma noise, at any real sigma; the timestep of the network is that of the same ratio of signal to noise.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor, nn

from energycomp.sampling import Target
from energycomp_samplers.observation import Observation


def check_installed() -> None:
    """Ends with what to install where deepinv is missing."""
    if importlib.util.find_spec("deepinv") is None:
        raise SystemExit("needs deepinv: pip install deepinv")


def interval(samples: Tensor) -> tuple[Tensor, Tensor]:
    """The interval of each number of samples (n, ...) that holds one more sample in 90 % of cases, see `right`.

    Its ends are the samples of rank 0.05 (n + 1) from below and above; of 19 samples, or fewer, the least and greatest.

    >>> interval(torch.arange(19.0))
    (tensor(0.), tensor(18.))
    """
    share = max(0.05 * (len(samples) + 1) - 1.0, 0.0) / (len(samples) - 1)
    low, high = samples.quantile(torch.tensor([share, 1.0 - share]).to(samples), dim=0)
    return low, high


def right(n: int) -> float:
    """The share of cases in which the interval of n samples holds one more: 0.9 from 19 samples on.

    >>> right(19), right(4)
    (0.9, 0.6)
    """
    return min((n - 1) / (n + 1), 0.9)


@attrs.frozen
class DPS:
    """Diffusion posterior sampling (Chung et al., 2023) by deepinv, at the noise levels of our samplers.

    Args:
        guidance: "norm" is the gradient of |y - A x0|, of the paper; "annealed" that of |y - A x0|^2 / 2(std^2 +
            sigma^2).
        weight: of the gradient.
    """

    guidance: str = "norm"
    weight: float = 1.0

    def __call__(self, problem: Problem, n: int, steps: int, seed: int) -> Tensor:
        """n samples (n, *shape), in steps evaluations."""
        from deepinv import sampling
        from deepinv.sampling.sde_solver import DDPMSolver

        random = torch.Generator().manual_seed(seed)
        # The times t of its schedule, log(1 + sigma^2) = 0.1 t + 9.95 t^2, at our noise levels, and 0
        sigma = [((1.0 - level.alpha) / level.alpha) ** 0.5 / problem.reach for level in problem.target.levels(steps)]
        total = torch.log1p(torch.tensor([*sigma, 0.0]).double().square())
        times = (-0.1 + (0.01 + 4.0 * 9.95 * total).sqrt()) / (2.0 * 9.95)
        model = sampling.DPS(
            problem.denoiser, solver=DDPMSolver(times, rng=random), weight=self.weight, guidance=self.guidance
        )
        shape = (n, *problem.target.noised_space.sample_shape)
        return problem.samples(model(problem.seen(n), problem.physics, x_init=shape))


@attrs.frozen
class DiffPIR:
    """DiffPIR (Zhu et al., 2023) by deepinv, at the noise levels that it has chosen."""

    strength: float = 7.0  # lambda
    zeta: float = 0.1

    def __call__(self, problem: Problem, n: int, steps: int, seed: int) -> Tensor:
        """n samples (n, *shape), in steps evaluations."""
        from deepinv import sampling
        from deepinv.optim.data_fidelity import L2

        model = sampling.DiffPIR(
            problem.denoiser, L2(), sigma=problem.std, max_iter=steps, zeta=self.zeta, lambda_=self.strength
        )
        start = torch.full((n, *problem.target.noised_space.sample_shape), 0.5)
        with torch.random.fork_rng():
            torch.manual_seed(seed)  # its generator
            return problem.samples(model(problem.seen(n), problem.physics, x_init=start))


@attrs.frozen(eq=False)
class Problem:
    """An observation of the samples of a composition, as deepinv takes it.

    Args:
        reach: r, of the numbers of a sample.
    """

    target: Target
    observation: Observation
    reach: float = 1.0

    @property
    def denoiser(self) -> nn.Module:
        """E[x | x + sigma noise], of images in [0, 1]."""
        return _Denoiser(self.target, self.reach)

    @property
    def std(self) -> float:
        """The noise of what was observed, in the scale of deepinv."""
        std = float(self.observation.std.flatten()[0])
        return std if self._sees_images else std / (2.0 * self.reach)

    @property
    def physics(self) -> Any:
        """A, its adjoint and the noise."""
        from deepinv.physics import GaussianNoise, LinearPhysics

        operator = self.observation.operator
        return LinearPhysics(
            A=lambda x, **_: operator.forward(x),
            A_adjoint=lambda y, **_: operator.adjoint(y),
            noise_model=GaussianNoise(self.std),
        )

    def seen(self, n: int) -> Tensor:
        """y of n samples, (n, *seen): what A sees of images in [0, 1]."""
        y = self.observation.y[None]
        if not self._sees_images:
            # A z = 2 r A x - r A 1
            ones = torch.ones(1, *self.target.noised_space.sample_shape)
            y = (y + self.reach * self.observation.operator.forward(ones)) / (2.0 * self.reach)
        return y.expand(n, *y.shape[1:])

    def samples(self, x: Tensor) -> Tensor:
        """Images in [0, 1] as `output_type="pt"` gives samples."""
        return x.detach().float() if self._sees_images else (2.0 * x.detach().float() - 1.0) * self.reach

    @property
    def _sees_images(self) -> bool:
        return self.target.noised_space.value_range is not None


class _Denoiser(nn.Module):
    def __init__(self, target: Target, reach: float) -> None:
        super().__init__()
        self.target = target
        self.reach = reach
        table = torch.logit(target.noised_space.alphas_cumprod.double()).numpy()
        self.timestep: Callable[[float], float] = lambda snr: float(
            np.interp(-snr, -table, np.arange(len(table), dtype=float))
        )

    def forward(self, x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
        """Clean images of noised ones (B, C, H, W) in [0, 1], all of one sigma."""
        noise = 2.0 * self.reach * float(torch.as_tensor(sigma).flatten()[0])
        # A noised sample of the variance-preserving kind, at the timestep of its ratio of signal to noise
        noised = (2.0 * x - 1.0) * self.reach / (1.0 + noise**2) ** 0.5
        rows = torch.full((len(x),), self.timestep(-2.0 * math.log(noise)))
        clean = self.target.compose(noised.float(), rows, prediction_type="sample")
        return (clean / self.reach + 1.0) / 2.0
