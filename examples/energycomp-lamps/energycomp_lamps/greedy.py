"""Greedy search over listed values."""

import attrs
import torch
from energycomp import Problem, Solution
from energycomp.errors import InputError
from energycomp.inference import paired


@attrs.frozen
class Greedy:
    """Adds the value that lowers the error most, one after another, and keeps the best count."""

    needs = "finite"

    @torch.no_grad()
    def solve(self, problem: Problem, *, generator: torch.Generator | None = None) -> Solution:
        """Costs two network evaluations per listed value and draw."""
        empty = torch.empty(0, *problem.value_shape, device=problem.device)
        values = problem.slots[0].candidates if problem.slots else empty
        if values is None or not problem.exchangeable:
            raise InputError("got slots that differ; expected one list of values for all; use the solver enumerate")
        search, final = (problem.quadratic(values, problem.draw(problem.default_draws, generator)) for _ in range(2))
        path: list[list[int]] = [[]]
        while len(path[-1]) < min(problem.counts[1], len(values)):
            errors = search.errors_with_each(path[-1]).mean(0)
            errors[path[-1]] = torch.inf
            path.append([*path[-1], int(errors.argmin())])
        allowed = path[problem.counts[0] :]
        allowed.sort(key=lambda answer: float(search.errors(answer).mean()))
        errors, *other = (final.errors(answer) for answer in allowed[:2])
        mean, stderr = float(errors.mean()), float(errors.std() / len(errors) ** 0.5)
        solution = Solution(values[allowed[0]], len(allowed[0]), mean, stderr, problem.rows)
        if not other:
            return solution
        difference, spread, p_value = paired(errors, other[0])
        return attrs.evolve(
            solution,
            runner_up=values[allowed[1]],
            difference=difference,
            difference_stderr=spread,
            p_value=p_value,
        )
