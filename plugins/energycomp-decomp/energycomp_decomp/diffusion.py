"""Decomp Diffusion: each latent conditions one component of a composed diffusion (chapter 4 of Wang, 2026)."""

from __future__ import annotations

from typing import Any, cast

import attrs
import torch
from torch import Tensor

from energycomp.components import Condition, convert
from energycomp.decomposition import Parts, latents_for
from energycomp.denoisers import Trunk, compose_rows, rows, trunk
from energycomp.errors import InputError
from energycomp.models import Model, checked_model
from energycomp.sampling import draw_noise, make_scheduler, sample
from energycomp.seeds import Generator, as_generators
from energycomp_decomp.search import check_views, search_latents

MASK_THRESHOLD = 0.3  # of brightness in [-1, 1]: a mask holds the pixels that differ from the reference by more


@attrs.frozen(eq=False)
class DiffusionDecomposer:
    """A decomposer of a model with an encoder: each latent conditions one component of a composed diffusion.

    Args:
        model: with an encoder, whose latents are values of its conditioner.
        threshold: of masks, in brightness of [-1, 1]; see `parts`.
        views: of the image, 1 to 8, that `search_latents` tries; 1 gives the encoder's latents. By default the model's.

    Raises:
        InputError: the model has no encoder; or `views` is not from 1 to 8, or more than 1 for a model that does not
            predict x0 under the product rule.

    >>> from energycomp.testing import stripes_model
    >>> stripes = DiffusionDecomposer(stripes_model(parts=2))
    >>> image = torch.zeros(1, 3, 16, 16)
    >>> image[..., 8:] = 0.5
    >>> latents = stripes.encode(image)
    >>> torch.allclose(stripes.decode(latents), image)
    True
    """

    model: Model = attrs.field()
    threshold: float = MASK_THRESHOLD
    views: int = attrs.field()

    @model.validator
    def _check_model(self, _: Any, model: Model) -> None:
        if checked_model(model).encoder is None:
            got = f"got the model {model.name!r}, which has no encoder"
            raise InputError(
                f"{got}; expected one that takes images apart; load 'decomp', or train one with its recipe"
            )

    @views.default
    def _views_of_the_model(self) -> int:
        return checked_model(self.model).defaults.views

    @views.validator
    def _check_views(self, _: Any, views: int) -> None:
        check_views(self.model, views)

    @torch.no_grad()
    def encode(self, images: Any, *, generator: torch.Generator | None = None) -> Tensor:
        """Latents (B, K, D) of images. No random numbers are drawn from `generator`."""
        del generator
        encoder = cast("torch.nn.Module", self.model.encoder)
        training = encoder.training
        samples = self.model.encode(images)
        try:
            encoder.eval()
            if self.views == 1:
                latents: Tensor = encoder(samples)
                return latents
            found = [search_latents(self.model, one, encoder, views=self.views) for one in samples.split(1)]
        finally:
            encoder.train(training)
        return torch.cat(found)

    def decode(
        self,
        latents: Tensor,
        *,
        weights: Tensor | None = None,
        generator: Generator = None,
        num_inference_steps: int | None = None,
    ) -> Tensor:
        """Images (B, 3, H, W) of latents (B, K', D), by one reverse diffusion each.

        Weights of the parts are (K',) or (B, K'): above 1 a part is stronger, below 1 weaker. Costs B K' network
        evaluations per step, and B more under the product rule where weights do not sum to 1.
        """
        latents = latents_for(self.model, latents)
        generator = as_generators(generator)
        batch, count = latents.shape[:2]
        owner = torch.arange(batch, device=latents.device).repeat_interleave(count)
        noise = self._noise(batch, generator)
        weight = None if weights is None else _check_weights(weights, batch, count).flatten()
        condition = self.model.conditioner(latents.flatten(0, 1))
        return self._images(self._chains(condition, owner, noise, 1, num_inference_steps, generator, weight=weight))

    @torch.no_grad()
    def parts(self, latents: Tensor, *, generator: Generator = None, num_inference_steps: int | None = None) -> Parts:
        """One reverse diffusion for each part and one for all parts, from the same noise, in one batch.

        A mask holds the pixels in which a part differs from a reference by more than the threshold in any channel.
        The reference is the unconditional prediction at the noisiest step under the product rule, and the median over
        the parts of an image under the mean rule, which needs three parts. Otherwise there are no masks.

        Costs 2 B K network evaluations per step, B more where the rule needs the unconditional prediction, and B once
        for the reference. The first step costs B trunk passes, in which all chains of an image are the same; any other
        step costs B (K + 1).
        """
        latents = latents_for(self.model, latents)
        generator = as_generators(generator)
        denoiser = self.model.denoiser
        batch, count = latents.shape[:2]
        condition = self.model.conditioner(latents.flatten(0, 1))
        noise = self._noise(batch, generator)
        chains = torch.arange(batch * (count + 1), device=latents.device).view(batch, count + 1)
        owner = torch.cat([chains[:, :-1].flatten(), chains[:, -1:].expand(-1, count).flatten()])
        both = Condition.cat([condition, condition])
        # At full noise a prediction of eps does not determine x0, which is divided by sqrt(alpha_bar), about 0.
        determined = denoiser.rule == "product" and denoiser.prediction_type != "epsilon"
        reference: list[Tensor] | None = [] if determined else None
        samples = self._chains(both, owner, noise, count + 1, num_inference_steps, generator, reference)
        made = self._images(samples).unflatten(0, (batch, count + 1))
        images = made[:, :-1]
        base = None
        if reference:
            base = self._images(reference[0])[:, None]
        elif denoiser.rule == "mean" and count >= 3:
            base = images.median(dim=1, keepdim=True).values
        masks = None if base is None else (images - base).abs().amax(2) > self.threshold
        return Parts(images=images, masks=masks, whole=made[:, -1])

    def _chains(
        self,
        condition: Condition,
        owner: Tensor,
        noise: Tensor,
        copies: int,
        num_inference_steps: int | None,
        generator: torch.Generator | list[torch.Generator] | None,
        reference: list[Tensor] | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Samples (B * copies, C, H, W): `copies` chains from each noise (B, C, H, W), each of its own rows."""
        denoiser = self.model.denoiser
        defaults = self.model.defaults
        index = torch.arange(len(noise), device=noise.device).repeat_interleave(copies)
        started = False

        def predict(x: Tensor, timestep: Tensor, kind: Any) -> Tensor:
            composed = compose_rows(denoiser, shared(x, timestep), condition, owner, weight)
            levels = denoiser.noised_space.levels(timestep, composed.dtype)
            return convert(composed, x, *levels, source=denoiser.prediction_type, target=kind)

        def shared(x: Tensor, timestep: Tensor) -> Trunk:
            nonlocal started
            if started:
                return trunk(denoiser, x, timestep)
            started = True
            once = trunk(denoiser, x[::copies], timestep[::copies])
            if reference is not None:
                reference.append(self._unconditional(once))
            features = None if once.features is None else tuple(part[index] for part in once.features)
            return Trunk(x, timestep, features)

        kind = denoiser.prediction_type
        clipped = denoiser.noised_space.value_range
        scheduler = make_scheduler(
            defaults.scheduler, denoiser.alphas_cumprod, prediction_type=kind, value_range=clipped
        )
        return sample(
            predict,
            (len(index), *denoiser.sample_shape),
            scheduler,
            num_inference_steps=defaults.num_inference_steps if num_inference_steps is None else num_inference_steps,
            initial=noise[index],
            progress=False,
            generator=[generator[k] for k in index.tolist()] if isinstance(generator, list) else generator,
        )

    def _unconditional(self, shared: Trunk) -> Tensor:
        """The prediction of x0 (B, C, H, W) without any part."""
        denoiser = self.model.denoiser
        device = shared.sample.device
        null = Condition.unconditional(*denoiser.token_shape, rows=len(shared), device=device)
        u = rows(denoiser, shared, null, torch.arange(len(shared), device=device))
        levels = denoiser.noised_space.levels(shared.timestep, u.dtype)
        return convert(u, shared.sample, *levels, source=denoiser.prediction_type, target="sample")

    def _noise(self, batch: int, generator: Generator) -> Tensor:
        denoiser = self.model.denoiser
        return draw_noise((batch, *denoiser.sample_shape), generator=generator, device=denoiser.device)

    @torch.no_grad()
    def _images(self, samples: Tensor) -> Tensor:
        codec = self.model.denoiser.codec
        return (samples if codec is None else codec.decode(samples)).clamp(-1, 1)


def _check_weights(weights: Any, batch: int, count: int) -> Tensor:
    shapes = ((count,), (batch, count))
    legal = isinstance(weights, Tensor) and weights.shape in shapes and weights.is_floating_point()
    if not legal or not bool(torch.isfinite(weights).all()):
        expected = f"expected a tensor ({count},) or ({batch}, {count}) of finite numbers; give one a part"
        raise InputError(f"got weights {weights!r}; {expected}")
    return weights.expand(batch, count)
