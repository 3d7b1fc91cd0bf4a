"""From where a picture was seen: camera and light, inferred beside objects that are known, and places in 3-D.

Notation: variable -> symbol
    known      eps_hat of the objects, u + sum_k (eps_k - u), once for every draw
    change     eps_v - u, what the viewpoint v adds
    energy     beta J(v) + sum_i v_i^2 / (2 std_i^2), with J the mean over draws of lambda |known + change - target|^2;
               beta log J(v) where posteriors are of log J

The least energy is what `energycomp_clevr.outlined` starts from: outlines say how high and how far away the camera is.
"""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components import Condition
from energycomp.denoisers import Denoiser, count_rows, rows
from energycomp.errors import InputError
from energycomp.images import as_picture
from energycomp.inference import NoiseBank, draw_bank, noised_trunk, residual_errors
from energycomp.models import Model
from energycomp.seeds import as_generator
from energycomp_clevr.objects import Objects
from energycomp_clevr.outlined import fit_camera
from energycomp_clevr.viewpoint import AXES, HOME, Viewpoint

USUAL = torch.tensor([0.29] * 3 + [0.58] * 3)  # scene units, std: CLEVR moves the camera by up to 0.5, lamps by 1
RATE = 0.08


@attrs.frozen(eq=False)
class Seen:
    """From where a picture was seen: the likeliest `Viewpoint` (6,), J without and with it, network evaluations."""

    value: Tensor
    errors: tuple[float, float]
    rows: int

    @property
    def camera(self) -> Tensor:
        """Where the camera stands, (3,), in scene units; 3-D places follow from it and places in the picture."""
        return torch.tensor(HOME) + self.value[:3].cpu() @ torch.tensor(AXES)


def check_viewpoint(model: Model) -> None:
    """Raises `InputError` for a model whose denoiser does not take `Viewpoint`."""
    if not isinstance(model.conditioner, Objects) or not model.conditioner.viewpoint:
        raise InputError(f"got the model {model.name}, which takes no viewpoint; expected clevr")


def seen_from(
    image: Any,
    model: Model,
    values: Tensor,
    *,
    draws: int = 24,
    steps: int = 40,
    generator: int | torch.Generator = 0,
) -> Seen:
    """Camera and light of a picture whose objects are known, by the error that they leave.

    The objects are predicted once; what the viewpoint adds is one row a draw and step: the whole costs
    draws x (K + 2 + steps) network evaluations. How far up and forward the camera stands then follows from the outlines
    of the objects, where these are in sight, at about 0.05 s an object.
    """
    check_viewpoint(model)
    denoiser = model.denoiser
    defaults = model.defaults
    # The image under noise, as a reading has it
    sample = model.encode(model.given(image))
    bank = draw_bank(
        draws, denoiser.sample_shape, denoiser.alphas_cumprod,
        timesteps=defaults.timesteps, gamma=defaults.gamma, generator=as_generator(generator),
    )  # fmt: skip
    with count_rows() as counted:
        error = _error(denoiser, model.conditioner(values.to(sample)), sample, bank)
        # Adam on the energy: the error of the image, and how usual the viewpoint is
        value = torch.zeros(1, 6, requires_grad=True, device=sample.device)
        optimizer = torch.optim.Adam([value], lr=RATE)
        before = float("nan")
        for step in range(steps):
            optimizer.zero_grad()
            found = error(value)
            before = float(found.detach()) if step == 0 else before
            likelihood = found.log() if defaults.log_errors else found
            energy = (defaults.beta or 1.0) * likelihood + (value / USUAL.to(value)).square().sum() / 2
            energy.backward()
            optimizer.step()
        with torch.no_grad():
            # How far up and forward the camera stands, by the outlines of the objects
            value[0, 1:3] = fit_camera(as_picture(image), values, value[0, 1:3])
            after = float(error(value))
    return Seen(value.detach()[0], (before, after), counted.rows)


def _error(denoiser: Denoiser, objects: Condition, sample: Tensor, bank: NoiseBank) -> Any:
    """J as a function of a viewpoint (1, 6); objects are predicted here, once."""
    draws = len(bank)
    viewpoint = Viewpoint(denoiser.token_shape)
    with torch.no_grad():
        shared = noised_trunk(denoiser, sample, bank)
        every = Condition.cat([objects, denoiser.unconditional.condition.to(dtype=objects.rows.dtype)])
        count = len(every)
        index = torch.arange(count).repeat(draws)
        owner = torch.arange(draws).repeat_interleave(count)
        # u, and what the objects add to it: c = u + sum_k (e_k - u)
        each = rows(denoiser, shared, every[index], owner).unflatten(0, (draws, count))
        null = each[:, -1]
        known = null + (each[:, :-1] - null[:, None]).sum(1)

    def error(value: Tensor) -> Tensor:
        condition = viewpoint(value).expand(draws)
        change = rows(denoiser, shared, condition, torch.arange(draws)) - null
        errors: Tensor = residual_errors(denoiser, sample, bank, (known + change)[None])
        return errors.mean()

    return error
