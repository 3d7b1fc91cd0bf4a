"""CMA-ES (Hansen, 2016) over continuous values, one component after another."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import attrs
import cmaes
import numpy as np
import torch
from energycomp import NoiseBank, Problem, Solution
from energycomp.inference import paired
from torch import Tensor
from torch.distributions import transform_to

__all__ = ["CMAES"]


@attrs.frozen
class CMAES:
    """Adds components, each found by its own CMA-ES search, while one more lowers the error on fresh draws.

    Args:
        starts: number of random values; a search starts from the best of them.
        population: number of candidates per generation.
        generations: greatest number of generations of a search.
        draws: number of draws that a search averages over.
        sigma: standard deviation of the first generation, in the unconstrained space of the support.
        tolerance: a search ends when the standard deviation of a generation is below this.
        p_value: one more component is kept if the p-value of the paired test is below this.
    """

    needs: ClassVar[Literal["continuous"]] = "continuous"

    starts: int = 100
    population: int = 8
    generations: int = 15
    draws: int = 8
    sigma: float = 0.2
    tolerance: float = 0.02
    p_value: float = 1e-2

    @torch.no_grad()
    def solve(self, problem: Problem, *, generator: torch.Generator | None = None) -> Solution:
        """Costs at most (starts + generations population) draws network evaluations per component, and a comparison."""
        device = None if generator is None else generator.device
        rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator, device=device)))
        judge, final = (problem.draw(problem.default_draws, generator) for _ in range(2))
        values, rival = torch.empty(0, *problem.value_shape, device=problem.device), None
        for count in range(problem.counts[1]):
            more = torch.cat([values, self._search(problem, values, problem.draw(self.draws, generator), rng)])
            if count < problem.counts[0]:
                values = more
            elif _compare(problem, more, values, judge)[2] < self.p_value:
                values, rival = more, values
            else:
                rival = more
                break
        errors = problem.errors(values[None], final)[0]  # draws that selected nothing estimate the error of the answer
        gap = (None, None, None) if rival is None else _compare(problem, values, rival, final)
        stderr = float(errors.std() / len(errors) ** 0.5)
        return Solution(values, len(values), float(errors.mean()), stderr, problem.rows, rival, *gap)

    def _search(self, problem: Problem, held: Tensor, bank: NoiseBank, rng: np.random.Generator) -> Tensor:
        """The value (1, *V) that lowers the error most, added to the values found so far, (K, *V)."""
        to_support = transform_to(problem.slots[0].support)
        shape = to_support.inverse_shape(problem.value_shape)  # of one value in the unconstrained space
        weight = problem.weighting(len(held) + 1)
        left = _unexplained(problem, held, weight, bank)

        def values(free: np.ndarray) -> Tensor:
            return to_support(torch.from_numpy(free).to(held).reshape(-1, *shape))

        def errors(free: np.ndarray) -> Tensor:
            """(N,), one network evaluation per value and draw: the values found so far are not evaluated again."""
            atoms = problem.quadratic(values(free), bank).atoms  # (S, N, P)
            return (left[:, None] - weight * atoms).square().sum(2).mean(0)

        starts = rng.normal(scale=1.5, size=(self.starts, math.prod(shape)))  # covers a box about evenly
        start = starts[int(errors(starts).argmin())]
        seed = int(rng.integers(2**31))
        search = cmaes.CMA(start, self.sigma, population_size=self.population, seed=seed)
        for _ in range(self.generations):
            asked = np.stack([search.ask() for _ in range(self.population)])
            search.tell(list(zip(asked, errors(asked).tolist(), strict=True)))
            if asked.std(0).max() < self.tolerance:
                break
        return values(search.mean)


def _unexplained(problem: Problem, held: Tensor, weight: float, bank: NoiseBank) -> Tensor:
    """The target minus the values found so far, (S, P), scaled so that its squared norm is the error."""
    form = problem.quadratic(held, bank)
    return form.target - weight * form.atoms.sum(1)


def _compare(problem: Problem, answer: Tensor, other: Tensor, bank: NoiseBank) -> tuple[float, float, float]:
    """The error of the other answer (K', *V) minus that of the answer (K, *V): mean, standard error, p-value."""
    return paired(problem.errors(answer[None], bank)[0], problem.errors(other[None], bank)[0])
