"""What is added: components, their algebra, the space they live in and the conditions they stand under."""

from energycomp.components.component import EnergyComponent, HasEnergy, Leaf, LeafGroup, RaggedGroup, WeightedSum
from energycomp.components.composition import Composable, Composition, combine
from energycomp.components.condition import Condition
from energycomp.components.conditioning import (
    AttributeConditioner,
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
from energycomp.components.per_sample import per_sample
from energycomp.components.predict import active_samples, native_type, predict, predict_all, predict_leaves
from energycomp.components.prediction import PredictionType, convert, error_scale, target
from energycomp.components.regional import regional, within
from energycomp.components.regions import during, ramp, region
from energycomp.components.rules import Rule, identifies_null, rule_weights
from energycomp.components.space import (
    LEAST_ALPHA,
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
    "LEAST_ALPHA",
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
    "RaggedGroup",
    "ReadsText",
    "Rule",
    "TextConditioner",
    "TrainableConditioner",
    "Weight",
    "WeightedSum",
    "active_samples",
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
    "per_sample",
    "predict",
    "predict_all",
    "predict_leaves",
    "ramp",
    "random_values",
    "read_value",
    "region",
    "regional",
    "rule_weights",
    "signal_noise",
    "stratified_timesteps",
    "target",
    "timestep_of",
    "value_of",
    "values_of",
    "weights_of",
    "within",
]
