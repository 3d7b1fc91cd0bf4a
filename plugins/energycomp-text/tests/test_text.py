"""Prompts as conditions: what is parsed and described, encoded once, saved, and refused."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from energycomp.components import Conditioner, weights_of
from energycomp.errors import CheckpointError, InputError
from energycomp.models import from_pretrained, save_pretrained
from energycomp.seeds import torch_seed
from energycomp_lab.checks import check_conditioner, check_model
from energycomp_text import text as text_module, with_concepts
from energycomp_text.encoders import make_text
from energycomp_text.model import small
from energycomp_text.testing import tiny_pipeline
from energycomp_text.text import Text
from energycomp_text.words import words

VOCABULARY = ["a", "and", "cat", "dog", "catfish", "photo", "of"]


def trained(**options: Any) -> Text:
    """A conditioner of words whose encoder is as it is after training: frozen."""
    with torch_seed(0):
        text = words(vocabulary=VOCABULARY, length=8, width=16, concepts=["cat", "dog"], **options)
    text.encoder.eval().requires_grad_(requires_grad=False)
    return text


@pytest.fixture(scope="module")
def clip() -> Text:
    """A conditioner over the text encoder of a tiny pipeline: a token for each letter."""
    pipe = tiny_pipeline()
    settings = {"source": "here", "pooled": False, "length": None}
    return make_text(pipe.tokenizer, pipe.text_encoder, settings, template="a {}", concepts=["cat", "dog"])


@contextmanager
def encoded(text: Text) -> Iterator[list[int]]:
    """How many prompts each call of the encoder gets."""
    calls: list[int] = []
    with text.encoder.register_forward_pre_hook(lambda _, args: calls.append(len(args[0]))):
        yield calls


def test_prompts_and_concepts_are_parsed_described_and_taken_back(clip: Text) -> None:
    text = trained()
    assert text.parse("a cat").equal(text.parse(concept="cat"))
    assert text.parse(prompt="a cat").equal(text.parse("A  Cat"))
    assert text.describe(text.parse("a cat")[0]) == {"concept": "cat"}
    assert text.describe(text.parse("a photo of a cat")[0]) == {"prompt": "a photo of a cat"}
    assert text.enumerate_support().equal(torch.cat([text.parse(concept=name) for name in ("cat", "dog")]))
    for given in ("a cat", "a cat, and a dog!", ""):
        value = clip.parse(given)
        assert clip.parse(**clip.describe(value[0])).equal(value)
    assert clip.with_concepts(["cat"], template="{x} {}{").prompt("cat") == "{x} cat{"
    assert clip.parse("a" * 30).shape == (1, 32)


def test_other_concepts_of_the_same_encoder() -> None:
    text = trained()
    assert isinstance(text, Conditioner)
    assert weights_of(text) is not None
    other = text.with_concepts([" dog", "catfish", "dog "], template="a photo of a {}")
    assert other.concepts == ("dog", "catfish")
    assert other.encoder is text.encoder
    assert other.describe(other.parse("a photo of a dog")[0]) == {"concept": "dog"}
    assert text.with_concepts(["catfish"]).template == text.template
    assert text.concepts == ("cat", "dog")
    model = small()
    other = with_concepts(model, ["blue cube"], template="a red cube and a {}")
    assert isinstance(other.conditioner, Text)
    assert other.conditioner.prompt("blue cube") == "a red cube and a blue cube"
    assert other.denoiser is model.denoiser


def test_each_prompt_is_encoded_once() -> None:
    text = trained()
    one, two, three = (text.parse(prompt) for prompt in ("a cat", "a dog", "a catfish"))
    with encoded(text) as calls:
        first = text(torch.cat([one, two, one]))
        again = text(torch.cat([two, one]))
        more = text(torch.cat([three, one]))
    assert calls == [2, 1]
    assert first.rows[[1, 0]].equal(again.rows)
    assert first.rows[0].equal(more.rows[1])
    assert not first.null.any()
    expected = text.encoder(one, one != 0)[:, :2].mean(1, keepdim=True)
    torch.testing.assert_close(first.rows[:1], expected / expected.norm(), rtol=0, atol=1e-6)


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "CACHED", 0)  # beside the two concepts
    text = trained()
    values = torch.cat([text.parse(prompt) for prompt in ("a cat", "a dog", "a catfish", "a photo")])
    text(values[:2])
    with encoded(text) as calls:
        rows = text(values).rows  # more than are kept, and some of them are known
        text(values[2:])
        assert calls == [2]
        text(values[:1])
        assert calls == [2, 1]
    assert len(text._kept) == 2
    assert rows.equal(torch.cat([text(value[None]).rows for value in values]))


def test_tokens_are_made_and_kept_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "ENCODED_BATCH", 3)
    text = trained()
    values = torch.cat([text.parse(prompt) for prompt in ("a cat", "a dog", "a catfish", "a photo")])
    with encoded(text) as calls:
        rows = text(values).rows
    assert calls == [3, 1]
    kept = [condition.rows for condition in text._kept.values()]
    assert all(row.untyped_storage().nbytes() == row.numel() * 4 for row in kept)
    torch.testing.assert_close(rows, torch.cat([trained()(value[None]).rows for value in values]))


def test_an_encoder_that_is_trained_forgets_and_gets_gradients() -> None:
    text = trained()
    values = text.enumerate_support()
    frozen = text(values).rows
    text.encoder.requires_grad_(requires_grad=True)
    with encoded(text) as calls:
        rows = text(torch.cat([values, values])).rows
        text(values)
    assert calls == [4, 2]
    torch.testing.assert_close(rows[:2], frozen, rtol=0, atol=1e-6)
    rows.sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in text.encoder.parameters() if p.ndim == 2)
    with torch.no_grad():
        for parameter in text.encoder.parameters():
            parameter.mul_(1.5)
    text.encoder.requires_grad_(requires_grad=False)
    assert not torch.allclose(text(values).rows, frozen, atol=1e-3)


REFUSED: dict[str, tuple[Callable[[Text, Text], object], str]] = {  # what the conditioners of words and of CLIP refuse
    "no prompt": (lambda text, _: text.parse(), "expected one prompt"),
    "two prompts": (lambda text, _: text.parse("cat", "dog"), "expected one prompt"),
    "a prompt twice": (lambda text, _: text.parse("cat", prompt="cat"), "expected one prompt"),
    "a prompt and a concept": (lambda text, _: text.parse("cat", concept="cat"), "expected one prompt"),
    "another name": (lambda text, _: text.parse(word="cat"), "expected one prompt"),
    "a number": (lambda text, _: text.parse(3), "expected one prompt"),
    "a list": (lambda text, _: text.parse(concept=["cat"]), "expected one prompt"),
    "an unknown word": (lambda text, _: text.parse("a rabbit"), r"'rabbit' in 'a rabbit'.*--option model="),
    "too many words": (lambda text, _: text.parse("a " * 9), r"9 words.*at most 8"),
    "too many ids": (lambda _, clip: clip.parse("a" * 32), r"34 ids.*at most 32.*compose several"),
    "no concepts": (lambda text, _: text.with_concepts([]), "at least one"),
    "an empty concept": (lambda text, _: text.with_concepts(["cat", " "]), "list of words"),
    "concepts in one text": (lambda text, _: text.with_concepts("cat"), "list of words"),
    "concepts that are one": (
        lambda text, _: text.with_concepts(["Cat", "dog", "cat"]),
        "'Cat' and 'cat', whose prompts are the same",
    ),
    "an unknown concept": (lambda text, _: text.with_concepts(["cat", "rabbit"]), "rabbit"),
    "nothing to choose among": (lambda *_: words(vocabulary=["a"]).enumerate_support(), "--option concepts="),
    **{
        f"template {template!r}": (lambda *_, template=template: trained(template=template), r"one \{\}")
        for template in ("a cat", "{} and {}", "{0}", "", 3)
    },
    **{
        f"values {values.dtype} {tuple(values.shape)}": (lambda text, _, v=values: text(v), "take them from parse")
        for values in (torch.zeros(2, 7).long(), torch.zeros(8).long(), torch.zeros(2, 8))
    },
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(clip: Text, call: Callable[[Text, Text], object], message: str) -> None:
    text = trained()
    with pytest.raises(InputError, match=message):
        call(text, clip)


def test_it_conforms(clip: Text) -> None:
    check_conditioner(
        words(vocabulary=VOCABULARY, concepts=["cat"], length=5, width=16, layers=1, heads=2), factory=words
    )
    check_conditioner(clip, factory=lambda **_: clip)
    for trainable in (True, False):
        model = small()
        model.trained.requires_grad_(trainable)
        check_model(model)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "small"
    save_pretrained(small(), folder)
    return folder


@pytest.fixture
def taken() -> Iterator[list[int]]:
    """The sizes of the parameters that modules get and that take memory."""
    sizes: list[int] = []

    def count(_module: nn.Module, _name: str, parameter: Tensor | None) -> None:
        if parameter is not None and not parameter.is_meta:
            sizes.append(parameter.numel())

    with register_module_parameter_registration_hook(count):
        yield sizes


LARGER: dict[str, tuple[dict[str, Any], str]] = {
    "width": ({"width": 4096}, "50,000,000 weights at most"),
    "layers": ({"layers": 4096}, "50,000,000 weights at most"),
    "vocabulary": ({"vocabulary": [str(n) for n in range(90_000)], "width": 1024}, "50,000,000 weights at most"),
    "width of more": ({"width": 1024}, r"larger than its weights|missing tensors"),
    "layers of more": ({"layers": 100}, r"larger than its weights|missing tensors"),
    "vocabulary of more": ({"vocabulary": [str(n) for n in range(20_000)]}, r"larger than its weights|missing tensors"),
}


@pytest.mark.parametrize(
    ("name", "weights"), [(name, True) for name in LARGER] + [(name, False) for name in LARGER if "more" not in name]
)
def test_a_config_that_asks_for_more_takes_no_memory(
    saved: Path, tmp_path: Path, rewrite: Any, taken: list[int], name: str, weights: bool
) -> None:
    """More than any encoder of words has, also without weights, or than the weights beside it."""
    larger, message = LARGER[name]

    def enlarge(config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        config["conditioner"]["config"] |= larger
        for key in [key for key in tensors if not weights and key.startswith("conditioner.")]:
            del tensors[key]

    rewrite(shutil.copytree(saved, tmp_path / "edited"), enlarge)
    taken.clear()
    with pytest.raises((InputError, CheckpointError), match=message):
        from_pretrained(tmp_path / "edited")
    assert sum(taken) == 0
