"""The hook of a plugin: `docs/plugins.md` is the guide, `docs/api/protocols.md` says what each object must have."""

from __future__ import annotations

from typing import Any

import pluggy

from energycomp.plugins.factories import Factory, Registrar

hookspec = pluggy.HookspecMarker("energycomp")
hookimpl = pluggy.HookimplMarker("energycomp")


class Add(Registrar):
    """What the hook gets: a method for each kind, which takes a name and a factory, or "package.module:attribute"."""

    def model(self, name: str, factory: Factory | str) -> None:
        """A model that `energycomp.load` knows: `factory(*, preset="default", pretrained=True) -> Model`."""
        self.put("models", name, factory)

    def network(self, name: str, factory: Factory | str) -> None:
        """A network that a `config.json` names: `factory(**config) -> torch.nn.Module`."""
        self.put("networks", name, factory)

    def conditioner(self, name: str, factory: Factory | str) -> None:
        """A conditioner that a `config.json` names: `factory(**config) -> Conditioner`."""
        self.put("conditioners", name, factory)

    def encoder(self, name: str, factory: Factory | str) -> None:
        """An encoder that a `config.json` names: `factory(**config) -> torch.nn.Module`."""
        self.put("encoders", name, factory)

    def codec(self, name: str, factory: Factory | str) -> None:
        """A codec that a `config.json` names: `factory(**config) -> Codec`."""
        self.put("codecs", name, factory)

    def processor(self, name: str, factory: Factory | str) -> None:
        """A processor that a `config.json` names: `factory(**config) -> Processor`."""
        self.put("processors", name, factory)

    def decomposer(self, name: str, factory: Factory | str) -> None:
        """A decomposer that a `config.json` names: `factory(model) -> Decomposer`."""
        self.put("decomposers", name, factory)

    def solver(self, name: str, factory: Factory | str) -> None:
        """A solver, for `energycomp infer --solver`: `factory(**options) -> Solver`."""
        self.put("solvers", name, factory)

    def sampler(self, name: str, factory: Factory | str) -> None:
        """A sampler, for `energycomp sample --sampler`: `factory(**options) -> Sampler`."""
        self.put("samplers", name, factory)

    def guidance(self, name: str, factory: Factory | str) -> None:
        """A guidance, for `energycomp sample --guidance`: `factory(*, scale=7.5) -> Guidance`."""
        self.put("guidances", name, factory)

    def dataset(self, name: str, factory: Factory | str) -> None:
        """A data source, for `energycomp data` and `energycomp evaluate`: `factory() -> DataSource`."""
        self.put("datasets", name, factory)

    def recipe(self, name: str, factory: Factory | str) -> None:
        """A recipe, for `energycomp train`: `factory(*, data, init, preset, cache) -> Recipe`."""
        self.put("recipes", name, factory)

    def loader(self, name: str, factory: Factory | str) -> None:
        """A reader of folders that hold the file `name`, for `load`: `factory(source, **options) -> Model`."""
        self.put("loaders", name, factory)

    def writer(self, name: str, factory: Factory | str) -> None:
        """A format of answers, for `energycomp infer --format`: `factory(file) -> context manager`."""
        self.put("writers", name, factory)

    def engine(self, name: str, factory: Factory | str) -> None:
        """What runs networks, for `energycomp.load(engine=)`: `factory() -> Engine`."""
        self.put("engines", name, factory)

    def command(self, name: str, function: Factory | str) -> None:
        """A command, `energycomp NAME`: the function itself, with Typer annotations, or a Typer app of several."""
        self.put("commands", name, function)


@hookspec
def energycomp_register(add: Add) -> Any:
    """Registers all that a plugin has, once, when a name is looked up first."""
