"""Words to numbers and back, and the transformer over them: padding tells nothing, order does."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from energycomp.errors import InputError
from energycomp_text.words import WordEncoder, Words, positions, words

SOLIDS = Words(("a", "and", "cube", "red", "blue"), 6)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("a red cube", [1, 4, 3, 0, 0, 0]),
        ("A RED, a Blue cube.", [1, 4, 1, 5, 3, 0]),
        ("  a\tred\ncube ", [1, 4, 3, 0, 0, 0]),
        ("", [0] * 6),
        (" , . ", [0] * 6),
    ],
)
def test_words_are_numbered(text: str, ids: list[int]) -> None:
    assert SOLIDS(text).tolist() == ids
    assert SOLIDS.mask(SOLIDS(text)[None]).tolist() == [[number > 0 for number in ids]]
    assert SOLIDS(SOLIDS.text(SOLIDS(text))).tolist() == ids


def test_numbers_that_are_no_words_are_passed_over() -> None:
    assert SOLIDS.text(torch.tensor([0, 4, 99, 3])) == "red cube"
    assert SOLIDS.size == 6


@pytest.mark.parametrize(("text", "unknown"), [("a red ball", "ball"), ("a red-cube", "red-cube"), ("rot!", "rot!")])
def test_a_word_that_is_unknown(text: str, unknown: str) -> None:
    with pytest.raises(InputError, match=f"{unknown!r}.*expected words of a, and, blue, cube, red.*--option model="):
        SOLIDS(text)


@pytest.mark.parametrize(
    ("vocabulary", "length"),
    [((), 4), (("a", "a"), 4), (("a",), 0), (("a",), 1001), (tuple(map(str, range(100_001))), 4)],
    ids=["none", "twice", "no length", "long", "many"],
)
def test_vocabularies_that_cannot_be(vocabulary: tuple[str, ...], length: int) -> None:
    with pytest.raises(InputError, match="words that differ"):
        Words(vocabulary, length)


@pytest.mark.parametrize(
    "numbers", [{"width": 20}, {"width": 0}, {"layers": 0}, {"heads": 2.0}, {"layers": 5000}, {"heads": -4}]
)
def test_transformers_that_cannot_be(numbers: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected whole numbers"):
        words(vocabulary=["a"], **numbers)


def test_a_transformer_that_is_too_large_is_refused_before_it_is_made() -> None:
    with pytest.raises(InputError, match="at most"):
        words(vocabulary=["a"], width=4096, layers=4096)


@torch.no_grad()
def test_the_encoder_is_the_transformer_of_the_paper() -> None:
    """Against attention written out, for a text without padding."""
    torch.manual_seed(0)
    width, heads = 16, 4
    encoder = WordEncoder(6, width=width, layers=2, heads=heads).eval()
    ids = torch.tensor([[1, 4, 3]])
    x = encoder.embedding(ids)[0] + positions(3, width, encoder.embedding.weight)
    for layer in encoder.layers.layers:
        h = layer.norm1(x)
        q, k, v = F.linear(h, layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(0, 1) for part in (q, k, v))
        attended = torch.softmax(q @ k.transpose(1, 2) / (width / heads) ** 0.5, -1) @ v
        x = x + layer.self_attn.out_proj(attended.transpose(0, 1).flatten(1))
        x = x + layer.linear2(torch.relu(layer.linear1(layer.norm2(x))))
    torch.testing.assert_close(encoder(ids)[0], x, rtol=0, atol=1e-5)


@torch.no_grad()
def test_padding_tells_nothing_and_order_does() -> None:
    torch.manual_seed(0)
    encoder = WordEncoder(6, width=16).eval()
    short, long = torch.tensor([[1, 4, 3]]), torch.tensor([[1, 4, 3, 0, 0, 0, 0]])
    torch.testing.assert_close(encoder(long)[:, :3], encoder(short), rtol=0, atol=1e-5)
    turned = encoder(torch.tensor([[3, 4, 1]])).flip(1)
    assert float((turned - encoder(short)).abs().max()) > 0.05
    assert torch.isfinite(encoder(torch.zeros(2, 4).long())).all()  # texts without a word


def test_positions_are_those_of_the_paper_in_small() -> None:
    table = positions(5, 8, torch.zeros(()))
    for place in range(5):
        for k in range(4):
            angle = torch.tensor(place * torch.e ** (-8.0 * k / 8))
            expected = 0.3 * torch.stack([angle.sin(), angle.cos()])
            torch.testing.assert_close(table[place, 2 * k : 2 * k + 2], expected, rtol=0, atol=1e-6)


def test_a_conditioner_is_made_again_from_its_config() -> None:
    text = words(vocabulary=["a", "cat"], length=5, width=16, layers=1, heads=2, template="{}", concepts=["cat"])
    again = words(**text.config())
    assert again.config() == text.config()
    assert {name: p.shape for name, p in again.encoder.state_dict().items()} == {
        name: p.shape for name, p in text.encoder.state_dict().items()
    }
    assert (again.token_shape, again.value_shape, again.module) == ((1, 16), (5,), again.encoder)
