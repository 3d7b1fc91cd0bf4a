"""COMET: pictures as what gradient descent on a sum of energies ends at, one energy a latent.

Decomp Diffusion grew out of it: there a network predicts the gradient, here it is the derivative of an energy, and
there is no timestep (thesis sections 4.3 and 4.4).
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components import Latents
from energycomp.decomposition import checked
from energycomp.decomposition.decomposer import THRESHOLD, DiffusionDecomposer, Parts
from energycomp.denoisers import Denoiser
from energycomp.errors import InputError
from energycomp.images import ImageProcessor
from energycomp.models import Defaults, Model
from energycomp.sampling import Generator
from energycomp_decomp.energies import STEP_SIZE, STEPS, EnergyNet, LatentEnergy, descend
from energycomp_decomp.networks import PartsEncoder
from energycomp_decomp.shapes import SIZE

__all__ = ["CometDecomposer", "untrained"]

# Two entries, the fewest of a schedule, at which sigma is 1: eps is the gradient of the energy. No diffusion model has
# this schedule, so that none is composed with energies that know no timestep.
SCHEDULE = (1e-7, 1e-7)


@attrs.define(eq=False, frozen=True, slots=False)
class CometDecomposer:
    """A model of energies as a decomposer: what descent ends at is the picture of its latents.

    Args:
        model: with an `EnergyNet` and an encoder.
        steps: of the descent; the model's default number of steps when left out.
        step_size: gamma, what the model was trained with.
        threshold: of masks, in brightness; see `parts`.

    Raises:
        InputError: a model of another kind.

    >>> comet = CometDecomposer(untrained(parts=3, width=4, size=16))
    >>> latents = comet.encode(torch.zeros(1, 3, 16, 16))
    >>> latents.shape, comet.decode(latents[:, :2]).shape
    (torch.Size([1, 3, 4]), torch.Size([1, 3, 16, 16]))
    >>> either = comet.component(latents[0, 0]) | comet.component(latents[0, 1])
    """

    model: Model = attrs.field()
    steps: int = attrs.field()
    step_size: float = STEP_SIZE
    threshold: float = THRESHOLD

    @model.validator
    def _check_model(self, _: Any, model: Model) -> None:
        if not isinstance(model.denoiser.network, EnergyNet) or model.encoder is None:
            raise InputError(
                f"got the model {model.name!r}; expected one of energies with an encoder; train one: energycomp train "
                "comet; for a diffusion model use energycomp.DiffusionDecomposer"
            )

    @steps.default
    def _own(self) -> int:
        return self.model.defaults.num_inference_steps

    def __attrs_post_init__(self) -> None:
        if self.steps < 1 or not self.step_size > 0:
            raise InputError(f"got {self.steps} steps of {self.step_size}; expected at least 1, of a size above 0")

    def encode(self, images: Any, *, generator: torch.Generator | None = None) -> Tensor:
        """Latents (B, K, D) of pictures. The encoder draws nothing."""
        return DiffusionDecomposer(self.model).encode(images, generator=generator)

    @torch.no_grad()
    def decode(self, latents: Tensor, *, generator: Generator = None, num_inference_steps: int | None = None) -> Tensor:
        """Pictures (B, 3, H, W) that descent from noise ends at. Costs B K' rows a step."""
        latents = self._checked(latents)
        return self._descended(latents, self._noise(len(latents), generator), num_inference_steps)

    @torch.no_grad()
    def parts(self, latents: Tensor, *, generator: Generator = None, num_inference_steps: int | None = None) -> Parts:
        """A descent on the energy of each latent alone and one on all of them, from one noise.

        A mask holds the pixels in which a part differs from `base`, the least energy without a latent, in any channel
        by more than the threshold. Costs 2 B K' rows a step.
        """
        latents = self._checked(latents)
        (batch, count), noise = latents.shape[:2], self._noise(len(latents), generator)
        alone = self._descended(latents.flatten(0, 1)[:, None], noise.repeat_interleave(count, 0), num_inference_steps)
        images = alone.unflatten(0, (batch, count))
        base: Any = self.model.denoiser.network.base
        masks = (images - base).abs().amax(2) > self.threshold
        return Parts(images=images, masks=masks, whole=self._descended(latents, noise, num_inference_steps))

    def component(self, latent: Tensor) -> LatentEnergy:
        """The leaf of one latent (D,), to compose with those of the same model."""
        return LatentEnergy(self.model.leaf(latent[None]), self.unconditional)

    @cached_property
    def unconditional(self) -> LatentEnergy:
        """The leaf without a latent, |x - base|^2 / 2."""
        return LatentEnergy(self.model.unconditional)

    def _descended(self, latents: Tensor, start: Tensor, steps: int | None) -> Tensor:
        found = descend(self.model.denoiser, latents, start, steps=steps or self.steps, step_size=self.step_size)
        return found[-1].clamp(-1, 1)

    def _noise(self, batch: int, generator: Generator) -> Tensor:
        from diffusers.utils.torch_utils import randn_tensor

        if generator is None:
            generator = torch.Generator()
            generator.seed()
        chosen = generator if isinstance(generator, torch.Generator) else list(generator)
        if isinstance(chosen, list) and len(chosen) != batch:
            raise InputError(f"got {len(chosen)} generators; expected one or {batch}")
        shape = (batch, *self.model.denoiser.sample_shape)
        noise: Tensor = randn_tensor(shape, generator=chosen, device=self.model.denoiser.device)
        return noise

    def _checked(self, latents: Tensor) -> Tensor:
        latents, width = checked(latents), self.model.conditioner.value_shape[-1]
        if latents.shape[2] != width:
            raise InputError(f"got latents of width {latents.shape[2]}; expected {width}, that of {self.model.name!r}")
        return latents.to(self.model.denoiser.device, torch.float32)


def untrained(*, parts: int = 5, width: int = 16, size: int = SIZE) -> Model:
    """`parts` latents of `width` numbers, an energy each."""
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
    )
