"""The phases in which slots are learned, and scenes of them: steps, learning rates and loss weights."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from energycomp_slots.loss import LossWeights
from energycomp_slots.networks import SlotVAE

BATCH = 24
TRIALS = 2
WARM_UP = 0.04  # weight of the KL term of slots after the restarts
HIGHEST = 0.5  # its maximum
SCENES = ("enter", "global_head", "leave", "own")  # the modules of the global latent


@attrs.frozen
class Phase:
    """A phase of a run, with a learning rate schedule of its own: one cycle, or constant for a restart.

    Args:
        name: of its folder.
        steps: in a run of the recipe's default length.
        learning_rate: the maximum.
        weights: the loss weights at a fraction of its steps.
        learned: the modules of the network that are trained; by default all of them.
        trial: for a restart, the seed of the initial weights; by default the weights of the previous phase.
        batch_size: images, or their global latents.
    """

    name: str
    steps: int
    learning_rate: float
    weights: Callable[[float], LossWeights]
    learned: tuple[str, ...] | None = None
    trial: int | None = None
    batch_size: int = BATCH


def phases(network: SlotVAE, rise: float = WARM_UP) -> tuple[Phase, ...]:
    """The phases of training; `rise` is the weight of the KL term of slots after the restarts."""
    # An MLP maps the global latent to slots without feature maps, so that the term of feature maps does not apply.
    maps = 0.0 if network.slots_from == "mlp" else 100.0

    # With a faster warm-up slots stay empty.
    def rising(low: float, high: float) -> Callable[[float], LossWeights]:
        return lambda done: LossWeights(slots=min(low + (high - low) * done, HIGHEST))

    whole = (
        *(Phase(f"trial-{seed}", 2_500, 8e-4, rising(0.0, rise), trial=seed) for seed in range(TRIALS)),
        Phase("inference", 14_000, 8e-4, rising(rise, 0.85)),
        Phase(
            "generation",
            7_000,
            8e-4,
            lambda _: LossWeights(features=maps, matched=float(network.own is not None)),
            SCENES,
        ),
        Phase("together", 8_500, 3e-4, lambda done: LossWeights(features=maps, matched=min(done / 0.5, 1.0))),
        Phase("prior", 30_000, 1e-3, lambda _: LossWeights(), ("prior",), batch_size=256),
    )
    if network.plain:
        return (
            *whole[:TRIALS],
            attrs.evolve(whole[TRIALS], steps=sum(phase.steps for phase in whole[TRIALS:] if phase.learned is None)),
        )
    return whole if network.prior is not None else whole[:-1]
