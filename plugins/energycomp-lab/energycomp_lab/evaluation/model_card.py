"""The model card with what was measured: sections of text, and a table of results that the hub reads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import attrs

from energycomp.models import Model, pipeline_tag as tag_of, plain_card


@attrs.frozen
class Result:
    """Metrics of one evaluation, for `card`.

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
    >>> "## Limits" in card(tiny_model(), sections={"Limits": "Few objects."})
    True
    """
    from huggingface_hub import EvalResult

    tag = pipeline_tag or tag_of(model)
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
    text = "\n\n".join(f"## {heading}\n\n{said.strip()}" for heading, said in (sections or {}).items())
    return plain_card(
        model,
        source=source,
        summary=summary,
        results=_table(results) if results else "",
        tags=tuple(tags),
        license=license,
        pipeline_tag=tag,
        datasets=list(datasets) or None,
        model_name=model.name if results else None,
        eval_results=entries or None,
        **({"body": text} if text else {}),
    )


def _table(results: Sequence[Result]) -> str:
    rows = [
        f"| `{result.data}` | {result.n} | {name} | {value} | [{k}]({result.page}) |"
        for k, result in enumerate(results, start=1)
        for name, value in result.metrics.items()
    ]
    commands = [f"{k}. `{result.command}`" for k, result in enumerate(results, start=1)]
    head = ["| data | images | metric | value | command |", "| --- | --- | --- | --- | --- |"]
    return "\n".join(["## Results", "", *head, *rows, "", *commands])
