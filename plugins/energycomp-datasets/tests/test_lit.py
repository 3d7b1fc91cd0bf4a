"""One lit object: factors are independent and all change the picture; folders come back; refusals."""

from pathlib import Path

import pytest
import torch

from energycomp.errors import InputError
from energycomp_datasets.shapes.lit import LitSource, factors, render
from energycomp_datasets.synthetic import WRITTEN


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
    assert torch.allclose(
        torch.stack([example.factors for example in read]), factors(3, seed=WRITTEN + 1)[:2], atol=1e-5
    )
    (tmp_path / "images" / "000001.png").unlink()
    with pytest.raises(InputError, match=r"3 rows in factors.csv and 2 images; expected a row for each image"):
        source.examples(str(tmp_path), count=2, seed=0)
    (tmp_path / "factors.csv").write_text("light\n1,2\n")
    with pytest.raises(InputError, match=r"factors\.csv"):
        source.examples(str(tmp_path), count=2, seed=0)
    with pytest.raises(InputError, match="leave it out"):
        source.write(tmp_path, count=1, seed=1, options="b", progress=lambda _: None)
