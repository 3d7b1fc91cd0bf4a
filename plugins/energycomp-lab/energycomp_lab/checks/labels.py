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
from torch import Tensor

from energycomp.components import Condition, timestep_of
from energycomp.models import Model
from energycomp_lab.checks.near_misses import Finding, NearMiss, Noised, errors, labels_of, remade

WINDOW = (30.0, 8.0, 2.0, 0.5, 0.13, 0.035, 0.01)  # SNR relative to the variance of the samples
LABELS = WINDOW[3:6]  # among which the order of labels is sought
COLUMNS, RIVALS = 12, 2  # labels of a network that are compared, and the wrong ones of them that are at all levels
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
        share: of the null; None where there is none.
    """

    snr: Tensor
    errors: Tensor
    shown: Tensor | None
    rival: Tensor
    null: int | None
    share: float | None

    @property
    def gaps(self) -> Tensor:
        """By how much wrong answers are worse, (n, L, R); NaN for what is no wrong answer."""
        return (self.errors - self.errors[:, :, :1]).masked_fill(~self.rival[:, None], math.nan)

    @property
    def certainty(self) -> float:
        """How many standard errors wrong answers are worse by."""
        each = (self.gaps.nanmean(2) / self.errors[:, :, 0].mean(0)).sum(1)
        return float(each.mean() / each.std().clamp(min=1e-9)) * math.sqrt(len(each))

    @property
    def ignored(self) -> bool:
        """Whether no condition changes anything."""
        return float(self.gaps.nan_to_num().abs().max()) < 1e-5 * float(self.errors.mean())


def table_of(
    model: Model,
    noised_of: Callable[..., Noised],
    values: Tensor,
    n: int,
    null: Any,
    labels: Tensor | None = None,
    levels: tuple[float, ...] = WINDOW,
    rivals: int = RIVALS,
    among: Tensor | None = None,
) -> Table:
    """The errors of n samples, of each value in turn, under the true, the null and wrong conditions, at all levels.

    Of more wrong labels those are taken that are best at `LABELS`, where all are compared.

    Args:
        noised_of: as `Noised` are drawn of samples (n,) at levels.
        n: more where there are more classes, up to `COLUMNS`.
        null: of the adoption.
        labels: the network's label of each class, (C,); those that were said when left out.
        levels: SNR relative to the variance of the samples.
        rivals: how many conditions of a sample are wrong.
        among: the only values whose samples are taken, n of each.
    """

    def compared(given: Tensor, levels: tuple[float, ...]) -> tuple[Noised, Tensor]:
        noised = noised_of(index, levels)
        every = noised[torch.arange(len(noised.snr)).repeat_interleave(given.shape[1])]
        found = errors(wide, every, wide.conditioner(torch.cat([given.flatten(0, 1)] * len(levels))))
        return noised, found.view(len(levels), n, -1).transpose(0, 1)

    adapter: Any = model.denoiser.network
    classes, L = adapter.options["kind"] == "classes", len(levels)
    count = labels_of(model) if classes else 5
    order, n = in_turn(values), max(n, min(count, COLUMNS)) if among is None else n * len(among)
    order = order if among is None else order[torch.isin(values[order], among)]
    index = order[torch.arange(n) % len(order)]
    shown, share, wide = None, None, model
    if classes:
        wide = remade(model, classes=count, null=None)
        labels = torch.arange(model.denoiser.token_shape[1]) if labels is None else labels
        true, spare = labels[values[index]], count - 1 if count > len(labels) else None
        null = spare if null is None else int(null)
        given = torch.cat([true[:, None], _others(true, count, null)], 1)
        kept = 1 + (null is not None) + rivals
        if len(LABELS) * given.shape[1] + L * kept < L * given.shape[1]:
            _, screen = compared(given, LABELS)
            rival = _wrong(given, labels, null)
            share = None if null is None else _share(screen, given, rival, null)
            best = screen.sum(1) if null is None else screen.sum(1).masked_fill(given == null, -1.0)
            given = given.gather(1, best.index_fill(1, torch.tensor(0), -2.0).argsort(1)[:, :kept])
        shown, rival = given, _wrong(given, labels, null)
    else:
        given = torch.stack([values[index.roll(turn)] for turn in range(count)], 1)
        rival = (given != given[:, :1]).flatten(2).any(2)
    noised, found = compared(given, levels)
    if shown is not None and null is not None and share is None:
        share = _share(found, shown, rival, null)
    elif shown is None and null is not None:
        u = Condition.unconditional(*model.denoiser.token_shape, rows=L * n)
        own, mean = found[:, :, 0], _mean_gap(found, rival)
        share = float((errors(model, noised, u).view(L, n).T - own).sum() / mean.sum())
    return Table(noised.snr[::n], found, shown, rival, null if classes else None, share)


def _wrong(given: Tensor, labels: Tensor, null: int | None) -> Tensor:
    """Which labels (n, R) are wrong answers to the first of each row; the null is none unless samples have it."""
    wrong = torch.isin(given, labels) & (given != given[:, :1])
    return wrong & (given != null) if null is not None and not bool((given[:, 0] == null).any()) else wrong


def _mean_gap(errors: Tensor, rival: Tensor) -> Tensor:
    return (errors - errors[:, :, :1]).masked_fill(~rival[:, None], math.nan).nanmean(2)


def _share(errors: Tensor, given: Tensor, rival: Tensor, null: int) -> float:
    """Of the null among labels (n, R), by errors (n, L, R)."""
    of_null = errors[torch.arange(len(errors)), :, (given == null).long().argmax(1)]
    of = given[:, 0] != null
    return float((of_null - errors[:, :, 0])[of].sum() / _mean_gap(errors, rival)[of].sum())


def _others(true: Tensor, count: int, null: int | None) -> Tensor:
    """Labels beside the true ones (n,), (n, R): all of few; of many the neighbours, the null, and some in turn."""
    if count <= COLUMNS:
        every = torch.arange(count).expand(len(true), -1)
        return every[every != true[:, None]].view(len(true), -1)
    fixed = [true + 1, true - 1, torch.full_like(true, count - 1 if null is None else null)]
    return torch.stack([*fixed, *(true + step * count // COLUMNS for step in range(2, COLUMNS - 2))], 1) % count


def doubtful(table: Table) -> Tensor:
    """The labels whose samples another label explains better, and those other labels."""
    if table.shown is None:
        return torch.empty(0, dtype=torch.long)
    gaps, best = (table.gaps / table.errors[:, :, 0].mean(0)[:, None]).mean(1).nan_to_num(math.inf).min(1)  # (n,)
    own, other = table.shown[:, 0], table.shown.gather(1, best[:, None])[:, 0]
    bad = torch.stack([gaps[own == one].mean() < 0 for one in own])
    return torch.cat([own[bad], other[bad]]).unique()


def in_turn(values: Tensor) -> Tensor:
    """The indices of values (N, *V), one of each value after another."""
    flat = values.reshape(len(values), -1)
    return (flat[:, None] == flat[None]).all(2).tril(-1).sum(1).argsort(stable=True)


def relabelled(model: Model, table: Table) -> list[NearMiss]:
    """The labels that explain the samples of each class best; of many labels, those that are moved by one.

    The table is one of all labels, or of the neighbours of many.
    """
    if table.shown is None:
        return []
    each = (table.errors / table.errors[:, :, 0].mean(0)[:, None]).mean(1)  # (n, R)
    classes, count = model.denoiser.token_shape[1], labels_of(model)
    labels = torch.arange(classes)
    if count <= COLUMNS:
        from scipy.optimize import linear_sum_assignment

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
    gaps, sure = table.gaps, table.certainty
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
        values["beta"] = _beta(margins(low, high)[table.rival].view(len(gaps), -1))
    found = [Finding(*said, "ok")]
    if table.share is not None:
        found.append(_null(model, table, table.share))
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
    """Of posteriors softmax(-beta J), by what the R best of the others are worse than the true one, (n, R)."""
    n, R = gaps.shape
    wrong = 1 / (n + 2)  # the share of wrong answers, by the rule of Laplace, so that no beta is infinite
    energies = torch.cat([torch.zeros_like(gaps[:, :1]), gaps], 1)
    target = torch.tensor([1 - wrong] + [wrong / R] * R, dtype=gaps.dtype)
    betas = torch.logspace(-3, 3, 121, dtype=gaps.dtype) / gaps.abs().mean()
    losses = [-(target * (-beta * energies).log_softmax(1)).sum() for beta in betas]
    return float(betas[int(torch.stack(losses).argmin())])
