"""Plans: the change of a composition that an edit makes, from the arguments of `edit`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components import ability, mixed_of, prior_of, value_of
from energycomp.errors import InputError
from energycomp.models import Model


@attrs.frozen(eq=False)
class Plan:
    """The change of a composition: its old values (K, *V), removed and changed components, and new values.

    What is added has open attributes where none were asked for.
    """

    old: Tensor
    gone: tuple[int, ...]
    changed: Mapping[int, Tensor]
    new: tuple[Tensor, ...]

    @property
    def kept(self) -> list[int]:
        """The components that are not removed; they come first in `values`."""
        return [k for k in range(len(self.old)) if k not in self.gone]

    @property
    def values(self) -> Tensor:
        """Values of the new composition: the old order, then the added ones."""
        stays = [self.changed.get(k, self.old[k]) for k in self.kept]
        return torch.stack([*stays, *self.new]) if stays or self.new else self.old[:0]


def make_plan(old: Tensor, model: Model, move: Any, words: Any, remove: Any, add: Any) -> Plan:
    """The change of values (K, *V) that the arguments of `edit` describe; raises `InputError` for what cannot be."""
    kinds = {"move": (move, Mapping), "set": (words, Mapping), "remove": (remove, Collection), "add": (add, Sequence)}
    for name, (given, kind) in kinds.items():
        if not isinstance(given, kind) or isinstance(given, str):
            expected = "move={0: (0.4, 0.6)}, set={0: {'color': 'red'}}, remove=[1], add=[(0.2, 0.8)]"
            raise InputError(f"got {name}={given!r}; expected such as {expected}")
    if not (move or words or remove or add):
        raise InputError("got nothing to change; expected a component to move, set, remove or add")
    for k in (*move, *words, *remove):
        if k not in range(len(old)):
            known = "; ".join(f"{i}: {model.conditioner.describe(value)}" for i, value in enumerate(old))
            raise InputError(f"got component {k} of {len(old)}; expected one of the answer's ({known or 'none'})")
    if both := {*move, *words} & {*remove}:
        raise InputError(f"got component {min(both)} to change and to remove; expected one of both")
    if len({*remove}) < len(remove):
        raise InputError(f"got components {sorted(remove)} to remove, one of them twice; expected each once")

    added = tuple(value_of(model.conditioner, value)[0].to(old) for value in add)
    plan = Plan(old, tuple(remove), _moved(old, model, move, words), added)
    if model.defaults.distinct and len(torch.unique(plan.values, dim=0)) < len(plan.values):
        raise InputError(f"got equal values in {plan.values.tolist()}; expected components that differ; change one")
    return plan


def _moved(old: Tensor, model: Model, move: Mapping[int, Any], words: Mapping[int, Any]) -> dict[int, Tensor]:
    """The new values of components; attributes that they leave open stay as they were."""
    mixed = mixed_of(model.conditioner)
    moved = {}
    for k, value in move.items():
        new = value_of(model.conditioner, value)[0].to(old)
        moved[k] = new if mixed is None else mixed.support.kept(old[k], new)
    return moved | {k: _worded(moved.get(k, old[k]), given, model, k) for k, given in words.items()}


def _worded(value: Tensor, words: Any, model: Model, k: int) -> Tensor:
    """A value with other words of its attributes."""
    mixed = mixed_of(model.conditioner)
    unread = ability(model.conditioner, "unread") or ()
    known = () if mixed is None else (*mixed.attributes, *unread)
    if not isinstance(words, Mapping) or not words or not words.keys() <= {*known}:
        raise InputError(
            f"got {words!r} to set for component {k}; expected words by attribute of {model.name}: "
            f"{', '.join(known) or 'it has none'}"
        )
    said = {name: word for name, word in model.conditioner.describe(value).items() if name not in unread}
    new = value_of(model.conditioner, {**said, **words})[0].to(value)
    return mixed.support.kept(value, new) if mixed is not None else new


def fill_open(model: Model, values: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Values (*V) of what is sampled, with what they leave open drawn from its prior, where the model has one.

    Words that the prior leaves open are drawn, too: a network that is told no colour may mix two.
    """
    prior = prior_of(model.conditioner)
    mixed = mixed_of(model.conditioner)
    if prior is None or not values:
        return list(values)
    drawn = prior.draw_open(torch.stack([*values]), generator)
    if mixed is not None:
        for attribute, words in enumerate(mixed.support.words):
            # Each word is as probable as another one
            chosen = torch.randint(words, (len(drawn),), generator=generator)
            is_open = mixed.support.split(drawn)[1][:, attribute] == 0
            drawn = torch.where(is_open[:, None], mixed.support.worded(drawn, attribute, chosen), drawn)
    return list(drawn)
