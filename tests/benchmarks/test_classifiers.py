"""Readers of one prompt a prediction, against brute force over prompts and draws on the same bank."""

from itertools import combinations, pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.inference import classifiers
from benchmarks.inference.classifiers import compound, individual, single_errors, weigh_words, weighted
from energycomp.components import Composition, Condition, compound_prompt, predict
from energycomp.denoisers import Conditional, count_rows
from energycomp.errors import InputError
from energycomp.inference import NoiseBank, make_problem
from energycomp.models import Model
from energycomp.seeds import seeded, torch_seed
from energycomp_text import from_pipeline, with_concepts
from energycomp_text.model import small
from energycomp_text.testing import tiny_pipeline
from energycomp_text.text import Text
from energycomp_text.words import words

PETS = ("cat", "dog", "rabbit", "cow")
SOLIDS = ("red cube", "blue sphere", "green cylinder", "yellow cube")
DRAWS = 3


def solids() -> Model:
    """The small model with weights that tell prompts apart, and weights of draws that are not 1."""
    with torch_seed(0):
        model = with_concepts(small(), SOLIDS)
        for parameter in model.denoiser.network.parameters():
            if not parameter.any():  # as the last layers begin
                torch.nn.init.normal_(parameter, std=0.3)
    model.trained.requires_grad_(requires_grad=False)
    return model


MODELS = {"epsilon": lambda: from_pipeline(tiny_pipeline(seed=4), concepts=PETS, template="a {}"), "sample": solids}


@pytest.fixture(scope="module", params=MODELS)
def case(request: pytest.FixtureRequest) -> tuple[Model, Tensor, NoiseBank]:
    """A model, an encoded picture and the draws."""
    model: Model = MODELS[request.param]()
    picture = torch.rand(1, 3, *model.processor.size, generator=seeded(1)) * 2 - 1
    observation = model.encode(picture)
    return model, observation, make_problem(observation, model).draw(DRAWS, seeded(2))


@torch.no_grad()
def by_hand(model: Model, observation: Tensor, bank: NoiseBank, leaf: Conditional) -> float:
    """The mean weighted error of eps under one leaf, a draw at a time."""
    errors = []
    for s in range(len(bank)):
        one = bank[s : s + 1]
        noised = one.noised(observation, model.denoiser.alphas_cumprod)
        off = predict(Composition.of(leaf), noised, one.timestep) - one.noise
        errors.append(float(one.weight * off.square().sum()))
    return sum(errors) / len(errors)


def test_errors_of_single_conditions(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, observation, bank = case
    leaves = [model(concept=name) for name in model.conditioner.concepts]
    expected = [by_hand(model, observation, bank, leaf) for leaf in leaves]
    condition = Condition.cat([leaf.condition for leaf in leaves])
    for chunk in (classifiers.CHUNK, 9, 1):  # all draws at once, two at a time, one
        monkeypatch.setattr(classifiers, "CHUNK", chunk)
        with count_rows() as spent:
            errors = single_errors(model, observation, bank, condition)
        assert errors.tolist() == pytest.approx(expected, rel=1e-5)
        assert spent.rows == DRAWS * len(leaves)
    ordered = sorted(expected)
    assert all(b > a * (1 + 5e-5) for a, b in pairwise(ordered))  # rounding decides nothing


@pytest.mark.parametrize("count", [2, 4])
def test_the_compound_prompt_of_each_set_is_tried(case: Any, count: int) -> None:
    model, observation, bank = case
    errors = {
        names: by_hand(model, observation, bank, model("a " + " and a ".join(names)))
        for names in combinations(model.conditioner.concepts, count)
    }
    with count_rows() as spent:
        guess = compound(model, observation, bank, count)
    assert guess.concepts == min(errors, key=errors.__getitem__)
    assert guess.rows == spent.rows == DRAWS * len(errors)


@pytest.mark.parametrize("count", [1, 2])
def test_individual_prompts_are_ranked(case: Any, count: int) -> None:
    model, observation, bank = case
    concepts = model.conditioner.concepts
    errors = {name: by_hand(model, observation, bank, model(f"a {name}")) for name in concepts}
    with count_rows() as spent:
        guess = individual(model, observation, bank, count)
    assert guess.concepts == tuple(name for name in concepts if name in sorted(errors, key=errors.__getitem__)[:count])
    assert guess.rows == spent.rows == DRAWS * 4


@pytest.mark.parametrize("weight", [None, 3.0])
def test_each_concept_of_one_prompt_is_emphasised_in_turn(case: Any, weight: float | None) -> None:
    model, observation, bank = case
    concepts = model.conditioner.concepts
    prompt = "a " + " and a ".join(concepts)

    def emphasised(name: str) -> Conditional:
        condition = weigh_words(model.conditioner, prompt, {name: weight or 1.1 * 1.1})
        return Conditional(model.denoiser, condition, name=name)

    errors = {name: by_hand(model, observation, bank, emphasised(name)) for name in concepts}
    with count_rows() as spent:
        guess = weighted(model, observation, bank, 2, **({} if weight is None else {"weight": weight}))
    assert set(guess.concepts) == set(sorted(errors, key=errors.__getitem__)[:2])
    assert guess.rows == spent.rows == DRAWS * 4


def test_braces_of_a_template_stay() -> None:
    assert compound_prompt("{a} {}", ["dog", "cat"]) == "{a} dog and a cat"


@pytest.mark.parametrize("reader", [compound, individual, weighted])
def test_what_cannot_be_read(reader: Any) -> None:
    from energycomp.testing import tiny_model

    model = from_pipeline(tiny_pipeline(), concepts=PETS[:2])
    observation = torch.zeros(1, 4, 16, 16)
    bank = make_problem(observation, model).draw(2)
    for count in (0, 3):
        with count_rows() as spent, pytest.raises(InputError, match=f"got {count} of 2 concepts"):
            reader(model, observation, bank, count)
        assert spent.rows == 0
    with pytest.raises(InputError, match="expected one on text"):
        reader(tiny_model(), observation, bank, 1)


def trained() -> Text:
    """A conditioner of words whose encoder is as it is after training: frozen."""
    with torch_seed(0):
        text = words(vocabulary=["a", "and", "cat", "dog", "catfish"], length=8)
    text.encoder.requires_grad_(requires_grad=False)
    return text


@pytest.fixture(scope="module")
def clip() -> Text:
    text: Text = from_pipeline(tiny_pipeline()).conditioner
    return text


def test_a_weight_of_one_is_the_plain_prompt(clip: Text) -> None:
    for text in (trained(), clip):
        plain = text(text.parse("a cat and a dog")).rows
        torch.testing.assert_close(weigh_words(text, "a cat and a dog", {"cat": 1.0}).rows, plain, rtol=0, atol=1e-6)
        torch.testing.assert_close(weigh_words(text, "a cat and a dog", {}).rows, plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("phrase", "start", "stop"), [("cat", 2, 5), ("dog", 9, 12), ("a cat", 1, 5), ("and a", 5, 9)])
def test_the_states_of_a_phrase_are_moved_away_from_nothing(clip: Text, phrase: str, start: int, stop: int) -> None:
    plain, empty = clip(torch.cat([clip.parse("a cat and a dog"), clip.parse("")])).rows
    moved = weigh_words(clip, "a cat and a dog", {phrase: 1.5}).rows[0]
    expected = plain.clone()
    expected[start:stop] = empty[start:stop] + 1.5 * (plain[start:stop] - empty[start:stop])
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-5)


def test_a_phrase_is_whole_words() -> None:
    text = trained()
    prompt = "a catfish and a cat"
    ids = torch.cat([text.parse(prompt), text.parse("")])
    states, empty = text.encoder(ids, ids != 0)
    states[4] += 0.5 * (states[4] - empty[4])
    expected = states[:5].mean(0)
    got = weigh_words(text, prompt, {"cat": 1.5}).rows[0, 0]
    torch.testing.assert_close(got, expected / expected.norm(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("phrase", ["rabbit", "ca", "", " "])
def test_words_of_another_prompt_are_refused(phrase: str) -> None:
    with pytest.raises(InputError, match="expected words of 'a cat'"):
        weigh_words(trained(), "a cat", {phrase: 2.0})
