"""What components leave open is drawn before an image is sampled, so that no network averages over it.

One number of the caller's generator seeds all of it: the noise of sample i does not depend on how many samples there
are, and neither does what is drawn for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components import AnyWeight, Condition, Weight, combine, compositions_in, identifies_null, unwrap
from energycomp.components.algebra import Composition
from energycomp.components.groups import rewrap
from energycomp.denoisers.denoiser import Conditional
from energycomp.seeds import derived_seed

SEEDS = 2**62
SHARES = 20  # of the trajectory, at which weights are looked at


def drawn(composition: Composition, prior: Any, n: int, generators: Sequence[torch.Generator | None]) -> Composition:
    """The composition of n samples with what its components leave open drawn from a prior, for each sample anew.

    Components of weights below 0 stay as they are: what is ruled out is ruled out whatever its turn is. What an image
    has beside its components is one component more, and one network evaluation more per sample and step.

    Args:
        prior: the conditioner of the components.
        generators: one, or one for each sample.
    """
    if len(generators) not in (1, n):
        return composition  # sampling says what is wrong
    # One number of each generator seeds all that is drawn.
    seeds = [int(torch.randint(SEEDS, (), generator=one, device=_device(one))) for one in generators]
    # Components, in their order: each has a turn, which says what is drawn for it.
    changed: dict[int, Any] = {}
    before = torch.zeros(n, dtype=torch.long)  # components of each sample so far
    for leaf, weight in _shown(composition):
        bare = unwrap(leaf)
        if isinstance(bare, Conditional) and id(leaf) not in changed:
            changed[id(leaf)] = rewrap(leaf, _filled(bare, prior, seeds, before))
        before = before + shown_by(weight, n)
    # What images have beside their components.
    scene = _around(composition, prior, n, seeds)
    return _rebuilt(composition, changed, scene)


def _device(generator: torch.Generator | None) -> torch.device | None:
    return None if generator is None else generator.device


def _shown(composition: Composition) -> list[tuple[Any, AnyWeight]]:
    """The leaves that samples show, in the order of the composition: those of weights above 0."""
    found: list[tuple[Any, AnyWeight]] = []
    for leaf, weight in composition.terms.items():
        if inside := compositions_in(leaf):
            found += [one for part in inside for one in _shown(part)]
        elif isinstance(weight, Weight) or weight > 0:
            found.append((leaf, weight))
    return found


def shown_by(weight: AnyWeight, n: int) -> Tensor:
    """Which of n samples show a leaf of a weight, (n,), as 0 or 1.

    >>> shown_by(1.0, 2), shown_by(-1.0, 2)
    (tensor([1, 1]), tensor([0, 0]))
    """
    if not isinstance(weight, Weight):
        return torch.full((n,), int(weight > 0))
    if weight.samples is None or n % weight.samples:
        return torch.ones(n, dtype=torch.long)
    # Those in which the weight is above 0 anywhere on the trajectory
    seen = [weight.at(torch.full((n,), share / SHARES), (1, 1, 1)) for share in range(SHARES + 1)]
    return (torch.stack(seen).reshape(SHARES + 1, n) > 0).any(0).long()


def _seeded(seeds: Sequence[int], number: object) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(derived_seed(seed, number)) for seed in seeds]


def _filled(leaf: Conditional, prior: Any, seeds: Sequence[int], numbers: Tensor) -> Conditional:
    """The leaf with a value for each of n samples where the prior changes it, else itself.

    `numbers` (n,) is the place of the leaf among the components of each sample: what is drawn depends on nothing else.
    """
    values = leaf.values
    n = len(numbers)
    if values is None or tuple(values.shape[1:]) != tuple(prior.value_shape) or n % len(values):
        return leaf
    # A row for each sample, and the rows of each generator.
    each = values.cpu()[torch.arange(n) % len(values)]
    parts = each.split(n // len(seeds))
    # Draw for each turn that the leaf has in some of the samples.
    new = each.clone()
    for number in numbers.unique().tolist():
        found = [prior.drawn(part, one) for part, one in zip(parts, _seeded(seeds, number), strict=True)]
        new[numbers == number] = torch.cat(found)[numbers == number]
    # A leaf that leaves nothing open stays itself, and costs what it costs for all samples together.
    if new.equal(each):
        return leaf
    new = new.to(values)
    return attrs.evolve(leaf, condition=prior(new), values=new)


def _around(composition: Composition, prior: Any, n: int, seeds: Sequence[int]) -> Conditional | None:
    """What images have beside their components, as a component; None where the components say it, or cannot."""
    leaves = [leaf for part in _parts(composition) for leaf in part.terms]
    conditional = [leaf for leaf in leaves if isinstance(leaf, Conditional)]
    # Components of one denoiser alone, which can be composed with one more.
    denoisers = {id(leaf.denoiser): leaf.denoiser for leaf in conditional}
    if len(denoisers) != 1 or len(conditional) < len(leaves):
        return None
    denoiser = conditional[0].denoiser
    if not identifies_null(denoiser.rule):
        return None
    # Draw, for the samples of each generator; a prior may have nothing to say beside these conditions.
    conditions = [leaf.condition for leaf in conditional]
    found = [prior.around(conditions, n // len(seeds), one) for one in _seeded(seeds, "around")]
    rows = [one for one in found if one is not None]
    if len(rows) < len(found):
        return None
    return Conditional(denoiser, Condition.cat(rows).to(denoiser.device), "surroundings")


def _parts(composition: Composition) -> list[Composition]:
    """The composition, or those in the mixtures, and in the observed compositions, that are its leaves."""
    inside = [part for leaf in composition.terms for part in compositions_in(leaf)]
    return [one for part in inside for one in _parts(part)] if inside else [composition]


def _rebuilt(composition: Composition, changed: dict[int, Any], scene: Conditional | None) -> Composition:
    """The composition with other leaves, and with one more component in it, or in each of its `_parts`."""
    terms: list[tuple[Any, Any]] = []
    has_compounds = False
    for leaf, weight in composition.terms.items():
        if inside := compositions_in(leaf):
            # Each of its parts is an image, and has a scene of its own
            has_compounds = True
            terms.append((leaf.remade([_rebuilt(part, changed, scene) for part in inside]), weight))
        else:
            terms.append((changed.get(id(leaf), leaf), weight))
    made = Composition(terms)
    return made if scene is None or has_compounds else combine([made, scene], "product")
