"""Proposals in the folder of a model: they are read when they are asked for, and what does not fit is left out."""

import json
from pathlib import Path

import attrs
import pytest
import torch

from energycomp.components import Latents
from energycomp.errors import InputError
from energycomp.manifest import write_manifest
from energycomp.models import Model, load
from energycomp.models.proposals import FOLDER, ProposalNetwork, ProposalsWarning, Proposer, network_for, stamp_of
from energycomp.testing import bumps_model, labels_model, tinted_model, tiny_model


@pytest.fixture
def proposing(model: Model) -> Model:
    return attrs.evolve(model, proposals=Proposer.of(network_for(model).eval(), model))


def test_they_are_saved_with_a_model_and_read_when_they_are_asked_for(tmp_path: Path, proposing: Model) -> None:
    proposing.save_pretrained(tmp_path / "m")
    again = load(tmp_path / "m")
    sample = torch.randn(1, 3, 16, 16)
    made = [each.proposals.network(each) for each in (proposing, again) if each.proposals is not None]
    before, after = (network.propose(sample) for network in made if network is not None)
    assert torch.allclose(before.values, after.values, atol=1e-2)  # of half precision
    again.save_pretrained(tmp_path / "n")
    assert (tmp_path / "n" / FOLDER / "config.json").read_text() == (
        tmp_path / "m" / FOLDER / "config.json"
    ).read_text()


def test_their_stamp_is_that_of_samples_and_values_and_not_of_weights(model: Model) -> None:
    assert stamp_of(model) == stamp_of(attrs.evolve(tiny_model(seed=1), name="other", conditioner_name="square"))
    others = [tinted_model(), attrs.evolve(model, conditioner_name="other")]
    assert stamp_of(model) not in {stamp_of(other) for other in others}


@pytest.mark.parametrize("change", ["stamp", "shape", "config", "weights", "nothing"])
def test_what_does_not_fit_is_left_out_with_a_line(tmp_path: Path, proposing: Model, change: str) -> None:
    proposing.save_pretrained(tmp_path / "m")
    folder = tmp_path / "m" / FOLDER
    config = json.loads((folder / "config.json").read_text())
    if change == "stamp":
        config["stamp"] = "0" * 16
    if change == "shape":
        config["network"]["sample_shape"] = [3, 32, 32]
    (folder / "config.json").write_text("{" if change == "config" else json.dumps(config))
    if change == "weights":
        (folder / "model.safetensors").write_bytes(b"damaged")
    (tmp_path / "m" / "manifest.json").unlink()
    write_manifest(tmp_path / "m")
    model = load(tmp_path / "m")
    assert model.proposals is not None
    if change == "nothing":
        assert model.proposals.network(model) is not None
        return
    with pytest.warns(ProposalsWarning, match="images are read without") as warned:
        assert model.proposals.network(model) is None
    assert "\n" not in str(warned[0].message)


@pytest.mark.parametrize("model", [labels_model(3), attrs.evolve(bumps_model(), conditioner=Latents(2))])
def test_components_without_a_place_have_none(model: Model) -> None:
    with pytest.raises(InputError, match="no places"):
        network_for(model)


def test_cells_that_mean_one_component_propose_it_once() -> None:
    network = ProposalNetwork(sample_shape=(3, 16, 16), words=(2,), width=8)
    maps = torch.zeros(1, 5, 16, 16)
    maps[:, 0] = -20.0
    maps[0, 0, 3, 5], maps[0, 1, 3, 5] = 0.0, 0.5  # the right edge of a cell
    maps[0, 0, 3, 6], maps[0, 1, 3, 6] = -0.1, -0.5  # the left edge of the next one
    maps[0, 4, 3] = 3.0
    maps[0, 0, 10, 2] = 4.0
    network.forward = lambda _: maps  # type: ignore[method-assign,assignment]
    made = network.propose(torch.zeros(1, 3, 16, 16))
    assert torch.allclose(made.values, torch.tensor([[2.5 / 16, 10.5 / 16, 1.0], [6 / 16, 3.5 / 16, 2.0]]))
    assert torch.allclose(made.probability, torch.tensor([4.0, 0.0]).sigmoid() + torch.tensor([0.0, 0.475]), atol=1e-3)
