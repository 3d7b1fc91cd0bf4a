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

FAR = (3.0, 30.0)  # times the value range, or standard deviations of numbers: samples beyond are warned of


def crowded(composition: Composition) -> list[str]:
    """A note for each model of which a sample has more components at once than the model knows.

    >>> from energycomp.testing import tiny_model
    >>> model = tiny_model(counts=(0, 2))
    >>> crowded(model.compose([(0.1, 0.1), (0.5, 0.5), (0.9, 0.9)]))
    ['got 3 components, more than the 2 that tiny knows, so some may be missing; compose fewer']
    """
    return [
        f"got {count} components, more than the {most} that {name} knows, so some may be missing; compose fewer"
        for (name, most), count in _counts(composition).items()
        if count > most
    ]


def _counts(composition: Composition) -> Counter[tuple[str, int]]:
    """By model, the components that a sample has at once. Negated ones do not count, and alternatives count once."""
    leaves = [(leaf, weight) for leaf, weight in composition.terms.items() if isinstance(leaf, Conditional)]
    known = {leaf.known for leaf, _ in leaves if leaf.known is not None}
    # Components of the composition itself.
    found: Counter[tuple[str, int]] = Counter()
    for one in known:
        weights = [weight for leaf, weight in leaves if leaf.known == one]
        found[one] = _most(weights, composition.noised_space.sample_shape)
    # Of alternatives, those of the one that has the most.
    for leaf in composition.terms:
        if inside := compositions_in(leaf):
            found += reduce(or_, map(_counts, inside))
    return found


def _most(weights: list[AnyWeight], shape: tuple[int, ...]) -> int:
    """How many of the weights are above 0 somewhere, in the sample of a batch that has the most."""
    count = torch.zeros(1, dtype=torch.long)  # of each sample, or the same for all
    for weight in weights:
        count = count + (_above(weight, shape) if isinstance(weight, Weight) else int(weight > 0))
    return int(count.max())


def _above(weight: Weight, shape: tuple[int, ...]) -> Tensor:
    """Whether a weight is above 0 at any pixel and noise level, for each sample (N,) or for all of them (1,)."""
    # Over pixels, then over the noise levels of each sample
    largest = weight.everywhere(shape).flatten(1).amax(1)
    return largest.reshape(-1, weight.samples or 1).amax(0) > LEAST_VALUE


def strayed(samples: Tensor, space: NoisedSpace, sampler: Sampler) -> list[str]:
    """A note where samples leave the data by far; none where neither a range nor a processor tells."""
    # How far they reach, and how far data do, by their range or by their standard deviation.
    if space.value_range is None and space.places is None:
        return []
    most = float(samples.abs().max())
    reach = FAR[0] * space.value_range[1] if space.value_range else FAR[1]
    if most <= reach:
        return []
    # What to try: another scheduler, or more steps.
    data = "standard deviations of the data" if space.places else f"of data in {space.value_range}"
    other = "EulerDiscreteScheduler" if space.value_range is None else "DDPMScheduler"
    takes_another = isinstance(sampler, SchedulerSampler) and sampler.scheduler != other
    instead = f"scheduler={other!r}" if takes_another else "more num_inference_steps"
    return [f"samples reach {most:.3g} {data}; expected {reach:g} at most; try {instead} or lower weights"]
