"""Projected gradient descent on relaxed labels, which are then rounded (Algorithm 7 of Wang, 2026).

Costs R K + 1 network evaluations per draw and step for R initialisations of K components; none per step with
`mix="predictions"`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import ClassVar, Literal

import attrs
import torch
from torch import Tensor

from energycomp.components import widen
from energycomp.errors import InputError
from energycomp.fields import number, one_of, whole
from energycomp.inference import RULED_OUT, Problem, QuadraticForm, Solution
from energycomp.seeds import as_generator
from energycomp_solvers.search.ranked import ALTERNATIVES, compare_ranked
from energycomp_solvers.shared.answers import dictionary

Mix = Literal["tokens", "predictions"]


@attrs.frozen
class Relaxed:
    """Each slot holds shares of its values, which sum to 1; gradient steps move them, and the greatest share wins.

    The thesis clamps a label l in (l, 1 - l) to [0, 1]; the nearest shares are the same for two values, and serve any
    number. The rounded answers, and each with its least certain value exchanged, are scored as they are, which chooses
    among initialisations and counts. Of a prior, relaxed labels have the expected energy of answers drawn with these
    shares, up to its pairs.

    Args:
        mix: "tokens" conditions the network on mixed tokens, as the thesis does; no such token was trained on.
            "predictions" mixes the predictions of all values: convex, on one quadratic form, no rows per step.
        inits: R, random initialisations for each count.
        steps: gradient steps.
        draws: noise draws per step, of "tokens".
        learning_rate: the length of a slot's first step; later ones shrink.
        fresh_draws: draws that score the rounded answers, which "predictions" averages over as well, and as many fresh
            ones that compare the two best; the problem's default.

    >>> import torch
    >>> from energycomp import infer
    >>> from energycomp.testing import labels_model, planted
    >>> image = planted(labels_model(4), torch.tensor([1, 3]))[0] / 2 + 0.5
    >>> infer(image, labels_model(4), solver=Relaxed("predictions"), count=2).conditions.tolist()
    [1, 3]
    """

    needs: ClassVar[Literal["finite"]] = "finite"

    mix: Mix = attrs.field(default="tokens", validator=one_of(("tokens", "predictions")))
    inits: int = attrs.field(default=4, validator=whole(1))
    steps: int = attrs.field(default=60, validator=whole(1))
    draws: int = attrs.field(default=1, validator=whole(1))
    learning_rate: float = attrs.field(default=0.5, validator=number())
    fresh_draws: int | None = attrs.field(default=None, validator=attrs.validators.optional(whole(1)))

    def solve(self, problem: Problem, *, generator: int | torch.Generator | None = None) -> Solution:
        """Costs R K + 1 rows per draw and step for each count K of the range, and a backward pass through the heads.

        Then m + 1 rows per draw that scores, for m values among the answers; at most 2 K + 1 per draw that compares.
        "predictions" costs M + 1 rows per draw that scores, and those that compare.
        """
        generator = as_generator(generator)
        atoms, slots = dictionary(problem)
        bank = problem.draw(self.fresh_draws or problem.default_draws, generator)
        form = problem.quadratic(atoms, bank) if self.mix == "predictions" else None
        answers: set[tuple[int, ...]] = set()
        least, most = problem.counts
        for count in range(least if problem.has_empty else max(least, 1), most + 1):
            # Descend from several shares, and round what each becomes
            for shares in self._shares(problem, atoms, slots[:count], form, generator):
                answers.update(round_shares(problem, shares, slots[:count]))
        # Evaluate the values that the answers use, which are few, unless all are known
        used = range(len(atoms)) if form is not None else sorted(set(chain(*answers)))
        form = form if form is not None else problem.quadratic(atoms[list(used)], bank)
        # Score the answers
        place = {atom: row for row, atom in enumerate(used)}
        scored: list[tuple[float, tuple[int, ...]]] = []
        for answer in answers:
            errors = form.objective([place[atom] for atom in answer])
            scored.append((float(errors.mean()), answer))
        # Compare the best two on draws of their own
        ranked = sorted(scored)[: 1 + ALTERNATIVES]
        trace = {"answers": [float(len(answers))]}
        return compare_ranked(problem, atoms, ranked, problem.draw(len(bank), generator), trace)

    def _shares(
        self,
        problem: Problem,
        atoms: Tensor,
        slots: Sequence[Sequence[int]],
        form: QuadraticForm | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        """What the shares (R, K, M) of all initialisations become."""
        if not slots:
            return torch.zeros(1, 0, len(atoms))
        device = generator.device if generator is not None else torch.device("cpu")
        # Random shares of the values that each slot may take
        shares = torch.rand(self.inits, len(slots), len(atoms), generator=generator, device=device)
        legal = torch.zeros_like(shares[0], dtype=torch.bool)
        for k, slot in enumerate(slots):
            legal[k, list(slot)] = True
        # The error of shares: of mixed conditions on new draws, or of mixed predictions
        expected = _expected_energies(problem, atoms)
        weight = problem.weighting(len(slots))
        mean = None if form is None else form.mean()

        def errors(shares: Tensor) -> Tensor:
            if mean is None:
                found = problem.mixed_errors(shares, atoms, problem.draw(self.draws, generator)).mean(1)
            else:
                found = mean.weighted_errors(weight * shares.sum(1).to(mean.b))[:, 0]
            return found if expected is None else problem.posterior.add_prior(found, expected(shares))

        return descend_shares(
            errors,
            nearest_shares(shares.to(problem.device), legal.to(problem.device)),
            legal.to(problem.device),
            steps=self.steps,
            learning_rate=self.learning_rate,
        )


def _expected_energies(problem: Problem, atoms: Tensor) -> Callable[[Tensor], Tensor] | None:
    """The expected prior of answers drawn with shares (R, K, M), (R,): of single values and of pairs."""
    every = torch.arange(len(atoms), device=atoms.device)
    sets = (every[:0][None], every[:, None], torch.cartesian_prod(every, every))
    energies = [problem.prior(atoms[indices]) for indices in sets]
    if energies[0] is None:
        return None
    # The prior as a sum over values and pairs of values
    none, one, two = (widen(e).clamp(max=RULED_OUT) for e in energies if e is not None)
    pairs = two.view(len(one), -1) - one - one[:, None] + none

    def expected(shares: Tensor) -> Tensor:
        of_pairs = (shares @ pairs.to(shares) @ shares.transpose(1, 2)).triu(1).sum((1, 2))
        return shares.sum(1) @ (one - none).to(shares) + of_pairs

    return expected


def descend_shares(
    errors: Callable[[Tensor], Tensor], shares: Tensor, legal: Tensor, *, steps: int, learning_rate: float
) -> Tensor:
    """Gradient steps on shares (R, K, M), after each the nearest that are legal, (K, M).

    A slot's step is learning_rate / sqrt(sum of its squared slopes so far) (Ward, Wu and Bottou, 2019): errors may have
    any scale, and steps shrink by themselves. Adam's, one for each number, would end elsewhere on a simplex.
    """
    squares = torch.zeros_like(shares[..., :1])
    for _ in range(steps):
        # The slope of the error
        free = shares.detach().requires_grad_()
        with torch.enable_grad():
            error = errors(free).sum()
            if not error.requires_grad:
                raise InputError(
                    "got errors without a gradient to the shares, such as of a network that takes the greatest number "
                    "of a token for its label; expected a solver that lists values; use enumerate or beam"
                )
            (slope,) = torch.autograd.grad(error, free)
        slope = torch.where(legal, slope, 0.0)
        # The slope along the simplex: what all values of a slot share moves nothing
        slope = torch.where(legal, slope - slope.sum(-1, keepdim=True) / legal.sum(-1, keepdim=True), 0.0)
        # A step, shorter the more slopes there were, and back to legal shares
        squares = squares + slope.square().sum(-1, keepdim=True)
        step = slope / squares.sqrt().clamp(min=torch.finfo(slope.dtype).tiny)
        shares = nearest_shares(free.detach() - learning_rate * step, legal)
    return shares


def nearest_shares(values: Tensor, legal: Tensor) -> Tensor:
    """The shares >= 0 with sum 1, and 0 where they are not legal, nearest to values (..., M) (Held et al., 1974).

    >>> nearest_shares(torch.tensor([[1.2, -0.2, 9.0], [0.5, 0.5, 0.8]]), torch.tensor([[1, 1, 0], [1, 1, 1]]).bool())
    tensor([[1.0000, 0.0000, 0.0000],
            [0.2333, 0.2333, 0.5333]])
    """
    values = values.masked_fill(~legal, -torch.inf)
    # The greatest values stay above 0, and all lose as much as makes their sum 1
    ranked = values.sort(-1, descending=True).values
    excess = (ranked.cumsum(-1) - 1) / torch.arange(1, values.shape[-1] + 1, device=values.device)
    size = (ranked > excess).sum(-1, keepdim=True)
    return (values - excess.gather(-1, size - 1)).clamp(min=0)


def round_shares(problem: Problem, shares: Tensor, slots: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """The atoms of greatest share (K, M), all different where they must be, and with the least certain exchanged."""
    from scipy.optimize import linear_sum_assignment

    # The best atom of each slot, or the best assignment where all differ
    table = shares.new_full(shares.shape, -torch.inf)
    for k, slot in enumerate(slots):
        table[k, list(slot)] = shares[k, list(slot)]
    found = linear_sum_assignment(table.cpu(), maximize=True)[1] if problem.distinct else table.argmax(1)
    chosen = [int(atom) for atom in found]
    # The exchange that costs the least share
    gaps: dict[tuple[int, int], float] = {}
    for k, slot in enumerate(slots):
        for other in slot:
            if other not in chosen:
                gaps[k, other] = float(table[k, chosen[k]] - table[k, other])
    answers = [chosen]
    if gaps:
        changed, other = min(gaps, key=gaps.__getitem__)
        answers.append([other if k == changed else atom for k, atom in enumerate(chosen)])
    return [tuple(sorted(answer) if problem.exchangeable else answer) for answer in answers]
