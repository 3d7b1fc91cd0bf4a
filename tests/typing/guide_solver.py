"""The solver of docs/plugins.md as it stands there, and its use. It is checked by mypy --strict, and not run."""

# mypy: warn-return-any
# ruff: noqa: I001

import energycomp

# random_search.py, in a package whose pyproject.toml has
#   [project.entry-points.energycomp]
#   random = "random_search"
import attrs
import torch
from energycomp import Problem, Solution, hookimpl
from energycomp.plugins import Add


@attrs.frozen
class RandomSearch:
    """Evaluates `tries` random answers for each count and keeps the best."""

    needs = "continuous"
    tries: int = 200

    @torch.no_grad()
    def solve(self, problem: Problem, *, generator: torch.Generator | None = None) -> Solution:
        bank, answers = problem.draw(problem.default_draws, generator), []
        for count in range(problem.counts[0], problem.counts[1] + 1):
            values = torch.rand(self.tries if count else 1, count, *problem.value_shape, generator=generator)
            errors = problem.errors(values, bank)  # (tries, draws)
            least = int(errors.mean(1).argmin())
            answers.append((values[least], errors[least]))
        values, errors = min(answers, key=lambda answer: float(answer[1].mean()))
        stderr = float(errors.std() / len(errors) ** 0.5)
        return Solution(values, len(values), float(errors.mean()), stderr, problem.rows)


@hookimpl
def energycomp_register(add: Add) -> None:
    add.solver("random", RandomSearch)


def use() -> Solution:
    return energycomp.infer("scene.png", energycomp.load("clevr"), solver=RandomSearch(tries=3))
