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
    """Models that `energycomp.load` finds by name: `factory(*, preset="default", pretrained=True) -> Model`.

    >>> from energycomp import hookimpl
    >>> from energycomp.plugins import lazy
    >>> @hookimpl
    ... def energycomp_register_models():
    ...     return {"rooms": lazy("rooms.model:rooms")}  # energycomp.load("rooms")
    >>> list(energycomp_register_models())
    ['rooms']
    """


@hookspec
def energycomp_register_networks() -> Mapping[str, Factory]:
    """Networks that a `config.json` names: `factory(**config) -> torch.nn.Module`.

    >>> from energycomp import hookimpl
    >>> from energycomp.plugins import lazy
    >>> @hookimpl
    ... def energycomp_register_networks():
    ...     return {"rooms": lazy("rooms.network:RoomsUNet")}  # the config.json of a saved model names it
    >>> list(energycomp_register_networks())
    ['rooms']
    """


@hookspec
def energycomp_register_conditioners() -> Mapping[str, Factory]:
    """Conditioners that a `config.json` names: `factory(**config) -> Conditioner`.

    >>> from energycomp import hookimpl
    >>> from energycomp.plugins import lazy
    >>> @hookimpl
    ... def energycomp_register_conditioners():
    ...     return {"rooms": lazy("rooms.conditioner:Rooms")}  # the config.json of a saved model names it
    >>> list(energycomp_register_conditioners())
    ['rooms']
    """


@hookspec
def energycomp_register_encoders() -> Mapping[str, Factory]:
    """Encoders that a `config.json` names: `factory(**config) -> torch.nn.Module`.

    A module with an attribute `config`, as a network, whose `forward` maps samples (B, C, H, W) to latents (B, K, D).
    `energycomp_lab.checks.check_encoder` checks it.

    >>> from energycomp import hookimpl
    >>> from energycomp.plugins import lazy
    >>> @hookimpl
    ... def energycomp_register_encoders():
    ...     return {"rooms": lazy("rooms.encoder:Encoder")}  # the config.json of a saved model names it
    >>> list(energycomp_register_encoders())
    ['rooms']
    """


@hookspec
def energycomp_register_codecs() -> Mapping[str, Factory]:
    """Codecs that a `config.json` names: `factory(**config) -> Codec`, such as a spectrogram.

    >>> from energycomp import hookimpl
    >>> from energycomp.plugins import lazy
    >>> @hookimpl
    ... def energycomp_register_codecs():
    ...     return {"spectrogram": lazy("sounds.codec:Spectrogram")}  # the config.json of a saved model names it
    >>> list(energycomp_register_codecs())
    ['spectrogram']
    """


@hookspec
def energycomp_register_processors() -> Mapping[str, Factory]:
    """Processors that a `config.json` names: `factory(**config) -> Processor`.

    A processor makes what a codec, or the network, takes of what a person gives: files, arrays, images.

    >>> from energycomp import hookimpl
    >>> from energycomp.plugins import lazy
    >>> @hookimpl
    ... def energycomp_register_processors():
    ...     return {"sound": lazy("sounds.files:SoundProcessor")}  # the config.json of a saved model names it
    >>> list(energycomp_register_processors())
    ['sound']
    """


@hookspec
def energycomp_register_decomposers() -> Mapping[str, Factory]:
    """Decomposers that a `config.json` names: `factory(model) -> Decomposer`.

    >>> from energycomp import hookimpl
    >>> from energycomp.plugins import lazy
    >>> @hookimpl
    ... def energycomp_register_decomposers():
    ...     return {"rooms": lazy("rooms.decomposer:Decomposer")}  # energycomp decompose
    >>> list(energycomp_register_decomposers())
    ['rooms']
    """


@hookspec
def energycomp_register_solvers() -> Mapping[str, Factory]:
    """Solvers that `energycomp infer --solver` names: `factory(**options) -> Solver`.

    >>> from energycomp import hookimpl
    >>> from energycomp.plugins import lazy
    >>> @hookimpl
    ... def energycomp_register_solvers():
    ...     return {"random": lazy("random_search:RandomSearch")}  # energycomp infer --solver random
    >>> list(energycomp_register_solvers())
    ['random']
    """


@hookspec
def energycomp_register_samplers() -> Mapping[str, Factory]:
    """Samplers that `energycomp sample --sampler` names: `factory(**options) -> Sampler`.

    >>> from energycomp import hookimpl
    >>> from energycomp.plugins import lazy
    >>> @hookimpl
    ... def energycomp_register_samplers():
    ...     return {"ancestral": lazy("ancestral.sampler:Ancestral")}  # energycomp sample --sampler ancestral
    >>> list(energycomp_register_samplers())
    ['ancestral']
    """


@hookspec
def energycomp_register_guidances() -> Mapping[str, Factory]:
    """Guidance that `energycomp sample --guidance` names: `factory(*, scale=7.5) -> Guidance`.

    >>> from energycomp import hookimpl
    >>> from energycomp.plugins import lazy
    >>> @hookimpl
    ... def energycomp_register_guidances():
    ...     return {"fading": lazy("fading.guidance:Fading")}  # energycomp sample --guidance fading
    >>> list(energycomp_register_guidances())
    ['fading']
    """


@hookspec
def energycomp_register_datasets() -> Mapping[str, Factory]:
    """Data that `energycomp data` writes and `energycomp evaluate` reads: `factory() -> DataSource`.

    >>> from energycomp import hookimpl
    >>> from energycomp.plugins import lazy
    >>> @hookimpl
    ... def energycomp_register_datasets():
    ...     return {"rooms": lazy("rooms.data:Rooms")}  # energycomp data rooms
    >>> list(energycomp_register_datasets())
    ['rooms']
    """


@hookspec
def energycomp_register_recipes() -> Mapping[str, Factory]:
    """Recipes that `energycomp train` runs: `factory(*, data, init, preset, cache) -> Recipe`.

    `data` is the path of a folder or file of images, or None for the recipe's own. `init` is a model to start from, or
    None. `preset` is a name, "default" unless a person gives one. `cache` is a folder, which may not exist yet, for
    data that takes long to make. `--option NAME=VALUE` adds arguments, as strings. `energycomp_lab.checks.check_recipe`
    trains for two steps.

    >>> from energycomp import hookimpl
    >>> from energycomp.plugins import lazy
    >>> @hookimpl
    ... def energycomp_register_recipes():
    ...     return {"rooms": lazy("rooms.recipe:rooms")}  # energycomp train rooms
    >>> list(energycomp_register_recipes())
    ['rooms']
    """


@hookspec
def energycomp_register_loaders() -> Mapping[str, Factory]:
    """Readers of other formats, by the file that marks a folder as one: `factory(source, **options) -> Model`.

    >>> from energycomp import hookimpl
    >>> from energycomp.plugins import lazy
    >>> @hookimpl
    ... def energycomp_register_loaders():
    ...     return {"rooms.json": lazy("rooms.files:load")}  # a file of the folder that load gets
    >>> list(energycomp_register_loaders())
    ['rooms.json']
    """


@hookspec
def energycomp_register_writers() -> Mapping[str, Factory]:
    """Formats of answers that `energycomp infer --format` and the end of -o name: `factory(file) -> context manager`.

    `file` takes bytes, and is stdout or a new file. Entering gives a function that is called with the record of each
    image, in their order; leaving without an error ends the file. A record is that of `energycomp infer --json`, with
    `file_name`, the name of the image. An image that could not be read has `image`, `file_name` and `failed`, the
    reason, alone. `frame` has the `size` (width, height) of the image and the `box` (left, top, right, bottom) that the
    model saw, in which places are; data that are no images have none.

    >>> from energycomp import hookimpl
    >>> from energycomp.plugins import lazy
    >>> @hookimpl
    ... def energycomp_register_writers():
    ...     return {"counts": lazy("counts.writer:counts")}  # energycomp infer --format counts
    >>> list(energycomp_register_writers())
    ['counts']
    """


@hookspec
def energycomp_register_commands() -> Mapping[str, Factory]:
    """Commands of the command line, `energycomp NAME`: `factory() -> Callable`, a function with Typer annotations.

    >>> from energycomp import hookimpl
    >>> from energycomp.plugins import lazy
    >>> @hookimpl
    ... def energycomp_register_commands():
    ...     return {"dream": lazy("dreams.command:dream")}  # energycomp dream
    >>> list(energycomp_register_commands())
    ['dream']
    """
