"""Straight edges in decoded pictures: what a picture shows, who is told, and how it is trained."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from energycomp import Composer, Composition, load
from energycomp.components import Condition
from energycomp.denoisers import Conditional, count_rows
from energycomp.errors import InputError
from energycomp.models import Model
from energycomp_clevr.finish import MAPS, Finish, drawing
from energycomp_clevr.finish_recipe import _mirror, finish
from energycomp_clevr.objects import Objects
from energycomp_clevr.prior import shown_conditions
from energycomp_clevr.sketch import POINTS, SKETCHED, sketch
from energycomp_clevr.viewpoint import Viewpoint
from energycomp_datasets.clevr.layout import write
from energycomp_lab.checks import check_recipe

SIZE = (128, 192)
OBJECTS = Objects(viewpoint=True, turns=True)
VIEW = Viewpoint(OBJECTS.token_shape)


def tokens(*texts: str) -> Tensor:
    return OBJECTS(torch.cat([OBJECTS.read(text) for text in texts])).rows[:, 0]


def inside(maps: Tensor) -> Tensor:
    """How surely each half of a pixel is inside of an object, (256, 384)."""
    return F.pixel_shuffle(maps[None, : POINTS**2], POINTS)[0, 0]


def test_near_objects_hide_those_behind_them() -> None:
    near, far = "large red cube turned 20 at 0.5,0.6", "large blue sphere at 0.5,0.5"
    both, alone = drawing(tokens(far, near), SIZE), drawing(tokens(near), SIZE)
    clear = inside(alone) > 0.99
    assert clear.sum() > 1000
    torch.testing.assert_close(inside(both)[clear], inside(alone)[clear], atol=0.01, rtol=0)
    assert inside(both).max() <= 1 + 1e-5
    assert both.equal(drawing(tokens(near, far), SIZE))  # whoever is named first
    red, blue = (both[SKETCHED + 1 + k] for k in (1, 2))
    assert red.sum() > blue.sum() > 0


def test_what_is_open_is_left_out() -> None:
    assert drawing(tokens("cube at 0.5,0.5", "0.3,0.4"), SIZE)[:SKETCHED].eq(0).all()
    assert drawing(OBJECTS(torch.zeros(0, 7)).rows[:, 0], SIZE).shape == (MAPS, 64, 96)


def test_a_nearer_camera_sees_larger_objects_at_the_same_place() -> None:
    ball = tokens("large sphere at 0.4,0.6")
    near = VIEW.parse(camera=(0.0, 0.0, 0.5))[0]
    usual, larger = inside(drawing(ball, SIZE)), inside(drawing(ball, SIZE, near))
    assert 1.05 < larger.sum() / usual.sum() < 1.2
    for seen in (usual, larger):
        rows, columns = (seen > 0.5).nonzero().float().mean(0)
        assert abs(columns / 384 - 0.4) < 0.005
        assert abs(rows / 256 - 0.6) < 0.015
    assert sketch(ball, (16, 24)).equal(sketch(ball, (16, 24), torch.zeros(3)))


def test_a_mirrored_sketch_is_that_of_mirrored_objects() -> None:
    here = drawing(tokens("large cube turned 20 at 0.3,0.5"), SIZE)
    there = drawing(tokens("large cube turned 70 at 0.7,0.5"), SIZE)
    picture = torch.zeros(3, *SIZE)
    maps = _mirror([picture, picture, here, picture[:1]])[2]
    apart = (maps[:SKETCHED] - there[:SKETCHED]).abs()
    assert apart.mean() < 0.02 * there[:SKETCHED].abs().sum() / (there[:SKETCHED] != 0).sum()


def told(model: Model, monkeypatch: pytest.MonkeyPatch, scene: Any, n: int = 1, **options: Any) -> list[Condition]:
    """What the network is told of each picture."""
    found: list[Condition] = []

    def spy(composition: Any, pictures: Tensor) -> Tensor:
        found.extend(shown_conditions(composition, model.denoiser.network, len(pictures)) or [])
        return pictures

    monkeypatch.setattr(model.denoiser.network, "finish", spy)
    Composer(scene).sample(n, generator=0, num_inference_steps=1, progress=False, **options)
    return found


def test_the_network_is_told_what_each_picture_shows(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    cube, ball = model(0.3, 0.5, shape="cube"), model(0.7, 0.5, shape="sphere", size="large")
    both = told(model, monkeypatch, cube & ball, 2)
    assert len(both) == 2
    for one in both:  # two objects and the view, with what was drawn for this picture
        objects = one.rows[~one.null, 0]
        assert len(objects) == 3
        assert (objects[:, -1] == 1).sum() == 1
        assert objects[0, 2] != 0  # the size of the cube
    assert not both[0].rows.equal(both[1].rows)
    nothing = told(model, monkeypatch, -1.0 * cube, prior=False)[0]
    assert nothing.null.all()
    without = told(model, monkeypatch, ball & ~cube)[0]
    assert without.rows[~without.null, 0, 0].tolist().count(pytest.approx(0.3)) == 0


def test_nobody_is_told_where_nobody_knows(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    cube, ball = model(0.3, 0.5, shape="cube"), model(0.7, 0.5, shape="sphere")
    assert told(model, monkeypatch, cube & ball, output_type="latent") == []
    assert told(model, monkeypatch, load("clevr-places")(0.3, 0.5)) == []


@pytest.fixture
def network(model: Model) -> Iterator[Any]:
    """That of the model, which loses what draws its edges after a test."""
    found: Any = model.denoiser.network
    yield found
    found.edges = None
    found.config["finishes"] = False


def test_pictures_are_finished_where_the_network_has_edges(model: Model, network: Any) -> None:
    composer = Composer(model(0.5, 0.5, shape="cube", size="large"))
    plain = composer.sample(generator=0, num_inference_steps=1, progress=False, output_type="pt")
    with count_rows() as before:
        composer.sample(generator=0, num_inference_steps=1, progress=False)
    edges = network.begin()
    with count_rows() as after:
        composer.sample(generator=0, num_inference_steps=1, progress=False)
    assert after.rows == before.rows > 0  # it is no network evaluation
    assert composer.sample(generator=0, num_inference_steps=1, progress=False, output_type="pt").equal(plain)
    torch.nn.init.constant_(edges.out.bias, 0.1)
    lighter = composer.sample(generator=0, num_inference_steps=1, progress=False, output_type="pt")
    torch.testing.assert_close(lighter, (plain + 0.05).clamp(0, 1), atol=1e-5, rtol=0)


def test_a_network_in_half_precision_finishes_too(model: Model, network: Any) -> None:
    network.begin().to(torch.bfloat16)
    for shown in (OBJECTS(OBJECTS.read("large sphere at 0.5,0.5")), Condition.unconditional(1, 24)):
        leaf = Composition.of(Conditional(model.denoiser, shown))
        assert network.finish(leaf, torch.zeros(1, 3, *SIZE)).equal(torch.zeros(1, 3, *SIZE))


@pytest.fixture(scope="module")
def renders(rendered: Any) -> Path:
    return rendered(2, objects=(1, 2), size=(192, 128))


def test_recipe(tmp_path: Path, renders: Path, model: Model, network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("energycomp_clevr.finish_recipe.STEPS", 3)
    made = finish(data=renders, init=model, preset="default", cache=tmp_path)
    check_recipe(attrs.evolve(made, config=attrs.evolve(made.config, batch_size=2)))
    made.model.save_pretrained(tmp_path / "finished")
    again: Any = load(tmp_path / "finished").denoiser.network
    assert isinstance(again.edges, Finish)
    assert again.edges.out.bias.equal(network.edges.out.bias)
    monkeypatch.setattr("energycomp_clevr.finish_recipe.rough", None)  # rough pictures are drawn once
    assert len(finish(data=renders, init=model, preset="default", cache=tmp_path).data) == 2


def test_refused_in_one_line(tmp_path: Path, renders: Path, model: Model) -> None:
    with pytest.raises(InputError, match="got no --data; expected a folder of renders"):
        finish(data=None, init=model, preset="default", cache=tmp_path)
    with pytest.raises(InputError, match="got preset 'paper'"):
        finish(data=renders, init=model, preset="paper", cache=tmp_path)
    for share in (2.0, float("nan"), "half"):
        with pytest.raises(InputError, match="expected a share of the run, from 0 to 1"):
            finish(data=renders, init=model, preset="default", cache=tmp_path, critic=share)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="got the model clevr-places, whose network has no sketch"):
        finish(data=renders, init=load("clevr-places"), preset="default", cache=tmp_path)
    plain = tmp_path / "plain"
    write(plain, 1, objects=(1, 1), size=(48, 32))
    with pytest.raises(InputError, match="without turns or cameras"):
        finish(data=plain, init=model, preset="default", cache=tmp_path)
