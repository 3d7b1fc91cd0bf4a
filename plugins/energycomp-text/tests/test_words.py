"""Words to numbers and back, and the transformer over them: padding tells nothing, order does."""

from collections.abc import Callable

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


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    **{f"{text!r}": (lambda text=text: SOLIDS(text), f"{unknown!r}.*of a, and, blue, cube, red.*--option model=")
       for text, unknown in (("a red ball", "ball"), ("a red-cube", "red-cube"), ("rot!", "rot!"))},
    "no words": (lambda: Words((), 4), "words that differ"),
    "a word twice": (lambda: Words(("a", "a"), 4), "words that differ"),
    "no length": (lambda: Words(("a",), 0), "words that differ"),
    "too long": (lambda: Words(("a",), 1001), "words that differ"),
    "too many": (lambda: Words(tuple(map(str, range(100_001))), 4), "words that differ"),
    **{f"{numbers}": (lambda numbers=numbers: words(vocabulary=["a"], **numbers), "expected whole numbers")
       for numbers in ({"width": 20}, {"width": 0}, {"layers": 0}, {"heads": 2.0}, {"layers": 5000}, {"heads": -4})},
}  # fmt: skip


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


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
