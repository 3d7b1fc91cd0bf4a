"""The attributes of an answer, read last: with more draws, and each component at a place that suits its attributes.

An attribute fits best at the place that a component has with it. So what is uncertain is read at places where it is
left open, and a component moves once it is read.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from energycomp.inference import AttributeErrors, Problem, QuadraticForm, read_attributes
from energycomp.inference.attributes import DRAWS
from energycomp_solvers.search.hypothesis import LOW_NOISE, Hypothesis
from energycomp_solvers.search.residual import overlap
from energycomp_solvers.search.runner_up import Rival, least_certain
from energycomp_solvers.search.swap import swap_attributes

SEEDS = (1, 2)  # of the draws of the two turns: they are the same whatever the search has spent
TIED = 1e-6  # draws of attributes that are tied again


def read_last(hypothesis: Hypothesis, settled: Sequence[Tensor] | None = None) -> tuple[Hypothesis, bool]:
    """The components with attributes that are read with more draws, and whether some were swapped all at once.

    What is uncertain is read at a place that favours no word, on draws that are the same whatever the search has spent,
    and what is uncertain then is read again: an answer hardly depends on the way of the search. After proposals, words
    of settled values are certain, and others need the second turn alone, since they were read at a good place before.
    """
    known = hypothesis.attribute_errors
    if known is None:
        return hypothesis, False
    space = hypothesis.space
    problem = space.problem
    certain = space.options.certain
    before = (hypothesis.values, hypothesis.whole)
    is_open = torch.ones(len(hypothesis), dtype=torch.bool)
    # First turn: what is in doubt is forgotten, and read again
    if settled is None:
        is_uncertain = find_uncertain(problem, known, certain[0])
        known = known.forget(is_uncertain.any(1), place_openly(hypothesis, known.values, is_uncertain))
        known = read_attributes(problem, hypothesis.values, known=known, sweeps=1, generator=SEEDS[0])
        hypothesis = settle(hypothesis, known.values)
    else:
        is_open = torch.tensor([not any(map(value.equal, settled)) for value in hypothesis.values], dtype=torch.bool)
    # Attributes that fit better together
    is_uncertain = find_uncertain(problem, known, certain[1])
    which = (is_open & (known.draws > 0)).nonzero()[:, 0].tolist()
    hypothesis, swapped = swap_attributes(hypothesis, known, is_uncertain, before, which)
    is_swapped = torch.zeros(len(hypothesis), dtype=torch.bool)
    is_swapped[swapped] = True
    known = known.forget(is_swapped, hypothesis.values)
    # Second turn: what is uncertain now, and what was swapped
    is_uncertain = find_uncertain(problem, known, certain[1]) & (is_open | is_swapped)[:, None]
    places = place_openly(hypothesis, known.values, is_uncertain, None if settled is None else 1)
    known = _tie(problem, known, is_uncertain, places, space.options.rival_place)
    if bool((known.draws < 1).any()):
        draws, sweeps = (DRAWS, 2) if settled is None else (space.options.confirm_draws, 1)
        known = read_attributes(problem, hypothesis.values, known=known, draws=draws, sweeps=sweeps, generator=SEEDS[1])
        hypothesis = settle(hypothesis, known.values)
    return attrs.evolve(hypothesis, known=known, validated=_validated(hypothesis)), bool(swapped)


def rival_attribute(hypothesis: Hypothesis) -> Rival | None:
    """The component whose attribute is least certain with its next best word, at a place that suits this one."""
    known = hypothesis.attribute_errors
    space = hypothesis.space
    rival = None if known is None else least_certain(space.problem, known)
    if rival is None or (space.problem.posterior.beta is not None and rival.behind > space.options.rival_certain):
        return rival
    # The best numbers with this word, by the draws that locate
    values = torch.cat([hypothesis.values, rival.value[None]])
    own = space.problem.quadratic(rival.value[None], space.parts[LOW_NOISE])
    chosen = [len(hypothesis) if k == rival.component else k for k in hypothesis.components]
    form = hypothesis.forms[LOW_NOISE].append(own)
    atoms, _, chosen = space.newton_step(values, form, chosen, [rival.component], LOW_NOISE)
    return attrs.evolve(rival, value=atoms[chosen[rival.component]])


def place_openly(hypothesis: Hypothesis, values: Tensor, is_uncertain: Tensor, steps: int | None = None) -> Tensor:
    """Values (K, V) at the places that they, and those beside them, have with uncertain attributes (K, A) left open.

    `steps` are the most Gauss-Newton steps, those of the options if left out.
    """
    space = hypothesis.space
    problem = space.problem
    support = space.attributes
    which = is_uncertain.any(1).nonzero()[:, 0].tolist()
    if support is None or not which:
        return values
    # Leave open what is uncertain
    numbers, codes = support.split(values)
    left_open = codes.clone()
    left_open[:, : len(support.words)][is_uncertain.to(codes.device)] = 0
    atoms, form, chosen = _append_changed(hypothesis, support.joined(numbers, left_open))
    # Move these and what is beside them, until a step gains nothing
    shown = hypothesis.whole.atoms.square().mean(0).sqrt()
    near = overlap(shown, shown[which], space.channels).amax(1) > space.options.beside
    moving = sorted({*which, *near.nonzero()[:, 0].tolist()})
    for _ in range(space.options.settle_steps if steps is None else steps):
        before = form.mean_objective(chosen)
        atoms, form, chosen = space.newton_step(atoms, form, chosen, moving)
        after = form.mean_objective(chosen)
        if problem.posterior.gap(after, before - after) < space.options.settled:
            break
    numbers, _ = support.split(atoms[chosen])
    return support.joined(numbers, codes)


def settle(hypothesis: Hypothesis, values: Tensor) -> Hypothesis:
    """Gives components the attributes of values (K, V) where these differ, and numbers that suit them."""
    length = hypothesis.space.length
    differs = (values[:, length:] != hypothesis.values[:, length:]).any(1)
    changed = differs.nonzero()[:, 0].tolist()
    if not changed:
        return hypothesis
    new = torch.where(differs[:, None], values, hypothesis.values)
    return hypothesis.at(*_append_changed(hypothesis, new)).move(changed)


def find_uncertain(problem: Problem, known: AttributeErrors, certain: float) -> Tensor:
    """Which attributes (K, A) that something is known of have a posterior below a limit; none without one."""
    if problem.posterior.beta is None:
        return torch.zeros(len(known.values), len(known.errors), dtype=torch.bool)
    return (known.certainty(problem.posterior) < certain) & (known.draws > 0)[:, None]


def _append_changed(hypothesis: Hypothesis, values: Tensor) -> tuple[Tensor, QuadraticForm, list[int]]:
    """The components and those of other values (K, V) that differ, the form over all, and which are these values."""
    changed = (values != hypothesis.values).any(1).nonzero()[:, 0].tolist()
    new = values[changed]
    chosen = [len(values) + changed.index(k) if k in changed else k for k in hypothesis.components]
    return torch.cat([hypothesis.values, new]), hypothesis.whole.append(hypothesis.space.quadratic(new)), chosen


def _tie(
    problem: Problem, known: AttributeErrors, is_uncertain: Tensor, values: Tensor, close: float
) -> AttributeErrors:
    """Attributes at other values (K, V), of which uncertain ones (K, A) are tied again; what is far behind stays so."""
    errors = []
    for attribute, each in enumerate(known.errors):
        nats = problem.posterior.nats(each)
        is_near = nats - nats.amin(1, keepdim=True) < close
        is_tied = is_uncertain[:, attribute : attribute + 1] & is_near
        errors.append(torch.where(is_tied, each.amin(1, keepdim=True), each))
    return AttributeErrors(values, tuple(errors), torch.where(is_uncertain.any(1), TIED, known.draws))


def _validated(hypothesis: Hypothesis) -> QuadraticForm | None:
    return hypothesis.validated if hypothesis.is_validated else None
