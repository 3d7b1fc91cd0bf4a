"""Metropolis-adjusted Langevin moves, which leave the composed density at one noise level as it is.

Besag (1994), Roberts and Tweedie (1996). As moves between reverse steps: Du et al. (2023, "Reduce, reuse, recycle").

Notation: variable -> symbol
    x, y        a particle at timestep t, and the proposal
    score       G(x) = sum_i b_i s_i(x), the gradient of log pi_t
    h           the step, c sigma_t^2 with sigma_t^2 = 1 - alpha_bar_t; c is adapted to the rate of acceptance

    y = x + h G(x) + sqrt(2 h) n,  n ~ N(0, I)
    log a = log pi_t(y) - log pi_t(x) + (|y - x - h G(x)|^2 - |x - y - h G(y)|^2) / (4 h)

`chain` describes the test and the adaptation. With 2 nodes the test needs no further evaluation, but its error
shows in samples of distant modes.
"""

from __future__ import annotations

from typing import Any

import attrs
from torch import Tensor

from energycomp.fields import number, whole
from energycomp_samplers.chain import Density, Moves, State
from energycomp_samplers.kernels import sum_of_squares
from energycomp_samplers.smc import SMC


@attrs.frozen
class MALA(Moves):
    """Metropolis-adjusted Langevin moves at every noise level.

    Each costs nodes - 1 evaluations per component and particle.

    Args:
        moves: at each noise level.
        nodes: of the line integral, at least 2.
        acceptance: the rate to which steps are adapted.
        step_size: c of the first move, and the largest where the noised product changes no more, see `smc`.
    """

    moves: int = attrs.field(default=2, validator=whole(1))
    nodes: int = attrs.field(default=4, validator=whole(2, 100))
    acceptance: float = attrs.field(default=0.57, validator=number(most=0.99))
    step_size: float = attrs.field(default=0.3, validator=number())

    def move(self, density: Density, state: State, c: Tensor) -> tuple[State, Tensor]:
        """The state after one move, and which particles accepted it; see `chain.Moves`."""
        x = state.x
        h = c * density.noise
        drift = h.to(x)
        # Propose: a step along the score, and noise.
        y = x + drift * state.score + (2.0 * h).sqrt().to(x) * density.normal(tuple(x.shape[:2]))
        proposed = density.state(y)
        # Accept: by the ratio of the densities, and that of the proposals from both ends.
        forward = sum_of_squares(y - x - drift * state.score, x)
        back = sum_of_squares(x - y - drift * proposed.score, x)
        log_ratio = density.log_ratio([state, proposed], self.nodes)
        accepted = density.accepts(log_ratio + (forward - back) / (4.0 * h.flatten(1)))
        return state.accept(accepted, proposed), accepted


def annealed_mala(**options: Any) -> SMC:
    """The sampler `mala`: ancestral steps with four Metropolis moves at each noise level, and no weights.

    >>> annealed_mala(moves=1).moves.moves
    1
    """
    return SMC(weights="none", moves=MALA(**{"moves": 4, **options}))
