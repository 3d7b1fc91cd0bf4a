"""Concepts of a dataset as values of the conditioner of the evaluated model."""

import pytest
import torch

from energycomp.errors import InputError
from energycomp.testing import tiny_model
from energycomp_datasets.solids.source import TextSource
from energycomp_lab.checks import check_dataset
from energycomp_lab.evaluation import Example, true_values
from energycomp_text import from_pipeline
from energycomp_text.model import own_words
from energycomp_text.testing import tiny_pipeline


def concepts(*names: str) -> Example:
    return Example(None, name=" and ".join(names), conditions=[{"concept": name} for name in names])


def test_the_dataset_conforms() -> None:
    check_dataset(TextSource(), own_words())


def test_values_are_those_of_the_model_that_is_evaluated() -> None:
    conditioner = from_pipeline(tiny_pipeline(), concepts=["cat", "dog"], template="the {}").conditioner
    values = true_values(concepts("dog", "cat"), conditioner)
    assert values.equal(torch.cat([conditioner.parse("the dog"), conditioner.parse("the cat")]))
    (solid,) = TextSource().examples("synthetic:1", count=1, seed=0)
    assert conditioner.describe(true_values(solid, conditioner)[0]) == {"prompt": f"the {solid.name}"}


def test_a_model_of_something_else() -> None:
    with pytest.raises(InputError, match="expected two numbers"):
        true_values(concepts("dog"), tiny_model().conditioner)


def test_concepts_that_a_model_of_few_words_does_not_know() -> None:
    with pytest.raises(InputError, match=r"'cat' in 'a cat'.*--option model="):
        true_values(concepts("cat"), own_words())
