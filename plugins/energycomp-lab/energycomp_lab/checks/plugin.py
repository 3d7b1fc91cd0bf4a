"""The conformance check of an installed plugin: everything that it registers is made and used as energycomp uses it.

A check for another kind of object is a file in `checks` and a line in `CHECKS`.
"""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import attrs
import torch

from energycomp.errors import EnergycompError, EnergycompWarning, InputError, NotFoundError, PluginError
from energycomp.inference import Solution, View
from energycomp.models import Model, on_meta
from energycomp.plugins import Factory, Kind, PluginInfo, find, listing, names, singular_of
from energycomp.progress import counting
from energycomp.testing import stripes_model, tiny_model
from energycomp_lab.checks.codec import check_codec, check_processor
from energycomp_lab.checks.conditioner import check_conditioner
from energycomp_lab.checks.cost import measure_solver
from energycomp_lab.checks.dataset import check_dataset, write_images
from energycomp_lab.checks.decomposer import check_decomposer
from energycomp_lab.checks.expect import NotCheckedError, expect
from energycomp_lab.checks.guidance import check_guidance
from energycomp_lab.checks.model import check_model
from energycomp_lab.checks.network import check_encoder, check_network, check_rebuilt
from energycomp_lab.checks.recipe import check_recipe
from energycomp_lab.checks.sampler import check_sampler
from energycomp_lab.checks.solver import check_solver


@attrs.frozen
class Check:
    """One check and its result: `passed` is None if it could not be checked.

    `reason` says why it was not passed, or what was measured.
    """

    what: str
    passed: bool | None
    reason: str = ""
    seconds: float = 0.0


def check_plugin(
    name: str, *, progress: bool = False, report: Callable[[Check], object] | None = None
) -> tuple[Check, ...]:
    """Checks an installed plugin: its import, then everything that it registers.

    Args:
        name: of an entry point or a distribution.
        progress: whether to show a progress bar.
        report: called before each check, with passed=None, and after it, with the result.

    Raises:
        NotFoundError: no plugin of that name is installed.

    >>> for check in check_plugin("energycomp-edit"):
    ...     print(check.what, check.passed)
    import True
    import is quick and light True
    names are unique True
    command edit True
    """
    infos = listing(load=True)
    chosen = [info for info in infos if info.is_named(name)]
    if not chosen:
        raise NotFoundError(f"No plugin named {name!r} is installed. Installed: {', '.join(map(str, infos))}.")
    found = [check for info in chosen for check in _check_import(info)]
    registered = [(kind, one) for info in chosen for kind in info.registered for one in info.registered[kind]]
    planned: list[tuple[str, Callable[[], str | None]]]
    planned = [(f"{singular_of(kind)} {one}", partial(CHECKS.get(kind, _no_check), one)) for kind, one in registered]
    solvers = [one for kind, one in registered if kind == "solvers"]
    planned += [(f"cost of {one}", partial(_measure_solver, one)) for one in solvers]
    report = report or (lambda _: None)
    for ended in found:
        report(ended)
    with counting("checking", len(planned), unit="check", show=progress) as bar:
        for what, check in planned:
            bar.note(what)
            report(Check(what, None, "it did not end"))
            found.append(_run(what, check))
            report(found[-1])
            bar.advance()
    return tuple(found)


def _check_import(info: PluginInfo) -> Iterator[Check]:
    if info.off:
        yield Check("import", None, f"it is switched off by {info.off}")
        return
    yield Check("import", info.error is None, info.error or "")
    if info.error is None:
        yield Check("import is quick and light", not info.warnings, "; ".join(info.warnings))
        yield Check("names are unique", not info.conflicts, " ".join(info.conflicts))


def _run(what: str, check: Callable[[], str | None]) -> Check:
    start = time.perf_counter()
    passed: bool | None = True
    reason = ""
    try:
        reason = check() or ""
    except NotCheckedError as error:
        passed = None
        reason = str(error)
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        known = isinstance(error, EnergycompError)
        passed = False
        reason = str(error) if known else f"{type(error).__name__}: {error}"
    return Check(what, passed, reason, round(time.perf_counter() - start, 2))


def _check_network(name: str) -> None:
    factory = find("networks", name)
    with on_meta():
        _build(factory)
    check_network(factory)


def _check_part(kind: Kind, check: Callable[..., None], name: str) -> None:
    """Makes an object without arguments, and checks it with what made it."""
    factory = find(kind, name)
    check(_build(factory), factory=factory)


def _check_encoder(name: str) -> None:
    factory = find("encoders", name)
    check_encoder(_build(factory))
    with on_meta():
        check_rebuilt(factory(), factory)


def _build(factory: Factory) -> Any:
    """An object whose arguments come from a config, and are unknown here."""
    try:
        return factory()
    except PluginError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise NotCheckedError(f"it needs arguments that are not known here ({reason})") from error


def _check_dataset(name: str) -> None:
    """Checks a dataset with the conditioner of the model of the same name, which is evaluated on it."""
    model = cast("Model", find("models", name)(pretrained=False)) if name in names("models") else None
    check_dataset(find("datasets", name)(), None if model is None else model.conditioner)


def _check_recipe(name: str) -> None:
    """Checks a recipe on images that the dataset of the same name writes: its own data may take long to make."""
    if name not in names("datasets"):
        raise NotCheckedError(f"no dataset {name!r} makes images for it")
    source = find("datasets", name)()
    factory = find("recipes", name)
    with TemporaryDirectory() as folder:
        for count in (4, 32):
            images = Path(folder) / str(count)
            write_images(source, images, count)
            try:
                check_recipe(factory(data=images, init=None, preset="default", cache=Path(folder) / "cache"))
            except InputError as error:  # the recipe or its training may need more images
                refused = error
            else:
                return
    raise NotCheckedError(f"it does not train on {count} images ({refused})")


def _check_command(name: str) -> None:
    command = find("commands", name)()
    expect(bool(command.__doc__), f"the command {name} without a docstring", "a docstring", "it is shown by --help")


def _check_decomposer(name: str) -> None:
    """Checks a decomposer with the model of the same name, or with stripes if it takes any model."""
    model = find("models", name)() if name in names("models") else stripes_model()
    try:
        decomposer = find("decomposers", name)(model)
    except InputError as error:
        raise NotCheckedError(f"there is no model {name!r} to check it with ({error})") from error
    check_decomposer(decomposer)


def _check_writer(name: str) -> None:
    """Checks a writer on two images, of which one has an object and one could not be read."""
    one = {"x": 0.5, "y": 0.5}
    answer = Solution(torch.tensor([[0.5, 0.5]]), 1, 1.0, 0.1, 0, view=View(None, (one,))).record()
    frame = {"size": [64, 64], "box": [0, 0, 64, 64]}
    file = io.BytesIO()
    with find("writers", name)(file) as write:
        write({"image": "/a.png", "file_name": "a.png", "frame": frame, **answer})
        write({"image": "/b.png", "file_name": "b.png", "failed": "it is no image"})
    expect(b"a.png" in file.getvalue(), f"{len(file.getvalue())} bytes of {name}", "the name of the image", "write it")


@torch.no_grad()
def _check_engine(name: str) -> None:
    """Compares predictions with those of torch, for several numbers of rows; a warning that torch runs is a fault."""
    model = tiny_model()
    twin = model.with_engine(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error", EnergycompWarning)
        for rows in (2, 2, 1, 9):
            sample, timestep = torch.ones(rows, *model.denoiser.sample_shape), torch.full((rows,), 500.0)
            by_torch, by_engine = (one(0.3, 0.4).eps(sample, timestep) for one in (model, twin))
            gap = float((by_engine - by_torch).abs().max())
            expect(
                gap <= 1e-4 * float(by_torch.abs().max()), f"{rows} rows that differ by {gap:.1g}", "the same", "fix it"
            )


def _measure_solver(name: str) -> str:
    return measure_solver(_solver_of_any_model(name))


def _solver_of_any_model(name: str) -> Any:
    """A solver by its name; `NotCheckedError` for one that reads models of one kind, which its `reads_only` names."""
    solver = find("solvers", name)()
    if own := getattr(solver, "reads_only", None):
        raise NotCheckedError(f"it reads only {own}; its own tests check it")
    return solver


def _no_check(name: str) -> None:
    raise NotCheckedError(f"there is no check for {name}")


CHECKS: dict[str, Callable[[str], None]] = {
    "models": lambda name: check_model(find("models", name)()),
    "networks": _check_network,
    "conditioners": partial(_check_part, "conditioners", check_conditioner),
    "encoders": _check_encoder,
    "codecs": partial(_check_part, "codecs", check_codec),
    "processors": partial(_check_part, "processors", check_processor),
    "decomposers": _check_decomposer,
    "solvers": lambda name: check_solver(_solver_of_any_model(name)),
    "guidances": lambda name: check_guidance(find("guidances", name)()),
    "samplers": lambda name: check_sampler(find("samplers", name)()),
    "datasets": _check_dataset,
    "recipes": _check_recipe,
    "commands": _check_command,
    "writers": _check_writer,
    "engines": _check_engine,
}
