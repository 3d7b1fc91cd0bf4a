"""Wrong descriptions of a scene, which a model learns to tell from the right one."""

from __future__ import annotations

import torch
from torch import Tensor

from energycomp.components import Conditioner
from energycomp_clevr.codes import ATTRIBUTES, CUBE, QUARTER, SHAPE, TURN
from energycomp_lab.training import Rivals

WORDS = (*map(len, ATTRIBUTES.values()), QUARTER)
SWAPS = 2  # objects of a scene with a wrong word
MIXED_UP = (0.1, 0.2, 0.3, 0.4, 0.3)  # how often a wrong size, colour, material, shape and turn is tried, relatively
TURNED = (15, 75)  # degrees between a right turn and a wrong one
BESIDE = 0.08  # how far from an object a wrong one is put
MOVED = 0.04  # how far an object is moved


def draw_rivals(
    values: Tensor, owner: Tensor, scenes: int, conditioner: Conditioner, generator: torch.Generator
) -> Rivals:
    """Rivals of scenes with R objects: an object left out, one too many or moved, and up to `SWAPS` wrong words.

    Values (R, 6) or (R, 7) have attributes that are open as 0; places without words are (R, 2).

    >>> from energycomp_clevr.coordinates import Coordinates
    >>> places = torch.tensor([[0.3, 0.4], [0.7, 0.6]])  # one scene of two objects
    >>> found = draw_rivals(places, torch.tensor([0, 0]), 1, Coordinates(), torch.Generator().manual_seed(0))
    >>> found.dropped, found.added  # without the first, without the second, and with one more
    (tensor([ 0,  1, -1]), tensor([-1, -1,  0]))
    """
    device = values.device
    values = values.cpu()
    owner = owner.cpu()
    every = torch.arange(len(values))
    swapped, wrong = every[:0], values[:0]
    if values.shape[1] > 2:
        swapped, wrong = _swapped(values, owner, scenes, generator)
    parents, extra_owner, extra = _misplaced(values, owner, scenes, generator)
    added = torch.cat([wrong, extra])
    none = torch.full_like(every, -1)
    return Rivals(
        condition=conditioner(added.to(device)),
        owner=torch.cat([owner, owner[swapped], extra_owner]).to(device),
        dropped=torch.cat([every, swapped, parents]).to(device),
        added=torch.cat([none, torch.arange(len(added))]).to(device),
    )


def _swapped(values: Tensor, owner: Tensor, scenes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The objects (N,) that get a wrong word, and their values with it (N, 6)."""
    # At most `SWAPS` objects of each scene
    order = torch.randperm(len(values), generator=generator)
    taken = torch.zeros(scenes, dtype=torch.long)
    chosen = []
    for index in order.tolist():
        if taken[owner[index]] < SWAPS:
            taken[owner[index]] += 1
            chosen.append(index)
    objects = torch.tensor(chosen, dtype=torch.long)
    # One attribute of each, of those that are said
    chances = torch.tensor(MIXED_UP[: values.shape[1] - 2]).expand(max(len(objects), 1), -1)
    attribute = torch.multinomial(chances, 1, generator=generator)[: len(objects), 0]
    right = values[objects, 2 + attribute].long()
    said = right > 0
    objects, attribute, right = (each[said] for each in (objects, attribute, right))
    # Another word of it, or another turn
    number = torch.tensor(WORDS)[attribute]
    chance = torch.rand(len(objects), generator=generator)
    shift = 1 + (chance * (number - 1)).long()
    shift = torch.where(attribute == TURN - 2, TURNED[0] + (chance * (TURNED[1] - TURNED[0])).long(), shift)
    wrong = values[objects].clone()
    wrong[torch.arange(len(objects)), 2 + attribute] = ((right - 1 + shift) % number + 1).to(values.dtype)
    return objects, _turned_cubes(wrong)


def _turned_cubes(values: Tensor) -> Tensor:
    """Values whose turn is left open where they are no cubes."""
    if values.shape[1] > TURN:
        values[:, TURN] *= values[:, SHAPE] == CUBE
    return values


def _misplaced(values: Tensor, owner: Tensor, scenes: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """One object a scene, beside another one, moved or anywhere: which it replaces (-1: none), the scenes, values."""
    parents = torch.full((scenes,), -1)
    # Any object at any place
    found = torch.rand(scenes, values.shape[1], generator=generator)
    codes = 1 + (found[:, 2:] * torch.tensor(WORDS)[: values.shape[1] - 2]).long()
    found[:, 2:] = codes.to(found.dtype)
    for scene in range(scenes):
        own = (owner == scene).nonzero()[:, 0]
        if not len(own):
            continue
        # It says no more than one of the scene; a quarter of them stay anywhere
        one = own[int(torch.randint(len(own), (), generator=generator))]
        found[scene, 2:] = found[scene, 2:] * (values[one, 2:] > 0)
        kind = float(torch.rand((), generator=generator))
        if kind < 0.25:
            continue
        # A quarter is beside it with other words, a fifth with the same; 30 % are the object itself, moved
        step = MOVED if kind > 0.7 else BESIDE
        found[scene, :2] = values[one, :2] + step * torch.randn(2, generator=generator)
        if kind > 0.5:
            found[scene, 2:] = values[one, 2:]
        if kind > 0.7:
            parents[scene] = one
    found[:, :2] = found[:, :2].clamp(0.0, 1.0)
    return parents, torch.arange(scenes), _turned_cubes(found)
