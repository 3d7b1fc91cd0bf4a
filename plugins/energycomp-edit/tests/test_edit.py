"""Editing against pictures whose every composition is known, and what it must refuse."""

from typing import Any

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from energycomp import Composition, Model, Solution
from energycomp.components import cosine_schedule, flow_schedule
from energycomp.denoisers import count_rows
from energycomp.errors import InputError
from energycomp.images import ImageProcessor, to_output, to_unit
from energycomp.inference import OutOfDistributionWarning
from energycomp.models import calibration_of
from energycomp.seeds import seeded
from energycomp.testing import Gaussian, Places, bumps_model, planted, tinted_model, tiny_model
from energycomp_edit import differences, edit, repaint
from energycomp_edit.blending import blend, cut_mattes
from energycomp_edit.canvas import _restore_pixels
from energycomp_edit.painting import DRAWS
from energycomp_solvers.pursuit import Pursuit

PLACES = torch.tensor([[0.2, 0.2], [0.8, 0.3], [0.3, 0.8]])
# Of an edit whose result is read as fast as can be: what is read says nothing here.
UNREAD: dict[str, Any] = {"solver": Pursuit(budget=0), "tries": 1, "progress": False}


@pytest.fixture(params=["sample", "flow"])
def model(request: Any) -> Model:
    return bumps_model(num_inference_steps=10, solver="pursuit", prediction_type=request.param)


def answer(values: Tensor = PLACES) -> Solution:
    return Solution(values, count=len(values), error=0.0, stderr=0.0, rows=7)


def change(model: Model, image: Any = None, **options: Any) -> Any:
    picture = to_unit(planted(model, PLACES)[0]) if image is None else image
    return edit(picture, model, solution=answer(), progress=False, **options)


@pytest.mark.parametrize(
    ("options", "after"),
    [
        ({"remove": [1]}, [[0.2, 0.2], [0.3, 0.8]]),
        ({"add": [(0.8, 0.8)]}, [[0.2, 0.2], [0.8, 0.3], [0.3, 0.8], [0.8, 0.8]]),
        ({"move": {1: (0.75, 0.75)}}, [[0.2, 0.2], [0.75, 0.75], [0.3, 0.8]]),  # values that are no places: anew
        ({"remove": [0, 2], "move": {1: (0.5, 0.5)}, "add": [(0.1, 0.9)]}, [[0.5, 0.5], [0.1, 0.9]]),
        ({"remove": [0, 1, 2]}, []),
        ({"add": [torch.tensor([0.8, 0.8])], "remove": [0]}, [[0.8, 0.3], [0.3, 0.8], [0.8, 0.8]]),
    ],
)
def test_the_picture_becomes_that_of_the_new_composition(model: Model, options: dict[str, Any], after: Any) -> None:
    edited = change(model, **options)
    torch.testing.assert_close(edited.values, torch.tensor(after).reshape(-1, 2))
    before, wanted = planted(model, PLACES), planted(model, edited.values)
    free = edited.mask.bool().expand(1, 3, -1, -1)
    assert 0 < free.float().mean() < 1
    torch.testing.assert_close(edited.sample[free], wanted[free], atol=1e-3, rtol=0)
    # What was sampled, and left no byte of the image changed, is near it.
    torch.testing.assert_close(edited.sample[~free], before[~free], atol=0.02, rtol=0)
    bytes_before, bytes_after = (np.asarray(one) for one in (edited.before.image, edited.image))
    assert np.array_equal(edited.mask[0, 0].bool().numpy(), (bytes_before != bytes_after).any(2))
    # What is held though it changes is below the threshold that calls a place changed.
    assert float((edited.sample - wanted).abs().max()) < 0.1


def test_rows_are_those_of_the_fields_and_of_the_steps_and_it_reads_the_picture_itself(model: Model) -> None:
    edited = change(model, remove=[0], add=[(0.8, 0.8)])
    fields = (3 + 1 + 2) * DRAWS  # the rows of all components and of u, then those of what comes and of u
    assert edited.rows == fields + 10 * (3 + 1) + edited.new_solution.rows
    assert (edited.solution.rows, edited.tries, edited.faults) == (7, 1, ())
    edited = edit(to_unit(planted(model, PLACES)[0]), model, remove=[0], count=3, progress=False)
    assert edited.solution.count == 3
    assert len(edited.values) == 2


def test_a_moved_place_takes_its_pixels_along() -> None:
    model = attrs.evolve(bumps_model(num_inference_steps=10, solver="pursuit"), conditioner=Places())
    image = to_unit(planted(model, PLACES)[0])
    edited = change(model, image, move={1: (0.8, 0.55)})
    before, after = np.asarray(to_output(planted(model, PLACES), "pil")[0]), np.asarray(edited.image)
    assert np.array_equal(after[7:11, 11:14], before[3:7, 11:14])  # four places lower
    torch.testing.assert_close(
        edited.sample[0, :, 3:6, 11:14], planted(model, PLACES[::2])[0, :, 3:6, 11:14], atol=0.02, rtol=0
    )


def test_only_the_mask_of_the_given_picture_changes(model: Model) -> None:
    given = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 96, 3), dtype=np.uint8))
    edited = change(attrs.evolve(model, processor=ImageProcessor((16, 16), "crop")), given, remove=[0])
    assert edited.image.size == given.size
    before, after = np.asarray(given), np.asarray(edited.image)
    assert (before[:, :24] == after[:, :24]).all()  # what the model does not see
    assert (before[:, 72:] == after[:, 72:]).all()
    changed = (before != after).any(2).mean()
    assert 0 < changed < 0.6 * float(edited.mask.mean()) + 0.1


def test_a_larger_image_is_equal_outside_the_mask(model: Model) -> None:
    """Each pixel of the mask is a block of 10x10 pixels; blocks between others are repainted whole."""
    given = Image.fromarray(np.random.default_rng(0).integers(0, 255, (160, 160, 3), dtype=np.uint8))
    edited = change(model, given, remove=[0], add=[(0.8, 0.8)])
    mask = np.kron(edited.mask[0, 0].numpy(), np.ones((10, 10))) > 0
    assert 0 < mask.mean() < 1
    assert np.array_equal(np.asarray(edited.image)[~mask], np.asarray(given)[~mask])
    inner = functional.avg_pool2d(edited.mask, 3, 1, 1)[0, 0].numpy() > 0.99
    assert inner.any()
    painted = model.decode(edited.sample)[0].resize((160, 160), Image.Resampling.BICUBIC)
    inside = np.kron(inner, np.ones((10, 10), dtype=bool))
    away = np.asarray(edited.image).astype(int)[inside] - np.asarray(painted).astype(int)[inside]
    assert np.abs(away).mean() < 12  # the given image is 64 away, on average
    assert np.abs(away.mean()) < 8


def test_what_differs_around_the_mask_is_continued_into_it() -> None:
    """A photo that is brighter than what the model draws gets a repainted part that is as much brighter."""
    photo, old = torch.full((1, 3, 160, 160), 0.2), torch.zeros(1, 3, 16, 16)
    photo[..., 70:90, 70:90], old[..., 7:9, 7:9] = -0.8, -0.8
    region, kept = torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 160, 160)
    region[..., 5:11, 5:11], kept[..., 70:75, 70:90] = 1.0, 1.0
    result = blend(photo, old, torch.zeros_like(old), region, kept)
    assert result[..., 70:75, 70:90].eq(-0.8).all()
    assert float((torch.where(kept > 0, 0.2, result) - 0.2).abs().max()) < 0.02


def test_it_repeats() -> None:
    options: dict[str, Any] = {"solution": answer(PLACES[:0]), "num_inference_steps": 4, **UNREAD}
    one, two, three = (
        edit(torch.zeros(3, 16, 16), tiny_model(solver="pursuit"), add=[(0.2, 0.3)], generator=seeded(seed), **options)
        for seed in (1, 1, 2)
    )
    assert torch.equal(one.sample, two.sample)
    assert not torch.equal(one.sample, three.sample)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "nothing to change"),
    ({"remove": [3]}, r"component 3 of 3; expected one of the answer's \(0: \[0.2"),
    ({"remove": [-1]}, "component -1 of 3"),
    ({"remove": [1], "move": {1: (0.5, 0.5)}}, "component 1 to change and to remove"),
    ({"remove": [1, 1]}, "twice"),
    ({"set": {0: {"colour": "red"}}}, "it has none"),
    ({"set": [1]}, "set=\\[1\\]"),
    *(({"add": [wrong]}, "expected two numbers") for wrong in ((0.5, 1.5), (0.5,), (float("nan"), 0.5), 0.5)),
    ({"add": "ab"}, "expected such as"),
    ({"remove": 0}, "got remove=0; expected such as"),
    ({"move": [(0.5, 0.5)]}, "expected such as"),
    ({"add": [(0.2, 0.2)]}, "equal values"),
    ({"add": [torch.tensor([0.5, 1.5])]}, "expected a legal value of shape"),
    ({"move": {1: torch.zeros(3)}}, "expected two numbers"),
    ({"remove": [1], "num_inference_steps": 0}, "num_inference_steps"),
    ({"remove": [1], "num_inference_steps": 2.5}, "num_inference_steps=2.5; expected a whole number"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_cannot_be_done_costs_no_row(model: Model, options: dict[str, Any], message: str) -> None:
    with count_rows() as spent, pytest.raises(InputError, match=message):
        change(model, **options)
    assert spent.rows == 0


def test_no_component_is_left_only_under_the_product_rule() -> None:
    model = bumps_model()
    with pytest.raises(InputError, match="rule 'sum'"):
        change(attrs.evolve(model, denoiser=attrs.evolve(model.denoiser, rule="sum")), remove=[0, 1, 2])


def test_a_foreign_picture_warns() -> None:
    usual = torch.randn(20, 2, generator=seeded(0)) - 20  # logarithms
    model = bumps_model(calibration=calibration_of({1: usual}), solver="pursuit")
    with pytest.warns(OutOfDistributionWarning):
        edit(torch.zeros(3, 16, 16), model, remove=[0], count=1, num_inference_steps=2, progress=False)


def test_repaint_holds_what_is_not_free_and_runs_nothing_for_it(model: Model) -> None:
    picture = planted(model, PLACES)
    with count_rows() as spent:
        held = repaint(model.compose(PLACES), picture, torch.zeros(1, 1, 16, 16), num_inference_steps=8, progress=False)
    torch.testing.assert_close(held, picture, atol=1e-5, rtol=0)
    assert spent.rows == 0
    half = torch.full((1, 1, 16, 16), 0.5)
    with count_rows() as spent:
        repaint(model.compose(PLACES), picture, half, num_inference_steps=8, progress=False)
    assert spent.rows == 4 * (3 + 1)


SCHEDULERS = [
    "DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "FlowMatchEulerDiscreteScheduler"
]  # fmt: skip


@pytest.mark.parametrize("schedule", [cosine_schedule(), flow_schedule()], ids=["cosine", "flow"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_repaint_samples_what_is_free(scheduler: str, schedule: Tensor) -> None:
    gaussian = Gaussian(torch.full((1, 4, 4), -0.5), 1e-6, sample_shape=(1, 4, 4), alphas_cumprod=schedule)
    left, given = (torch.arange(4) < 2).float().expand(1, 1, 4, 4), torch.full((1, 1, 4, 4), 0.5)
    how: dict[str, Any] = {"num_inference_steps": 20, "scheduler": scheduler, "progress": False}
    painted = repaint(Composition.of(gaussian), given, left, **how)
    torch.testing.assert_close(painted, torch.where(left > 0, -0.5, 0.5), atol=0.02, rtol=0)


@pytest.mark.parametrize(("freedom", "times"), [(1.0, 4), (0.5, 2)])
def test_what_is_known_of_free_pixels_is_restored_now_and_then_and_at_the_end(freedom: float, times: int) -> None:
    called: list[Tensor] = []

    def restore(x0: Tensor) -> Tensor:
        called.append(x0)
        return torch.where(torch.arange(4) == 0, 0.75, x0)

    dark = Composition.of(Gaussian(torch.full((1, 4, 4), -0.5), 1e-4))
    free = torch.full((1, 1, 4, 4), freedom)
    painted = repaint(dark, free * 0, free, restore=restore, num_inference_steps=20, progress=False)
    assert len(called) == times
    assert painted[0, 0, 0].round(decimals=2).tolist() == [0.75, -0.5, -0.5, -0.5]


def test_difference_is_that_of_the_predictions(model: Model) -> None:
    picture = planted(model, PLACES)
    a, b, c = (model.leaf(value[None]) for value in PLACES)
    with count_rows() as spent:
        field = differences([(a & b & c, a & c)], picture, timesteps=(500.0, 900.0), draws=4)
    missing = planted(model, PLACES[1:2]) - planted(model, PLACES[:0])
    torch.testing.assert_close(field, missing.square().mean(1, keepdim=True).sqrt(), atol=1e-3, rtol=0)
    assert spent.rows == 2 * 4


def test_differences_share_their_draws_and_are_decoded_along_their_main_directions(model: Model) -> None:
    """A codec that turns and scales numbers: what is decoded is what each draw decodes to, in the mean of squares."""
    calls: list[int] = []

    def decode(sample: Tensor) -> Tensor:
        calls.append(len(sample))
        return 3 * sample.flip(-1)

    picture = planted(model, PLACES)
    a, b, c = (model.leaf(value[None]) for value in PLACES)
    options: dict[str, Any] = {"timesteps": (500.0, 900.0), "draws": 4}
    with count_rows() as spent:
        both = differences([(a & b & c, a & c), (a & b & c, a & b)], picture, decode=decode, generator=0, **options)
    assert spent.rows == (2 + 1) * 4
    assert calls == [3, 3]  # the picture and two directions, in place of four draws
    plain = [differences([(a & b & c, some)], picture, generator=0, **options) for some in (a & c, a & b)]
    torch.testing.assert_close(both, 3 * torch.cat(plain).flip(-1), atol=1e-4, rtol=1e-3)


def test_new_words_keep_the_place_of_a_move_and_the_words_that_it_leaves_open() -> None:
    model = tinted_model(num_inference_steps=2, solver="pursuit")
    parse = model.conditioner.parse
    read, other = parse(0.5, 0.5, tint="red"), parse(0.1, 0.9, width="wide")
    found = answer(torch.cat([read, other]))
    image = to_unit(planted(model, found.conditions)[0])

    def values(**options: Any) -> Tensor:
        return edit(image, model, solution=found, **UNREAD, **options).values

    assert values(move={0: (0.25, 0.0)}).equal(torch.cat([parse(0.25, 0.0, tint="red"), other]))
    assert values(remove=[0], add=[(0.4, 0.4)]).equal(torch.cat([other, parse(0.4, 0.4)]))  # what is new stays open
    changed = {"set": {0: {"tint": "blue"}}}
    assert values(move={0: (0.25, 0.0)}, **changed).equal(torch.cat([parse(0.25, 0.0, tint="blue"), other]))
    assert values(**changed).equal(torch.cat([parse(0.5, 0.5, tint="blue"), other]))
    with pytest.raises(InputError, match="expected words by attribute of tinted: tint, width"):
        values(set={1: {"hue": "blue"}})


def test_new_words_are_drawn_over_an_object_whose_grain_stays() -> None:
    """The tint changes by as much as the model says, under a grain of 96x96 pixels that the model cannot draw."""
    model = tinted_model(num_inference_steps=20, solver="pursuit")
    parse = model.conditioner.parse
    found = torch.cat([parse(0.3, 0.3, tint="red"), parse(0.75, 0.7, tint="blue")])
    grain = 0.04 * torch.randn(1, 1, 96, 96, generator=seeded(0))
    photo = (functional.interpolate(planted(model, found), scale_factor=6, mode="bicubic") + grain).clamp(-1, 1)
    edited = edit(to_output(photo, "pil")[0], model, set={0: {"tint": "green"}}, solution=answer(found), progress=False)
    before, after = (np.asarray(image).astype(float) for image in (to_output(photo, "pil")[0], edited.image))
    change = (after - before)[24:34, 24:34]  # around its centre
    assert change[..., 0].max() < -60
    assert change[..., 1].min() > 60
    assert change.std((0, 1)).max() < 4  # smooth: the grain, of 5 levels, is that of before
    assert np.array_equal(after[60:, 60:], before[60:, 60:])
    # The rows of all components and of u, then those of the changed one and of u
    fields, drawing, reading = (2 + 1 + 2) * DRAWS, 20 * (3 + 3), (2 * 2 + 1) * DRAWS
    assert edited.rows == fields + drawing + reading + edited.new_solution.rows


def test_outlines_follow_the_edges_of_the_photo_have_no_holes_and_no_scraps() -> None:
    inside = torch.zeros(96, 96, dtype=torch.bool)
    inside[20:60, 20:60] = True
    photo = torch.where(inside, 0.6, -0.2).expand(1, 3, 96, 96).clone()
    photo[..., 35:42, 35:42] = -0.2  # a highlight
    field = functional.avg_pool2d(inside[None, None].float(), 6)
    field[..., 14, 14] = 1.0  # a scrap
    (matte,) = cut_mattes(field, photo)
    assert float(((matte[0] > 0.5) != inside).float().mean()) < 0.01
    assert matte[0, 36:41, 36:41].eq(1).all()
    assert cut_mattes(field[:0], photo).shape == (0, 1, 96, 96)


def test_the_only_object_is_moved_under_a_rule_that_needs_one() -> None:
    model = attrs.evolve(bumps_model(num_inference_steps=4, solver="pursuit"), conditioner=Places())
    alone = attrs.evolve(model, denoiser=attrs.evolve(model.denoiser, rule="mean"))
    image = to_unit(planted(model, PLACES[:1])[0])
    edited = edit(image, alone, move={0: (0.7, 0.7)}, solution=answer(PLACES[:1]), progress=False)
    assert edited.values.tolist() == [pytest.approx([0.7, 0.7])]


def test_pixels_outside_a_region_are_held_within_a_latent() -> None:
    class Halves:
        def encode(self, images: Tensor) -> Tensor:
            return functional.avg_pool2d(images, 2)

        def decode(self, latents: Tensor) -> Tensor:
            return functional.interpolate(latents, scale_factor=2)

    picture, x0 = torch.zeros(1, 1, 4, 6), torch.full((1, 1, 2, 3), 0.5)
    region = (torch.arange(6) < 3).float().expand(1, 1, 4, 6)  # ends within the second latent
    restored = _restore_pixels(Halves(), picture, region, x0)
    assert restored[0, 0, 0].tolist() == [0.5, 0.25, 0.0]


def test_a_network_that_finishes_samples_is_told_what_an_edit_shows() -> None:
    class Same:
        identity, latent_shape, registered_name = "same", (3, 16, 16), "same"

        def encode(self, images: Tensor) -> Tensor:
            return images

        def decode(self, latents: Tensor) -> Tensor:
            return latents

    told: list[list[float]] = []

    def finish(composition: Any, pictures: Tensor) -> Tensor:
        told.extend(leaf.condition.rows[0, 0].tolist() for leaf in composition.terms if leaf.name != "u")
        return 0.5 * pictures

    model = bumps_model(num_inference_steps=4, solver="pursuit")
    model = attrs.evolve(model, denoiser=attrs.evolve(model.denoiser, codec=Same()))
    plain = change(model, remove=[0], add=[(0.8, 0.8)], generator=0)
    model.denoiser.network.finish = finish  # type: ignore[assignment]
    edited = change(model, remove=[0], add=[(0.8, 0.8)], generator=0)
    assert told == [pytest.approx(place) for place in ([0.8, 0.3], [0.3, 0.8], [0.8, 0.8])]
    spread = [np.asarray(one.image, dtype=float).std() for one in (edited, plain)]
    assert spread[0] < spread[1]
