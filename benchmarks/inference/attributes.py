"""Read three attributes of faces: the composed model beside two generative classifiers and a ResNet.

python benchmarks/inference/attributes.py --train
python benchmarks/inference/attributes.py [--models faces] [--data synthetic synthetic:shifted] [-n 300]
    [-o runs/attributes]

Thesis Table 5.2. `--train` trains the baselines first, on the faces of the recipe, and stores their weights under
`--weights`. Each answer is one JSON line, so an interrupted run continues.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import attrs
import torch
from torch import Tensor

from benchmarks.baselines.comparison import Column, Record, bars, head, read_all, table_rows
from benchmarks.baselines.faces import LABELS, recipe
from benchmarks.baselines.label_sets import label_sets
from benchmarks.baselines.readers import Method, Reader
from benchmarks.baselines.training import train
from benchmarks.common.answers import ATTRIBUTES, candidates_of, fingerprint
from benchmarks.common.measure import table, write
from energycomp import Model, infer, load
from energycomp.images import to_unit
from energycomp_datasets.faces.avatars import ATTRIBUTES as EVERY
from energycomp_datasets.faces.metrics import AttributeAccuracy, ExactMatch
from energycomp_datasets.faces.source import FacesSource
from energycomp_faces.labels import BINARY, Labels
from energycomp_faces.model import faces as untrained
from energycomp_solvers.enumerate import Enumerate

COLUMNS = (Column("all three right", ExactMatch(), ".1%"), Column("labels right", AttributeAccuracy(), ".1%"))
SHAPE = ()  # of a label
BASELINES = ("classifier", "resnet")
LABELLED = Labels(dict.fromkeys(EVERY, BINARY))


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains where asked to, reads, writes attributes.md and attributes.png."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    if options.train:
        ours = recipe(options.cache)
        for name, baseline in LABELS.items():
            if not any(name.startswith(chosen) for chosen in options.methods):
                continue
            for seed in baseline.seeds:
                train(name, baseline, seed, options.weights, ours)
    chosen = methods(options)
    answers = {data: read(chosen, data, options) for data in options.data}
    rows = [
        row
        for data in options.data
        for row in table_rows(chosen, data, answers[data], COLUMNS, shape=SHAPE, seed=options.seed)
    ]
    text = table(head(COLUMNS), rows, note(options))
    write(options.out / "attributes", text, bars(chosen, answers, COLUMNS[0], SHAPE))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", action="store_true", help="the baselines, where not trained yet")
    parser.add_argument(
        "--models", nargs="+", default=["faces"], help="names or folders of ours; the first is compared"
    )
    parser.add_argument(
        "--methods", nargs="+", default=list(BASELINES), choices=BASELINES, help="the baselines beside ours"
    )
    parser.add_argument("--weights", type=Path, default=Path("runs/baselines/faces"), help="folder of the baselines")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"), help="folder of the training faces")
    parser.add_argument(
        "--data", nargs="+", default=["synthetic", "synthetic:shifted"], help="as faces are evaluated on"
    )
    parser.add_argument("-n", type=int, default=300, help="pictures of each data")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/attributes"), help="a folder; a run goes on there")
    return parser.parse_args(arguments)


def methods(options: argparse.Namespace) -> list[Method]:
    """The rows of the table, ours first."""
    found = []
    for name in options.models:
        model = load(name)
        label = f"ours, `{name}`"
        found.append(Method(f"ours-{fingerprint(model)}", label, options.n, (partial(composed, model),)))
    if "classifier" in options.methods:
        model = untrained(pretrained=False)
        network = LABELS["classifier"].trained("classifier", options.weights, 0)
        model = attrs.evolve(model, denoiser=attrs.evolve(model.denoiser, network=network))
        ways = (
            ("classifier", "generative classifier", (ATTRIBUTES,)),
            ("variant", "the same, label by label", _each()),
        )
        for key, label, asked in ways:
            found.append(Method(f"{key}-{fingerprint(model)}", label, options.n, (partial(classified, model, asked),)))
    if "resnet" in options.methods:
        seeds = LABELS["resnet"].seeds
        readers = tuple(partial(_regressed, options.weights, seed) for seed in seeds)
        key, label = f"resnet-{LABELS['resnet'].settings['steps']}", f"ResNet, {len(seeds)} seeds"
        found.append(Method(key, label, options.n, readers))
    return found


def _each() -> tuple[tuple[str, ...], ...]:
    return tuple((name,) for name in ATTRIBUTES)


def composed(model: Model) -> Reader:
    """Ours: one energy for each value of the three attributes."""
    candidates = candidates_of(model, ATTRIBUTES)

    def read(image: Tensor, _: int, generator: torch.Generator) -> tuple[Tensor, int]:
        solution = infer(to_unit(image), model, solver=Enumerate(), candidates=candidates, generator=generator)
        return solution.conditions, solution.rows

    return read


def classified(model: Model, asked: Sequence[Sequence[str]]) -> Reader:
    """A generative classifier, that is asked for all combinations of some attributes, and then for those of others."""

    def read(image: Tensor, _: int, generator: torch.Generator) -> tuple[Tensor, int]:
        found, rows = [], 0
        for names in asked:
            sets = label_sets(model, names)
            solution = infer(to_unit(image), sets, solver=Enumerate(), count=1, generator=generator)
            stated = sets.conditioner.describe(solution.conditions[0])
            found += [2 * EVERY.index(name) + int(value) for name, value in stated.items()]
            rows += solution.rows
        return torch.tensor(found), rows

    return read


def _regressed(weights: Path, seed: int) -> Reader:
    network = LABELS["resnet"].trained("resnet", weights, seed)

    @torch.no_grad()
    def read(image: Tensor, _: int, generator: torch.Generator) -> tuple[Tensor, int]:  # noqa: ARG001 - needs none
        present = network(image[None])[0] > 0.5
        return torch.tensor([2 * k + int(present[k]) for k in map(EVERY.index, ATTRIBUTES)]), 1

    return read


def read(chosen: Sequence[Method], data: str, options: argparse.Namespace) -> dict[str, list[Record]]:
    """What every method finds in the faces of one data."""
    path = options.out / f"{data.replace(':', '_').replace('/', '_')}-{options.seed}.jsonl"
    examples = [
        attrs.evolve(example, conditions=[one for one in example.conditions or () if one["attribute"] in ATTRIBUTES])
        for example in FacesSource().examples(data, count=options.n, seed=options.seed)
    ]
    return read_all(chosen, examples, path, conditioner=LABELLED, title=data, seed=options.seed)


def note(options: argparse.Namespace) -> str:
    """How the table was made."""
    chosen = "" if tuple(options.methods) == BASELINES else f" --methods {' '.join(options.methods)}"
    return (
        f"`python benchmarks/inference/attributes.py --models {' '.join(options.models)}{chosen} --data "
        f"{' '.join(options.data)} -n {options.n} --seed {options.seed}`: {', '.join(ATTRIBUTES)}; "
        f"{options.threads} thread. Network evaluations and CPU seconds are per image; ranges are over training "
        "seeds, intervals over images."
    )


if __name__ == "__main__":
    main()
