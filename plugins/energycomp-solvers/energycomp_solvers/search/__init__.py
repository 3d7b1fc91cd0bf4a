"""The search of continuous values: one hypothesis, proposals that change it, one test that accepts, one schedule."""

from energycomp_solvers.search.options import SearchOptions
from energycomp_solvers.search.runner_up import Answer, finish

__all__ = ["Answer", "SearchOptions", "finish"]
