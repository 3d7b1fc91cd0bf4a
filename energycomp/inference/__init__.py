"""Understand: which conditions, and how many, explain an image."""

from energycomp.inference.atoms import quadratic_form as quadratic_form
from energycomp.inference.attributes import AttributeErrors as AttributeErrors, read_attributes as read_attributes
from energycomp.inference.compare import (
    COMPONENT_PENALTY as COMPONENT_PENALTY,
    as_normal as as_normal,
    paired as paired,
    standard_error as standard_error,
)
from energycomp.inference.infer import explain as explain, infer as infer, infer_many as infer_many
from energycomp.inference.judge import FIT_DRAWS as FIT_DRAWS
from energycomp.inference.noise import (
    NoiseBank as NoiseBank,
    draw_bank as draw_bank,
    noised_trunk as noised_trunk,
    residual_errors as residual_errors,
    residuals as residuals,
)
from energycomp.inference.nonnegative import nonnegative as nonnegative
from energycomp.inference.posterior import RULED_OUT as RULED_OUT, Posterior as Posterior
from energycomp.inference.prior import (
    Prior as Prior,
    each as each,
    pairwise as pairwise,
)
from energycomp.inference.problem import (
    Needs as Needs,
    Problem as Problem,
    make_problem as make_problem,
)
from energycomp.inference.quadratic import QuadraticForm as QuadraticForm, with_each as with_each
from energycomp.inference.read import OutOfDistributionWarning as OutOfDistributionWarning, read_image as read_image
from energycomp.inference.refine import refine_numbers as refine_numbers
from energycomp.inference.screen import (
    SCREEN_DRAWS as SCREEN_DRAWS,
    check_known as check_known,
    check_trusted as check_trusted,
)
from energycomp.inference.slots import Slot as Slot
from energycomp.inference.solution import (
    OUT_OF_DISTRIBUTION as OUT_OF_DISTRIBUTION,
    Alternative as Alternative,
    Solution as Solution,
    verdict_of as verdict_of,
)
from energycomp.inference.solver import SearchInterrupted as SearchInterrupted, Solver as Solver
from energycomp.inference.view import (
    JUDGED as JUDGED,
    View as View,
    answer_cells as answer_cells,
    answer_line as answer_line,
    answer_text as answer_text,
    row_text as row_text,
    view_of as view_of,
)
