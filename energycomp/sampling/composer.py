"""Composer: components and a rule, as one thing that predicts noise, has an energy, and is sampled from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, Literal, cast

import torch
from torch import Tensor

from energycomp.components.component import Composition, Conditional, HasEnergy, Rule, combine
from energycomp.denoisers.denoiser import Codec, PredictionType
from energycomp.denoisers.evaluator import native_type, predict
from energycomp.errors import CompositionError, InputError
from energycomp.images import to_output
from energycomp.sampling.sampler import sample
from energycomp.sampling.schedulers import make_scheduler

__all__ = ["Composer"]


class Composer:
    """The product of components, as an energy component of its own.

    Args:
        components: leaves or compositions to compose, or one composition to take as it is.
        rule: "sum", "mean" or "product"; that of the components' denoiser when left out.

    Raises:
        CompositionError: components of different spaces or schedules, or of denoisers with different rules.

    >>> from energycomp.testing import tiny_model
    >>> model = tiny_model()
    >>> composer = Composer([model(0.2, 0.2), model(0.8, 0.8)])
    >>> composer
    Composer(-u + tiny(0.2, 0.2) + tiny(0.8, 0.8))
    >>> composer.sample(2, num_inference_steps=2, output_type="pt", progress=False).shape
    torch.Size([2, 3, 16, 16])
    """

    def __init__(self, components: Any, *, rule: Rule | None = None) -> None:
        if isinstance(components, Sequence):
            parts = [Composition.of(component) for component in components]
            self.composition = combine(parts, rule or _rule_of(parts))
        elif rule is not None:
            raise CompositionError("got a rule for one composition; expected a list to compose; leave the rule out")
        else:
            self.composition = Composition.of(components)
        if not self.composition.terms:
            raise CompositionError("got a composition without components; expected at least one of weight not 0")
        self._first = next(iter(self.composition.terms))

    def __repr__(self) -> str:
        return f"Composer({self.composition!r})"

    @property
    def alphas_cumprod(self) -> Tensor:
        """The noise schedule (T,) that the components share."""
        return cast("Tensor", self._first.alphas_cumprod)

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return cast("tuple[int, int, int]", self._first.sample_shape)

    @property
    def space(self) -> str:
        """The identity of the codec, or "pixels"."""
        return cast("str", self._first.space)

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Composed noise prediction (B, C, H, W). Costs one row a distinct leaf and sample, one trunk a sample."""
        return predict(self.composition, sample, timestep)

    def energy(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Weighted sum of the energies (B,); every leaf must have one.

        >>> from energycomp.testing import Gaussian
        >>> Composer(Gaussian(0.0) + Gaussian(0.0)).energy(torch.ones(1, 1, 1, 1), torch.zeros(1)) > 0
        tensor([True])
        """
        missing = [leaf for leaf in self.composition.terms if not isinstance(leaf, HasEnergy)]
        if missing:
            raise CompositionError(
                f"got {missing[0]!r}, which has no energy; expected components with `energy(sample, timestep)`; "
                "use `eps`"
            )
        parts = [weight * leaf.energy(sample, timestep) for leaf, weight in self.composition.terms.items()]
        return cast("Tensor", sum(parts))

    def sample(
        self,
        n: int = 1,
        *,
        generator: torch.Generator | list[torch.Generator] | None = None,
        num_inference_steps: int = 50,
        scheduler: Any = "DDIMScheduler",
        output_type: str = "pil",
        callback_on_step_end: Callable[[int, Any, dict[str, Tensor]], dict[str, Tensor] | None] | None = None,
        mixed_precision: Literal["no", "bf16"] = "no",
        progress: bool = True,
    ) -> Any:
        """Samples of the composed distribution. Costs n rows a leaf and step; every step is one batch.

        Args:
            n: how many.
            generator: one, or a list of n, to make the result repeatable.
            num_inference_steps: steps of the scheduler.
            scheduler: name, class or instance of a diffusers scheduler over a variance-preserving schedule.
            output_type: "pil", "np" ((n, H, W, 3) in [0, 1]), "pt" ((n, 3, H, W) in [-1, 1]) or "latent".
            callback_on_step_end: `callback(step, timestep, {"sample": x_t})`, as in diffusers.
            mixed_precision: "bf16" runs networks in bfloat16; sums, scheduler and codec stay in float32. Where the
                processor has bfloat16 it is faster (`benchmarks/where_time_goes.py`) and changes a sample little.
            progress: whether to show a bar.

        Raises:
            NonFiniteError: naming the component and the step whose prediction is not finite.
        """
        if n < 1 or num_inference_steps < 1:
            raise InputError(f"got n={n} and num_inference_steps={num_inference_steps}; expected at least 1 of each")
        if output_type not in ("pil", "np", "pt", "latent"):
            raise InputError(f"got output_type {output_type!r}; expected 'pil', 'np', 'pt' or 'latent'")
        if mixed_precision not in ("no", "bf16"):
            raise InputError(f"got mixed_precision {mixed_precision!r}; expected 'no' or 'bf16'")
        device = self._device()

        def predicted(x: Tensor, timestep: Tensor, prediction_type: str) -> Tensor:
            with torch.autocast(device.type, torch.bfloat16) if mixed_precision == "bf16" else nullcontext():
                return predict(self.composition, x, timestep, prediction_type=cast("PredictionType", prediction_type))

        chosen = make_scheduler(
            scheduler, self.alphas_cumprod, prediction_type=native_type(self.composition), clip=self.space == "pixels"
        )
        with torch.no_grad():
            samples = sample(
                predicted,
                (n, *self.sample_shape),
                chosen,
                num_inference_steps=num_inference_steps,
                generator=generator,
                callback_on_step_end=callback_on_step_end,
                progress=progress,
                device=device,
            )
            if output_type == "latent":
                return samples
            codec = self._codec()
            return to_output(samples if codec is None else codec.decode(samples), output_type)

    def _device(self) -> torch.device:
        return self._first.denoiser.device if isinstance(self._first, Conditional) else self.alphas_cumprod.device

    def _codec(self) -> Codec | None:
        return self._first.denoiser.codec if isinstance(self._first, Conditional) else None


def _rule_of(parts: Sequence[Composition]) -> Rule:
    rules = {leaf.denoiser.rule for part in parts for leaf in part.terms if isinstance(leaf, Conditional)}
    if len(rules) > 1:
        raise CompositionError(
            f"got components of denoisers with the rules {sorted(rules)}; expected one; say rule= explicitly"
        )
    return rules.pop() if rules else "sum"
