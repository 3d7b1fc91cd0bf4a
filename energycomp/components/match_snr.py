"""Components of another noise schedule: they are predicted at the timestep of equal log-SNR."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any
from weakref import WeakValueDictionary

import attrs
import torch
from torch import Tensor

from energycomp.components.algebra import Composable, Composition, Mixture
from energycomp.components.component import EnergyComponent, HasEnergy, unconditional_of
from energycomp.components.groups import WrappedGroup, group_of
from energycomp.components.precision import wide_type
from energycomp.components.predict import predict_group
from energycomp.components.prediction import convert
from energycomp.components.space import NoisedSpace, log_snr, mismatch, timestep_of
from energycomp.components.terms import Terms
from energycomp.errors import CompositionError, InputError


def match_snr(component: EnergyComponent, space: NoisedSpace) -> Any:
    """A component of another noise schedule as one of this space, so that both can be composed.

    Variance-preserving samples of two schedules are the same samples x = s x0 + sigma eps where their log-SNR is the
    same. So each leaf is predicted at the timestep of its own schedule with the log-SNR of the given timestep
    (`timestep_of`), whatever its prediction type, and a flow model composes with a diffusion model over the same
    pixels or latents. Costs what the component costs: leaves of one denoiser stay one batch. Beyond the ends of its
    own schedule a leaf is asked at the end. What is kept is its x0 at noisier levels, and its score at less noisy ones.

    A leaf is matched to equal spaces once: the unconditional leaf of a matched component merges and cancels in sums.

    Args:
        component: a leaf, a composition or a mixture.
        space: where it is to be composed, such as the `noised_space` of another component.

    Returns:
        A leaf or a composition; the component itself where its space is the given one.

    Raises:
        CompositionError: a space of another identity, sample shape or value range.
        InputError: another object than a `NoisedSpace`.

    >>> import torch
    >>> from energycomp.components import cosine_schedule, flow_schedule
    >>> from energycomp.testing import Gaussian
    >>> diffusion = Gaussian(0.5, name="diffusion", alphas_cumprod=cosine_schedule())
    >>> flow = Gaussian(0.5, name="flow", alphas_cumprod=flow_schedule())
    >>> both = 0.5 * diffusion + 0.5 * match_snr(flow, diffusion.noised_space)
    >>> both
    0.5 diffusion + 0.5 flow
    >>> sample, timestep = torch.ones(1, 1, 1, 1), torch.tensor([300.0])
    >>> torch.allclose(both.eps(sample, timestep), diffusion.eps(sample, timestep))
    True
    """
    if not isinstance(space, NoisedSpace):
        raise InputError(
            f"got an object of {type(space).__name__} as the space; expected a NoisedSpace; give the `noised_space` of "
            "the other component"
        )
    whole = Composition.of(component)
    own = whole.noised_space
    if own == space:
        return component
    if (found := mismatch(own, space)) is not None:
        what, one, two = found
        raise CompositionError(
            f"got {component!r} with {what} {one} for a space with {what} {two}; expected one {what}, since only the "
            "noise schedule is matched; match components over the same pixels or latents"
        )
    if isinstance(component, Mixture):
        return attrs.evolve(component, components=[match_snr(part, space) for part in component.components])
    if len(whole.terms) == 1 and next(iter(whole.terms)) is component:
        return _match_leaf(component, space)
    return Composition(Terms((match_snr(leaf, space), weight) for leaf, weight in whole.terms.items()))


@attrs.frozen(eq=False)
class _Group(WrappedGroup):
    """The group of matched leaves of one schedule: the same samples and noise levels, other timesteps."""

    # Notation: variable -> symbol
    #     s, n            signal and noise of the own schedule at the timestep that a leaf is asked at
    #     signal, noise   those of the space, which differ from s, n beyond the ends of the own schedule
    #
    # signal < s, noisier: x0 is that of the leaf, which is nearly the mean of the data
    # noise < n, less noisy: the score (s x0 - x) / n^2 is that of the leaf, whose density is nearly that of the data

    own: NoisedSpace
    space: NoisedSpace

    def own_timestep(self, timestep: Tensor) -> Tensor:
        """Timesteps (B,) of the components with the log-SNR of timesteps of the space."""
        snr = log_snr(self.space.alphas_cumprod, timestep)
        return timestep_of(self.own.alphas_cumprod, snr).to(torch.promote_types(timestep.dtype, torch.float32))

    def predictions(
        self, leaves: Sequence[_Matched], owners: Sequence[Tensor | None], sample: Tensor, timestep: Tensor
    ) -> Sequence[Tensor]:
        inner = [leaf.inner for leaf in leaves]
        at = self.own_timestep(timestep)
        levels = *self.own.levels(at, sample.dtype), *self.space.levels(timestep, sample.dtype)
        kind = self.prediction_type

        def matched(prediction: Tensor, owner: Tensor | None) -> Tensor:
            of = slice(None) if owner is None else owner
            x, s, n, signal, noise = (values[of] for values in (sample, *levels))
            x0 = convert(prediction, x, s, n, source=kind, target="sample")
            x0 = torch.where(noise < n, (x + (noise / n).square() * (s * x0 - x)) / signal, x0)
            return convert(x0, x, signal, noise, source="sample", target=kind)

        return list(map(matched, predict_group(self.inner, inner, owners, sample, at), owners))


@attrs.frozen(eq=False, repr=False)
class _Matched(Composable):
    """A leaf at the timesteps of equal log-SNR of its own schedule."""

    inner: Any
    group: _Group

    noised_space = property(attrgetter("group.space"))

    @property
    def unconditional(self) -> Any:
        """The unconditional leaf of the component, matched to the same space; None where it has none."""
        unit = unconditional_of(self.inner)
        return None if unit is None else match_snr(unit, self.group.space)

    def __reduce__(self) -> tuple[Any, ...]:
        return match_snr, (self.inner, self.noised_space)  # a copy is matched once, too

    def __repr__(self) -> str:
        return repr(self.inner)


@attrs.frozen(eq=False, repr=False)
class _MatchedEnergy(_Matched):
    """A matched leaf whose component has an energy; see `_Group`.

    # noise^2 E = (1 - signal / s) |x|^2 / 2 + (signal / s) n^2 E_own where signal < s, else E = E_own: its gradient is
    # that of the predictions
    """

    def energy(self, sample: Tensor, timestep: Tensor) -> Tensor:
        at = self.group.own_timestep(timestep)
        s, n = (level.flatten() for level in self.group.own.levels(at, wide_type(at.device)))
        signal, noise = (level.flatten() for level in self.noised_space.levels(timestep, wide_type(timestep.device)))
        share = (signal / s).clamp(max=1.0)
        white = sample.to(wide_type(sample.device)).square().flatten(1).sum(1) / 2
        found = (1.0 - share) * white + share * n.square() * self.inner.energy(sample, at)
        return (found / torch.maximum(noise, n).square()).to(sample.dtype)


# Values hold what their keys are the ids of, so that an id is not used again while its entry is there.
_groups: WeakValueDictionary[tuple[int, NoisedSpace, NoisedSpace], _Group] = WeakValueDictionary()
_leaves: WeakValueDictionary[tuple[int, int], _Matched] = WeakValueDictionary()


def _match_leaf(leaf: Any, space: NoisedSpace) -> _Matched:
    inner = group_of(leaf)
    own = leaf.noised_space
    group = _groups.setdefault((id(inner), own, space), _Group(inner, own, space))
    kind = _MatchedEnergy if isinstance(leaf, HasEnergy) else _Matched
    return _leaves.setdefault((id(leaf), id(group)), kind(leaf, group))
