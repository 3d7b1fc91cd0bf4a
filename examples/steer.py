"""Steer a flow that knows nothing of this library: two moons, by a reward, and onto a circle.

python examples/steer.py
"""

from typing import Any

import torch

from energycomp_samplers import steer

angles = torch.linspace(0.0, torch.pi, 40)
upper = torch.stack([angles.cos() - 0.5, angles.sin() - 0.25], 1)
moons = torch.cat([upper, -upper])  # 80 points, each with noise of 0.1


def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The flow of the moons in closed form, in place of a network: E[eps - z | x]."""
    t = t[:, None]
    off = (x[:, None] - (1 - t[:, None]) * moons).square().sum(2)
    total = (0.1 * (1 - t)) ** 2 + t**2
    near = (-off / (2 * total)).softmax(1) @ moons
    z = near + 0.1**2 * (1 - t) / total * (x - (1 - t) * near)
    return (x - z) / t


def unit_circle(z: torch.Tensor) -> torch.Tensor:
    return z / z.norm(dim=1, keepdim=True)


noise = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
flow: dict[str, Any] = {"times": torch.linspace(1, 0, 51), "predicts": "flow", "generator": 0}
wishes: dict[str, dict[str, Any]] = {
    "as it is": {},
    "the reward z_1": {"reward": lambda z: z[:, 0]},
    "on a circle": {"project": unit_circle},
}
for name, wish in wishes.items():
    samples, report = steer(velocity, noise, **flow, **wish)
    print(f"{name}: mean {samples.mean(0).tolist()}, mean radius {samples.norm(dim=1).mean():.3f}\n{report}\n")
