"""Whether a network was adopted as it was trained: the noise that it predicts is compared with the true noise.

Notation: variable -> symbol
    slope       <eps, e> / <e, e> of predictions e, which is 1 of a posterior mean E[eps | x_t]
    explained   1 - |eps - e|^2 / |eps|^2
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp import Composer
from energycomp.components import Condition, groups_of, values_of
from energycomp.errors import EnergycompError, InputError
from energycomp.images import as_text, rich_table
from energycomp.inference import FIT_DRAWS, make_problem
from energycomp.models import Model, log_errors
from energycomp_lab.checks.labels import (
    COLUMNS,
    LABELLED,
    LABELS,
    Table,
    doubtful,
    in_turn,
    reading,
    relabelled,
    table_of,
)
from energycomp_lab.checks.near_misses import (
    Calls,
    Finding,
    NearMiss,
    Noised,
    counted,
    errors,
    near_misses,
    predicted,
    score,
)
from energycomp_lab.evaluation.calibrate import calibration_of

LEVELS = (4.0, 0.5, 0.05)  # SNR of the regression, relative to the variance of the samples
SLOPE, LINEAR = 0.05, 0.02  # how far a slope may be from 1, and how much less than a linear predictor may be explained
BETTER, SURE = 0.03, 4.0  # what another option lowers the errors by at least, and the standard errors of that
CLOSE = 0.1  # by how much an option may be worse on a few samples to be tried on all
FAR = 3.0  # times the range of the data, or the distance to the nearest of them
RANDOM = "random in eval mode"
STEPS, DRAWN = 20, 4  # of samples that are drawn


@attrs.frozen(eq=False, repr=False)
class Adoption:
    """What `check_adoption` found, a table where it is printed.

    Args:
        findings: one for each thing that was checked.
        near_miss: the option that explains the samples better; None where none does.
        model: what was checked, or the near miss of another option, with the timesteps, draws and beta that are
            proposed for reading.
        evaluations: of the network, which the check cost.
    """

    findings: tuple[Finding, ...]
    near_miss: NearMiss | None
    model: Model
    evaluations: int

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return all(one.verdict != "wrong" for one in self.findings)

    def __str__(self) -> str:
        columns = ["what", "measured", "expected", "verdict", "what to change"]
        return as_text(rich_table(columns, map(attrs.astuple, self.findings)))

    __repr__ = __str__


@attrs.frozen(eq=False)
class _Case:
    """Encoded samples (N, ...) with their values (N, *V), where these are known, and random numbers."""

    samples: Tensor
    values: Tensor | None
    generator: torch.Generator

    def noised(self, index: Tensor, levels: tuple[float, ...]) -> Noised:
        """Samples (n,) under one noise each, at L levels: L n rows, level by level."""
        noise = torch.randn(len(index), *self.samples.shape[1:], generator=self.generator)
        snr = torch.tensor(levels).repeat_interleave(len(index)) / self.samples.var().clamp(min=1e-9)
        every = torch.arange(len(index)).repeat(len(levels))
        return Noised(index[every], self.samples[index[every]], noise[every], snr)

    def condition(self, model: Model, index: Tensor, labels: Tensor | None = None) -> Condition:
        """Of the samples' values, or of the network's labels of these classes; the null where none is known."""
        if self.values is None:
            return Condition.unconditional(*model.denoiser.token_shape, rows=len(index))
        values = self.values[index]
        return model.conditioner(values if labels is None else labels[values])


def check_adoption(
    model: Model, samples: Any, labels: Any = None, *, evaluations: int = 600, typicality: bool = False, seed: int = 0
) -> Adoption:
    """Finds out whether what `adopt` was told of a network is true, and otherwise what would be.

    Noise is added to clean samples. If all is right, the slope of the noise on the network's prediction is 1 at every
    level, a linear predictor explains no more of it, and no other option of `adopt` lowers the error. That labels are
    read correctly proves less: they often are under a wrong schedule.

    Args:
        model: of `energycomp.adopt`.
        samples: clean ones that are like those of its training, 8 at least and better 64, as `infer` takes them.
        labels: what the model is called with for each sample. They check their order and the null, and propose the
            timesteps for reading; needed without a null.
        evaluations: of the network, about, where all is right; it costs several times as many where something is wrong.
        typicality: whether to calibrate the model that is proposed, if nothing is wrong, by the errors that held-out
            samples leave under their labels: 16 evaluations of each.
        seed: of the noise.

    Raises:
        InputError: a model that was not adopted, fewer than 8 samples, or labels that are missing or do not fit.

    >>> import energycomp
    >>> class Zero(torch.nn.Module):  # predicts that the data are 0
    ...     def forward(self, x, t):
    ...         return 0 * x
    >>> model = energycomp.adopt(Zero(), shape=(2,), predicts="x0", data_range=None)
    >>> check_adoption(model, 5 + torch.randn(16, 2)).ok
    False
    """
    case = _case_of(model, samples, labels, seed)
    adapter: Any = model.denoiser.network
    network, modes = adapter.network, {part: part.training for part in adapter.modules()}
    try:
        with counted(network) as spent:
            findings, best, proposed = _checked(model, case, evaluations, spent)
            if typicality and all(one.verdict != "wrong" for one in findings):
                proposed = _calibrated(proposed, case)
    finally:
        for part, training in modes.items():
            part.training = training
    return Adoption(tuple(findings), best, proposed, spent.evaluations)


def _case_of(model: Model, samples: Any, labels: Any, seed: int) -> _Case:
    if model.network_name != "adopted":
        raise InputError(f"got {model.name}, which was not adopted; expected a model of `adopt`; use check_model")
    options: Any = model.denoiser.network.options
    given = [samples] if isinstance(samples, Tensor) else samples
    encoded = torch.cat([model.encode(model.given(one)) for one in given]).cpu()
    if len(encoded) < 8:
        raise InputError(f"got {len(encoded)} samples; expected 8 at least, better 64; give more")
    if options["kind"] == "none" or (labels is None and model.denoiser.null_trained):
        values = None
    elif labels is None:
        raise InputError("got no labels for a model without a null; expected one for each sample; give labels=")
    else:
        values = values_of(model.conditioner, labels, name="labels")
        if len(values) != len(encoded):
            raise InputError(f"got {len(values)} labels for {len(encoded)} samples; expected one each; correct them")
    return _Case(encoded, values, torch.Generator().manual_seed(seed))


def _checked(model: Model, case: _Case, evaluations: int, calls: Calls) -> tuple[list[Finding], NearMiss | None, Model]:
    """The findings, the better option, and the model with what is proposed for reading."""
    adapter: Any = model.denoiser.network
    null = adapter.options["null"]

    def table(right: Model, n: int, **given: Any) -> Table | None:
        return None if case.values is None else table_of(right, case.noised, case.values, n, null, **given)

    n, first = max(16, evaluations // 10), max(4, evaluations // 150)
    noised = case.noised(torch.arange(n) % len(case.samples), LEVELS)
    parts = [
        part.flatten()
        for part in torch.arange(len(LEVELS) * n).view(-1, n).split([first, n // 2 - first, n - n // 2], 1)
    ]
    findings, proposed = [_mode(model, noised[:4], case.condition(model, noised[:4].index))], model
    calls.known = None if findings[0].measured == RANDOM else {}
    findings.append(_data(model, case.samples))
    regression = _regression(model, case, noised, parts[:2])  # on half of the samples, if that is enough
    good = all(one.verdict == "ok" for one in regression)
    findings += regression if good else _regression(model, case, noised, parts)
    known, best = table(model, evaluations // 60), None
    if calls.known is None or (known is not None and known.ignored):
        findings.append(Finding("other options", "not tried", "what is wrong here first", "note"))
    else:
        others = list[NearMiss]()
        if known is not None and len(wrong := doubtful(known)):
            few = 2 * len(wrong) <= model.denoiser.token_shape[1]  # otherwise the samples of all
            given: dict[str, Any] = {"among": wrong} if few else {}
            larger = table(model, evaluations // (150 if few else 12), levels=LABELS, rivals=COLUMNS, **given)
            others = [] if larger is None else relabelled(model, larger)
        best = _best(model, case, others, noised, parts, CLOSE if good else math.inf)
        verdict = ("none is better", "none", "ok") if best is None else (f"{best}", "none", "wrong", f"{best.option}")
        findings.append(Finding("other options", *verdict))
    if best is not None:
        known = table(best.model, evaluations // 60, labels=best.labels)
        known_by = attrs.evolve(model.defaults, timesteps=best.model.defaults.timesteps)
        proposed = model if best.labels is not None else attrs.evolve(best.model, defaults=known_by)
    if known is not None and not known.ignored and not known.certainty > LABELLED:  # too few samples?
        right, order = (model, None) if best is None else (best.model, best.labels)
        known = table(right, evaluations // 20, labels=order)
    if known is not None:
        found, proposed = reading(proposed, known)
        findings += found
    return [*findings, *([_drawn(model, case)] if best is None else [])], best, proposed


def _mode(model: Model, noised: Noised, condition: Condition) -> Finding:
    """Whether predictions repeat. The network is in eval mode afterwards."""
    training = any(part.training for part in model.denoiser.network.modules())
    first = predicted(model, noised, condition) if training else None
    model.denoiser.network.eval()
    second, third = (predicted(model, noised, condition) for _ in range(2))
    if not torch.allclose(second, third, 1e-3, 1e-4):
        measured, change = RANDOM, "switch dropout off in call="
    elif first is not None and not torch.allclose(first, second, 1e-3, 1e-4):
        measured, change = "train mode", "network.eval()"
    else:
        return Finding("mode", "repeats", "a prediction repeats", "ok")
    return Finding("mode", measured, "a prediction repeats", "wrong", change)


def _data(model: Model, samples: Tensor) -> Finding:
    low, high = float(samples.min()), float(samples.max())
    bounded: Any = model.denoiser.value_range is not None
    inside = not bounded or max(-low, high) < 1.02
    change = "" if inside else "scale the samples to [-1, 1], or data_range=None"
    expected = "-1 to 1" if bounded else ""
    return Finding("samples", f"{low:.3g} to {high:.3g}", expected, "ok" if inside else "wrong", change)


def _regression(model: Model, case: _Case, noised: Noised, parts: Sequence[Tensor]) -> list[Finding]:
    """The slope of the noise on the prediction, and what it explains beside a linear predictor, on some rows."""
    found, rows = torch.zeros_like(noised.noise), torch.cat([*parts]).sort().values
    for part in parts:
        found[part] = predicted(model, noised[part], case.condition(model, noised.index[part]))
    noised, found = noised[rows], found[rows]
    values = (noised.noise, found, _linear(case.samples.double().flatten(1), noised))
    eps, e, linear = (each.double().reshape(len(LEVELS), -1, noised.noise[0].numel()) for each in values)
    dot, square = (eps * e).sum(2), e.square().sum(2)  # (L, M)
    total = square.sum(1).clamp(min=1e-12)
    slope = dot.sum(1) / total
    stderr = (dot - slope[:, None] * square).square().sum(1).sqrt() / total
    own, other, all_ = ((eps - one).square().sum(2) for one in (e, linear, torch.zeros_like(eps)))
    worse = (own - other).sum(1) - LINEAR * all_.sum(1) - 3 * (own - other).square().sum(1).sqrt()
    straight, good = bool(((slope - 1).abs() < SLOPE + 3 * stderr).all()), bool((worse < 0).all())  # NaN is not
    shares = [1 - one.sum(1) / all_.sum(1) for one in (own, other)]
    at, explained = ", ".join(f"{level:g}" for level in LEVELS), [_numbers(share) for share in shares]
    change = "" if straight and good else "the options below, two at once, or the training: too little, or too few data"
    verdict = "ok" if straight else "unsure" if good else "wrong"  # a network that knows its training data alone
    expected = f"{explained[1]} of a linear predictor"
    return [
        Finding("slope", _numbers(slope), f"1 at SNR {at}", verdict, "" if straight else change),
        Finding("explained", explained[0], expected, "ok" if good else "wrong", "" if good else change),
    ]


def _numbers(values: Tensor) -> str:
    return ", ".join(f"{value:.2f}" for value in values.tolist())


def _linear(flat: Tensor, noised: Noised) -> Tensor:
    """eps (R, D) of a Gaussian with the mean and the shrunk covariance of the other half of the samples (N, D)."""
    half, x = len(flat) // 2, noised.sample.double().flatten(1)
    signal, noise = (level.double().flatten(1) for level in noised.levels)
    found = torch.zeros_like(x)
    for mine, other in ((noised.index < half, flat[half:]), (noised.index >= half, flat[:half])):
        mean = other.mean(0)
        _, values, axes = torch.linalg.svd(other - mean, full_matrices=False)
        known = values.square() / len(other)
        rest = 0.2 * known.sum() / flat.shape[1] + 1e-9  # the variance of all axes, beside 0.8 of the known ones
        s, n, off = signal[mine], noise[mine], x[mine] - signal[mine] * mean
        plain, along = 1 / (s**2 * rest + n**2), 1 / (s**2 * (0.8 * known + rest) + n**2)
        found[mine] = n * (plain * off + ((along - plain) * (off @ axes.T)) @ axes)
    return found


def _best(
    model: Model, case: _Case, others: list[NearMiss], noised: Noised, parts: Sequence[Tensor], close: float
) -> NearMiss | None:
    """What lowers the errors most of `others` and the two near misses that do so on the first part, or come close."""

    def of(other: NearMiss, rows: Tensor) -> Tensor:
        chosen = noised[rows]
        given = case.condition(other.model, chosen.index, other.labels)
        if other.rescaled is not None:  # to a variance of 1
            chosen = attrs.evolve(chosen, clean=other.rescaled(chosen.clean), snr=chosen.snr * case.samples.var())
        return errors(other.model, chosen, given).view(len(LEVELS), -1)

    own = NearMiss("", "", "", model)
    base = of(own, parts[0])
    misses = [
        (score(of(one, parts[0]), base)[0], one) for one in near_misses(model, case.samples, null=case.values is None)
    ]
    ranked = sorted(misses, key=lambda pair: pair[0])[:2]
    found: list[tuple[NearMiss, Sequence[Tensor]]] = [(one, parts) for lower, one in ranked if lower < close]
    for one in others:
        if case.values is not None and one.labels is not None:  # the rows whose label is another one
            changed = one.labels != torch.arange(len(one.labels))
            kept = [part[changed[case.values[noised.index[part]]]] for part in parts]
            found.append((one, [part for part in kept if len(part)]))
    better = []
    for one, rows in filter(operator.itemgetter(1), found):
        lower, sure = score(*(torch.cat([of(each, part) for part in rows], 1) for each in (one, own)))
        if lower < -BETTER and sure > SURE:
            better.append((lower * sum(map(len, rows)), one))
    return min(better, key=lambda pair: pair[0])[1] if better else None


def _calibrated(model: Model, case: _Case) -> Model:
    """The model with the errors that samples leave under their values; as it is where these are not known."""
    if case.values is None or groups_of(model.conditioner) is not None:
        return model
    left = []
    for sample, value in zip(case.samples, case.values, strict=True):
        problem = make_problem(sample[None], model, count=1)
        left.append(log_errors(problem.residuals(value[None], problem.draw(FIT_DRAWS, case.generator))))
    return attrs.evolve(
        model, defaults=attrs.evolve(model.defaults, calibration=calibration_of({1: torch.stack(left)}))
    )


def _drawn(model: Model, case: _Case) -> Finding:
    """Whether samples of the default sampler stay near the data."""
    measured, good = _distance(model, case)
    if not good:  # too few samples?
        measured, good = _distance(model, case, count=4 * DRAWN)
    change = ""
    if not good:
        name = next(one for one in ("EulerDiscreteScheduler", "DDPMScheduler") if one != model.defaults.scheduler)
        change = f"scheduler={name!r}" if _distance(model, case, scheduler=name)[1] else "scheduler=, or data_range="
    return Finding("drawn samples", measured, f"below {FAR:g} times", "ok" if good else "wrong", change)


def _distance(model: Model, case: _Case, count: int = DRAWN, **scheduler: Any) -> tuple[str, bool]:
    if case.values is not None:
        leaf = model.leaf(case.values[in_turn(case.values)[torch.arange(count) % len(case.values)]])
    else:
        leaf = model.unconditional if model.denoiser.null_trained else model.leaf(torch.zeros(1, dtype=torch.long))
    given: dict[str, Any] = {"num_inference_steps": STEPS, "generator": 0, "output_type": "latent", "progress": False}
    try:
        drawn = Composer([leaf]).sample(count, **given, **scheduler).cpu().flatten(1)
    except EnergycompError as error:
        return str(error), False
    data = case.samples.flatten(1)
    middle, reach = (data.max() + data.min()) / 2, (data.max() - data.min()).clamp(min=1e-9) / 2
    apart = torch.cdist(data, data).fill_diagonal_(math.inf).amin(1).median().clamp(min=1e-9)
    beyond, near = float((drawn - middle).abs().max() / reach), float(torch.cdist(drawn, data).amin(1).median() / apart)
    return f"{beyond:.2g} times the range, {near:.2g} the nearest distance", max(beyond, near) < FAR
