"""The prediction of a composition: one batch for each group of leaves, one weighted sum."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from energycomp.components.component import LeafGroup
from energycomp.components.groups import differs_by_sample, group_leaves
from energycomp.components.precision import home
from energycomp.components.prediction import PredictionType, convert
from energycomp.components.terms import shared_space, weights_at
from energycomp.components.weight_values import is_constant
from energycomp.components.weights import LEAST_VALUE, varies
from energycomp.errors import InputError, NonFiniteError


def native_type(composition: Any) -> PredictionType:
    """The type in which a composition is summed: its groups' own if they share one and the mass is 1, else "epsilon".

    At mass 1 sums of x0, v or flow predictions are predictions of that type; a round trip through eps would divide by
    sqrt(alpha_bar), 5e-5 at the noisy end of a cosine schedule. Weights that vary must sum to 1 everywhere.

    >>> from energycomp.testing import tiny_model  # whose network predicts x0
    >>> native_type(+tiny_model()(0.1, 0.2)), native_type(2 * tiny_model()(0.1, 0.2))
    ('sample', 'epsilon')
    """
    mass: Any = sum(composition.terms.values())
    shape = shared_space(composition.terms).sample_shape if varies(mass) else (1, 1, 1)
    return _common_type(composition.terms, is_one=is_constant(mass, 1.0, shape))


def _common_type(leaves: Iterable[Any], *, is_one: bool) -> PredictionType:
    kinds = {group.prediction_type for group, _ in group_leaves(leaves)}
    return kinds.pop() if len(kinds) == 1 and is_one else "epsilon"


def predict(
    composition: Any, sample: Tensor, timestep: Tensor, *, prediction_type: PredictionType = "epsilon"
) -> Tensor:
    """The composed prediction of a batch of noised samples.

    Args:
        composition: `{leaf: weight}`; a weight may vary over samples, pixels and timesteps.
        sample: (B, C, H, W).
        timestep: (B,) real numbers in [0, T].
        prediction_type: the type of the result.

    Returns:
        (B, C, H, W). Costs one row per distinct leaf and sample, and one trunk pass per denoiser and sample. A leaf
        whose weight is 0 at the timestep of a sample and at every pixel costs none for this sample.

    Raises:
        NonFiniteError: naming the component whose prediction is not finite.

    >>> from energycomp.testing import Gaussian
    >>> a, b = Gaussian(-1.0, 1e-6), Gaussian(0.5, 1e-6)  # nearly points
    >>> x, t = torch.zeros(1, 1, 1, 1), torch.tensor([500.0])
    >>> predict(0.5 * a + 0.5 * b, x, t, prediction_type="sample").round(decimals=2).item()  # their mean
    -0.25
    """
    return predict_all([composition], sample, timestep, prediction_type=prediction_type)[0]


def predict_all(
    compositions: Sequence[Any],
    sample: Tensor,
    timestep: Tensor,
    *,
    prediction_type: PredictionType = "epsilon",
) -> list[Tensor]:
    """The predictions (B, C, H, W) of compositions; a leaf that several have is evaluated once. See `predict`.

    >>> from energycomp.denoisers import count_rows
    >>> from energycomp.testing import tiny_model
    >>> model = tiny_model()
    >>> a, b = model(0.2, 0.5), model(0.8, 0.5)  # `a & b` also evaluates u
    >>> x, t = torch.zeros(1, *model.denoiser.sample_shape), torch.tensor([500.0])
    >>> with count_rows() as spent:
    ...     both, first = predict_all([a & b, 1.0 * a], x, t)
    >>> spent.rows
    3
    """
    _check_timestep(sample, timestep)
    sums = [weights_at(composition.terms, timestep, tuple(sample.shape[1:])) for composition in compositions]
    parts = list(_predictions(active_samples(sums, len(sample)), sample, timestep))
    return [
        _sum_up(composition, weights, parts, sample, timestep, prediction_type)
        for composition, weights in zip(compositions, sums, strict=True)
    ]


def _check_timestep(sample: Tensor, timestep: Any) -> None:
    if not isinstance(timestep, Tensor) or timestep.shape != sample.shape[:1]:
        got = f"a tensor {tuple(timestep.shape)}" if isinstance(timestep, Tensor) else repr(timestep)
        n = len(sample)
        raise InputError(f"got the timestep {got} for {n} samples; expected a tensor ({n},); use torch.full(({n},), t)")


def active_samples(sums: Iterable[Iterable[tuple[Any, float | Tensor]]], batch: int) -> list[tuple[Any, Tensor | None]]:
    """The leaves of what `weights_at` gives, with the samples (N,) at which a weight is not 0; None for all."""
    found: dict[int, tuple[Any, Tensor | None]] = {}
    for leaf, weight in (pair for weights in sums for pair in weights):
        where = None
        if isinstance(weight, Tensor) and len(weight) == batch > 1:
            where = weight.abs().flatten(1).amax(dim=1) >= LEAST_VALUE
        _, other = found.get(id(leaf), (leaf, torch.zeros(batch, dtype=torch.bool)))
        joined = None if where is None or other is None else where | other
        found[id(leaf)] = (leaf, None if joined is None or bool(joined.all()) else joined)
    return [(leaf, None if where is None else where.nonzero()[:, 0]) for leaf, where in found.values()]


def _sum_up(
    composition: Any,
    weights: Sequence[tuple[Any, float | Tensor]],
    parts: Sequence[_Part],
    sample: Tensor,
    timestep: Tensor,
    prediction_type: PredictionType,
) -> Tensor:
    total = torch.zeros_like(sample, dtype=torch.promote_types(sample.dtype, torch.float32))
    # The type in which predictions are added
    by_leaf = {id(leaf): weight for leaf, weight in weights}
    common = _common_type([leaf for leaf, _ in weights], is_one=is_constant(sum(by_leaf.values()), 1.0))
    levels = cache(lambda: shared_space(composition.terms).levels(timestep, total.dtype))

    def converted(
        prediction: Tensor, source: PredictionType, target: PredictionType, owner: Tensor | None = None
    ) -> Tensor:
        if source == target:
            return prediction
        of = slice(None) if owner is None else owner
        signal, noise = levels()
        return convert(prediction, sample[of], signal[of], noise[of], source=source, target=target)

    # Add up what the leaves of this sum predict, in that type
    used = [part for part in parts if id(part.leaf) in by_leaf]
    for leaf, owner, prediction, source in used:
        part = converted(prediction, source, common, owner)
        weight = by_leaf[id(leaf)]
        if not isinstance(weight, Tensor):
            total = torch.add(total, part, alpha=weight)
        elif owner is None:
            total = total + part * weight.to(total.dtype).to(total.device)
        else:
            total = total.index_add(0, owner, part * weight.to(total.dtype).to(total.device)[owner])
    if not bool(torch.isfinite(total.sum())):
        _name_what_is_not_finite(used, timestep)
    return converted(total, common, prediction_type)


def predict_leaves(
    composition: Any, sample: Tensor, timestep: Tensor, *, prediction_type: PredictionType = "epsilon"
) -> Tensor:
    """The predictions of all leaves, (K, B, C, H, W), in the order of `composition.terms`. As `predict` otherwise.

    >>> from energycomp.components import Gaussian
    >>> a, b = Gaussian(-1.0, 1e-6), Gaussian(0.5, 1e-6)  # nearly points
    >>> x, t = torch.zeros(1, 1, 1, 1), torch.tensor([500.0])
    >>> predict_leaves(a + b, x, t, prediction_type="sample").round(decimals=2).flatten()
    tensor([-1.0000,  0.5000])
    """
    _check_timestep(sample, timestep)
    parts = list(_predictions([(leaf, None) for leaf in composition.terms], sample, timestep))
    levels = shared_space(composition.terms).levels(timestep)
    known = {
        id(leaf): convert(prediction, sample, *levels, source=source, target=prediction_type)
        for leaf, _, prediction, source in parts
    }
    stacked = torch.stack([known[id(leaf)] for leaf in composition.terms])
    if not bool(torch.isfinite(stacked.sum())):
        _name_what_is_not_finite(parts, timestep)
    return stacked


class _Part(NamedTuple):
    """The prediction of a leaf for some samples of a batch (N,), or for all of them."""

    leaf: Any
    owner: Tensor | None
    prediction: Tensor
    prediction_type: PredictionType


def _predictions(leaves: Sequence[tuple[Any, Tensor | None]], sample: Tensor, timestep: Tensor) -> Iterator[_Part]:
    owners = {id(leaf): None if owner is None else owner.to(sample.device) for leaf, owner in leaves}
    for group, members in group_leaves(leaf for leaf, _ in leaves):
        of = [owners[id(leaf)] for leaf in members]
        predicted = predict_group(group, members, of, sample, timestep)
        for leaf, owner, prediction in zip(members, of, predicted, strict=True):
            yield _Part(leaf, owner, prediction, group.prediction_type)


def predict_group(
    group: LeafGroup, members: Sequence[Any], owners: Sequence[Tensor | None], sample: Tensor, timestep: Tensor
) -> Sequence[Tensor]:
    """The predictions of the leaves of a group, each for its own samples (N_k,) of the batch; None for all of them.

    Costs one batch where the group has `predict_some` or all leaves count for all samples, else one per leaf: of its
    own samples, or of all, where it differs from sample to sample. Samples of the CPU go to a device without float64
    and their predictions come back.
    """
    there = group.device
    if there is None or there == sample.device or home(there) == there:
        return _predict_there(group, members, owners, sample, timestep)
    own = [None if owner is None else owner.to(there) for owner in owners]
    predicted = _predict_there(group, members, own, sample.to(there), timestep.to(there))
    return [one.to(sample.device) for one in predicted]


def _predict_there(
    group: LeafGroup, members: Sequence[Any], owners: Sequence[Tensor | None], sample: Tensor, timestep: Tensor
) -> Sequence[Tensor]:
    if all(owner is None for owner in owners):
        return group.predict(members, sample, timestep)
    everyone = torch.arange(len(sample), device=sample.device)
    known = [everyone if owner is None else owner for owner in owners]
    if (predict_some := getattr(group, "predict_some", None)) is not None:
        return predict_some(members, known, sample, timestep)
    predicted = []
    for leaf, own in zip(members, known, strict=True):
        if differs_by_sample(leaf):
            predicted.append(group.predict([leaf], sample, timestep)[0][own])
        else:
            predicted.append(group.predict([leaf], sample[own], timestep[own])[0])
    return predicted


def _name_what_is_not_finite(parts: Sequence[_Part], timestep: Tensor) -> None:
    for leaf, _, prediction, _ in parts:
        if not bool(torch.isfinite(prediction).all()):
            raise NonFiniteError(
                f"got a prediction of {leaf!r} that is not finite at timesteps {timestep.tolist()[:4]}; expected "
                "numbers; check the weights, the input and the precision"
            )
