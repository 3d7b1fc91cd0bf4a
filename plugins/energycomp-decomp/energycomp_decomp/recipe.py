"""How parts are learned: pictures without labels, and the settings of `fit`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import attrs
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from energycomp.data import parse_range
from energycomp.errors import InputError
from energycomp.images import ImageProcessor
from energycomp.model import Model
from energycomp.recipe import Recipe
from energycomp.training import FitResult, fit
from energycomp_decomp.data import pictures
from energycomp_decomp.lit import factors
from energycomp_decomp.lit import render as render_lit
from energycomp_decomp.loss import factors_loss, parts_loss
from energycomp_decomp.model import decomp as build
from energycomp_decomp.model import lit as build_lit
from energycomp_decomp.networks import FactorsEncoder, PartsEncoder, PartsUNet
from energycomp_decomp.shapes import layout, render

__all__ = ["Pictures", "decomp", "lit"]

DRAWN = 20_000
BATCH, STEPS, LIT_STEPS = 32, 14_000, 6_000
PRICES = {"overlap": 2.0, "imbalance": 0.1, "spread": 1.0}
NOISY = 0.7  # of the steps see pictures that noise hides


class Pictures(Dataset[Tensor]):
    """Pictures (N, 3, H, W) uint8, and nothing else."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]

    def median(self) -> Tensor:
        """The median of every pixel and channel, (3, H, W) in [-1, 1]."""
        return torch.stack([channel.median(0).values for channel in self.images.unbind(1)]).float() / 127.5 - 1.0


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
    if init is not None and (not isinstance(init.encoder, PartsEncoder) or options):
        raise InputError(
            f"got --init {init.name} with {options or 'no such encoder'}; expected one of this recipe alone"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = init or build(preset=preset, pretrained=False, **options)
    denoiser = model.denoiser
    shown = _folder(data, model.processor) if data is not None else _drawn(world, objects, denoiser.sample_shape[1])
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
    prices = {f"{name}_weight": _price(name, options.pop(name)) for name in ("kl", "swap") if name in options}
    if init is not None and (not isinstance(init.encoder, FactorsEncoder) or options):
        raise InputError(
            f"got --init {init.name} with {options or 'no such encoder'}; expected one of this recipe alone"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = init or build_lit(preset=preset, pretrained=False, **options)
    shown = _folder(data, model.processor) if data is not None else _drawn_lit(model.denoiser.sample_shape[1])
    base: Any = model.denoiser.network.base
    if init is None:
        base.copy_(shown.median())

    def loss(module: Any, batch: Tensor, generator: torch.Generator) -> Tensor:
        denoiser = attrs.evolve(model.denoiser, network=module["network"])
        return factors_loss(denoiser, module["encoder"], _samples(batch), generator=generator, **prices)

    return Recipe(model=model, fit=partial(fit, model.trained, loss, shown, **_settings(1e-3)), steps=LIT_STEPS)


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
    noisy = round(NOISY * steps * (options.get("micro_batches") or 1))
    return fit(model.trained, _loss(model, prices, noisy), data, steps=steps, **options)


def _loss(
    model: Model, prices: Mapping[str, float], noisy: int
) -> Callable[[nn.Module, Tensor, torch.Generator], Tensor]:
    """The loss of a batch of pictures; the first `noisy` of them are hidden by more noise than the others."""
    # What separates parts also shrinks them: once they are apart, edges are drawn without it.
    later = {**prices, "imbalance_weight": 0.0, "spread_weight": 0.0}

    def loss(module: Any, batch: Tensor, generator: torch.Generator) -> Tensor:
        samples, network, encoder = _samples(batch), module["network"], module["encoder"]
        latents = encoder(samples)
        hidden = int(encoder.seen) <= noisy
        if isinstance(network, PartsUNet):
            network.mean.copy_(encoder.mean)
            network.std.copy_(encoder.std)
            power = 0.25 if hidden else 0.6
        else:
            power = 1.0
        denoiser = attrs.evolve(model.denoiser, network=network)
        chosen = prices if hidden else later
        return parts_loss(denoiser, latents, samples, timestep_power=power, generator=generator, **chosen)

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


def _drawn(world: str, objects: str, size: int) -> Pictures:
    low, high = parse_range(objects, greatest=5)
    chunks, chunk = [], 500
    for start in tqdm(range(0, DRAWN, chunk), desc=f"drawing {DRAWN:,} pictures", delay=2, leave=False):
        count = low + start // chunk % (high - low + 1)
        drawn = [layout(np.random.default_rng([0, start + k]), count, world=world) for k in range(chunk)]
        images, _ = render(torch.from_numpy(np.stack(drawn)).float(), world=world, size=size)
        chunks.append(((images + 1) * 127.5).round().byte())
    return Pictures(torch.cat(chunks))


def _drawn_lit(size: int) -> Pictures:
    values = factors(DRAWN, seed=0)
    return Pictures(
        torch.cat([((render_lit(part, size=size) + 1) * 127.5).round().byte() for part in values.split(500)])
    )


def _folder(folder: Path, processor: ImageProcessor) -> Pictures:
    """The pictures of a folder at the model's size, in memory."""
    paths = pictures(folder)
    if len(paths) < BATCH:
        raise InputError(f"got {folder} with {len(paths)} pictures; expected at least one batch of {BATCH} to train on")
    images = [((processor(path)[0] + 1) * 127.5).round().byte() for path in tqdm(paths, desc="reading", delay=2)]
    return Pictures(torch.stack(images))
