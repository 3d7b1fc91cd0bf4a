"""The swap of attributes: other words for the components of an answer, all words of a component at once.

Attributes are read one after another, beside others as they were at that time. So two words may stay that are wrong
together, and a word may have been ruled out beside one that has changed since.

Notation: variable -> symbol
    swaps    values of one component: with other words where it is, and as it was before its attributes were read
    nats     beta (E of the answer with a swap - E of the answer)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from energycomp.inference import AttributeErrors, QuadraticForm
from energycomp_solvers.search.combinations import combinations
from energycomp_solvers.search.hypothesis import LOW_NOISE, Hypothesis
from energycomp_solvers.search.newton import shift, step_inwards


def swap_attributes(
    hypothesis: Hypothesis,
    known: AttributeErrors,
    is_uncertain: Tensor,
    before: tuple[Tensor, QuadraticForm],
    which: Sequence[int] | None = None,
) -> tuple[Hypothesis, list[int]]:
    """Swaps attribute combinations of some components, of all if left out, where the selection draws want others.

    Also returns the changed indices.

    `is_uncertain` attributes (K, A) are read again anyway. `before` has the components as they were, (K, V), and the
    form over them on all selection draws.
    """
    space = hypothesis.space
    which = hypothesis.components if which is None else which
    if space.attributes is None or space.problem.posterior.beta is None or not len(which):
        return hypothesis, []
    # Other words of each component, where it is
    swaps: list[Tensor] = []
    owners: list[int] = []
    for k in which:
        found = _other_words(hypothesis, known, is_uncertain[k], k)
        swaps.append(found)
        owners += [k] * len(found)
    tried = torch.cat(swaps)

    # Those that are close on one draw of low noise, each about at its own place, see all draws
    nats, tried = _score_at_own_places(hypothesis, tried, owners)
    close = (nats < space.options.swap_close).nonzero()[:, 0]
    tried = tried[close]
    owners = [owners[k] for k in close] + hypothesis.components
    form = hypothesis.whole.append(space.quadratic(tried)).append(before[1])
    atoms = torch.cat([hypothesis.values, tried, before[0]])

    # Swap the best one, until none is better
    chosen = hypothesis.components
    swapped: set[int] = set()
    while True:
        nats = _score(hypothesis, form, chosen, owners)
        best = int(nats.argmin())
        if float(nats[best]) > -space.options.swap_nats:
            break
        chosen[owners[best]] = len(hypothesis) + best
        swapped.add(owners[best])
    if not swapped:
        return hypothesis, []
    return hypothesis.at(atoms, form, chosen).move(sorted(swapped)), sorted(swapped)


def _other_words(hypothesis: Hypothesis, known: AttributeErrors, is_uncertain: Tensor, k: int) -> Tensor:
    """Values (n, V) of a component with words that are not hopeless, but for single ones that are read again anyway."""
    problem = hypothesis.space.problem
    support = hypothesis.space.attributes
    if support is None:
        return hypothesis.values[:0]
    value = hypothesis.values[k]
    energies = [problem.posterior.energies(each[k]) for each in known.errors]
    found = combinations(support, value, energies, problem.posterior.beta, hypothesis.space.options)
    differs = (found != value)[:, support.length : support.length + len(support.words)]
    is_read_anyway = is_uncertain.to(differs.device) & (differs.sum(1, keepdim=True) == 1)
    return found[(differs & ~is_read_anyway).any(1)]


def _score_at_own_places(hypothesis: Hypothesis, swaps: Tensor, owners: Sequence[int]) -> tuple[Tensor, Tensor]:
    """By how many nats each swap (M, V) is worse on one draw after a Gauss-Newton step of its own, (M,), and moved.

    A swap changes with its numbers about as the component in whose place it is: so all of these steps cost D rows for
    each component, and one for each swap.
    """
    space = hypothesis.space
    problem = space.problem
    support = problem.slots[0].support
    length = space.length
    count = len(hypothesis)
    weight = problem.weighting(count)
    # The form over the answer, its components with another number, and the swaps
    bank = space.parts[LOW_NOISE][-1:]
    near, steps = step_inwards(support, hypothesis.values, length, space.options.step)
    own = problem.quadratic(torch.cat([near, swaps]), bank)
    form = hypothesis.forms[LOW_NOISE].on(slice(-1, None)).append(own)
    b = form.b[0].cpu()
    gram = form.gram()[0].cpu()

    # What each number of a component changes: a difference of two atoms
    changes = torch.zeros(count, length, len(form), dtype=torch.float64)
    for k in range(count):
        for d in range(length):
            changes[k, d, count + k * length + d] = weight / float(steps[k, d])
            changes[k, d, k] = -weight / float(steps[k, d])

    # The answer, once for each component, and the answer with each swap
    place = torch.tensor([*range(count), *owners])
    number = torch.arange(len(owners))
    first = count * (1 + length)  # swap
    answers = torch.zeros(len(place), len(form), dtype=torch.float64)
    answers[:, :count] = weight
    answers[count + number, place[count:]] = 0.0
    answers[count + number, first + number] = weight

    # A damped step of each, and what it gains
    slope = torch.einsum("mdn,mn->md", changes[place], b - answers @ gram)
    curve = torch.einsum("kdn,nl,kel->kde", changes, gram, changes)[place]
    damping = 1e-3 * curve.diagonal(dim1=1, dim2=2).mean(1) + 1e-12
    reach = space.options.reach
    step = torch.linalg.solve(curve + damping[:, None, None] * torch.eye(length), slope).clamp(-reach, reach)
    gains = 2 * (slope * step).sum(1) - torch.einsum("md,mde,me->m", step, curve, step)

    # The nats of each swap beside the component
    sets = [list(range(count))] * count
    sets += [[*range(k), first + m, *range(k + 1, count)] for m, k in enumerate(owners)]
    nats = problem.posterior.nats(form.with_prior(form.weighted_errors(answers).mean(1), sets).cpu() - gains)
    return nats[count:] - nats[place[count:]], shift(support, swaps, length, step[count:].to(swaps.device))


def _score(hypothesis: Hypothesis, form: QuadraticForm, chosen: Sequence[int], owners: Sequence[int]) -> Tensor:
    """By how many nats an answer is worse with each of the last M atoms of a form in the place of its owner, (M,)."""
    problem = hypothesis.space.problem
    first = len(form) - len(owners)
    sets = [list(chosen)]
    for number, k in enumerate(owners):
        sets.append([*chosen[:k], first + number, *chosen[k + 1 :]])
    nats = problem.posterior.nats(form.mean_objectives(sets).cpu())
    return nats[1:] - nats[0]
