"""The quadratic form over objects that show in their windows alone: no prediction of a whole sample is made.

Notation: variable -> symbol
    left        sqrt(scale_s) (x0 - u), what the unconditional prediction leaves of draw s, folded to cells
    effects     sqrt(scale_s) (e_m - u) of object m, in its window; 0 beyond
"""

from __future__ import annotations

import attrs
import torch
from torch import Tensor
from torch.nn import functional as F

from energycomp.components import Condition
from energycomp.inference import NoiseBank, Problem, QuadraticForm
from energycomp.inference.noise import wanted
from energycomp_objects.network import PlacedUNet

CHUNK = 64  # windows that run at once


@attrs.frozen(eq=False)
class Window:
    """What an object adds, (S, F, s, s), in the cells from (top, left)."""

    top: int
    left: int
    effects: Tensor

    @property
    def side(self) -> tuple[int, int]:
        return (self.effects.shape[-2], self.effects.shape[-1])


def window_form(problem: Problem, network: PlacedUNet, values: Tensor, bank: NoiseBank) -> QuadraticForm:
    """The form over objects (M, V), as `Problem.quadratic` makes it. Costs M S rows on windows, and S trunk passes."""
    features = problem.trunk(bank).features
    if features is None:
        raise TypeError("a PlacedUNet has features")
    goal, scale = wanted(problem.denoiser, problem.observation, bank)
    root = scale.sqrt()[:, None, None, None]
    left = F.pixel_unshuffle((goal - features[1]) * root, network.patch).double()
    condition = problem.conditioner(values)
    windows = _effects(network, features, condition, root, len(bank))
    problem.spend(len(values) * len(bank))
    # b = <effects, left>, and G where windows overlap
    draws = len(bank)
    b = torch.zeros(draws, len(values), dtype=torch.float64)
    gram = torch.zeros(draws, len(values), len(values), dtype=torch.float64)
    for m, one in enumerate(windows):
        h, w = one.side
        seen = left[..., one.top : one.top + h, one.left : one.left + w]
        b[:, m] = (one.effects * seen).flatten(1).sum(1)
        for n in range(m + 1):
            gram[:, m, n] = gram[:, n, m] = _product(one, windows[n])
    return QuadraticForm(b, gram, left.square().flatten(1).sum(1), weighting=problem.weighting)


def _effects(
    network: PlacedUNet, features: tuple[Tensor, ...], condition: Condition, root: Tensor, draws: int
) -> list[Window]:
    """What each object adds under every draw, in its window."""
    windows: list[Window] = []
    for start in range(0, len(condition), max(1, CHUNK // draws)):
        part = condition[slice(start, start + max(1, CHUNK // draws))]
        number = len(part)
        index = torch.arange(number).repeat_interleave(draws)
        owner = torch.arange(draws).repeat(number)
        some: dict[int, Window] = {}
        for rows, cells, made in network.effects(features, part[index], owner):
            scaled = (made.float() * root[owner[rows]]).double().unflatten(0, (-1, draws))
            for k, effects in enumerate(scaled):
                first = k * draws
                some[int(index[rows[first]])] = Window(int(cells.rows[first, 0]), int(cells.columns[first, 0]), effects)
        windows += [some[k] for k in range(number)]
    return windows


def _product(one: Window, other: Window) -> Tensor:
    """Inner products (S,) of what two objects add."""
    top, left = max(one.top, other.top), max(one.left, other.left)
    bottom = min(one.top + one.side[0], other.top + other.side[0])
    right = min(one.left + one.side[1], other.left + other.side[1])
    if bottom <= top or right <= left:
        return one.effects.new_zeros(len(one.effects))

    def part(window: Window) -> Tensor:
        return window.effects[..., top - window.top : bottom - window.top, left - window.left : right - window.left]

    return (part(one) * part(other)).flatten(1).sum(1)
