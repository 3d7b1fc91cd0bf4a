"""What is added: components, their algebra, the space they live in and the conditions they stand under."""

from energycomp.components.component import EnergyComponent, HasEnergy, Leaf, LeafGroup, WeightedSum
from energycomp.components.composition import Composable, Composition, combine
from energycomp.components.conditioning import (
    AttributeConditioner,
    Condition,
    Conditioner,
    FiniteConditioner,
    Latents,
    MixedConditioner,
    MixedSupport,
    TextConditioner,
    TrainableConditioner,
    groups_of,
    mixed_of,
    weights_of,
)
from energycomp.components.gaussian import Gaussian
from energycomp.components.matching import match_snr
from energycomp.components.mixture import Mixture
from energycomp.components.predict import native_type, predict, predict_leaves
from energycomp.components.prediction import PredictionType, convert, error_scale, target
from energycomp.components.regions import during, ramp, region
from energycomp.components.rules import Rule, identifies_null, rule_weights
from energycomp.components.space import (
    NoisedSpace,
    cosine_schedule,
    flow_schedule,
    flow_time,
    log_snr,
    signal_noise,
    stratified_timesteps,
    timestep_of,
)
from energycomp.components.values import ReadsText, parsed, random_values, read_value, value_of, values_of
from energycomp.components.weights import AnyWeight, Weight, constant_weights

__all__ = [
    "AnyWeight",
    "AttributeConditioner",
    "Composable",
    "Composition",
    "Condition",
    "Conditioner",
    "EnergyComponent",
    "FiniteConditioner",
    "Gaussian",
    "HasEnergy",
    "Latents",
    "Leaf",
    "LeafGroup",
    "MixedConditioner",
    "MixedSupport",
    "Mixture",
    "NoisedSpace",
    "PredictionType",
    "ReadsText",
    "Rule",
    "TextConditioner",
    "TrainableConditioner",
    "Weight",
    "WeightedSum",
    "combine",
    "constant_weights",
    "convert",
    "cosine_schedule",
    "during",
    "error_scale",
    "flow_schedule",
    "flow_time",
    "groups_of",
    "identifies_null",
    "log_snr",
    "match_snr",
    "mixed_of",
    "native_type",
    "parsed",
    "predict",
    "predict_leaves",
    "ramp",
    "random_values",
    "read_value",
    "region",
    "rule_weights",
    "signal_noise",
    "stratified_timesteps",
    "target",
    "timestep_of",
    "value_of",
    "values_of",
    "weights_of",
]
