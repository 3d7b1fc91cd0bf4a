"""What is added: components, their algebra, the space they live in and the conditions they stand under."""

from energycomp.components.algebra import (
    Composable as Composable,
    Composition as Composition,
    Mixture as Mixture,
    combine as combine,
)
from energycomp.components.component import (
    EnergyComponent as EnergyComponent,
    HasEnergy as HasEnergy,
    LeafGroup as LeafGroup,
    compositions_in as compositions_in,
)
from energycomp.components.condition import Condition as Condition
from energycomp.components.conditioners import Classes as Classes, Latents as Latents
from energycomp.components.conditioning import (
    Conditioner as Conditioner,
    MixedConditioner as MixedConditioner,
    ability as ability,
    groups_of as groups_of,
    mixed_of as mixed_of,
    prior_of as prior_of,
    weights_of as weights_of,
)
from energycomp.components.energies import evaluate_energies as evaluate_energies, function_name as function_name
from energycomp.components.gaussian import Gaussian as Gaussian
from energycomp.components.groups import (
    WrappedGroup as WrappedGroup,
    differs_by_sample as differs_by_sample,
    group_of as group_of,
    unwrap as unwrap,
)
from energycomp.components.ledger import count_component as count_component
from energycomp.components.match_snr import match_snr as match_snr
from energycomp.components.parts import on as on, on_part as on_part
from energycomp.components.per_sample import per_sample as per_sample
from energycomp.components.precision import wide_type as wide_type, widen as widen
from energycomp.components.predict import (
    native_type as native_type,
    predict as predict,
    predict_all as predict_all,
    predict_group as predict_group,
    predict_leaves as predict_leaves,
)
from energycomp.components.prediction import (
    AnyPrediction as AnyPrediction,
    PredictionType as PredictionType,
    convert as convert,
    default_gamma as default_gamma,
    error_scale as error_scale,
    is_noise as is_noise,
    norm_at as norm_at,
    target as target,
)
from energycomp.components.regions import during as during, ramp as ramp, region as region
from energycomp.components.rules import Rule as Rule, identifies_null as identifies_null, rule_weights as rule_weights
from energycomp.components.sampling_defaults import SamplingDefaults as SamplingDefaults, agreed as agreed
from energycomp.components.selections import (
    Part as Part,
    Selection as Selection,
    crop as crop,
    frames as frames,
    items as items,
    window as window,
)
from energycomp.components.space import (
    LEAST_ALPHA as LEAST_ALPHA,
    LEAST_NOISE as LEAST_NOISE,
    NoisedSpace as NoisedSpace,
    by_sample as by_sample,
    cosine_schedule as cosine_schedule,
    flow_schedule as flow_schedule,
    flow_time as flow_time,
    log_snr as log_snr,
    signal_noise as signal_noise,
    stratified_timesteps as stratified_timesteps,
    timestep_of as timestep_of,
)
from energycomp.components.support import (
    MixedSupport as MixedSupport,
    from_quantiles as from_quantiles,
    to_quantiles as to_quantiles,
)
from energycomp.components.terms import weights_at as weights_at
from energycomp.components.text import (
    WeightedText as WeightedText,
    compound_prompt as compound_prompt,
    weighted as weighted,
)
from energycomp.components.values import (
    parse_value as parse_value,
    random_values as random_values,
    read_value as read_value,
    value_of as value_of,
    values_of as values_of,
)
from energycomp.components.weight_values import (
    bounds as bounds,
    constant_weights as constant_weights,
    is_constant as is_constant,
    level_weights as level_weights,
    noise_share as noise_share,
    number_at as number_at,
)
from energycomp.components.weights import AnyWeight as AnyWeight, Weight as Weight, scalar as scalar
