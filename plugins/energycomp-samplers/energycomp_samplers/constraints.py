"""Constraints: energies of clean samples alone, such as a detector, a reward, a simulator or an observation.

A constraint asks for samples of p(x) exp(-w f(x)), and f has no noise levels; `energycomp_samplers.twist` has how SMC
weighs its particles by it.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import torch
from torch import Tensor

from energycomp.components import evaluate_energies
from energycomp.fields import FLAG, legal, number
from energycomp.images import decoded
from energycomp.sampling import Target

RULED_OUT = 1e6  # the energy that an infinite one counts as


@attrs.frozen(eq=False)
class Constraint:
    """What `constraint` makes. Called with images (B, ...), it returns w f, (B,)."""

    f: Callable[[Tensor], Tensor] = attrs.field(validator=legal(callable, "a function of samples"))
    weight: float = attrs.field(default=1.0, validator=number(least=0.0))
    gradient: bool = attrs.field(default=False, validator=FLAG)

    def __call__(self, images: Tensor) -> Tensor:
        energies = evaluate_energies("constraint", self.f, len(images), images).double()
        return torch.where(energies == torch.inf, energies, self.weight * energies)

    def log_density(self, target: Target, x0: Tensor) -> Tensor:
        """-w f, (G, P), of clean samples (G, P, *shape)."""
        # Constraints see what a caller of `sample` gets: images of latents, in [0, 1]
        images = decoded(x0.flatten(0, 1), "pt", decode=target.decode, value_range=target.noised_space.value_range)
        return -self(images).clamp(max=RULED_OUT).unflatten(0, x0.shape[:2]).to(x0.device)


def constraint(f: Callable[[Tensor], Tensor], weight: float = 1.0, *, gradient: bool = False) -> Constraint:
    """A constraint on samples, for `SMC(constraint=)`, `rank` and `sample_best`.

    Args:
        f: takes clean samples as `Composer.sample(output_type="pt")` gives them, (B, *shape): images in [0, 1], latents
            decoded; samples without a value range as they are. It returns energies (B,); +inf rules a sample out.
        weight: w, at least 0, of p(x) exp(-w f(x)).
        gradient: whether the gradient of f, through the network, moves the proposal of SMC; f is of torch then.

    Raises:
        InputError: f is not callable, fails, or returns another shape or NaN.

    >>> from energycomp import Composer
    >>> from energycomp.testing import Gaussian
    >>> from energycomp_samplers.smc import SMC
    >>> near = constraint(lambda x: (x - 2).square().flatten(1).sum(1) / (2 * 0.5), gradient=True)
    >>> options = {"num_inference_steps": 20, "output_type": "pt", "generator": 0, "progress": False}
    >>> x = Composer(Gaussian(0.0, 1.0)).sample(2000, sampler=SMC(constraint=near), **options)
    >>> abs(x.mean() - 4 / 3) < 0.06, abs(x.var() - 1 / 3) < 0.05  # the posterior of an observation 2 of variance 0.5
    (tensor(True), tensor(True))
    """
    return Constraint(f, weight, gradient)
