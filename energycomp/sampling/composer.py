"""Composer: components and a rule, as one component that is sampled from."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from types import SimpleNamespace
from typing import Any, Literal, TypeAlias, Unpack, cast, overload

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from energycomp.components import AnyWeight, EnergyComponent, NoisedSpace, Rule, group_of
from energycomp.components.algebra import Composable, Composition, combine
from energycomp.components.ledger import count_rows
from energycomp.errors import CompositionError, EnergycompWarning, InputError
from energycomp.images import decoded
from energycomp.plugins import object_of
from energycomp.progress import check_options, display
from energycomp.sampling.guidance import make_guidance
from energycomp.sampling.loop import SchedulerSampler, StepCallback, draw_samples
from energycomp.sampling.notes import check_count, check_range
from energycomp.sampling.options import (
    Options,
    batch_of,
    check_names,
    check_numbers,
    check_output,
    finisher,
    guided_target,
    prepare,
    sampling_of,
)
from energycomp.sampling.sampler import Run, Sampler, SamplingReport
from energycomp.seeds import Generator

Components: TypeAlias = EnergyComponent | Sequence[EnergyComponent] | Literal[0]
"""A list to compose, or one component; to a type checker, `sum` of components may be 0."""

# Names of a pipeline of diffusers that are elsewhere here.
ELSEWHERE = {
    "to": "move the model before it is composed, as in clevr.to('cuda')",
    "images": "composer(...).images has them, and composer.sample(...) returns them",
}


class Composer(Composable):
    """The composition of components by a rule, with `sample`. It is a component, and composes as its composition does.

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
    >>> composer & model(0.5, 0.5)
    -2 u + tiny(0.2, 0.2) + tiny(0.8, 0.8) + tiny(0.5, 0.5)
    >>> composer.sample(2, num_inference_steps=2, output_type="pt", progress=False).shape
    torch.Size([2, 3, 16, 16])

    Called as a pipeline of diffusers, it samples, too:

    >>> composer(2, num_inference_steps=2, output_type="pt", progress=False).images.shape
    torch.Size([2, 3, 16, 16])
    >>> composer.to("cuda")
    Traceback (most recent call last):
    AttributeError: 'Composer' object has no attribute 'to'; move the model before it is composed, as in ...
    """

    def __init__(self, components: Components, *, rule: Rule | None = None) -> None:
        if isinstance(components, Sequence):
            parts = [Composition.of(component) for component in components]
            self.composition = combine(parts, rule or _rule_of(parts))
        elif rule is not None:
            raise CompositionError("got a rule for one composition; expected a list to compose; leave the rule out")
        else:
            self.composition = Composition.of(cast("EnergyComponent", components))
        self._bar: dict[str, Any] = {}
        self._interrupt = False  # set by a callback, as with a pipeline of diffusers
        self.noised_space: NoisedSpace = self.composition.noised_space

    def __repr__(self) -> str:
        return f"Composer({self.composition!r})"

    def __getattr__(self, name: str) -> Any:
        hint = f"; {ELSEWHERE[name]}" if name in ELSEWHERE else ""
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}", name=name, obj=self)

    def __call__(self, n: int | None = None, *, return_dict: bool = True, **options: Any) -> Any:
        """`sample`, as a pipeline of diffusers is called: an object with `images`, or a tuple of one."""
        return self.sample(n, return_dict=return_dict, **options)

    @property
    def terms(self) -> Mapping[Any, AnyWeight]:
        """The leaves that it is a weighted sum of."""
        return self.composition.terms

    unconditional = property(attrgetter("composition.unconditional"))
    energy = property(attrgetter("composition.energy"))

    @overload
    def sample(
        self, n: int | None = None, *, output_type: Literal["pil"] = "pil", **options: Unpack[Options]
    ) -> list[Image.Image]: ...

    @overload
    def sample(self, n: int = 1, *, output_type: Literal["np"], **options: Unpack[Options]) -> NDArray[np.float32]: ...

    @overload
    def sample(self, n: int = 1, *, output_type: Literal["pt", "latent"], **options: Unpack[Options]) -> Tensor: ...

    @overload
    def sample(
        self, n: int | None = None, *, return_dict: bool, output_type: str = "pil", **options: Unpack[Options]
    ) -> Any: ...

    def sample(
        self,
        n: int | None = None,
        *,
        generator: Generator = None,
        num_inference_steps: int | None = None,
        scheduler: Any = None,
        sampler: str | Sampler | None = None,
        guidance: Any = None,
        guidance_scale: float | None = None,
        prior: Any = None,
        report: Callable[[SamplingReport], object] | None = None,
        output_type: str = "pil",
        callback_on_step_end: Callable[..., Any] | None = None,
        mixed_precision: Literal["no", "bf16"] = "no",
        progress: bool = True,
        return_dict: bool | None = None,
        **others: Any,
    ) -> Any:
        """Samples that follow the composed noise prediction. Costs n rows per leaf and step; every step is one batch.

        The sum of the scores of noised components is not the score of their noised product, so that samples do not
        follow the product of the components' densities in general; `docs/benchmarks/generating.md` measures by how
        much. What is left out is that of the components' model, see `Model.sampling`: without one, DDIM with 50 steps
        and no guidance. A sampler or a guidance that is given replaces the model's guidance.

        Args:
            n: the number of samples; 1 when left out, or the number of compositions of `per_sample`.
            generator: one, or a seed, or a list of n, to make the result repeatable.
            num_inference_steps: steps of the scheduler.
            scheduler: name, class or instance of a diffusers scheduler, see `make_scheduler`. For the default sampler.
            sampler: name or object of a sampler that corrects the samples, such as "smc"; by default the loop of the
                scheduler. `docs/sampling.md` compares them.
            guidance: name or object of a guidance, such as "apg", or a guider of diffusers. Samplers take those that
                are compositions, "cfg", "interval" and "attributes". `docs/sampling.md` has their formulas.
            guidance_scale: of a guidance by name; alone, it is that of "cfg": `guidance_scale * composition & u`.
            prior: what draws what components leave open before anything else, for each sample, or once for all samples
                with a sampler, which may exchange them; see `energycomp.components.prior_of`. False leaves it open: the
                network averages over it.
            report: called with the sampler's report once the run is done: costs, effective sample sizes, warnings. Its
                `notes` are Python warnings where it is left out.
            output_type: as in diffusers: "pil" (images of 1 or 3 channels), "np" ((n, H, W, C)) or "pt" ((n, C, H, W)),
                (n, ...) for data of other axes, with the value range clipped and mapped to [0, 1], or unchanged where
                the space has none; or "latent" (the samples of the noised space as they are).
            callback_on_step_end: `callback(composer, step, timestep, {"latents": x_t, "sample": x_t})`, as diffusers
                calls it, or without the composer. A mapping that it returns replaces the sample, under either name.
                `composer._interrupt = True` in it ends the run.
            mixed_precision: "bf16" runs networks in bfloat16; sums, scheduler and codec stay in float32.
            progress: whether to show a bar; see `set_progress_bar_config`, too.
            return_dict: for code written for diffusers: True gives an object with `images`, False a tuple of one.

        Raises:
            InputError: an option that cannot be, before anything is run.
            NonFiniteError: naming the component and the step whose prediction is not finite.

        >>> from energycomp.testing import tiny_model
        >>> model = tiny_model()
        >>> composer = Composer(model(0.2, 0.5) & model(0.8, 0.5))
        >>> images = composer.sample(2, generator=0, num_inference_steps=2, progress=False)
        >>> len(images), images[0].size
        (2, (16, 16))
        """
        check_names(others)
        # What is left out is what the models of the components say; a sampler or a guidance replaces their guidance.
        own = sampling_of(self.composition)
        if guidance is None and guidance_scale is None and sampler is None:
            guidance = own.guidance
            guidance_scale = own.guidance_scale
        if sampler is None and scheduler is None:
            sampler = own.sampler
            scheduler = own.scheduler if sampler is None else None
        if num_inference_steps is None:
            num_inference_steps = own.num_inference_steps
        n = batch_of(self.composition) if n is None else n
        prior = own.prior if prior is None else prior
        # Check what is asked for, before anything is run.
        check_numbers(n, num_inference_steps)
        check_output(output_type, self.noised_space.sample_shape)
        for name, called in (("callback_on_step_end", callback_on_step_end), ("report", report)):
            if called is not None and not callable(called):
                raise InputError(f"got {name}={called!r}; expected a function; leave it out, or pass one")
        if mixed_precision not in ("no", "bf16"):
            raise InputError(f"got mixed_precision {mixed_precision!r}; expected 'no' or 'bf16'")
        if sampler is not None and scheduler is not None:
            raise InputError(f"got {sampler=} and {scheduler=}; expected one of them; leave scheduler= out")
        # Turn names into objects.
        chosen: Sampler = SchedulerSampler(scheduler) if sampler is None else object_of("samplers", sampler)
        made = make_guidance(guidance, guidance_scale)
        # Draw what components leave open: for each sample, or once for all that a sampler may exchange.
        rows = n if isinstance(chosen, SchedulerSampler) else 1
        composition, generator = prepare(self.composition, prior, rows, generator)
        # Guide the composition, by its weights or by its predictions.
        target = guided_target(composition, made, chosen, num_inference_steps, mixed_precision)
        self._interrupt = False
        with torch.no_grad(), display(show=progress, **self._bar), count_rows() as spent:
            # Sample: noise becomes clean samples, level by level.
            run = Run(target, n, num_inference_steps, generator)
            callback = self._step(callback_on_step_end)
            sampled = draw_samples(chosen, run, callback_on_step_end=callback, progress=progress)
            # Report what it cost, and what to doubt.
            notes = [*sampled.report.notes, *check_count(self.composition)]
            notes += check_range(sampled.samples, self.noised_space, chosen)
            (report or _warn)(attrs.evolve(sampled.report, evaluations=spent.rows, notes=tuple(notes)))
            # Decode: latents to images, whose network may finish them, and to the type that was asked for.
            clipped = self.noised_space.value_range
            decode = finisher(composition, target.decode)
            samples = sampled.samples.to(target.network_device)
            images = decoded(samples, output_type, decode=decode, value_range=clipped)
        if return_dict is None:
            return images
        return SimpleNamespace(images=images) if return_dict else (images,)

    def set_progress_bar_config(self, **options: Any) -> None:
        """Shows the progress bars of `sample` with these options of tqdm from now on, as a pipeline of diffusers does.

        Each call, such as with `disable=True` or `ncols=80`, replaces the options of the one before; raises
        `InputError` for a name that tqdm does not have.
        """
        check_options(options)
        self._bar = options

    def _step(self, callback: Callable[..., Any] | None) -> StepCallback | None:
        """A callback of three arguments, or that of diffusers with four, as samplers call it."""
        if callback is None or _positional(callback) < 4:
            return callback

        def called(step: int, timestep: Any, tensors: dict[str, Tensor]) -> Mapping[str, Any]:
            given = tensors["sample"]
            returned = callback(self, step, timestep, {"latents": given, "sample": given}) or {}
            # A callback hands both names back, and changes the one that it knows
            changed = [returned[name] for name in ("latents", "sample") if returned.get(name, given) is not given]
            return {"sample": changed[0] if changed else given, "stop": self._interrupt}

        return called


def _warn(report: SamplingReport) -> None:
    for note in report.notes:
        warnings.warn(note, EnergycompWarning, stacklevel=3)  # the caller of `sample`


def _positional(callback: Callable[..., Any]) -> int:
    """How many arguments a callback takes by position; three where Python cannot tell."""
    try:
        parameters = inspect.signature(callback).parameters.values()
    except (TypeError, ValueError):
        return 3
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def _rule_of(parts: Sequence[Composition]) -> Rule:
    # Components without a network, such as Gaussians, go with any rule
    given = [group_of(leaf).rule for part in parts for leaf in part.terms]
    rules = {rule for rule in given if rule is not None}
    if len(rules) > 1:
        raise CompositionError(f"got components with the rules {sorted(rules)}; expected one; say rule= explicitly")
    return rules.pop() if rules else "sum"
