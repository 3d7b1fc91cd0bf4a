"""Short walks around a building: the process, what is legal, and the networks that learn windows of it."""

from pathlib import Path

import torch
from energycomp import Condition, Denoiser
from energycomp.components import EnergyComponent, cosine_schedule, log_snr
from energycomp.denoisers import configured
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

STEP, BUILDING, RING, WIDTH, LONGEST = 0.3, 0.6, 1.4, 0.25, 1.2  # walks keep 0.1 more from the building
LENGTH, WIDTHS = 4, {4: 96, 1: 48}  # points of a window; widths of the networks of windows and of single points
WEIGHTS = Path(__file__).parent / "weights" / "walks.safetensors"


def distance(x: Tensor, place: Tensor) -> Tensor:
    """The least distance of each step of walks (B, 2, N) from a place (2,), (B, N - 1)."""
    start, step = x[:, :, :-1] - place[:, None], x.diff(dim=2)
    share = (-(start * step).sum(1) / step.square().sum(1).clamp(min=1e-9)).clamp(0, 1)
    return (start + share[:, None] * step).norm(dim=1)


def is_legal(x: Tensor) -> Tensor:
    """Whether walks (B, 2, N) take no step longer than 1.2, do not cross the building, and stay near it, (B,)."""
    steps, apart = x.diff(dim=2).norm(dim=1), distance(x, torch.zeros(2))
    return (steps < LONGEST).all(1) & (apart > BUILDING).all(1) & (x.norm(dim=1) < 2.5).all(1)


def walks(n: int, points: int, generator: torch.Generator, burn_in: int = 30) -> Tensor:
    """Random walks (n, 2, points): normal steps, drawn again where they leave the ring or come near the building."""
    here = torch.randn(n, 2, generator=generator)
    here, path = RING * here / here.norm(dim=1, keepdim=True), []
    for _ in range(burn_in + points):
        path.append(here)
        here, left = here.clone(), torch.arange(n)
        while len(left):
            tried = path[-1][left] + STEP * torch.randn(len(left), 2, generator=generator)
            chance = torch.exp(-((tried.norm(dim=1) - RING) / WIDTH).square() / 2)
            free = distance(torch.stack([path[-1][left], tried], 2), torch.zeros(2))[:, 0] > BUILDING + 0.1
            good = free & (torch.rand(len(left), generator=generator) < chance)
            here[left[good]], left = tried[good], left[~good]
    return torch.stack(path[burn_in:], 2)


@configured
class WalkNet(nn.Module):
    """Predicts the noise of walks of one length; its layers predict v."""

    schedule: Tensor

    def __init__(self, *, length: int) -> None:
        super().__init__()
        width = WIDTHS[length]
        self.register_buffer("schedule", cosine_schedule(), persistent=False)
        inner = (nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.layers = nn.Sequential(nn.Linear(2 * length + 9, width), nn.SiLU(), *inner, nn.Linear(width, 2 * length))

    def forward(self, sample: Tensor, timestep: Tensor, _: Condition | None = None) -> Tensor:
        snr = log_snr(self.schedule, timestep).to(sample)[:, None]
        waves = snr / 10 * snr.new_tensor([1.0, 2.0, 4.0, 8.0])
        v = self.layers(torch.cat([sample.flatten(1), snr / 10, waves.sin(), waves.cos()], 1)).reshape(sample.shape)
        return torch.sigmoid(-snr)[..., None].sqrt() * sample + torch.sigmoid(snr)[..., None].sqrt() * v


def factors(weights: Path = WEIGHTS) -> tuple[EnergyComponent, EnergyComponent]:
    """The components of windows of 4 points and of single points, with the weights of this package."""
    saved, found = load_file(weights), []
    for length in WIDTHS:
        net = WalkNet(length=length)
        own = {name.removeprefix(f"{length}."): value for name, value in saved.items() if name[0] == str(length)}
        net.load_state_dict(own)
        shape = (2, length)
        found.append(Denoiser(net, cosine_schedule(), "epsilon", "product", shape, (1, 1), value_range=None))
    return found[0].unconditional, found[1].unconditional


def train(steps: int = 6000, walkers: int = 20_000, path: Path = WEIGHTS) -> None:
    """Trains both networks, two minutes on one core, and writes their weights."""
    generator, saved = torch.Generator().manual_seed(0), dict[str, Tensor]()
    data = walks(walkers, 5 * LENGTH, generator)
    for length in WIDTHS:
        torch.manual_seed(0)
        net = WalkNet(length=length)
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
