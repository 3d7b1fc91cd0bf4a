"""Attributes of objects whose places are known.

Notation: variable -> symbol
    values      v_k = (x_k, a_k1, a_k2, ...), the place and the attributes of object k; 0 is an attribute left open
    options     v_k with a word w in the place of its attribute j
    form        J(w) over all values that were evaluated: swapping the value of one object costs arithmetic only
    prior       (K, n) the mean error of each word over the draws of earlier sweeps

`read_attributes` is coordinate descent: attribute after attribute, and within one object after object,
a_kj = argmin_w J(..., v_k(w), ...), until no object changes. Each further sweep has new draws, twice as many. It knows
the other attributes, and spends the draws on uncertain words alone: those that are not yet SURE, and of their rivals
those that are not yet RULED_OUT. J is the mean over all draws. A sweep is a race: a word that is FAR behind on a third
of its draws does not see the others. What was found of an object beside a word that it no longer has is forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from energycomp.components.support import MixedSupport
from energycomp.errors import InputError
from energycomp.inference.noise import NoiseBank
from energycomp.inference.posterior import Posterior
from energycomp.inference.problem import Problem
from energycomp.inference.quadratic import QuadraticForm

DRAWS = 6  # of the first sweep
SWEEPS = 3
ROUNDS = 4  # over all objects in a sweep, at most
SURE = 0.99  # posterior of a word from which on no other is evaluated again
RULED_OUT = 0.002  # posterior of a word up to which it is not evaluated again
FAR = 16.0  # nats by which a word is worse than the best one, from which on it sees no further draw of a sweep


@attrs.frozen(eq=False)
class AttributeErrors:
    """What is known of the attributes of objects: the mean error with each word of one, the others as they are.

    Args:
        values: (K, D + A), with the word of least error of each attribute.
        errors: (K, n) for each of the A attributes.
        draws: (K,) the number of draws that these are means of; 0 where nothing is known of an object.

    >>> known = AttributeErrors(torch.tensor([[0.3, 0.4, 2.0]]), (torch.tensor([[5.0, 3.0]]),))
    >>> known.certainty(Posterior(beta=1.0))  # of the second word, whose error is lower by 2: 1 / (1 + exp(-2))
    tensor([[0.8808]])
    """

    values: Tensor
    errors: tuple[Tensor, ...]
    draws: Tensor = attrs.field(factory=lambda: torch.zeros(0))

    def probabilities(self, posterior: Posterior) -> tuple[Tensor, ...]:
        """The posterior of the words of each attribute, (K, n) each; NaN without an inverse temperature."""
        return tuple(map(posterior.probabilities, self.errors))

    def certainty(self, posterior: Posterior) -> Tensor:
        """The posterior (K, A) of the words of `values`, the greatest of `probabilities`."""
        return torch.stack([each.amax(1) for each in self.probabilities(posterior)], dim=1)

    def take(self, kept: Sequence[int], new: int = 0) -> AttributeErrors:
        """Of some objects, and of new ones behind them, of which nothing is known and whose values are NaN."""
        index = torch.tensor(list(kept), dtype=torch.long)

        def extend(each: Tensor, fill: float) -> Tensor:
            return torch.cat([each[index.to(each.device)], each.new_full((new, *each.shape[1:]), fill)])

        errors = tuple(extend(each, 0.0) for each in self.errors)
        return AttributeErrors(extend(self.values, torch.nan), errors, extend(self.draws, 0.0))

    def forget(self, which: Tensor, values: Tensor) -> AttributeErrors:
        """At other values (K, D + A), with nothing known of some objects, (K,) of truth values."""
        errors = tuple(torch.where(which[:, None], 0.0, each) for each in self.errors)
        return AttributeErrors(values, errors, torch.where(which, 0.0, self.draws))


def read_attributes(
    problem: Problem,
    places: Tensor,
    *,
    draws: int = DRAWS,
    sweeps: int = SWEEPS,
    known: AttributeErrors | None = None,
    generator: int | torch.Generator | None = None,
) -> AttributeErrors:
    """The attributes of objects at known places (K, D), or with words (K, D + A) that are known to some degree.

    Costs draws K (1 + n_1 + ... + n_A) network evaluations for the first sweep, and those of u and of the trunk. A
    further sweep costs those of the uncertain words on twice the draws, and nothing where there is none. All words of
    an object are uncertain again where one of them has changed.

    Args:
        known: what is known of the words, in place of `places`: the first sweep asks for uncertain words alone, then.

    >>> from energycomp.inference.problem import make_problem
    >>> from energycomp.testing import planted, tinted_model
    >>> model, parse = tinted_model(), tinted_model().conditioner.parse
    >>> true = torch.cat([parse(0.2, 0.3, tint="red", width="wide"), parse(0.7, 0.8, tint="blue", width="narrow")])
    >>> problem = make_problem(planted(model, true), model)
    >>> read_attributes(problem, true[:, :2], generator=0).values.equal(true)
    True
    """
    # Begin with all attributes open, of which nothing is known, or with words that are known to some degree.
    support = mixed_support(problem)
    if known is None:
        drawn = torch.zeros(len(places), dtype=torch.float64)
        errors = tuple(torch.zeros(len(places), number, dtype=torch.float64) for number in support.words)
        known = AttributeErrors(support.opened(places), errors, drawn)
    for sweep in range(sweeps if len(known.values) else 0):
        # Which words are still in question? None ends the search.
        open_words = [_find_undecided(problem.posterior, each) | (known.draws == 0)[:, None] for each in known.errors]
        if not any(bool(words.any()) for words in open_words):
            break
        # Choose among them on new draws, twice as many as before, attribute by attribute.
        bank = problem.draw(draws * 2**sweep, generator)
        parts = _parts(bank) if problem.posterior.beta is not None else [bank]
        for part in parts:
            asked = torch.stack([words.any(1) for words in open_words]).any(0)
            if not bool(asked.any()):
                break
            search = _Sweep(problem, known.values, part, problem.quadratic(known.values, part))
            found = tuple(
                search.choose(attribute, words, each, known.draws)
                for attribute, (words, each) in enumerate(zip(open_words, known.errors, strict=True))
            )
            is_reworded = _find_reworded(support, known.values, search.values).to(known.draws.device)
            # Count the draws of each object that was asked about; words that are far behind see no more of them.
            known = AttributeErrors(search.values, found, known.draws + asked * len(part))
            near = [_near(problem.posterior.nats(each)) for each in known.errors]
            open_words = [words & each for words, each in zip(open_words, near, strict=True)]
            # An object that has another word now is asked about all its words again.
            is_last = sweep == sweeps - 1 and part is parts[-1]
            if not is_last:
                known = known.forget(is_reworded, known.values)
                open_words = [words | is_reworded[:, None] for words in open_words]
    return known


def _find_reworded(support: MixedSupport, before: Tensor, after: Tensor) -> Tensor:
    """Which objects (K,) have another word in place of one that they had."""
    old = support.split(before)[1]
    new = support.split(after)[1]
    return ((old > 0) & (new != old)).any(1)


def _find_undecided(posterior: Posterior, errors: Tensor) -> Tensor:
    """Which words (K, n) are still in question; without an inverse temperature all of them."""
    if posterior.beta is None:
        return torch.ones_like(errors, dtype=torch.bool)
    # In question: neither ruled out, nor of an object whose word is sure
    shares = torch.softmax(-posterior.nats(errors), dim=1)
    return (shares > RULED_OUT) & (shares.amax(1, keepdim=True) < SURE)


def _near(nats: Tensor) -> Tensor:
    """Which words (K, n) are not far behind the best one, where there is another one that is not."""
    is_near = nats - nats.amin(1, keepdim=True) <= FAR
    return is_near & (is_near.sum(1, keepdim=True) > 1)


def _parts(bank: NoiseBank) -> list[NoiseBank]:
    """Every third of the draws, which are in the order of their timesteps, and the others; fewer than 3 at once."""
    first = torch.arange(len(bank)) % 3 == 1
    return [bank[first], bank[~first]] if len(bank) >= 3 else [bank]


@attrs.define(eq=False)
class _Sweep:
    """The values of all objects, and the quadratic form over them."""

    problem: Problem
    values: Tensor
    bank: NoiseBank
    form: QuadraticForm

    def choose(self, attribute: int, words: Tensor, prior: Tensor, drawn: Tensor) -> Tensor:
        """Sets an attribute of the objects with words in question (K, n), after `drawn` draws; returns all errors."""
        objects, codes = words.nonzero(as_tuple=True)
        if not len(objects):
            return prior
        count = len(self.values)
        fresh = len(self.bank)
        # Evaluate each object with each of its words in question but the one it has: then all answers are arithmetic.
        options = mixed_support(self.problem).worded(self.values[objects], attribute, codes)
        is_new = (options != self.values[objects]).any(1)
        form = self.form.append(self.problem.quadratic(options[is_new], self.bank))
        atoms = torch.where(is_new, count - 1 + is_new.cumsum(0), objects)
        chosen = list(range(count))
        errors = prior.clone()
        for _ in range(ROUNDS):
            before = list(chosen)
            for k in objects.unique().tolist():
                # The error of each word in question on these draws, the other objects as they are now.
                own = (objects == k).nonzero()[:, 0]
                sets = [[*chosen[:k], option, *chosen[k + 1 :]] for option in atoms[own].tolist()]
                found = form.mean_objectives(sets).cpu()
                # A word that is out of the question stays as far behind the best one as it was.
                best = int(prior[k, codes[own]].argmin())
                new = prior[k] - prior[k, codes[own[best]]] + found[best]
                new[codes[own]] = found
                # The mean over earlier draws and these.
                errors[k] = (drawn[k] * prior[k] + fresh * new) / (drawn[k] + fresh)
                # Take the best word.
                chosen[k] = int(atoms[own[int(errors[k, codes[own]].argmin())]])
            # Until no object changes its word.
            if chosen == before:
                break
        # Keep the values that were chosen, and the form over these alone.
        kept = torch.tensor(chosen)
        self.values = torch.cat([self.values, options[is_new]])[kept]
        self.form = form.take(kept)
        return errors


def mixed_support(problem: Problem) -> MixedSupport:
    """Numbers and words of the values of a problem; raises `InputError` for one without words."""
    if problem.mixed is None:
        raise InputError("got a problem without attributes; expected that of a `MixedConditioner`, without candidates=")
    return problem.mixed
