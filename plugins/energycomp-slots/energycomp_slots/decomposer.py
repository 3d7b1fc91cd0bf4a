"""Slot-VAE as a decomposer of images, and as a generator of new scenes from a global latent."""

from __future__ import annotations

from typing import Any, cast

import attrs
import torch
from torch import Tensor

from energycomp.components import Gaussian
from energycomp.decomposition import Decomposer, Parts, latents_for
from energycomp.errors import InputError, NonFiniteError
from energycomp.fields import whole
from energycomp.models import Model
from energycomp.sampling import Generator, draw_noise
from energycomp.seeds import as_generator
from energycomp_slots.decoders import Drawn
from energycomp_slots.networks import SlotVAE

MAX_SLOTS = 256
CHUNK = 64  # images per network call


@attrs.frozen(eq=False)
class SlotDecomposer:
    """A decomposer of a `SlotVAE`: latents are means of q(z_s | x), and are decoded without steps.

    Args:
        slots: the number of slots in `encode`, which may be larger than in training; by default that of training.

    Raises:
        InputError: a model of another kind, or a number of slots out of range.

    >>> from energycomp_slots.model import untrained
    >>> slots = SlotDecomposer(untrained(size=16, slots=3, width=8, channels=8))
    >>> latents = slots.encode(torch.zeros(1, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    >>> latents.shape, slots.parts(latents).masks.sum(1).unique()
    (torch.Size([1, 3, 8]), tensor([1]))
    """

    model: Model = attrs.field()
    slots: int = attrs.field(validator=whole(1, MAX_SLOTS))

    @model.validator
    def _check_model(self, _: Any, model: Model) -> None:
        if not isinstance(model.denoiser.network, SlotVAE):
            raise InputError(
                f"got the model {model.name!r}; expected one of slots; train one: energycomp train slots; for another "
                "model use energycomp.decomposer_of"
            )

    @slots.default
    def _own(self) -> int:
        return cast("SlotVAE", self.model.denoiser.network).slots

    @property
    def network(self) -> SlotVAE:
        return cast("SlotVAE", self.model.denoiser.network)

    @torch.no_grad()
    def encode(self, images: Any, *, generator: Generator = None) -> Tensor:
        """Latents (B, K, D) of images: means of q(z_s | x).

        Slots start from noise, which determines their order. Without a generator all images start from the same noise,
        so that slot k of one image corresponds to slot k of another.
        """
        batch = self.model.encode(images)
        network = self.network
        shape = (self.slots, network.width)
        if generator is None:
            fixed = torch.Generator().manual_seed(0)
            noise = draw_noise((1, *shape), generator=fixed, device=batch.device).expand(len(batch), -1, -1)
        else:
            noise = draw_noise((len(batch), *shape), generator=generator, device=batch.device)
        found = [
            network.infer(network.encode(part), start)[0][0]
            for part, start in zip(batch.split(CHUNK), noise.split(CHUNK), strict=True)
        ]
        return torch.cat(found)

    @torch.no_grad()
    def decode(self, latents: Tensor, *, generator: Generator = None, num_inference_steps: int | None = None) -> Tensor:
        """Images (B, 3, H, W) of latents (B, K', D). Draws no random numbers and takes no steps."""
        del generator, num_inference_steps
        return torch.cat([self._decode(part).whole for part in self._check_latents(latents).split(CHUNK)]).clamp(-1, 1)

    @torch.no_grad()
    def parts(self, latents: Tensor, *, generator: Generator = None, num_inference_steps: int | None = None) -> Parts:
        """The decoded image of each slot, the mask of pixels in which its weight is the largest, and all together.

        What a slot without a pixel decodes to is nowhere in the image, and is white here.
        """
        del generator, num_inference_steps
        drawn = [self._decode(part) for part in self._check_latents(latents).split(CHUNK)]
        both = Drawn(torch.cat([d.images for d in drawn]), torch.cat([d.log_masks for d in drawn]))
        winner = both.log_masks.argmax(1, keepdim=True)[:, :, 0]
        masks = winner == torch.arange(latents.shape[1], device=winner.device)[:, None, None]
        images = torch.where(masks.any((2, 3))[..., None, None, None], both.images.clamp(-1, 1), 1.0)
        return Parts(images=images, masks=masks, whole=both.whole.clamp(-1, 1))

    @torch.no_grad()
    def scenes(self, n: int, *, generator: int | torch.Generator | None = None) -> Tensor:
        """Latents (n, K, D) of new scenes: z_g from its prior, then the means of p(z_s | z_g).

        Equation 3.1 of Wang (2026).

        Raises:
            InputError: a plain autoencoder, which has no prior, or a number that is not positive.
        """
        if type(n) is not int or n < 1:
            raise InputError(f"got n={n!r}; expected a number of scenes of at least 1")
        network = self.network
        generator = as_generator(generator)
        if network.plain:
            raise InputError(
                f"got {self.model.name!r}, a plain autoencoder, which has no prior; expected a Slot-VAE; load 'slots'"
            )
        if network.slots_from == "mlp" and self.slots != network.slots:
            raise InputError(f"got {self.slots} slots of an MLP, which makes {network.slots}; expected as many")
        device = self.model.denoiser.device
        first = draw_noise((n, network.global_width), generator=generator, device=device)
        noise = draw_noise((n, self.slots, network.width), generator=generator, device=device)
        pairs = zip(first.split(CHUNK), noise.split(CHUNK), strict=True)
        return torch.cat([network.generate(network.scene(some), start)[0][0] for some, start in pairs])

    def sample(self, n: int, *, generator: int | torch.Generator | None = None) -> Tensor:
        """New scenes (n, 3, H, W) in [-1, 1], the decoded `scenes`."""
        return self.decode(self.scenes(n, generator=generator))

    @torch.no_grad()
    def component(self, latents: Any) -> Gaussian:
        """The component of one scene (K', D), N(sqrt(a) decode(z), (a sigma_x^2 + 1 - a) I) at alpha_bar_t = a.

        The scene is decoded once, here: eps and energy cost no network evaluations. It composes with other components
        of the same sample space.
        """
        if not isinstance(latents, Tensor) or latents.ndim != 2:
            got = tuple(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
            raise InputError(f"got {got}; expected the latents (K, D) of one scene; take latents[0]")
        denoiser = self.model.denoiser
        network = self.network
        return Gaussian(
            self._decode(self._check_latents(latents[None])).whole[0],
            network.sigma_x**2,
            name=f"{self.model.name}(scene of {len(latents)})",
            sample_shape=denoiser.sample_shape,
            alphas_cumprod=denoiser.alphas_cumprod,
            space=denoiser.space,
            value_range=denoiser.noised_space.value_range,
        )

    def _decode(self, latents: Tensor) -> Drawn:
        drawn = self.network.decode(latents)
        if not bool(torch.isfinite(drawn.whole).all()):
            raise NonFiniteError(
                "slots decode to numbers that are not finite; expected latents of about -8 to 8; change them less"
            )
        return drawn

    def _check_latents(self, latents: Tensor) -> Tensor:
        latents = latents_for(self.model, latents)
        if latents.shape[1] > MAX_SLOTS:
            raise InputError(f"got {latents.shape[1]} slots; expected at most {MAX_SLOTS}")
        return latents


@attrs.frozen(eq=False)
class SlotAutoencoder:
    """The decomposer of a plain autoencoder: a `SlotDecomposer` that generates no scenes, because there is no prior."""

    slots: SlotDecomposer

    def encode(self, images: Any, *, generator: Generator = None) -> Tensor:
        """As `SlotDecomposer.encode`."""
        return self.slots.encode(images, generator=generator)

    def decode(self, latents: Tensor, *, generator: Generator = None, num_inference_steps: int | None = None) -> Tensor:
        """As `SlotDecomposer.decode`."""
        return self.slots.decode(latents, generator=generator, num_inference_steps=num_inference_steps)

    def parts(self, latents: Tensor, *, generator: Generator = None, num_inference_steps: int | None = None) -> Parts:
        """As `SlotDecomposer.parts`."""
        return self.slots.parts(latents, generator=generator, num_inference_steps=num_inference_steps)


def decomposer(model: Model) -> Decomposer:
    """The decomposer of a model of slots."""
    slots = SlotDecomposer(model)
    return SlotAutoencoder(slots) if slots.network.plain else slots
