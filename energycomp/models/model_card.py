"""The model card: a README.md in the format of the hub, with a header that its search reads."""

from __future__ import annotations

from typing import Any

from energycomp.components import ability
from energycomp.models.parts import ModelParts
from energycomp.plugins import Kind
from energycomp.plugins.registry import listing

TAGS = ("energycomp", "compositional-generation", "energy-based-model")
MISSING = "<!-- Describe training data, intended use and limits here. The hub keeps a card that you edit. -->"
TEMPLATE = """---
{{ card_data }}
---

# {{ name }}

{{ summary }}

## Use

```console
$ pip install {{ packages }}
```

```python
import energycomp

model = energycomp.load("{{ source }}")
```

{{ body }}

## Model

| item | value |
| --- | --- |
{%- for item, value in facts %}
| {{ item }} | {{ value }} |
{%- endfor %}

{{ results }}
"""


def plain_card(
    model: ModelParts,
    *,
    source: str = "./FOLDER",
    summary: str = "",
    body: str = MISSING,
    results: str = "",
    tags: tuple[str, ...] = (),
    **header: Any,
) -> str:
    """The text of a model card. `energycomp_lab.evaluation.card` writes one with sections and results.

    Args:
        source: what `energycomp.load` is given to load the model: a name, a folder or a hub id.
        summary: one paragraph.
        body: of sections between the use of the model and what it is made of.
        results: last section.
        tags, header: keys of the header, as `huggingface_hub.ModelCardData` takes them.

    >>> from energycomp.testing import tiny_model
    >>> text = plain_card(tiny_model(), source="owner/tiny", license="mit")
    >>> "license: mit" in text, 'energycomp.load("owner/tiny")' in text
    (True, True)
    """
    from huggingface_hub import ModelCard, ModelCardData

    made = ModelCard.from_template(
        ModelCardData(
            **{"library_name": "energycomp", "pipeline_tag": pipeline_tag(model), **header, "tags": [*TAGS, *tags]}
        ),
        template_str=TEMPLATE,
        name=model.name,
        summary=summary
        or f"A compositional image model of [energycomp](https://github.com/energycomp/energycomp): {model!r}.",
        packages=" ".join(_packages(model)),
        source=source,
        body=body,
        facts=list(model.facts().items()),
        results=results,
    )
    return f"{str(made).rstrip()}\n"


def pipeline_tag(model: ModelParts) -> str:
    """The task of the hub that comes nearest: it has none for composition or for inference.

    >>> from energycomp.testing import tiny_model
    >>> pipeline_tag(tiny_model())
    'unconditional-image-generation'
    """
    if ability(model.conditioner, "concepts") is not None:
        return "text-to-image"
    return "image-to-image" if model.encoder is not None else "unconditional-image-generation"


def _packages(model: ModelParts) -> list[str]:
    """The installed packages that register the parts of a model; the core alone where no other does."""
    parts: dict[Kind, str | None] = {
        "networks": model.network_name,
        "conditioners": model.conditioner_name,
        "encoders": model.encoder_name,
        "decomposers": model.decomposer_name,
        "solvers": model.defaults.solver,
    }
    known = ((info.distribution, info.registered) for info in listing(load=True))
    found = {made for made, names in known if any(name in names.get(kind, ()) for kind, name in parts.items())}
    return sorted(found | {"energycomp"})
