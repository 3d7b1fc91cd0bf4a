"""Errors under the true, the wrong and the null conditions: whether the order of labels and the null are right.

Notation: variable -> symbol
    gaps    J_r - J of errors J = |eps - e|^2 under the true condition and J_r under another, r
    share   |u - e|^2 / |m - e|^2 of the null u, the true prediction e and the mean m of the predictions of all labels:
            a trained null, the best prediction without a label, has 1 at most; a label like any other has 2
"""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor

from energycomp.components import Condition
from energycomp.models import Model
from energycomp_adopt.checks.case import Case, Finding, Noised, mean_error, once, predict, square_sums
from energycomp_adopt.checks.modes import measure_mode
from energycomp_adopt.checks.near_misses import NearMiss, names_of, readopt

SCREEN = (0.5, 0.13, 0.035)  # SNR relative to the variance of the samples, at which labels differ
COLUMNS = 12  # labels of a network that are compared
LABELLED = 3.0  # standard errors by which wrong labels must be worse
LIKELY = 2.0  # and by which they are where the samples are too few to say more
SHARE = 1.4  # of a null
NEVER = 1e9  # the cost of a label that no class has


@attrs.frozen(eq=False)
class Table:
    """Errors (n, L, R) of n samples at L levels under R conditions, the true one first.

    Args:
        index: of the samples, (n,).
        shown: the network's labels, (n, R), or indices of conditions that are no classes.
        rival: which conditions are wrong answers, (n, R).
        shares: of the null that was said, and of the label that could be one, by name; see above.
    """

    index: Tensor
    errors: Tensor
    shown: Tensor
    rival: Tensor
    shares: dict[str, float]

    @property
    def gaps(self) -> Tensor:
        """By how much wrong answers are worse, (n, L, R); NaN for what is no wrong answer."""
        return (self.errors - self.errors[:, :, :1]).masked_fill(~self.rival[:, None], math.nan)

    @property
    def certainty(self) -> float:
        """How many standard errors wrong answers are worse by."""
        mean, stderr = mean_error((self.gaps.nanmean(2) / self.errors[:, :, 0].mean(0)).sum(1), self.index)
        return mean / max(stderr, 1e-9)

    @property
    def ignored(self) -> bool:
        """Whether no condition changes anything."""
        return float(self.gaps.nan_to_num().abs().max()) < 1e-5 * float(self.errors.mean())


def alternate(values: Tensor) -> Tensor:
    """The indices of values (N, *V), one of each value after another."""
    flat = values.reshape(len(values), -1)
    return (flat[:, None] == flat[None]).all(2).tril(-1).sum(1).argsort(stable=True)


def wide_model(case: Case) -> Model:
    """One that takes all labels of the network, also that of the null, as classes."""
    return readopt(case.model, classes=case.label_count, null=None)


def _others(true: Tensor, count: int) -> Tensor:
    """Chooses labels beside the true ones (n,), (n, R): all of few; of many the neighbours, and some in turn."""
    if count <= COLUMNS:
        every = torch.arange(count).expand(len(true), -1)
        return every[every != true[:, None]].view(len(true), -1)
    steps = [1, -1, *(step * count // COLUMNS for step in range(2, COLUMNS - 1))]
    return (true[:, None] + torch.tensor(steps)) % count


def predict_under(model: Model, noised: Noised, conditions: Condition, R: int) -> Tensor:
    """eps (M, R, ...) under R conditions of each of M rows, those of the first row first."""
    every = noised[torch.arange(len(noised.snr)).repeat_interleave(R)]
    return predict(model, every, conditions).unflatten(0, (-1, R))


def tabulate(case: Case, n: int, among: Tensor | None = None) -> Table:
    """Errors at the levels `SCREEN` of n samples, one of each value in turn; with `among` of these labels alone."""
    values: Tensor = case.values  # type: ignore[assignment] # it is called where they are known
    order = alternate(values)
    order = order if among is None else order[torch.isin(values[order], among)]
    index = order[torch.arange(n) % len(order)]
    noised = case.add_noise(index, SCREEN)
    L = len(SCREEN)
    if case.classes is not None:
        count = case.label_count
        model = wide_model(case)
        shown = torch.cat([values[index][:, None], _others(values[index], count)], 1)
        null = -1 if case.options.null is None else int(case.options.null)
        rival = (shown != shown[:, :1]) & (shown < case.classes)
        rival &= (shown != null) | bool((values == null).any())  # the null is no answer unless samples have it
        in_mean = (shown < case.classes).index_fill(1, torch.tensor(0), count <= COLUMNS)
        given = model.conditioner(shown.repeat(L, 1).flatten())
    else:
        model = case.model
        shown = torch.stack([index.roll(turn) for turn in range(min(5, n))], 1)
        rival = (values[shown] != values[shown[:, :1]]).reshape(*shown.shape, -1).any(2)
        in_mean = torch.ones_like(rival)
        given = model.conditioner(values[shown].repeat(L, *[1] * (values.ndim)).flatten(0, 1))
    R = shown.shape[1]
    eps = predict_under(model, noised, given, R)  # (L n, R, ...)
    # The share of each null: how far it is from the true prediction, beside the mean of all labels
    weights = (in_mean / in_mean.sum(1, keepdim=True)).repeat(L, 1)
    mean = torch.einsum("mr,mr...->m...", weights.to(eps), eps)
    of_mean = square_sums(mean - eps[:, 0]).sum().clamp(min=1e-12)
    nulls = _nulls(case, model, noised)
    shares = {name: float(square_sums(u - eps[:, 0]).sum() / of_mean) for name, u in nulls.items()}
    errors = square_sums((eps - noised.noise[:, None]).flatten(0, 1)).view(L, n, R).transpose(0, 1)
    return Table(index, errors, shown, rival, shares)


def _nulls(case: Case, wide: Model, noised: Noised) -> dict[str, Tensor]:
    """Predicts under the null, and under a label that is no class, by their names."""
    rows = len(noised.snr)
    nulls = dict[str, Tensor]()
    if case.model.denoiser.null_trained:
        u = Condition.unconditional(*case.model.denoiser.token_shape, rows=rows)
        nulls["null"] = predict(case.model, noised, u)
    spare = spare_label(case)
    if spare is not None:
        nulls[f"{spare}"] = predict(wide, noised, wide.conditioner(torch.full((rows,), spare)))
    return nulls


def spare_label(case: Case) -> int | None:
    """The label that may be a null: one that is no class, or without a null the last class if no sample has it."""
    if case.classes is None:
        return None
    values: Tensor = case.values  # type: ignore[assignment] # it is called where they are known
    last = case.label_count - 1
    null = case.options.null
    is_class = last < case.classes
    unused = null is None and not bool((values == last).any())
    return last if last != null and (unused or not is_class) else None


@once
def measure_table(case: Case) -> Table | None:
    """Of some samples; None where their conditions are not known, or predictions are not finite."""
    if case.values is None or measure_mode(case) == "not finite":
        return None
    count = min(case.label_count, COLUMNS) or 5
    n = max(count, case.evaluations // 60, min(case.evaluations // 10, 400 // case.numbers))
    table = tabulate(case, n)
    return table if table.ignored or table.certainty > LABELLED else tabulate(case, 3 * n)  # too few samples?


def find_doubtful(known: Table) -> Tensor:
    """The labels whose samples another label explains better, and those other labels."""
    gaps = (known.gaps / known.errors[:, :, 0].mean(0)[:, None]).mean(1).nan_to_num(math.inf)  # (n, R)
    best = gaps.min(1)
    own = known.shown[:, 0]
    other = known.shown.gather(1, best.indices[:, None])[:, 0]
    bad = torch.stack([best.values[own == one].mean() < 0 for one in own])
    return torch.cat([own[bad], other[bad]]).unique()


def propose_orders(case: Case) -> list[Tensor]:
    """Other labels of the network for the classes, each (C,): exchanges one by one, and all labels moved by one."""
    known = measure_table(case)
    classes = case.classes
    if known is None or classes is None or not len(wrong := find_doubtful(known)):
        return []
    count = case.label_count
    few = 2 * len(wrong) <= classes  # otherwise the samples of all
    n = max(len(wrong) * 6, case.evaluations // 50) if few else max(3 * classes, case.evaluations // 15)
    larger = tabulate(case, n, wrong if few else None)
    each = (larger.errors / larger.errors[:, :, 0].mean(0)[:, None]).mean(1)  # (n, R)
    same = torch.arange(classes)
    if count > COLUMNS:
        return [(same + (1, -1)[int(each[:, 1:3].mean(0).argmin())]) % count]

    from scipy.optimize import linear_sum_assignment

    by_label = each.gather(1, larger.shown.argsort(1))
    cost = 1 - torch.eye(classes, count, dtype=each.dtype)
    for one in larger.shown[:, 0].unique():
        cost[one] = by_label[larger.shown[:, 0] == one].mean(0)
    # The null explains samples better than most wrong labels: no class has it, unless all labels are moved
    null = case.options.null
    if null is not None and classes <= null < count:
        cost[:, int(null)] = NEVER
    moved = [same + 1] if classes < count else []
    return [*_exchanges(torch.as_tensor(linear_sum_assignment(cost)[1]), count), *moved]


def _exchanges(labels: Tensor, count: int) -> list[Tensor]:
    """Takes an order of labels (C,) apart: of labels that are exchanged among each other, one order each."""
    from scipy.sparse.csgraph import connected_components

    same = torch.arange(len(labels))
    graph = torch.zeros(count, count).index_put_((same, labels), torch.ones(len(labels)))
    part = torch.as_tensor(connected_components(graph.numpy(), connection="weak")[1])[: len(labels)]
    return [torch.where(part == one, labels, same) for one in part[labels != same].unique()]


def near_miss_of(case: Case, labels: Tensor) -> NearMiss:
    """The near miss of other labels (C,)."""
    classes = len(labels)
    names = names_of(case.model)
    changed = [(a, b) for a, b in enumerate(labels.tolist()) if a != b]
    steps = {(b - a) % classes for a, b in changed}
    moved = len(changed) == classes > 2
    said = [f"label {b} for {names[a]}" for a, b in changed[:6]] + ["..."] * (len(changed) > 6)
    instead = f"label + {min(steps)} for each" if moved and len(steps) == 1 else ", ".join(said)
    model = case.model if int(labels.max()) < classes else wide_model(case)
    return NearMiss("labels", "the order of the classes", instead, model, labels, change="the order of the labels")


def check_labels(case: Case) -> Finding | None:
    """Wrong conditions explain the samples worse."""
    known = measure_table(case)
    if known is None:
        return None
    measured = f"others are worse by {known.certainty:.1f} standard errors"
    expected = f"{LABELLED:g} or more"
    if known.certainty > LABELLED:
        return Finding("labels", measured, expected, "ok")
    if known.certainty > LIKELY:
        return Finding("labels", measured, expected, "unsure", "more samples")
    change = "the order of labels, or call=, which gives them to the network"
    return Finding("labels", measured, expected, "wrong", change)


def check_null(case: Case) -> Finding | None:
    """The null is one: no class that samples have, and as good as the mean of all labels, which it should excel."""
    known = measure_table(case)
    if known is None or known.ignored or not known.certainty > LABELLED:
        return None
    if case.options.kind == "conditions":  # what u of a composed model shows, its training says
        return None
    null = case.options.null
    shares = dict(known.shares)
    own = shares.pop("null", None)
    spare = next((label for label, share in shares.items() if share < SHARE), None)
    if own is None:
        label, share = next(iter(shares.items()), ("", 0.0))
        is_class = label != "" and case.classes is not None and int(label) < case.classes
        if not label or (is_class and share >= SHARE):
            return None
        among = f"classes={label}, " if is_class else ""
        change = f"{among}null={label}, for & and guidance" if share < SHARE else ""
        return Finding("null", f"None; label {label} has {share:.2f} of the error of a mean", "", "note", change)
    if case.classes is not None and bool((case.values == null).any()):
        return Finding("null", f"label {null}, which samples have", "no class", "wrong", f"null={spare}")
    measured = f"{own:.2f} of the error of the mean of all labels"
    expected = f"below {SHARE}; a label like others has 2"
    if own < SHARE:
        return Finding("null", measured, expected, "ok")
    return Finding("null", measured, expected, "wrong", f"null={spare}")
