"""What a component is conditioned on: rows of tokens with a null flag, and the conditioners that make them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol, Self, runtime_checkable

import attrs
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from energycomp.errors import InputError

__all__ = ["Condition", "Conditioner", "Latents", "groups_of", "is_finite", "weights_of"]


@attrs.frozen(eq=False)
class Condition:
    """R rows of condition tokens, some of which may be the null (unconditional) row.

    The null row is a flag and not a value, because every value, (0, 0) included, may be a legal condition.

    Args:
        rows: tokens, shape (R, L, D), floating point; what a null row holds is ignored.
        null: which rows are unconditional, shape (R,), bool; none of them when left out.

    Raises:
        InputError: when the shapes do not fit each other.

    >>> c = Condition(torch.zeros(3, 1, 2))
    >>> len(c), c.shape
    (3, (1, 2))
    >>> Condition.cat([c, Condition.unconditional(1, 2)]).null.tolist()
    [False, False, False, True]
    """

    rows: Tensor
    null: Tensor = attrs.field()

    @null.default
    def _none_is_null(self) -> Tensor:
        return torch.zeros(self.rows.shape[:1], dtype=torch.bool, device=self.rows.device)

    def __attrs_post_init__(self) -> None:
        if self.rows.ndim != 3 or not self.rows.is_floating_point():
            raise InputError(
                f"got condition rows of shape {tuple(self.rows.shape)} and type {self.rows.dtype}; "
                "expected floating point (R, L, D); add the row or token dimension"
            )
        if self.null.shape != self.rows.shape[:1] or self.null.dtype != torch.bool:
            raise InputError(
                f"got null flags of shape {tuple(self.null.shape)} and type {self.null.dtype}; "
                f"expected bool ({len(self.rows)},), one flag a row"
            )

    @classmethod
    def unconditional(cls, tokens: int, width: int, *, rows: int = 1, device: torch.device | None = None) -> Self:
        """`rows` null rows of shape (tokens, width)."""
        zeros = torch.zeros(rows, tokens, width, device=device)
        return cls(zeros, torch.ones(rows, dtype=torch.bool, device=device))

    @classmethod
    def cat(cls, conditions: Sequence[Condition]) -> Self:
        """Concatenates rows; all must have the same (L, D)."""
        shapes = sorted({c.shape for c in conditions})
        if len(shapes) != 1:
            raise InputError(f"got conditions of token shapes {shapes}; expected one (L, D) for all; pad the tokens")
        return cls(torch.cat([c.rows for c in conditions]), torch.cat([c.null for c in conditions]))

    @property
    def shape(self) -> tuple[int, int]:
        """(L, D) of one row."""
        return (self.rows.shape[1], self.rows.shape[2])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Tensor | slice) -> Condition:
        return Condition(self.rows[index], self.null[index])

    def expand(self, rows: int) -> Condition:
        """One row repeated without a copy, or itself when it has that many rows."""
        if len(self) == rows:
            return self
        if len(self) != 1:
            raise InputError(f"got a condition of {len(self)} rows for a batch of {rows}; expected 1 or {rows}")
        return Condition(self.rows.expand(rows, -1, -1), self.null.expand(rows))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Condition:
        """A copy on that device and of that type."""
        return Condition(self.rows.to(device=device, dtype=dtype), self.null.to(device=device))


@runtime_checkable
class Conditioner(Protocol):
    """Turns values that a person or a solver handles (a position, labels, a prompt) into condition rows.

    `value_shape` is the shape V of one value; `support` the constraint it satisfies, such that
    `torch.distributions.transform_to(support)` serves a gradient solver; a finite conditioner also has
    `enumerate_support() -> (M, *V)`, all legal values. One whose values fall into attributes that a picture has one
    each of also has `groups`, the values (M_k, *V) of each attribute. One with weights of its own, which are trained
    and saved with a model, has `module`, a `torch.nn.Module`, or None. One that takes words has `concepts`, those it
    lists, and `over(concepts, *, template=None) -> Conditioner`, the same over others.
    """

    @property
    def value_shape(self) -> tuple[int, ...]:
        """V, the shape of one value."""
        ...

    @property
    def token_shape(self) -> tuple[int, int]:
        """(L, D) of one condition row."""
        ...

    @property
    def support(self) -> constraints.Constraint:
        """The set of legal values."""
        ...

    def parse(self, *args: Any, **kwargs: Any) -> Tensor:
        """What a person writes, `clevr(0.3, 0.4)`, as one value of shape (1, *V); raises `InputError`."""
        ...

    def describe(self, value: Tensor) -> Any:
        """One value of shape V as something JSON can hold and a person can read."""
        ...

    def config(self) -> dict[str, Any]:
        """Constructor arguments, as JSON; with the registered name they rebuild the conditioner."""
        ...

    def __call__(self, values: Tensor) -> Condition:
        """Values (R, *V) as R condition rows, differentiable where the values are continuous."""
        ...


@attrs.frozen
class Latents:
    """A conditioner whose values are latents that an encoder reads from a picture; the token of a value is the value.

    Args:
        width: D.

    >>> latents = Latents(3)
    >>> latents.parse(0.5, 1, -2), latents(torch.zeros(2, 3)).shape
    (tensor([[ 0.5000,  1.0000, -2.0000]]), (1, 3))
    """

    width: int = attrs.field(default=8)

    @width.validator
    def _check(self, _: Any, value: int) -> None:
        if type(value) is not int or value < 1:
            raise InputError(f"got latents of width {value!r}; expected a whole number of at least 1")

    @property
    def value_shape(self) -> tuple[int, ...]:
        """(D,)."""
        return (self.width,)

    @property
    def token_shape(self) -> tuple[int, int]:
        """One token."""
        return (1, self.width)

    @property
    def support(self) -> constraints.Constraint:
        """All vectors."""
        return constraints.independent(constraints.real, 1)

    def parse(self, *args: Any, **kwargs: Any) -> Tensor:
        """D numbers as a value (1, D)."""
        numbers = all(isinstance(number, int | float) and math.isfinite(number) for number in args)
        if kwargs or len(args) != self.width or not numbers:
            raise InputError(
                f"got {args} {kwargs or ''}; expected the {self.width} finite numbers of a latent; take latents from a "
                "picture: energycomp.decompose"
            )
        return torch.tensor([args], dtype=torch.float32)

    def describe(self, value: Tensor) -> list[float]:
        """The numbers of a value (D,), that `parse` takes back."""
        return [float(number) for number in value]

    def config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {"width": self.width}

    def __call__(self, values: Tensor) -> Condition:
        """Values (R, D) as rows (R, 1, D)."""
        if values.ndim != 2 or values.shape[1] != self.width:
            raise InputError(
                f"got latents of shape {tuple(values.shape)}; expected (R, {self.width}); take those of this model"
            )
        return Condition(values[:, None].float())


def groups_of(conditioner: Conditioner) -> tuple[Tensor, ...] | None:
    """The values of each attribute, (M_k, *V), where the conditioner has attributes; an answer takes one of each."""
    return getattr(conditioner, "groups", None)


def weights_of(conditioner: Conditioner) -> nn.Module | None:
    """What is trained and saved of a conditioner, where it has weights of its own."""
    return getattr(conditioner, "module", None)


def is_finite(conditioner: Conditioner) -> bool:
    """Whether all values of a conditioner can be listed."""
    return hasattr(conditioner, "enumerate_support")
