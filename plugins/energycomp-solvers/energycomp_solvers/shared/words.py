"""The words of an answer, read last: with more draws, and each component at a place that suits its words.

A word fits best at the place that a component has with it. So what is in doubt is read where it is left open, and a
component moves once its words are read.
"""

from __future__ import annotations

from functools import partial

import attrs
import torch
from torch import Tensor

from energycomp.inference import ObjectWords, Problem, read_attributes
from energycomp_solvers.shared.compare import Worded, next_word
from energycomp_solvers.shared.doubts import BESIDE, overlap
from energycomp_solvers.shared.exchange import exchange
from energycomp_solvers.shared.newton import newton_step
from energycomp_solvers.shared.refit import FINE, LOCATES, NEAR, Refit
from energycomp_solvers.shared.subsets import subset_errors

DRAWS = (1, 2)  # seeds of the draws of the two turns: they are the same whatever the search has spent
CERTAIN = (0.999, 0.95)  # posterior of a word from which on it is not in doubt, in each turn
AT_ANOTHER_PLACE = 16.0  # nats by which a word in doubt is behind, up to which it may be the best one at another place
NEXT_TO_NONE = 1e-6  # draws, of words that are level again
STEPS = 4  # of components in doubt, at most
STILL = 0.05  # nats that a step gains, below which it is the last one
SURELY = 4.0  # nats by which a word is behind the best one, from which on it is no better at another place


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
    exchanged = exchange(refit, words, in_doubt(problem, words, CERTAIN[1]), before)
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

    Costs D + 2 rows for each draw of low noise, or none where the word is certain.
    """
    other = next_word(refit.problem, words)
    if other is None or (refit.problem.beta is not None and other.behind > SURELY):
        return other
    # The best numbers with this word, by the draws that locate
    values = torch.cat([refit.values, other.value[None]])
    form = refit.forms[LOCATES].append(refit.on_part(LOCATES, other.value[None]))
    chosen = [len(refit.values) if k == other.component else k for k in refit.every]
    quadratic = partial(refit.problem.quadratic, bank=refit.banks[LOCATES])
    atoms, _, chosen = newton_step(
        refit.problem, quadratic, values, form, chosen, [other.component], reach=NEAR, step=FINE
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
    atoms, form, chosen = refit.replaced(mixed.joined(numbers, left_open))
    # Move these and what is beside them, until a step gains nothing
    shown = refit.whole().atoms.square().mean(0).sqrt()
    near = overlap(shown, shown[which], refit.channels).amax(1) > BESIDE
    moving = sorted({*which, *near.nonzero()[:, 0].tolist()})
    for _ in range(STEPS):
        before = float(subset_errors(form, chosen, problem.weighting).mean())
        atoms, form, chosen = newton_step(problem, refit.quadratic, atoms, form, chosen, moving, reach=NEAR, step=FINE)
        after = float(subset_errors(form, chosen, problem.weighting).mean())
        if problem.gap(after, before - after) < STILL:
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
        refit.take(*refit.replaced(torch.where(is_other[:, None], values, refit.values)))
        refit.move(changed)


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
        nats = problem.nats(each)
        is_near = nats - nats.amin(1, keepdim=True) < AT_ANOTHER_PLACE
        level = doubtful[:, attribute : attribute + 1] & is_near
        errors.append(torch.where(level, each.amin(1, keepdim=True), each))
    return ObjectWords(values, tuple(errors), torch.where(doubtful.any(1), NEXT_TO_NONE, words.drawn))
