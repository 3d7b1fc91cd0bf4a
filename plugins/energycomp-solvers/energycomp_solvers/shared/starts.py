"""Where descents start: at random, or where the components placed before leave something unexplained."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import constraints

from energycomp.components import from_quantiles
from energycomp.inference import QuadraticForm
from energycomp_solvers.shared.subsets import Weighting, add_each, subset_errors

HOTTEST = 0.3  # temperature of the last initialisation, in units of the greatest fall of the error


def random_starts(
    support: constraints.Constraint,
    inits: int,
    count: int,
    value_shape: Sequence[int],
    generator: torch.Generator | None = None,
) -> Tensor:
    """Values (R, K, *V), uniform in the quantiles of their support.

    >>> unit = constraints.independent(constraints.unit_interval, 1)
    >>> random_starts(unit, 4, 3, (2,)).shape
    torch.Size([4, 3, 2])
    """
    device = generator.device if generator is not None else torch.device("cpu")
    quantiles = torch.rand(inits, count, *value_shape, generator=generator, device=device)
    return from_quantiles(support, quantiles, edge=0.02)


def residual_starts(
    form: QuadraticForm,
    atoms: Tensor,
    inits: int,
    count: int,
    weighting: Weighting,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Values (R, K, *V) of a lattice, each drawn by how much it lowers the error that the ones before it leave.

    The first initialisation takes the best value each time. The temperature of the others rises from 0, so that
    components that were overlooked by one are found by another. Costs no network evaluation.

    Args:
        form: over the atoms (M, *V).

    >>> form = QuadraticForm.of(torch.eye(2)[None], torch.tensor([[1.0, 2.0]]))
    >>> residual_starts(form, torch.tensor([[0.1], [0.9]]), 1, 2, lambda count: 1.0)[..., 0].tolist()
    [[0.8999999761581421, 0.10000000149011612]]
    """
    starts = []
    # One initialisation for each temperature
    for temperature in torch.linspace(0, HOTTEST, inits).tolist():
        chosen: list[int] = []
        for _ in range(count):
            # How much each value lowers the error that is left
            falls = float(subset_errors(form, chosen, weighting).mean()) - add_each(form, chosen, weighting)
            chosen.append(_drawn(falls.cpu(), temperature, generator))
        starts.append(atoms[chosen])
    return torch.stack(starts)


def _drawn(falls: Tensor, temperature: float, generator: torch.Generator | None) -> int:
    """An index, with probability proportional to exp(fall / (temperature times the greatest fall))."""
    greatest = float(falls.max())
    if temperature == 0 or greatest <= 0:
        return int(falls.argmax())
    # Boltzmann: the hotter, the more alike the values
    shares = torch.softmax(falls / (temperature * greatest), 0)
    device = generator.device if generator is not None else torch.device("cpu")
    return int(torch.multinomial(shares.to(device), 1, generator=generator))
