"""What `Composer.sample` is asked for, what the models of the components say where it is left out, and the target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, Literal, TypedDict

from torch import Tensor

from energycomp.components import SamplingDefaults, Weight, ability, agreed
from energycomp.components.algebra import Composition
from energycomp.components.groups import unwrap
from energycomp.denoisers.denoiser import Conditional
from energycomp.errors import InputError
from energycomp.fields import is_whole
from energycomp.sampling.guidance import LinearGuidance, check_sampled
from energycomp.sampling.loop import SchedulerSampler
from energycomp.sampling.sampler import Sampler, SamplingReport
from energycomp.sampling.target import Target, inner_leaves
from energycomp.seeds import Generator, as_generators

OUTPUT_TYPES = ("pil", "np", "pt", "latent")


class Options(TypedDict, total=False):
    """Keywords of `Composer.sample` that do not change the type of its result."""

    generator: Generator
    num_inference_steps: int | None
    scheduler: Any
    sampler: str | Sampler | None
    guidance: Any
    guidance_scale: float | None
    prior: Any
    report: Callable[[SamplingReport], object] | None
    callback_on_step_end: Callable[..., Any] | None
    mixed_precision: Literal["no", "bf16"]
    progress: bool


_SIZE = "expected none: the model says the size; give a pipeline's when it is loaded, as load(..., image_size=512)"
INSTEAD = {  # what pipelines of diffusers take, and what does it here
    "height": _SIZE,
    "width": _SIZE,
    "prompt": "expected components: Composer([model('a dog')])",
    "negative_prompt": "expected a negated component: model('a dog') & ~model('rain')",
    "num_images_per_prompt": "expected n=, the number of samples",
    "seed": "expected generator=, a seed or a torch.Generator",
    "steps": "expected num_inference_steps=",
}


def sampling_of(composition: Composition) -> SamplingDefaults:
    """What the models of all leaves agree on, those on a part included; u, which models may share, counts alone."""
    # Leaves at the timesteps of their own schedule.
    own = attrgetter("noised_space.alphas_cumprod")
    seen = [leaf for leaf in inner_leaves(composition) if own(leaf) is own(unwrap(leaf))]
    leaves = [leaf for leaf in map(unwrap, seen) if isinstance(leaf, Conditional)]
    # Those of a condition; u where there are no others.
    conditioned = [leaf for leaf in leaves if not bool(leaf.condition.null.all())]
    values = [leaf.sampling for leaf in conditioned or leaves]
    return agreed(value for value in values if value is not None)


def check_names(others: Mapping[str, Any]) -> None:
    """Raises `InputError` for a name that is no option, with what does it here."""
    for name in others:
        raise InputError(f"got {name}=; {INSTEAD.get(name, 'expected an argument of help(Composer.sample)')}")


def batch_of(composition: Composition) -> int:
    """The number of samples whose compositions differ; 1 for one composition."""
    weights = [weight for weight in composition.terms.values() if isinstance(weight, Weight)]
    return max((weight.samples or 1 for weight in weights), default=1)


def check_numbers(n: Any, num_inference_steps: Any) -> None:
    """Raises `InputError` for what is no number of samples, or of steps."""
    if not all(is_whole(number) and number >= 1 for number in (n, num_inference_steps)):
        raise InputError(f"got {n=} and {num_inference_steps=}; expected whole numbers of at least 1, such as n=4")


def check_output(output_type: str, sample_shape: tuple[int, ...]) -> None:
    """Raises `InputError` for an unknown type, or images of samples that are none."""
    if output_type not in OUTPUT_TYPES:
        raise InputError(f"got output_type {output_type!r}; expected one of {OUTPUT_TYPES}")
    if output_type == "pil" and len(sample_shape) != 3:
        got = f"got output_type 'pil' for samples of shape {sample_shape}"
        raise InputError(f"{got}; expected images (1 or 3, H, W); use output_type 'np' or 'pt'")


def prepare(composition: Composition, prior: Any, rows: int, generator: Generator) -> tuple[Composition, Generator]:
    """The composition with what is open drawn by a prior, for each sample or all, and the generator."""
    if not prior:
        return composition, generator
    if ability(prior, "prepare") is None:
        raise InputError(f"got prior={prior!r}; expected a conditioner that draws what is open, or False; leave it out")
    # What all samples share is drawn by the first generator of a list
    made = as_generators(generator)
    sources = made if isinstance(made, list) else [made]
    return prior.prepare(composition, rows, sources if rows > 1 else sources[:1]), made


def finisher(composition: Composition, decode: Callable[[Tensor], Tensor] | None) -> Callable[[Tensor], Tensor] | None:
    """What decodes samples of a composition, and has the network of its first component finish them."""
    finishes = [leaf.denoiser.finish for leaf in composition.terms if isinstance(leaf, Conditional)]
    if decode is None or not finishes or finishes[0] is None:
        return decode
    finish = finishes[0]
    return lambda samples: finish(composition, decode(samples))


def guided_target(
    composition: Composition, guidance: Any, sampler: Sampler, steps: int, precision: Literal["no", "bf16"]
) -> Target:
    """What is sampled: the composition with weights that guide it, or with what guides its predictions."""
    # A guidance that is a composition: samplers follow it as any other
    if isinstance(guidance, LinearGuidance):
        return Target(guidance.weighted(composition), precision)
    # Another one changes predictions, which the loop of a scheduler alone takes
    if not isinstance(sampler, SchedulerSampler):
        check_sampled(guidance)
    return Target(composition, precision, None if guidance is None else guidance.guide(steps))
