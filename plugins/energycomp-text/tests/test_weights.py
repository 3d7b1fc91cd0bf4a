"""The included models of text: what their weights read and draw, and their concepts as values that are evaluated."""

from importlib.resources import files

import attrs
import pytest
import torch

import energycomp
from energycomp import Composer
from energycomp.errors import InputError
from energycomp.images import to_unit
from energycomp.models import Model
from energycomp.seeds import seeded
from energycomp_datasets.solids.solids import CONCEPTS
from energycomp_datasets.solids.source import TextSource
from energycomp_lab.checks import check_dataset
from energycomp_lab.evaluation import Example, true_values
from energycomp_text import from_pipeline
from energycomp_text.model import own_words
from energycomp_text.testing import tiny_pipeline

FOLDERS = {"text": "text", "text-composed": "composed"}
AT_LEAST = {"text": 4, "text-composed": 5}  # concepts found of 6; 1 by chance


@pytest.fixture(scope="module", params=FOLDERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(name: str) -> Model:
    return energycomp.load(name)


def test_the_weights_are_small_and_their_concepts_those_of_the_world(model: Model, name: str) -> None:
    weights = files("energycomp_text") / "weights" / FOLDERS[name] / "model.safetensors"
    assert weights.stat().st_size <= 8_000_000
    assert model.conditioner.concepts == CONCEPTS
    assert not any(weight.requires_grad for weight in model.conditioner.module.parameters())


def test_held_out_pairs_are_read(model: Model, name: str) -> None:
    quick = attrs.evolve(model, defaults=attrs.evolve(model.defaults, draws=4))  # of 32
    found = 0
    for example in TextSource().examples("synthetic", count=3, seed=3):
        solution = energycomp.infer(to_unit(example.image), quick, count=2)
        found += sum(
            value in solution.conditions.tolist() for value in true_values(example, model.conditioner).tolist()
        )
        assert bool(((solution.probability > 0) & (solution.probability <= 1)).all())
    assert found >= AT_LEAST[name]


def test_other_options_are_refused(name: str) -> None:
    for wrong in ({"preset": "paper"}, {"encoder": "words"}):
        with pytest.raises(InputError, match="expected"):
            energycomp.load(name, **wrong)


def test_colours_of_composed_prompts_are_shown(model: Model) -> None:
    def colours(components: list[str]) -> dict[str, float]:
        """The share of pixels that are clearly red or blue. A prompt does not say that there is nothing else."""
        composer = Composer([model(prompt) for prompt in components])
        generator = seeded(0)
        images = composer.sample(4, generator=generator, num_inference_steps=12, output_type="pt", progress=False)
        red, green, blue = images.unbind(1)
        strong = {"red": red - torch.maximum(green, blue), "blue": blue - torch.maximum(red, green)}
        return {name: float((excess > 0.125).float().mean()) for name, excess in strong.items()}

    alone, both = colours(["a red cube"]), colours(["a red cube", "a blue sphere"])
    assert alone["red"] > 0.01
    assert min(both.values()) > 0.01
    assert both["blue"] > 1.5 * alone["blue"]


def concepts(*names: str) -> Example:
    return Example(None, name=" and ".join(names), conditions=[{"concept": name} for name in names])


def test_the_dataset_conforms_and_values_are_those_of_the_model_that_is_evaluated() -> None:
    conditioner = from_pipeline(tiny_pipeline(), concepts=["cat", "dog"], template="the {}").conditioner
    values = true_values(concepts("dog", "cat"), conditioner)
    assert values.equal(torch.cat([conditioner.parse("the dog"), conditioner.parse("the cat")]))
    (solid,) = TextSource().examples("synthetic:1", count=1, seed=0)
    assert conditioner.describe(true_values(solid, conditioner)[0]) == {"prompt": f"the {solid.name}"}
    check_dataset(TextSource(), own_words())
    with pytest.raises(InputError, match=r"'cat' in 'a cat'.*--option model="):
        true_values(concepts("cat"), own_words())
