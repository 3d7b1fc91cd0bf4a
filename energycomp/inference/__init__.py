"""Understand: which conditions, and how many, explain an image."""

from energycomp.inference.atoms import quadratic_form as quadratic_form
from energycomp.inference.attributes import ObjectWords as ObjectWords, read_attributes as read_attributes
from energycomp.inference.compare import (
    WORTH as WORTH,
    as_normal as as_normal,
    paired as paired,
    standard_error as standard_error,
)
from energycomp.inference.infer import explain as explain, infer as infer, infer_many as infer_many
from energycomp.inference.judge import FIT_DRAWS as FIT_DRAWS
from energycomp.inference.judgement import OUT_OF_DISTRIBUTION as OUT_OF_DISTRIBUTION, Judgement as Judgement
from energycomp.inference.noise import (
    NoiseBank as NoiseBank,
    draw_bank as draw_bank,
    noised_trunk as noised_trunk,
    residual_errors as residual_errors,
    residuals as residuals,
)
from energycomp.inference.nonnegative import nonnegative as nonnegative
from energycomp.inference.prior import (
    HasValueEnergy as HasValueEnergy,
    Prior as Prior,
    each as each,
    pairwise as pairwise,
)
from energycomp.inference.problem import (
    RULED_OUT as RULED_OUT,
    Needs as Needs,
    Problem as Problem,
    make_problem as make_problem,
)
from energycomp.inference.quadratic import QuadraticForm as QuadraticForm
from energycomp.inference.refine import refine_numbers as refine_numbers
from energycomp.inference.screen import (
    SCREEN_DRAWS as SCREEN_DRAWS,
    check_known as check_known,
    check_trusted as check_trusted,
)
from energycomp.inference.search import OutOfDistributionWarning as OutOfDistributionWarning, Search as Search
from energycomp.inference.slots import Slot as Slot
from energycomp.inference.solution import Solution as Solution
from energycomp.inference.solver import ReadsLast as ReadsLast, SearchInterrupted as SearchInterrupted, Solver as Solver
from energycomp.inference.view import (
    JUDGED as JUDGED,
    View as View,
    answer_cells as answer_cells,
    answer_line as answer_line,
    answer_text as answer_text,
    row_text as row_text,
    view_of as view_of,
)
