"""The text conditioner: prompts to tokens through a text encoder, each prompt once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import attrs
import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn import functional as F

from energycomp.components import Condition
from energycomp.errors import InputError

CACHED = 512  # prompts whose tokens are kept, beside those of the concepts; one of Stable Diffusion takes 236 kB,
MOST_NUMBERS = 64 * 2**20  # and one of FLUX 8 MiB
ENCODED_BATCH = 64  # prompts that are encoded before their rows are kept


class Tokenizer(Protocol):
    """Texts to ids and back."""

    @property
    def length(self) -> int:
        """L, the number of ids of every text."""

    @property
    def size(self) -> int:
        """The number of ids that there are."""

    def __call__(self, text: str) -> Tensor:
        """Ids (L,) of a text, filled up; raises `InputError` where it is too long."""

    def mask(self, ids: Tensor) -> Tensor:
        """Which ids (R, L) are of the text and do not fill it up."""

    def text(self, ids: Tensor) -> str:
        """About the text of ids (L,)."""


def _check_template(template: Any) -> str:
    if str(template).count("{}") != 1:
        raise InputError(f"got the template {template!r}; expected a text with one {{}}, such as 'a photo of a {{}}'")
    return str(template)


def _names(concepts: Any) -> tuple[str, ...]:
    names = concepts if isinstance(concepts, str) else tuple(concepts)
    if isinstance(names, str) or not all(isinstance(name, str) and name.strip() for name in names):
        raise InputError(f"got the concepts {concepts!r}; expected a list of words, such as ['cat', 'dog']")
    return tuple(dict.fromkeys(name.strip() for name in names))


@attrs.frozen(eq=False)
class Text:
    """Prompts as conditions. A value is the ids (L,) of a prompt; its tokens are computed once and kept.

    Concepts are what a reader chooses among: words that a template makes prompts of.

    Args:
        tokenizer: texts to ids.
        encoder: `encoder(ids (R, L), mask (R, L)) -> states (R, L, D)`, or R rows as a `Condition`.
        width: D.
        settings: arguments of the registered factory that made it, as JSON, without `template` and `concepts`.
        pooled: the states are averaged to one token of unit length, as sentence encoders do; else L tokens.
        template: the prompt of a concept, with {} in its place.
        concepts: that `enumerate_support` lists.
        owned: whether the encoder's weights belong to the model, are trained and saved with it.
        row_shape: (L, D) of a row, where the encoder makes conditions itself; then nothing is pooled.

    >>> from energycomp_text.words import words
    >>> text = words(vocabulary=["a", "red", "cube", "ball"], length=4, concepts=["red cube", "red ball"])
    >>> text.parse("a red ball"), text.describe(text.parse("a red ball")[0])
    (tensor([[1, 2, 4, 0]]), {'concept': 'red ball'})
    """

    tokenizer: Tokenizer
    encoder: nn.Module
    width: int
    settings: Mapping[str, Any]
    pooled: bool = False
    template: str = attrs.field(default="a photo of a {}", converter=_check_template)
    concepts: tuple[str, ...] = attrs.field(default=(), converter=_names)
    owned: bool = True
    row_shape: tuple[int, int] | None = None
    _kept: dict[tuple[int, ...], Condition] = attrs.field(factory=dict, init=False, repr=False)

    @property
    def module(self) -> nn.Module | None:
        """What is trained and saved with a model; None for an encoder that was trained elsewhere."""
        return self.encoder if self.owned else None

    @property
    def value_shape(self) -> tuple[int, ...]:
        return (self.tokenizer.length,)

    @property
    def token_shape(self) -> tuple[int, int]:
        """(L, D), or (1, D) where states are pooled."""
        if self.row_shape is not None:
            return self.row_shape
        return (1 if self.pooled else self.tokenizer.length, self.width)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.integer_interval(0, self.tokenizer.size - 1), 1)

    def with_concepts(self, concepts: Sequence[str], *, template: str | None = None) -> Text:
        """The same encoder over other concepts; raises `InputError` for one that the tokenizer cannot take."""
        if not _names(concepts):
            raise InputError("got no concepts; expected at least one, such as cat, dog, rabbit")
        made = attrs.evolve(self, concepts=concepts, template=template or self.template)
        made.enumerate_support()
        return made

    def enumerate_support(self) -> Tensor:
        """The prompts of all concepts (M, L)."""
        if not self.concepts:
            raise InputError(
                "got no concepts to choose among; expected some; say which: --option concepts=cat,dog,rabbit on the "
                "command line, or energycomp_text.with_concepts(model, ['cat', 'dog'])"
            )
        return torch.tensor(list(self._named))

    @cached_property
    def _named(self) -> dict[tuple[int, ...], str]:
        """The concept of each prompt's ids, in order."""
        named: dict[tuple[int, ...], str] = {}
        for name in self.concepts:
            ids = tuple(self.tokenizer(self.prompt(name)).tolist())
            if (other := named.setdefault(ids, name)) != name:
                raise InputError(f"got the concepts {other!r} and {name!r}, whose prompts are the same; leave one out")
        return named

    def prompt(self, concept: str) -> str:
        return self.template.replace("{}", concept)

    def parse(self, *args: Any, **kwargs: Any) -> Tensor:
        """`"a red cube"`, `prompt="a red cube"` or `concept="red cube"` as a value (1, L)."""
        named = {**({"prompt": args[0]} if len(args) == 1 else {}), **kwargs}
        legal = len(args) + len(kwargs) == len(named) == 1 and named.keys() <= {"prompt", "concept"}
        given = next(iter(named.values()), None)
        if not legal or not isinstance(given, str):
            shown = [*map(repr, args), *(f"{k}={v!r}" for k, v in kwargs.items())]
            raise InputError(
                f"got ({', '.join(shown)}); expected one prompt, such as 'a photo of a cat'; compose several with &"
            )
        return self.tokenizer(self.prompt(given) if "concept" in named else given)[None]

    def read(self, text: str) -> Tensor:
        """A prompt, as written on the command line, as a value (1, L)."""
        return self.parse(text)

    def describe(self, value: Tensor) -> dict[str, str]:
        """A value (L,) as the concept that it is the prompt of, or as the prompt."""
        value = value.cpu()
        name = self._named.get(tuple(value.tolist()))
        return {"prompt": self.tokenizer.text(value)} if name is None else {"concept": name}

    def config(self) -> dict[str, Any]:
        """Arguments of the registered factory."""
        return {**self.settings, "template": self.template, "concepts": list(self.concepts)}

    def __call__(self, values: Tensor) -> Condition:
        """Ids (R, L) as rows (R, L, D), or (R, 1, D). Each prompt is encoded once while the encoder is frozen."""
        if values.ndim != 2 or values.shape[1] != self.tokenizer.length or values.is_floating_point():
            raise InputError(
                f"got prompts of shape {tuple(values.shape)} and type {values.dtype}; expected ids (R, "
                f"{self.tokenizer.length}); take them from parse"
            )
        if not len(values):
            return Condition(torch.zeros(0, *self.token_shape, device=values.device))
        if any(weight.requires_grad for weight in self.encoder.parameters()):
            self._kept.clear()
            return self._encode(values)
        keys = [tuple(ids) for ids in values.tolist()]
        missing = [key for key in dict.fromkeys(keys) if key not in self._kept]
        for start in range(0, len(missing), ENCODED_BATCH):
            part = missing[start : start + ENCODED_BATCH]
            ids = torch.tensor(part, device=values.device)
            with torch.no_grad():
                made = self._encode(ids)
            # A view would keep all of them, so that each row is copied.
            self._kept.update({key: made[torch.tensor([place])] for place, key in enumerate(part)})
        rows = Condition.cat([self._kept[key].to(values.device) for key in keys])
        while len(self._kept) > self._limit + len(self.concepts):
            self._kept.pop(next(iter(self._kept)))
        return rows

    def states(self, ids: Tensor) -> Tensor:
        """What the encoder makes of ids (R, L): (R, L, D), float32."""
        encoder = self.encoder.to(ids.device)
        return encoder(ids, self.tokenizer.mask(ids)).float()

    def _encode(self, ids: Tensor) -> Condition:
        mask = self.tokenizer.mask(ids)
        if self.row_shape is None:
            return Condition(self.pool(self.states(ids), mask))
        made: Condition = self.encoder(ids, mask)
        return made

    @property
    def _limit(self) -> int:
        """How many prompts are kept beside the concepts: at most 256 MiB of float32 rows, but 8 of any size."""
        return min(CACHED, max(8, MOST_NUMBERS // math.prod(self.token_shape)))

    def pool(self, states: Tensor, mask: Tensor) -> Tensor:
        """States (R, L, D) as tokens: all of them, or their mean over the mask (R, L), of unit length."""
        if not self.pooled:
            return states
        share = mask.to(states)[..., None]
        return F.normalize((states * share).sum(1, keepdim=True), dim=-1)
