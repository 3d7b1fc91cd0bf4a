"""Stochastic gradient descent from many initialisations (Algorithm 5 of Wang, 2026; Algorithm 6 over counts).

Costs R K network evaluations per draw and step for R initialisations of K components, which share the trunk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import attrs
import torch
from torch import Tensor
from torch.distributions import transform_to

from energycomp.fields import number, one_of, whole
from energycomp.inference import Problem, Solution, paired
from energycomp.progress import counting
from energycomp.seeds import as_generator
from energycomp_solvers.search.lattice import Screen
from energycomp_solvers.search.runner_up import Answer, finish
from energycomp_solvers.shared.descent import descend, random_starts, residual_starts

MOST_NUMBERS = 2  # of a value for which a lattice is run
NEAR = 0.05  # values closer than this, in quantiles of the support, are one answer


@attrs.frozen
class SGD:
    """R initialisations of every count, descended as one batch, halved in number as they go.

    All initialisations share the noised sample and the trunk of a step, so R of them cost R times the heads only. After
    each of `rounds` equal parts of the steps the better half stays (successive halving); the finalists are scored again
    on fresh draws, which also choose the count. The error is flat where no component is near, so by default each
    component starts where the others of its initialisation leave something unexplained, on a lattice.

    Args:
        inits: R, initialisations for each count.
        start: "residual", or "random" as in the thesis; values of more than two numbers always start at random.
        side: points of the lattice along each dimension.
        steps: gradient steps of the initialisations that survive.
        draws: noise draws per step.
        learning_rate: of Adam in the unconstrained space of the support.
        rounds: halvings.
        fresh_draws: fresh draws that score the finalists; the problem's default.
        p_value: a larger count is taken only where it is better by a paired test below this.

    >>> from energycomp import infer
    >>> from energycomp.testing import bumps_model, planted
    >>> image = planted(bumps_model(), torch.tensor([[0.2, 0.3]]))[0] / 2 + 0.5
    >>> infer(image, bumps_model(), solver=SGD(inits=2, steps=60), count=1).conditions.round(decimals=1)
    tensor([[0.2000, 0.3000]])
    """

    needs: ClassVar[Literal["differentiable"]] = "differentiable"
    takes_init: ClassVar[bool] = True

    inits: int = attrs.field(default=20, validator=whole(1))
    start: Literal["residual", "random"] = attrs.field(default="residual", validator=one_of(("residual", "random")))
    side: int = attrs.field(default=16, validator=whole(2, 65_536))
    steps: int = attrs.field(default=120, validator=whole(1))
    draws: int = attrs.field(default=2, validator=whole(1))
    learning_rate: float = attrs.field(default=0.15, validator=number())
    rounds: int = attrs.field(default=3, validator=whole(1))
    fresh_draws: int | None = attrs.field(default=None, validator=attrs.validators.optional(whole(4)))
    p_value: float = attrs.field(default=1e-3, validator=number(most=1))

    def solve(self, problem: Problem, *, generator: int | torch.Generator | None = None) -> Solution:
        """Costs at most (R K + 1) draws steps rows, and a backward pass through the heads, for each count K.

        The finalists, at least 3 of R, cost K rows each for each draw that scores them, and an answer at most 2 K + 1
        for each draw that compares it. A lattice costs side^D + 1 rows for values of D numbers.
        """
        generator = as_generator(generator)
        problem.check_size(self.inits * max(problem.counts[0], 1), self.draws)
        bank = problem.draw(self.fresh_draws or problem.default_draws, generator)
        # The best answer so far, and all others
        best = torch.empty(0, *problem.value_shape, device=problem.device)
        best_errors = None
        others: list[tuple[float, Tensor]] = []
        trace: dict[str, list[float]] = {"count": [], "error": []}
        counts = range(problem.counts[0], problem.counts[1] + 1)
        screen = self._screen(problem, generator)
        steps = self.rounds * self._steps_of_round * sum(count > 0 for count in counts)
        with counting("descent", steps, unit="step") as bar:
            for count in counts:
                # Descend with this count, and score the finalists on common draws
                finalists = self._run(problem, count, screen, generator, bar.advance)
                with torch.no_grad():
                    errors = problem.with_prior(problem.errors(finalists, bank), finalists)
                means = errors.mean(1).tolist()
                least = means.index(min(means))
                trace["count"].append(count)
                trace["error"].append(means[least])
                others += [(mean, values) for mean, values in zip(means, finalists, strict=True) if mean > means[least]]
                # A greater count must be significantly better
                if best_errors is None or paired(errors[least], best_errors)[2] < self.p_value:
                    best = finalists[least]
                    best_errors = errors[least]
                else:
                    others.append((means[least], finalists[least]))
        # Compare with the best other answer, on draws of their own
        rival = min(others, key=lambda other: other[0])[1] if others else best[:0]
        answer = Answer(best, _select_unlike(problem, rival, best))
        return finish(problem, answer, len(bank), generator, trace)

    def _screen(self, problem: Problem, generator: torch.Generator | None) -> Screen | None:
        """A lattice on one draw of the lowest third of the timesteps, which see places best; None for random starts."""
        placed = len(problem.value_shape) == 1 and problem.value_shape[0] <= MOST_NUMBERS
        if self.start == "random" or not placed or not problem.slots:
            return None
        return Screen.of(problem, problem.draw(3, generator)[:1], self.side)

    @property
    def _steps_of_round(self) -> int:
        return max(1, self.steps // self.rounds)

    def _run(
        self,
        problem: Problem,
        count: int,
        screen: Screen | None,
        generator: torch.Generator | None,
        on_step: Callable[[], object],
    ) -> Tensor:
        """Finalists (N, K, *V) of one count."""
        if count == 0:
            return torch.empty(1, 0, *problem.value_shape, device=problem.device)
        # Starts
        if screen is None:
            values = random_starts(problem.slots[0].support, self.inits, count, problem.value_shape, generator)
        else:
            values = residual_starts(screen.form, screen.atoms, self.inits, count, generator)
        values = values.to(problem.device)
        if problem.init is not None and len(problem.init) == count:
            values = torch.cat([problem.init[None].to(values), values[1:]])
        for _ in range(self.rounds):
            # Descend, and keep the better half
            values, errors = descend(
                problem,
                values,
                steps=self._steps_of_round,
                draws=self.draws,
                learning_rate=self.learning_rate,
                generator=generator,
                on_step=on_step,
            )
            keep = errors.argsort()[: max(min(len(values), 3), len(values) // 2)]
            values = values[keep]
        return values


def _select_unlike(problem: Problem, rival: Tensor, values: Tensor) -> Tensor:
    """The one value of a rival that is farthest from those of the answer, (1, *V), or none where all are near."""
    if not len(rival) or not len(values):
        return rival[:1]
    # Distances as quantiles, so that all numbers count alike
    to_support = transform_to(problem.slots[0].support)
    quantiles, own = (torch.sigmoid(to_support.inv(v)).flatten(1) for v in (rival, values))
    distance = torch.cdist(quantiles, own).min(1).values
    return rival[distance.argmax()][None] if float(distance.max()) > NEAR else rival[:0]
