"""Text: one energy per prompt, of a small model of its own or of any Stable Diffusion pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.plugins import hookimpl, lazy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "about",
    "energycomp_register_conditioners",
    "energycomp_register_datasets",
    "energycomp_register_models",
    "energycomp_register_recipes",
    "from_pipeline",
]

about = lazy("energycomp_text.model:about")
from_pipeline = lazy("energycomp_text.pipelines:from_pipeline")


@hookimpl
def energycomp_register_models() -> Mapping[str, Callable[..., object]]:
    """Prompts as components: the small model with its trained weights, or a pipeline."""
    return {"text": lazy("energycomp_text.model:text")}


@hookimpl
def energycomp_register_conditioners() -> Mapping[str, Callable[..., object]]:
    """Prompts through an encoder of a few words, trained along, or through any transformers encoder."""
    return {"words": lazy("energycomp_text.words:words"), "text": lazy("energycomp_text.encoders:encoded_text")}


@hookimpl
def energycomp_register_datasets() -> Mapping[str, Callable[..., object]]:
    """Pictures of coloured solids with their concepts, and folders named for what they show."""
    return {"text": lazy("energycomp_text.data:TextSource")}


@hookimpl
def energycomp_register_recipes() -> Mapping[str, Callable[..., object]]:
    """How the small model is trained."""
    return {"text": lazy("energycomp_text.recipe:text")}
