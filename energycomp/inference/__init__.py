"""Understand: which conditions, and how many, explain an image."""

from energycomp.inference.infer import ForeignPictureWarning, Solution, Solver, infer, paired
from energycomp.inference.noise import NoiseBank, draw_bank
from energycomp.inference.problem import Needs, Problem, Slot, make_problem
from energycomp.inference.quadratic import (
    QuadraticForm,
    compose_rows,
    error_scale,
    noised_trunk,
    nonnegative,
    quadratic_form,
    residual_errors,
    target,
)

__all__ = [
    "ForeignPictureWarning",
    "Needs",
    "NoiseBank",
    "Problem",
    "QuadraticForm",
    "Slot",
    "Solution",
    "Solver",
    "compose_rows",
    "draw_bank",
    "error_scale",
    "infer",
    "make_problem",
    "noised_trunk",
    "nonnegative",
    "paired",
    "quadratic_form",
    "residual_errors",
    "target",
]
