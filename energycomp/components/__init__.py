"""What is added: components, their algebra, the space they live in and the conditions they stand under."""

from energycomp.components.algebra import Composable, Composition, Mixture, combine
from energycomp.components.component import EnergyComponent, HasEnergy, Leaf, LeafGroup, RaggedGroup, WeightedSum
from energycomp.components.condition import Condition
from energycomp.components.conditioning import (
    AttributeConditioner,
    Conditioner,
    FiniteConditioner,
    Latents,
    MixedConditioner,
    TextConditioner,
    TrainableConditioner,
    groups_of,
    mixed_of,
    weights_of,
)
from energycomp.components.gaussian import Gaussian
from energycomp.components.match_snr import match_snr
from energycomp.components.per_sample import per_sample
from energycomp.components.predict import (
    WrappedGroup,
    active_samples,
    group_of,
    native_type,
    predict,
    predict_all,
    predict_group,
    predict_leaves,
)
from energycomp.components.prediction import PredictionType, convert, default_gamma, error_scale, target
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
from energycomp.components.support import MixedSupport, from_quantiles, to_quantiles
from energycomp.components.text import WeightedText, weighted
from energycomp.components.values import ReadsText, parsed, random_values, read_value, value_of, values_of
from energycomp.components.weights import AnyWeight, Weight, constant_weights, is_constant
from energycomp.imports import moved

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
    "WeightedText",
    "WrappedGroup",
    "active_samples",
    "combine",
    "constant_weights",
    "convert",
    "cosine_schedule",
    "default_gamma",
    "during",
    "error_scale",
    "flow_schedule",
    "flow_time",
    "from_quantiles",
    "group_of",
    "groups_of",
    "identifies_null",
    "is_constant",
    "log_snr",
    "match_snr",
    "mixed_of",
    "native_type",
    "parsed",
    "per_sample",
    "predict",
    "predict_all",
    "predict_group",
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
    "to_quantiles",
    "value_of",
    "values_of",
    "weighted",
    "weights_of",
]

__getattr__ = moved(__name__, {"regional": "energycomp_samplers", "within": "energycomp_samplers"})
