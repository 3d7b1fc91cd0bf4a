"""How slots are learned, and scenes of them: the phases of one run, and what shows how it goes."""

from __future__ import annotations

import math
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
from energycomp.recipe import Recipe
from energycomp.training import FitResult, fit
from energycomp_decomp.training_data import Pictures
from energycomp_slots.loss import Prices, generation_loss, prior_loss, slot_loss
from energycomp_slots.model import slots as build
from energycomp_slots.networks import SlotVAE
from energycomp_slots.progress import Diary
from energycomp_slots.training_data import drawn, in_file

__all__ = ["Phase", "phases", "slots"]

BATCH = 24
MAKING = ("generation", "together", "prior")  # phases from which on there are scenes to show


@attrs.frozen
class Phase:
    """A part of a run, with a learning rate that rises and falls of its own.

    Args:
        name: of its folder.
        steps: of a run of the recipe's own length.
        learning_rate: at its peak.
        prices: at a share of its steps.
        learned: the parts of the network that change; all of them when left out.
        trial: the seed of the weights that it begins from; those of the phase before when left out.
    """

    name: str
    steps: int
    learning_rate: float
    prices: Callable[[float], Prices]
    learned: tuple[str, ...] | None = None
    trial: int | None = None


def phases(network: SlotVAE) -> tuple[Phase, ...]:
    """What a network goes through.

    >>> [phase.name for phase in phases(SlotVAE())][2:]
    ['trial-2', 'inference', 'generation', 'together', 'prior']
    """

    # A faster rise of the price makes slots tell nothing.
    def rising(low: float, high: float) -> Callable[[float], Prices]:
        return lambda done: Prices(slots=min(low + (high - low) * done, 0.5))

    whole = (
        *(Phase(f"trial-{seed}", 2_500, 8e-4, rising(0.0, 0.15), trial=seed) for seed in range(3)),
        Phase("inference", 14_000, 8e-4, rising(0.15, 0.85)),
        Phase("generation", 7_000, 8e-4, lambda _: Prices(features=100.0), ("enter", "global_head", "leave", "own")),
        Phase("together", 8_500, 3e-4, lambda done: Prices(features=100.0, matched=min(done / 0.5, 1.0))),
        Phase("prior", 7_000, 2e-3, lambda _: Prices(), ("prior",)),
    )
    if network.plain:
        return (*whole[:3], attrs.evolve(whole[3], steps=sum(phase.steps for phase in whole[3:])))
    return whole if network.prior is not None else whole[:-1]


STEPS = 44_000


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

    Whether slots separate objects is a matter of luck in the first thousands of steps, so that three beginnings are
    tried, and the one of the least loss goes on. First slots learn to explain pictures; then, while they stay as they
    are, the global latent learns to make the feature maps that they come from, which the thesis does without; then both
    learn together; last the prior of global latents is fitted to them.

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
    settings: dict[str, Any] = {
        "weight_decay": 0.0,
        "warmup_fraction": 0.02,
        "max_grad_norm": 1.0,
        "batch_size": BATCH,
        "ema_decay": 0.999,
        "mixed_precision": "bf16",
    }
    return Recipe(model=model, fit=partial(_fit, model, shown, given=init is not None, **settings), steps=STEPS)


def _fit(
    model: Model,
    data: Pictures,
    *,
    given: bool,
    out: Path,
    steps: int,
    sample_every: int | None = None,
    on_sample: Callable[[nn.Module, int], object] | None = None,
    **options: Any,
) -> FitResult:
    network = cast("SlotVAE", model.denoiser.network)
    diary, started, result, best = Diary(Path(out), model, data), 0, None, math.inf
    chosen = network.state_dict()

    def shown(module: nn.Module, step: int) -> None:
        total = diary.show(step)
        if on_sample is not None and diary.phase in MAKING:
            on_sample(module, total)

    todo = [phase for phase in phases(network) if phase.trial is None or not given]
    for phase, end in zip(todo, accumulate(phase.steps for phase in todo), strict=True):
        count = round(steps * end / sum(each.steps for each in todo)) - started
        if not count:
            continue
        diary.begin(phase.name, started)
        network.load_state_dict(chosen if phase.trial is None else _beginning(network, phase.trial))
        network.seen.zero_()
        settings = {"learning_rate": phase.learning_rate, "sample_every": sample_every, "on_sample": shown, **options}
        with _learning(network, phase.learned):
            loss = _loss(phase, count * (options.get("micro_batches") or 1), diary)
            result = fit(model.trained, loss, data, out=Path(out) / phase.name, steps=count, **settings)
        if phase.trial is None:
            chosen = result.ema_state
        elif result.loss < best:
            best, chosen = result.loss, {name: tensor.clone() for name, tensor in network.state_dict().items()}
        started += count
    return attrs.evolve(cast("FitResult", result), step=started)


def _beginning(network: SlotVAE, seed: int) -> dict[str, Tensor]:
    """Weights that nothing has trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SlotVAE(**network.config).state_dict()


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
