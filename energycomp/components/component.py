"""What a component is: protocols of energies, of leaves, and of the groups that predict leaves in one batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from energycomp.components.prediction import PredictionType
from energycomp.components.rules import Rule
from energycomp.components.space import NoisedSpace
from energycomp.components.weights import AnyWeight


@runtime_checkable
class EnergyComponent(Protocol):
    """Anything that predicts noise: eps_k(x, t) = sigma_t grad_x E_k(x, t) (thesis eq. 2.33).

    These two members are all that a component of your own needs to be composed; derive it from `energycomp.Composable`
    for the operators. Components are keys of a composition, compared by identity: use `attrs.frozen(eq=False)`.
    One with an attribute `unconditional`, a component whose own is itself, can be used with `&` and `~`. One with an
    energy (`HasEnergy`) can be mixed with `|`. Its `__repr__` is its name in formulas and errors. Every component
    counts as 1 in the mass. It is not registered; `energycomp_lab.checks.check_component` checks it.

    >>> from energycomp.components import Composable, cosine_schedule, signal_noise
    >>> class White(Composable):
    ...     noised_space = NoisedSpace(cosine_schedule(), (3, 8, 8))  # to add it to a scene, that of the scene
    ...
    ...     def eps(self, sample, timestep):  # E = |x|^2 / 2 at every noise level
    ...         return signal_noise(self.noised_space.alphas_cumprod, timestep)[1].to(sample) * sample
    >>> isinstance(White(), EnergyComponent)
    True
    """

    @property
    def noised_space(self) -> NoisedSpace:
        """Where its samples live; components of equal spaces can be composed."""

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Noise prediction (B, C, H, W) for a noised sample (B, C, H, W) at timesteps (B,), real numbers in [0, T]."""


@runtime_checkable
class HasEnergy(Protocol):
    """A component that knows its energy and not only the gradient.

    >>> from energycomp.components import Gaussian
    >>> from energycomp.testing import tiny_model
    >>> isinstance(Gaussian(), HasEnergy), isinstance(tiny_model()(0.5, 0.5), HasEnergy)
    (True, False)
    """

    def energy(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Energies (B,) of a noised sample (B, C, H, W) at timesteps (B,)."""


@runtime_checkable
class Leaf(Protocol):
    """A component that is predicted in one batch with the other leaves of its group, such as those of one denoiser.

    >>> from energycomp.testing import tiny_model
    >>> model = tiny_model()
    >>> model(0.1, 0.2).group is model(0.3, 0.4).group is model.denoiser
    True
    """

    @property
    def group(self) -> LeafGroup:
        """What predicts it."""


@runtime_checkable
class HasUnconditional(Protocol):
    """A component with an unconditional one, whose own is itself: for `&`, `~` and guidance."""

    @property
    def unconditional(self) -> Any:
        """That component; None for one that has none after all, such as a wrapped one."""


@runtime_checkable
class Compound(Protocol):
    """A leaf that is made of whole compositions, such as a mixture: what guides components guides those inside.

    >>> from energycomp.components import Gaussian
    >>> either = Gaussian(0.0, 1.0, name="a") | Gaussian(2.0, 1.0, name="b")
    >>> [(isinstance(leaf, Compound), len(leaf.inside)) for leaf in either.terms]
    [(True, 2)]
    """

    @property
    def inside(self) -> tuple[Any, ...]:
        """These compositions."""

    def remade(self, compositions: Sequence[Any], /) -> Any:
        """The same leaf of other ones, as many."""


@runtime_checkable
class Gathers(Protocol):
    """A leaf that takes components inside when it is composed with them by `&`, such as what is observed."""

    def gathered(self, others: Sequence[Any], /) -> Any:
        """The leaf with these components inside, too."""


@runtime_checkable
class Doubts(Protocol):
    """A leaf that knows what its clean samples must fit, such as what is observed."""

    def doubts(self, samples: Tensor, timestep: float, *, is_drawn: bool, is_weighed: bool) -> Sequence[str]:
        """Reasons not to trust samples (B, *shape) of the noised space, one sentence each.

        Args:
            timestep: of the last noise level.
            is_drawn: whether they are draws of what that level leaves open, and not its mean.
            is_weighed: whether their sampler weighed particles.
        """


@runtime_checkable
class HasDenoiser(Protocol):
    """A leaf of a model, told from that of another one of the same name by its denoiser."""

    @property
    def denoiser(self) -> Any: ...


@runtime_checkable
class HasCondition(Protocol):
    """A leaf under a condition, which may have a row for each sample."""

    @property
    def condition(self) -> Any: ...


def unconditional_of(component: Any) -> Any:
    """The unconditional component of one; None where it has none."""
    return component.unconditional if isinstance(component, HasUnconditional) else None


class LeafGroup(Protocol):
    """Predicts many leaves in one batch. Groups are keys, compared by identity.

    >>> from energycomp.testing import tiny_model
    >>> model = tiny_model()
    >>> group, noised = model(0.1, 0.2).group, torch.zeros(5, 3, 16, 16)
    >>> [one.shape for one in group.predict([model(0.1, 0.2), model(0.3, 0.4)], noised, torch.zeros(5))]
    [torch.Size([5, 3, 16, 16]), torch.Size([5, 3, 16, 16])]
    """

    @property
    def prediction_type(self) -> PredictionType:
        """The type of its predictions."""

    @property
    def rule(self) -> Rule | None:
        """The rule under which its leaves were trained to be composed, or None."""

    @property
    def device(self) -> torch.device | None:
        """Where samples must be; None where the noise schedule is."""

    def predict(self, leaves: Sequence[Any], sample: Tensor, timestep: Tensor) -> Sequence[Tensor]:
        """One prediction (B, C, H, W) per leaf, of its `prediction_type`."""

    @property
    def decode(self) -> Callable[[Tensor], Tensor] | None:
        """Samples (B, C, H, W) to images (B, 3, H, W) through the codec of their space; None without a codec."""


@runtime_checkable
class RaggedGroup(Protocol):
    """A group that predicts its leaves in one batch where each counts for some of the samples only.

    Other groups are asked for one leaf after another.

    >>> from energycomp.testing import tiny_model
    >>> model = tiny_model()
    >>> group, owners = model(0.1, 0.2).group, [torch.tensor([0]), torch.tensor([0, 2])]
    >>> leaves = [model(0.1, 0.2), model(0.3, 0.4)]
    >>> [len(one) for one in group.predict_some(leaves, owners, torch.zeros(5, 3, 16, 16), torch.zeros(5))]
    [1, 2]
    """

    def predict_some(
        self, leaves: Sequence[Any], owners: Sequence[Tensor], sample: Tensor, timestep: Tensor
    ) -> Sequence[Tensor]:
        """One prediction (N_k, C, H, W) per leaf, for the samples (N_k,) of a batch (B, C, H, W) that it counts for."""


class WeightedSum(Protocol):
    """A weighted sum of leaves."""

    @property
    def terms(self) -> Mapping[Any, AnyWeight]:
        """The weight of each leaf."""
