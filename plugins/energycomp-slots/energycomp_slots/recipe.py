"""How slots are learned, and scenes of them: the phases of one run, and what shows how it goes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import attrs
import torch
from accelerate import PartialState
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from energycomp.errors import InputError
from energycomp.models import Model
from energycomp.training import FitResult, Recipe, fit
from energycomp_decomp.training_data import Pictures
from energycomp_slots.loss import Prices, Terms, generation_loss, slot_loss
from energycomp_slots.model import checked_options, untrained
from energycomp_slots.model import slots as build
from energycomp_slots.networks import SlotVAE
from energycomp_slots.prior import LatentPrior
from energycomp_slots.progress import Diary
from energycomp_slots.training_data import drawn, in_file

__all__ = ["Phase", "other_scenes", "phases", "slots"]

BATCH, CHUNK, TRIALS = 24, 250, 2
RISE, HIGHEST = 0.04, 0.5  # price of latents after the trials, and from the middle of inference on
ABOUT_SCENES = ("slots_from", "share_weights", "share_initial", "prior", "global_width", "global_hidden")
SCENES = ("enter", "global_head", "leave", "own")  # what makes slots of a global latent, and it of a picture
MAKING = ("generation", "together", "prior")  # phases from which on there are scenes to show


@attrs.frozen
class Phase:
    """A part of a run, with a learning rate of its own that rises and falls; that of a trial stays.

    Args:
        name: of its folder.
        steps: of a run of the recipe's own length.
        learning_rate: at its peak.
        prices: at a share of its steps.
        learned: the parts of the network that change; all of them when left out.
        trial: the seed of the weights that it begins from; those of the phase before when left out.
        batch_size: of pictures, or of their global latents.
    """

    name: str
    steps: int
    learning_rate: float
    prices: Callable[[float], Prices]
    learned: tuple[str, ...] | None = None
    trial: int | None = None
    batch_size: int = BATCH


def phases(network: SlotVAE, rise: float = RISE) -> tuple[Phase, ...]:
    """What a network goes through; `rise` is the price of latents after the trials.

    >>> [phase.name for phase in phases(SlotVAE())][2:]
    ['inference', 'generation', 'together', 'prior']
    """
    # Maps that agree teach nothing to what makes slots without them, or by weights of its own.
    maps = 0.0 if network.slots_from == "mlp" else 100.0

    # A faster rise of the price makes slots tell nothing.
    def rising(low: float, high: float) -> Callable[[float], Prices]:
        return lambda done: Prices(slots=min(low + (high - low) * done, HIGHEST))

    whole = (
        *(Phase(f"trial-{seed}", 2_500, 8e-4, rising(0.0, rise), trial=seed) for seed in range(TRIALS)),
        Phase("inference", 14_000, 8e-4, rising(rise, 0.85)),
        Phase(
            "generation", 7_000, 8e-4, lambda _: Prices(features=maps, matched=float(network.own is not None)), SCENES
        ),
        Phase("together", 8_500, 3e-4, lambda done: Prices(features=maps, matched=min(done / 0.5, 1.0))),
        Phase("prior", 30_000, 1e-3, lambda _: Prices(), ("prior",), batch_size=256),
    )
    if network.plain:
        return (
            *whole[:TRIALS],
            attrs.evolve(whole[TRIALS], steps=sum(phase.steps for phase in whole[TRIALS:] if phase.learned is None)),
        )
    return whole if network.prior is not None else whole[:-1]


def slots(
    *,
    data: Path | None,
    init: Model | None,
    preset: str,
    cache: Path,
    world: str = "arrow",
    rise: str | float = RISE,
    **options: Any,
) -> Recipe:
    """Slot-VAE; the recipe of the shipped weights.

    Whether slots separate objects is a matter of luck in the first thousands of steps, so that two beginnings are
    tried, and the one of the least loss goes on. First slots learn to explain pictures; then, while they stay as they
    are, the global latent learns to make the feature maps that they come from, which the thesis does without; then both
    learn together; last the prior of global latents is fitted to them.

    Args:
        data: a folder of pictures, or an npz or h5 file of a public set; drawn ones of a world when left out.
        init: a model to start from; with options, only its slots of pictures, and scenes of them are learned anew.
        preset: "default" or "paper".
        cache: not used: what is drawn is drawn anew.
        world: of the drawn pictures: "arrow", "sprites" or "rooms".
        rise: the price of latents after the trials, of 0.5 in the end; where slots stay alike, a lower one.
        options: of the model, see `energycomp_slots.model.slots`.
    """
    del cache
    if init is not None and preset != "default":
        raise InputError(f"got --preset {preset} with --init {init.name}; expected one of them")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if init is None:
            checked_options(options)
            model = build(preset=preset, pretrained=False, **options)
        else:
            model = other_scenes(init, options) if options else _slots_of(init)
    if data is None:
        model = attrs.evolve(
            model, name="slots" if world == "arrow" else f"slots-{world}"
        )  # `evaluate` finds data by it
    shown = drawn(world, model.denoiser.sample_shape[1]) if data is None else in_file(data, model.processor, BATCH)
    settings: dict[str, Any] = {
        "weight_decay": 0.0,
        "warmup_fraction": 0.02,
        "max_grad_norm": 1.0,
        "ema_decay": 0.999,
        "mixed_precision": "bf16",
    }
    todo = phases(cast("SlotVAE", model.denoiser.network), _price(rise))[_skipped(init, options) :]
    fitted = partial(_fit, model, shown, todo, **settings)
    return Recipe(model=model, fit=fitted, steps=sum(phase.steps for phase in todo))


def _price(text: str | float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= HIGHEST:
        raise InputError(f"got rise={text}; expected a number from 0 to {HIGHEST}")
    return value


def other_scenes(init: Model, options: Mapping[str, Any]) -> Model:
    """A model that reads slots from pictures as `init` does, and is untrained in making scenes of a global latent.

    Raises:
        InputError: options of how pictures are read.
    """
    if reading := options.keys() - set(ABOUT_SCENES):
        raise InputError(
            f"got --init {init.name} with the option {min(reading)!r}; expected options of how scenes are made: "
            f"{', '.join(ABOUT_SCENES)}"
        )
    network = cast("SlotVAE", _slots_of(init).denoiser.network)
    config = {**network.config, **checked_options(options)}
    made = untrained(size=config.pop("sample_size"), name=init.name, **config)
    kept = network.state_dict().items()
    tensors = {name: tensor for name, tensor in kept if name.partition(".")[0] not in (*SCENES, "prior")}
    made.denoiser.network.load_state_dict(tensors, strict=False)
    return made


def _slots_of(init: Model) -> Model:
    if not isinstance(init.denoiser.network, SlotVAE):
        raise InputError(f"got --init {init.name}, which has no slots; expected a model of this recipe")
    return init


def _skipped(init: Model | None, options: Mapping[str, Any]) -> int:
    """How many phases are left out: none; the trials; or all before scenes are learned."""
    return 0 if init is None else TRIALS + bool(options)


def _fit(
    model: Model,
    data: Pictures,
    todo: Sequence[Phase],
    *,
    out: Path,
    steps: int,
    sample_every: int | None = None,
    on_sample: Callable[[nn.Module, int], object] | None = None,
    **options: Any,
) -> FitResult:
    network = cast("SlotVAE", model.denoiser.network)
    diary, started, result, best = Diary(Path(out), model, data), 0, None, math.inf
    chosen, processes = network.state_dict(), PartialState().num_processes

    def shown(module: nn.Module, step: int) -> None:
        total = diary.show(step)
        if on_sample is not None and diary.phase in MAKING:
            on_sample(module, total)

    for phase, end in zip(todo, accumulate(phase.steps for phase in todo), strict=True):
        count = round(steps * end / sum(each.steps for each in todo)) - started
        if not count:
            continue
        diary.begin(phase.name, started)
        network.load_state_dict(chosen if phase.trial is None else _beginning(network, phase.trial))
        network.seen.zero_()
        examples: Dataset[Tensor] = Latents(_latents(network, data)) if phase.name == "prior" else data
        size, micro = min(phase.batch_size, len(data)), options.get("micro_batches") or processes
        settings = {
            "learning_rate": phase.learning_rate,
            "schedule": "one_cycle" if phase.trial is None else "constant",
            "batch_size": size - size % micro or size,
            "sample_every": sample_every,
            "on_sample": shown,
            **options,
        }
        with _learning(network, phase.learned):
            loss = _loss(phase, count * max(micro // processes, 1), diary)
            result = fit(model.trained, loss, examples, out=Path(out) / phase.name, steps=count, **settings)
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
    network.zero_grad(set_to_none=True)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(names is None or name.partition(".")[0] in names)
    try:
        yield
    finally:
        network.requires_grad_()


class Latents(Dataset[Tensor]):
    """Global latents (N, L) of pictures."""

    def __init__(self, means: Tensor) -> None:
        self.means = means

    def __len__(self) -> int:
        return len(self.means)

    def __getitem__(self, index: int) -> Tensor:
        return self.means[index]


@torch.no_grad()
def _latents(network: SlotVAE, data: Pictures) -> Tensor:
    """Means of q(z_g | x) of all pictures, (N, L), by which the prior measures what it learns."""
    chunks = tqdm(range(0, len(data), CHUNK), desc="reading scenes", delay=2, leave=False)
    means = torch.cat([network.summarise(network.encode(_samples(data.images[k : k + CHUNK])))[0] for k in chunks])
    cast("LatentPrior", network.prior).measure(means)
    return means


def _samples(batch: Tensor) -> Tensor:
    return (batch.float() / 127.5 - 1.0).contiguous(memory_format=torch.channels_last)


def _loss(phase: Phase, batches: int, diary: Diary) -> Callable[[nn.Module, Tensor, torch.Generator], Tensor]:
    def loss(module: Any, batch: Tensor, generator: torch.Generator) -> Tensor:
        network = cast("SlotVAE", module)
        prices = phase.prices(int(network.seen) / batches)
        network.seen += 1
        if phase.name == "prior":
            error = cast("LatentPrior", network.prior).loss(batch, generator=generator)
            terms = Terms(error, {"prior": error})
        else:
            make = generation_loss if phase.name == "generation" else slot_loss
            terms = make(network, _samples(batch), prices, generator=generator)
        diary.note(terms)
        return terms.loss

    return loss
