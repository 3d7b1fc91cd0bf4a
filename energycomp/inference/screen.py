"""Whether a model knows an image, from its unconditional prediction alone: before anything is searched for.

Components cover a part of an image, and the unconditional prediction explains the rest. It explains no part of an image
of another kind, so its best explained part tells the two apart, whatever the components are.
"""

from __future__ import annotations

from typing import Any

from energycomp.errors import OutOfDistributionError
from energycomp.inference.problem import Problem, make_problem
from energycomp.inference.solution import Solution
from energycomp.models.defaults import background_error
from energycomp.models.model import Model

SCREEN_DRAWS = 4  # that measure the error of the unconditional prediction
# Standard deviations above held-out images from which an image is unknown. Of 360 images, drawn and official, each is
# at most 3.4 above by `clevr` and `clevr-small`; photos, scans and charts are 5 or more
# (`python benchmarks/inference/foreign.py`)
UNKNOWN = 4.0


def check_known(image: Any, model: Model) -> None:
    """Refuses an image of a kind that a model does not know, before it is read.

    Costs `SCREEN_DRAWS` network evaluations, and none for a model whose calibration has no `background`. Images that
    are only a little unusual pass; `Solution.out_of_distribution` says so once they are read.

    Args:
        image, model: as of `infer`; the model is loaded.

    Raises:
        OutOfDistributionError: the model does not know such images.

    >>> import torch
    >>> from energycomp import load
    >>> try:
    ...     check_known(torch.rand(3, 64, 64), load("clevr-places"))  # noise
    ... except OutOfDistributionError as error:
    ...     print(error)
    got an image of a kind that clevr-places does not know: its background is ... standard deviations from that of ...
    """
    observation = model.encode(model.given(image))
    far = unknown_by(make_problem(observation[:1], model), model)
    if far is not None:
        raise _refusal(model, f"its background is {far:.0f} standard deviations from that of held-out images")


def check_trusted(solution: Solution, model: Model) -> None:
    """Refuses an answer to an image of a kind that the model does not know, see `Solution.out_of_distribution`.

    Raises:
        OutOfDistributionError: the model does not know such images.

    >>> import torch
    >>> from energycomp.testing import tiny_model
    >>> check_trusted(Solution(torch.zeros(0, 2), 0, 1.0, 0.1, 0, typicality=0.001), tiny_model())
    Traceback (most recent call last):
    energycomp.errors.OutOfDistributionError: got an image of a kind that tiny does not know: about 0.1% of ...
    """
    if solution.out_of_distribution:
        raise _refusal(model, f"about {solution.typicality:.1%} of held-out images leave such errors")


def _refusal(model: Model, reason: str) -> OutOfDistributionError:
    return OutOfDistributionError(
        f"got an image of a kind that {model.name} does not know: {reason}; expected one like those of its training"
    )


def unknown_by(problem: Problem, model: Model) -> float | None:
    """How many standard deviations an image is beyond held-out ones, if it is unknown; None for all other images."""
    calibration = model.defaults.calibration
    if calibration is None or calibration.background is None or not problem.has_baseline:
        return None
    # Draws of their own: those of the search, and so its answer, stay as they are
    bank = problem.draw(SCREEN_DRAWS, 0)
    mean, std = calibration.background
    far = (background_error(problem.unexplained(bank)) - mean) / std
    return far if far > UNKNOWN else None
