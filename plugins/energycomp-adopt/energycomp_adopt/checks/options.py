"""Which other option, if any, explains the samples: what is better is tried on more and more rows, and then checked."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from energycomp.errors import EnergycompError
from energycomp.models import Model
from energycomp_adopt.checks.case import LEVELS, Case, Finding, Noised, mean_error, once, predict, square_sums
from energycomp_adopt.checks.labels import measure_table, near_miss_of, propose_orders
from energycomp_adopt.checks.modes import measure_mode
from energycomp_adopt.checks.near_misses import NearMiss, moves, near_misses
from energycomp_adopt.checks.regression import measure_regression
from energycomp_adopt.checks.samples import measure_samples

BETTER = 0.01  # what another option lowers the errors by at least
SURE, GENERAL = 4.0, 2.0  # the standard errors of that: by the noise on these samples, and by which samples these are
TAILS = 1.0  # in place of `GENERAL`, of another processor of numbers: few samples in the tails make most of the errors
FEW = 4  # of n samples whose labels are others, `GENERAL` is multiplied by 1 + FEW / n: their deviation is uncertain
FINE = (300.0, 100.0, 30.0)  # SNR of rows that show by how few timesteps the time of a network is moved
CLOSE = 0.05  # by how much an option may be worse on a few rows to be tried on more, where another one may be right
EQUAL = 0.003  # of the errors, in log: values of one option that differ by less cannot be distinguished
SAME = 1e-4  # of the errors: options whose predictions differ by less are one model, said in two ways
ROUNDS = ((1 / 25, 12), (1 / 8, 5), (0.5, 3))  # shares of the rows, and how many options go on to the next
UNKNOWN = "data, weights or call=, or several options at once"
FAILED = 1e9  # error of an option with which the network cannot be called


@attrs.frozen(eq=False)
class Others:
    """What other options do."""

    tried: bool  # not where something else must be right first
    better: tuple[NearMiss, ...] = ()  # those that lower the errors, the best first
    cures: tuple[NearMiss, ...] = ()  # the first with which nothing is wrong, and others that cannot be told from it

    @property
    def cure(self) -> NearMiss | None:
        """The option that is right, if it is known which."""
        return self.cures[0] if len(self.cures) == 1 else None


def with_near_miss(case: Case, other: NearMiss | None) -> Case:
    """The case as it would be: the same noise on samples as they should be, with their labels, of another model."""
    if other is None:
        return case
    changed = copy.copy(case)
    changed.model = other.model
    changed.measured = {}
    changed.rows = _rows(case, other, case.rows)
    if other.samples is not None:
        changed.samples = other.samples
        changed.seen = {}
    if case.values is not None and other.labels is not None:
        changed.values = other.labels[case.values]
    return changed


def _rows(case: Case, other: NearMiss, rows: Noised) -> Noised:
    if other.samples is None:
        return rows
    scale = case.samples.var() / other.samples.var()
    return attrs.evolve(rows, clean=other.samples[rows.index], snr=rows.snr * scale)


def _predictions(case: Case, other: NearMiss | None, rows: Tensor) -> Tensor | None:
    """Predicts the eps of another option, or as adopted, (L M, ...); None where the network cannot be called so."""
    noised = case.rows[rows]
    try:
        if other is None:
            return predict(case.model, noised, case.condition(noised.index))
        given = case.condition(noised.index, other.model, other.labels)
        return predict(other.model, _rows(case, other, noised), given)
    except EnergycompError:
        return None


def _errors(case: Case, other: NearMiss | None, rows: Tensor) -> Tensor:
    """Measures the errors |eps - e|^2 of another option, or as adopted, (L, M)."""
    eps = _predictions(case, other, rows)
    if eps is None:
        return torch.full((len(LEVELS), len(rows) // len(LEVELS)), FAILED, dtype=torch.float64)
    return square_sums(eps - case.rows[rows].noise).view(len(LEVELS), -1)


def _forgiven(case: Case, other: NearMiss, rows: Tensor) -> Tensor:
    """Measures the least errors |eps - s e|^2 of another option with slopes s of 1 at most, a mean at each level."""
    predictions = _predictions(case, other, rows)
    if predictions is None:
        return torch.full((len(LEVELS),), FAILED, dtype=torch.float64)
    eps, e = (one.double().flatten(1).view(len(LEVELS), -1) for one in (case.rows[rows].noise, predictions))
    # Of an overfitted network slopes are below 1 on samples that it did not see, but not at the noisiest level
    slope = (eps * e).sum(1) / e.square().sum(1).clamp(min=1e-12)
    slope = slope.clamp(0.0, 1.0).index_fill(0, torch.tensor(len(LEVELS) - 1), 1.0)
    return (eps - slope[:, None] * e).square().sum(1).nan_to_num(FAILED, FAILED) * len(LEVELS) / len(rows)


def _compare(errors: Tensor, base: Tensor, index: Tensor, general: float = GENERAL) -> tuple[float, bool]:
    """The log of the ratio of mean errors (L, M) of the samples `index` (L M,), and whether they are surely lower."""
    level = base.mean(1, keepdim=True)
    lower = float((errors.mean(1) / level[:, 0]).log().mean())
    each = ((base - errors) / level).flatten()
    mean, of_samples = mean_error(each, index)
    of_noise = float(each.std()) / math.sqrt(len(each))
    return lower, lower < -BETTER and mean > SURE * of_noise and mean > general * of_samples


Better = list[tuple[float, NearMiss]]  # by how much the errors of all rows are lower, in log


def better_options(case: Case, others: Sequence[NearMiss], close: float = math.inf) -> Better:
    """Those that surely lower the errors: of all on a few rows, of some on half of them, of few on all."""
    processors = [one for one in others if one.option == "processor"]  # a few rows do not show the tails of numbers
    some = [one for one in others if one.option != "processor"]
    for share, kept in ROUNDS:
        rows = case.part(share)
        base = _errors(case, None, rows)
        ranked = [(_compare(_errors(case, one, rows), base, case.rows.index[rows])[0], one) for one in some]
        some = [one for lower, one in sorted(ranked, key=_place)[:kept] if lower < close]
        close = min(close, 0.0)
    every = case.part(1.0)
    last = [(_compare_on(case, one, every), one) for one in (*some, *processors)]
    return [(lower, one) for (lower, sure), one in last if sure]


def _place(better: tuple[float, NearMiss]) -> float:
    """Rounds, so that of equal options the first remains the first, an option before a call."""
    return round(better[0], 3)


def _compare_on(case: Case, other: NearMiss, rows: Tensor, general: float = GENERAL) -> tuple[float, bool]:
    general = TAILS if other.option == "processor" else general
    return _compare(_errors(case, other, rows), _errors(case, None, rows), case.rows.index[rows], general)


def is_possible(case: Case) -> bool:
    """Whether slopes are 1, or what is drawn is like the data, and as much is explained as by a linear predictor."""
    found = measure_regression(case)
    return found.explains and (found.straight or measure_samples(case).right)


def _is_best(case: Case) -> bool:
    """Whether a little more or less of anything is not better."""
    return not better_options(case, [*near_misses(case, far=False)], CLOSE)


def _fits_labels(case: Case) -> bool:
    """Whether wrong conditions explain the samples worse, if any are known: no option makes up for wrong labels."""
    known = measure_table(case)
    return known is None or known.certainty > 0


def better_orders(case: Case) -> Better:
    """Orders of labels that surely lower the errors of the samples whose label is another one."""
    others = propose_orders(case)
    sure = [labels for labels in others if _is_better_order(case, labels, GENERAL)]
    if not sure:
        return []
    same = torch.arange(len(sure[0]))
    # Exchanges of some labels are one order together, also less sure ones where most of them are sure
    exchanged = (torch.stack(others) != same).sum(1)
    if 2 * sum(int((labels != same).sum()) for labels in sure) >= int(exchanged[exchanged < len(same)].sum()):
        sure = [labels for labels in others if _is_better_order(case, labels, TAILS)]
    better = [labels for labels in sure if bool((labels != same).all())]
    some = [labels for labels in sure if bool((labels == same).any())]
    if some:
        better.append(same + (torch.stack(some) - same).sum(0))
    misses = [near_miss_of(case, labels) for labels in better]
    return [(_compare_on(case, one, case.part(1.0))[0], one) for one in misses]


def _is_better_order(case: Case, labels: Tensor, general: float) -> bool:
    """Whether other labels (C,) surely lower the errors of the samples whose label is another one."""
    values: Tensor = case.values  # type: ignore[assignment] # they are known where orders are
    rows = case.part(1.0).view(len(LEVELS), -1)
    of = case.rows.index[rows[0]]
    some = (labels != torch.arange(len(labels)))[values[of]]
    general *= 1 + FEW / max(1, len(of[some].unique()))
    return bool(some.any()) and _compare_on(case, near_miss_of(case, labels), rows[:, some].flatten(), general)[1]


def better_moves(case: Case) -> Better:
    """Times that are moved, on rows with so little noise that a few timesteps make a difference."""
    noised = case.add_noise(torch.arange(max(16, case.evaluations // 10)) % len(case.samples), FINE)

    def errors(model: Model) -> Tensor:
        eps = predict(model, noised, case.condition(noised.index, model))
        return square_sums(eps - noised.noise).view(len(FINE), -1)

    base = errors(case.model)
    compared = [(_compare(errors(one.model), base, noised.index), one) for one in moves(case)]
    return [(lower, one) for (lower, sure), one in compared if sure and not _is_worse(case, one)]


def _is_worse(case: Case, other: NearMiss) -> bool:
    """Whether an option raises the errors of all rows: a time that was moved is wrong at every level of noise.

    A network that was trained too little may predict small noise better at another time, and only there.
    """
    rows = case.part(1.0)
    base = _errors(case, None, rows)
    each = ((_errors(case, other, rows) - base) / base.mean(1, keepdim=True)).flatten()
    higher, of_samples = mean_error(each, case.rows.index[rows])
    return higher > of_samples


@once
def try_others(case: Case) -> Others:
    """All other options, and those that differ in much only where something is wrong."""
    known = measure_table(case)
    if measure_mode(case) == "random" or (known is not None and known.ignored):
        return Others(tried=False)
    good = measure_regression(case).explains and measure_regression(case).straight
    better = better_options(case, [*near_misses(case, far=not good)], CLOSE if good else math.inf)
    if not better and good:
        better = better_moves(case)
    elif good:
        better = better_options(case, [*near_misses(case, far=True)])
    ranked = sorted([*better, *better_orders(case)], key=_place)
    return Others(tried=True, better=tuple(one for _, one in ranked), cures=_cures(case, ranked))


def _cures(case: Case, ranked: Better) -> tuple[NearMiss, ...]:
    """Finds the best option with which nothing else is wrong, and all that cannot be told from it by these samples."""
    first: NearMiss | None = None
    for _, one in ranked:
        changed = with_near_miss(case, one)
        if is_possible(changed) and _is_best(changed) and _fits_labels(changed):
            first = one
            break
    if first is None:
        return ()
    # An option of `adopt` is a shorter way to say what a `call=` does
    same = [one for _, one in ranked if not one.by_call and _is_same(case, first, one)]
    if first.by_call and same:
        first = same[0]
    cures = [first]
    for one in _rivals(case, first, [one for _, one in ranked if one.labels is not None]):
        if any(_is_same(case, cure, one) for cure in cures):
            continue
        changed = with_near_miss(case, one)
        # A linear predictor may explain more than an overfitted network
        if (is_possible(changed) or measure_samples(changed).right) and _is_best(changed):
            cures.append(one)
    return tuple(cures)


def _rivals(case: Case, first: NearMiss, labels: Sequence[NearMiss]) -> list[NearMiss]:
    """Finds those that explain no less than the first, or would on the samples of the training; `labels` are orders."""
    # They may be worse here: the predictions of an overfitted network are best where an option makes them smaller
    some = [(0.0, one) for one in (*labels, *near_misses(case, far=True))]
    for share, kept in (*ROUNDS, (1.0, ROUNDS[-1][1])):
        rows = case.part(share)
        least = _errors(case, first, rows).mean(1)
        behind = [(float((_forgiven(case, one, rows) / least).log().mean()), one) for _, one in some]
        some = [pair for pair in sorted(behind, key=_place) if pair[0] < CLOSE][:kept]
    return [one for behind, one in some if behind < (EQUAL if one.option == first.option else BETTER)]


def _is_same(case: Case, one: NearMiss, other: NearMiss) -> bool:
    """Whether two values of an option make the same predictions, such as a clock and a `call=` with its time."""
    if one.option != other.option:
        return False
    rows = case.part(ROUNDS[0][0])
    first = _predictions(case, one, rows)
    second = _predictions(case, other, rows)
    if first is None or second is None:
        return False
    return float(square_sums(first - second).sum()) < SAME * float(_errors(case, one, rows).sum())


def check_options(case: Case) -> Finding:
    """No other option explains the samples better."""
    others = try_others(case)
    what = "other options"
    if not others.tried:
        return Finding(what, "not tried", "what is wrong here first", "note")
    if others.cure is not None:
        return Finding(what, f"{others.cure}", "none", "wrong", others.cure.change)
    if others.cures:
        named = " or ".join(dict.fromkeys(one.option for one in others.cures))
        change = f"{named}: samples of the training, or more of them, may show which"
        return Finding(what, "; or ".join(map(str, others.cures)), "none", "wrong", change)
    if others.better or not is_possible(case):
        return Finding(what, "none of them is right", "none is better", "wrong", UNKNOWN)
    return Finding(what, "none is better", "none", "ok")


@once
def cure(case: Case) -> Case:
    """The case with the other option; as it is where none is right."""
    return with_near_miss(case, try_others(case).cure)
