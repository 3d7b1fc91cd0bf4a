"""A denoiser is a network with its noise schedule, prediction type, rule and space; its leaves are components."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from operator import attrgetter
from typing import Any, cast, get_args

import attrs
import torch
from torch import Tensor, nn

from energycomp.components import (
    Composable,
    Composition,
    Condition,
    Rule,
    SamplingDefaults,
    identifies_null,
    rule_weights,
)
from energycomp.components.prediction import PREDICTION_TYPES, PredictionType, input_norm
from energycomp.components.space import NoisedSpace, ValueRange, as_value_range, by_sample, check_value_range
from energycomp.components.weights import LEAST_VALUE
from energycomp.denoisers.codec import Codec
from energycomp.denoisers.evaluator import Evaluated, Trunk, rows, trunk
from energycomp.errors import CompositionError, InputError
from energycomp.fields import FLAG, Validator, legal, one_of

MAX_NUMBERS = 100_000_000  # in a sample or a condition row: beyond any that memory is taken for


def _shape(dimensions: str, count: int | None = None) -> Validator:
    def is_shape(value: Any) -> bool:
        whole = (
            isinstance(value, tuple)
            and len(value) in (range(1, 9) if count is None else (count,))
            and all(type(n) is int and n >= 1 for n in value)
        )
        return whole and math.prod(value) <= MAX_NUMBERS

    return legal(is_shape, f"{dimensions}, positive integers whose product is at most {MAX_NUMBERS:,}")


@attrs.define(eq=False, frozen=True, slots=False, repr=False)
class Denoiser(Evaluated):
    """A network and what it predicts: the group of its leaves, which it predicts in one batch.

    Args:
        network: an `energycomp.denoisers.Network` or `TwoStage` module.
        alphas_cumprod: the noise schedule, shape (T,), falling, in (0, 1).
        prediction_type: what the network predicts: "epsilon", "sample" (x0), "v_prediction" or "flow" (eps - x0). A
            network of a flow is given samples of it, (1 - t) x0 + t eps; all others variance-preserving ones.
        rule: the rule under which it was trained to be composed; "sum" goes with "epsilon" only.
        sample_shape: of one sample: (C, H, W) of an image, or of any other rank.
        token_shape: (L, D) of one condition row.
        null_trained: whether the unconditional row was trained; without it `&`, `~` and guidance raise.
        codec: of latents; pixels when left out.
        value_range: (-r, r), of the data; None for data without bounds. Predictions of x0 are clipped to it while
            sampling, except for latents, and to the range that a `NumberProcessor` knows.
        base: the denoiser whose unconditional leaf it shares, for one that was adapted from it, such as by LoRA.
        trained_alone: whether each component was trained by itself, and is a density of its own whatever the rule, as
            `adopt` says of a network. Otherwise components under "sum" and "mean" predict noise only together.

    Raises:
        InputError: when the schedule, the rule or a shape cannot be.

    >>> from energycomp.testing import tiny_model
    >>> network = tiny_model().denoiser.network
    >>> Denoiser(network, torch.linspace(0.999, 0.001, 100), "sample", "product", (3, 16, 16), (1, 2))
    Denoiser(TwoStageUNet, predicts sample (3, 16, 16), rule product)
    """

    network: nn.Module
    alphas_cumprod: Tensor = attrs.field()
    prediction_type: PredictionType = attrs.field(validator=one_of(PREDICTION_TYPES))
    rule: Rule = attrs.field(validator=one_of(get_args(Rule)))
    sample_shape: tuple[int, ...] = attrs.field(validator=_shape("a tuple such as (3, 64, 64) or (13,)"))
    token_shape: tuple[int, int] = attrs.field(validator=_shape("(L, D)", 2))
    null_trained: bool = attrs.field(default=True, validator=FLAG)
    codec: Codec | None = None
    value_range: ValueRange | None = attrs.field(
        default=(-1.0, 1.0), converter=as_value_range, validator=check_value_range
    )
    base: Denoiser | None = None
    trained_alone: bool = attrs.field(default=False, validator=FLAG)

    @alphas_cumprod.validator
    def _check_schedule(self, _: Any, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise InputError(
                f"got alphas_cumprod of type {type(value).__name__}; expected a tensor (T,); make one of it"
            )
        good = value.ndim == 1 and len(value) > 1 and bool(((value > 0) & (value < 1)).all())
        if not good or not bool((value.diff() <= 0).all()):
            between = f" between {value.min():g} and {value.max():g}" if value.numel() else ""
            got = f"got alphas_cumprod of shape {tuple(value.shape)}{between}"
            raise InputError(f"{got}; expected (T,) falling inside (0, 1); take those of a diffusers scheduler")

    @rule.validator
    def _check_rule(self, _: Any, value: Rule) -> None:
        if value == "sum" and self.prediction_type != "epsilon":
            got = f"got rule 'sum' with prediction type {self.prediction_type!r}"
            raise InputError(f"{got}; expected 'epsilon'; use the rule 'mean' or 'product' for all others")

    @property
    def space(self) -> str:
        """The identity of the codec, or "pixels"."""
        return "pixels" if self.codec is None else self.codec.identity

    @cached_property
    def noised_space(self) -> NoisedSpace:
        clipped = self.value_range if self.codec is None else None
        places: tuple[str, ...] | None = getattr(self.codec, "places", None)
        if places is not None:
            clipped = getattr(self.codec, "value_range", None)
        return NoisedSpace(self.alphas_cumprod, self.sample_shape, self.space, clipped, places)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        own: torch.device | None = getattr(self.network, "device", None)
        return next(self.network.parameters(), torch.empty(0)).device if own is None else own

    @property
    def unconditional(self) -> Conditional:
        """The one unconditional leaf of this denoiser, or of its base, so that it merges and cancels in sums."""
        if self.base is not None:
            return self.base.unconditional
        known: dict[str, Any] = self.__dict__
        if (leaf := known.get("_unconditional")) is not None:
            return cast("Conditional", leaf)
        if not self.null_trained:
            raise CompositionError(
                "got `&`, `~` or guidance on a denoiser that never trained its unconditional row u; expected one, such "
                "as the label that `adopt(..., null=)` names, or u learned from empty compositions; without it write "
                "weights that sum to 1, such as `0.5 * a + 0.5 * b`, or `a | b` for samples that fit one of them"
            )
        null = Condition.unconditional(*self.token_shape, device=self.device)
        made = Conditional(self, null, name="u", sampling=known.get("_sampling"))
        return cast("Conditional", known.setdefault("_unconditional", made))  # atomic: the first thread's leaf stays

    def sample_u_as(self, sampling: SamplingDefaults) -> None:
        """Says how u is sampled where it stands alone; what the first model of this denoiser says stays."""
        self.__dict__.setdefault("_sampling", sampling)

    def predict(self, leaves: Sequence[Conditional], sample: Tensor, timestep: Tensor) -> Sequence[Tensor]:
        """As `LeafGroup.predict`. Costs one row per leaf and sample, and one trunk pass per sample."""
        batch = len(sample)
        condition = Condition.cat([leaf.condition.expand(batch).to(sample.device) for leaf in leaves])
        owner = torch.arange(batch, device=sample.device).repeat(len(leaves))
        return rows(self, trunk(self, sample, timestep), condition, owner).split(batch)

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """What the network is given of variance-preserving samples (B, C, H, W) at timesteps (B,), see `input_norm`."""
        norm = input_norm(self.alphas_cumprod, timestep, self.prediction_type, sample)
        return sample if norm is None else sample / norm

    def predict_some(
        self, leaves: Sequence[Conditional], owners: Sequence[Tensor], sample: Tensor, timestep: Tensor
    ) -> Sequence[Tensor]:
        """As `predict_some` of a `LeafGroup`. Costs sum_k N_k rows in one batch, and a trunk pass per sample in use.

        The rows of a condition take turns, so that the B samples may be several views of as many samples as it has.
        """
        conditions = [leaf.condition.to(sample.device) for leaf in leaves]
        batch = len(sample)
        if wrong := [len(one) for one in conditions if not len(one) or batch % len(one)]:
            raise InputError(
                f"got a condition of {wrong[0]} rows for a batch of {batch}; expected 1 or {batch}, or a divisor"
            )
        condition = Condition.cat([one[owner % len(one)] for one, owner in zip(conditions, owners, strict=True)])
        used, owner = torch.cat([*owners]).unique(return_inverse=True)
        predicted = rows(self, trunk(self, sample[used], timestep[used]), condition, owner)
        return predicted.split([len(own) for own in owners])

    @property
    def decode(self) -> Callable[[Tensor], Tensor] | None:
        """Latents (B, C, H, W) to images (B, 3, H, W) through the codec; None for pixels."""
        return None if self.codec is None else self.codec.decode

    @property
    def finish(self) -> Callable[[Composition, Tensor], Tensor] | None:
        """What the network makes of pictures (B, 3, H, W) of a composition, such as sharp edges; None for most."""
        return getattr(self.network, "finish", None)

    def to(self, device: torch.device | str) -> Denoiser:
        """The denoiser on that device. The network is moved in place; it is this denoiser where the schedule is there.

        Raises:
            InputError: the device "meta", which would lose the weights.
        """
        if torch.device(device).type == "meta":
            raise InputError("got the device 'meta', which has no memory for weights; expected one such as 'cpu'")
        network, alphas_cumprod = self.network.to(device), self.alphas_cumprod.to(device)
        if alphas_cumprod is self.alphas_cumprod:
            return self
        return attrs.evolve(self, network=network, alphas_cumprod=alphas_cumprod)

    def __repr__(self) -> str:
        network = type(self.network).__name__
        return f"Denoiser({network}, predicts {self.prediction_type} {self.sample_shape}, rule {self.rule})"


@attrs.frozen(eq=False, repr=False)
class Conditional(Composable):
    """The leaf: one denoiser under one condition. It is compared by identity.

    Args:
        denoiser: the network with its schedule; see `energycomp.denoisers.Denoiser`.
        condition: 1 row for a whole batch, or B rows, one per sample; of n rows, sample i has row i mod n.
        name: what `repr` and errors call it.
        opened: the condition with its attributes left open, for the guidance `attributes`; None where it has none.
        known: the name of its model, and how many components of it an image has at most; samples of more are warned of.
        is_open: whether it is what that guidance compares with: a component whose attributes were left open.
        values: what the condition stands for, (1, *V) or (B, *V), for the `prior` of `Composer.sample`.
        sampling: how it is sampled where a person says nothing, as its model does; None without a model.

    Raises:
        CompositionError: a condition whose tokens are not those that the denoiser takes.

    >>> from energycomp.testing import tiny_model
    >>> denoiser = tiny_model().denoiser  # whose rows are one token of two numbers
    >>> leaf = Conditional(denoiser, Condition(torch.tensor([[[0.3, 0.4]]])), name="mine")
    >>> leaf & denoiser.unconditional, leaf.eps(torch.zeros(5, 3, 16, 16), torch.full((5,), 500.0)).shape
    (mine, torch.Size([5, 3, 16, 16]))
    """

    denoiser: Denoiser
    condition: Condition
    name: str = "component"
    opened: Condition | None = None
    known: tuple[str, int] | None = None
    is_open: bool = False
    values: Tensor | None = None
    sampling: SamplingDefaults | None = None

    def __attrs_post_init__(self) -> None:
        if self.condition.shape != self.denoiser.token_shape:
            got = f"got a condition with tokens {self.condition.shape}"
            expected = self.denoiser.token_shape
            raise CompositionError(f"{got}; expected {expected}; make {self.name} with its model's conditioner")

    @property
    def noised_space(self) -> NoisedSpace:
        return self.denoiser.noised_space

    group = property(attrgetter("denoiser"))  # it predicts all its leaves in one batch
    unconditional = property(attrgetter("denoiser.unconditional"))

    def __repr__(self) -> str:
        return self.name


def compose_rows(
    denoiser: Denoiser, shared: Trunk, condition: Condition, owner: Tensor, weight: Tensor | None = None
) -> Tensor:
    """The composed predictions (B, C, H, W) of samples of any number of components each, by the denoiser's rule.

    They have the network's own prediction type. Costs R rows, and for the product rule one more for each sample whose
    weights do not sum to 1.

    Args:
        shared, condition, owner: as for `rows`.
        weight: of each row (R,), which makes a component stronger or weaker; 1 when left out.

    Raises:
        CompositionError: under the rule "mean", a sample without components or with weights that sum to 0.
    """
    batch = len(shared)
    owner = owner.to(shared.sample.device)
    weight = torch.ones(len(owner), device=owner.device) if weight is None else weight.to(owner.device)
    row, null = rule_weights(denoiser.rule, weight.new_zeros(batch).index_add(0, owner, weight))
    weight = weight * row[owner]
    if identifies_null(denoiser.rule):
        free = (null.abs() >= LEAST_VALUE).nonzero()[:, 0]
        u = Condition.unconditional(*denoiser.token_shape, rows=len(free), device=condition.rows.device)
        condition = Condition.cat([condition, u.to(dtype=condition.rows.dtype)])
        weight = torch.cat([weight, null[free]])
        owner = torch.cat([owner, free])
    predictions = rows(denoiser, shared, condition, owner)
    predictions = predictions * by_sample(weight, predictions.ndim)
    composed = predictions.new_zeros(batch, *predictions.shape[1:])
    return composed.index_add(0, owner, predictions)
