"""Ranking by lift: which components of a composition an image shows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components import Condition, EnergyComponent, Rule, default_gamma, evaluate_energies, identifies_null
from energycomp.denoisers import Conditional, Denoiser, count_rows
from energycomp.errors import InputError, NonFiniteError
from energycomp.images import ImageProcessor, decoded, from_unit
from energycomp.inference import QuadraticForm, draw_bank, paired, quadratic_form
from energycomp.models import Model, checked_model
from energycomp_samplers.rankable import Rankable, as_rankable

DRAWS = 32  # the lifts of two objects of `clevr` are then 17 standard errors from 0
MAX_NUMBERS = 2**30  # of predictions at a time: 4 GiB of float32
LEVEL = 0.01  # p-value below which a lift is above 0; one whose lift is 0 is taken for shown in 1 to 2 % of images


@attrs.frozen(eq=False)
class Ranking:
    """What N images show of the K components of a composition, and the order of the images.

    Args:
        negated: which components were negated (`~b`): a good image does not show them.
        lift: (N, K) mean denoising error without a component minus the error with it, in the units of `Solution.error`.
        stderr: (N, K) standard error of the lift.
        p_value: (N, K) the probability of a lift at least as large on other draws, if its expectation were 0.
        rows: network evaluations spent.
        energy: (N,) of a constraint, infinite where it rules an image out; None without one.

    >>> lift, p_value = torch.tensor([[9.0, -1.0], [3.0, 2.0]]), torch.tensor([[0.0, 0.9], [0.0, 0.001]])
    >>> ranking = Ranking(("a", "b"), (False, False), lift, torch.ones(2, 2) / 2, p_value, rows=0)
    >>> ranking.order, ranking.missing
    ((1, 0), (('b',), ()))
    """

    components: tuple[str, ...]
    negated: tuple[bool, ...]
    lift: Tensor
    stderr: Tensor
    p_value: Tensor
    rows: int
    energy: Tensor | None = None

    @property
    def shown(self) -> Tensor:
        """Whether each image shows each component, (N, K): its lift is above 0 with a p-value below 0.01."""
        return self.p_value < LEVEL

    @property
    def missing(self) -> tuple[tuple[str, ...], ...]:
        """For each image, the components that it should show and does not."""
        return self._wrong(negated=False)

    @property
    def unwanted(self) -> tuple[tuple[str, ...], ...]:
        """For each image, the negated components that it shows nevertheless."""
        return self._wrong(negated=True)

    @property
    def complete(self) -> Tensor:
        """Whether an image shows every component and no negated one, and no constraint rules it out, (N,)."""
        shows = (self.shown != torch.tensor(self.negated)).all(1)
        return shows if self.energy is None else shows & (self.energy.to(shows.device) < torch.inf)

    @property
    def least(self) -> Tensor:
        """The least lift of each image (N,); that of a negated component counts as -lift."""
        return self._signed_lift().amin(1)

    @property
    def order(self) -> tuple[int, ...]:
        """The images, best first: complete ones before others, then by the energy of a constraint, the lowest first.

        Without one, and for equal energies, by least lift; ties by the sum of the lifts.
        """
        good = torch.zeros(len(self.lift)) if self.energy is None else -self.energy
        criteria = (self.complete, good, self.least, self._signed_lift().sum(1))
        # What an image is worth: the first criterion decides, and the next one where it is equal
        worth = list(zip(*(one.tolist() for one in criteria), strict=True))
        return tuple(sorted(range(len(worth)), key=worth.__getitem__, reverse=True))

    def _signed_lift(self) -> Tensor:
        return torch.where(torch.tensor(self.negated), -self.lift, self.lift)

    def _wrong(self, *, negated: bool) -> tuple[tuple[str, ...], ...]:
        # A component is wrong where it is not shown, and a negated one where it is
        wrong = []
        for shown in self.shown.tolist():
            each = zip(self.components, self.negated, shown, strict=True)
            wrong.append(tuple(name for name, is_negated, is_shown in each if is_negated == negated == is_shown))
        return tuple(wrong)


def rank(
    images: Any,
    composition: EnergyComponent,
    *,
    model: Model | None = None,
    draws: int = DRAWS,
    constraint: Callable[[Tensor], Tensor] | None = None,
    generator: int | torch.Generator | None = None,
) -> Ranking:
    """The lift of every component of a composition for every image: how much it explains of that image.

    The lift is the denoising error without a component minus the error with it, on the same noise and timesteps for all
    images (the lift scores of Yu and Gao, 2025, compare each component with u alone). Costs K network evaluations per
    draw and image for K components, one more for u under the rule "product", and one trunk pass.

    - Under "product", the composition without component i lacks its residual w_i (e_i - u). Weights above 1 (guidance)
      are taken as 1, since they describe the sampler and not the image.
    - Under "mean", the weights of the other components are scaled to the sum 1.
    - The lift of a negated component is measured over the components that are not negated: a good image has none.
    - One component without an unconditional prediction is compared with the best of the M other labels of `model`, for
      as many network evaluations per draw and image.

    Args:
        images: one or several, as `infer` takes them, float tensors in [0, 1]; or latents (B, C, H, W) of a codec.
        composition: a composition or `Composer` of one denoiser, of mass 1, such as `model.compose(values)`.
        model: its processor and codec read the images, and its defaults give the timesteps and weights of the draws.
            When left out, draws cover all timesteps, with the weights min(1, 1 / SNR) where the denoiser predicts x0.
        draws: how many draws a lift averages over, at least 2.
        constraint: takes images in [0, 1], (N, C, H, W), and gives energies (N,), by which images rank that are equally
            complete, such as `energycomp_samplers.constraint(f)`.
        generator: one, or a seed; 0 when left out.

    Raises:
        CompositionError: no components, leaves of several denoisers or of another kind, a mass other than 1, the rule
            "sum", a mean with negative weights, or one component with neither u nor other labels.
        InputError: not images, images that need a codec without `model=`, or too few or too many draws.
        NonFiniteError: naming the component whose prediction is not finite.

    >>> from energycomp.testing import bumps_model, planted
    >>> model = bumps_model()
    >>> both, one = (planted(model, torch.tensor(v)) for v in ([[0.2, 0.3], [0.7, 0.8]], [[0.2, 0.3]]))
    >>> ranking = rank(torch.cat([one, both]) / 2 + 0.5, model(0.2, 0.3) & model(0.7, 0.8), model=model)
    >>> ranking.order, ranking.missing
    ((1, 0), (('bumps(0.7, 0.8)',), ()))
    """
    asked = as_rankable(composition, model)
    denoiser = asked.leaves[0].denoiser
    if model is not None and checked_model(model).denoiser is not denoiser:
        raise InputError(f"got model={model.name}, of another denoiser than the components; expected theirs; pass it")
    samples = _encode(images, denoiser, model)
    return rank_samples(samples, asked, model=model, draws=draws, constraint=constraint, generator=generator)


def rank_samples(
    samples: Tensor, asked: Rankable, *, model: Model | None, draws: int, constraint: Any, generator: Any
) -> Ranking:
    denoiser = asked.denoiser
    samples = samples.to(denoiser.device)
    # Predictions of one image, for all draws, have to fit into memory.
    leaves = [*asked.leaves, *asked.labels]
    most = MAX_NUMBERS // ((len(leaves) + 1) * math.prod(denoiser.sample_shape))
    if not 2 <= draws <= most:
        raise InputError(f"got draws={draws}; expected 2 to {most:,}, what fits into 4 GiB; 32 is a good number")
    # The same draws for all images, so that lifts can be compared.
    bank = draw_bank(
        draws,
        denoiser.sample_shape,
        denoiser.alphas_cumprod,
        timesteps=None if model is None else model.defaults.timesteps,
        gamma=default_gamma(denoiser.prediction_type) if model is None else model.defaults.gamma,
        generator=0 if generator is None else generator,
    )
    condition = Condition.cat([leaf.condition.to(denoiser.device) for leaf in leaves])
    with count_rows() as spent, torch.no_grad():
        # One quadratic form an image: its lifts are arithmetic on it.
        lifts = []
        for sample in samples:
            form = quadratic_form(denoiser, sample[None], bank, condition)
            _check_finite(form, leaves)
            lifts.append(_compare(form, asked))
        # The energy of a constraint, for each image.
        energy = None
        if constraint is not None:
            images = decoded(samples, "pt", decode=denoiser.decode, value_range=denoiser.noised_space.value_range)
            energy = evaluate_energies("constraint", constraint, len(images), images).cpu()
    lift, stderr, p_value = torch.stack(lifts).unbind(-1)
    negated = tuple(weight < 0 for weight in asked.weights)
    return Ranking(tuple(map(repr, asked.leaves)), negated, lift, stderr, p_value, spent.rows, energy)


def _encode(images: Any, denoiser: Denoiser, model: Model | None) -> Tensor:
    # Latents are samples already
    latent = denoiser.codec is not None and isinstance(images, Tensor)
    if latent and tuple(images.shape[-3:]) == denoiser.sample_shape and images.ndim in (3, 4):
        if not images.numel() or not bool(torch.isfinite(images).all()):
            raise InputError(f"got samples {tuple(images.shape)}; expected finite numbers of at least one sample")
        return images.reshape(-1, *denoiser.sample_shape).to(denoiser.device)
    # Images go through processor and codec of the model; without one, through a processor of the denoiser's size
    if model is not None:
        return model.encode(model.given(images))
    if denoiser.codec is not None:
        raise InputError("got images without model=; expected latents, or the model whose codec encodes the images")
    channels, *size = denoiser.sample_shape
    processor = ImageProcessor(size=size, channels=channels, bounded=denoiser.value_range is not None)
    return processor(from_unit(images) if processor.bounded else images).to(denoiser.device)


def _check_finite(form: QuadraticForm, leaves: list[Conditional]) -> None:
    broken = [repr(leaf) for leaf, norms in zip(leaves, form.diagonal.T, strict=True) if not norms.isfinite().all()]
    if broken:
        got = f"got predictions of {' and '.join(broken)} that are not finite"
        raise NonFiniteError(f"{got}; expected numbers; check the weights and the precision")


def _compare(form: QuadraticForm, asked: Rankable) -> Tensor:
    """The lift, its standard error and its p-value of each component (K, 3), by a paired test over the draws."""
    if not asked.labels:
        # Compositions with each component, and without it
        errors = form.weighted_errors(_weightings(asked.weights, asked.denoiser.rule)).cpu().chunk(2)
        return torch.tensor([paired(*pair) for pair in zip(*errors, strict=True)])
    # One label against each of the others: its lift over the best of them
    own, *others = form.weighted_errors(torch.eye(1 + len(asked.labels))).cpu()
    tests = torch.tensor([paired(own, other) for other in others])
    return tests[tests[:, 0].argmin()][None]


def _weightings(weights: list[float], rule: Rule) -> Tensor:
    """Weights (2 K, K) of the compositions with each component, then of those without each."""
    # Negated components are left out of what a lift is measured in
    given = torch.tensor(weights, dtype=torch.float64)
    size = given.abs().clamp(max=1.0) if identifies_null(rule) else given.abs()
    base = torch.where(given > 0, size, 0.0).expand(len(given), -1)
    own = torch.eye(len(given), dtype=torch.bool)
    with_each = torch.where(own, size, base)
    without = torch.where(own, 0.0, base)
    # A mean stays a mean: weights sum to 1
    if not identifies_null(rule):
        without = without / without.sum(1, keepdim=True)
    return torch.cat([with_each, without])
