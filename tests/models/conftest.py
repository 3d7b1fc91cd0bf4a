"""A tiny model whose conditioner has a registered name, as the core has none of its own."""

import attrs
import pytest
import torch

from energycomp import plugins
from energycomp.models import Model, calibration_of
from energycomp.plugins import registry
from energycomp.testing import UnitSquare, tiny_model


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setattr(registry, "_own", {})
    plugins.register("conditioners", "square", UnitSquare)
    calibration = calibration_of({1: torch.randn(20, 2, generator=torch.Generator().manual_seed(0))})
    return attrs.evolve(tiny_model(calibration=calibration), conditioner_name="square")
