"""What the algorithms share: configurations, product spaces, subsets of atoms, terms, comparison and descent."""

from energycomp_solvers.shared.compare import compare_halves, compared, errors_of, ranked_solution
from energycomp_solvers.shared.configurations import configurations, dictionary, number_of_configurations
from energycomp_solvers.shared.descent import descend
from energycomp_solvers.shared.held_out import HeldOut
from energycomp_solvers.shared.newton import newton_step
from energycomp_solvers.shared.product_space import all_errors, marginals, unravel
from energycomp_solvers.shared.sequential import nominal_level, sequential_p_value
from energycomp_solvers.shared.subsets import add_each, greedy, promising, subset_errors, swap
from energycomp_solvers.shared.terms import memberships, terms_of

__all__ = [
    "HeldOut",
    "add_each",
    "all_errors",
    "compare_halves",
    "compared",
    "configurations",
    "descend",
    "dictionary",
    "errors_of",
    "greedy",
    "marginals",
    "memberships",
    "newton_step",
    "nominal_level",
    "number_of_configurations",
    "promising",
    "ranked_solution",
    "sequential_p_value",
    "subset_errors",
    "swap",
    "terms_of",
    "unravel",
]
