"""What `Composer.sample` does where nothing is said: what the model of the components says, as on the command line."""

import copy
import pickle
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from energycomp import Composer, plugins
from energycomp.components import per_sample
from energycomp.denoisers import count_rows
from energycomp.models import Model
from energycomp.sampling import SamplingReport
from energycomp.testing import Gaussian, tinted_model, tiny_model
from energycomp_cli import app

OWN = {"scheduler": "DDPMScheduler", "num_inference_steps": 6}
SCENES: dict[str, list[str]] = {
    "attributes": ["0.2,0.3,tint=red", "0.7,0.8,tint=blue"],
    "some open": ["0.2,0.3,tint=red", "0.7,0.8"],
    "negated": ["0.2,0.3,tint=red", "--not", "0.7,0.8,tint=blue"],
    "u": [],
}


@pytest.fixture
def model() -> Model:
    return tinted_model(attribute_guidance=2.5, **OWN)


def latent(component: Any, **options: Any) -> Tensor:
    options = {"generator": 0, "progress": False, "output_type": "latent", **options}
    sample: Tensor = Composer(component).sample(**options)
    return sample


WAYS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "own": ({}, []), "scheduler": ({"scheduler": "ddim"}, ["--sampler", "ddim"]),
    "sampler": ({"sampler": "smc"}, ["--sampler", "smc"]),
    "guidance": ({"guidance": "cfg", "guidance_scale": 2.0}, ["--guidance", "cfg=2"]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("scene", "way"), [*((scene, "own") for scene in SCENES), *(("some open", way) for way in WAYS if way != "own")]
)
def test_the_command_and_python_give_one_image(
    model: Model, scene: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, words = WAYS[way]
    plugins.register("models", "tinted", lambda **_: model)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["sample", "tinted", *SCENES[scene], "--seed", "3", "--raw", *words])
    assert result.exit_code == 0, result.output
    red, blue = model(0.2, 0.3, tint="red"), model(0.7, 0.8, tint="blue")
    written = {
        "attributes": red & blue, "some open": red & model(0.7, 0.8), "negated": red & ~blue, "u": model.unconditional
    }[scene]  # fmt: skip
    image = Composer(written).sample(generator=3, progress=False, **given)[0]
    assert Image.open("sample.png").tobytes() == image.tobytes()
    if scene == "attributes":
        assert result.stdout.startswith("-u + tinted(0.2, 0.3, tint=red) + tinted(0.7, 0.8, tint=blue)\n")


def test_what_is_given_replaces_what_the_model_says(model: Model) -> None:
    a = model(0.2, 0.3, tint="red") & model(0.7, 0.8)
    whole = {**OWN, "guidance": "attributes", "guidance_scale": 2.5}
    assert model.sampling() == whole
    assert torch.equal(latent(a), latent(a, **whole))
    assert torch.equal(latent(a, scheduler="ddim"), latent(a, **{**whole, "scheduler": "ddim"}))
    assert torch.equal(latent(a, num_inference_steps=3), latent(a, **{**whole, "num_inference_steps": 3}))
    assert torch.equal(latent(a, guidance_scale=2.0), latent(a, **OWN, guidance="cfg", guidance_scale=2.0))
    assert not torch.equal(latent(a), latent(a, guidance="attributes", guidance_scale=1.0))


def test_a_model_may_be_sampled_by_a_sampler() -> None:
    model = tiny_model(sampler="smc", num_inference_steps=4)
    a = model(0.2, 0.3) & model(0.7, 0.8)
    assert model.sampling() == {"sampler": "smc", "num_inference_steps": 4}
    assert torch.equal(latent(a), latent(a, sampler="smc", num_inference_steps=4))
    assert torch.equal(latent(a, scheduler="ddpm"), latent(a, scheduler="ddpm", num_inference_steps=4))


def test_models_that_differ_and_components_without_a_model_take_ddim(model: Model) -> None:
    plain = {"scheduler": "ddim", "num_inference_steps": 50, "guidance": "attributes", "guidance_scale": 1.0}
    other = attrs.evolve(model, defaults=attrs.evolve(model.defaults, num_inference_steps=7))
    both = 0.5 * model(0.2, 0.3, tint="red") + 0.5 * other(0.7, 0.8)
    assert torch.equal(latent(both), latent(both, **plain))
    assert torch.equal(
        latent(other(0.7, 0.8) & other(0.1, 0.1)), latent(other(0.7, 0.8) & other(0.1, 0.1), **other.sampling())
    )
    assert torch.equal(latent(Gaussian(0.5)), latent(Gaussian(0.5), scheduler="ddim", num_inference_steps=50))


def test_u_of_a_model_is_sampled_as_the_model_says(model: Model) -> None:
    evolved = attrs.evolve(model, defaults=attrs.evolve(model.defaults, num_inference_steps=7))
    reports: list[SamplingReport] = []
    for leaf in (model.unconditional, evolved(0.2, 0.3), evolved(0.2, 0.3) & evolved(0.7, 0.8)):
        latent(leaf, report=reports.append)
    assert [report.evaluations for report in reports] == [6, 7, 3 * 7]


def test_a_model_of_other_defaults_composes_with_itself(model: Model) -> None:
    other = attrs.evolve(model, defaults=attrs.evolve(model.defaults, num_inference_steps=7, counts=(0, 5)))
    assert (other.denoiser, other.unconditional) == (model.denoiser, model.unconditional)
    both = model(0.2, 0.3) & other(0.7, 0.8)
    assert repr(both) == "-u + tinted(0.2, 0.3) + tinted(0.7, 0.8)"
    with count_rows() as spent:
        latent(both, num_inference_steps=2)
    assert (spent.rows, spent.trunks) == (2 * 3, 2)  # one group, whose trunk runs once a step


def test_copies_are_sampled_alike() -> None:
    made = tiny_model(**OWN)
    for composition in (made(0.2, 0.3) & made(0.7, 0.8), made.unconditional):
        for copied in (copy.deepcopy(composition), pickle.loads(pickle.dumps(composition))):  # noqa: S301
            assert torch.equal(latent(copied), latent(composition))


def test_each_sample_of_a_batch_is_guided_as_alone(model: Model) -> None:
    """A component that one sample shows and another excludes: only the first is guided towards its attributes."""
    a, b = model(0.2, 0.3, tint="red"), model(0.7, 0.8, tint="blue")
    compositions = [a & ~b, b + 0, a & 2 * b]
    seeds = [torch.Generator().manual_seed(k) for k in range(3)]
    batch = latent(per_sample(compositions), generator=seeds)
    for k, composition in enumerate(compositions):
        alone = latent(composition, generator=[torch.Generator().manual_seed(k)])
        torch.testing.assert_close(batch[k], alone[0], rtol=1e-4, atol=1e-4)
