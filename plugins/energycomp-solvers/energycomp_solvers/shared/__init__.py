"""What several solvers share: values that are listed, all answers among them, repeated tests, and descent."""

from energycomp_solvers.search.ranked import compare_halves
from energycomp_solvers.shared.answers import (
    Answers,
    Ranking,
    configurations,
    dictionary,
    memberships,
    number_of_configurations,
    terms_of,
)
from energycomp_solvers.shared.descent import descend
from energycomp_solvers.shared.product_space import all_errors, marginals, unravel
from energycomp_solvers.shared.sequential import nominal_level, sequential_p_value

__all__ = [
    "Answers",
    "Ranking",
    "all_errors",
    "compare_halves",
    "configurations",
    "descend",
    "dictionary",
    "marginals",
    "memberships",
    "nominal_level",
    "number_of_configurations",
    "sequential_p_value",
    "terms_of",
    "unravel",
]
