"""Decomposers by name: what a model names, what its config keeps, and names that are none."""

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

from energycomp import Decomposer, decomposer_of, load, plugins
from energycomp.decomposition import EXPLAINED, explained_variance, sampler_of, takes_apart
from energycomp.errors import CheckpointError, InputError, NotFoundError, PluginError
from energycomp.models import Model, save_pretrained
from energycomp.testing import stripes_model, tiny_model
from energycomp_decomp import DiffusionDecomposer
from energycomp_lab.checks.painter import StripesPainter

pytestmark = pytest.mark.usefixtures("stripes")


@pytest.fixture
def painted() -> Model:
    return attrs.evolve(stripes_model(), decomposer_name="painter")


def test_a_model_names_its_decomposer(painted: Model) -> None:
    assert isinstance(decomposer_of(painted), StripesPainter)
    assert isinstance(decomposer_of(stripes_model()), DiffusionDecomposer)
    assert isinstance(decomposer_of(attrs.evolve(painted, decomposer_name="diffusion")), DiffusionDecomposer)
    without = attrs.evolve(painted, encoder=None, encoder_name=None)
    assert [takes_apart(model) for model in (without, stripes_model(), tiny_model())] == [True, True, False]
    with pytest.raises(InputError, match="no encoder"):
        decomposer_of(tiny_model())
    with pytest.raises(NotFoundError, match=r"No decomposer is named 'pianter'\. Did you mean 'painter'"):
        decomposer_of(attrs.evolve(painted, decomposer_name="pianter"))


def test_scenes_are_an_ability(painted: Model) -> None:
    assert isinstance(decomposer_of(stripes_model()), Decomposer)
    assert sampler_of(painted)(2, generator=torch.Generator()).shape == (2, 3, 16, 16)
    assert sampler_of(stripes_model()) is None


def test_what_is_no_decomposer_is_attributed_to_its_plugin(painted: Model) -> None:
    plugins.register("decomposers", "nothing", lambda _: object())
    with pytest.raises(PluginError, match="a object without encode, decode, parts from the decomposer 'nothing'"):
        decomposer_of(attrs.evolve(painted, decomposer_name="nothing"))


def test_the_config_keeps_the_name(tmp_path: Path, painted: Model) -> None:
    save_pretrained(painted, tmp_path / "painted")
    save_pretrained(stripes_model(), tmp_path / "stripes")
    assert json.loads((tmp_path / "painted" / "config.json").read_text())["decomposer"] == "painter"
    assert "decomposer" not in json.loads((tmp_path / "stripes" / "config.json").read_text())
    assert load(tmp_path / "painted").decomposer_name == "painter"
    assert load(tmp_path / "stripes").decomposer_name is None


@pytest.mark.parametrize(
    ("name", "error"), [("unknown", NotFoundError), (3, CheckpointError), (["a"], CheckpointError)]
)
def test_configs_that_name_none(
    tmp_path: Path, painted: Model, rewrite: Any, name: Any, error: type[Exception]
) -> None:
    save_pretrained(painted, tmp_path / "m")
    rewrite(tmp_path / "m", lambda config, _: config.update(decomposer=name))
    with pytest.raises(error, match="decomposer"):
        load(tmp_path / "m")


def test_explained_variance() -> None:
    ramp = torch.linspace(-1, 1, 16).expand(1, 3, 16, 16)
    plain = torch.full((1, 3, 16, 16), 0.2)
    images = torch.cat([ramp, ramp, plain, plain])
    shares = explained_variance(images, torch.cat([ramp, torch.zeros_like(ramp), plain, plain + 1]))
    assert shares[:3] == [pytest.approx(1), pytest.approx(0, abs=1e-6), None]
    assert shares[3] < EXPLAINED
