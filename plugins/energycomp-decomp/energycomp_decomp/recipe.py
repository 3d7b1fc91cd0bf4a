"""How parts are learned: pictures without labels, and the settings of `fit`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import attrs
import torch
from torch import Tensor, nn

from energycomp.errors import InputError
from energycomp.models import Model
from energycomp.training import FitResult, Recipe, fit
from energycomp_decomp.loss import factors_loss, parts_loss
from energycomp_decomp.model import decomp as build
from energycomp_decomp.model import lit as build_lit
from energycomp_decomp.networks import FactorsEncoder, PartsEncoder, PartsUNet
from energycomp_decomp.training_data import Pictures, drawn_lit, drawn_shapes, in_folder

__all__ = ["decomp", "lit"]

BATCH, STEPS, LIT_STEPS = 32, 11_000, 3_000
LIT_PRICES = {"kl": 7e-4, "swap": 0.03}
GROWING = (0.15, 0.5)  # of the steps, between which prices of factors grow from 0 to what is due in full
PRICES = {"overlap": 2.0, "imbalance": 0.1, "spread": 1.0}
NOISY = 0.7  # of the steps see pictures that noise hides


def decomp(
    *,
    data: Path | None,
    init: Model | None,
    preset: str,
    cache: Path,
    world: str = "a",
    objects: str = "2-4",
    overlap: str | None = None,
    imbalance: str | None = None,
    spread: str | None = None,
    orthogonality: str = "0",
    **options: Any,
) -> Recipe:
    """How objects become parts; the recipe of the shipped weights.

    Args:
        data: a folder of pictures; drawn shapes when left out.
        init: a model to start from.
        preset: "default"; "thesis" or "paper" for the mean over whole networks, trained on the squared error alone.
        cache: not used: what is drawn is drawn anew.
        world: of the drawn shapes.
        objects: of a drawn picture, a number or a range.
        overlap, imbalance, spread: prices of the default preset, see `parts_loss`; its own when left out.
        orthogonality: price on latents of one picture that are alike, 0 for none.
        options: of the model: `parts`, one more than the objects of a picture, `width` of a latent, `size` in pixels,
            `prediction`, sample or epsilon.
    """
    del cache
    model = _start(init, PartsEncoder, partial(build, preset=preset, pretrained=False), options)
    if init is None and data is None and world != "a":
        model = attrs.evolve(model, name=f"{model.name}-{world}")  # by which `evaluate` finds the data
    denoiser = model.denoiser
    shown = (
        in_folder(data, model.processor, BATCH)
        if data is not None
        else drawn_shapes(world, objects, denoiser.sample_shape[1])
    )
    parts = denoiser.rule == "product" and denoiser.prediction_type == "sample"
    if init is None and parts:
        base: Any = denoiser.network.base
        base.copy_(shown.median())
    cast("PartsEncoder", model.encoder).seen.zero_()
    priced = {"overlap": overlap, "imbalance": imbalance, "spread": spread}
    prices = {
        f"{name}_weight": PRICES[name] * parts if text is None else _price(name, text) for name, text in priced.items()
    }
    prices["orthogonality_weight"] = _price("orthogonality", orthogonality)
    rate = 2e-3 if denoiser.rule == "product" else 1e-3
    return Recipe(model=model, fit=partial(_fit, model, shown, prices, **_settings(rate)), steps=STEPS)


def lit(*, data: Path | None, init: Model | None, preset: str, cache: Path, **options: Any) -> Recipe:
    """How factors of the whole picture become parts.

    Args:
        data: a folder of pictures; drawn ones of one lit object when left out.
        init: a model to start from.
        preset: "default".
        cache: not used.
        options: `parts`, `width` of what a latent says, `size`; `kl` and `swap`, prices of `factors_loss`.
    """
    del cache
    prices = {f"{name}_weight": _price(name, options.pop(name, LIT_PRICES[name])) for name in LIT_PRICES}
    model = _start(init, FactorsEncoder, partial(build_lit, preset=preset, pretrained=False), options)
    shown = in_folder(data, model.processor, BATCH) if data is not None else drawn_lit(model.denoiser.sample_shape[1])
    base: Any = model.denoiser.network.base
    if init is None:
        base.copy_(shown.median())
    cast("FactorsEncoder", model.encoder).seen.zero_()
    return Recipe(model=model, fit=partial(_fit, model, shown, prices, **_settings(2e-3)), steps=LIT_STEPS)


def _start(
    init: Model | None, encoder: type[nn.Module], make: Callable[..., Model], options: Mapping[str, Any]
) -> Model:
    """The model to train: `init`, if its encoder is of this kind and no options are given, or a new one."""
    if init is not None and (not isinstance(init.encoder, encoder) or options):
        raise InputError(
            f"got --init {init.name} with {options or 'no such encoder'}; expected one of this recipe alone"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return init or make(**options)


def _settings(learning_rate: float) -> dict[str, Any]:
    return {
        "learning_rate": learning_rate,
        "weight_decay": 1e-2,
        "warmup_fraction": 0.02,
        "max_grad_norm": 1.0,
        "batch_size": BATCH,
        "schedule": "one_cycle",
        "ema_decay": 0.998,
    }


def _fit(model: Model, data: Pictures, prices: Mapping[str, float], *, steps: int, **options: Any) -> FitResult:
    batches = steps * (options.get("micro_batches") or 1)
    make = _factors_loss if isinstance(model.encoder, FactorsEncoder) else _loss
    return fit(model.trained, make(model, prices, batches), data, steps=steps, **options)


def _loss(
    model: Model, prices: Mapping[str, float], batches: int
) -> Callable[[nn.Module, Tensor, torch.Generator], Tensor]:
    """The loss of a batch of pictures; the first are hidden by more noise than the others."""
    # What separates parts also shrinks them: once they are apart, edges are drawn without it.
    later = {**prices, "imbalance_weight": 0.0, "spread_weight": 0.0}

    def loss(module: Any, batch: Tensor, generator: torch.Generator) -> Tensor:
        samples, network, encoder = _samples(batch), module["network"], module["encoder"]
        latents = encoder(samples)
        hidden = int(encoder.seen) <= NOISY * batches
        power = (0.25 if hidden else 0.6) if isinstance(network, PartsUNet) else 1.0
        denoiser = attrs.evolve(model.denoiser, network=network)
        chosen = prices if hidden else later
        return parts_loss(denoiser, latents, samples, timestep_power=power, generator=generator, **chosen)

    return loss


def _factors_loss(
    model: Model, prices: Mapping[str, float], batches: int
) -> Callable[[nn.Module, Tensor, torch.Generator], Tensor]:
    """The loss of a batch of pictures; the first are hidden by more noise, and pay less for what latents tell."""

    def loss(module: Any, batch: Tensor, generator: torch.Generator) -> Tensor:
        encoder = module["encoder"]
        encoder.seen += 1
        # From the full price on, latents that tell nothing yet would never begin to.
        grown = min(max((float(encoder.seen) / batches - GROWING[0]) / (GROWING[1] - GROWING[0]), 0.0), 1.0)
        denoiser = attrs.evolve(model.denoiser, network=module["network"])
        due = {name: grown * price for name, price in prices.items()}
        power = 0.25 if int(encoder.seen) <= NOISY * batches else 0.6
        return factors_loss(denoiser, encoder, _samples(batch), timestep_power=power, generator=generator, **due)

    return loss


def _samples(batch: Tensor) -> Tensor:
    return (batch.float() / 127.5 - 1.0).contiguous(memory_format=torch.channels_last)


def _price(name: str, text: Any) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise InputError(f"got {name}={text}; expected a price, a number of at least 0")
    return value
