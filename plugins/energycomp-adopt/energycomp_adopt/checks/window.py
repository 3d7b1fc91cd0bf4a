"""The timesteps, draws and beta with which the labels of samples like these are read best.

Notation: variable -> symbol
    gaps    J_r - J of errors J = |eps - e|^2 under the true label and J_r under another, r
"""

from __future__ import annotations

import math
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components import timestep_of
from energycomp.errors import InputError
from energycomp_adopt.checks.case import Case, Finding, once, square_sums
from energycomp_adopt.checks.labels import LABELLED, alternate, measure_table, predict_under

WINDOW = (30.0, 8.0, 2.0, 0.5, 0.13, 0.035, 0.01)  # SNR relative to the variance of the samples
WIDER = 0.001  # what a level more of a window counts, as a share of samples that are read right
RIVALS = 2  # wrong labels of a sample that are compared
RESAMPLED = 400  # of the samples
SURE = 0.95  # the share of them in which another window must read better
AGREE = 0.8  # and the share that prefers about the same one: otherwise the next samples would give another
WRONG = 2.33  # standard deviations of a normal distribution that 1 % are beyond: of readings that are wrong


@attrs.frozen(eq=False)
class Window:
    """How labels are read best."""

    defaults: dict[str, Any]  # `timesteps`, `draws` and, of classes, `beta`
    reason: str  # why the timesteps are these


def _closest(case: Case, index: Tensor) -> Tensor:
    """Values of samples (n,), and those that are best among the wrong ones, (n, 1 + R, *V)."""
    known = measure_table(case)
    values = case.values
    if known is None or values is None:
        raise InputError("got samples without labels; expected one for each")
    classes = case.classes
    if classes is None:
        turned = [values[index.roll(turn)] for turn in range(1 + RIVALS)]
        return torch.stack(turned, 1)
    # The gaps of each label, over the samples of each class
    gaps = known.gaps.mean(1)
    sums, counts = torch.zeros(2, classes, classes, dtype=torch.float64)
    wrong = known.rival & gaps.isfinite()
    own = known.shown[:, :1].expand_as(known.shown)
    sums.index_put_((own[wrong], known.shown[wrong]), gaps[wrong], accumulate=True)
    counts.index_put_((own[wrong], known.shown[wrong]), torch.ones_like(gaps[wrong]), accumulate=True)
    mean = torch.where(counts > 0, sums / counts, math.inf)
    # Of classes without samples among these no rival is known: the next labels
    rivals = mean.argsort(1)[:, : min(RIVALS, classes - 1)]
    return torch.cat([values[index][:, None], rivals[values[index]]], 1)


@once
def measure_gaps(case: Case) -> tuple[Tensor, Tensor]:
    """Gaps (n, L, R) of samples at the levels `WINDOW` under the closest wrong values, and SNR (L,)."""
    values: Any = case.values
    index = alternate(values)[: max(16, case.evaluations // 16)]
    given = _closest(case, index)
    noised = case.add_noise(index, WINDOW)
    L = len(WINDOW)
    R = given.shape[1]
    conditions = case.model.conditioner(given.repeat(L, *[1] * (given.ndim - 1)).flatten(0, 1))
    found = predict_under(case.model, noised, conditions, R) - noised.noise[:, None]
    errors = square_sums(found.flatten(0, 1)).view(L, len(index), R).transpose(0, 1)
    same = (given == given[:, :1]).reshape(*given.shape[:2], -1).all(2)[:, None, 1:]
    return (errors[:, :, 1:] - errors[:, :, :1]).masked_fill(same, math.inf), noised.snr[:: len(index)]


@attrs.frozen(eq=False)
class _Levels:
    """Gaps (n, L, R) at L levels, and the timesteps (L + 1,) between which each level stands for all."""

    gaps: Tensor
    edges: Tensor

    @classmethod
    def of(cls, case: Case) -> _Levels:
        gaps, snr = measure_gaps(case)
        steps = snr.log()
        half = float(steps[0] - steps[1]) / 2
        alphas = case.model.denoiser.alphas_cumprod
        return cls(gaps, timestep_of(alphas, torch.cat([steps + half, steps[-1:] - half]).to(alphas.device)).cpu())

    def share(self, window: Tensor) -> Tensor:
        """Of each level in draws over windows (W, 2), (W, L)."""
        low, high = (end.clamp(self.edges[0], self.edges[-1]) for end in window.double().unbind(1))
        inside = torch.minimum(self.edges[1:], high[:, None]) - torch.maximum(self.edges[:-1], low[:, None])
        share = inside.clamp(min=0) + 1e-9
        return share / share.sum(1, keepdim=True)

    def margins(self, window: Tensor) -> Tensor:
        """By how much wrong answers are worse on draws over windows (W, 2), (W, n, R)."""
        return torch.einsum("wl,nlr->wnr", self.share(window), self.gaps)

    def right(self, window: Tensor) -> Tensor:
        """Which samples are read right with draws over windows (W, 2), 1.0 or 0.0, (W, n)."""
        return (self.margins(window).amin(2) > 0).float()


def _resample(levels: _Levels, usual: tuple[float, float]) -> tuple[tuple[float, float], float, float]:
    """The window that resamplings of the samples prefer, the share of them that does, and the share it reads better."""
    n = len(levels.gaps)
    L = len(levels.edges) - 1
    pairs = torch.tensor([(low, high) for low in range(L) for high in range(low + 1, L + 1)])
    resampled = torch.randint(n, (RESAMPLED, n), generator=torch.Generator().manual_seed(0))
    # Of windows that read as many samples right the widest is the best: it has the most to tell labels by
    right = levels.right(levels.edges[pairs])
    best = (right[:, resampled].mean(2) + WIDER * pairs.diff().float()).argmax(0)
    middle = pairs[best].median(0).values
    agree = (pairs[best] - middle).abs().amax(1) <= 1
    # A window is chosen by some samples, and compared on the others: on its own it reads better by chance
    others = torch.ones(RESAMPLED, n).scatter_(1, resampled, 0.0)
    more = ((right[best] - levels.right(torch.tensor([usual]))) * others).sum(1)
    low, high = levels.edges[middle].tolist()
    return (low, high), float(agree.float().mean()), float((more > 0).float().mean())


@once
def choose_window(case: Case) -> Window:
    """The timesteps that resamplings of the samples prefer, if they agree, and surely read better than the model's."""
    levels = _Levels.of(case)
    T = len(case.model.denoiser.alphas_cumprod)
    usual = case.model.defaults.timesteps or (0.0, float(T))
    preferred, agree, gain = _resample(levels, usual)
    is_other = gain >= SURE and agree >= AGREE
    low, high = preferred if is_other else usual
    first = min(math.floor(low), T - 1)
    timesteps = (first, max(first + 1, min(math.ceil(high), T)))
    # As many draws as make 1 % of the readings wrong: there was one at each level
    chosen = torch.tensor([timesteps])
    margins = levels.margins(chosen)[0]
    least = margins.amin(1)
    certainty = float(least.mean() / least.std().clamp(min=1e-9))
    draws = (WRONG / max(certainty, 0.1)) ** 2 / float(levels.share(chosen).square().sum())
    values: dict[str, Any] = {"timesteps": timesteps, "draws": next((n for n in (16, 32) if n >= draws), 64)}
    if case.classes is not None and bool(margins.isfinite().all()):
        values["beta"] = fit_beta(margins)
    if is_other:
        reason = f"other timesteps read better in {gain:.0%} of resamplings"
    elif gain >= SURE:
        reason = f"the default is kept: only {agree:.0%} of resamplings agree on other timesteps"
    else:
        reason = f"the default is kept: other timesteps read better in {gain:.0%} of resamplings only"
    return Window(values, reason)


def fit_beta(margins: Tensor) -> float:
    """Of posteriors softmax(-beta J), by what the R best of the others are worse than the true one, (n, R)."""
    n, R = margins.shape
    wrong = 1 / (n + 2)  # the share of wrong answers, by the rule of Laplace, so that no beta is infinite
    energies = torch.cat([torch.zeros_like(margins[:, :1]), margins], 1)
    target = torch.tensor([1 - wrong] + [wrong / R] * R, dtype=margins.dtype)
    betas = torch.logspace(-3, 3, 121, dtype=margins.dtype) / margins.abs().mean()
    losses = [-(target * (-beta * energies).log_softmax(1)).sum() for beta in betas]
    return float(betas[int(torch.stack(losses).argmin())])


def check_window(case: Case) -> Finding | None:
    """With which timesteps, draws and beta labels are read; others than those of the model only if surely better."""
    known = measure_table(case)
    if known is None or not known.certainty > LABELLED:
        return None
    window = choose_window(case)
    change = ", ".join(f"{k}={v:.3g}" if k == "beta" else f"{k}={v}" for k, v in window.defaults.items())
    return Finding("reading", window.reason, "", "note", change)
