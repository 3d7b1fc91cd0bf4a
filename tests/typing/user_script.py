"""What a user writes with annotations. It is checked by mypy --strict, and not run."""

# mypy: warn-return-any
# ruff: noqa: T201

from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs
import torch
from torch import Tensor, nn
from torch.distributions import constraints

import energycomp
from energycomp import (
    Composer,
    Composition,
    Condition,
    Conditioner,
    Denoiser,
    EnergyComponent,
    Model,
    Problem,
    Solution,
    Solver,
    hookimpl,
)
from energycomp.components import Gaussian, Mixture, cosine_schedule
from energycomp.errors import EnergycompError, InputError
from energycomp.images import ImageProcessor
from energycomp.models import Defaults, save_pretrained
from energycomp.plugins import Add, register
from energycomp_lab.checks import check_component, check_conditioner, check_solver
from energycomp_lab.evaluation import DataSource, Example, Report, evaluate, true_values
from energycomp_lab.training import FitConfig, Recipe, Step, collate, denoising_loss, fit, start


class First:
    """A solver whose `needs` is a plain class attribute."""

    needs = "finite"

    def solve(self, problem: Problem, *, generator: torch.Generator | None = None) -> Solution:
        bank = problem.draw(problem.default_draws, generator)
        values = problem.slots[0].candidates
        if values is None:
            raise InputError("got continuous slots; expected listed values; choose another solver")
        form = problem.quadratic(values, bank)
        errors: Tensor = form.errors([0])
        left: Tensor = form.target - form.atoms.sum(1)
        assert left.ndim == 2
        return Solution(values[:1], 1, float(errors.mean()), float(errors.std()), problem.rows)


@attrs.frozen
class Second:
    """A solver whose `needs` is annotated, and with an option."""

    needs: ClassVar[Literal["continuous"] | None] = None
    tries: int = 8

    def solve(self, problem: Problem, *, generator: torch.Generator | None = None) -> Solution:
        values = torch.rand(self.tries, problem.counts[1], *problem.value_shape, generator=generator)
        errors = problem.errors(values, problem.draw(4, generator)).mean(1)
        best = int(errors.argmin())
        return Solution(values[best], problem.counts[1], float(errors[best]), 0.0, problem.rows)


class Pairs:
    """A conditioner with plain class attributes."""

    value_shape = (2,)
    token_shape = (1, 2)
    support = constraints.independent(constraints.unit_interval, 1)

    def parse(self, x: float = 0.0, y: float = 0.0, **unknown: Any) -> Tensor:
        return torch.tensor([[x, y]])

    def describe(self, value: Tensor) -> dict[str, float]:
        return {"x": float(value[0]), "y": float(value[1])}

    def config(self) -> dict[str, Any]:
        return {}

    def __call__(self, values: Tensor) -> Condition:
        return Condition(values[:, None])


class Net(nn.Module):
    """A network with one stage."""

    def __init__(self) -> None:
        super().__init__()
        self.config: dict[str, Any] = {}
        self.layer = nn.Conv2d(3, 3, 1)

    def forward(self, sample: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        out: Tensor = self.layer(sample)
        return out


def own_model() -> Model:
    conditioner = Pairs()
    denoiser = Denoiser(
        network=Net(),
        alphas_cumprod=cosine_schedule(),
        prediction_type="sample",
        rule="product",
        sample_shape=(3, 16, 16),
        token_shape=conditioner.token_shape,
    )
    return Model(
        name="pairs",
        denoiser=denoiser,
        conditioner=conditioner,
        processor=ImageProcessor(size=(16, 16)),
        network_name="net",
        conditioner_name="pairs",
        defaults=Defaults(counts=(0, 3)),
    )


def own_recipe(*, data: Path | None, init: Model | None, preset: str, cache: Path) -> Recipe:
    model = start(init, own_model)
    images = [{"image": torch.zeros(3, 16, 16), "values": torch.rand(k % 3, 2)} for k in range(8)]

    def loss(module: nn.Module, batch: dict[str, Tensor], step: Step) -> Tensor:
        condition = model.conditioner(batch["values"])
        return denoising_loss(
            model.denoiser, batch["image"], condition, batch["owner"], module=module, generator=step.generator
        )

    config = FitConfig(steps=2, batch_size=2, learning_rate=1e-3)
    fit(model.denoiser.network, loss, images, config, out="run", collate_fn=collate)
    return Recipe(model=model, module=model.trained, loss=loss, data=images, config=config, collate_fn=collate)


@hookimpl
def energycomp_register(add: Add) -> None:
    add.solver("first", "script:First")


def compose(model: Model) -> Composer:
    """The components and their samples are in components_script.py."""
    a, b = model(0.3, 0.4), model(0.7, 0.6)
    scene: Composition = a & b & ~model(0.5, 0.5)
    weighted: Composition = 2.0 * a - b + 0.5 * scene
    total = sum([a, b])  # Composition | Literal[0], which is what sum() promises
    mixture: Mixture = Gaussian(0.0) | Gaussian(1.0) | Gaussian(2.0)
    component: EnergyComponent = scene
    check_component(component)
    energy: Tensor = mixture.energy(torch.zeros(1, 1, 1, 1), torch.zeros(1))
    print(weighted.mass, total, energy, scene.terms)
    composer = Composer([a, b], rule="product")
    composer.sample(2, generator=torch.Generator().manual_seed(0))[0].save("scene.png")
    return composer


def infer(model: Model) -> list[Any]:
    solvers: list[Solver] = [First(), Second(tries=4)]
    for solver in solvers:
        check_solver(solver)
    solution = energycomp.infer("scene.png", model, solver=First(), count=(0, 3))
    positions: Tensor = solution.conditions
    number: int = solution.count
    error: float = solution.error + solution.stderr + solution.rows
    if solution.p_value is not None and solution.p_value < 0.05 and not solution.out_of_distribution:
        print(positions, number, error, solution.runner_up, solution.difference, solution.trace.keys())
    if solution.fit is not None and solution.component_gain is not None:
        print(f"{solution.fit:.2f}", solution.component_gain.tolist())
    return [model.conditioner.describe(value) for value in solution.conditions]


def score(model: Model, source: DataSource) -> Report:
    examples = source.examples("synthetic", count=4, seed=0)
    example: Example = examples[0]
    values: Tensor = true_values(example, model.conditioner)
    print(values.shape)
    return evaluate(model, examples, source.metrics(), seed=0)


def refused(model: Model) -> None:
    """What a type checker must refuse: a comment below is an error if nothing is wrong on its line."""
    energycomp.infer("scene.png", model, solver=Pairs())  # type: ignore[call-overload]
    Model(name="pairs", denoiser=Net())  # type: ignore[call-arg, arg-type]


def main() -> None:
    register("conditioners", "pairs", Pairs)
    conditioner: Conditioner = Pairs()
    check_conditioner(conditioner)
    try:
        model = energycomp.load("clevr", device="cpu")
    except EnergycompError as error:
        print(error)
        return
    compose(model)
    infer(model)
    save_pretrained(model, "copy")


if __name__ == "__main__":
    main()
