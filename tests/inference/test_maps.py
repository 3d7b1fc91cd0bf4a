"""Maps of what each component explains: the error of the composition without it minus the error, pixel by pixel."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from energycomp.errors import InputError
from energycomp.images import guided, to_unit
from energycomp.inference import FIT_DRAWS, Solution, explain, infer, make_problem
from energycomp.inference.judge import _make_maps
from energycomp.models import Model
from energycomp.testing import bumps_model, labels_model, planted, stripes_model, tiny_model

PLACES = torch.tensor([[0.2, 0.3], [0.7, 0.8], [0.3, 0.7]])
LABELS = torch.tensor([1, 2, 5])


@pytest.mark.parametrize(
    ("model", "values"),
    [(tiny_model(), PLACES), (tiny_model(), PLACES[:1]), *((labels_model(rule=r), LABELS) for r in ("sum", "mean"))],
)
def test_a_map_sums_to_the_rise_of_the_error_without_the_component(model: Model, values: Tensor) -> None:
    problem = make_problem(torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)), model)
    bank = problem.draw(5, 0)
    left, parts = problem.explained(values, bank)
    assert left.equal(problem.residuals(values, bank))
    assert parts is not None
    whole = problem.errors(values[None], bank)[0]
    for k in range(len(values)):
        rest = torch.cat([values[:k], values[k + 1 :]])
        without = problem.errors(rest[None], bank)[0] if len(rest) else problem.baseline_errors(bank)
        assert without is not None
        torch.testing.assert_close(parts[k].sum(), (without - whole).mean(), rtol=1e-3, atol=1e-3)


def test_a_reading_has_maps_at_no_cost() -> None:
    model = bumps_model(solver="pursuit")
    image = to_unit(planted(model, PLACES))[0]
    solution = infer(image, model, count=3)
    maps = solution.maps()
    assert maps.shape == (3, 16, 16)
    for (x, y), one in zip(solution.conditions.tolist(), maps, strict=True):
        row, column = divmod(int(one.argmax()), 16)
        assert (column / 16, row / 16) == pytest.approx((x, y), abs=0.1)
    assert float(solution.share.sum()) == pytest.approx(1.0, abs=0.1)  # bumps overlap a little
    again = explain(image, model, solution.conditions)
    assert again.rows == (3 + 1) * (FIT_DRAWS + model.defaults.draws)
    assert again.conditions.equal(solution.conditions)
    torch.set_default_dtype(torch.float64)
    try:
        wide = infer(image, bumps_model(), solver="pursuit", count=3).maps()
    finally:
        torch.set_default_dtype(torch.float32)
    assert wide.dtype == torch.float64
    torch.testing.assert_close(wide, maps.double(), rtol=0.05, atol=0.01)  # of other draws


def test_the_only_component_explains_all_and_an_absent_one_is_unsupported() -> None:
    model = bumps_model()
    image = to_unit(planted(model, PLACES[:2]))[0]
    only, both = (explain(image, model, values) for values in ([(0.2, 0.3)], [(0.2, 0.3), (0.9, 0.1)]))
    assert float(only.share) == pytest.approx(1.0)
    assert only.component_gain is not None
    assert not only.at_count_limit
    assert both.unsupported == (1,)
    assert float(both.share[1]) < 0
    width, height = both.picture(maps=True, side=100).size  # with a map for each component
    assert (width, height > 200) == (2 * 100 + 3 * 2, True)


def test_parts_of_an_encoder_are_values_as_any() -> None:
    model = stripes_model(parts=4)
    image = torch.full((3, 16, 16), 0.8)
    assert model.encoder is not None
    maps = explain(image, model, model.encoder(image[None] * 2 - 1)[0]).maps()
    columns = maps.sum(1).argmax(1) // 4
    assert sorted(columns.tolist()) == [0, 1, 2, 3]


def test_maps_have_the_size_of_the_images_of_a_codec() -> None:
    parts = torch.rand(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    maps = _make_maps(parts, bumps_model(), torch.zeros(1, 3, 16, 16))()  # a model with a codec would take seconds
    assert maps.shape == (2, 16, 16)
    torch.testing.assert_close(maps.sum((1, 2)), parts.sum((1, 2, 3)), rtol=0.05, atol=0)


def test_maps_have_the_edges_of_the_image_and_keep_their_sums() -> None:
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[10:22, 6:18] = True
    image = torch.where(inside, 0.8, -0.5).expand(3, 32, 32)
    blurred = avg_pool2d(inside[None].float(), 9, 1, 4)
    maps = guided(torch.cat([blurred, -2 * blurred]), image)
    torch.testing.assert_close(maps.sum((1, 2)), torch.tensor([1.0, -2.0]) * blurred.sum(), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(maps[1], -2 * maps[0], rtol=1e-4, atol=1e-4)
    for one, sharp in ((blurred[0], False), (maps[0], True)):
        gap = float(one[inside].min() - one[~inside].max())
        assert (gap > 0) == sharp
    flat = guided(blurred, torch.full((1, 32, 32), 0.3))  # no edges: a blurred map, without NaN
    assert bool(flat.isfinite().all())


def test_there_are_no_maps_without_components_or_what_explains_without_them() -> None:
    with pytest.raises(InputError, match="without maps; expected components"):
        Solution(PLACES, 3, 1.0, 0.1, 0).maps()
    model = labels_model(rule="mean")
    with pytest.raises(InputError, match="at least two where the model has no unconditional"):
        explain(to_unit(planted(model, LABELS[:1]))[0], model, [1]).maps()
