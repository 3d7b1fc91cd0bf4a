"""Whole objects: descriptions, their tokens, and what is wrong with a description."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

from energycomp.errors import InputError
from energycomp.seeds import seeded
from energycomp.testing import tiny_model
from energycomp_clevr.model import places, places_flow, small
from energycomp_clevr.objects import Objects
from energycomp_clevr.objects_recipe import augment, clevr
from energycomp_clevr.recipe import widen
from energycomp_datasets.clevr.layout import write
from energycomp_datasets.clevr.source import ClevrSource
from energycomp_lab.checks import check_conditioner
from energycomp_lab.evaluation import true_values

OBJECTS = Objects()
WORDS = {"size": "large", "color": "red", "material": "metal", "shape": "cube"}


def test_it_conforms_and_models_take_the_words_of_the_command_line() -> None:
    check_conditioner(OBJECTS)
    model = small()
    assert repr(model("red cube at 0.3,0.5")) == "clevr-small(red cube at 0.3,0.5)"
    rows = model("red cube at 0.3,0.5").condition.rows
    assert rows.equal(model(0.3, 0.5, color="red", shape="cube").condition.rows)


@pytest.mark.parametrize(
    ("text", "described"),
    [
        ("0.7,0.6", {"x": 0.7, "y": 0.6}),
        ("x=0.7, y=0.6", {"x": 0.7, "y": 0.6}),
        ("sphere at 0.7,0.6", {"x": 0.7, "y": 0.6, "shape": "sphere"}),
        ("an object at 0.7,0.6", {"x": 0.7, "y": 0.6}),
        ("a large red metal cube at 0.3,0.45", {"x": 0.3, "y": 0.45, **WORDS}),
        ("metal red at 0,1", {"x": 0.0, "y": 1.0, "color": "red", "material": "metal"}),
    ],
)
def test_descriptions(text: str, described: dict[str, Any]) -> None:
    value = OBJECTS.read(text)
    assert OBJECTS.describe(value[0]) == described
    assert OBJECTS.parse(**described).equal(value)


REFUSED: list[tuple[Callable[[Path], object], str]] = [
    *((lambda _, text=text: OBJECTS.read(text), message) for text, message in (
        ("pink cube at 0.3,0.4", "got the word 'pink'"),
        ("red sphrere at 0.3,0.4", "Did you mean 'sphere'"),
        ("red blue cube at 0.3,0.4", "expected one color"),
        ("large small cube at 0.3,0.4", "expected one size"),
        ("red cube", "expected a place"),
        ("red cube at 0.3", "expected a place"),
        ("red cube at y=0.3,x=0.45", "expected a place"),
        ("cube at 2,3", "in \\[0, 1\\]"),
        ("cube at 0.3,nan", "expected a place"),
        ("cube at 1e,0.3", "expected"),
        ("", "expected a place"))),
    *((lambda _, words=words: OBJECTS.parse(0.3, 0.4, **words), "expected") for words in (
        {"shape": "cone"}, {"shape": 1}, {"color": ["red"]}, {"tint": "red"})),
    (lambda _: small()(0.3, 0.5, colour="red"), "Did you mean color='red'"),
    (lambda cache: clevr(data=None, init=None, preset="large", cache=cache), "expected one of default, small, paper"),
    (lambda cache: clevr(data=None, init=None, preset="small", cache=cache, vae="folder"), "got the option 'vae'"),
    *((lambda _, text=text: small().scene("sphere", text), message) for text, message in (
        ("", "got an empty text"),
        (" * 2", "expected a component in front"),
        ("red dog", "got the word 'dog'"),
        ("red cube at", "got the word 'at'"),
        ("red box", "got the word 'box'.*Did you mean 'cube'"),
        ("big grey balls", "got the word 'big'.*Did you mean 'large'"),
        ("gray balls", "Did you mean 'sphere'\\? A component is one object"),
        ("red cubes", "Did you mean 'cube'\\? A component is one object"),
        ("blue boxes", "Did you mean 'cube'\\? A component is one object"),
        ("two red cubes", "got the word 'two'.*A component is one object: give one for each, such as 'red cube'"),
        ("3 cubes", "got the word '3'.*A component is one object"),
        ("red cube on the left", "got the word 'on'.*A place is written as x,y .*, such as 'red cube at 0.2,0.5'"),
        ("red cube behind a sphere", "got the word 'behind'.*A place is written as x,y"),
        ("red blue cube", "got 'red' and 'blue' in 'red blue cube'"))),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_what_is_no_object_and_no_preset(tmp_path: Path, call: Callable[[Path], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(tmp_path)


def test_places_alone_mean_what_they_meant() -> None:
    """The weights of the model of places, in the model of objects: the same predictions, to the bit."""
    given = places()
    torch.manual_seed(0)
    for weight in given.denoiser.network.parameters():
        torch.nn.init.normal_(weight, std=0.05)
    wide = widen(given, small())
    x, timestep = torch.randn(2, 3, 64, 64), torch.tensor([300.0, 700.0])
    with torch.no_grad():
        assert wide(0.3, 0.4).eps(x, timestep).equal(given(0.3, 0.4).eps(x, timestep))
        assert not wide(0.3, 0.4, color="red").eps(x, timestep).equal(wide(0.3, 0.4).eps(x, timestep))


def test_training_leaves_attributes_open() -> None:
    """All of a scene, all of an object, or single ones; places are mirrored with the image."""
    count = 4000
    values = torch.cat([torch.full((count, 2), 0.25), torch.ones(count, 4)], dim=1)
    images = torch.zeros(count // 2, 3, 8, 8, dtype=torch.uint8)
    batch = {"image": images, "values": values, "owner": torch.arange(count // 2).repeat_interleave(2)}
    _, seen = augment(batch, seeded(0))
    is_open = seen[:, 2:] == 0
    whole = is_open.all(1).view(-1, 2).all(1).float().mean()
    assert 0.27 < whole < 0.35
    assert 0.4 < is_open.float().mean() < 0.48
    assert sorted(seen[:, 0].unique().tolist()) == [0.25, 0.75]


def test_a_folder_of_scenes_is_training_data(tmp_path: Path) -> None:
    """Whole objects, as evaluation reads them."""
    write(tmp_path, 32, objects=(1, 2), size=(48, 32))
    recipe = clevr(data=tmp_path, init=places(), preset="small", cache=tmp_path / "cache")
    for number, example in enumerate(ClevrSource().examples(str(tmp_path), count=32, seed=0)):
        assert recipe.data[number]["values"].equal(true_values(example, OBJECTS))
    thesis = clevr(data=tmp_path, init=tiny_model(), preset="paper", cache=tmp_path / "cache")
    assert thesis.data[0]["values"].shape[1] == 2  # places
    for other in (tiny_model(), places_flow()):
        with pytest.raises(InputError, match=f"got the model {other.name} to start from, which has another network"):
            clevr(data=tmp_path, init=other, preset="small", cache=tmp_path / "cache")


def test_objects_without_a_place_get_one_of_their_own() -> None:
    texts = ["red cube", "0.5,0.6", "blue sphere * 2 @ 0-0.4", "object", "small cylinder at 0.8,0.4"]
    for seed in range(20):
        scene = small().scene(*texts, generator=seed)
        assert [repr(one).split("clevr")[0] for one in scene] == ["", "", "2 [0 to 0.4] ", "", ""]
        (rows,) = zip(*(one.terms for one in scene), strict=True)
        places = torch.cat([leaf.condition.rows[0, :, :2] for leaf in rows])
        assert places[[1, 4]].tolist() == torch.tensor([[0.5, 0.6], [0.8, 0.4]]).tolist()
        assert torch.pdist(places).min() > 0.15
        assert ((places > 0.1) & (places < 0.9)).all()


def test_models_of_one_name_have_two_names_in_a_formula() -> None:
    whole, point = (attrs.evolve(made(), name="clevr") for made in (small, places))
    assert repr(0.5 * whole(0.3, 0.4) + 0.5 * point(0.5, 0.6)) == "0.5 clevr(0.3, 0.4) + 0.5 clevr-2(0.5, 0.6)"
    assert repr(whole(0.3, 0.4) & whole(0.5, 0.6)) == "-u + clevr(0.3, 0.4) + clevr(0.5, 0.6)"
