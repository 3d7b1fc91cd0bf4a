"""Plans of the shipped weights: legal where the windows' separators are divided out, and clear of an obstacle."""

import re
from pathlib import Path

import pytest
import torch
from energycomp import Composer
from energycomp.components import Composition

from energycomp_chain.plans import POINTS, is_valid, plan
from energycomp_chain.walks import is_legal, train, walks

README = Path(__file__).parents[1] / "README.md"
START = torch.tensor([1.4, 0.0])


def drawn(cover: Composition) -> torch.Tensor:
    options = {"output_type": "latent", "generator": 0, "progress": False, "num_inference_steps": 50}
    return Composer(cover).sample(100, sampler="smc", report=lambda _: None, **options)


def test_what_is_learned_from_is_legal() -> None:
    x = walks(200, POINTS, torch.Generator().manual_seed(0))
    assert is_legal(x).float().mean() > 0.97
    assert not is_legal(torch.stack([START, -START], 1)[None]).any()  # through the building


def test_plans_need_separators() -> None:
    whole = plan(START, -START)
    assert (len(whole.terms), whole.mass) == (10 + 9 + 2 * 2, pytest.approx(1.0))
    assert is_valid(drawn(whole), START, -START).float().mean() > 0.5
    assert is_valid(drawn(plan(START, -START, "sum")), START, -START).float().mean() < 0.2


def test_the_networks_are_trained(tmp_path: Path) -> None:
    train(steps=2, walkers=100, path=tmp_path / "walks.safetensors")
    assert (tmp_path / "walks.safetensors").stat().st_size < 200_000


def test_the_readme_runs() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(block.replace("=250", "=3"), str(README), "exec"), names)  # noqa: S102
    assert getattr(names["x"], "shape", None) == (100, 2, POINTS)
