"""Understand: which conditions, and how many, explain an image."""

from energycomp.inference.compare import paired, standard_error
from energycomp.inference.infer import FIT_DRAWS, OutOfDistributionWarning, Search, infer, infer_many
from energycomp.inference.noise import NoiseBank, draw_bank, noised_trunk, residual_errors, residuals
from energycomp.inference.problem import Needs, Problem, make_problem
from energycomp.inference.quadratic import QuadraticForm, nonnegative, quadratic_form
from energycomp.inference.ranking import BestSamples, Ranking, rank, sample_best
from energycomp.inference.slots import Slot
from energycomp.inference.solution import (
    OUT_OF_DISTRIBUTION,
    HasSceneRecords,
    Solution,
    Solver,
    View,
    answer_cells,
    answer_line,
    view_of,
)

__all__ = [
    "FIT_DRAWS",
    "OUT_OF_DISTRIBUTION",
    "BestSamples",
    "HasSceneRecords",
    "Needs",
    "NoiseBank",
    "OutOfDistributionWarning",
    "Problem",
    "QuadraticForm",
    "Ranking",
    "Search",
    "Slot",
    "Solution",
    "Solver",
    "View",
    "answer_cells",
    "answer_line",
    "draw_bank",
    "infer",
    "infer_many",
    "make_problem",
    "noised_trunk",
    "nonnegative",
    "paired",
    "quadratic_form",
    "rank",
    "residual_errors",
    "residuals",
    "sample_best",
    "standard_error",
    "view_of",
]
