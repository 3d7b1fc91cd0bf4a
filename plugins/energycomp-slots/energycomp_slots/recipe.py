"""How slots are learned, and scenes of them: the phases of one run, and what shows how it goes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import attrs
import torch
from accelerate import PartialState
from torch import Tensor, nn

from energycomp.errors import InputError
from energycomp.images import from_bytes
from energycomp.models import Model
from energycomp.progress import progress
from energycomp.seeds import torch_seed
from energycomp_datasets.pictures import Pictures
from energycomp_datasets.rooms.training import draw_world, in_file
from energycomp_lab.training import FitConfig, FitResult, Loss, OnSample, Step, fit, option_number, start
from energycomp_slots.log import TrainingLog
from energycomp_slots.loss import Terms, generation_loss, slot_loss
from energycomp_slots.model import parse_options, slots as build, untrained
from energycomp_slots.networks import SlotVAE
from energycomp_slots.phases import BATCH, HIGHEST, SCENES, TRIALS, WARM_UP, Phase, phases
from energycomp_slots.prior import LatentPrior

CHUNK = 250  # images that are read at once
PRIOR_ALONE = {"prior_hidden"}  # options that change nothing but the prior of scenes
ABOUT_SCENES = ("slots_from", "share_weights", "share_initial", "prior", "global_width", "global_hidden", *PRIOR_ALONE)
MAKING = ("generation", "together", "prior")  # phases in which scenes can be shown


def slots(
    *,
    data: Path | None,
    init: Model | None,
    preset: str,
    cache: Path,
    world: str = "arrow",
    rise: str | float = WARM_UP,
    **options: Any,
) -> Phases:
    """Slot-VAE; the recipe of the shipped weights.

    Whether slots separate objects depends on the initialization, so that training starts twice, and continues with the
    lower loss. First slots learn to reconstruct images. Then they are frozen, and the global latent learns to generate
    their feature maps, a step that Wang (2026) does not have. Then both are trained together. Last, the prior of global
    latents is fitted to them.

    Args:
        data: a folder of images, or an npz or h5 file of a public data set; by default drawn images of a world.
        init: a model to start from; with options, only its slots of images, and scenes are trained again.
        world: of the drawn images: "arrow", "sprites" or "rooms".
        rise: the weight of the KL term of slots after the restarts, finally 0.5; choose a lower one where slots stay
            alike.
        options: of the model, see `energycomp_slots.model.slots`.
    """
    del cache
    if init is not None and preset != "default":
        raise InputError(f"got --preset {preset} with --init {init.name}; expected one of them")
    if init is None:
        parse_options(options)

    def untrained_model() -> Model:
        if init is None:
            return build(preset=preset, pretrained=False, **options)
        return other_scenes(init, options)

    model = start(_slots_of(init) if init is not None and not options else None, untrained_model)
    if data is None:
        model = attrs.evolve(
            model, name="slots" if world == "arrow" else f"slots-{world}"
        )  # `evaluate` finds data by it
    shown = draw_world(world, model.denoiser.sample_shape[1]) if data is None else in_file(data, model.processor)
    weight = option_number("rise", rise, most=HIGHEST)
    todo = _todo(phases(cast("SlotVAE", model.denoiser.network), weight), init, options)
    config = FitConfig(
        steps=sum(phase.steps for phase in todo), batch_size=BATCH, learning_rate=todo[0].learning_rate,
        weight_decay=0.0, warmup_fraction=0.02, mixed_precision="bf16",
    )  # fmt: skip
    return Phases(model=model, data=shown, config=config, todo=todo)


def other_scenes(init: Model, options: Mapping[str, Any]) -> Model:
    """A model that reads slots from pictures as `init` does, and is untrained in making scenes of a global latent.

    With options of the prior alone, only the prior is untrained.
    """
    if reading := options.keys() - set(ABOUT_SCENES):
        raise InputError(
            f"got --init {init.name} with the option {min(reading)!r}; expected options of how scenes are made: "
            f"{', '.join(ABOUT_SCENES)}"
        )
    network = cast("SlotVAE", _slots_of(init).denoiser.network)
    config = {**network.config, **parse_options(options)}
    made = untrained(size=config.pop("sample_size"), name=init.name, **config)
    anew = ("prior",) if options.keys() == PRIOR_ALONE else (*SCENES, "prior")
    kept = network.state_dict().items()
    tensors = {name: tensor for name, tensor in kept if name.partition(".")[0] not in anew}
    made.denoiser.network.load_state_dict(tensors, strict=False)
    return made


def _slots_of(init: Model) -> Model:
    if not isinstance(init.denoiser.network, SlotVAE):
        raise InputError(f"got --init {init.name}, which has no slots; expected a model of this recipe")
    return init


def _todo(whole: tuple[Phase, ...], init: Model | None, options: Mapping[str, Any]) -> tuple[Phase, ...]:
    """All phases; all but the trials; those in which scenes are learned; or that of the prior."""
    if init is None:
        return whole
    if options.keys() != PRIOR_ALONE:
        return whole[TRIALS + bool(options) :]
    if whole[-1].name != "prior":
        raise InputError(
            f"got prior_hidden with --init {init.name}, which has no diffusion prior; expected one that has"
        )
    return whole[-1:]


@attrs.frozen(eq=False, kw_only=True)
class Phases:
    """The recipe: a run of `fit` for each phase, in a folder of its own."""

    model: Model
    data: Pictures
    config: FitConfig
    todo: tuple[Phase, ...]

    def run(
        self, out: str | Path, *, on_sample: OnSample | None = None, progress: bool = True, **changes: Any
    ) -> FitResult:
        """As `energycomp_lab.training.Recipe.run`; changes hold for every phase."""
        out = Path(out)
        whole = attrs.evolve(self.config, **changes)
        network = cast("SlotVAE", self.model.denoiser.network)
        log = TrainingLog(out, self.model, self.data)
        started = 0
        result = None
        best = math.inf
        chosen = network.state_dict()

        def shown(module: nn.Module, step: int) -> None:
            total = log.show(step)
            if on_sample is not None and log.phase in MAKING:
                on_sample(module, total)

        for phase, end in zip(self.todo, accumulate(phase.steps for phase in self.todo), strict=True):
            count = round(whole.steps * end / sum(each.steps for each in self.todo)) - started
            if not count:
                continue
            log.begin(phase.name, started)
            network.load_state_dict(chosen if phase.trial is None else _initial_weights(network, phase.trial))
            examples: Any = _latents(network, self.data) if phase.name == "prior" else self.data
            config = attrs.evolve(whole, **{**self._settings(phase, whole), **changes, "steps": count})
            with _train_only(network, phase.learned):
                result = fit(
                    self.model.trained, _loss(phase, log), examples, config, out=out / phase.name, on_sample=shown,
                    progress=progress,
                )  # fmt: skip
            if phase.trial is None:
                chosen = result.ema_state
            elif result.loss < best:
                best = result.loss
                chosen = {name: tensor.clone() for name, tensor in network.state_dict().items()}
            started += count
        return attrs.evolve(cast("FitResult", result), step=started)

    def _settings(self, phase: Phase, whole: FitConfig) -> dict[str, Any]:
        size = min(phase.batch_size, len(self.data))
        micro = whole.micro_batches or PartialState().num_processes
        return {
            "learning_rate": phase.learning_rate,
            "schedule": "one_cycle" if phase.trial is None else "constant",
            "batch_size": size - size % micro or size,
        }


def _initial_weights(network: SlotVAE, seed: int) -> dict[str, Tensor]:
    """Weights that nothing has trained."""
    with torch_seed(seed):
        return SlotVAE(**network.config).state_dict()


@contextmanager
def _train_only(network: SlotVAE, names: tuple[str, ...] | None) -> Iterator[None]:
    """Only the named parts of a network change."""
    network.zero_grad(set_to_none=True)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(names is None or name.partition(".")[0] in names)
    try:
        yield
    finally:
        network.requires_grad_()


@torch.no_grad()
def _latents(network: SlotVAE, data: Pictures) -> Tensor:
    """Means of q(z_g | x) of all pictures, (N, L), by which the prior measures what it learns."""
    chunks = progress(range(0, len(data), CHUNK), "reading scenes")
    device = next(network.parameters()).device
    parts = (_samples(data.images[k : k + CHUNK]).to(device) for k in chunks)
    means = torch.cat([network.summarise(network.encode(part))[0].cpu() for part in parts])
    cast("LatentPrior", network.prior).measure(means)
    return means


def _samples(batch: Tensor) -> Tensor:
    return from_bytes(batch).contiguous(memory_format=torch.channels_last)


def _loss(phase: Phase, log: TrainingLog) -> Loss:
    def loss(module: Any, batch: Tensor, step: Step) -> Tensor:
        network = cast("SlotVAE", module)
        generator = step.generator
        if phase.name == "prior":
            error = cast("LatentPrior", network.prior).loss(batch, generator=generator)
            terms = Terms(error, {"prior": error})
        else:
            make = generation_loss if phase.name == "generation" else slot_loss
            terms = make(network, _samples(batch), phase.weights(step.fraction), generator=generator)
        log.note(terms)
        return terms.loss

    return loss
