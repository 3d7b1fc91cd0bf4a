"""Models and conditioners in closed form to test samplers and solvers against."""

from energycomp.components.gaussian import Gaussian as Gaussian
from energycomp.components.space import cosine_schedule as cosine_schedule
from energycomp.testing.conditioners import Labels as Labels, TintedSquare as TintedSquare, UnitSquare as UnitSquare
from energycomp.testing.doubles import Fixed as Fixed, Halved as Halved, Places as Places
from energycomp.testing.ideal import Ideal as Ideal
from energycomp.testing.models import (
    StripesEncoder as StripesEncoder,
    attributes_model as attributes_model,
    bumps_model as bumps_model,
    labels_model as labels_model,
    planted as planted,
    stripes_model as stripes_model,
    tinted_model as tinted_model,
    tiny_model as tiny_model,
)
