"""Untrained COMET models: a network of energies with an encoder of images."""

from __future__ import annotations

import torch

from energycomp.components import Latents
from energycomp.denoisers import Denoiser
from energycomp.images import ImageProcessor
from energycomp.models import Defaults, Model
from energycomp_decomp.comet.energy import STEPS, EnergyNet
from energycomp_decomp.encoders import PartsEncoder

# Two entries, the fewest of a schedule, at which sigma is 1: eps is the gradient of the energy. No diffusion model has
# this schedule, so that none is composed with energies, which have no timestep.
SCHEDULE = (1e-7, 1e-7)


def untrained(*, parts: int = 5, width: int = 16, size: int = 32) -> Model:
    """An untrained model of K = `parts` latents of D = `width` numbers, with one energy each, of square images.

    >>> untrained(parts=2, size=16).denoiser
    Denoiser(EnergyNet, predicts epsilon (3, 16, 16), rule product)
    """
    denoiser = Denoiser(
        network=EnergyNet(sample_size=size, token_width=width),
        alphas_cumprod=torch.tensor(SCHEDULE),
        prediction_type="epsilon",
        rule="product",
        sample_shape=(3, size, size),
        token_shape=(1, width),
    )
    return Model(
        name="comet",
        denoiser=denoiser,
        conditioner=Latents(width),
        processor=ImageProcessor(size=(size, size), resize="crop"),
        network_name="comet",
        conditioner_name="latents",
        defaults=Defaults(solver="sgd", counts=(0, parts), num_inference_steps=STEPS, distinct=False),
        encoder=PartsEncoder(sample_size=size, parts=parts, token_width=width),
        encoder_name="parts",
        decomposer_name="comet",
    )
