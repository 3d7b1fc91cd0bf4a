"""One lit object: factors are independent and all change the picture; folders come back; refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from energycomp.errors import InputError
from energycomp.evaluation import evaluate_parts
from energycomp_decomp.lit import FACTORS, LitSource, factors, render
from energycomp_decomp.model import lit, untrained_lit


def test_factors_are_independent_and_uniform() -> None:
    drawn = factors(4000, seed=0)
    low, high = torch.tensor([-1.0, 0, 0, 0, 0]), torch.tensor([1.0, 1, 1, 2, 1])
    assert bool(((drawn >= low) & (drawn <= high)).all())
    assert torch.allclose(torch.corrcoef(drawn.T), torch.eye(5), atol=0.06)
    assert torch.allclose(drawn.mean(0), (low + high) / 2, atol=0.05)
    assert drawn[:, 3].unique().tolist() == [0, 1, 2]


@pytest.mark.parametrize("factor", range(5))
def test_every_factor_changes_the_picture(factor: int) -> None:
    values = torch.tensor([0.0, 0.5, 0.5, 1.0, 0.5]).repeat(3, 1)
    values[:, factor] = torch.tensor([[-1.0, 0.0, 1.0], [0, 0.5, 1], [0, 0.5, 1], [0, 1, 2], [0, 0.5, 1]])[factor]
    pictures = render(values)
    assert bool((pictures.abs() <= 1).all())
    assert float((pictures[0] - pictures[2]).square().mean()) > 0.002
    assert float((pictures[0] - pictures[1]).abs().mean()) > 0.005


def test_the_light_comes_from_its_side() -> None:
    left, right = render(torch.tensor([[-1.0, 0.5, 0.5, 0, 0.5], [1.0, 0.5, 0.5, 0, 0.5]]))
    assert float(left[..., :4].mean()) > float(left[..., -4:].mean()) + 0.1
    assert float(right[..., -4:].mean()) > float(right[..., :4].mean()) + 0.1


def test_written_and_read(tmp_path: Path) -> None:
    source = LitSource()
    source.write(tmp_path, count=3, seed=1, options="", progress=lambda _: None)
    read = source.examples(str(tmp_path), count=2, seed=0)
    assert torch.allclose(torch.cat([example.values for example in read]), factors(3, seed=1)[:2], atol=1e-5)
    (tmp_path / "factors.csv").write_text("light\n1,2\n")
    with pytest.raises(InputError, match=r"factors\.csv"):
        source.examples(str(tmp_path), count=2, seed=0)
    with pytest.raises(InputError, match="leave it out"):
        source.write(tmp_path, count=1, seed=1, options="b", progress=lambda _: None)


def test_evaluation_gives_mig_and_mcc() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = untrained_lit(parts=2, width=1)
    source = LitSource()
    examples = source.examples("synthetic", count=6, seed=0)
    report = evaluate_parts(model, examples, source.metrics(), progress=False)
    assert {"mig", "mcc", "mse", "mse_baseline"} <= report.values.keys()
    assert 0 <= report.values["mig"] <= 1
    assert len(FACTORS) == examples[0].values.shape[1]


def test_options() -> None:
    for options in ({"preset": "paper"}, {"parts": 3}, {"pretrained": False, "colour": 1}):
        with pytest.raises(InputError, match="expected"):
            lit(**options)  # type: ignore[arg-type]
