"""Latents by search: an encoder that fails on an image and not on its mirror image, counted rows, refusals."""

from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

from energycomp import decompose
from energycomp.denoisers import count_rows
from energycomp.errors import InputError
from energycomp.images import to_unit
from energycomp.models import Defaults, Model
from energycomp.testing import stripes_model
from energycomp.testing.models import BACKGROUND, SIZE, StripesEncoder
from energycomp_decomp import DiffusionDecomposer
from energycomp_decomp.search import VIEWS, search_latents, turn, turn_back
from energycomp_lab.checks import check_decomposer

K = 4


class Confused(StripesEncoder):
    """Loses the first stripe where it is the brightest of several."""

    def forward(self, samples: Tensor) -> Tensor:
        latents = super().forward(samples)
        used = latents[..., 1:].abs().sum(2) > 0.05
        lost = (used.sum(1) > 1) & (latents[..., 1:].sum(2).argmax(1) == 0)
        latents[lost, 0, 1:] = 0.0
        return latents


def confused(views: int = 1) -> Model:
    model = stripes_model(parts=K)
    encoder = Confused(parts=K)
    return attrs.evolve(model, encoder=encoder, defaults=attrs.evolve(model.defaults, views=views))


def image() -> Tensor:
    """Two stripes, the first of them brighter."""
    shown = torch.full((1, 3, SIZE, SIZE), BACKGROUND)
    shown[..., : SIZE // K] = 0.8
    shown[..., SIZE // 2 : SIZE // 2 + SIZE // K] = 0.2
    return shown


def error(model: Model) -> float:
    return float((to_unit(image()) - decompose(to_unit(image()), model, generator=0).parts.whole / 2 - 0.5).abs().max())


def test_views_show_what_the_encoder_loses_and_latents_that_explain_the_image_are_kept() -> None:
    assert error(confused()) > 0.3
    assert error(confused(views=2)) < 1e-4
    assert error(confused(views=8)) < 1e-4
    assert error(stripes_model(parts=K)) < 1e-4
    # Turned by a quarter, stripes are horizontal, which no latents of this model explain: these views are not kept.
    assert error(attrs.evolve(stripes_model(parts=K), defaults=Defaults(num_inference_steps=10, views=8))) < 1e-4


def test_the_views_are_those_of_the_square_and_turn_back() -> None:
    corner = torch.arange(12.0).view(3, 4)
    seen = {tuple(turn(corner, view).flatten().tolist()) for view in VIEWS}
    assert len(seen) == len(VIEWS) == 8
    assert all(torch.equal(turn_back(turn(corner, view), view), corner) for view in VIEWS)
    assert [tuple(turn(corner, view).shape) for view in VIEWS[:4]] == [(3, 4)] * 4


@pytest.mark.parametrize("views", [2, 8])
def test_rows_are_counted_as_stated(views: int) -> None:
    model = stripes_model(parts=K)
    encoder: Any = model.encoder
    with torch.no_grad(), count_rows() as spent:
        search_latents(model, image(), encoder, views=views)
    assert spent.rows == 5 * views * K + 4 * K + 5
    with count_rows() as spent:
        DiffusionDecomposer(model, views=1).encode(image())
    assert spent.rows == 0


def test_images_are_searched_one_by_one_and_the_encoder_keeps_its_mode() -> None:
    check_decomposer(DiffusionDecomposer(stripes_model(), views=8))
    model = confused(views=8)
    encoder: Any = model.encoder
    encoder.train()
    decomposer = DiffusionDecomposer(model)
    images = torch.cat([image(), image().flip(-1), torch.zeros(1, 3, SIZE, SIZE)])
    together = decomposer.encode(images)
    alone = torch.cat([decomposer.encode(one) for one in images.split(1)])
    assert torch.allclose(together, alone, atol=1e-6)
    assert encoder.training


@pytest.mark.parametrize("views", [0, 9, True, 2.0, "8", None])
def test_other_numbers_of_views_are_refused(views: Any) -> None:
    with pytest.raises(InputError, match=r"from 1 to 8"):
        DiffusionDecomposer(stripes_model(), views=views)
    with pytest.raises(InputError, match=r"from 1 to 8"):
        Defaults(views=views)


def test_another_rule_or_prediction_is_refused() -> None:
    model = stripes_model()
    epsilon = attrs.evolve(model, denoiser=attrs.evolve(model.denoiser, prediction_type="epsilon"))
    for other in (stripes_model(rule="mean"), epsilon):
        with pytest.raises(InputError, match="set views=1"):
            DiffusionDecomposer(other, views=2)
        assert DiffusionDecomposer(other).views == 1
    encoder: Any = model.encoder
    with pytest.raises(InputError, match="got 2 samples"):
        search_latents(model, image().expand(2, -1, -1, -1), encoder, views=2)
