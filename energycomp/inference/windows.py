"""The quadratic form over components that show in windows alone: no prediction of a whole sample is made.

Notation: variable -> symbol
    left        sqrt(scale_s) (x - u), what the unconditional prediction leaves of draw s, folded to cells
    effects     sqrt(scale_s) (e_m - u) of component m, in its window; 0 beyond
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor
from torch.nn import functional as F

from energycomp.components import Condition, identifies_null
from energycomp.components.ledger import count, count_rows
from energycomp.inference.noise import NoiseBank, wanted
from energycomp.inference.predicted import Predicted
from energycomp.inference.quadratic import QuadraticForm

CHUNK = 64  # windows that run at once


@attrs.frozen(eq=False)
class Window:
    """What a component adds, (S, F, h, w), in the cells from (top, left)."""

    top: int
    left: int
    effects: Tensor

    def seen(self, maps: Tensor) -> Tensor:
        """The part of maps (..., H, W) in the window, a view."""
        h, w = self.effects.shape[-2:]
        return maps[..., self.top : self.top + h, self.left : self.left + w]


@attrs.frozen(eq=False)
class WindowForm:
    """M components under S draws, each in its window, beside what the unconditional prediction leaves.

    Args:
        left: (S, F, H, W), in cells of patch x patch pixels.
        windows: of the components.
        patch: pixels.
    """

    left: Tensor
    windows: tuple[Window, ...]
    patch: int

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def draws(self) -> int:
        """S."""
        return len(self.left)

    @property
    def c(self) -> Tensor:
        """The errors (S,) of the unconditional prediction."""
        return self.left.flatten(1).square().sum(1)

    def take(self, indices: Sequence[int] | Tensor) -> WindowForm:
        """The form over some of the components."""
        return attrs.evolve(self, windows=tuple(self.windows[int(k)] for k in indices))

    def quadratic(self) -> QuadraticForm:
        """The form that `Problem.quadratic` makes, without atoms: products exist where windows meet."""
        b = self.left.new_zeros(self.draws, len(self))
        gram = self.left.new_zeros(self.draws, len(self), len(self))
        for m, one in enumerate(self.windows):
            b[:, m] = (one.effects * one.seen(self.left)).flatten(1).sum(1)
            for n in range(m + 1):
                gram[:, m, n] = gram[:, n, m] = _product(one, self.windows[n])
        return QuadraticForm(b, gram, self.c)

    def explained(self) -> tuple[Tensor, Tensor | None]:
        """The residuals (S, C, H, W) of all components, and the part (M, C, H, W) of the error that each explains."""
        # r = target - sum of the effects
        rest = self.left.float()
        for one in self.windows:
            one.seen(rest).sub_(one.effects)
        parts = rest.new_zeros(len(self), *rest.shape[1:])
        # R_k = mean of (r + e_k)^2 - r^2
        for one, part in zip(self.windows, parts, strict=True):
            effects = one.effects.to(rest)
            one.seen(part).copy_((effects * (2 * one.seen(rest) + effects)).mean(0))
        return F.pixel_shuffle(rest, self.patch), F.pixel_shuffle(parts, self.patch) if len(self) else None


def window_form(predicted: Predicted, condition: Condition, bank: NoiseBank) -> WindowForm | None:
    """The form over M conditions, or None of a network without windows. Costs M S rows on windows, and S trunks."""
    network = predicted.denoiser.network
    effects_of = getattr(network, "effects", None)
    if effects_of is None or not identifies_null(predicted.denoiser.rule):
        return None
    features = predicted.trunk(bank).features or ()
    patch: int = network.patch  # type: ignore[assignment]
    goal, scale = wanted(predicted.denoiser, predicted.observation, bank)
    root = scale.sqrt()[:, None, None, None]
    left = F.pixel_unshuffle((goal - features[1]) * root, patch).double()
    # What each component adds under every draw
    draws = len(bank)
    windows: list[Window] = []
    at_once = max(1, CHUNK // draws)
    for start in range(0, len(condition), at_once):
        part = condition[slice(start, start + at_once)]
        index = torch.arange(len(part), device=root.device).repeat_interleave(draws)
        owner = torch.arange(draws, device=root.device).repeat(len(part))
        some: dict[int, Window] = {}
        with torch.no_grad():
            for rows, cells, made in effects_of(features, part[index], owner):
                scaled = (made.float() * root[owner[rows]]).double().unflatten(0, (-1, draws))
                for k, effects in enumerate(scaled):
                    row = k * draws
                    some[int(index[rows[row]])] = Window(int(cells.rows[row, 0]), int(cells.columns[row, 0]), effects)
        windows += [some[k] for k in range(len(part))]
    with count_rows(predicted.spent):
        count(rows=len(condition) * draws)
    return WindowForm(left, tuple(windows), patch)


def _product(one: Window, other: Window) -> Tensor:
    """Inner products (S,) of what two components add."""
    (h, w), (other_h, other_w) = one.effects.shape[-2:], other.effects.shape[-2:]
    top, left = max(one.top, other.top), max(one.left, other.left)
    bottom = min(one.top + h, other.top + other_h)
    right = min(one.left + w, other.left + other_w)
    if bottom <= top or right <= left:
        return one.effects.new_zeros(len(one.effects))

    def part(window: Window) -> Tensor:
        return window.effects[..., top - window.top : bottom - window.top, left - window.left : right - window.left]

    return (part(one) * part(other)).flatten(1).sum(1)
