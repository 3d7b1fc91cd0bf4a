"""What is added: components, their algebra and the conditions they stand under."""

from energycomp.components.component import (
    Composable,
    Composition,
    Conditional,
    EnergyComponent,
    HasEnergy,
    Leaf,
    Rule,
    combine,
)
from energycomp.components.conditioning import Condition, Conditioner, Latents, groups_of, is_finite, weights_of
from energycomp.components.mixture import Mixture, mix

__all__ = [
    "Composable",
    "Composition",
    "Condition",
    "Conditional",
    "Conditioner",
    "EnergyComponent",
    "HasEnergy",
    "Latents",
    "Leaf",
    "Mixture",
    "Rule",
    "combine",
    "groups_of",
    "is_finite",
    "mix",
    "weights_of",
]
