"""A small text encoder that is trained together with a model: a vocabulary and a transformer of two layers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from energycomp.errors import InputError
from energycomp_text.text import Text

PAD = 0
MAX_WORDS = 100_000
MAX_LENGTH = 1_000
MAX_WEIGHTS = 50_000_000


def _texts(given: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(str, given))


@attrs.frozen
class Words:
    """A word tokenizer: id 0 is padding, id k + 1 is word k of the vocabulary; spaces, commas and full stops separate.

    >>> words = Words(("a", "cube", "red"), 4)
    >>> words("A red cube").tolist(), words.text(torch.tensor([1, 3, 2, 0]))
    ([1, 3, 2, 0], 'a red cube')
    """

    vocabulary: tuple[str, ...] = attrs.field(converter=_texts)
    length: int = attrs.field(default=16)

    def __attrs_post_init__(self) -> None:
        distinct = len(set(self.vocabulary)) == len(self.vocabulary)
        if not distinct or not 1 <= len(self.vocabulary) <= MAX_WORDS or not 1 <= self.length <= MAX_LENGTH:
            raise InputError(
                f"got {len(self.vocabulary)} words and length {self.length!r}; expected 1 to {MAX_WORDS:,} words that "
                f"differ, and a length of 1 to {MAX_LENGTH:,}"
            )

    @property
    def size(self) -> int:
        return len(self.vocabulary) + 1

    def __call__(self, text: str) -> Tensor:
        """Ids (L,) of a text; raises `InputError` for a word that is not in the vocabulary."""
        found = re.findall(r"[^\s,.]+", text.lower())
        if unknown := [word for word in found if word not in self.vocabulary]:
            raise InputError(
                f"got the word {unknown[0]!r} in {text!r}; expected words of {', '.join(sorted(self.vocabulary))}, the "
                "vocabulary of this model; for others load a text-to-image model: energycomp.load('FOLDER or hub id'), "
                "or --option model= on the command line, for example stable-diffusion-v1-5/stable-diffusion-v1-5"
            )
        if len(found) > self.length:
            raise InputError(f"got {len(found)} words in {text!r}; expected at most {self.length}; shorten it")
        ids = [self.vocabulary.index(word) + 1 for word in found]
        return torch.tensor(ids + [PAD] * (self.length - len(ids)))

    def mask(self, ids: Tensor) -> Tensor:
        """The attention mask (R, L) of ids (R, L): False for padding."""
        return ids != PAD

    def text(self, ids: Tensor) -> str:
        return " ".join(self.vocabulary[i - 1] for i in ids.tolist() if 0 < i <= len(self.vocabulary))


class WordEncoder(nn.Module):
    """A transformer encoder: word embedding, sinusoidal positions and self-attention layers (Vaswani et al., 2017)."""

    def __init__(self, size: int, *, width: int = 64, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.width = width
        self.embedding = nn.Embedding(size, width)
        nn.init.normal_(self.embedding.weight, std=0.5)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Ids (R, L) and their attention mask (R, L) to states (R, L, D)."""
        mask = ids != PAD if mask is None else mask
        mask = mask | ~mask.any(1, keepdim=True)  # an empty text attends to its padding, which avoids NaN
        states: Tensor = self.embedding(ids) + positions(ids.shape[1], self.width, self.embedding.weight)
        return self.layers(states, src_key_padding_mask=~mask)


def positions(length: int, width: int, like: Tensor) -> Tensor:
    """Sinusoidal position embeddings (L, D), of small amplitude relative to the word embeddings."""
    rate = torch.exp(torch.arange(0, width, 2, device=like.device) * (-4.0 / width))
    angle = torch.arange(length, device=like.device)[:, None] * rate
    return 0.3 * torch.stack([angle.sin(), angle.cos()], 2).flatten(1)[:, :width].to(like.dtype)


def words(
    *,
    vocabulary: Sequence[str],
    length: int = 16,
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    template: str = "a {}",
    concepts: Sequence[str] = (),
) -> Text:
    """A text conditioner with an untrained encoder; the states are averaged to one token of unit length.

    Args:
        vocabulary, length: see `Words`.
        width, layers, heads: sizes of the transformer.

    >>> text = words(vocabulary=["a", "red", "cube"], concepts=["red cube"])
    >>> text.token_shape, text(text.enumerate_support()).rows.shape
    ((1, 64), torch.Size([1, 1, 64]))
    """
    tokenizer = Words(tuple(vocabulary), length)
    numbers: dict[str, Any] = {"width": width, "layers": layers, "heads": heads}
    if not all(type(n) is int and 1 <= n <= 4096 for n in numbers.values()) or width % (2 * heads):
        raise InputError(f"got {numbers}; expected whole numbers, and a width that 2 heads divide")
    if width * (tokenizer.size + 12 * layers * width) > MAX_WEIGHTS:
        raise InputError(f"got {numbers} over {tokenizer.size - 1:,} words; expected {MAX_WEIGHTS:,} weights at most")
    return Text(
        tokenizer=tokenizer,
        encoder=WordEncoder(tokenizer.size, width=width, layers=layers, heads=heads),
        width=width,
        pooled=True,
        template=template,
        concepts=tuple(concepts),
        settings={"vocabulary": list(tokenizer.vocabulary), "length": length, **numbers},
    )
