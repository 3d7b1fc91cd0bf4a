"""Each check of what a plugin registers passes what is right, and fails what has one fault, with its reason."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import attrs
import pytest
import torch
from PIL import Image
from torch import nn
from torchmetrics import MetricCollection

from energycomp import plugins
from energycomp.components import Condition
from energycomp.denoisers import TwoStageUNet
from energycomp.errors import EnergycompError, InputError, NotFoundError
from energycomp.models import NumberProcessor
from energycomp.testing import UnitSquare, tiny_model
from energycomp_lab.checks import (
    check_codec,
    check_dataset,
    check_model,
    check_network,
    check_plugin,
    check_processor,
    check_recipe,
    plugin as conformance,
)
from energycomp_lab.checks.expect import NotCheckedError
from energycomp_lab.evaluation import CountAccuracy, Example
from energycomp_lab.training import FitConfig, Recipe, Step

TINY = {"sample_size": 16, "channels": [8, 16], "head_channels": 8}
clevr = pytest.mark.skipif("coordinates" not in plugins.names("conditioners"), reason="the conditioner of tiny_model")


class Grey:
    """A data source of grey pictures with one value each, and at most one fault."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.written = 0

    def write(self, folder: Path, *, count: int, seed: int, options: str, progress: Any) -> None:
        if self.fault == "no writing":
            raise InputError("got no options; expected some")
        self.written += 1
        for index in range(count):
            shade = index + seed + (self.written if self.fault == "other files" else 0)
            Image.new("RGB", (8, 8), (shade, shade, shade)).save(folder / f"{index}.png")
            progress(0 if self.fault == "no progress" else index + 1)

    def examples(self, spec: str, *, count: int, seed: int) -> list[Example]:
        if not Path(spec).is_dir() and self.fault != "no folder":
            raise InputError(f"got {spec}; expected a folder")
        count -= self.fault == "too few"
        conditions: Any = [torch.zeros(2)] if self.fault == "conditions" else [[0.5, 0.5]]
        image: Any = torch.zeros(2, 3, 8, 8) if self.fault == "image" else torch.zeros(3, 8, 8)
        known: Any = {} if self.fault == "nothing" else {"conditions": conditions}
        if self.fault == "masks":
            known = {"masks": torch.zeros(8, 8)}
        return [Example(image, name="grey", **known) for _ in range(count)]

    def metrics(self) -> Any:
        accuracy = {"count": CountAccuracy()}
        return accuracy if self.fault == "metrics" else MetricCollection(accuracy)


def recipe(fault: str = "", **_: Any) -> Any:
    model = tiny_model()

    def loss(module: nn.Module, batch: torch.Tensor, _: Step) -> torch.Tensor:
        return sum((p.square().sum() for p in module.parameters()), torch.zeros(())) + batch.sum()

    config = FitConfig(steps=10, batch_size=2, learning_rate=1e-3)
    made = Recipe(model=model, module=model.denoiser.network, loss=loss, data=torch.zeros(4, 1), config=config)
    if fault == "steps":
        return Wrapped(made, lambda changes: {**changes, "steps": 1})
    if fault == "network":
        return attrs.evolve(made, model=attrs.evolve(model, denoiser=other_network(model.denoiser)))
    return SimpleNamespace(model=model, steps=10) if fault == "type" else made


class Wrapped:
    """A recipe of another class, which may change what its run is asked for."""

    def __init__(self, recipe: Recipe, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self.model, self.config, self.recipe, self.change = recipe.model, recipe.config, recipe, change

    def run(self, out: Any, **changes: Any) -> Any:
        return self.recipe.run(out, **self.change(changes))


def other_network(denoiser: Any) -> Any:
    return attrs.evolve(denoiser, network=TwoStageUNet(**{**TINY, "head_channels": 16}))


class Net(nn.Module):
    """A network with at most one fault."""

    def __init__(self, *, width: int = 2, fault: str = "") -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)
        if fault != "no config":
            self.config: dict[str, Any] = {"width": 3 if fault == "other" else width}

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, condition: Any) -> torch.Tensor:
        return sample


class Still(nn.Module):
    config: dict[str, Any] = {}  # noqa: RUF012


class Shifted:
    """A conditioner that its config does not rebuild."""

    made = 0

    def __init__(self) -> None:
        Shifted.made += 1
        self.square, self.shift = UnitSquare(), Shifted.made

    def __getattr__(self, name: str) -> Any:
        return getattr(self.square, name)

    def __call__(self, values: torch.Tensor) -> Condition:
        return Condition(self.square(values).rows + self.shift)


@clevr
def test_a_model_conforms() -> None:
    check_model(tiny_model(solver=plugins.names("solvers")[0]))
    check_model(tiny_model(solver=plugins.names("solvers")[0], prediction_type="flow"))


@clevr
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network_name": "threestage"}, "'threestage', which is not among the networks"),
        ({"conditioner_name": "tags"}, "'tags', which is not among the conditioners"),
        ({"solver": "guess"}, "'guess', which is not among the solvers"),
        ({"conditioner": Shifted()}, r"other rows from Shifted\(\*\*config\(\)\)"),
        ({"network_name": "still"}, "describe a model"),
    ],
)
def test_models_with_a_fault(change: dict[str, Any], message: str) -> None:
    plugins.register("networks", "still", Still)
    model = tiny_model(solver=change.pop("solver", plugins.names("solvers")[0]))
    with pytest.raises(EnergycompError, match=message):
        check_model(attrs.evolve(model, **change))


@pytest.fixture
def registered_grey(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], Any]:
    """What a plugin "grey" has registered, to be changed."""
    found: dict[tuple[str, str], Any] = {("recipes", "grey"): picky, ("datasets", "grey"): Grey}
    monkeypatch.setattr(conformance, "find", lambda kind, name: found[kind, name])
    monkeypatch.setattr(conformance, "names", lambda kind: ("grey",) if kind == "datasets" else ())
    info = plugins.PluginInfo("grey", "energycomp-grey", "1.0", {"datasets": ("grey",), "recipes": ("grey",)})
    monkeypatch.setattr(conformance, "listing", lambda *, load: (info,) if load else ())
    return found


def test_a_recipe_trains_on_what_the_dataset_of_its_name_writes(registered_grey: Any) -> None:
    assert [check.passed for check in check_plugin("energycomp_grey")] == [True] * 5
    registered_grey["datasets", "grey"] = partial(Grey, "no writing")
    last = check_plugin("grey")[-2:]
    assert [check.passed for check in last] == [None, None]
    assert "it writes no images without options (got no options; expected some)" in last[0].reason


def test_more_pictures_are_written_where_training_asks_for_them(registered_grey: Any) -> None:
    """A recipe may only look at its pictures once it trains."""
    registered_grey["recipes", "grey"] = lazy_picky
    assert conformance._check_recipe("grey") is None
    registered_grey["recipes", "grey"] = partial(lazy_picky, least=33)
    with pytest.raises(NotCheckedError, match=r"does not train on 32 images \(got 32 pictures"):
        conformance._check_recipe("grey")


def lazy_picky(*, data: Path, least: int = 32, **options: Any) -> Any:
    """The recipe, whose training refuses fewer pictures."""
    made = recipe(**options)

    def checked(changes: dict[str, Any]) -> dict[str, Any]:
        if (number := len(list(data.iterdir()))) < least:
            raise InputError(f"got {number} pictures; expected {least}")
        return changes

    return Wrapped(made, checked)


def test_metrics_that_ask_for_probabilities_get_none() -> None:
    class Sure(CountAccuracy):
        def update(self, found: Any, true: Any, probability: Any) -> None:
            assert probability == [None, None]
            super().update(found, true)

    class Source(Grey):
        def metrics(self) -> MetricCollection:
            return MetricCollection({"sure": Sure(), "count": CountAccuracy()}, compute_groups=False)

    check_dataset(Source(), tiny_model().conditioner)


def picky(*, data: Path, **options: Any) -> Any:
    """The recipe, which refuses fewer than 32 pictures."""
    if len(list(data.iterdir())) < 32:
        raise InputError("got too few pictures; expected 32")
    return recipe(**options)


def test_a_plugin_that_is_not_installed_or_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFoundError, match=r"No plugin named 'cleverly' is installed. Installed: core \(energycomp"):
        check_plugin("cleverly")
    info = plugins.PluginInfo("grey", "energycomp-grey", "1.0", off="ENERGYCOMP_PLUGINS")
    monkeypatch.setattr(conformance, "listing", lambda *, load: (info,) if load else ())
    (check,) = check_plugin("grey")
    assert (check.what, check.passed) == ("import", None)
    assert check.reason == "it is switched off by ENERGYCOMP_PLUGINS"


@attrs.frozen
class Halves(NumberProcessor):
    """Numbers as codec and processor, with one fault."""

    fault: str = ""
    registered_name: ClassVar[Any] = "halves"

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        decoded = super().decode(latents)
        return {"mean": decoded - decoded.mean(0), "nan": decoded / 0.0, "fewer": decoded[:1]}.get(self.fault, decoded)

    def config(self) -> dict[str, Any]:
        kept = super().config()
        return {**kept, "sample_shape": [1], "mean": [0], "scale": [1]} if self.fault == "other" else kept

    def __call__(self, data: Any) -> torch.Tensor:
        return torch.zeros(2, 2) if self.fault == "any" else super().__call__(data)


def halves(fault: str = "") -> Halves:
    return Halves((2,), [1.0, 2.0], [3.0, 4.0], fault=fault)


def test_what_is_right_passes() -> None:
    check_network(Net, width=5)
    check_dataset(Grey())
    check_dataset(Grey(), tiny_model().conditioner)
    check_codec(halves(), factory=Halves)
    check_processor(halves(), factory=Halves)


FAULTS: dict[str, tuple[Callable[[], object], str]] = {
    "no network": (lambda: check_network(object), "a object; expected a torch.nn.Module"),
    "no forward": (lambda: check_network(Still), "Still without forward; expected features and head, or forward"),
    "no config": (lambda: check_network(partial(Net, fault="no config")), "Net without config"),
    "another config": (lambda: check_network(partial(Net, fault="other")), r"other weights in Net\(\*\*config\)"),
    **{f"dataset: {fault}": (lambda fault=fault: check_dataset(Grey(fault)), message) for fault, message in (
        ("other files", "other files for one seed"),
        ("no progress", "0 images reported"),
        ("too few", "1 examples of 2 images"),
        ("image", "2 images in an example"),
        ("conditions", r"conditions \(tensor\(\[0., 0.\]\),\); expected JSON data"),
        ("nothing", "an example without annotations"),
        ("masks", r"expected finite masks \(K, H, W\)"),
        ("metrics", "metrics dict"),
        ("no folder", "examples of a folder that does not exist; expected InputError"))},
    **{f"recipe: {fault}": (lambda fault=fault: check_recipe(recipe(fault)), message) for fault, message in (
        ("type", "a SimpleNamespace; expected an energycomp_lab.training.Recipe"),
        ("steps", "1 steps; expected 2"),
        ("network", "expected exactly|of shape"))},
    **{f"codec: {fault}": (lambda fault=fault: check_codec(halves(fault), factory=Halves), said) for fault, said in (
        ("mean", "what a batch is decoded to"),
        ("nan", "what Halves decodes with NaN"),
        ("fewer", "1 samples that Halves decodes of 3"),
        ("other", "another codec of Halves"))},
    "processor: any": (
        lambda: check_processor(halves("any"), factory=Halves), "from Halves of an object; expected InputError"),
    "processor: other": (lambda: check_processor(halves("other"), factory=Halves), "another processor of Halves"),
}  # fmt: skip


@pytest.mark.parametrize(("check", "message"), FAULTS.values(), ids=FAULTS)
def test_each_fault_has_its_reason(check: Callable[[], object], message: str) -> None:
    with pytest.raises(EnergycompError, match=message):
        check()
