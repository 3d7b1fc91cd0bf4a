"""The hooks that a plugin may implement. `docs/plugins.md` is the guide, `docs/api/protocols.md` has the protocols.

A hook takes no argument and returns `{name: factory}`. Return `energycomp.plugins.lazy("package.module:attribute")` as
the factory: then looking up a name imports no torch. To add a hook, add a function here and its kind to `Kind`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import pluggy

Factory = Callable[..., Any]
Kind = Literal[
    "models",
    "networks",
    "conditioners",
    "encoders",
    "codecs",
    "processors",
    "decomposers",
    "solvers",
    "samplers",
    "guidances",
    "datasets",
    "recipes",
    "loaders",
    "writers",
    "commands",
]

KINDS: tuple[Kind, ...] = get_args(Kind)

hookspec = pluggy.HookspecMarker("energycomp")
hookimpl = pluggy.HookimplMarker("energycomp")


@hookspec
def energycomp_register_models() -> Mapping[str, Factory]:
    """Models that `energycomp.load` finds by name: `factory(*, preset="default", pretrained=True) -> Model`."""


@hookspec
def energycomp_register_networks() -> Mapping[str, Factory]:
    """Networks that a `config.json` names: `factory(**config) -> torch.nn.Module`."""


@hookspec
def energycomp_register_conditioners() -> Mapping[str, Factory]:
    """Conditioners that a `config.json` names: `factory(**config) -> Conditioner`."""


@hookspec
def energycomp_register_encoders() -> Mapping[str, Factory]:
    """Encoders that a `config.json` names: `factory(**config) -> torch.nn.Module`.

    A module with an attribute `config`, as a network, whose `forward` maps samples (B, C, H, W) to latents (B, K, D).
    `energycomp_lab.checks.check_encoder` checks it.
    """


@hookspec
def energycomp_register_codecs() -> Mapping[str, Factory]:
    """Codecs that a `config.json` names: `factory(**config) -> Codec`, such as a spectrogram."""


@hookspec
def energycomp_register_processors() -> Mapping[str, Factory]:
    """Processors that a `config.json` names: `factory(**config) -> Processor`.

    A processor makes what a codec, or the network, takes of what a person gives: files, arrays, images.
    """


@hookspec
def energycomp_register_decomposers() -> Mapping[str, Factory]:
    """Decomposers that a `config.json` names: `factory(model) -> Decomposer`."""


@hookspec
def energycomp_register_solvers() -> Mapping[str, Factory]:
    """Solvers that `energycomp infer --solver` names: `factory(**options) -> Solver`."""


@hookspec
def energycomp_register_samplers() -> Mapping[str, Factory]:
    """Samplers that `energycomp sample --sampler` names: `factory(**options) -> Sampler`."""


@hookspec
def energycomp_register_guidances() -> Mapping[str, Factory]:
    """Guidance that `energycomp sample --guidance` names: `factory(*, scale=7.5) -> Guidance`."""


@hookspec
def energycomp_register_datasets() -> Mapping[str, Factory]:
    """Data that `energycomp data` writes and `energycomp evaluate` reads: `factory() -> DataSource`."""


@hookspec
def energycomp_register_recipes() -> Mapping[str, Factory]:
    """Recipes that `energycomp train` runs: `factory(*, data, init, preset, cache) -> Recipe`.

    `data` is the path of a folder or file of images, or None for the recipe's own. `init` is a model to start from, or
    None. `preset` is a name, "default" unless a person gives one. `cache` is a folder, which may not exist yet, for
    data that takes long to make. `--option NAME=VALUE` adds arguments, as strings. `energycomp_lab.checks.check_recipe`
    trains for two steps.
    """


@hookspec
def energycomp_register_loaders() -> Mapping[str, Factory]:
    """Readers of other formats, by the file that marks a folder as one: `factory(source, **options) -> Model`."""


@hookspec
def energycomp_register_writers() -> Mapping[str, Factory]:
    """Formats of answers that `energycomp infer --format` and the end of -o name: `factory(file) -> context manager`.

    `file` takes bytes, and is stdout or a new file. Entering gives a function that is called with the record of each
    image, in their order; leaving without an error ends the file. A record is that of `energycomp infer --json`, with
    `file_name`, the name of the image. An image that could not be read has `image`, `file_name` and `failed`, the
    reason, alone. `frame` has the `size` (width, height) of the image and the `box` (left, top, right, bottom) that the
    model saw, in which places are; data that are no images have none. `energycomp/cli/coco.py` is an example.
    """


@hookspec
def energycomp_register_commands() -> Mapping[str, Factory]:
    """Commands of the command line, `energycomp NAME`: `factory() -> Callable`, a function with Typer annotations."""
