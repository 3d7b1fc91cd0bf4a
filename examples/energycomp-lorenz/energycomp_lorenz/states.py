"""The stochastic Lorenz '63 system, a bootstrap particle filter for it, and the networks of its windows."""

from pathlib import Path

import torch
from energycomp import Condition, Denoiser
from energycomp.components import EnergyComponent, cosine_schedule, log_snr
from energycomp.denoisers import configured
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

STEP, NOISE, SPREAD = 0.05, 1.0, 1.0  # time of a step, and deviations of process and observation
MEAN, SCALE = torch.tensor([0.0, 0.0, 24.0]), torch.tensor([8.0, 9.0, 8.5])  # states are standardised by them
LENGTH, WIDTHS = 5, {5: 128, 1: 64}  # states of a window; widths of the networks of windows and of single states
WEIGHTS = Path(__file__).parent / "weights" / "states.safetensors"


def _drift(x: Tensor) -> Tensor:
    a, b, c = x.unbind(1)
    return torch.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], 1)


def advanced(x: Tensor, generator: torch.Generator) -> Tensor:
    """Standardised states (B, 3) one step later: Runge-Kutta of order 4, and normal noise."""
    here = x * SCALE + MEAN
    for _ in range(2):
        h = STEP / 2
        k1 = _drift(here)
        k2 = _drift(here + h / 2 * k1)
        k3 = _drift(here + h / 2 * k2)
        here = here + h / 6 * (k1 + 2 * k2 + 2 * k3 + _drift(here + h * k3))
    return (here + NOISE * torch.randn(here.shape, generator=generator) - MEAN) / SCALE


def trajectories(n: int, states: int, generator: torch.Generator, burn_in: int = 50) -> Tensor:
    """Stationary trajectories (n, 3, states)."""
    x, path = torch.randn(n, 3, generator=generator), []
    for _ in range(burn_in + states):
        x = advanced(x, generator)
        path.append(x)
    return torch.stack(path[burn_in:], 2)


def bootstrap_filter(observed: dict[int, float], states: int, n: int, generator: torch.Generator) -> Tensor:
    """Particles (n, 3) of the last state, given observations of the first number at some states (Gordon, 1993)."""
    x = trajectories(n, 1, generator)[:, :, 0]
    for k in range(states):
        x = advanced(x, generator) if k else x
        if k in observed:
            log_weights = -((x[:, 0] - observed[k]) * SCALE[0] / SPREAD).square() / 2
            points = (torch.arange(n) + torch.rand((), generator=generator)) / n
            edges = torch.softmax(log_weights.double(), 0).cumsum(0)
            x = x[torch.searchsorted(edges, points.double()).clamp(max=n - 1)]
    return x


@configured
class StateNet(nn.Module):
    """Predicts the noise of windows of one length; its layers predict v."""

    schedule: Tensor

    def __init__(self, *, length: int) -> None:
        super().__init__()
        width = WIDTHS[length]
        self.register_buffer("schedule", cosine_schedule(), persistent=False)
        inner = (nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.layers = nn.Sequential(nn.Linear(3 * length + 9, width), nn.SiLU(), *inner, nn.Linear(width, 3 * length))

    def forward(self, sample: Tensor, timestep: Tensor, _: Condition | None = None) -> Tensor:
        snr = log_snr(self.schedule, timestep).to(sample)[:, None]
        waves = snr / 10 * snr.new_tensor([1.0, 2.0, 4.0, 8.0])
        v = self.layers(torch.cat([sample.flatten(1), snr / 10, waves.sin(), waves.cos()], 1)).reshape(sample.shape)
        return torch.sigmoid(-snr)[..., None].sqrt() * sample + torch.sigmoid(snr)[..., None].sqrt() * v


def factors(weights: Path = WEIGHTS) -> tuple[EnergyComponent, EnergyComponent]:
    """The components of windows of 5 states and of single states, with the weights of this package."""
    saved, found = load_file(weights), []
    for length in WIDTHS:
        net = StateNet(length=length)
        own = {name.removeprefix(f"{length}."): value for name, value in saved.items() if name[0] == str(length)}
        net.load_state_dict(own)
        shape = (3, length)
        found.append(Denoiser(net, cosine_schedule(), "epsilon", "product", shape, (1, 1), value_range=None))
    return found[0].unconditional, found[1].unconditional


def train(steps: int = 8_000, n: int = 20_000, path: Path = WEIGHTS) -> None:
    """Trains both networks, minutes on one core, and writes their weights."""
    generator, saved = torch.Generator().manual_seed(0), dict[str, Tensor]()
    data = trajectories(n, 4 * LENGTH, generator, burn_in=100)
    for length in WIDTHS:
        torch.manual_seed(0)
        net = StateNet(length=length)
        average = torch.optim.swa_utils.AveragedModel(
            net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998)
        )
        optimizer = torch.optim.Adam(net.parameters(), lr=4e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            row = torch.randint(len(data), (512,), generator=generator)
            start = int(torch.randint(data.shape[2] - length + 1, (), generator=generator))
            clean, t = data[row, :, start : start + length], 999 * torch.rand(512, generator=generator)
            alpha = torch.sigmoid(log_snr(net.schedule, t)).float()[:, None, None]
            noise = torch.randn(clean.shape, generator=generator)
            found = net(alpha.sqrt() * clean + (1 - alpha).sqrt() * noise, t)
            loss = ((found - noise).square() / alpha.clamp(min=1e-3)).mean()  # the error of v
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            average.update_parameters(net)
        saved |= {f"{length}.{name}": value for name, value in average.module.state_dict().items()}
    path.parent.mkdir(exist_ok=True)
    save_file(saved, path)
