"""A conditioner with weights of its own: they are trained, moved and saved with its model, and tell answers apart."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn

from energycomp.components import Condition, predict, weights_of
from energycomp.denoisers import Denoiser
from energycomp.errors import CheckpointError
from energycomp.models import Model, folder, load, save_pretrained
from energycomp.testing import UnitSquare, tiny_model
from energycomp_cli import model_fingerprint
from energycomp_lab.checks import ConformanceError, check_conditioner


class Learned:
    """Places through layers that are trained with the network."""

    def __init__(self, *, hidden: int = 3, weights: bool = True) -> None:
        self.square, self.hidden, self.weights = UnitSquare(), hidden, weights
        self.value_shape, self.token_shape = self.square.value_shape, self.square.token_shape
        self.support, self.parse, self.describe = self.square.support, self.square.parse, self.square.describe
        self.layers = nn.Sequential(nn.Linear(2, hidden), nn.Linear(hidden, 2))

    @property
    def module(self) -> nn.Module | None:
        return self.layers if self.weights else None

    def config(self) -> dict[str, Any]:
        return {"hidden": self.hidden}

    def __call__(self, values: Tensor) -> Condition:
        return Condition(self.layers(self.square(values).rows))


@pytest.fixture(autouse=True)
def learned(monkeypatch: pytest.MonkeyPatch) -> None:
    find = folder.find
    known = {"learned": Learned, "square": UnitSquare}
    monkeypatch.setattr(folder, "find", lambda kind, name: known.get(name) or find(kind, name))


@pytest.fixture
def model() -> Model:
    return attrs.evolve(tiny_model(), conditioner=Learned(), conditioner_name="learned")


def test_they_are_trained_beside_the_network(model: Model) -> None:
    weights = weights_of(model.conditioner)
    assert weights_of(UnitSquare()) is None
    assert dict(model.trained.named_children()) == {"network": model.denoiser.network, "conditioner": weights}
    plain = tiny_model()
    assert plain.trained is plain.denoiser.network
    leaf = model.leaf(torch.rand(1, 2))
    predict(leaf + leaf, torch.randn(1, 3, 16, 16), torch.tensor([500.0])).square().sum().backward()
    assert all(weight.grad is not None for weight in weights.parameters())


def test_they_move_with_the_model(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("energycomp.models.model.check_device", lambda _: None)
    monkeypatch.setattr(Denoiser, "to", lambda self, _: self)  # its schedule is looked at, and cannot be on meta
    assert all(weight.is_meta for weight in weights_of(model.to("meta").conditioner).parameters())


@torch.no_grad()
def test_they_are_saved_with_the_model(tmp_path: Path, model: Model) -> None:
    save_pretrained(model, tmp_path / "m")
    again, values = load(tmp_path / "m"), torch.rand(5, 2)
    rows = model.conditioner(values).rows
    assert again.conditioner(values).rows.equal(rows)
    weights = weights_of(again.conditioner)
    assert not weights.training
    assert not any(weight.requires_grad for weight in weights.parameters())
    save_pretrained(model, tmp_path / "half", dtype=torch.float16)
    half = load(tmp_path / "half").conditioner(values).rows
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, rows, rtol=0, atol=1e-2)


def without(tensors: dict[str, Tensor]) -> None:
    for name in [name for name in tensors if name.startswith("conditioner.")]:
        del tensors[name]


FAULTS: dict[str, tuple[Callable[[dict[str, Any], dict[str, Tensor]], object], str]] = {
    "none": (lambda c, t: without(t), "in the conditioner of .* with 4 missing tensors, '0.bias'"),
    "missing": (lambda c, t: t.pop("conditioner.0.bias"), "1 missing tensors, '0.bias'"),
    "extra": (lambda c, t: t.update({"conditioner.2.bias": torch.zeros(2)}), "1 extra tensors, '2.bias'"),
    "misshapen": (lambda c, t: t.update({"conditioner.0.bias": torch.zeros(4)}), r"'0.bias' of shape \(4,\)"),
    "nan": (lambda c, t: t["conditioner.0.bias"].fill_(torch.nan), "not finite"),
    "integers": (lambda c, t: t.update({"conditioner.0.bias": torch.zeros(3).long()}), "int64"),
    "of another": (lambda c, t: c["conditioner"].update(name="square", config={}), "r of .* with 4 extra tensors"),
    "huge": (lambda c, t: c["conditioner"]["config"].update(hidden=10**12), "larger than its weights"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_weights_that_do_not_fit(tmp_path: Path, model: Model, rewrite: Any, fault: str) -> None:
    change, message = FAULTS[fault]
    save_pretrained(model, tmp_path / "m")
    rewrite(tmp_path / "m", change)
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "m")


def test_answers_of_other_weights_are_other_answers(model: Model) -> None:
    before = model_fingerprint(model)
    assert model_fingerprint(model) == before
    with torch.no_grad():
        next(weights_of(model.conditioner).parameters())[0, 0] += 1e-3
    assert model_fingerprint(model) != before


def test_conformance_leaves_weights_aside() -> None:
    check_conditioner(Learned())
    check_conditioner(Learned(), factory=Learned)
    for broken in (lambda **_: UnitSquare(), lambda **_: Learned(weights=False)):
        with pytest.raises(ConformanceError, match=r"weights of Learned or of .* alone"):
            check_conditioner(Learned(), factory=broken)
    with pytest.raises(ConformanceError, match=r"other weights in Learned\(\*\*config"):
        check_conditioner(Learned(), factory=lambda **_: Learned(hidden=4))
