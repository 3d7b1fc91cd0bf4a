"""What objects leave open is drawn before an image is sampled, so that no network averages over it.

One number of the caller's generator seeds all of it: neither the noise of sample i nor what is drawn for it depends on
how many samples there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor, nn

from energycomp.components import (
    AnyWeight,
    Composition,
    Condition,
    Weight,
    combine,
    compositions_in,
    identifies_null,
    unwrap,
)
from energycomp.components.groups import rewrap
from energycomp.denoisers import Conditional
from energycomp.sampling import shown_by
from energycomp.seeds import derived_seed

if TYPE_CHECKING:
    from energycomp_clevr.objects import Objects

SEEDS = 2**62


def draw_open(
    objects: Objects, composition: Composition, n: int, generators: Sequence[torch.Generator | None]
) -> Composition:
    """The composition of n samples with turns and views drawn for each of them.

    Components of weights below 0 stay as they are: what is ruled out is ruled out whatever its turn is. The view is one
    component more, and costs one network evaluation more per sample and step.

    Args:
        generators: one, or one for each sample.
    """
    if len(generators) not in (1, n):
        return composition  # sampling says what is wrong
    seeds = []
    for one in generators:
        device = None if one is None else one.device
        seeds.append(int(torch.randint(SEEDS, (), generator=one, device=device)))
    # Fill each component in turn: its place among those of a sample says what is drawn for it.
    filled: dict[int, Any] = {}
    before = torch.zeros(n, dtype=torch.long)  # components of each sample so far
    for leaf, weight in _shown_leaves(composition):
        bare = unwrap(leaf)
        if isinstance(bare, Conditional) and id(leaf) not in filled:
            filled[id(leaf)] = rewrap(leaf, _fill(bare, objects, seeds, before))
        before = before + shown_by(weight, n)
    # Add the view.
    return _rebuild(composition, filled, _view_of(composition, objects, n, seeds))


def shown_conditions(composition: Composition, network: nn.Module, n: int) -> list[Condition] | None:
    """The rows that each of n samples shows, after a null row; None where not all leaves are of this network."""
    shown: list[list[Condition]] = [[] for _ in range(n)]
    nothing = None
    for leaf, weight in composition.terms.items():
        if not isinstance(leaf, Conditional) or leaf.denoiser.network is not network:
            return None
        rows = leaf.condition.expand(n)
        nothing = Condition.unconditional(*rows.shape, device=rows.rows.device)
        for number in shown_by(weight, n).nonzero()[:, 0].tolist():
            shown[number].append(rows[number : number + 1])
    return None if nothing is None else [Condition.cat([nothing, *one]) for one in shown]


def _shown_leaves(composition: Composition) -> list[tuple[Any, AnyWeight]]:
    """The leaves that samples show, in the order of the composition: those of weights above 0."""
    shown: list[tuple[Any, AnyWeight]] = []
    for leaf, weight in composition.terms.items():
        inside = compositions_in(leaf)
        for part in inside:
            shown += _shown_leaves(part)
        if inside:
            continue
        if isinstance(weight, Weight) or weight > 0:
            shown.append((leaf, weight))
    return shown


def _generators(seeds: Sequence[int], number: object) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(derived_seed(seed, number)) for seed in seeds]


def _fill(leaf: Conditional, objects: Objects, seeds: Sequence[int], numbers: Tensor) -> Conditional:
    """The leaf with a value for each of n samples where something is drawn, else itself.

    `numbers` (n,) is the place of the leaf among the components of each sample: what is drawn depends on nothing else.
    """
    values = leaf.values
    n = len(numbers)
    if values is None or tuple(values.shape[1:]) != objects.value_shape or n % len(values):
        return leaf
    # A row for each sample, and the rows of each generator.
    each = values.cpu()[torch.arange(n) % len(values)]
    parts = each.split(n // len(seeds))
    new = each.clone()
    for number in numbers.unique().tolist():
        pairs = zip(parts, _generators(seeds, number), strict=True)
        here = numbers == number
        new[here] = torch.cat([objects.draw_open(part, generator) for part, generator in pairs])[here]
    # A leaf that leaves nothing open costs what it costs for all samples together.
    if new.equal(each):
        return leaf
    new = new.to(values)
    return attrs.evolve(leaf, condition=objects(new), values=new)


def _view_of(composition: Composition, objects: Objects, n: int, seeds: Sequence[int]) -> Conditional | None:
    """Camera and lamp as one more component; None where the components say them, or cannot be composed with one."""
    leaves = _leaves(composition)
    conditional = [leaf for leaf in leaves if isinstance(leaf, Conditional)]
    if len({id(leaf.denoiser) for leaf in conditional}) != 1 or len(conditional) < len(leaves):
        return None
    denoiser = conditional[0].denoiser
    if not identifies_null(denoiser.rule):
        return None
    said = [leaf.condition for leaf in conditional]
    rows = []
    for generator in _generators(seeds, "around"):
        view = objects.draw_view(said, n // len(seeds), generator)
        if view is None:
            return None
        rows.append(view)
    return Conditional(denoiser, Condition.cat(rows).to(denoiser.device), "surroundings")


def _leaves(composition: Composition) -> list[Any]:
    """All leaves; where some are mixtures or observed compositions, those inside of these."""
    inside = [part for leaf in composition.terms for part in compositions_in(leaf)]
    if not inside:
        return list(composition.terms)
    leaves = []
    for part in inside:
        leaves += _leaves(part)
    return leaves


def _rebuild(composition: Composition, filled: dict[int, Any], view: Conditional | None) -> Composition:
    """The composition with other leaves, and with the view in it, or in each image of a mixture."""
    terms: list[tuple[Any, AnyWeight]] = []
    has_compounds = False
    for leaf, weight in composition.terms.items():
        if inside := compositions_in(leaf):
            has_compounds = True
            terms.append((leaf.remade([_rebuild(part, filled, view) for part in inside]), weight))
        else:
            terms.append((filled.get(id(leaf), leaf), weight))
    made = Composition(terms)
    return made if view is None or has_compounds else combine([made, view], "product")
