"""A component in closed form: the mean colour of an image."""

import attrs
import torch
from energycomp.components import Composable, NoisedSpace, signal_noise
from torch import Tensor


@attrs.frozen(eq=False)
class Tint(Composable):
    """Images whose mean colour is N(colour, variance), and that are free otherwise."""

    colour: tuple[float, float, float]
    noised_space: NoisedSpace = attrs.field(repr=False)
    variance: float = 1e-3

    def energy(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """The mean of N noised pixels is N(signal colour, signal^2 variance + sigma^2 / N)."""
        signal, sigma = signal_noise(self.noised_space.alphas_cumprod, timestep, sample.dtype)
        offset = sample.mean((2, 3), keepdim=True) - signal * sample.new_tensor(self.colour)[:, None, None]
        variance = signal**2 * self.variance + sigma**2 / sample[0, 0].numel()
        return (offset.square() / (2 * variance)).flatten(1).sum(1)

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Sigma times the gradient of the energy."""
        gradient: Tensor = torch.func.grad(lambda free: self.energy(free, timestep).sum())(sample)
        return signal_noise(self.noised_space.alphas_cumprod, timestep, sample.dtype)[1] * gradient
