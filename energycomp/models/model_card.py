"""The model card: a README.md in the format of the hub, with a header that its search and its tables read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import attrs

from energycomp.components import TextConditioner
from energycomp.models.parts import ModelParts
from energycomp.plugins.hookspecs import Kind
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
{% for heading, text in sections %}
## {{ heading }}

{{ text }}
{% else %}
{{ missing }}
{% endfor %}
## Model

| item | value |
| --- | --- |
{%- for item, value in facts %}
| {{ item }} | {{ value }} |
{%- endfor %}
{%- if results %}

## Results

| data | images | metric | value | command |
| --- | --- | --- | --- | --- |
{%- for result in results %}{% set index = loop.index %}
{%- for name, value in result.metrics.items() %}
| `{{ result.data }}` | {{ result.n }} | {{ name }} | {{ value }} | [{{ index }}]({{ result.page }}) |
{%- endfor %}{% endfor %}
{% for result in results %}
{{ loop.index }}. `{{ result.command }}`
{%- endfor %}
{%- endif %}
"""


@attrs.frozen
class Result:
    """Metrics of one evaluation.

    Args:
        data: the name of the data, such as "synthetic:3-5".
        n, seed: the number of images, and the seed.
        command: what measures them.
        metrics: values by name, such as {"precision": "0.996 (0.992-0.999)"}.
        page: address of the page that reports them.
    """

    data: str
    n: int
    seed: int
    command: str
    metrics: Mapping[str, str]
    page: str


def card(
    model: ModelParts,
    *,
    source: str = "./FOLDER",
    summary: str = "",
    sections: Mapping[str, str] | None = None,
    license: str | None = None,  # noqa: A002 - the key of the header
    pipeline_tag: str | None = None,
    tags: Sequence[str] = (),
    datasets: Sequence[str] = (),
    results: Sequence[Result] = (),
) -> str:
    """The text of a model card, which `save_pretrained` takes as `extra={"README.md": text}`.

    Args:
        source: what `energycomp.load` is given to load the model: a name, a folder or a hub id.
        summary: one paragraph.
        sections: further paragraphs by heading, such as intended use, limits and training data.
        license, pipeline_tag, tags, datasets: keys of the header, as the hub defines them.
        results: go to the header and to a table.

    >>> from energycomp.testing import tiny_model
    >>> text = card(tiny_model(), source="owner/tiny", license="mit")
    >>> "license: mit" in text, 'energycomp.load("owner/tiny")' in text
    (True, True)
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    tag = pipeline_tag or _pipeline_tag(model)
    entries = [  # the hub wants numbers, so intervals are left out
        EvalResult(
            task_type=tag,
            dataset_type=datasets[0] if datasets else "images",
            dataset_name=result.data,
            dataset_config=result.data,
            dataset_args={"n": result.n, "seed": result.seed},
            metric_type=re.sub(r"\W+", "_", name).strip("_").lower(),
            metric_name=name,
            metric_value=float(value.split()[0].replace(",", "")),
            source_name=result.command,
            source_url=result.page,
        )
        for result in results
        for name, value in result.metrics.items()
    ]
    header = ModelCardData(
        license=license,
        library_name="energycomp",
        pipeline_tag=tag,
        tags=[*TAGS, *tags],
        datasets=list(datasets) or None,
        model_name=model.name if results else None,
        eval_results=entries or None,
    )
    made = ModelCard.from_template(
        header,
        template_str=TEMPLATE,
        name=model.name,
        summary=summary
        or f"A compositional image model of [energycomp](https://github.com/energycomp/energycomp): {model!r}.",
        packages=" ".join(_packages(model)),
        source=source,
        sections=[(heading, text.strip()) for heading, text in (sections or {}).items()],
        missing=MISSING,
        facts=list(model.facts().items()),
        results=results,
    )
    return f"{made}\n"


def _pipeline_tag(model: ModelParts) -> str:
    """The task of the hub that comes nearest: it has none for composition or for inference."""
    if isinstance(model.conditioner, TextConditioner):
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
