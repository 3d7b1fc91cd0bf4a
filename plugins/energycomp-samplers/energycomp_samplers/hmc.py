"""Metropolis-adjusted Hamiltonian moves, which leave the composed density at one noise level as it is.

Duane et al. (1987). As moves between reverse steps: Du et al. (2023, "Reduce, reuse, recycle"), with the line integral
of the score in the test: Sjöberg et al. (2023).

Notation: variable -> symbol
    x, v        a particle at timestep t, and its momentum, of mass 1
    y, w        both at the end of the leapfrog steps
    score       G(x) = sum_i b_i s_i(x), the gradient of log pi_t
    size        of a leapfrog step, c sigma_t with sigma_t^2 = 1 - alpha_bar_t; c is adapted to the rate of acceptance

    v ~ N(0, I)
    leapfrog steps:  v <- v + size / 2 G(x),  x <- x + size v,  v <- v + size / 2 G(x)
    log a = log pi_t(y) - log pi_t(x) + (|v|^2 - |w|^2) / 2
    x becomes y where it is accepted

`chain` describes the test and the adaptation. The test sums the line integrals of the leapfrog steps. With 2
nodes it needs no further evaluation: log a is then -size^2 / 8 (|G(y)|^2 - |G(x)|^2). That is exact for Gaussians, and
too coarse for steps from one mode to another.
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
class HMC(Moves):
    """Metropolis-adjusted Hamiltonian moves at every noise level, with one test for each particle and move.

    Each costs leapfrogs (nodes - 1) evaluations per component and particle.

    Args:
        moves: at each noise level.
        leapfrogs: steps of one move.
        nodes: of the line integral of each leapfrog step, at least 2.
        acceptance: the rate to which steps are adapted.
        step_size: c of the first move, and the largest where the noised product changes no more, see `smc`.
    """

    moves: int = attrs.field(default=1, validator=whole(1))
    leapfrogs: int = attrs.field(default=2, validator=whole(1))
    nodes: int = attrs.field(default=3, validator=whole(2, 100))
    acceptance: float = attrs.field(default=0.8, validator=number(most=0.99))
    step_size: float = attrs.field(default=0.5, validator=number())

    def move(self, density: Density, state: State, c: Tensor) -> tuple[State, Tensor]:
        """The state after one move, and which particles accepted it; see `chain.Moves`."""
        size = (c * density.noise**0.5).to(state.x)
        # Propose: leapfrog steps with a new momentum.
        v = density.normal(tuple(state.x.shape[:2]))
        path, w = leapfrog(density, state, v, size, self.leapfrogs)
        # Accept: by the ratio of the densities, and the kinetic energies.
        kinetic = (sum_of_squares(v, v) - sum_of_squares(w, w)) / 2.0
        accepted = density.accepts(density.log_ratio(path, self.nodes) + kinetic)
        return state.accept(accepted, path[-1]), accepted


def leapfrog(density: Density, state: State, v: Tensor, size: Tensor, count: int) -> tuple[list[State], Tensor]:
    """The states of `count` leapfrog steps, the first one included, and the momentum at the end."""
    path = [state]
    for _ in range(count):
        # Half a step of the momentum, a step of the particle, half a step of the momentum.
        half = v + size / 2.0 * path[-1].score
        path.append(density.state(path[-1].x + size * half))
        v = half + size / 2.0 * path[-1].score
    return path, v


def annealed_hmc(**options: Any) -> SMC:
    """The sampler `hmc`: ancestral steps with two Hamiltonian moves at each noise level, and no weights.

    >>> annealed_hmc(leapfrogs=5).moves.leapfrogs
    5
    """
    return SMC(weights="none", moves=HMC(**{"moves": 2, **options}))
