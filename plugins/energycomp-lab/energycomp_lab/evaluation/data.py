"""Examples: images with what is known of them, and their conditions as values of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, overload

import attrs
import torch
from torch import Tensor

from energycomp.components import Conditioner, groups_of, mixed_of, random_values, value_of
from energycomp.errors import InputError


def _as_tuple(given: Iterable[Any] | None) -> tuple[Any, ...] | None:
    return None if given is None else tuple(given)


@attrs.frozen(eq=False)
class Example:
    """An image and what is known of it; None stands for what the data source does not know.

    Args:
        image: what `ImageProcessor` takes: a tensor (3, H, W) in [-1, 1], an array, a file.
        name: used in messages.
        conditions: one per component, as the conditioner's `describe` gives it and its `parse` takes it, such as
            {"x": 0.3, "y": 0.4}, {"attribute": "smiling", "value": "yes"} or {"concept": "cat"}.
        masks: of the objects, (K, H, W) bool; (0, 1, 1) where there are no objects.
        factors: of the whole image, (F,) numbers.

    >>> Example(torch.zeros(3, 8, 8), conditions=[{"x": 0.3, "y": 0.4}]).conditions
    ({'x': 0.3, 'y': 0.4},)
    """

    image: Any
    name: str = attrs.field(default="", kw_only=True)
    conditions: tuple[Any, ...] | None = attrs.field(default=None, kw_only=True, converter=_as_tuple)
    masks: Tensor | None = attrs.field(default=None, kw_only=True)
    factors: Tensor | None = attrs.field(default=None, kw_only=True)


@attrs.frozen
class Generated(Sequence[Example]):
    """Examples that are computed on access.

    Args:
        make: returns the example of an index; the same at every call.

    >>> blank = Generated(3, lambda k: Example(None, name=f"scene {k}"))
    >>> len(blank), blank[-1].name, [example.name for example in blank[:2]]
    (3, 'scene 2', ['scene 0', 'scene 1'])
    """

    number: int
    make: Callable[[int], Example]

    def __len__(self) -> int:
        return self.number

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self.make(k) for k in range(*index.indices(self.number))]
        return self.make(range(self.number)[index])


def true_values(example: Example, conditioner: Conditioner) -> Tensor:
    """Reads the conditions of an example as values (K, *V) of a conditioner.

    Attributes that the conditioner does not have are left out. Their names may differ in case.

    Raises:
        InputError: an example without conditions, or with conditions that the conditioner does not take.

    >>> from energycomp.testing import tiny_model
    >>> true_values(Example(None, conditions=[(0.25, 0.5)]), tiny_model().conditioner)
    tensor([[0.2500, 0.5000]])
    """
    if example.conditions is None:
        raise InputError(
            f"got {example.name or 'an example'} without conditions; expected those of its components; use a dataset "
            "whose examples have conditions, or a model that decomposes images"
        )
    conditions = example.conditions
    known = [conditioner.describe(group[0]) for group in groups_of(conditioner) or ()]
    if known and conditions and all(isinstance(one, Mapping) and "attribute" in one for one in (*known, *conditions)):
        conditions = _of_attributes(example, [one["attribute"] for one in known])
    elif mixed_of(conditioner) is None:
        conditions = _without_attributes(conditions, conditioner)
    try:
        values = [value_of(conditioner, condition) for condition in conditions]
    except InputError as error:
        raise InputError(
            f"got {example.name} with the conditions {list(conditions)}, which {type(conditioner).__name__} does not "
            f"take ({error}); expected the arguments of its parse; use a dataset of the model"
        ) from error
    return torch.cat(values) if values else torch.zeros(0, *conditioner.value_shape)


def _without_attributes(conditions: tuple[Any, ...], conditioner: Conditioner) -> tuple[Any, ...]:
    """Keeps the numbers that a continuous conditioner describes, {"x": 0.3, "y": 0.4} of an object with a colour."""
    if conditioner.support.is_discrete or not all(isinstance(one, Mapping) for one in conditions):
        return conditions
    shown = conditioner.describe(random_values(conditioner, 1, generator=0)[0])
    if not isinstance(shown, Mapping):
        return conditions
    return tuple({name: one[name] for name in one if name in shown} for one in conditions)


def _of_attributes(example: Example, attributes: Sequence[str]) -> tuple[Mapping[str, Any], ...]:
    """Keeps the conditions on these attributes, under these names."""
    known = {name.casefold(): name for name in attributes}
    given = {str(condition["attribute"]).casefold(): condition for condition in example.conditions or ()}
    chosen = tuple({**given[name], "attribute": known[name]} for name in known if name in given)
    if not chosen:
        raise InputError(
            f"got {example.name} with the attributes {', '.join(given)}, and a model of {', '.join(attributes)}; "
            "expected some in common; use other data, or another model"
        )
    return chosen
