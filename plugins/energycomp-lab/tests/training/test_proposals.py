"""The recipe of proposals: on samples of a model, or on the data of its own recipe."""

from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

from energycomp import plugins
from energycomp.errors import InputError
from energycomp.models import Model, load
from energycomp.plugins import registry
from energycomp.testing import UnitSquare, bumps_model, labels_model, planted, tiny_model
from energycomp_lab.training import FitConfig, Recipe, denoising_loss
from energycomp_lab.training.proposals import draw_samples, proposal_loss, proposals


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setattr(registry, "_own", {})
    plugins.register("conditioners", "square", UnitSquare)
    return attrs.evolve(tiny_model(counts=(0, 3)), conditioner_name="square")


def recipe_of(data: list[dict[str, torch.Tensor]]) -> Any:
    """The factory of a recipe that trains nothing but has data."""
    config = FitConfig(steps=1, batch_size=1, learning_rate=1e-3)
    model = tiny_model()
    return lambda **_: Recipe(model=model, module=model.trained, loss=denoising_loss, data=data, config=config)


def recipe(model: Model, cache: Path, **options: Any) -> Any:
    return proposals(data=None, init=model, preset="default", cache=cache, **options)


def test_it_trains_on_samples_and_saves_the_model_with_its_proposals(tmp_path: Path, model: Model) -> None:
    made = recipe(model, tmp_path, samples="6")
    result = made.run(tmp_path / "run", progress=False, steps=5, batch_size=4)
    made.model.trained.load_state_dict(result.ema_state)
    made.model.save_pretrained(tmp_path / "m")
    again = load(tmp_path / "m")
    assert again.proposals is not None
    network = again.proposals.network(again)
    assert network is not None
    assert len(list(tmp_path.glob("samples-*"))) == 1
    # Its training goes on where it ended
    weights = recipe(again, tmp_path, samples="6").module.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in network.state_dict().items())


def test_it_learns_where_components_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_own", {})
    model = bumps_model()
    generator = torch.Generator().manual_seed(0)
    values = [torch.rand(1, 2, generator=generator) * 0.8 + 0.1 for _ in range(12)]
    images = torch.cat([planted(model, one) for one in values])
    plugins.register("recipes", "planted", recipe_of([{"image": images[0], "values": values[0]}]))
    made = recipe(model, Path(), recipe="planted")
    network = made.module
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    batch = {"image": images, "values": torch.cat(values), "owner": torch.arange(len(values))}
    for _ in range(50):
        optimizer.zero_grad()
        made.loss(network, batch, None).backward()
        optimizer.step()
    place = torch.tensor([[0.33, 0.61]])
    found = network.eval().propose(planted(model, place))
    assert (found.values[0] - place[0]).abs().max() < 0.06


def test_words_that_are_open_do_not_count() -> None:
    maps = torch.randn(1, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    owner = torch.tensor([0])
    closed, opened = (proposal_loss(maps, torch.tensor([[0.4, 0.4, code]]), owner, (3,)) for code in (2.0, 0.0))
    places = proposal_loss(maps[:, :3], torch.tensor([[0.4, 0.4]]), owner, ())
    assert torch.allclose(opened, places)
    assert closed > opened


def test_what_cannot_be(tmp_path: Path, model: Model) -> None:
    with pytest.raises(InputError, match="no places"):
        recipe(labels_model(3), tmp_path)
    with pytest.raises(InputError, match="which no recipe trains"):
        proposals(data=tmp_path, init=model, preset="default", cache=tmp_path)
    plugins.register("recipes", "pictures", recipe_of([{"image": torch.zeros(3, 16, 16)}]))
    with pytest.raises(InputError, match="without values of their components"):
        recipe(model, tmp_path, recipe="pictures")


def test_samples_have_places_that_are_apart(tmp_path: Path, model: Model) -> None:
    for item in draw_samples(model, 4, tmp_path):
        apart = torch.cdist(item["values"], item["values"]) + torch.eye(len(item["values"]))
        assert item["image"].shape == (3, 16, 16)
        assert not apart.numel() or apart.min() > 0.15
