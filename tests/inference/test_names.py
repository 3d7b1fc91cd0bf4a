"""Names that one would guess: those of an answer, of several answers, and of a composer."""

import sys
from pathlib import Path

import pytest
import torch

import energycomp
from energycomp import Composer, Solution, infer
from energycomp.errors import InputError, NotFoundError
from energycomp.inference import View
from energycomp.testing import bumps_model, planted, tinted_model, tiny_model

MODEL = bumps_model(solver="pursuit")
PLACES = ([[0.2, 0.2]], [[0.3, 0.7], [0.8, 0.3]])
IMAGES = [planted(MODEL, torch.tensor(places))[0] / 2 + 0.5 for places in PLACES]


def test_a_list_of_images_is_read_in_one_call() -> None:
    both = infer(IMAGES, MODEL)
    assert [solution.count for solution in both] == [1, 2]
    alone = infer(IMAGES[1], MODEL)
    torch.testing.assert_close(both[1].conditions, alone.conditions)
    assert isinstance(infer(IMAGES[:1], MODEL), list)
    assert [one.count for one in infer(tuple(IMAGES), MODEL, count=1, generator=torch.Generator().manual_seed(1))] == [
        1,
        1,
    ]


def test_paths_of_images_are_a_list_too(tmp_path: Path) -> None:
    for number, image in enumerate(IMAGES):
        MODEL.decode(image[None] * 2 - 1)[0].save(tmp_path / f"{number}.png")
    paths = [str(path) for path in sorted(tmp_path.iterdir())]
    assert [one.count for one in infer(paths, MODEL)] == [1, 2]


def test_objects_are_records_and_words_are_probabilities() -> None:
    model = tinted_model(solver="pursuit", beta=1.0)
    value = model.conditioner.parse(0.3, 0.4, tint="red", width="wide")
    solution = infer(planted(model, value)[0] / 2 + 0.5, model, count=1)
    assert solution.objects == solution.table()
    assert (solution.objects[0]["tint"], solution.objects[0]["width"]) == ("red", "wide")
    assert solution.posteriors is not None
    torch.testing.assert_close(solution.posteriors[0].sum(1), torch.ones(1), atol=1e-4, rtol=0)
    frame = solution.to_pandas()
    assert {"x", "y", "tint", "width", "gain", "certainty.tint"} <= {*frame.columns}
    assert frame["tint"].tolist() == ["red"]
    assert "red wide 0.30 0.40" in repr(solution)


def test_the_repr_of_an_answer_has_its_words_and_how_sure_it_is() -> None:
    view = View(components=({"x": 0.3, "y": 0.5, "color": "red"}, {"x": 0.7, "y": 0.6, "color": "blue"}))
    solution = Solution(torch.zeros(2, 3), 2, 1.5, 0.1, 64, sure=0.45, view=view)
    shown = (
        "Solution(2 components: red 0.30 0.50; blue 0.70 0.60, unsure 0.45, error 1.5 ± 0.1, 64 network evaluations)"
    )
    assert repr(solution) == shown
    latents = Solution(torch.zeros(1, 3), 1, 1.5, 0.1, 64, view=View(components=([0.0, 1.0, 2.0],)))
    assert repr(latents) == "Solution(1 component, error 1.5 ± 0.1, 64 network evaluations)"


def test_without_pandas_the_error_says_what_else_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(NotFoundError, match=r"pip install pandas, or use solution\.objects"):
        Solution(torch.zeros(2, 2), 2, 1.5, 0.1, 64).to_pandas()


def test_a_composer_is_called_as_a_pipeline() -> None:
    model = tiny_model()
    composer = Composer([model(0.2, 0.2), model(0.8, 0.8)])
    options = {"num_inference_steps": 2, "generator": 0, "progress": False, "output_type": "pt"}
    images = composer.sample(2, **options)
    assert torch.equal(composer(2, **options).images, images)
    assert torch.equal(composer(2, return_dict=False, **options)[0], images)
    with pytest.raises(AttributeError, match=r"no attribute 'to'; move the model .* clevr\.to\('cuda'\)"):
        composer.to("cpu")
    with pytest.raises(AttributeError, match=r"no attribute 'images'; composer\(...\).images"):
        _ = composer.images
    assert not hasattr(composer, "widen")


def test_a_description_without_a_place_gets_one() -> None:
    clevr = energycomp.load("clevr-small")
    cube = clevr("red cube")
    assert repr(cube) == repr(clevr("red cube"))  # the same each time
    assert repr(cube).startswith("clevr-small(red cube at 0.")
    assert clevr.conditioner.read(repr(cube)[12:-1]).equal(cube.values)
    assert not cube.values[:, :2].equal(clevr("blue sphere").values[:, :2])
    assert repr(clevr("red cube at 0.3,0.5")) == "clevr-small(red cube at 0.3,0.5)"
    with pytest.raises(InputError, match="elephant"):
        clevr("red elephant")
