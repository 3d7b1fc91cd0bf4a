"""The problem that a solver sees: the denoising error of an image as a function of values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, get_args

import attrs
import torch
from torch import Tensor

from energycomp.components import MixedSupport, identifies_null, rule_weights
from energycomp.components.conditioning import Conditioner, groups_of, mixed_of
from energycomp.components.ledger import count_rows
from energycomp.components.values import values_of
from energycomp.denoisers import Denoiser, Trunk
from energycomp.errors import InputError
from energycomp.inference.atoms import quadratic_form
from energycomp.inference.noise import NoiseBank, draw_bank
from energycomp.inference.posterior import Posterior
from energycomp.inference.predicted import Predicted
from energycomp.inference.prior import Prior, PriorOfAtoms, as_prior
from energycomp.inference.quadratic import QuadraticForm
from energycomp.inference.slots import Slot, attribute_slots, count_range, value_slot
from energycomp.inference.windows import WindowForm, window_form
from energycomp.models.defaults import Defaults
from energycomp.models.model import Model
from energycomp.models.proposals import Proposals

Needs = Literal["finite", "continuous", "differentiable"]  # the last: continuous, and gradients are followed


@attrs.frozen(eq=False)
class Problem:
    """All that a solver sees: the denoising error of an image as a function of values, and which values are legal.

    What is predicted of a noise bank once, the trunk and u, is kept as long as the bank itself: a solver that is done
    with a bank drops it.

    Args:
        observation: one sample (1, C, H, W), encoded.
        slots: one for each component of the greatest count.
        counts: least and greatest count; equal where the count is known.
        exchangeable: whether the order of the slots has no meaning.
        distinct: whether all values of an answer must differ.
        value_shape: V; of a conditioner with attributes that are left open, that of its continuous numbers.
        default_draws: how many draws an inference averages over unless the solver wants another number.
        posterior: over answers, by their errors.
        mixed: the support of a `MixedConditioner`, whose numbers are sought with all attributes open; None for any
            other, and where candidates are given.
        asks_attributes: whether the attributes of such a conditioner are asked for.
        init: values (K, *V) to start a search from; None for a search from nothing.
        has_baseline: whether the model has an unconditional prediction.

    >>> from energycomp.testing import tiny_model
    >>> problem = make_problem(torch.zeros(1, 3, 16, 16), tiny_model())
    >>> bank = problem.draw(5, torch.Generator().manual_seed(0))
    >>> problem.errors(torch.rand(2, 3, 2), bank).shape  # N = 2 candidates of K = 3 places
    torch.Size([2, 5])
    """

    observation: Tensor
    slots: tuple[Slot, ...]
    counts: tuple[int, int]
    exchangeable: bool
    distinct: bool
    value_shape: tuple[int, ...]
    default_draws: int
    posterior: Posterior
    _denoiser: Denoiser
    _conditioner: Conditioner
    _defaults: Defaults
    mixed: MixedSupport | None = None
    asks_attributes: bool = True
    init: Tensor | None = None
    _prior: Prior | None = None
    has_baseline: bool = True
    _propose: Callable[[], Proposals | None] | None = None
    _predicted: Predicted = attrs.field()

    @_predicted.default
    def _of_the_denoiser(self) -> Predicted:
        return Predicted(self._denoiser, self.observation)

    def prior(self, values: Tensor) -> Tensor | None:
        """Energies (N,) of candidates (N, K, *V) before the image is seen; None without a prior. Costs no row.

        Attributes that are not sought yet are open.
        """
        return None if self._prior is None else self._prior.energy(self._whole(values))

    def with_prior(self, errors: Tensor, values: Tensor) -> Tensor:
        """Errors J, (N,) or (N, S), of candidates (N, K, *V) with their prior, see `Posterior.add_prior`."""
        energies = self.prior(values)
        if energies is None:
            return errors
        return self.posterior.add_prior(errors, energies.view(-1, *[1] * (errors.ndim - 1)))

    def _whole(self, values: Tensor) -> Tensor:
        """Values of the conditioner, those of attributes that are not sought yet included."""
        if self.mixed is None or values.shape[-1] != self.mixed.length:
            return values
        return self.mixed.opened(values)

    def propose(self) -> Proposals | None:
        """What the network of proposals, which has seen such images, makes of this one; None without it. Costs no row.

        Values are those of `value_shape`, with attributes where these are asked for.
        """
        return None if self._propose is None else self._propose()

    @property
    def rows(self) -> int:
        """Network rows spent so far."""
        return self._predicted.spent.rows

    @property
    def device(self) -> torch.device:
        """Where the network is, and so where values should be."""
        return self._denoiser.device

    @property
    def denoiser(self) -> Denoiser:
        """Whose errors they are, for a solver that knows its network."""
        return self._denoiser

    @property
    def conditioner(self) -> Conditioner:
        """What makes conditions of values."""
        return self._conditioner

    def trunk(self, bank: NoiseBank) -> Trunk:
        """The trunk of the observation under every draw. Costs S trunk passes, once."""
        return self._predicted.trunk(bank)

    def spend(self, rows: int) -> None:
        """Counts network evaluations that a solver made itself."""
        self._predicted.spent.rows += rows

    def draw(self, n: int, generator: int | torch.Generator | None = None) -> NoiseBank:
        """n draws over the model's range of timesteps, stratified. Costs no row; `InputError` for no draws."""
        self.check_size(1, n)
        return draw_bank(
            n,
            self._denoiser.sample_shape,
            self._denoiser.alphas_cumprod,
            timesteps=self._defaults.timesteps,
            gamma=self._defaults.gamma,
            generator=generator,
        )

    def errors(self, values: Tensor, bank: NoiseBank) -> Tensor:
        """Denoising errors (N, S) of N candidates of K values each, (N, K, *V), differentiable in the values.

        Costs N K S rows and, under the product rule, S for u; S trunk passes. Like all methods it spends none on u and
        the trunk of a bank seen before, and raises `InputError` for more values and draws than fit into memory.

        >>> from energycomp.testing import bumps_model, planted
        >>> model, places = bumps_model(), torch.tensor([[0.2, 0.3], [0.7, 0.8]])
        >>> problem = make_problem(planted(model, places), model)
        >>> right, wrong = problem.errors(torch.stack([places, places + 0.1]), problem.draw(4, 0)).mean(1).tolist()
        >>> right < 1e-3 < wrong
        True
        """
        # One batch of all values of all candidates
        candidates, count = values.shape[:2]
        condition = self._conditioner(values.reshape(candidates * count, *values.shape[2:]))
        return self._predicted.errors(self._predicted.terms(condition, candidates, count, bank), bank)

    def mixed_errors(self, weights: Tensor, atoms: Tensor, bank: NoiseBank) -> Tensor:
        """Denoising errors (N, S) of N candidates of K mixed conditions each, differentiable in their weights.

        The condition of a component is the weighted sum of those of M atoms (M, *V): of one-hot tokens, a soft one.
        The weights (N, K, M) are shares that sum to 1. Costs what `errors` costs.
        """
        candidates, count = weights.shape[:2]
        mixed = self._conditioner(atoms.to(self.device)).mixed(weights.flatten(0, 1))
        return self._predicted.errors(self._predicted.terms(mixed, candidates, count, bank), bank)

    def baseline_errors(self, bank: NoiseBank) -> Tensor | None:
        """Denoising errors (S,) of the unconditional prediction; None where the model's rule never identified it.

        Costs S rows and S trunk passes.
        """
        if not self.has_baseline:
            return None
        with torch.no_grad():
            return self._predicted.errors_of_null(bank)

    def residuals(self, values: Tensor, bank: NoiseBank) -> Tensor:
        """What K values (K, *V) do not explain of each draw: (S, C, H, W), whose squared sum is the error.

        Costs what `errors` costs for one candidate.
        """
        with torch.no_grad():
            condition = self._conditioner(values.to(self.device))
            return self._predicted.residuals(self._predicted.terms(condition, 1, len(values), bank), bank)

    def explained(self, values: Tensor, bank: NoiseBank) -> tuple[Tensor, Tensor | None]:
        """The `residuals` r of K values, and the part R (K, C, H, W) of the error that each of them explains.

        R_k = mean_s(r_sk^2 - r_s^2), where r_sk is the residual of the composition without component k; its sum is
        how much the error rises without it. None for no values, and for the only one of a model without u. Costs
        what `residuals` costs, and for the only value of a mean S rows for u.

        >>> from energycomp.testing import bumps_model, planted
        >>> model, places = bumps_model(), torch.tensor([[0.2, 0.3], [0.7, 0.8]])
        >>> problem = make_problem(planted(model, places), model)
        >>> rest, parts = problem.explained(places, problem.draw(4, 0))
        >>> x, y = divmod(int(parts[1].sum(0).argmax()), 16)[::-1]  # the pixel that the second object explains best
        >>> x / 16, y / 16
        (0.6875, 0.75)
        """
        count = len(values)
        in_windows = self.in_windows(values, bank)
        if in_windows is not None:
            return in_windows.explained()
        with torch.no_grad():
            # r, the residual of all components together
            terms = self._predicted.terms(self._conditioner(values.to(self.device)), 1, count, bank)
            left = self._predicted.residuals(terms, bank)
            if count == 0 or (count == 1 and not self.has_baseline):
                return left, None
            parts = []
            for k in range(count):
                # r_k, the residual of all others; without others, that of u
                if count == 1:
                    rest = self._predicted.residuals_of_null(bank)
                else:
                    others = torch.cat([terms[:, :, :k], terms[:, :, k + 1 :]], dim=2)
                    rest = self._predicted.residuals(others, bank)
                # R_k = mean_s(r_sk^2 - r_s^2)
                parts.append((rest.square() - left.square()).mean(0))
        return left, torch.stack(parts)

    def unexplained(self, bank: NoiseBank) -> Tensor:
        """What the unconditional prediction does not explain of each draw, (S, C, H, W). Costs S rows."""
        with torch.no_grad():
            return self._predicted.residuals_of_null(bank)

    def quadratic(self, atoms: Tensor, bank: NoiseBank) -> QuadraticForm:
        """The quadratic form over M atoms (M, *V): every subset and weighting costs only arithmetic afterwards.

        Costs M S rows and, under the product rule, S for u; S trunk passes. Subsets of atoms are 0/1 weights under the
        rules sum and product, and 1/K under mean: `weighting` makes them.

        >>> from energycomp.testing import bumps_model, planted
        >>> model, places = bumps_model(), torch.tensor([[0.2, 0.3], [0.7, 0.8], [0.5, 0.5]])
        >>> problem = make_problem(planted(model, places[:2]), model)
        >>> form = problem.quadratic(places, problem.draw(4, 0))
        >>> problem.rows, form.errors_of_each(torch.tensor([[0, 1], [0, 2], [1, 2]])).mean(0).argmin()
        (16, tensor(0))
        """
        # What all atoms share: the trunk, and u where the rule has one
        self.check_size(len(atoms), len(bank))
        shared = self._predicted.trunk(bank)
        null = self._predicted.null(bank) if self.has_empty else None
        # Predictions of the atoms, and their inner products
        with count_rows(self._predicted.spent), torch.no_grad():
            condition = self._conditioner(atoms.to(self.device))
            form = quadratic_form(self._denoiser, self.observation, bank, condition, shared, null)
        # The form knows the rule, and the prior of its subsets
        prior = None
        if self._prior is not None:
            prior = PriorOfAtoms(self._prior, self._whole(atoms.to(self.device)), self.posterior.add_prior)
        return attrs.evolve(form, prior=prior, weighting=self.weighting)

    def in_windows(self, values: Tensor, bank: NoiseBank) -> WindowForm | None:
        """The form over values (M, *V) of a network whose components show in windows alone; None for any other.

        Costs M S rows on windows, and S trunk passes.
        """
        return window_form(self._predicted, self._conditioner(values.to(self.device)), bank)

    @property
    def has_empty(self) -> bool:
        """Whether K = 0 is an answer: the rule identifies an unconditional prediction."""
        return identifies_null(self._denoiser.rule)

    def weighting(self, count: int) -> float:
        """The weight of each of `count` components under the denoiser's rule."""
        return rule_weights(self._denoiser.rule, float(max(count, 1)))[0]

    def check(self, needs: str | None, solver: str, *, takes_init: bool = False) -> None:
        """Raises `InputError` where a solver's class attributes do not fit, before any row is spent.

        >>> from energycomp.testing import tiny_model
        >>> make_problem(torch.zeros(1, 3, 16, 16), tiny_model()).check("finite", "enumerate")
        Traceback (most recent call last):
        energycomp.errors.InputError: got continuous slots for 'enumerate'; expected finite ones; use ...
        """
        if needs not in (*get_args(Needs), None):
            known = ", ".join(map(repr, get_args(Needs)))
            raise InputError(f"got needs = {needs!r} of {solver!r}; expected {known} or None; correct the solver")
        if self.init is not None and (not takes_init or self.slots[0].candidates is not None):
            expected = "expected a solver that moves values, such as pursuit or sgd, and no candidates="
            raise InputError(f"got init= for {solver!r}; {expected}; leave init out")
        # Values that are not listed, for a solver that tries all
        if needs == "finite" and any(slot.candidates is None for slot in self.slots):
            expected = "expected finite ones; use pursuit or sgd, or pass candidates="
            raise InputError(f"got continuous slots for {solver!r}; {expected}")
        # Values that cannot move, for a solver that moves them
        listed = any(slot.support.is_discrete or slot.candidates is not None for slot in self.slots)
        if needs in ("continuous", "differentiable") and listed:
            expected = "expected continuous ones; use enumerate or pursuit, or leave candidates= out"
            raise InputError(f"got slots of listed values for {solver!r}; {expected}")

    def check_size(self, values: int, draws: int) -> None:
        """Raises `InputError` where predictions of `values` under `draws` would take too much memory."""
        self._predicted.check_size(values, draws)


def make_problem(
    observation: Tensor,
    model: Model,
    *,
    count: int | Sequence[int] | None = None,
    candidates: Any = None,
    prior: Any = None,
    attributes: bool = True,
    init: Any = None,
) -> Problem:
    """The problem of reading one encoded sample (1, C, H, W) with a model.

    Where the conditioner has attributes (`groups`) the slots are theirs, one each, in their order.

    Args:
        count: the number of components, or least and greatest; the model's defaults when left out.
        candidates: restrict every slot to these values, as `values_of` takes them; an attribute without one is not
            asked about. Without them, the slots of a `MixedConditioner` are its continuous numbers.
        prior: energies of values, as `infer` takes them; counts that it lists are the range when `count` is left out.
        attributes: whether those of a `MixedConditioner` are asked for.
        init: values (K, *V) to start from, as `values_of` takes them.

    Raises:
        InputError: a count, candidates or values that the model does not have, or a prior for a model without beta.

    >>> from energycomp.testing import bumps_model
    >>> problem = make_problem(torch.zeros(1, 3, 16, 16), bumps_model(), count=2)
    >>> problem.counts, problem.slots[0].candidates is None, problem.exchangeable  # places are not listed
    ((2, 2), True, True)
    """
    conditioner = model.conditioner
    defaults = model.defaults
    # The prior, which beta weighs against the error
    prior = None if prior is None else as_prior(prior)
    if prior is not None and defaults.beta is None:
        raise InputError(
            f"got a prior for {model.name}, whose defaults have no inverse temperature beta; expected one, which "
            "weighs errors against the prior; set Defaults.beta (docs/read.md)"
        )
    # The rule by which components explain the image: that of training, or a mean where u was never trained
    has_null_rule = identifies_null(model.denoiser.rule)
    own = "mean" if has_null_rule and not model.denoiser.null_trained else model.denoiser.rule
    rule = defaults.reading_rule or own
    if identifies_null(rule) and not model.denoiser.null_trained:
        raise InputError(
            f"got reading_rule={rule!r} for {model.name}, which has no unconditional prediction; expected 'mean'; "
            "leave it out"
        )
    counts = None if count is None else count_range(count)
    groups = groups_of(conditioner)
    mixed = None
    if groups is not None:
        # A slot for each attribute, all of which are filled
        slots, (low, high) = attribute_slots(groups, model, counts, candidates)
    else:
        # As many slots of one kind as are asked for; only the product rule has a prediction for no components
        low, high = counts or (None if prior is None else prior.counts) or defaults.counts
        if low == 0 and not identifies_null(rule):
            low = 1
            if high == 0:
                raise InputError(f"got the count 0 under the rule {rule!r}; expected at least 1")
        slots = (value_slot(model, low, candidates),) * high
        mixed = None if candidates is not None else mixed_of(conditioner)
    # Proposals are of values that are sought, without a start
    proposes = groups is None and candidates is None and init is None and model.proposals is not None
    observation = observation.to(model.denoiser.device)
    # Numbers are sought with all attributes open; these are read afterwards. Only the rule product has a baseline
    distrust = defaults.distrust if identifies_null(rule) else None
    return Problem(
        observation=observation,
        slots=slots,
        counts=(low, high),
        exchangeable=groups is None,
        distinct=defaults.distinct,
        value_shape=tuple(conditioner.value_shape) if mixed is None else (mixed.support.length,),
        default_draws=defaults.draws,
        posterior=Posterior(defaults.beta, log_errors=defaults.log_errors, distrust=distrust),
        mixed=None if mixed is None else mixed.support,
        asks_attributes=mixed is not None and attributes,
        init=None if init is None else _start_values(init, conditioner, mixed, (low, high)),
        prior=prior,
        denoiser=model.denoiser if rule == model.denoiser.rule else attrs.evolve(model.denoiser, rule=rule),
        conditioner=conditioner,
        defaults=defaults,
        has_baseline=has_null_rule and model.denoiser.null_trained,
        propose=partial(_propose, model, observation, with_words=attributes) if proposes else None,
    )


def _propose(model: Model, observation: Tensor, *, with_words: bool) -> Proposals | None:
    """The proposals of a model for one encoded sample, on its device."""
    network = None if model.proposals is None else model.proposals.network(model)
    if network is None:
        return None
    made = network.to(observation.device).propose(observation)
    mixed = mixed_of(model.conditioner)
    values = made.values.to(observation.device)
    if mixed is not None:
        numbers, codes = mixed.support.split(values)
        values = mixed.support.joined(numbers, codes) if with_words else numbers
    return attrs.evolve(made, values=values)


def _start_values(init: Any, conditioner: Conditioner, mixed: Any, counts: tuple[int, int]) -> Tensor:
    """The values to start from: of a `MixedConditioner` their numbers, since attributes are read afterwards."""
    values = values_of(conditioner, init)
    if len(values) > counts[1]:
        raise InputError(
            f"got {len(values)} values of init= and counts up to {counts[1]}; expected as many at most; "
            "leave some out, or change count="
        )
    return values if mixed is None else mixed.support.split(values)[0]
