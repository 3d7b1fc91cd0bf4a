"""Conditions: rows of tokens with a null flag, and what some networks take beside tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self, cast

import attrs
import torch
from torch import Tensor

from energycomp.errors import InputError


@attrs.frozen(eq=False)
class Condition:
    """R rows of condition tokens, some of which may be the null (unconditional) row.

    The null row is a flag and not a value, because every value, (0, 0) included, may be a legal condition.

    Args:
        rows: tokens (R, L, D), floating point; those of a null row are ignored, as its `pooled` is.
        null: which rows are unconditional, (R,) bool; by default none.
        pooled: a vector of each row beside its tokens, (R, P), for networks that take one.
        mask: which tokens a network may attend to, (R, L) bool; all when left out.

    Raises:
        InputError: the shapes do not fit each other.

    >>> c = Condition(torch.zeros(3, 1, 2))
    >>> len(c), c.shape
    (3, (1, 2))
    >>> Condition.cat([c, Condition.unconditional(1, 2)]).null.tolist()
    [False, False, False, True]
    """

    rows: Tensor
    null: Tensor = attrs.field()
    pooled: Tensor | None = None
    mask: Tensor | None = None

    @null.default
    def _none_is_null(self) -> Tensor:
        return torch.zeros(self.rows.shape[:1], dtype=torch.bool, device=self.rows.device)

    def __attrs_post_init__(self) -> None:
        shape = tuple(self.rows.shape)
        dtype = self.rows.dtype
        if self.rows.ndim != 3 or not self.rows.is_floating_point():
            got = f"got condition rows of shape {shape} and type {dtype}"
            raise InputError(f"{got}; expected floating point (R, L, D); add the row or token dimension")
        flags = (("null flags", self.null, shape[:1], "row"), ("a mask", self.mask, shape[:2], "token"))
        for name, given, expected, each in flags:
            if given is not None and (given.shape != expected or given.dtype != torch.bool):
                got = f"got {name} of shape {tuple(given.shape)} and type {given.dtype}"
                raise InputError(f"{got}; expected bool {expected}, one flag a {each}")
        if self.pooled is not None and (self.pooled.ndim != 2 or len(self.pooled) != shape[0]):
            raise InputError(f"got pooled vectors of shape {tuple(self.pooled.shape)}; expected ({shape[0]}, P)")

    @classmethod
    def unconditional(cls, tokens: int, width: int, *, rows: int = 1, device: torch.device | None = None) -> Self:
        """`rows` null rows of shape (tokens, width)."""
        zeros = torch.zeros(rows, tokens, width, device=device)
        return cls(zeros, torch.ones(rows, dtype=torch.bool, device=device))

    @classmethod
    def cat(cls, conditions: Sequence[Condition]) -> Self:
        """Concatenates rows; all must have the same (L, D), and those that are not null the same further parts."""
        shapes = sorted({c.shape for c in conditions})
        if len(shapes) != 1:
            raise InputError(f"got conditions of token shapes {shapes}; expected one (L, D) for all; pad the tokens")
        pooled = _cat_parts([(c, c.pooled) for c in conditions], "pooled vectors")
        mask = _cat_parts([(c, c.mask) for c in conditions], "a mask")
        return cls(torch.cat([c.rows for c in conditions]), torch.cat([c.null for c in conditions]), pooled, mask)

    @property
    def shape(self) -> tuple[int, int]:
        """(L, D) of one row."""
        return (self.rows.shape[1], self.rows.shape[2])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Tensor | slice) -> Condition:
        return self._each(lambda part: part[index])

    def expand(self, rows: int) -> Condition:
        """Itself when it has that many rows, or its rows in turns: sample i has row i mod n. One row is not copied."""
        if len(self) == rows:
            return self
        if not len(self) or rows % len(self):
            raise InputError(
                f"got a condition of {len(self)} rows for a batch of {rows}; expected 1 or {rows}, or a divisor of it"
            )
        if len(self) > 1:
            return self[torch.arange(rows) % len(self)]
        return self._each(lambda part: part.expand(rows, *part.shape[1:]))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Condition:
        """A copy on that device and of that type."""
        return self._each(lambda part: part.to(device=device, dtype=dtype if part.is_floating_point() else None))

    def filled(self, null: Condition) -> Condition:
        """The rows with the one row of `null` in place of each null row, and its parts where these are missing."""
        instead = null.to(self.rows.device, self.rows.dtype).expand(len(self))

        def part(own: Tensor | None, other: Tensor | None) -> Tensor | None:
            if own is None or other is None:
                return other
            return torch.where(self.null.reshape(-1, *[1] * (own.ndim - 1)), other, own)

        rows = cast("Tensor", part(self.rows, instead.rows))
        return Condition(rows, pooled=part(self.pooled, instead.pooled), mask=part(self.mask, instead.mask))

    def mixed(self, weights: Tensor) -> Condition:
        """N sums of the R rows, with weights (N, R); a token is used where one of them uses it.

        >>> Condition(torch.tensor([[[1.0]], [[3.0]]])).mixed(torch.tensor([[0.5, 0.5]])).rows.flatten().tolist()
        [2.0]
        """
        rows = torch.einsum("nr,rld->nld", weights.to(self.rows), self.rows)
        pooled = None if self.pooled is None else weights.to(self.pooled) @ self.pooled
        used = None if self.mask is None else (weights != 0).to(self.rows) @ self.mask.to(self.rows) > 0
        return Condition(rows, pooled=pooled, mask=used)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Condition:
        """The condition with each of its tensors changed."""
        parts = (None if part is None else change(part) for part in (self.pooled, self.mask))
        return Condition(change(self.rows), change(self.null), *parts)


def _cat_parts(parts: Sequence[tuple[Condition, Tensor | None]], what: str) -> Tensor | None:
    """A part of conditions, concatenated; zeros for rows that are all null and lack it."""
    given = next((part for _, part in parts if part is not None), None)
    if given is None:
        return None
    if any(part is None and not bool(condition.null.all()) for condition, part in parts):
        raise InputError(f"got conditions with and without {what}; expected the same of all; make them with one model")
    made = [given.new_zeros(len(owner), *given.shape[1:]) if part is None else part for owner, part in parts]
    return torch.cat(made)
