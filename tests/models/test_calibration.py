"""How unusual an error is, compared with held-out images."""

from typing import Any

import attrs
import pytest
import torch

from energycomp.errors import InputError
from energycomp.models import calibration_of, log_errors


def draws(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_rate_of_false_alarms_is_the_share() -> None:
    calibration = calibration_of({0: draws(300), 3: 5 + 2 * draws(300, 1)})
    for count, new in ((0, draws(4000, 2)), (3, 5 + 2 * draws(4000, 3))):
        found = torch.tensor([calibration.typicality(count, errors) for errors in new])
        assert 0.005 < float((found < 0.01).double().mean()) < 0.025
        assert 0.07 < float((found < 0.1).double().mean()) < 0.14


def test_each_count_has_its_own_scale() -> None:
    calibration = calibration_of({0: draws(100), 3: 20 + draws(100)})
    assert calibration.typicality(3, torch.tensor([20.0, 20.0])) == 1.0
    assert calibration.typicality(0, torch.tensor([20.0, 20.0])) == 0.001
    assert calibration.typicality(9, torch.tensor([20.0, 20.0])) == 1.0  # the nearest count


def test_a_spot_is_unusual_where_the_whole_is_not() -> None:
    even, spot = torch.ones(2, 3, 16, 16), torch.ones(2, 3, 16, 16)
    spot[..., :2, :2] = 4.0
    difference = log_errors(spot) - log_errors(even)
    assert float(difference[0]) < 0.3
    assert float(difference[1]) == pytest.approx(torch.tensor(16.0).log().item(), rel=1e-6)


@pytest.mark.parametrize(
    "change", [{"counts": ()}, {"mean": ((0.0,),)}, {"std": ((0.0, 1.0),)}, {"scores": (1.0,)}, {"images": 0}]
)
def test_numbers_that_do_not_belong_together(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected two finite numbers for each count"):
        attrs.evolve(calibration_of({1: draws(20)}), **change)
    with pytest.raises(InputError, match="at least 2 of each count"):
        calibration_of({1: draws(1)})
