"""Text: one component per prompt, from a small included model or from a text-to-image pipeline of diffusers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.imports import first_use
from energycomp.plugins import Add, hookimpl

if TYPE_CHECKING:
    from energycomp_text.model import with_concepts as with_concepts
    from energycomp_text.pipelines import from_pipeline as from_pipeline
__getattr__, __all__ = first_use(__name__, __file__)


@hookimpl
def energycomp_register(add: Add) -> None:
    """The small model, before and after training with compositions, its vocabulary, and pipelines of diffusers."""
    add.model("text", "energycomp_text.model:text")
    add.model("text-composed", "energycomp_text.model:text_composed")
    add.loader("model_index.json", "energycomp_text.pipelines:load_model")
    add.conditioner("words", "energycomp_text.words:words")
    add.conditioner("text", "energycomp_text.encoders:encoded_text")
    add.recipe("text", "energycomp_text.recipe:text")
