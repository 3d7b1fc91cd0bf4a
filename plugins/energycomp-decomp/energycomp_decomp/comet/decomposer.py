"""COMET: an image is the result of gradient descent on a sum of energies, one for each latent.

Decomp Diffusion developed from it: there a network predicts the gradient, here the gradient is the derivative of an
energy, and there is no timestep (sections 4.3 and 4.4 of Wang, 2026).
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.decomposition import Parts, latents_for
from energycomp.errors import InputError
from energycomp.fields import is_whole
from energycomp.models import Model
from energycomp.sampling import Generator, draw_noise
from energycomp_decomp.comet.energy import STEP_SIZE, EnergyNet, LatentEnergy, descend
from energycomp_decomp.diffusion import MASK_THRESHOLD, DiffusionDecomposer


@attrs.define(eq=False, frozen=True, slots=False)
class CometDecomposer:
    """A decomposer by gradient descent on the sum of the energies of latents.

    Args:
        model: with an `EnergyNet` and an encoder.
        steps: of the descent; by default the model's own number.
        step_size: gamma, the one that the model was trained with.
        threshold: of masks, in brightness of [-1, 1]; see `parts`.

    Raises:
        InputError: a model of another kind.
    """

    model: Model = attrs.field()
    steps: int = attrs.field()
    step_size: float = STEP_SIZE
    threshold: float = MASK_THRESHOLD

    @model.validator
    def _check_model(self, _: Any, model: Model) -> None:
        if not isinstance(model.denoiser.network, EnergyNet) or model.encoder is None:
            raise InputError(
                f"got the model {model.name!r}; expected one of energies with an encoder; train one: energycomp train "
                "comet; for a diffusion model use energycomp_decomp.DiffusionDecomposer"
            )

    @steps.default
    def _own(self) -> int:
        return self.model.defaults.num_inference_steps

    def __attrs_post_init__(self) -> None:
        if self.steps < 1 or not self.step_size > 0:
            raise InputError(f"got {self.steps} steps of {self.step_size}; expected at least 1, of a size above 0")

    def encode(self, images: Any, *, generator: torch.Generator | None = None) -> Tensor:
        """Latents (B, K, D) of images. The encoder draws no random numbers."""
        return DiffusionDecomposer(self.model).encode(images, generator=generator)

    @torch.no_grad()
    def decode(self, latents: Tensor, *, generator: Generator = None, num_inference_steps: int | None = None) -> Tensor:
        """Images (B, 3, H, W), by descent from noise. Costs B K' network evaluations per step."""
        latents = latents_for(self.model, latents)
        return self._descend(latents, self._noise(len(latents), generator), num_inference_steps)

    @torch.no_grad()
    def parts(self, latents: Tensor, *, generator: Generator = None, num_inference_steps: int | None = None) -> Parts:
        """One descent on the energy of each latent alone and one on the energies of all, from the same noise.

        A mask holds the pixels in which a part differs from `base`, the minimum of the energy without a latent, by more
        than the threshold in any channel. Costs 2 B K' network evaluations per step.
        """
        latents = latents_for(self.model, latents)
        batch, count = latents.shape[:2]
        noise = self._noise(len(latents), generator)
        alone = self._descend(latents.flatten(0, 1)[:, None], noise.repeat_interleave(count, 0), num_inference_steps)
        images = alone.unflatten(0, (batch, count))
        base: Any = self.model.denoiser.network.base
        masks = (images - base).abs().amax(2) > self.threshold
        return Parts(images=images, masks=masks, whole=self._descend(latents, noise, num_inference_steps))

    def component(self, latent: Tensor) -> LatentEnergy:
        """The leaf of one latent (D,), to compose with those of the same model."""
        return LatentEnergy(self.model.leaf(latent[None]), self.unconditional)

    @cached_property
    def unconditional(self) -> LatentEnergy:
        """The leaf without a latent, |x - base|^2 / 2."""
        return LatentEnergy(self.model.unconditional)

    def _descend(self, latents: Tensor, start: Tensor, steps: int | None) -> Tensor:
        if steps is not None and not (is_whole(steps) and steps >= 1):
            raise InputError(f"got num_inference_steps={steps}; expected a whole number, at least 1")
        found = descend(self.model.denoiser, latents, start, steps=steps or self.steps, step_size=self.step_size)
        return found[-1].clamp(-1, 1)

    def _noise(self, batch: int, generator: Generator) -> Tensor:
        denoiser = self.model.denoiser
        return draw_noise((batch, *denoiser.sample_shape), generator=generator, device=denoiser.device)
