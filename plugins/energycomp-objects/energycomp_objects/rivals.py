"""Wrong descriptions of a photo by its schema, which a model learns to tell from the right one."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from energycomp_lab.training import Rivals
from energycomp_objects.conditioner import Objects


@attrs.frozen
class RivalOptions:
    """How often descriptions are made wrong, and by how much.

    Args:
        moved, resized, wrong: share of the objects that are moved, resized, and have a wrong word.
        step: standard deviation of a move, in sizes of the object.
        factor: least and greatest logarithm of a factor of width or height.
        beside: least and greatest distance of a second copy of an object, in its sizes.
        far: sizes; a further object that is so far from all marks may be one that nobody marked.
        far_share: share of those that are kept as rivals.
        least_size: of objects without one, as a share of the image.
    """

    moved: float = 0.25
    resized: float = 0.2
    wrong: float = 0.35
    step: float = 0.35
    factor: tuple[float, float] = (0.2, 0.7)
    beside: tuple[float, float] = (0.1, 0.5)
    far: float = 3.0
    far_share: float = 0.5
    least_size: float = 0.08


def draw_rivals(
    values: Tensor,
    owner: Tensor,
    scenes: int,
    conditioner: Objects,
    generator: torch.Generator,
    options: RivalOptions = RivalOptions(),
) -> Rivals:
    """Rivals of scenes with R objects: each left out; some moved, resized or with a wrong word; one doubled, one more.

    >>> dice = Objects({"number": ("one", "two")})
    >>> values = torch.tensor([[0.3, 0.4, 0.1, 0.1, 1.0]])
    >>> rivals = draw_rivals(values, torch.tensor([0]), 1, dice, torch.Generator().manual_seed(1))
    >>> rivals.dropped.tolist(), rivals.added.tolist()  # left out, moved, resized, and doubled
    ([0, 0, 0, -1], [-1, 0, 1, 2])
    """
    every = torch.arange(len(values))
    size = _sizes(values, conditioner, options)
    parts = [
        _moved(values, size, generator, options),
        _resized(values, conditioner, generator, options),
        _wrong(values, conditioner, generator, options),
    ]
    added_values, added_owner = _added(values, owner, size, scenes, generator, options)
    added = torch.cat([*(part for _, part in parts), added_values])
    replaced = torch.cat([index for index, _ in parts])
    none = torch.full_like(every, -1)
    return Rivals(
        condition=conditioner(added),
        owner=torch.cat([owner, owner[replaced], added_owner]),
        dropped=torch.cat([every, replaced, torch.full((len(added_owner),), -1)]),
        added=torch.cat([none, torch.arange(len(added))]),
    )


def _sizes(values: Tensor, conditioner: Objects, options: RivalOptions) -> Tensor:
    """Width and height (R, 2), and for open ones those of a typical object."""
    if not conditioner.box or not len(values):
        return torch.full((len(values), 2), options.least_size)
    size = values[:, 2:4]
    said = size[:, 0] > 0
    typical = size[said].median(0).values if said.any() else torch.full((2,), options.least_size)
    return torch.where(said[:, None], size, typical)


def _choose(share: float, among: Tensor, generator: torch.Generator) -> Tensor:
    return (among & (torch.rand(len(among), generator=generator) < share)).nonzero()[:, 0]


def _moved(values: Tensor, size: Tensor, generator: torch.Generator, options: RivalOptions) -> tuple[Tensor, Tensor]:
    index = _choose(options.moved, torch.ones(len(values), dtype=torch.bool), generator)
    moved = values[index].clone()
    moved[:, :2] += options.step * size[index] * torch.randn(len(index), 2, generator=generator)
    moved[:, :2] = moved[:, :2].clamp(0, 1)
    return index, moved


def _resized(
    values: Tensor, conditioner: Objects, generator: torch.Generator, options: RivalOptions
) -> tuple[Tensor, Tensor]:
    said = values[:, 2] > 0 if conditioner.box else torch.zeros(len(values), dtype=torch.bool)
    index = _choose(options.resized, said, generator)
    resized = values[index].clone()
    low, high = options.factor
    factor = low + (high - low) * torch.rand(len(index), 1, generator=generator)
    sign = 2.0 * torch.randint(2, (len(index), 1), generator=generator) - 1
    # Width, height, or both
    which = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])[torch.randint(3, (len(index),), generator=generator)]
    if conditioner.box:
        resized[:, 2:4] = (resized[:, 2:4] * torch.exp(sign * factor * which)).clamp(0.01, 1)
    return index, resized


def _wrong(
    values: Tensor, conditioner: Objects, generator: torch.Generator, options: RivalOptions
) -> tuple[Tensor, Tensor]:
    """Objects with another word of an attribute that they say, one each."""
    words = torch.tensor(conditioner.words)
    codes = values[:, conditioner.length :]
    changes = (codes > 0) & (words > 1)  # (R, A): where there is another word
    if not len(words):
        return torch.arange(0), values[:0]
    index = _choose(options.wrong, changes.any(1), generator)
    wrong = values[index].clone()
    if len(index):
        attribute = torch.multinomial(changes[index].float(), 1, generator=generator)[:, 0]
        count = words[attribute]
        shift = 1 + (torch.rand(len(index), generator=generator) * (count - 1)).long()
        column = conditioner.length + attribute
        right = wrong[torch.arange(len(index)), column].long()
        wrong[torch.arange(len(index)), column] = ((right - 1 + shift) % count + 1).to(wrong)
    return index, wrong


def _added(
    values: Tensor, owner: Tensor, size: Tensor, scenes: int, generator: torch.Generator, options: RivalOptions
) -> tuple[Tensor, Tensor]:
    """For each scene one of its objects again, beside itself, and one more anywhere, as far as that is surely wrong."""
    added = []
    owners = []
    for scene in range(scenes if len(values) else 0):
        own = (owner == scene).nonzero()[:, 0]
        # Double one
        if len(own):
            one = own[int(torch.randint(len(own), (), generator=generator))]
            low, high = options.beside
            angle = 2 * torch.pi * torch.rand((), generator=generator)
            distance = low + (high - low) * torch.rand((), generator=generator)
            copy = values[one].clone()
            copy[:2] = (copy[:2] + distance * size[one] * torch.stack([angle.cos(), angle.sin()])).clamp(0, 1)
            added.append(copy)
            owners.append(scene)
        # Add one anywhere, not at the border, where objects are often not marked
        one = int(torch.randint(len(values), (), generator=generator))
        other = values[one].clone()
        half = (size[one] / 2).clamp(max=0.45)
        other[:2] = half + (1 - 2 * half) * torch.rand(2, generator=generator)
        distance = ((values[own, :2] - other[:2]) / size[one]).norm(dim=1)
        is_far = not len(own) or float(distance.min()) > options.far
        if is_far and float(torch.rand((), generator=generator)) > options.far_share:
            continue
        added.append(other)
        owners.append(scene)
    return torch.stack(added) if added else values[:0], torch.tensor(owners, dtype=torch.long)
