"""Images of a kind that a model does not know are refused before they are searched, and others are not."""

import warnings
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

from energycomp import infer, load
from energycomp.errors import OutOfDistributionError
from energycomp.images import open_image
from energycomp.inference import OutOfDistributionWarning, check_known, read_image
from energycomp.models import Calibration, Model
from energycomp.testing import bumps_model, planted

PLACES = torch.tensor([[0.2, 0.3], [0.7, 0.8]])
NOISE = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model() -> Model:
    """Bumps whose backgrounds leave errors of about exp(-12)."""
    known = Calibration((2,), mean=((0.0, 0.0),), std=((9.0, 9.0),), scores=(9.0,) * 9, images=99, background=(-12, 2))
    return bumps_model(calibration=known, solver="pursuit")


def image_of(model: Model) -> torch.Tensor:
    return planted(model, PLACES)[0] / 2 + 0.5


def test_noise_is_refused_by_four_evaluations_and_bumps_are_read(model: Model) -> None:
    check_known(image_of(model), model)
    with pytest.raises(
        OutOfDistributionError, match=r"got an image of a kind that bumps does not know: its background"
    ):
        check_known(NOISE, model)
    check_known(NOISE, bumps_model())  # without calibration nothing is refused


def test_infer_warns_before_the_search_and_the_answer_is_not_trusted(model: Model) -> None:
    class Nothing:
        needs = None

        def solve(self, problem: Any, *, generator: Any = None) -> Any:
            raise AssertionError("searched")

    with warnings.catch_warnings():
        warnings.simplefilter("error", OutOfDistributionWarning)  # so a search is never begun
        with pytest.raises(OutOfDistributionWarning, match="bumps does not know images of this kind"):
            infer(NOISE, model, solver=Nothing())
        assert infer(image_of(model), model).trusted
    with pytest.warns(OutOfDistributionWarning) as warned:
        found = infer(NOISE, model, count=(0, 1))
    assert len(warned) == 1
    assert Path(warned[0].filename) == Path(__file__)
    assert (found.typicality, found.trusted, len(found.warnings)) == (0.001, False, 1)  # nothing of its count


def test_answers_do_not_depend_on_the_check(model: Model) -> None:
    unchecked = attrs.evolve(model, defaults=attrs.evolve(model.defaults, calibration=None))
    image = planted(model, PLACES)
    one, other = (read_image(image, each, 3) for each in (model, unchecked))
    assert torch.equal(one.conditions, other.conditions)
    assert one.rows == other.rows + 4


@pytest.mark.parametrize("name", ["clevr", "clevr-small", "clevr-places", "clevr-places-flow"])
def test_photos_and_pages_are_refused_and_scenes_are_not(name: str) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    model = load(name)
    for photo in datasets.load_sample_images().images:
        with pytest.raises(OutOfDistributionError):
            check_known(photo, model)
    with pytest.raises(OutOfDistributionError):
        check_known(torch.ones(3, 240, 320), model)  # a white page
    if name in ("clevr", "clevr-small"):
        for drawn in ("three.png", "sharp.png"):  # by clevr itself
            check_known(open_image(Path(__file__).parents[2] / "docs" / "images" / "tutorial" / drawn), model)
