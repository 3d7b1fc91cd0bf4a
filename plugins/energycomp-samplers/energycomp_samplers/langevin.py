"""Unadjusted Langevin moves, which follow the composed score at one noise level without a Metropolis test.

Parisi (1981). As moves between reverse steps: Song and Ermon (2019), Du et al. (2023, "Reduce, reuse, recycle").

Notation: variable -> symbol
    x, y        a particle at timestep t, before and after a move
    score       G(x) = sum_i b_i s_i(x), the gradient of log pi_t
    h           the step, c sigma_t^2 with sigma_t^2 = 1 - alpha_bar_t

    y = x + h G(x) + sqrt(2 h) n,  n ~ N(0, I)

For a Gaussian of variance v the moves lead to the variance v / (1 - h / (2 v)), and diverge for h > 2 v. The variance
of a noised component is at least sigma_t^2, so that compositions of Gaussians are stable where the positive weights sum
to less than 2 / c.
"""

from __future__ import annotations

from typing import Any

import attrs
from torch import Tensor

from energycomp.fields import number, whole
from energycomp_samplers.chain import Density, Moves, State
from energycomp_samplers.smc import SMC


@attrs.frozen
class Langevin(Moves):
    """Unadjusted Langevin moves at every noise level. Each costs one evaluation per component and particle.

    Args:
        moves: at each noise level.
        step_size: c, which is fixed: there is no acceptance to adapt it to. With 0.1 the variance of one Gaussian of
            weight 1 is at most 5.3 % too large, and the moves are stable where the positive weights sum to less than
            20. They are too few for weights of another sum: at 50 steps the variance of N(0, 1) to the power 0.5 is
            1.14 times too large, to 0.1 4.2 times; a warning says so below 0.5. `mala` is within 5 % for all of these.
    """

    moves: int = attrs.field(default=5, validator=whole(1))
    step_size: float = attrs.field(default=0.1, validator=number(most=2))

    acceptance = None  # every move is accepted

    def move(self, density: Density, state: State, c: Tensor) -> tuple[State, None]:
        """The state after one move; see `chain.Moves`."""
        h = c * density.noise
        # Step: along the score, with noise, and no test.
        noise = (2.0 * h).sqrt().to(state.x) * density.normal(tuple(state.x.shape[:2]))
        return density.state(state.x + h.to(state.x) * state.score + noise), None


def annealed_langevin(**options: Any) -> SMC:
    """The sampler `langevin`: ancestral steps with ten unadjusted moves at each noise level, and no weights.

    >>> annealed_langevin(moves=1).moves
    Langevin(moves=1, step_size=0.1)
    """
    return SMC(weights="none", moves=Langevin(**{"moves": 10, **options}))
