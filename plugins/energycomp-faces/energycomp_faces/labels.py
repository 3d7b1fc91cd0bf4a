"""The labels conditioner: one value of one categorical attribute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.distributions import constraints

from energycomp.components import Condition
from energycomp.errors import InputError

BINARY = ("no", "yes")


def _attributes(given: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    return {str(name): tuple(map(str, values)) for name, values in given.items()}


@attrs.frozen
class Labels:
    """Categorical attributes; a component is conditioned on one value of one attribute (thesis 5.4.2).

    A value is the index of an (attribute, value) pair among all pairs. Its token is one-hot over all pairs.

    >>> labels = Labels({"smiling": ("no", "yes"), "hair": ("black", "fair", "red")})
    >>> labels.parse(hair="fair"), labels(labels.parse(hair="fair")).rows
    (tensor([3]), tensor([[[0., 0., 0., 1., 0.]]]))
    >>> labels.describe(torch.tensor(1))
    {'attribute': 'smiling', 'value': 'yes'}
    """

    attributes: dict[str, tuple[str, ...]] = attrs.field(converter=_attributes)
    value_shape: tuple[int, ...] = attrs.field(default=(), init=False)

    @attributes.validator
    def _check(self, _: Any, given: dict[str, tuple[str, ...]]) -> None:
        if not given or any(len(set(values)) < max(2, len(values)) for values in given.values()):
            raise InputError(
                f"got the attributes {given}; expected at least one, each with two or more values that differ"
            )

    @property
    def width(self) -> int:
        """The number of values of all attributes."""
        return sum(map(len, self.attributes.values()))

    @property
    def token_shape(self) -> tuple[int, int]:
        """One token, one-hot."""
        return (1, self.width)

    @property
    def groups(self) -> tuple[Tensor, ...]:
        """The values (M,) of each attribute; an answer has one value of each."""
        ends = torch.tensor([len(values) for values in self.attributes.values()]).cumsum(0).tolist()
        return tuple(torch.arange(start, end) for start, end in zip([0, *ends], ends, strict=False))

    @property
    def support(self) -> constraints.Constraint:
        """All indices."""
        return constraints.integer_interval(0, self.width - 1)

    def enumerate_support(self) -> Tensor:
        """All values (width,)."""
        return torch.arange(self.width)

    def parse(self, *args: Any, **kwargs: Any) -> Tensor:
        """The value (1,) for `smiling=True` or `hair="fair"`; True and False stand for "yes" and "no".

        `attribute="hair", value="fair"`, the output of `describe`, is accepted too.
        """
        if kwargs.keys() == {"attribute", "value"}:
            kwargs = {str(kwargs["attribute"]): kwargs["value"]}
        if args or len(kwargs) != 1:
            raise InputError(
                f"got {len(args)} positional and {len(kwargs)} named arguments; expected one attribute, such as "
                f"{next(iter(self.attributes))}=...; compose several components with &"
            )
        ((name, given),) = kwargs.items()
        if name not in self.attributes:
            raise InputError(f"got the attribute {name!r}; expected one of {', '.join(self.attributes)}")
        values = self.attributes[name]
        wanted = BINARY[given] if isinstance(given, bool) else given
        if wanted not in values:
            raise InputError(f"got {name}={given!r}; expected one of {', '.join(values)}; choose one")
        before = list(self.attributes).index(name)
        return torch.tensor([int(self.groups[before][values.index(wanted)])])

    def read(self, text: str) -> Tensor:
        """`smiling`, `male=false` or `hair=red`, as written on the command line, as a value (1,)."""
        name, equals, given = (part.strip() for part in text.partition("="))
        return self.parse(**{name: {"true": True, "false": False}.get(given, given) if equals else True})

    def describe(self, value: Tensor) -> dict[str, str]:
        """A value () as JSON that `parse` accepts."""
        index = int(value)
        for (name, values), group in zip(self.attributes.items(), self.groups, strict=True):
            if index <= int(group[-1]):
                return {"attribute": name, "value": values[index - int(group[0])]}
        raise InputError(f"got the value {index}; expected 0 to {self.width - 1}")

    def config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {"attributes": {name: list(values) for name, values in self.attributes.items()}}

    def __call__(self, values: Tensor) -> Condition:
        """Indices (R,) as one-hot rows (R, 1, width)."""
        if values.ndim != 1 or (len(values) and not bool(self.support.check(values).all())):
            raise InputError(
                f"got labels of shape {tuple(values.shape)}; expected indices (R,) from 0 to {self.width - 1}"
            )
        return Condition(torch.nn.functional.one_hot(values.long(), self.width).float()[:, None])
