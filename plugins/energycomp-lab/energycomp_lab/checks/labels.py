"""The order of an adopted model's labels, its null, and the timesteps at which labels are read best.

Notation: variable -> symbol
    gaps        J_r - J of errors J = |eps - e|^2 under the true label and J_r under another, r
    share       (J_u - J) / mean_r (J_r - J) of the null u: about 1/2 of a trained null, 1 of a label like any other
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from energycomp.components import Condition, timestep_of
from energycomp.models import Model
from energycomp_lab.checks.near_misses import Finding, NearMiss, Noised, errors, labels_of, remade

WINDOW = (30.0, 8.0, 2.0, 0.5, 0.13, 0.035, 0.01)  # SNR relative to the variance of the samples
LABELS = WINDOW[3:6]  # among which the order of labels is sought
COLUMNS = 12  # labels of a network that are all compared
LABELLED = 3.0  # standard errors by which wrong labels must be worse
SHARE = 0.75  # of a null
NEARLY = 0.6  # of the certainty of the best window that a wider one must have: few samples choose it
WRONG = 2.33  # standard deviations of a normal distribution that 1 % are beyond: of readings that are wrong


@attrs.frozen(eq=False)
class Table:
    """Errors (n, L, R) of n samples at L levels under R conditions, the true one first.

    Args:
        snr: of the levels, (L,).
        shown: the network's labels, (n, R); None where conditions are no classes.
        rival: which conditions are wrong answers, (n, R).
        null: the label without a meaning, or one that could be.
        of_null: the errors of the null, (n, L).
    """

    snr: Tensor
    errors: Tensor
    shown: Tensor | None
    rival: Tensor
    null: int | None
    of_null: Tensor | None

    @property
    def gaps(self) -> Tensor:
        """By how much wrong answers are worse, (n, L, R); NaN for what is no wrong answer."""
        return (self.errors - self.errors[:, :, :1]).masked_fill(~self.rival[:, None], math.nan)

    @property
    def ignored(self) -> bool:
        """Whether no condition changes anything."""
        return float(self.gaps.nan_to_num().abs().max()) < 1e-5 * float(self.errors.mean())


def table_of(
    model: Model,
    noised_of: Callable[..., Noised],
    values: Tensor,
    pairs: int,
    null: Any,
    labels: Tensor | None = None,
    levels: tuple[float, ...] = WINDOW,
) -> Table:
    """The errors of `pairs` of a sample, of each value in turn, and a condition, at all levels.

    Args:
        noised_of: as `Noised` are drawn of samples (n,) at levels.
        null: of the adoption.
        labels: the network's label of each class, (C,); those that were said when left out.
        levels: SNR relative to the variance of the samples.
    """
    adapter: Any = model.denoiser.network
    classes, L = adapter.options["kind"] == "classes", len(levels)
    count = labels_of(model) if classes else 5
    order = in_turn(values)
    index = order[torch.arange(max(4, pairs // min(count, COLUMNS))) % len(order)]
    noised, n, shown, of_null, wide = noised_of(index, levels), len(index), None, None, model
    if classes:
        wide = remade(model, classes=count, null=None)
        labels = torch.arange(model.denoiser.token_shape[1]) if labels is None else labels
        true, spare = labels[values[index]], count - 1 if count > len(labels) else None
        null = spare if null is None else int(null)
        given = shown = torch.cat([true[:, None], _others(true, count, null)], 1)
        rival = torch.isin(shown, labels) & (shown != true[:, None])
        if null is not None and not bool((true == null).any()):
            rival &= shown != null
    else:
        given = torch.stack([values[index.roll(turn)] for turn in range(count)], 1)
        rival = (given != given[:, :1]).flatten(2).any(2)
    every = noised[torch.arange(L * n).repeat_interleave(given.shape[1])]
    found = errors(wide, every, wide.conditioner(torch.cat([given.flatten(0, 1)] * L))).view(L, n, -1).transpose(0, 1)
    if shown is not None and null is not None:
        of_null = found[torch.arange(n), :, (shown == null).long().argmax(1)]
    elif shown is None and null is not None:
        u = Condition.unconditional(*model.denoiser.token_shape, rows=L * n)
        of_null = errors(model, noised, u).view(L, n).T
    return Table(noised.snr[::n], found, shown, rival, null if classes else None, of_null)


def _others(true: Tensor, count: int, null: int | None) -> Tensor:
    """Labels beside the true ones (n,), (n, R): all of few; of many the neighbours, the null, and some in turn."""
    if count <= COLUMNS:
        every = torch.arange(count).expand(len(true), -1)
        return every[every != true[:, None]].view(len(true), -1)
    fixed = [true + 1, true - 1, torch.full_like(true, count - 1 if null is None else null)]
    return torch.stack([*fixed, *(true + step * count // COLUMNS for step in range(2, COLUMNS - 2))], 1) % count


def in_turn(values: Tensor) -> Tensor:
    """The indices of values (N, *V), one of each value after another."""
    flat = values.reshape(len(values), -1)
    return (flat[:, None] == flat[None]).all(2).tril(-1).sum(1).argsort(stable=True)


def relabelled(model: Model, table: Table) -> list[NearMiss]:
    """The labels that explain the samples of each class best; of many labels, those that are moved by one."""
    if table.shown is None:
        return []
    each = (table.errors / table.errors[:, :, 0].mean(0)[:, None]).mean(1)  # (n, R)
    classes, count = model.denoiser.token_shape[1], labels_of(model)
    labels = torch.arange(classes)
    if count <= COLUMNS:
        by_label, cost = each.gather(1, table.shown.argsort(1)), 1 - torch.eye(classes, count, dtype=each.dtype)
        for one in table.shown[:, 0].unique():
            cost[one] = by_label[table.shown[:, 0] == one].mean(0)
        labels = torch.as_tensor(linear_sum_assignment(cost)[1])
    else:
        labels = (labels + (1, -1)[int(each[:, 1:3].mean(0).argmin())]) % count
    changed = [(a, b) for a, b in enumerate(labels.tolist()) if a != b]
    if not changed:
        return []
    names = getattr(model.conditioner, "names", ())
    steps, moved = {(b - a) % classes for a, b in changed}, len(changed) == classes > 2
    said = [f"label {b} for {names[a]}" for a, b in changed[:6]] + ["..."] * (len(changed) > 6)
    instead = f"label + {min(steps)} for each" if moved and len(steps) == 1 else ", ".join(said)
    return [NearMiss("labels", "the order of the classes", instead, remade(model, classes=count, null=None), labels)]


def reading(model: Model, table: Table) -> tuple[list[Finding], Model]:
    """Findings on labels and the null, and the model with the timesteps, draws and beta that read best."""
    gaps, own = table.gaps, table.errors[:, :, 0]
    mean = gaps.nanmean(2)  # (n, L)
    each = (mean / own.mean(0)).sum(1)
    sure = float(each.mean() / each.std().clamp(min=1e-9)) * math.sqrt(len(each))
    said = ("labels", f"others are worse by {sure:.1f} standard errors", f"{LABELLED:g} or more")
    if not sure > LABELLED:
        return [Finding(*said, "wrong", "the order of labels, or call=, which gives them to the network")], model
    steps, alphas = table.snr.log(), model.denoiser.alphas_cumprod
    half = (steps[0] - steps[1]) / 2
    edges = timestep_of(alphas, torch.cat([steps + half, steps[-1:] - half]).to(alphas.device)).cpu()
    width = edges.diff()[:, None] + 1e-9

    def margins(low: int, high: int) -> Tensor:
        """By how much each answer is worse on draws over these levels, (n, R)."""
        return (gaps[:, low:high] * width[low:high]).sum(1) / width[low:high].sum()

    def certainty(window: tuple[int, int]) -> float:
        least = margins(*window).nan_to_num(math.inf).amin(1)
        return float(least.mean() / least.std().clamp(min=1e-9))

    windows = [(low, high) for low in range(len(steps)) for high in range(low + 1, len(steps) + 1)]
    best = max(map(certainty, windows))
    low, high = max((one for one in windows if certainty(one) >= NEARLY * best), key=lambda one: one[1] - one[0])
    first = min(math.floor(edges[low]), len(alphas) - 1)
    draws = (WRONG / max(certainty((low, high)), 0.1)) ** 2 * (high - low)
    values: dict[str, Any] = {
        "timesteps": (first, max(first + 1, min(math.ceil(edges[high]), len(alphas)))),
        "draws": next((n for n in (16, 32) if n >= draws), 64),
    }
    if table.shown is not None and bool((table.rival.sum(1) == table.rival[0].sum()).all()):
        values["beta"] = _beta(margins(low, high)[table.rival].view(len(own), -1))
    found = [Finding(*said, "ok")]
    if table.of_null is not None:
        of = torch.ones(len(own), dtype=torch.bool) if table.shown is None else table.shown[:, 0] != table.null
        inside = (slice(None), slice(low, high))
        share = float((table.of_null - own)[of][inside].sum() / mean[of][inside].sum())
        found.append(_null(model, table, share))
    change = ", ".join(f"{name}={value:.3g}" if name == "beta" else f"{name}={value}" for name, value in values.items())
    between = f"SNR {WINDOW[low]:g} to {WINDOW[high - 1]:g} of {WINDOW[0]:g} to {WINDOW[-1]:g}"
    found.append(Finding("reading", f"labels differ at {between}", "", "note", change))
    return found, attrs.evolve(model, defaults=attrs.evolve(model.defaults, **values))


def _null(model: Model, table: Table, share: float) -> Finding:
    """Whether the null is one: no class that samples have, and better than a wrong label."""
    shown, spare = table.shown, None
    if shown is not None and labels_of(model) > max(model.denoiser.token_shape[1], (table.null or 0) + 1):
        spare = labels_of(model) - 1
    if shown is not None and table.null in shown[:, 0].tolist():
        return Finding("null", f"label {table.null}, which samples have", "no class", "wrong", f"null={spare}")
    measured, good = f"{share:.2f} of the error of wrong labels", share < SHARE
    if not model.denoiser.null_trained:
        change = f"null={table.null}, for & and guidance" if good else ""
        return Finding("null", f"None; label {table.null} has {measured}", "", "note", change)
    return Finding("null", measured, f"below {SHARE}", "ok" if good else "wrong", "" if good else "null=None")


def _beta(gaps: Tensor) -> float:
    """Of posteriors softmax(-beta J), by what the R wrong answers are worse than the true one, (n, R)."""
    n, R = gaps.shape
    wrong = 1 / (n + 2)  # the share of wrong answers, by the rule of Laplace, so that no beta is infinite
    energies = torch.cat([torch.zeros_like(gaps[:, :1]), gaps], 1)
    target = torch.tensor([1 - wrong] + [wrong / R] * R, dtype=gaps.dtype)
    betas = torch.logspace(-3, 3, 121, dtype=gaps.dtype) / gaps.abs().mean()
    losses = [-(target * (-beta * energies).log_softmax(1)).sum() for beta in betas]
    return float(betas[int(torch.stack(losses).argmin())])
