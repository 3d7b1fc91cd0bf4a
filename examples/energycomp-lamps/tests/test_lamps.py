"""Everything that the plugin registers conforms, and its component changes the colour of samples."""

import re
from pathlib import Path

import energycomp
import pytest
import torch
from energycomp import plugins
from energycomp.errors import InputError
from energycomp.testing import attributes_model
from energycomp_lab.checks import (
    check_component,
    check_conditioner,
    check_dataset,
    check_model,
    check_network,
    check_plugin,
    check_recipe,
    check_solver,
)

from energycomp_lamps.greedy import Greedy
from energycomp_lamps.model import LampNet, lamps, recipe
from energycomp_lamps.scenes import Colours, Lamps, scene
from energycomp_lamps.tint import Tint

README = Path(__file__).parents[1] / "README.md"


def test_the_installed_plugin_conforms() -> None:
    checks = check_plugin("energycomp-lamps")
    assert {check.what for check in checks if check.passed} >= {"solver greedy", "model lamps", "recipe lamps"}
    assert not [check for check in checks if not check.passed]


def test_each_object_conforms(tmp_path: Path) -> None:
    check_conditioner(Colours())
    check_dataset(Lamps(), Colours())
    check_network(LampNet)
    check_model(lamps(pretrained=False))
    check_recipe(recipe(data=None, init=None, preset="default", cache=tmp_path))
    check_solver(Greedy())


def test_the_weights_read_every_scene() -> None:
    model = energycomp.load("lamps")
    assert isinstance(plugins.find("solvers", model.defaults.solver)(), Greedy)
    for index in range(5):
        example = scene(index, (0, 4), seed=9)
        found = energycomp.infer(example.image / 2 + 0.5, model).conditions
        assert sorted(map(model.conditioner.describe, found)) == sorted(example.conditions or ())


def test_the_component_pulls_the_mean_colour() -> None:
    model = energycomp.load("lamps")
    scene = model("red") & model("blue")
    narrow = Tint((-0.5, -0.6, -0.6), scene.noised_space)
    broad = Tint((-0.7, -0.7, -0.7), scene.noised_space, variance=0.05)
    check_component(narrow)
    tinted = scene + 3.0 * (narrow - broad)
    check_component(tinted, tolerance=1e-3)
    assert tinted.mass == pytest.approx(1.0)
    red, redder = (
        energycomp.Composer(composition).sample(
            4, generator=torch.Generator().manual_seed(0), num_inference_steps=20, output_type="pt", progress=False
        )[:, 0]
        for composition in (scene, tinted)
    )
    assert redder.mean() > red.mean() + 0.025


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="expected one of red, green, blue, white"):
        energycomp.load("lamps")("purple")
    with pytest.raises(InputError, match="expected 'default'"):
        lamps(preset="paper")
    with pytest.raises(InputError, match="use the solver enumerate"):
        energycomp.infer(torch.zeros(1, 3, 16, 16), attributes_model(2), solver=Greedy())


def test_the_readme_runs() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(block.replace("sample()", "sample(num_inference_steps=2)"), str(README), "exec"), names)  # noqa: S102
    assert getattr(names["image"], "size", None) == (16, 16)
