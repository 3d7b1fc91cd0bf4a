"""Small networks of windows of a sequence: the factors of a longer one, and how they are trained."""

from collections.abc import Mapping
from pathlib import Path

import torch
from energycomp import Condition, Denoiser
from energycomp.components import EnergyComponent, cosine_schedule, log_snr
from energycomp.denoisers import configured
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


@configured
class WindowNet(nn.Module):
    """Predicts the noise of windows (B, C, N); its layers predict v.

    Args:
        channels: C, the numbers of a point.
        length: N, the points of a window.
        width: of the layers.
    """

    schedule: Tensor

    def __init__(self, *, channels: int, length: int, width: int) -> None:
        super().__init__()
        self.register_buffer("schedule", cosine_schedule(), persistent=False)
        numbers = channels * length
        inner = (nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.layers = nn.Sequential(nn.Linear(numbers + 9, width), nn.SiLU(), *inner, nn.Linear(width, numbers))

    def forward(self, sample: Tensor, timestep: Tensor, _: Condition | None = None) -> Tensor:
        snr = log_snr(self.schedule, timestep).to(sample)[:, None]
        waves = snr / 10 * snr.new_tensor([1.0, 2.0, 4.0, 8.0])
        v = self.layers(torch.cat([sample.flatten(1), snr / 10, waves.sin(), waves.cos()], 1)).reshape(sample.shape)
        return torch.sigmoid(-snr)[..., None].sqrt() * sample + torch.sigmoid(snr)[..., None].sqrt() * v


def read_factors(path: Path, channels: int, widths: Mapping[int, int]) -> list[EnergyComponent]:
    """The components that `train_factors` wrote, one of each length.

    Args:
        path: of the weights.
        channels: the numbers of a point.
        widths: the width of the network by the length of its windows.
    """
    saved = load_file(path)
    found: list[EnergyComponent] = []
    for length, width in widths.items():
        net = WindowNet(channels=channels, length=length, width=width)
        own = {name.removeprefix(f"{length}."): value for name, value in saved.items() if name[0] == str(length)}
        net.load_state_dict(own)
        shape = (channels, length)
        denoiser = Denoiser(net, cosine_schedule(), "epsilon", "product", shape, (1, 1), value_range=None)
        found.append(denoiser.unconditional)
    return found


def train_factors(
    data: Tensor, widths: Mapping[int, int], *, steps: int, path: Path, generator: torch.Generator
) -> None:
    """Trains a network of each length on windows of sequences (B, C, N), and writes the weights to a file.

    Args:
        data: what windows are cut from, at any of its points.
        widths: the width of the network by the length of its windows.
        steps: of each network.
        path: of the file; its folder is made.
        generator: draws windows, timesteps and noise.
    """
    saved: dict[str, Tensor] = {}
    for length, width in widths.items():
        torch.manual_seed(0)
        net = WindowNet(channels=data.shape[1], length=length, width=width)
        average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.998))
        optimizer = torch.optim.Adam(net.parameters(), lr=4e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            # A batch of windows, all from one point on
            row = torch.randint(len(data), (512,), generator=generator)
            start = int(torch.randint(data.shape[2] - length + 1, (), generator=generator))
            clean = data[row, :, start : start + length]
            # The error of v, at any noise
            t = 999 * torch.rand(512, generator=generator)
            alpha = torch.sigmoid(log_snr(net.schedule, t)).float()[:, None, None]
            noise = torch.randn(clean.shape, generator=generator)
            found = net(alpha.sqrt() * clean + (1 - alpha).sqrt() * noise, t)
            loss = ((found - noise).square() / alpha.clamp(min=1e-3)).mean()
            # A step, and the average of the weights
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            average.update_parameters(net)
        saved |= {f"{length}.{name}": value for name, value in average.module.state_dict().items()}
    path.parent.mkdir(exist_ok=True)
    save_file(saved, path)
