"""The filter against a closed form, the composed posterior, and the networks."""

import re
from pathlib import Path

import pytest
import torch
from energycomp import Composer

from energycomp_lorenz.posterior import distance, posterior, some
from energycomp_lorenz.states import SCALE, SPREAD, bootstrap_filter, train, trajectories

README = Path(__file__).parents[1] / "README.md"


def test_the_filter_weighs_its_particles() -> None:
    """One state, whose posterior is the stationary distribution times the likelihood."""
    particles = bootstrap_filter({0: 1.0}, 1, 4000, torch.Generator().manual_seed(0))
    x = trajectories(4000, 1, torch.Generator().manual_seed(1))[:, :, 0]
    w = torch.softmax(-((x[:, 0] - 1.0) * SCALE[0] / SPREAD).square() / 2, 0)
    assert torch.allclose(particles.mean(0), w @ x, atol=0.05)


def test_an_observation_is_a_part_without_mass() -> None:
    whole = posterior(9, {8: 0.5})
    assert (len(whole.terms), whole.mass) == (2 + 1 + 2, pytest.approx(1.0))
    options = {"sampler": "smc", "num_inference_steps": 60, "output_type": "latent", "progress": False}
    x = Composer(whole).sample(300, generator=0, **options)[:, :, -1]
    exact = some(bootstrap_filter({8: 0.5}, 9, 4000, torch.Generator().manual_seed(0)), 300, 0)
    assert x[:, 0].mean() == pytest.approx(0.5, abs=0.1)
    assert distance(exact, x) < 0.6 < distance(exact, trajectories(300, 1, torch.Generator().manual_seed(2))[:, :, 0])


def test_the_networks_are_trained(tmp_path: Path) -> None:
    train(steps=2, n=100, path=tmp_path / "states.safetensors")
    assert (tmp_path / "states.safetensors").stat().st_size < 250_000


def test_the_readme_runs() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(block.replace("=300", "=3"), str(README), "exec"), names)  # noqa: S102
    assert getattr(names["x"], "shape", None) == (100, 3, 33)
