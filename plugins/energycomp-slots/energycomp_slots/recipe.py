"""How slots are learned, and scenes of them: the phases of one run, and what shows how it goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import attrs
import torch
from torch import Tensor, nn

from energycomp.errors import InputError
from energycomp.model import Model
from energycomp.pretrained import load_weights
from energycomp.recipe import Recipe
from energycomp.training import FitResult, fit
from energycomp_decomp.training_data import Pictures
from energycomp_slots.loss import Prices, generation_loss, prior_loss, slot_loss
from energycomp_slots.model import slots as build
from energycomp_slots.networks import SlotVAE
from energycomp_slots.progress import Diary
from energycomp_slots.training_data import drawn, in_file

__all__ = ["Phase", "phases", "slots"]

BATCH, STEPS = 24, 24_000
RAMP = 0.9  # of the steps of inference, over which the price of latents grows: a faster one makes slots tell nothing


@attrs.frozen
class Phase:
    """A part of a run, with a learning rate that rises and falls of its own.

    Args:
        name: of its folder.
        share: of the steps.
        learned: the parts of the network that change; all of them when left out.
        learning_rate: at its peak.
        prices: at a share of its steps.
    """

    name: str
    share: float
    learning_rate: float
    prices: Callable[[float], Prices]
    learned: tuple[str, ...] | None = None


def phases(network: SlotVAE) -> tuple[Phase, ...]:
    """What a network goes through.

    >>> [phase.name for phase in phases(SlotVAE())], [phase.name for phase in phases(SlotVAE(plain=True))]
    (['inference', 'generation', 'together', 'prior'], ['inference'])
    """
    whole = (
        Phase("inference", 0.36, 8e-4, lambda done: Prices(slots=0.5 * min(done / RAMP, 1.0))),
        Phase("generation", 0.2, 8e-4, lambda _: Prices(), ("enter", "global_head", "leave", "own")),
        Phase("together", 0.24, 3e-4, lambda done: Prices(matched=min(done / 0.5, 1.0))),
        Phase("prior", 0.2, 2e-3, lambda _: Prices(), ("prior",)),
    )
    if network.plain:
        return (attrs.evolve(whole[0], share=1.0),)
    return whole if network.prior is not None else whole[:-1]


def slots(
    *,
    data: Path | None,
    init: Model | None,
    preset: str,
    cache: Path,
    world: str = "arrow",
    **options: Any,
) -> Recipe:
    """Slot-VAE; the recipe of the shipped weights.

    First slots learn to explain pictures; then, while they stay as they are, the global latent learns to make the
    feature maps that they come from, which the thesis does without; then both learn together; last the prior of
    global latents is fitted to them.

    Args:
        data: a folder of pictures, or an npz or h5 file of a public set; drawn ones of a world when left out.
        init: a model to start from.
        preset: "default" or "paper".
        cache: not used: what is drawn is drawn anew.
        world: of the drawn pictures: "arrow", "sprites" or "rooms".
        options: of the model, see `energycomp_slots.model.slots`.
    """
    del cache
    if init is not None and (not isinstance(init.denoiser.network, SlotVAE) or options):
        raise InputError(f"got --init {init.name} with {options or 'no slots'}; expected one of this recipe alone")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = init or build(preset=preset, pretrained=False, **options)
    if init is None and data is None and world != "arrow":
        model = attrs.evolve(model, name=f"{model.name}-{world}")  # by which `evaluate` finds the data
    shown = drawn(world, model.denoiser.sample_shape[1]) if data is None else in_file(data, model.processor, BATCH)
    cast("SlotVAE", model.denoiser.network).seen.zero_()
    settings: dict[str, Any] = {
        "weight_decay": 0.0,
        "warmup_fraction": 0.02,
        "max_grad_norm": 1.0,
        "batch_size": BATCH,
        "ema_decay": 0.999,
        "mixed_precision": "bf16",
    }
    return Recipe(model=model, fit=partial(_fit, model, shown, **settings), steps=STEPS)


def _fit(
    model: Model,
    data: Pictures,
    *,
    out: Path,
    steps: int,
    sample_every: int | None = None,
    on_sample: Callable[[nn.Module, int], object] | None = None,
    **options: Any,
) -> FitResult:
    network = cast("SlotVAE", model.denoiser.network)
    diary, started, result = Diary(Path(out), model, data), 0, None

    def shown(module: nn.Module, step: int) -> None:
        total = diary.show(step)
        if on_sample is not None and diary.phase != "inference":
            on_sample(module, total)

    todo = phases(network)
    shares = [phase.share / sum(each.share for each in todo) for phase in todo]
    for phase, end in zip(todo, accumulate(shares), strict=True):
        count = round(steps * end) - started
        if not count:
            continue
        diary.begin(phase.name, started)
        settings = {"learning_rate": phase.learning_rate, "sample_every": sample_every, "on_sample": shown, **options}
        with _learning(network, phase.learned):
            loss = _loss(phase, count * (options.get("micro_batches") or 1), diary)
            result = fit(model.trained, loss, data, out=Path(out) / phase.name, steps=count, **settings)
        load_weights(network, result.ema_state, str(result.checkpoint))
        network.seen.zero_()
        started += count
    return attrs.evolve(cast("FitResult", result), step=started)


@contextmanager
def _learning(network: SlotVAE, names: tuple[str, ...] | None) -> Iterator[None]:
    """Only the named parts of a network change."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(names is None or name.partition(".")[0] in names)
    try:
        yield
    finally:
        network.requires_grad_()


def _loss(phase: Phase, batches: int, diary: Diary) -> Callable[[nn.Module, Tensor, torch.Generator], Tensor]:
    def loss(module: Any, batch: Tensor, generator: torch.Generator) -> Tensor:
        network = cast("SlotVAE", module)
        samples = (batch.float() / 127.5 - 1.0).contiguous(memory_format=torch.channels_last)
        prices = phase.prices(int(network.seen) / batches)
        network.seen += 1
        if phase.name == "prior":
            terms = prior_loss(network, samples, generator=generator)
        else:
            make = generation_loss if phase.name == "generation" else slot_loss
            terms = make(network, samples, prices, generator=generator)
        diary.note(terms)
        return terms.loss

    return loss
