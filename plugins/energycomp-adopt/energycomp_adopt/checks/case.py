"""A case: an adopted model with clean samples, known noise, and what is predicted of it. All checks share it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import attrs
import torch
from torch import Tensor

from energycomp.components import Condition, by_sample, convert, signal_noise, timestep_of
from energycomp.denoisers import rows, trunk
from energycomp.models import Model
from energycomp_adopt.adapter import Adopted, Options, embedding_sizes, network_of
from energycomp_adopt.checks.calls import Calls

LEVELS = (4.0, 0.5, 0.05)  # SNR of the rows, relative to the variance of the samples
NUMBERS = 2000  # that the rows of a level have at least: of few numbers a row, more rows

Measured = TypeVar("Measured")
Verdict = Literal["ok", "wrong", "unsure", "note"]


@attrs.frozen
class Finding:
    """A line of a table: what was measured, what is expected, the verdict, and what to change."""

    what: str
    measured: str
    expected: str
    verdict: Verdict
    change: str = ""


@attrs.frozen(eq=False)
class Noised:
    """Clean samples (R, ...), their index (R,) among all, and noise that is added at signal-to-noise ratios (R,)."""

    index: Tensor
    clean: Tensor
    noise: Tensor
    snr: Tensor

    def __getitem__(self, rows: Any) -> Noised:
        return Noised(self.index[rows], self.clean[rows], self.noise[rows], self.snr[rows])

    @property
    def levels(self) -> tuple[Tensor, Tensor]:
        """The amplitudes of signal and noise, each (R, 1, .., 1)."""
        snr = by_sample(self.snr.double(), self.clean.ndim)
        return (snr / (1 + snr)).sqrt().float(), (1 / (1 + snr)).sqrt().float()

    @property
    def sample(self) -> Tensor:
        """The variance-preserving x_t."""
        signal, noise = self.levels
        return signal * self.clean + noise * self.noise


@attrs.define(eq=False)
class Case:
    """What is checked: encoded samples (N, ...) with their values (N, *V), where they are known.

    Attributes:
        rows: of most checks, (L n): all samples in turn, the same ones with the same noise at each of `LEVELS`.
        measured: what several checks need, by what measures it; see `once`.
        seen: the samples of images that are mirrored, inverted and so on, by their names in `near_misses`.
    """

    model: Model
    samples: Tensor
    values: Tensor | None
    evaluations: int
    generator: torch.Generator
    calls: Calls
    rows: Noised = attrs.field(init=False)
    measured: dict[Any, Any] = attrs.field(factory=dict, init=False)
    seen: dict[str, Tensor] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        n = max(16, self.evaluations // 10, min(self.evaluations, NUMBERS // self.numbers))
        self.rows = self.add_noise(torch.arange(n) % len(self.samples))

    @property
    def network(self) -> Adopted:
        return network_of(self.model)

    @property
    def options(self) -> Options:
        return self.network.options

    @property
    def classes(self) -> int | None:
        """How many classes the model has; None where the network is given no labels."""
        return self.model.denoiser.token_shape[1] if self.options.kind == "classes" else None

    @property
    def label_count(self) -> int:
        """How many labels the network takes, by its classes, the null and its embeddings; 0 where it takes none."""
        if self.classes is None:
            return 0
        least = max(self.classes, 0 if self.options.null is None else int(self.options.null) + 1)
        one_more = self.classes + 1  # the label of a null that was not named
        return max(least, one_more) if one_more in embedding_sizes(self.network.network) else least

    @property
    def numbers(self) -> int:
        """The numbers of a sample."""
        return self.samples[0].numel()

    def add_noise(self, index: Tensor, levels: tuple[float, ...] = LEVELS) -> Noised:
        """Samples (n,) under one noise each, at L levels: L n rows, level by level."""
        noise = torch.randn(len(index), *self.samples.shape[1:], generator=self.generator)
        snr = torch.tensor(levels).repeat_interleave(len(index)) / self.samples.var().clamp(min=1e-9)
        every = torch.arange(len(index)).repeat(len(levels))
        return Noised(index[every], self.samples[index[every]], noise[every], snr)

    def condition(self, index: Tensor, model: Model | None = None, labels: Tensor | None = None) -> Condition:
        """Of the values of samples, or of the network's labels (C,) of these classes; the null where none is known."""
        model = model or self.model
        if self.values is None:
            return Condition.unconditional(*model.denoiser.token_shape, rows=len(index))
        values = self.values[index]
        return model.conditioner(values if labels is None else labels[values])

    def part(self, share: float, least: int = 4) -> Tensor:
        """The indices of the first rows of each level, level by level."""
        n = len(self.rows.snr) // len(LEVELS)
        return torch.arange(len(self.rows.snr)).view(len(LEVELS), n)[:, : max(least, round(share * n))].flatten()


def once(measure: Callable[[Case], Measured]) -> Callable[[Case], Measured]:
    """Makes a measurement that several checks need once for each case."""

    @functools.wraps(measure)
    def measure_once(case: Case) -> Measured:
        if measure not in case.measured:
            case.measured[measure] = measure(case)
        known: Measured = case.measured[measure]
        return known

    return measure_once


def predict(model: Model, noised: Noised, condition: Condition) -> Tensor:
    """The eps (R, ...) that a model predicts, on the CPU. Costs R network evaluations."""
    denoiser = model.denoiser
    sample = noised.sample.to(denoiser.device)
    alphas = denoiser.alphas_cumprod
    timestep = timestep_of(alphas, noised.snr.log().to(sample.device)).to(sample.dtype)
    with torch.no_grad():
        out = rows(denoiser, trunk(denoiser, sample, timestep), condition, torch.arange(len(sample)).to(sample.device))
        levels = signal_noise(alphas, timestep, sample.dtype, sample.ndim)
        return convert(out, sample, *levels, source=denoiser.prediction_type, target="epsilon").cpu()


def square_sums(off: Tensor) -> Tensor:
    """|d|^2 (R,) of differences (R, ...), in float64; 1e9 where they are not finite."""
    return off.double().flatten(1).square().sum(1).nan_to_num(1e9, 1e9).clamp(max=1e9)


def mean_error(each: Tensor, index: Tensor) -> tuple[float, float]:
    """The mean of numbers (M,), and its standard error, where those of one sample (M,) are not independent."""
    each = each.double()
    mean = each.mean()
    samples, own = index.unique(return_inverse=True)
    n = len(samples)
    sums = torch.zeros(n, dtype=torch.float64).index_add(0, own, each - mean)
    return float(mean), float(sums.square().sum().sqrt()) / len(each) * math.sqrt(n / max(n - 1, 1))
