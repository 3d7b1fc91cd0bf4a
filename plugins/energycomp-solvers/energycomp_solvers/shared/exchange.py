"""Other words for the components of an answer, all words of a component at once.

Notation: variable -> symbol
    options     values of one component: with other words where it is, and as it was before its words were read
    nats        beta (E of the answer with an option - E of the answer)

Words are read one attribute after another, beside other words as they were at that time. So two words may stay that are
wrong together, and a word may have been ruled out beside one that has changed since.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from energycomp.inference import ObjectWords, QuadraticForm
from energycomp_solvers.shared.combinations import combinations
from energycomp_solvers.shared.newton import beside, moved
from energycomp_solvers.shared.refit import FINE, LOCATES, NEAR, Refit

CLEARLY = 1.0  # nats by which an option has to be better
CLOSE = 3.0  # nats by which an option is worse on this draw, up to which it sees the others


def exchange(refit: Refit, words: ObjectWords, doubtful: Tensor, before: tuple[Tensor, QuadraticForm]) -> list[int]:
    """Gives components other words, all at once, where the draws that choose want these; which ones (k,) are changed.

    The options are combinations of words that are not hopeless by what is known of each, and the component as it was
    before. Costs a row for each option and D for each component, and one for each draw where an option is close then.

    Args:
        words: what is known of the words.
        doubtful: which words (K, A) are read again anyway.
        before: the components as they were, (K, V), and the form over them on all draws.
    """
    problem = refit.problem
    mixed = problem.mixed
    if mixed is None or problem.beta is None or not len(refit.values):
        return []
    # Other words of each component, where it is
    options: list[Tensor] = []
    for k, value in enumerate(refit.values):
        energies = [problem.energies(each[k]) for each in words.errors]
        found = combinations(mixed, value, energies, problem.beta)
        is_other = (found != value)[:, mixed.length : mixed.length + len(mixed.words)]
        known = doubtful[k].to(is_other.device) & (is_other.sum(1, keepdim=True) == 1)
        options.append(found[(is_other & ~known).any(1)])
    tried = torch.cat(options)
    owners = [k for k, found in enumerate(options) for _ in found]

    # Those that are close on one draw of low noise, each about at its own place, see all of them
    nats, tried = _about_at_their_places(refit, tried, owners)
    close = (nats < CLOSE).nonzero()[:, 0]
    tried = tried[close]
    owners = [owners[k] for k in close] + refit.every
    form = refit.whole().append(refit.quadratic(tried)).append(before[1])
    atoms = torch.cat([refit.values, tried, before[0]])

    # Exchange the best one, until none is better
    chosen = refit.every
    exchanged: set[int] = set()
    while True:
        nats = _behind(refit, form, chosen, owners)
        best = int(nats.argmin())
        if float(nats[best]) > -CLEARLY:
            break
        chosen[owners[best]] = len(refit.values) + best
        exchanged.add(owners[best])
    if exchanged:
        refit.take(atoms, form, chosen)
        refit.move(sorted(exchanged))
    return sorted(exchanged)


def _about_at_their_places(refit: Refit, options: Tensor, owners: Sequence[int]) -> tuple[Tensor, Tensor]:
    """By how many nats each option (M, V) is worse on one draw after a Gauss-Newton step of its own, (M,), and moved.

    An option changes with its numbers about as the component in whose place it is: so all of these steps cost D rows
    for each component, and one for each option.
    """
    problem = refit.problem
    support = problem.slots[0].support
    length = problem.value_shape[0]
    count = len(refit.values)
    weight = problem.weighting(count)
    # The form over the answer, its components with another number, and the options
    bank = refit.banks[LOCATES][-1:]
    near, steps = beside(support, refit.values, length, FINE)
    form = refit.forms[LOCATES].on(slice(-1, None)).append(problem.quadratic(torch.cat([near, options]), bank))
    b = form.b[0].cpu()
    gram = form.gram()[0].cpu()

    # What each number of a component changes
    changes = torch.zeros(count, length, len(form), dtype=torch.float64)
    for k in range(count):
        for d in range(length):
            changes[k, d, [count + k * length + d, k]] = torch.tensor([weight, -weight]).double() / steps[k, d].cpu()
    # Steps of the answer, one component at a time, and of each option
    place = torch.tensor([*range(count), *owners])
    answers = torch.zeros(len(place), len(form), dtype=torch.float64)
    answers[:, :count] = weight
    number = torch.arange(len(owners))
    answers[count + number, place[count:]] = 0.0
    answers[count + number, count * (1 + length) + number] = weight
    slope = torch.einsum("mdn,mn->md", changes[place], b - answers @ gram)
    curve = torch.einsum("kdn,nl,kel->kde", changes, gram, changes)[place]
    damping = 1e-3 * curve.diagonal(dim1=1, dim2=2).mean(1) + 1e-12
    step = torch.linalg.solve(curve + damping[:, None, None] * torch.eye(length), slope).clamp(-NEAR, NEAR)
    gains = 2 * (slope * step).sum(1) - torch.einsum("md,mde,me->m", step, curve, step)

    # The nats of each option beside the component
    sets = [list(range(count))] * count
    sets += [[*range(k), count * (1 + length) + m, *range(k + 1, count)] for m, k in enumerate(owners)]
    nats = problem.nats(form.with_prior(form.weighted_errors(answers).mean(1), sets).cpu() - gains)
    return nats[count:] - nats[place[count:]], moved(support, options, length, step[count:].to(options.device))


def _behind(refit: Refit, form: QuadraticForm, chosen: Sequence[int], owners: Sequence[int]) -> Tensor:
    """By how many nats an answer is worse with each of the last M atoms of a form in the place of a component, (M,).

    Args:
        form: over the answer, and M atoms more.
        chosen: the answer.
        owners: (M,) the components whose places the atoms take.
    """
    first = len(form) - len(owners)
    sets = [list(chosen)]
    for number, k in enumerate(owners):
        sets.append([*chosen[:k], first + number, *chosen[k + 1 :]])
    # Their errors: one product with the form
    weights = torch.zeros(len(sets), len(form), dtype=torch.float64)
    for row, members in zip(weights, sets, strict=True):
        row[members] = refit.problem.weighting(len(chosen))
    nats = refit.problem.nats(form.with_prior(form.weighted_errors(weights).mean(1), sets).cpu())
    return nats[1:] - nats[0]
