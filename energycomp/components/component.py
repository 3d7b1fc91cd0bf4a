"""What a component is: protocols of energies, of leaves, and of the groups that predict leaves in one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from energycomp.components.prediction import PredictionType
from energycomp.components.rules import Rule
from energycomp.components.space import NoisedSpace


@runtime_checkable
class EnergyComponent(Protocol):
    """Anything that predicts noise: eps_k(x, t) = sigma_t grad_x E_k(x, t) (thesis eq. 2.33).

    These two members are all that a component of your own needs to be composed; derive it from `energycomp.Composable`
    for the operators. Components are keys of a composition, compared by identity: use `attrs.frozen(eq=False)`.
    Its `__repr__` is its name in formulas and errors. Every component counts as 1 in the mass. It is not registered;
    `energycomp_lab.checks.check_component` checks it. It may have more members:

    - `unconditional`: a component whose own is itself, for `&`, `~` and guidance.
    - `energy`, see `HasEnergy`, to be mixed by `|`.
    - `group: LeafGroup`: what predicts it in one batch with others.
    - `compositions`, which it is made of, with `remade(compositions)`, the same of other ones: what guides
      components guides those inside.
    - `gathered(components)`: itself with these inside, too, which `&` then asks for.
    - `doubts(samples, timestep, is_drawn=, is_weighed=)`: reasons not to trust samples (B, *shape) of the noised space,
      at the last noise level; whether they are draws, not the mean, and whether their particles were weighed.

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


def unconditional_of(component: Any) -> Any:
    """The unconditional component of one; None where it has none."""
    return getattr(component, "unconditional", None)


def compositions_in(leaf: Any) -> tuple[Any, ...]:
    """The compositions that a leaf is made of, such as a mixture; none of most leaves."""
    inside: tuple[Any, ...] = getattr(leaf, "compositions", ())
    return inside


class LeafGroup(Protocol):
    """Predicts many leaves in one batch. Groups are keys, compared by identity.

    It may have `predict_some(leaves, owners, sample, timestep)`, which predicts each leaf for some samples (N_k,) of
    the batch only: one (N_k, C, H, W) per leaf. Other groups are asked for one leaf after another.

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
