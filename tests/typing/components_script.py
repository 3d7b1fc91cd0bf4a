"""Components, their operators and their samples, as a user types them. It is checked by mypy --strict, not run."""

from typing import Literal, assert_type

import attrs
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from energycomp.components import (
    Composable,
    Composition,
    EnergyComponent,
    Gaussian,
    HasEnergy,
    Mixture,
    NoisedSpace,
    combine,
    signal_noise,
)
from energycomp.denoisers import Conditional
from energycomp.sampling import Composer


@attrs.frozen(eq=False)
class Mine(Composable):
    noised_space: NoisedSpace = attrs.field(repr=False)

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        signal, sigma = signal_noise(self.noised_space.alphas_cumprod, timestep)
        return sigma * sample / signal

    def energy(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return sample.square().flatten(1).sum(1) / 2


class Later(Composable):
    def __init__(self, noised_space: NoisedSpace) -> None:
        self.noised_space: NoisedSpace = noised_space

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return sample


class Alone:
    def __init__(self, noised_space: NoisedSpace) -> None:
        self.noised_space = noised_space

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return sample


def take(component: EnergyComponent) -> Tensor:
    return component.eps(Tensor(), Tensor())


def components(a: Conditional, b: Conditional, g: Gaussian, space: NoisedSpace) -> None:
    for component in (a, g, a + b, a & b, ~a, 2 * a, a / 2, -a, +a, g | g, Composer(a), Mine(space), Later(space)):
        take(component)
    take(Alone(space))
    energies: list[HasEnergy] = [g, g | g, g + g, Composer(g), Mine(space)]
    assert_type(energies[0].energy(Tensor(), Tensor()), Tensor)
    assert_type(a + b, Composition)
    assert_type(a & b, Composition)
    assert_type(np.float32(2) * a, Composition)
    assert_type(a | b, Mixture)
    assert_type(a + Alone(space), Composition)
    assert_type(Alone(space) + a, Composition)
    assert_type(Composition.of(Alone(space)), Composition)
    assert_type(combine([a, Alone(space)], "mean"), Composition)


def sums(a: Conditional, b: Conditional, g: Gaussian) -> None:
    Composer(sum([a, b]))
    Composer(sum([a & b, 2 * a]))
    leaves = [a, b]
    Composer(leaves)
    Composer(sum(leaf for leaf in leaves))
    mixed = [a, a & b, g]
    Composer(mixed)
    Composer((a, b), rule="mean")
    assert_type(sum([a + b, a - b], start=a - a), Composition)


def samples(composer: Composer, kind: Literal["np", "pt"]) -> None:
    assert_type(composer.sample(), list[Image.Image])
    assert_type(composer.sample(4, output_type="pil", progress=False), list[Image.Image])
    assert_type(composer.sample(4, output_type="np", num_inference_steps=3), NDArray[np.float32])
    assert_type(composer.sample(output_type="pt", mixed_precision="bf16"), Tensor)
    assert_type(composer.sample(output_type="latent", scheduler="ddim", generator=None), Tensor)
    assert_type(composer.sample(output_type=kind), NDArray[np.float32] | Tensor)


def faults(a: Conditional, composer: Composer) -> None:
    Composer("a")  # type: ignore[arg-type]
    Composer([a, 3])  # type: ignore[list-item]
    composer.sample(output_type="jpg")  # type: ignore[call-overload]
    composer.sample(steps=3)  # type: ignore[call-overload]
    take(1)  # type: ignore[arg-type]
