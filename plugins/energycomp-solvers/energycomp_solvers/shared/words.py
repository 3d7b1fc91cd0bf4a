"""The words of an answer, read last: with more draws, and each component at a place that suits its words.

Notation: variable -> symbol
    known       what is known of the words of K components
    options     values of one component: with other words where it is, and as it was before its words were read
    nats        beta (E of the answer with an option - E of the answer)

Words are read one attribute after another, beside other words as they were at that time. So two words may stay that are
wrong together, and a word may have been ruled out beside one that has changed since. Of the answer that is found all
words of a component are exchanged at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from energycomp.inference import ObjectWords, Problem, QuadraticForm, read_attributes
from energycomp_solvers.shared.combinations import combinations
from energycomp_solvers.shared.compare import Worded, next_word
from energycomp_solvers.shared.doubts import BESIDE, overlap
from energycomp_solvers.shared.newton import beside, moved, newton_step
from energycomp_solvers.shared.refit import FINE, NEAR, Refit
from energycomp_solvers.shared.subsets import subset_errors

DRAWS = (1, 2)  # seeds of the draws of the two turns: they are the same whatever the search has spent
CERTAIN = (0.999, 0.95)  # posterior of a word from which on it is not in doubt, in each turn
AT_ANOTHER_PLACE = 16.0  # nats by which a word in doubt is behind, up to which it may be the best one at another place
NEXT_TO_NONE = 1e-6  # draws, of words that are level again
STEPS = 4  # of components in doubt, at most
STILL = 0.05  # nats that a step gains, below which it is the last one
CLEARLY = 1.0  # nats by which an option has to be better
SURELY = 4.0  # nats by which a word is behind the best one, from which on it is no better at another place
LOCATES = 1  # the part of the draws whose last one all options see: it tells best which words fit together
CLOSE = 3.0  # nats by which an option is worse on this draw, up to which it sees the others


def read_words(refit: Refit, known: ObjectWords) -> tuple[ObjectWords, bool]:
    """The words of the components, read with more draws, and whether some were exchanged all at once.

    The components get these words, and places that suit them. What is in doubt is read at a place that favours no word,
    on draws that are the same whatever the search has spent; what is in doubt once all words are known is read again.
    So an answer hardly depends on the way of the search.
    """
    problem = refit.problem
    doubtful = in_doubt(problem, known, CERTAIN[0])
    words = _forgotten(known, doubtful.any(1), without_favour(refit, known.values, doubtful))
    words = read_attributes(problem, refit.values, known=words, sweeps=1, generator=DRAWS[0])
    before = (refit.values, refit.whole())
    settle(refit, words.values)
    # Words that fit better together
    exchanged = exchange(refit, words, before)
    is_exchanged = torch.zeros(len(refit.values), dtype=torch.bool)
    is_exchanged[exchanged] = True
    words = _forgotten(words, is_exchanged, refit.values)
    # What is in doubt now, and what was exchanged
    doubtful = in_doubt(problem, words, CERTAIN[1])
    words = _level(problem, words, doubtful, without_favour(refit, words.values, doubtful))
    if bool((words.drawn < 1).any()):
        words = read_attributes(problem, refit.values, known=words, sweeps=2, generator=DRAWS[1])
        settle(refit, words.values)
    return words, bool(exchanged)


def with_another(refit: Refit, words: ObjectWords) -> Worded | None:
    """The component whose word is least certain, with the next best word, at a place that suits this one.

    Costs D + 2 rows for each draw, or none where the word is certain.
    """
    other = next_word(refit.problem, words)
    if other is None or (refit.problem.beta is not None and other.behind > SURELY):
        return other
    # The best numbers with this word
    values = refit.values.clone()
    values[other.component] = other.value
    atoms, form, chosen = _replaced(refit, values)
    atoms, _, chosen = newton_step(
        refit.problem, refit.quadratic, atoms, form, chosen, [other.component], reach=NEAR, step=FINE
    )
    return attrs.evolve(other, value=atoms[chosen[other.component]])


def without_favour(refit: Refit, values: Tensor, doubtful: Tensor) -> Tensor:
    """Values (K, V) at the places that they have with their words in doubt (K, A) left open.

    Those beside them, which account for them, move too. Costs a row for each component in doubt and draw, and for each
    step D + 1 for each one that moves.
    """
    problem = refit.problem
    mixed = problem.mixed
    which = doubtful.any(1).nonzero()[:, 0].tolist()
    if mixed is None or not which:
        return values
    # Leave open what is in doubt
    numbers, codes = mixed.split(values)
    left_open = codes.clone()
    left_open[:, : len(mixed.words)][doubtful.to(codes.device)] = 0
    atoms, form, chosen = _replaced(refit, mixed.joined(numbers, left_open))
    # Move these and what is beside them, until a step gains nothing
    shown = refit.whole().atoms.square().mean(0).sqrt()
    near = overlap(shown, shown[which], refit.channels).amax(1) > BESIDE
    moving = sorted({*which, *near.nonzero()[:, 0].tolist()})
    for _ in range(STEPS):
        before = float(subset_errors(form, chosen, problem.weighting).mean())
        atoms, form, chosen = newton_step(problem, refit.quadratic, atoms, form, chosen, moving, reach=NEAR, step=FINE)
        after = float(subset_errors(form, chosen, problem.weighting).mean())
        if (problem.beta or 1.0) * problem.gap(after, before - after) < STILL:
            break
    numbers, _ = mixed.split(atoms[chosen])
    return mixed.joined(numbers, codes)


def settle(refit: Refit, values: Tensor) -> None:
    """Gives components the words of values (K, V) where these are others, and numbers that suit them.

    Costs D + 2 rows for each component whose words are others, and draw.
    """
    length = refit.problem.value_shape[0]
    is_other = (values[:, length:] != refit.values[:, length:]).any(1)
    changed = is_other.nonzero()[:, 0].tolist()
    if changed:
        refit.take(*_replaced(refit, torch.where(is_other[:, None], values, refit.values)))
        _move(refit, changed)


def exchange(refit: Refit, words: ObjectWords, before: tuple[Tensor, QuadraticForm]) -> list[int]:
    """Gives components other words, all at once, where the draws that choose want these; which ones (k,) are changed.

    The options are combinations of words that are not hopeless by what is known of each, and the component as it was
    before. Costs a row for each option, and one for each draw where it is close then.

    Args:
        before: the components as they were, (K, V), and the form over them on all draws.
    """
    problem = refit.problem
    mixed = problem.mixed
    if mixed is None or problem.beta is None or not len(refit.values):
        return []
    # Other words of each component, where it is; a word in doubt is read again anyway
    doubtful = in_doubt(problem, words, CERTAIN[1])
    options: list[Tensor] = []
    for k, value in enumerate(refit.values):
        energies = [problem.energies(each[k]) for each in words.errors]
        found = combinations(mixed, value, energies, problem.beta)
        is_other = (found != value)[:, mixed.length : mixed.length + len(mixed.words)]
        known = doubtful[k].to(is_other.device) & (is_other.sum(1, keepdim=True) == 1)
        options.append(found[(is_other & ~known).any(1)])
    tried = torch.cat(options)
    owners = [k for k, found in enumerate(options) for _ in found]

    # Those that are close on one draw, each about at its own place, see all of them
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
        nats = _nats(refit, form, chosen, owners)
        best = int(nats.argmin())
        if float(nats[best]) > -CLEARLY:
            break
        chosen[owners[best]] = len(refit.values) + best
        exchanged.add(owners[best])
    if exchanged:
        refit.take(atoms, form, chosen)
        _move(refit, sorted(exchanged))
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
    energies = problem.energies(form.with_prior(form.weighted_errors(answers).mean(1), sets).cpu() - gains)
    nats = (problem.beta or 1.0) * (energies[count:] - energies[place[count:]])
    return nats, moved(support, options, length, step[count:].to(options.device))


def _replaced(refit: Refit, values: Tensor) -> tuple[Tensor, QuadraticForm, list[int]]:
    """The components and those of other values (K, V) that differ, the form over all, and which are the latter answer.

    Costs a row for each value that differs, and draw.
    """
    changed = (values != refit.values).any(1).nonzero()[:, 0].tolist()
    new = values[changed]
    chosen = [len(values) + changed.index(k) if k in changed else k for k in refit.every]
    return torch.cat([refit.values, new]), refit.whole().append(refit.quadratic(new)), chosen


def _move(refit: Refit, which: Sequence[int]) -> None:
    """Moves some components together, the others stay. Costs D + 1 rows for each of these and draw."""
    form = refit.whole()
    refit.take(
        *newton_step(refit.problem, refit.quadratic, refit.values, form, refit.every, which, reach=NEAR, step=FINE)
    )


def _nats(refit: Refit, form: QuadraticForm, chosen: Sequence[int], owners: Sequence[int]) -> Tensor:
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
    energies = refit.problem.energies(form.with_prior(form.weighted_errors(weights).mean(1), sets).cpu())
    return (refit.problem.beta or 1.0) * (energies[1:] - energies[0])


def in_doubt(problem: Problem, words: ObjectWords, certain: float) -> Tensor:
    """Which words (K, A) that something is known of have a posterior below a limit; none without one."""
    if problem.beta is None:
        return torch.zeros(len(words.values), len(words.errors), dtype=torch.bool)
    return (words.certainty(problem.beta, problem.energies) < certain) & (words.drawn > 0)[:, None]


def _forgotten(words: ObjectWords, which: Tensor, values: Tensor) -> ObjectWords:
    """Words at other values (K, V), with nothing known of those of some components (K,)."""
    errors = tuple(torch.where(which[:, None], 0.0, each) for each in words.errors)
    return ObjectWords(values, errors, torch.where(which, 0.0, words.drawn))


def _level(problem: Problem, words: ObjectWords, doubtful: Tensor, values: Tensor) -> ObjectWords:
    """Words at other values (K, V), of which those in doubt (K, A) are level again; what is far behind stays so."""
    errors = []
    for attribute, each in enumerate(words.errors):
        energies = (problem.beta or 1.0) * problem.energies(each)
        is_near = energies - energies.amin(1, keepdim=True) < AT_ANOTHER_PLACE
        level = doubtful[:, attribute : attribute + 1] & is_near
        errors.append(torch.where(level, each.amin(1, keepdim=True), each))
    return ObjectWords(values, tuple(errors), torch.where(doubtful.any(1), NEXT_TO_NONE, words.drawn))
