"""The network evaluations that the table of docs/pipelines.md promises."""

from collections.abc import Callable
from typing import Any

import pytest

from energycomp import Composer, during, per_sample, region
from energycomp.denoisers import count_rows
from energycomp.models import Model
from energycomp_samplers import regional
from energycomp_text import from_pipeline

STEPS = 10


@pytest.fixture(scope="module")
def sd(pipe: Any) -> Model:
    return from_pipeline(pipe)


def halves(sd: Model, weight: float) -> Any:
    return regional([("left half", weight * sd("a")), ("right half", weight * sd("b"))])


@pytest.mark.parametrize(
    ("scene", "options", "per_step"),
    [
        (lambda sd: 5 * sd("a") & 5 * sd("b"), {}, 2 + 1),
        (lambda sd: sd("a") & sd("b") & ~sd("c"), {}, 3),  # u cancels
        (lambda sd: 5 * region("left half") * sd("a") & 5 * region("right half") * sd("b"), {}, 2 + 1),
        (lambda sd: sd("a"), {}, 1),
        (lambda sd: during(until=0.4) * sd("a") & during(from_=0.4) * sd("b"), {}, 1),
        (lambda sd: halves(sd, 5.0), {}, 0.7 * 2 * 2 + 0.3 * (2 + 1)),
        (lambda sd: halves(sd, 1.0), {}, 2),
        (lambda sd: per_sample([5 * sd("a") & 5 * sd("b"), sd("c")]), {}, 3 + 1),  # of two samples together
        *((lambda sd: sd("a") & sd("b"), {"guidance": name}, 2 + 1) for name in ("cfg", "apg", "rescale", "zero-star")),
        (lambda sd: sd("a"), {"guidance": "apg"}, 1 + 1),
    ],
)
def test_network_evaluations_of_a_step(
    sd: Model, scene: Callable[[Model], Any], options: dict[str, Any], per_step: float
) -> None:
    composer = Composer(scene(sd))
    with count_rows() as spent:
        composer.sample(num_inference_steps=STEPS, generator=0, output_type="latent", progress=False, **options)
    assert spent.rows == pytest.approx(STEPS * per_step)


def test_network_evaluations_of_the_background_of_regional(sd: Model) -> None:
    with count_rows() as spent:
        halves(sd, 1.0)
    assert spent.rows == 8
