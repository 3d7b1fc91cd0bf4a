"""Pictures into parts and parts into pictures: the Decomposer protocol, and diffusion as one.

A decomposer reads K latents from a picture, one a part, without being told what is in it (thesis chapter 4). What is
done with them is choosing rows, and works for any decomposer: see `energycomp.decomposition.latents`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast, runtime_checkable

import attrs
import torch
from torch import Tensor

from energycomp.components.conditioning import Condition
from energycomp.decomposition.latents import checked
from energycomp.denoisers.denoiser import convert, signal_noise
from energycomp.denoisers.evaluator import RowCount, Trunk, count_rows, rows, trunk
from energycomp.errors import InputError
from energycomp.inference.quadratic import compose_rows
from energycomp.models.model import Model
from energycomp.sampling.sampler import Generator, sample
from energycomp.sampling.schedulers import make_scheduler

__all__ = [
    "Decomposer",
    "Decomposition",
    "DiffusionDecomposer",
    "Parts",
    "decompose",
    "decomposer_of",
    "sampler_of",
    "takes_apart",
]

THRESHOLD = 0.3  # of brightness in [-1, 1]: what differs by more from the picture without parts belongs to a part


@attrs.frozen(eq=False)
class Parts:
    """What latents show.

    Args:
        images: each part alone, (B, K, 3, H, W) in [-1, 1].
        masks: the pixels of each, (B, K, H, W) bool; None where nothing tells them.
        whole: all parts together, (B, 3, H, W).
    """

    images: Tensor
    masks: Tensor | None
    whole: Tensor


@runtime_checkable
class Decomposer(Protocol):
    """Reads parts from pictures, and makes pictures of parts.

    `num_inference_steps` is the decomposer's own where it is left out; one that needs no steps or no random numbers
    takes both arguments and ignores them.

    A decomposer that makes scenes of its own has `sample(n, *, generator) -> images`, too: (n, 3, H, W) in [-1, 1]. See
    `sampler_of`.
    """

    def encode(self, images: Any, *, generator: torch.Generator | None = None) -> Tensor:
        """Latents (B, K, D) of pictures, in any form that `ImageProcessor` takes."""
        ...

    def decode(self, latents: Tensor, *, generator: Generator = None, num_inference_steps: int | None = None) -> Tensor:
        """Pictures (B, 3, H, W) in [-1, 1] of latents (B, K', D), whatever K' of at least 1."""
        ...

    def parts(self, latents: Tensor, *, generator: Generator = None, num_inference_steps: int | None = None) -> Parts:
        """Each part of latents (B, K', D) alone, and all together."""
        ...


@attrs.frozen(eq=False)
class DiffusionDecomposer:
    """A model with an encoder as a decomposer: each latent conditions one component of a composed diffusion.

    Args:
        model: with an encoder, whose latents are values of its conditioner.
        threshold: of masks, in brightness; see `parts`.

    Raises:
        InputError: the model has no encoder.

    >>> from energycomp.testing import stripes_model
    >>> stripes = DiffusionDecomposer(stripes_model(parts=2))
    >>> picture = torch.zeros(1, 3, 16, 16)
    >>> picture[..., 8:] = 0.5
    >>> latents = stripes.encode(picture)
    >>> torch.allclose(stripes.decode(latents), picture)
    True
    """

    model: Model = attrs.field()
    threshold: float = THRESHOLD

    @model.validator
    def _check_model(self, _: Any, model: Model) -> None:
        if model.encoder is None:
            raise InputError(
                f"got the model {model.name!r}, which has no encoder; expected one that takes pictures apart; load "
                "'decomp', or train one: energycomp train decomp --data FOLDER"
            )

    @torch.no_grad()
    def encode(self, images: Any, *, generator: torch.Generator | None = None) -> Tensor:
        """Latents (B, K, D) of pictures. The encoder draws nothing."""
        del generator
        encoder = cast("torch.nn.Module", self.model.encoder)
        training = encoder.training
        try:
            latents: Tensor = encoder.eval()(self.model.encode(images))
        finally:
            encoder.train(training)
        return latents

    def decode(
        self,
        latents: Tensor,
        *,
        weights: Tensor | None = None,
        generator: Generator = None,
        num_inference_steps: int | None = None,
    ) -> Tensor:
        """Pictures (B, 3, H, W) of latents (B, K', D): one chain each.

        Costs B K' rows a step, and under the rule product, where weights do not sum to 1, B more.

        Args:
            weights: of the parts, (K',) or (B, K'): above 1 a part is stronger, below it weaker; 1 when left out.
        """
        latents = self._checked(latents)
        batch, count = latents.shape[:2]
        owner = torch.arange(batch, device=latents.device).repeat_interleave(count)
        noise = self._noise(batch, generator)
        weight = None if weights is None else _checked_weights(weights, batch, count).flatten()
        condition = self._condition(latents)
        return self._pictures(self._chains(condition, owner, noise, 1, num_inference_steps, generator, weight=weight))

    @torch.no_grad()
    def parts(self, latents: Tensor, *, generator: Generator = None, num_inference_steps: int | None = None) -> Parts:
        """A chain for each part and one for all of them, from one noise, as one batch.

        A mask holds the pixels in which a part differs from a reference, in any channel by more than the threshold:
        under the rule product from the unconditional prediction at the noisiest step, under mean from the median over
        the parts of a picture, of which there must be three; otherwise there is none. Costs B (K + 1) trunk passes
        a step, B in the first, in which all chains of a picture are still the same; and 2 B K rows, and B more where
        the rule needs the unconditional prediction.
        """
        latents = self._checked(latents)
        denoiser, (batch, count) = self.model.denoiser, latents.shape[:2]
        condition, noise = self._condition(latents), self._noise(batch, generator)
        chains = torch.arange(batch * (count + 1), device=latents.device).view(batch, count + 1)
        owner = torch.cat([chains[:, :-1].flatten(), chains[:, -1:].expand(-1, count).flatten()])
        both = Condition.cat([condition, condition])
        # From noise, eps tells nothing of x0: x0 is eps less x_t, over sqrt(alpha_bar), which is about 0.
        tells = denoiser.rule == "product" and denoiser.prediction_type != "epsilon"
        reference: list[Tensor] | None = [] if tells else None
        samples = self._chains(both, owner, noise, count + 1, num_inference_steps, generator, reference)
        pictures = self._pictures(samples).unflatten(0, (batch, count + 1))
        images, base = pictures[:, :-1], None
        if reference:
            base = self._pictures(reference[0])[:, None]
        elif denoiser.rule == "mean" and count >= 3:
            base = images.median(dim=1, keepdim=True).values
        masks = None if base is None else (images - base).abs().amax(2) > self.threshold
        return Parts(images=images, masks=masks, whole=pictures[:, -1])

    def _chains(
        self,
        condition: Condition,
        owner: Tensor,
        noise: Tensor,
        copies: int,
        num_inference_steps: int | None,
        generator: Generator,
        reference: list[Tensor] | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Samples (B * copies, C, H, W): `copies` chains from each noise (B, C, H, W), composed of their own rows.

        `reference`, where it is given, receives the unconditional prediction (B, C, H, W) of the first step.
        """
        denoiser, defaults = self.model.denoiser, self.model.defaults
        index = torch.arange(len(noise), device=noise.device).repeat_interleave(copies)
        started = False

        def predict(x: Tensor, timestep: Tensor, _: str) -> Tensor:
            nonlocal started
            if started:
                return compose_rows(denoiser, trunk(denoiser, x, timestep), condition, owner, weight)
            started = True
            once = trunk(denoiser, x[::copies], timestep[::copies])
            if reference is not None:
                reference.append(self._unconditional(once))
            features = None if once.features is None else tuple(part[index] for part in once.features)
            return compose_rows(denoiser, Trunk(x, timestep, features), condition, owner, weight)

        scheduler = make_scheduler(
            defaults.scheduler,
            denoiser.alphas_cumprod,
            prediction_type=denoiser.prediction_type,
            clip=denoiser.space == "pixels",
        )
        return sample(
            predict,
            (len(index), *denoiser.sample_shape),
            scheduler,
            num_inference_steps=num_inference_steps or defaults.num_inference_steps,
            initial=noise[index],
            progress=False,
            generator=generator if isinstance(generator, torch.Generator) else None,  # DDIM's steps draw nothing
        )

    def _unconditional(self, shared: Trunk) -> Tensor:
        """x0 (B, C, H, W) without any part."""
        denoiser, device = self.model.denoiser, shared.sample.device
        null = Condition.unconditional(*denoiser.token_shape, rows=len(shared), device=device)
        u = rows(denoiser, shared, null, torch.arange(len(shared), device=device))
        levels = signal_noise(denoiser.alphas_cumprod, shared.timestep, u.dtype)
        return convert(u, shared.sample, *levels, source=denoiser.prediction_type, target="sample")

    def _noise(self, batch: int, generator: Generator) -> Tensor:
        from diffusers.utils.torch_utils import randn_tensor

        if generator is None:
            generator = torch.Generator()
            generator.seed()
        shape = (batch, *self.model.denoiser.sample_shape)
        several = not isinstance(generator, torch.Generator)
        if several and len(cast("Sequence[Any]", generator)) != batch:
            raise InputError(f"got {len(cast('Sequence[Any]', generator))} generators; expected one or {batch}")
        chosen = list(cast("Sequence[Any]", generator)) if several else generator
        noise: Tensor = randn_tensor(shape, generator=chosen, device=self.model.denoiser.device)
        return noise

    def _condition(self, latents: Tensor) -> Condition:
        return self.model.conditioner(latents.flatten(0, 1))

    @torch.no_grad()
    def _pictures(self, samples: Tensor) -> Tensor:
        codec = self.model.denoiser.codec
        return (samples if codec is None else codec.decode(samples)).clamp(-1, 1)

    def _checked(self, latents: Tensor) -> Tensor:
        latents, width = checked(latents), self.model.conditioner.value_shape[-1]
        if latents.shape[2] != width:
            raise InputError(
                f"got latents of width {latents.shape[2]}; expected {width}, that of {self.model.name!r}; latents of "
                "one model mean nothing to another: compose leaves of both instead"
            )
        return latents.to(self.model.denoiser.device, torch.float32)


def _checked_weights(weights: Tensor, batch: int, count: int) -> Tensor:
    legal = weights.shape in ((count,), (batch, count)) and weights.is_floating_point()
    if not legal or not bool(torch.isfinite(weights).all()):
        raise InputError(
            f"got weights {tuple(weights.shape)} of {weights.dtype} for {count} parts of {batch} pictures; expected "
            f"finite numbers ({count},) or ({batch}, {count}); give one a part"
        )
    return weights.expand(batch, count)


@attrs.frozen(eq=False)
class Decomposition:
    """What `decompose` found.

    Args:
        latents: (B, K, D).
        parts: what each shows, and all of them.
        spent: network work.
    """

    latents: Tensor
    parts: Parts
    spent: RowCount


def decompose(
    images: Any,
    model: Model | Decomposer,
    *,
    generator: Generator = None,
    num_inference_steps: int | None = None,
) -> Decomposition:
    """Takes pictures apart: their latents, what each latent shows, and the picture that all of them make.

    Args:
        images: paths, Pillow images, arrays or tensors (B, 3, H, W) in [-1, 1].
        model: with an encoder, or any decomposer.
        generator: of the noise that chains start from; one, or one for each picture.
        num_inference_steps: of the chains; the model's own number.

    >>> from energycomp.testing import stripes_model
    >>> found = decompose(torch.rand(1, 3, 16, 16), stripes_model(parts=4))
    >>> found.latents.shape, found.parts.images.shape, found.parts.masks.shape
    (torch.Size([1, 4, 4]), torch.Size([1, 4, 3, 16, 16]), torch.Size([1, 4, 16, 16]))
    """
    decomposer = decomposer_of(model) if isinstance(model, Model) else model
    with count_rows() as spent:
        latents = decomposer.encode(images)
        parts = decomposer.parts(latents, generator=generator, num_inference_steps=num_inference_steps)
    return Decomposition(latents, parts, spent)


def takes_apart(model: Model) -> bool:
    """Whether `decomposer_of` has an answer: the model has an encoder, or a network with a decomposer of its own.

    >>> from energycomp.testing import stripes_model, tiny_model
    >>> takes_apart(stripes_model()), takes_apart(tiny_model())
    (True, False)
    """
    return model.encoder is not None or _own(model) is not None


def decomposer_of(model: Model) -> Decomposer:
    """What takes pictures apart with a model: its network's own `decomposer(model)`, or `DiffusionDecomposer`.

    >>> from energycomp.testing import stripes_model
    >>> type(decomposer_of(stripes_model())).__name__
    'DiffusionDecomposer'
    """
    own = _own(model)
    return DiffusionDecomposer(model) if own is None else own(model)


def sampler_of(model: Model) -> Callable[..., Tensor] | None:
    """What makes scenes of a model's own, `sample(n, *, generator)` of its decomposer; None where nothing does.

    >>> from energycomp.testing import stripes_model
    >>> sampler_of(stripes_model()) is None
    True
    """
    return getattr(decomposer_of(model), "sample", None) if takes_apart(model) else None


def _own(model: Model) -> Callable[[Model], Decomposer] | None:
    return getattr(model.denoiser.network, "decomposer", None)
