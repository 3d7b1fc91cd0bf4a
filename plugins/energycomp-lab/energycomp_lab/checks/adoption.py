"""Whether a network was adopted as it was trained: the noise that it predicts is compared with the true noise.

Notation: variable -> symbol
    slope       <eps, e> / <e, e> of predictions e, which is 1 of a posterior mean E[eps | x_t]
    explained   1 - |eps - e|^2 / |eps|^2
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp import Composer
from energycomp.components import Condition, values_of
from energycomp.denoisers import count_rows
from energycomp.errors import EnergycompError, InputError
from energycomp.images import as_text, rich_table
from energycomp.models import Model
from energycomp_lab.checks.labels import LABELS, Table, in_turn, reading, relabelled, table_of
from energycomp_lab.checks.near_misses import Finding, NearMiss, Noised, errors, near_misses, predicted, score

LEVELS = (4.0, 0.5, 0.05)  # SNR of the regression, relative to the variance of the samples
SLOPE, LINEAR = 0.05, 0.02  # how far a slope may be from 1, and how much less than a linear predictor may be explained
BETTER, SURE = 0.03, 4.0  # what another option lowers the errors by at least, and the standard errors of that
FAR = 3.0  # times the range of the data, or the distance to the nearest of them
RANDOM = "random in eval mode"
STEPS, DRAWN = 20, 8  # of samples that are drawn


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
    model: Model, samples: Any, labels: Any = None, *, evaluations: int = 2000, seed: int = 0
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
        evaluations: of the network; it costs about a quarter more, and up to twice as many where something is wrong.
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
    modes = {part: part.training for part in model.denoiser.network.modules()}
    try:
        with count_rows() as spent:
            findings, best, proposed = _checked(model, case, evaluations)
    finally:
        for part, training in modes.items():
            part.training = training
    return Adoption(tuple(findings), best, proposed, spent.rows)


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


def _checked(model: Model, case: _Case, evaluations: int) -> tuple[list[Finding], NearMiss | None, Model]:
    """The findings, the better option, and the model with what is proposed for reading."""
    adapter: Any = model.denoiser.network
    null = adapter.options["null"]

    def table(right: Model, pairs: int, **given: Any) -> Table | None:
        return None if case.values is None else table_of(right, case.noised, case.values, pairs, null, **given)

    noised = case.noised(torch.arange(max(16, evaluations // 32)) % len(case.samples), LEVELS)
    condition = case.condition(model, noised.index)
    findings, proposed = [_mode(model, noised[:8], condition[:8]), _data(model, case.samples)], model
    findings += _regression(case, noised, predicted(model, noised, condition))
    known, best = table(model, evaluations // 16), None
    if findings[0].measured == RANDOM or (known is not None and known.ignored):
        findings.append(Finding("other options", "not tried", "what is wrong here first", "note"))
    else:
        others = [] if known is None else relabelled(model, known)
        if others and (larger := table(model, evaluations // 4, levels=LABELS)) is not None:
            others = relabelled(model, larger)
        best = _best(model, case, others, noised, max(4, evaluations // 256))
        verdict = ("none is better", "none", "ok") if best is None else (f"{best}", "none", "wrong", f"{best.option}")
        findings.append(Finding("other options", *verdict))
    if best is not None:
        known = table(best.model, evaluations // 16, labels=best.labels)
        known_by = attrs.evolve(model.defaults, timesteps=best.model.defaults.timesteps)
        proposed = model if best.labels is not None else attrs.evolve(best.model, defaults=known_by)
    if known is not None:
        found, proposed = reading(proposed, known)
        findings += found
    return [*findings, *([_drawn(model, case)] if best is None else [])], best, proposed


def _mode(model: Model, noised: Noised, condition: Condition) -> Finding:
    """Whether predictions repeat. The network is in eval mode afterwards."""
    training = any(part.training for part in model.denoiser.network.modules())
    first = predicted(model, noised, condition)
    model.denoiser.network.eval()
    second, third = (predicted(model, noised, condition) for _ in range(2))
    repeats = torch.allclose(second, third, 1e-3, 1e-4)
    if not repeats:
        measured, change = RANDOM, "switch dropout off in call="
    elif training and not torch.allclose(first, second, 1e-3, 1e-4):
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


def _regression(case: _Case, noised: Noised, found: Tensor) -> Iterator[Finding]:
    """The slope of the noise on the prediction, and what it explains beside a linear predictor."""
    parts = (noised.noise, found, _linear(case.samples.double().flatten(1), noised))
    eps, e, linear = (part.double().reshape(len(LEVELS), -1, noised.noise[0].numel()) for part in parts)
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
    yield Finding("slope", _numbers(slope), f"1 at SNR {at}", verdict, "" if straight else change)
    expected = f"{explained[1]} of a linear predictor"
    yield Finding("explained", explained[0], expected, "ok" if good else "wrong", "" if good else change)


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


def _best(model: Model, case: _Case, others: list[NearMiss], noised: Noised, few: int) -> NearMiss | None:
    """What lowers the errors most of `others` and the two near misses that do so on a few rows of each level."""

    def of(other: NearMiss, rows: Tensor) -> Tensor:
        chosen = noised[rows]
        given = case.condition(other.model, chosen.index, other.labels)
        if other.rescaled is not None:  # to a variance of 1
            chosen = attrs.evolve(chosen, clean=other.rescaled(chosen.clean), snr=chosen.snr * case.samples.var())
        return errors(other.model, chosen, given).view(len(LEVELS), -1)

    every = torch.arange(len(noised.snr))
    some = every.view(len(LEVELS), -1)[:, :few]
    base = of(NearMiss("", "", "", model), every)
    misses = near_misses(model, case.samples, null=case.values is None)
    ranked = sorted(misses, key=lambda one: score(of(one, some.flatten()), base[:, :few])[0])
    found = [(one, every) for one in ranked[:2]]
    for one in others:
        if case.values is not None and one.labels is not None:
            values = case.values[noised.index]
            found.append((one, every[one.labels[values] != values]))  # the rows whose label is another one
    better = []
    for one, rows in found:
        lower, sure = score(of(one, rows), base.flatten()[rows].view(len(LEVELS), -1)) if len(rows) else (0.0, 0.0)
        if lower < -BETTER and sure > SURE:
            better.append((lower * len(rows), one))
    return min(better, key=lambda pair: pair[0])[1] if better else None


def _drawn(model: Model, case: _Case) -> Finding:
    """Whether samples of the default sampler stay near the data."""
    measured, good = _distance(model, case)
    change = ""
    if not good:
        name = "EulerDiscreteScheduler"
        change = f"scheduler={name!r}" if _distance(model, case, scheduler=name)[1] else "scheduler=, or data_range="
    return Finding("drawn samples", measured, f"below {FAR:g} times", "ok" if good else "wrong", change)


def _distance(model: Model, case: _Case, **scheduler: Any) -> tuple[str, bool]:
    if case.values is not None:
        leaf = model.leaf(case.values[in_turn(case.values)[:DRAWN]])
    else:
        leaf = model.unconditional if model.denoiser.null_trained else model.leaf(torch.zeros(1, dtype=torch.long))
    given: dict[str, Any] = {"num_inference_steps": STEPS, "generator": 0, "output_type": "latent", "progress": False}
    try:
        drawn = Composer([leaf]).sample(DRAWN, **given, **scheduler).cpu().flatten(1)
    except EnergycompError as error:
        return str(error), False
    data = case.samples.flatten(1)
    middle, reach = (data.max() + data.min()) / 2, (data.max() - data.min()).clamp(min=1e-9) / 2
    apart = torch.cdist(data, data).fill_diagonal_(math.inf).amin(1).median().clamp(min=1e-9)
    beyond, near = float((drawn - middle).abs().max() / reach), float(torch.cdist(drawn, data).amin(1).median() / apart)
    return f"{beyond:.2g} times the range, {near:.2g} the nearest distance", max(beyond, near) < FAR
