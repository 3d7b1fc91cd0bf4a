"""`energycomp evaluate`: metrics of a model on images with known components or masks."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import typer

from energycomp.errors import InputError
from energycomp.progress import counting
from energycomp_batch import Address, Concurrency, Engine, Shard, ShardOption, cluster_of, local_device, shard_of
from energycomp_cli import (
    MODELS_OWN,
    ModelName,
    Run,
    SolverName,
    load_model,
    loading,
    make_folder,
    model_fingerprint,
    parse_count,
    parse_options,
    print_json,
    print_table,
    takes_words,
    with_words,
)
from energycomp_lab.commands.records import Records

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from energycomp.models import Model
    from energycomp_batch import Cluster
    from energycomp_lab.evaluation import Example, Report, Task

REPORT = "report.json"


def evaluate(
    run: Run,
    model: ModelName,
    data: Annotated[
        str,
        typer.Option(
            help="Images to read: synthetic:3-5 draws some with 3 to 5 objects, DIR or DIR:3-8 takes those of a "
            "folder. skills, or skills:negation,two, are prompts that the model draws: a detector of objects judges "
            "the images, and a model of prompts judges its own."
        ),
    ] = "synthetic",
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", help="Folder for evaluation.jsonl, with one line per image, report.json, and what is drawn."
        ),
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="Maximum number of images.")] = 300,
    solver: SolverName = None,
    count: Annotated[
        str | None,
        typer.Option(
            help="Number of components in an image: 4, the range in which it is searched, 3-8, or true for the true "
            "number of each image.",
            show_default=MODELS_OWN,
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--source", help="Dataset that reads --data, such as clevr.", show_default="the dataset of the model's name"
        ),
    ] = None,
    samples: Annotated[
        int, typer.Option(min=0, help="Number of generated scenes to score, for models that generate whole scenes.")
    ] = 500,
    shard: ShardOption = None,
    engine: Engine = "local",
    address: Address = None,
    concurrency: Concurrency = None,
) -> None:
    """Measure how well a model reads or decomposes images, with 95 % confidence intervals over images.

    ```sh
    energycomp evaluate clevr --data synthetic:3-5 -n 300 -o out
    energycomp evaluate clevr --data CLEVR_v1.0:3-8 --count true --json
    energycomp evaluate decomp -n 200 --option views=1 --json
    energycomp evaluate text --data PHOTOS --option model=FOLDER --count true
    energycomp evaluate clevr --data skills -n 80 -o skills
    energycomp evaluate text --data skills --option model=FOLDER --option concepts=cat,dog,rabbit
    ```

    Scores of whole scenes are in the report where the dataset has them. With -o, an interrupted run continues, as does
    one with more images: those in evaluation.jsonl are not evaluated again. Each --shard appends to a file of its own;
    the same command without --shard then evaluates what is missing and writes the report. With --engine ray, the
    machines of a cluster evaluate what is missing; paths lead to the same files there.
    """
    cluster = cluster_of(engine, address, concurrency, gpu=run.device != "cpu", shard=shard)
    part = shard_of(shard) if cluster is None else Shard()
    if cluster is not None and out is None:
        raise InputError("got --engine ray without -o; expected a folder for the records, such as -o out")
    if part.total > 1 and out is None:
        raise InputError(
            f"got shard {part} without -o; expected a folder for the records of all shards, such as -o out"
        )
    known: Any = "true" if count == "true" else parse_count(count)
    asked = _Asked(model, run.option, data, dataset, n, solver, known, run.seed, out)
    here = local_device(run.device) if cluster is None else "cpu"  # this machine need not have the cluster's GPUs
    with loading(model):
        from energycomp.decomposition import takes_apart
        from energycomp.files import atomic_file
        from energycomp_lab.evaluation import source_ability

        ready = asked.load(here)
    scores = source_ability(ready.images, "scene_scores") if samples and part.total == 1 else None
    scenes = None if scores is None else partial(scores, count=samples, seed=run.seed)
    report: Report | None
    if out is None:
        report = ready.report(scenes=scenes)
    else:
        loaded = ready.model
        decomposes = takes_apart(loaded)
        settings = {
            "model": model,
            "option": ready.options,
            "data": data,
            "source": ready.source,
            "solver": solver or (None if decomposes or ready.task else loaded.defaults.solver),
            "count": known,
            "samples": samples if decomposes else None,
            "seed": run.seed,
            "concepts": loaded.conditioner.config() if takes_words(loaded) else None,
            "weights": model_fingerprint(loaded),
        }
        with Records(make_folder(out, "-o"), settings, part) as records:
            earlier = {index: one for index, one in records.known.items() if index < len(ready.examples)}
            if cluster is not None:
                _evaluate_missing(
                    cluster, attrs.evolve(asked, device=run.device), len(ready.examples), records, earlier
                )
            report = _report_on(part, ready, scenes=scenes, known=earlier, on_record=records.append)
        if report is None:
            return
        with atomic_file(out / REPORT) as temporary:
            temporary.write_text(json.dumps(report.as_dict(), indent=2) + "\n")
    if run.as_json:
        print_json(report.as_dict())
        return
    _print_table(report)
    if out is not None:
        typer.echo(str(out / REPORT))


def _evaluate_missing(
    cluster: Cluster, asked: _Asked, count: int, records: Records, known: dict[int, dict[str, Any]]
) -> None:
    missing = [index for index in range(count) if index not in known]
    with counting("evaluating", len(missing), unit="image", leave=True) as bar:
        for record in cluster.map(missing, asked):
            records.append(record)
            known[record["index"]] = record
            bar.advance()


def _report_on(part: Shard, ready: _Ready, **options: Any) -> Report | None:
    """The report; None of a shard, whose records are a part of those that a report needs."""
    if part.total == 1:
        return ready.report(**options)
    indices = part.of(len(ready.examples))
    if len(indices):
        ready.report(part=indices, **options)
    typer.echo(
        f"energycomp: evaluated {len(indices)} of {len(ready.examples)} images, shard {part}. Once all shards have "
        "ended, the same command without --shard writes the report.",
        err=True,
    )
    return None


@attrs.frozen
class _Ready:
    model: Model
    options: dict[str, Any]
    images: Any
    source: str
    examples: Sequence[Example]
    task: Task | None
    report: Callable[..., Report]


@attrs.frozen
class _Asked:
    """What a command evaluates, as its options say; on a cluster each process calls it."""

    model: str
    option: list[str] | None
    data: str
    dataset: str | None
    n: int
    solver: str | None
    count: Any
    seed: int
    out: Path | None
    device: str = "cpu"

    def __call__(self) -> Callable[[int], dict[str, Any]]:
        report = partial(self.load(self.device).report, progress=False)

        def evaluate_one(index: int) -> dict[str, Any]:
            records: list[dict[str, Any]] = []
            report(part=[index], on_record=records.append)
            return records[0]

        return evaluate_one

    def load(self, device: str) -> _Ready:
        """Loads the model and the images."""
        from energycomp.plugins import find
        from energycomp_lab.evaluation import dataset_of, evaluate as evaluated, source_ability, source_of

        chosen = None if self.solver is None else find("solvers", self.solver)()
        options = parse_options(self.option)
        concepts, template = options.pop("concepts", None), options.pop("template", None)
        loaded = load_model(self.model, device, options)
        images_of, wanted = _source(self.data, self.dataset or dataset_of(loaded), chosen=self.dataset is not None)
        images: Any = source_of(images_of, loaded)
        concepts_of = source_ability(images, "concepts") if takes_words(loaded) else None
        words = () if concepts_of is None else concepts_of(wanted)
        loaded = with_words(loaded, concepts or ",".join(words) or concepts, template)
        _check_known(loaded, words)
        task_of = source_ability(images, "task")
        task = None if task_of is None else task_of(loaded)
        examples = (task or images).examples(wanted, count=self.n, seed=self.seed)
        report_of = partial(
            evaluated,
            loaded,
            examples,
            task or images.metrics(),
            solver=chosen,
            count=self.count,
            seed=self.seed,
            data=self.data,
            on_result=None if task is None or self.out is None else partial(_save, self.out.absolute()),
        )
        return _Ready(loaded, options, images, images_of, examples, task, report_of)


def _source(data: str, usual: str, *, chosen: bool) -> tuple[str, str]:
    """Splits "skills:two" into the name of a source and what is asked of it, where no other source was chosen."""
    from energycomp.plugins import names

    name, _, rest = data.partition(":")
    return (name, rest) if not chosen and name in names("datasets") and not Path(name).exists() else (usual, data)


def _save(folder: Path, index: int, _: Any, picture: Any) -> None:
    from energycomp.images import save_image

    save_image(picture, folder / f"{index:05d}.png")


def _check_known(model: Model, shown: Sequence[str]) -> None:
    """Raises `InputError` for images of a concept that the model does not choose among."""
    known: Any = model.conditioner
    if missing := [name for name in shown if name not in known.concepts]:
        raise InputError(
            f"got images of {missing[0]}, which is not among the concepts {', '.join(known.concepts)}; expected all "
            "that the images show; add it to --option concepts=, or leave that out"
        )


def _print_table(report: Report) -> None:
    def shown(value: float) -> str:
        return "" if math.isnan(value) else f"{value:.4g}"

    rows = []
    for name, value in report.values.items():
        ends = report.intervals.get(name)
        interval = f"{shown(ends[0])} to {shown(ends[1])}" if ends and not math.isnan(ends[0]) else ""
        rows.append((name.replace("_", " "), shown(value), interval))
    if report.rows_per_image:
        rows.append(("NFE per image", f"{report.rows_per_image:,.0f}", ""))
    rows.append(("seconds per image", f"{report.seconds_per_image:.2f}", ""))
    typer.echo(f"{report.model} on {report.data}, {report.images} images, solver {report.solver}, seed {report.seed}")
    print_table(["", "value", "95 % interval"], rows)
