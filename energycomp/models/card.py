"""The model card: a README.md in the format of the hub, with a header that its search and its tables read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from energycomp.components import TextConditioner
from energycomp.models.config import config_of
from energycomp.models.model import Model
from energycomp.plugins.hookspecs import Kind
from energycomp.plugins.registry import listing

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

TAGS = ("energycomp", "compositional-generation", "energy-based-model")
MISSING = "<!-- Describe training data, intended use and limits here. The hub keeps a card that you edit. -->"


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
    model: Model,
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
    from huggingface_hub import ModelCardData

    tag = pipeline_tag or _pipeline_tag(model)
    header = ModelCardData(
        license=license,
        library_name="energycomp",
        pipeline_tag=tag,
        tags=[*TAGS, *tags],
        datasets=list(datasets) or None,
        model_name=model.name if results else None,
        eval_results=_entries(results, tag, datasets) or None,
    )
    parts = [
        f"# {model.name}",
        summary or f"A compositional image model of [energycomp](https://github.com/energycomp/energycomp): {model!r}.",
        "## Use",
        f"```console\n$ pip install {' '.join(_packages(model))}\n```",
        f'```python\nimport energycomp\n\nmodel = energycomp.load("{source}")\n```',
        *(f"## {heading}\n\n{text.strip()}" for heading, text in (sections or {}).items()),
        *([] if sections else [MISSING]),
        "## Model",
        _table(["item", "value"], list(model.facts().items())),
    ]
    if results:
        parts += ["## Results", _results(results)]
    return f"---\n{header.to_yaml().strip()}\n---\n\n" + "\n\n".join(parts) + "\n"


def _pipeline_tag(model: Model) -> str:
    """The task of the hub that comes nearest: it has none for composition or for inference."""
    if isinstance(model.conditioner, TextConditioner):
        return "text-to-image"
    return "image-to-image" if model.encoder is not None else "unconditional-image-generation"


def _packages(model: Model) -> list[str]:
    """The installed packages that register the parts of a model; the core alone where no other does."""
    config = config_of(model)
    parts: list[tuple[Kind, str | None]] = [
        ("networks", model.network_name),
        ("conditioners", model.conditioner_name),
        ("encoders", model.encoder_name),
        ("decomposers", model.decomposer_name),
        ("solvers", config["defaults"]["solver"]),
    ]
    found = {
        info.distribution
        for info in listing(load=True)
        if any(name in info.registered.get(kind, ()) for kind, name in parts)
    }
    return sorted(found | {"energycomp"})


def _entries(results: Sequence[Result], tag: str, datasets: Sequence[str]) -> list[EvalResult]:
    """One entry of the header's `model-index` for each metric; the hub wants numbers, so intervals are left out."""
    from huggingface_hub import EvalResult

    return [
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


def _results(results: Sequence[Result]) -> str:
    lines = [
        (f"`{result.data}`", str(result.n), name, value, f"[{index}]({result.page})")
        for index, result in enumerate(results, 1)
        for name, value in result.metrics.items()
    ]
    commands = "\n".join(f"{index}. `{result.command}`" for index, result in enumerate(results, 1))
    return f"{_table(['data', 'images', 'metric', 'value', 'command'], lines)}\n\n{commands}"


def _table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [columns, ["---"] * len(columns), *lines])
