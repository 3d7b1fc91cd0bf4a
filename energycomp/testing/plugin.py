"""Checks of what an installed plugin registers: the objects that its factories make, used as energycomp uses them.

`energycomp plugins --check NAME` prints what `check_plugin` finds. The checks of single objects raise
`ConformanceError` at the first thing that is not as it should be, as those of `energycomp.testing` do.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import attrs
import numpy as np
import torch
from torch import nn
from torchmetrics import MetricCollection
from tqdm import tqdm

from energycomp.components.component import Composition
from energycomp.denoisers.evaluator import predict
from energycomp.denoisers.two_stage import TwoStage
from energycomp.errors import EnergycompError, InputError, NotFoundError, PluginError
from energycomp.evaluation.data import DataSource, Example
from energycomp.images import ImageProcessor
from energycomp.models.model import Model
from energycomp.models.pretrained import from_pretrained, load_weights, save_pretrained
from energycomp.plugins.installed import Kind, PluginInfo, normalized
from energycomp.plugins.loading import Factory
from energycomp.plugins.registry import find, listing, names
from energycomp.testing.checks import (
    check_component,
    check_conditioner,
    check_encoder,
    check_solver,
    expect,
    legal_values,
    refuses,
)
from energycomp.training.recipe import Recipe

__all__ = ["Check", "check_dataset", "check_model", "check_network", "check_plugin", "check_recipe"]

# float32 convolutions sum in another order when the batch changes.
TOLERANCE = 1e-3


@attrs.frozen
class Check:
    """What was checked, and how it went: `passed` is None where it could not be checked, `reason` says why."""

    what: str
    passed: bool | None
    reason: str = ""
    seconds: float = 0.0


class _NotCheckedError(Exception):
    """Nothing is known about what a check needs."""


def check_plugin(name: str, *, progress: bool = False) -> tuple[Check, ...]:
    """Checks an installed plugin: its import, then everything that it registers.

    Args:
        name: of an entry point or a distribution.
        progress: whether to show a bar.

    Raises:
        NotFoundError: no plugin of that name is installed.

    >>> for check in check_plugin("core")[:4]:
    ...     print(check.what, check.passed)
    import True
    import is quiet, quick and light True
    names are its own True
    network two_stage True
    """
    infos = listing()
    chosen = [info for info in infos if normalized(name) in (normalized(info.name), normalized(info.distribution))]
    if not chosen:
        raise NotFoundError(f"No plugin named {name!r} is installed. Installed: {', '.join(map(str, infos))}.")
    found = [check for info in chosen for check in _check_import(info)]
    planned = [(kind, one) for info in chosen for kind in info.registered for one in info.registered[kind]]
    with tqdm(planned, disable=not progress, unit="check", leave=False) as bar:
        for kind, one in bar:
            what = f"{kind.removesuffix('s')} {one}"
            bar.set_description(what)
            found.append(_run(what, partial(CHECKS[kind], one)))
    return tuple(found)


def _check_import(info: PluginInfo) -> Iterator[Check]:
    if info.off:
        yield Check("import", None, f"it is switched off by {info.off}")
        return
    yield Check("import", info.error is None, info.error or "")
    if info.error is None:
        yield Check("import is quiet, quick and light", not info.warnings, "; ".join(info.warnings))
        yield Check("names are its own", not info.conflicts, " ".join(info.conflicts))


def _run(what: str, check: Callable[[], None]) -> Check:
    start = time.perf_counter()
    passed: bool | None = True
    reason = ""
    try:
        check()
    except _NotCheckedError as error:
        passed, reason = None, str(error)
    except (Exception, SystemExit) as error:  # whatever the plugin raises is a reason
        known = isinstance(error, EnergycompError)
        passed, reason = False, str(error) if known else f"{type(error).__name__}: {error}"
    return Check(what, passed, reason, round(time.perf_counter() - start, 2))


def check_network(factory: Factory, **config: Any) -> None:
    """Checks that a network is built from its arguments, and again from what it says they are; costs no memory.

    >>> check_network(find("networks", "two_stage"), sample_size=16, channels=[8, 16], head_channels=8)
    """
    with torch.device("meta"):
        network = factory(**config)
        _check_config(network, factory)


def _check_config(network: nn.Module, factory: Factory) -> None:
    name = type(network).__name__
    expect(isinstance(network, nn.Module), f"a {name}", "a torch.nn.Module", "derive it from one")
    stages = isinstance(network, TwoStage) or type(network).forward is not nn.Module.forward
    expect(stages, f"{name} without forward", "features and head, or forward", "see networks.py")
    _check_rebuilt(network, factory)


def _check_rebuilt(network: nn.Module, factory: Factory) -> None:
    name = type(network).__name__
    expect(hasattr(network, "config"), f"{name} without config", "the arguments that it was made with", "keep them")
    again = factory(**json.loads(json.dumps(dict(cast("Any", network).config))))
    shapes, others = ({k: v.shape for k, v in net.state_dict().items()} for net in (network, again))
    expect(shapes == others, f"other weights in {name}(**config)", "the same names and shapes", "complete its config")


@torch.no_grad()
def check_model(model: Model) -> None:
    """Checks a model: that its names are registered, its conditioner and leaves conform, and it is saved and loaded.

    Costs about 15 rows of its network, and its size on disk for a moment.
    """
    expect(isinstance(model, Model), f"a {type(model).__name__}", "an energycomp.Model", "return one")
    for kind, name in (("networks", model.network_name), ("conditioners", model.conditioner_name),
                       ("solvers", model.defaults.solver)):  # fmt: skip
        known = names(cast("Kind", kind))
        expect(name in known, f"{name!r}, which is not among the {kind}", ", ".join(known), "register it, or require "
               "the plugin that does")  # fmt: skip
    with torch.enable_grad():
        check_conditioner(model.conditioner, factory=find("conditioners", model.conditioner_name))
    values = legal_values(model.conditioner)
    leaf = model.leaf(values[:1])
    check_component(leaf, tolerance=TOLERANCE)
    shape = tuple(model.denoiser.sample_shape)
    with TemporaryDirectory() as folder:
        save_pretrained(model, Path(folder) / "model")
        again = from_pretrained(Path(folder) / "model")
    sample = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    timestep = torch.tensor([0.4 * len(model.denoiser.alphas_cumprod)])
    before, after = (predict(Composition.of(m.leaf(values[:1])), sample, timestep) for m in (model.to("cpu"), again))
    off = float((after - before).abs().max() / before.abs().max())
    expect(off < TOLERANCE, f"a prediction off by {off:.2g} once saved and loaded", "the same", "complete the configs")


def check_dataset(source: DataSource) -> None:
    """Checks a data source: what it writes is repeatable and read again, and its metrics take the values.

    Two pictures are written twice.
    """
    with TemporaryDirectory() as folder:
        first, second = Path(folder) / "first", Path(folder) / "second"
        for target in (first, second):
            done = _write(source, target, 2)
        expect(_contents(first) == _contents(second), "other files for one seed", "the same", "draw from the seed")
        expect(done == 2, f"{done} pictures reported to progress", "2, all of them", "call progress(number done)")
        examples = list(source.examples(str(first), count=2, seed=0))
        expect(len(examples) == 2, f"{len(examples)} examples of 2 pictures", "2", "let examples read what write makes")
        for example in examples:
            _check_example(example)
        values = [example.values for example in examples]
        metrics = source.metrics()
        expect(isinstance(metrics, MetricCollection), f"metrics {type(metrics).__name__}", "a MetricCollection", "wrap")
        metrics.update(values, values, probability=[None] * len(values))  # of those that name it
        expect(bool(metrics.compute()), "no metrics", "at least one", "see energycomp.evaluation.scene_metrics")
        refuses("examples of a folder that does not exist", source.examples, f"{folder}/none", count=1, seed=0)


def _write(source: DataSource, folder: Path, count: int) -> int:
    """Writes pictures; returns how many were reported."""
    reported = [0]
    folder.mkdir()
    try:
        source.write(folder, count=count, seed=0, options="", progress=reported.append)
    except InputError as error:
        raise _NotCheckedError(f"it writes no pictures without options ({error})") from error
    return max(reported)


def _contents(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _check_example(example: Example) -> None:
    picture = ImageProcessor(size=(32, 32))(example.image)
    expect(tuple(picture.shape) == (1, 3, 32, 32), f"{len(picture)} pictures in an example", "one", "split them")
    values: Any = example.values
    legal = isinstance(values, torch.Tensor) and bool(torch.isfinite(values.double()).all())
    expect(legal, f"values {values!r}", "a finite tensor (K, *V)", "stack the values of the picture")


def check_recipe(recipe: Recipe) -> None:
    """Checks a recipe by two steps of its training, whose weights must fit its model."""
    expect(isinstance(recipe, Recipe), f"a {type(recipe).__name__}", "an energycomp.training.Recipe", "return one")
    expect(recipe.steps >= 1, f"steps = {recipe.steps}", "at least 1", "say how long the recipe trains")
    with TemporaryDirectory() as folder:
        result = recipe.fit(out=Path(folder), steps=2, seed=0, mixed_precision="no", progress=False)
    expect(result.step == 2, f"{result.step} steps", "2", "pass steps= on to energycomp.fit")
    expect(bool(np.isfinite(result.loss)), f"a loss of {result.loss}", "a finite one", "check the learning rate")
    load_weights(recipe.model.trained, result.ema_state, "the recipe's result")


def _check_network(name: str) -> None:
    factory = find("networks", name)
    with torch.device("meta"):
        _built(factory)
    check_network(factory)


def _check_conditioner(name: str) -> None:
    factory = find("conditioners", name)
    check_conditioner(_built(factory), factory=factory)


def _check_encoder(name: str) -> None:
    factory = find("encoders", name)
    check_encoder(_built(factory))
    with torch.device("meta"):
        _check_rebuilt(factory(), factory)


def _built(factory: Factory) -> Any:
    """An object whose arguments are a config's affair, and unknown here."""
    try:
        return factory()
    except PluginError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise _NotCheckedError(f"it needs arguments that are not known here ({reason})") from error


def _check_recipe(name: str) -> None:
    """A recipe on pictures that the dataset of the same name writes: its own may take long to make."""
    if name not in names("datasets"):
        raise _NotCheckedError(f"no dataset {name!r} makes pictures for it")
    source, factory = find("datasets", name)(), find("recipes", name)
    with TemporaryDirectory() as folder:
        for count in (4, 32):
            pictures = Path(folder) / str(count)
            _write(source, pictures, count)
            try:
                check_recipe(factory(data=pictures, init=None, preset="default", cache=Path(folder) / "cache"))
            except InputError as error:  # of the recipe, or of its training: both may ask for more
                refused = error
            else:
                return
    raise _NotCheckedError(f"it does not train on {count} pictures ({refused})")


CHECKS: dict[Kind, Callable[[str], None]] = {
    "models": lambda name: check_model(find("models", name)()),
    "networks": _check_network,
    "conditioners": _check_conditioner,
    "encoders": _check_encoder,
    "solvers": lambda name: check_solver(find("solvers", name)()),
    "datasets": lambda name: check_dataset(find("datasets", name)()),
    "recipes": _check_recipe,
}
