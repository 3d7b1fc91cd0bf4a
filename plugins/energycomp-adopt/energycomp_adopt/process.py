"""The noise process of an adopted network, and its clock: the number by which the network knows the amount of noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
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
SAME = 1e-3  # by which sigmas may differ from those of a name, as a share
TABLES: dict[str, Callable[[Tensor], Tensor]] = {  # alphas_cumprod (T,) of tables by name
    "betas": lambda betas: (1 - betas).cumprod(0),
    "alphas_cumprod": lambda alphas: alphas,
}


@attrs.frozen(eq=False)
class Process:
    """The noise process in which a network was trained.

    Args:
        name: of `BETAS` or `FLOWS`, "betas" for others of (T,), or "sigmas" for y + sigma eps.
        sigmas: the noise on the data at each timestep, (T,), rising.
    """

    name: str
    sigmas: Tensor

    @classmethod
    def of(cls, given: Any) -> Process:
        """Reads a name; `{"betas": (T,)}` or `{"alphas_cumprod": (T,)}`; or (least, greatest) sigma.

        Raises:
            InputError: none of these, or a table that does not fall inside (0, 1).
        """
        with torch.device("cpu"):  # also while a network is built without memory
            if isinstance(given, str) and given in FLOWS:
                return cls(given, _sigmas(flow_schedule(T)))
            if isinstance(given, str) and given in BETAS:
                from diffusers import DDPMScheduler

                return cls(given, _sigmas(DDPMScheduler(**BETAS[given]).alphas_cumprod))
            if isinstance(given, Mapping) and len(given) == 1 and given.keys() <= TABLES.keys():
                [(name, table)] = given.items()
                alphas = TABLES[name](_numbers(table))
                inside = bool(((alphas > 0) & (alphas < 1)).all())
                if inside and alphas.ndim == 1 and len(alphas) > 2 and bool((alphas.diff() <= 0).all()):
                    return cls("betas", _sigmas(alphas))
            ends = _numbers(given)
            if ends.shape == (2,) and 0 < ends[0] < ends[1] < math.inf:
                least, greatest = ends.log10().tolist()
                return cls("sigmas", torch.logspace(least, greatest, T, dtype=torch.float64))
        known = ", ".join(map(repr, (*BETAS, *FLOWS)))
        raise InputError(
            f"got process={shortly(given)}; expected one of {known}, {{'betas': (T,)}} or {{'alphas_cumprod': (T,)}} "
            "inside (0, 1), or (least, greatest) sigma"
        )

    @property
    def is_flow(self) -> bool:
        """Whether data and noise are interpolated linearly."""
        return self.name in FLOWS

    def scale(self, sigma: Tensor) -> Tensor:
        """c(sigma), the factor of the data and of their noise in what the network is given."""
        if self.name == "sigmas":
            return torch.ones_like(sigma)
        return 1 / (1 + sigma) if self.is_flow else 1 / (1 + sigma.square()).sqrt()

    def unit(self, timestep: Tensor, sigma: Tensor) -> Tensor:
        """t in [0, 1], (R,)."""
        share = sigma / (1 + sigma)
        units = {"flow": share, "flow to data": 1 - share}
        return units.get(self.name, timestep / len(self.sigmas))


# What a network is told, by the process, the timestep and sigma: a new clock is a line here, and a name of `Clock`
CLOCKS: dict[str, Callable[[Process, Tensor, Tensor], Tensor]] = {
    "timestep": lambda _process, timestep, _sigma: timestep,
    "index": lambda _process, timestep, _sigma: timestep.round().long(),
    "unit": Process.unit,
    "sigma": lambda _process, _timestep, sigma: sigma,
    "log sigma / 4": lambda _process, _timestep, sigma: sigma.log() / 4,
}


def name_process(alphas: Tensor) -> Any:
    """A process by its alphas_cumprod (T,): the name of its betas, if it has one, or the table.

    >>> name_process(Process.of("cosine").sigmas.square().add(1).reciprocal())
    'cosine'
    """
    table = {"alphas_cumprod": alphas.double().clamp(1e-9, 1 - 1e-9)}
    own = Process.of(table).sigmas
    for name in BETAS:
        known = Process.of(name).sigmas
        if len(known) == len(own) and bool(((own / known).log().abs() < SAME).all()):
            return name
    return table


def shortly(given: Any) -> str:
    """What was given, for a message: many numbers by how many they are, and their ends."""
    if isinstance(given, Mapping):
        return ", ".join(f"{name}: {shortly(table)}" for name, table in given.items())
    numbers = as_json(given)
    if isinstance(numbers, list | tuple) and len(numbers) > 4 and all(isinstance(one, int | float) for one in numbers):
        return f"{len(numbers)} numbers from {numbers[0]:.4g} to {numbers[-1]:.4g}"
    return f"{given!r:.60}"


def as_json(given: Any) -> Any:
    """A process, or a row of numbers, as a `config.json` has it."""
    if isinstance(given, Mapping):
        return {name: as_json(table) for name, table in given.items()}
    return given.tolist() if isinstance(given, Tensor | np.ndarray) else given


def _numbers(given: Any) -> Tensor:
    try:
        return torch.as_tensor(given).double().cpu()
    except (TypeError, ValueError, RuntimeError):
        return torch.empty(0)


def _sigmas(alphas_cumprod: Tensor) -> Tensor:
    return ((1 - alphas_cumprod) / alphas_cumprod).sqrt().double()
