"""Sharp samples of placed objects: what the network is told of a picture, and how it is trained."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

from energycomp import Composer, load
from energycomp.denoisers import count_rows
from energycomp.errors import InputError
from energycomp.models import Model
from energycomp.sampling import Finish
from energycomp_lab.checks import check_recipe
from energycomp_objects.conditioner import Objects
from energycomp_objects.finish import PLACED, drawing
from energycomp_objects.finish_recipe import objects_finish

OBJECTS = Objects({"category": ("disc", "square")})


def maps(*texts: str) -> torch.Tensor:
    return drawing(OBJECTS(torch.cat([OBJECTS.read(text) for text in texts])).rows[:, 0], (64, 96), box=True)


def test_a_box_is_drawn_with_its_words() -> None:
    drawn = maps("square at 0.5,0.5 size 0.25x0.5")
    assert drawn.shape == (PLACED + 2, 32, 48)
    inside, u, v, said, disc, square = drawn
    assert inside.max() > 0.99
    assert (inside > 0.5).any(0).sum() == pytest.approx(0.25 * 48, abs=2)
    assert (inside > 0.5).any(1).sum() == pytest.approx(0.5 * 32, abs=2)
    torch.testing.assert_close(u.flip(1), -u)
    torch.testing.assert_close(v.flip(0), -v)
    assert said.equal(inside)
    assert square.equal(inside)
    assert disc.eq(0).all()


def test_of_two_objects_the_nearer_one_is_drawn() -> None:
    alone, both = maps("disc at 0.3,0.5 size 0.2x0.2"), maps("disc at 0.3,0.5 size 0.2x0.2", "square at 0.45,0.5")
    torch.testing.assert_close(both[:, :, :12], alone[:, :, :12], atol=1e-3, rtol=0)
    assert both[3, :, 30:].eq(0).all()  # the size of the other one is open
    assert both[0].max() > 0.99
    assert both[PLACED + 1, 16, int(0.45 * 48)] > 0.9
    nothing = drawing(OBJECTS(torch.zeros(0, 5)).rows[:, 0], (64, 96), box=True)
    assert nothing.shape == both.shape
    assert nothing.eq(0).all()


@pytest.fixture
def network(model: Model) -> Iterator[Any]:
    """That of the model, which loses what finishes its pictures after a test."""
    found: Any = model.denoiser.network
    yield found
    found.edges = None
    found.config["finishes"] = False


def test_samples_are_finished_where_the_network_can(model: Model, network: Any) -> None:
    composer = Composer(model("disc at 0.3,0.4 size 0.2x0.2") & model("square at 0.7,0.6"))

    def sample() -> Any:
        return composer.sample(generator=0, num_inference_steps=1, progress=False, output_type="pt")

    with count_rows() as before:
        plain = sample()
    edges = network.begin()
    with count_rows() as after:
        assert sample().equal(plain)  # untrained, it leaves pictures as they are
    assert after.rows == before.rows > 0
    torch.nn.init.constant_(edges.out.bias, 0.1)
    torch.testing.assert_close(sample(), (plain + 0.05).clamp(0, 1), atol=1e-5, rtol=0)


def test_recipe(folder: Path, model: Model, network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("energycomp_lab.training.finish.STEPS", 5)
    given = {"init": model, "preset": "default", "cache": tmp_path}
    made = objects_finish(data=folder, turns="true", draws=2, **given)
    assert len(made.data) == 2 * 6
    check_recipe(attrs.evolve(made, config=attrs.evolve(made.config, batch_size=2)))
    made.model.save_pretrained(tmp_path / "finished")
    again: Any = load(tmp_path / "finished").denoiser.network
    assert isinstance(again.edges, Finish)
    assert again.edges.out.bias.equal(network.edges.out.bias)
    monkeypatch.setattr("energycomp_objects.finish_recipe.draw_again", None)  # rough pictures are drawn once
    assert len(objects_finish(data=folder, turns="true", draws=2, **given).data) == 2 * 6


def test_refused_in_one_line(folder: Path, model: Model, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got no data or no model"):
        objects_finish(data=folder, init=None, preset="default", cache=tmp_path)
    with pytest.raises(InputError, match="got the model clevr-places; expected one of"):
        objects_finish(data=folder, init=load("clevr-places"), preset="default", cache=tmp_path)
    with pytest.raises(InputError, match="got draws=0; expected one at least"):
        objects_finish(data=folder, init=model, preset="default", cache=tmp_path, draws=0)
    with pytest.raises(InputError, match="expected a share of the run, from 0 to 1"):
        objects_finish(data=folder, init=model, preset="default", cache=tmp_path, critic=2)
