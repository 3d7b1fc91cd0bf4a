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

from benchmarks.baselines.comparison import Column, Method, Reader, compare, fingerprint
from benchmarks.baselines.faces import LABELS, label_sets, recipe
from benchmarks.baselines.training import train_all
from benchmarks.common.options import parser
from energycomp import Model, infer, load
from energycomp.images import to_unit
from energycomp_datasets.faces.avatars import ATTRIBUTES as EVERY
from energycomp_datasets.faces.metrics import LabelAccuracy
from energycomp_datasets.faces.source import FacesSource
from energycomp_faces.labels import BINARY, Labels
from energycomp_faces.model import faces as untrained
from energycomp_lab.evaluation import Example
from energycomp_solvers.enumerate import Enumerate

COLUMNS = (Column("all three right", LabelAccuracy(whole=True), ".1%"), Column("labels right", LabelAccuracy(), ".1%"))
BASELINES = ("classifier", "resnet")
ATTRIBUTES = ("black_hair", "eyeglasses", "smiling")  # those of the thesis
LABELLED = Labels(dict.fromkeys(EVERY, BINARY))


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains where asked to, reads, writes attributes.md and attributes.png."""
    options = parser(
        __doc__, train=(False, "the baselines, where not trained yet"),
        models=(["faces"], "names or folders of ours; the first is compared"),
        methods=(list(BASELINES), "the baselines beside ours", BASELINES),
        weights=("runs/baselines/faces", "folder of the baselines"),
        cache=("runs/cache", "folder of the training faces"),
        data=(["synthetic", "synthetic:shifted"], "as faces are evaluated on"), n=(300, "images of each data"), seed=0,
        threads=1, out="runs/attributes",
    ).parse_args(arguments)  # fmt: skip
    torch.set_num_threads(options.threads)
    if options.train:
        train_all(LABELS, options.methods, options.weights, recipe(options.cache))

    def examples(data: str) -> Sequence[Example]:
        return [
            attrs.evolve(one, conditions=[each for each in one.conditions or () if each["attribute"] in ATTRIBUTES])
            for one in FacesSource().examples(data, count=options.n, seed=options.seed)
        ]

    told = "" if tuple(options.methods) == BASELINES else f" --methods {' '.join(options.methods)}"
    note = (
        f"`python benchmarks/inference/attributes.py --models {' '.join(options.models)}{told} --data "
        f"{' '.join(options.data)} -n {options.n} --seed {options.seed}`: {', '.join(ATTRIBUTES)}; "
        f"{options.threads} thread. Network evaluations and CPU seconds are per image; ranges are over training "
        "seeds, intervals over images."
    )
    shape = ()  # of a label
    compare(
        methods(options), examples, COLUMNS, options, conditioner=LABELLED, shape=shape, name="attributes",
        note=lambda _: note,
    )  # fmt: skip


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
        each = tuple((name,) for name in ATTRIBUTES)
        ways = (("classifier", "generative classifier", (ATTRIBUTES,)), ("variant", "the same, label by label", each))
        for key, label, asked in ways:
            found.append(Method(f"{key}-{fingerprint(model)}", label, options.n, (partial(classified, model, asked),)))
    if "resnet" in options.methods:
        seeds = LABELS["resnet"].seeds
        readers = tuple(partial(_regressed, options.weights, seed) for seed in seeds)
        key, label = f"resnet-{LABELS['resnet'].settings['steps']}", f"ResNet, {len(seeds)} seeds"
        found.append(Method(key, label, options.n, readers))
    return found


def composed(model: Model) -> Reader:
    """Ours: one energy for each value of the three attributes."""
    parse = model.conditioner.parse
    candidates = torch.cat([parse(**{name: value}) for name in ATTRIBUTES for value in (False, True)])

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


if __name__ == "__main__":
    main()
