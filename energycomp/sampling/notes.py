"""What to warn of beside samples: more components than a model knows, and samples that leave the data."""

from __future__ import annotations

from collections import Counter
from functools import reduce
from operator import or_

import torch
from torch import Tensor

from energycomp.components import AnyWeight, NoisedSpace, Weight
from energycomp.components.algebra import Composition
from energycomp.components.component import compositions_in
from energycomp.components.weights import LEAST_VALUE
from energycomp.denoisers.denoiser import Conditional
from energycomp.sampling.loop import SchedulerSampler
from energycomp.sampling.sampler import Sampler

FAR = 3.0  # times the value range, beyond which samples are warned of
FAR_NUMBERS = 30.0  # standard deviations of numbers, likewise


def check_count(composition: Composition) -> list[str]:
    """A note for each model of which a sample has more components at once than the model knows."""
    notes = []
    for (name, most), count in _counts(composition).items():
        if count > most:
            got = f"got {count} components, more than the {most} that {name} knows"
            notes.append(f"{got}, so some may be missing; compose fewer")
    return notes


def _counts(composition: Composition) -> Counter[tuple[str, int]]:
    """By model, the components that a sample has at once. Negated ones do not count, and alternatives count once."""
    weights: dict[tuple[str, int], list[AnyWeight]] = {}
    for leaf, weight in composition.terms.items():
        if isinstance(leaf, Conditional) and leaf.known is not None:
            weights.setdefault(leaf.known, []).append(weight)
    counts = Counter({known: _most(own, composition.noised_space.sample_shape) for known, own in weights.items()})
    # Of alternatives, those of the one that has the most.
    for leaf in composition.terms:
        if inside := compositions_in(leaf):
            counts += reduce(or_, map(_counts, inside))
    return counts


def _most(weights: list[AnyWeight], shape: tuple[int, ...]) -> int:
    """How many of the weights are above 0 somewhere, in the sample of a batch that has the most."""
    count = torch.zeros(1, dtype=torch.long)  # of each sample, or the same for all
    for weight in weights:
        if not isinstance(weight, Weight):
            count = count + int(weight > 0)
            continue
        # Over pixels, then over the noise levels of each sample
        largest = weight.everywhere(shape).flatten(1).amax(1)
        count = count + (largest.reshape(-1, weight.samples or 1).amax(0) > LEAST_VALUE)
    return int(count.max())


def check_range(samples: Tensor, space: NoisedSpace, sampler: Sampler) -> list[str]:
    """A note where samples leave the data by far; none where neither a range nor a processor tells."""
    if space.value_range is None and space.places is None:
        return []
    most = float(samples.abs().max())
    reach = FAR * space.value_range[1] if space.value_range else FAR_NUMBERS
    if most <= reach:
        return []
    # What to try: another scheduler, or more steps.
    data = "standard deviations of the data" if space.places else f"of data in {space.value_range}"
    other = "EulerDiscreteScheduler" if space.value_range is None else "DDPMScheduler"
    takes_another = isinstance(sampler, SchedulerSampler) and sampler.scheduler != other
    instead = f"scheduler={other!r}" if takes_another else "more num_inference_steps"
    return [f"samples reach {most:.3g} {data}; expected {reach:g} at most; try {instead} or lower weights"]
