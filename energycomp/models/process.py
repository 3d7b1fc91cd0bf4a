"""How the data of a network were noised in its training, and how it is told by how much."""

from __future__ import annotations

import math
from typing import Any, Literal

import attrs
import numpy as np
import torch
from torch import Tensor

from energycomp.components import flow_schedule
from energycomp.errors import InputError

Clock = Literal["timestep", "index", "unit", "sigma", "log sigma / 4"]
BETAS: dict[str, dict[str, Any]] = {
    "linear": {"beta_schedule": "linear"},
    "scaled linear": {"beta_schedule": "scaled_linear"},
    "stable diffusion": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
}
FLOWS = ("flow", "flow to data")
T = 1000


@attrs.frozen(eq=False)
class Process:
    """How the network's data were noised in its training, and how it is told by how much.

    Args:
        name: of `BETAS` or `FLOWS`, "betas" for others of (T,), or "sigmas" for y + sigma eps.
        sigmas: the noise on the data at each timestep, (T,), rising.
    """

    name: str
    sigmas: Tensor

    @classmethod
    def of(cls, given: Any) -> Process:
        """A name, betas or alphas_cumprod (T,), or (least, greatest) sigma."""
        with torch.device("cpu"):  # also while a network is built without memory
            return cls._of(given)

    @classmethod
    def _of(cls, given: Any) -> Process:
        if isinstance(given, str) and given in FLOWS:
            return cls(given, _sigmas(flow_schedule(T)))
        if isinstance(given, str) and given in BETAS:
            from diffusers import DDPMScheduler

            return cls(given, _sigmas(DDPMScheduler(**BETAS[given]).alphas_cumprod))
        try:
            array = torch.as_tensor(given).double().cpu()
        except (TypeError, ValueError, RuntimeError):
            array = torch.empty(0)
        if array.shape == (2,) and 0 < array[0] < array[1] < math.inf:
            least, greatest = array.log10().tolist()
            return cls("sigmas", torch.logspace(least, greatest, T, dtype=torch.float64))
        alphas = array if array.numel() and array.flatten()[0] > 0.5 else (1 - array).cumprod(0)
        falls = array.ndim == 1 and len(array) > 2 and bool((alphas.diff() <= 0).all())
        if not falls or not bool(((array > 0) & (array < 1)).all()):
            known = ", ".join(map(repr, (*BETAS, *FLOWS)))
            raise InputError(
                f"got process={shortly(given)}; expected one of {known}, betas or alphas_cumprod (T,) inside (0, 1), "
                "or (least, greatest) sigma"
            )
        return cls("betas", _sigmas(alphas))

    def scale(self, sigma: Tensor) -> Tensor:
        """c(sigma)."""
        if self.name == "sigmas":
            return torch.ones_like(sigma)
        return 1 / (1 + sigma) if self.name in FLOWS else 1 / (1 + sigma.square()).sqrt()

    def time(self, clock: Clock, timestep: Tensor, sigma: Tensor) -> Tensor:
        """What the network is told, (R,)."""
        share = sigma / (1 + sigma)
        units = {"flow": share, "flow to data": 1 - share}
        unit = units.get(self.name, timestep / len(self.sigmas))
        index = timestep.round().long()
        known = {"timestep": timestep, "index": index, "unit": unit, "sigma": sigma, "log sigma / 4": sigma.log() / 4}
        return known[clock]


def shortly(given: Any) -> str:
    """What was given, for a message: many numbers by how many they are, and their ends.

    >>> shortly("linear"), shortly([0.0001, 0.01, 0.02]), shortly(torch.linspace(1e-4, 0.02, 1000))
    ("'linear'", '[0.0001, 0.01, 0.02]', '1000 numbers from 0.0001 to 0.02')
    """
    numbers = given.tolist() if isinstance(given, Tensor | np.ndarray) else given
    if isinstance(numbers, list | tuple) and len(numbers) > 4 and all(isinstance(one, int | float) for one in numbers):
        return f"{len(numbers)} numbers from {numbers[0]:.4g} to {numbers[-1]:.4g}"
    return f"{given!r:.60}"


def _sigmas(alphas_cumprod: Tensor) -> Tensor:
    return ((1 - alphas_cumprod) / alphas_cumprod).sqrt().double()
