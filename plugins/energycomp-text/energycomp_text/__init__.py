"""Text: one component per prompt, from a small included model or from a text-to-image pipeline of diffusers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.plugins import hookimpl, lazy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "energycomp_register_conditioners",
    "energycomp_register_loaders",
    "energycomp_register_models",
    "energycomp_register_recipes",
    "from_pipeline",
    "with_concepts",
]

from_pipeline = lazy("energycomp_text.pipelines:from_pipeline")
with_concepts = lazy("energycomp_text.model:with_concepts")


@hookimpl
def energycomp_register_models() -> Mapping[str, Callable[..., object]]:
    """The small model with its trained weights, or a pipeline; and the small model after training with compositions."""
    return {
        "text": lazy("energycomp_text.model:text"),
        "text-composed": lazy("energycomp_text.model:text_composed"),
    }


@hookimpl
def energycomp_register_loaders() -> Mapping[str, Callable[..., object]]:
    """Text-to-image pipelines of diffusers."""
    return {"model_index.json": lazy("energycomp_text.pipelines:load_model")}


@hookimpl
def energycomp_register_conditioners() -> Mapping[str, Callable[..., object]]:
    """A small vocabulary and encoder that are trained with the model, and any text encoder of transformers."""
    return {"words": lazy("energycomp_text.words:words"), "text": lazy("energycomp_text.encoders:encoded_text")}


@hookimpl
def energycomp_register_recipes() -> Mapping[str, Callable[..., object]]:
    """The training recipe of the small model."""
    return {"text": lazy("energycomp_text.recipe:text")}
