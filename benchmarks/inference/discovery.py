"""Find objects: the composed model beside a generative classifier, a ResNet and Slot Attention.

python benchmarks/inference/discovery.py --train [--methods compound]
python benchmarks/inference/discovery.py [--data synthetic:3-5 synthetic:6-8] [-n 200] [--few 20] [--seed 0]
    [-o runs/discovery]

Thesis Tables 5.1 and 5.4, and 5.6 with other data. `--train` trains the baselines first, on rendered scenes, and
stores their weights under `--weights`. Each answer is one JSON line, so an interrupted run continues.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import attrs
import torch

from benchmarks.baselines import comparison
from benchmarks.baselines.places import PLACES, compound, recipe
from benchmarks.baselines.training import train_all
from benchmarks.common.options import parser
from energycomp import load
from energycomp_clevr.coordinates import Coordinates
from energycomp_clevr.model import clevr_places as untrained
from energycomp_datasets.clevr.source import ClevrSource
from energycomp_lab.evaluation import EstimationError, Example, PerceptionRate, Precision
from energycomp_solvers.pursuit import Pursuit
from energycomp_solvers.sgd import SGD

COLUMNS = (
    comparison.Column("perception rate", PerceptionRate()),
    comparison.Column("precision", Precision()),
    comparison.Column("estimation error", EstimationError(), ".1e"),
)
SHAPE = (2,)  # of a place
METHODS = ["ours", "sgd", *PLACES]


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains where asked to, reads, writes NAME.md and NAME.png."""
    options = parser(
        __doc__, train=(False, "the baselines among the methods, where not trained yet"),
        methods=(METHODS, "all by default", METHODS), model="clevr-places",
        weights=("runs/baselines", "folder of the baselines"), cache=("runs/cache", "folder of the training scenes"),
        data=(["synthetic:3-5", "synthetic:6-8"], "as `ClevrSource` takes"), n=(200, "images of each data"),
        few=(20, "images for methods that descend gradients"),
        inits=([1, 5, 10, 15, 20], "of sgd; the last for compound"), steps=(120, "of sgd, the same for compound"),
        draws=(1, "noise draws of a step, the same for compound"),
        start=("random", "of sgd and compound", ("random", "residual")), seed=0, threads=1,
        name=("discovery", "of the table and the chart"), out="runs/discovery",
    ).parse_args(arguments)  # fmt: skip
    torch.set_num_threads(options.threads)
    if options.train:
        train_all(PLACES, options.methods, options.weights, recipe(options.cache))
    chosen = methods(options)

    def note(answers: dict[str, dict[str, list[comparison.Record]]]) -> str:
        gaps = [gap for data in options.data for gap in same_descent(chosen, data, answers[data], options.seed)]
        return " ".join([how(options), *gaps])

    def examples(data: str) -> Sequence[Example]:
        return ClevrSource().examples(data, count=options.n, seed=options.seed)

    comparison.compare(
        chosen, examples, COLUMNS, options, conditioner=Coordinates(), shape=SHAPE, name=options.name, note=note
    )


def methods(options: argparse.Namespace) -> list[comparison.Method]:
    """The rows of the table, ours first."""
    model, n, few = load(options.model), options.n, min(options.few, options.n)
    solver = partial(SGD, steps=options.steps, draws=options.draws, start=options.start)
    descent = f"{options.steps}-{options.draws}" + f"-{options.start}" * (options.start != "random")
    found = [
        comparison.Method("pursuit", "ours, pursuit, count given", n, (lambda: comparison.composed(model, Pursuit()),))
    ]
    if "ours" in options.methods:
        read = partial(comparison.composed, model, Pursuit(), known=False)
        found.append(comparison.Method("pursuit-unknown", "ours, pursuit, count unknown", n, (read,)))
    for inits in options.inits if "sgd" in options.methods else ():
        label = f"ours, sgd, {inits} initialisation{'s' * (inits > 1)}"
        read = partial(comparison.composed, model, solver(inits=inits))
        found.append(comparison.Method(f"sgd-{inits}-{descent}", label, few, (read,)))
    if "compound" in options.methods:
        inits = options.inits[-1]
        key = f"{_key('compound')}-{inits}-{descent}"
        read = partial(_compound, options.weights, solver(inits=inits))
        found.append(comparison.Method(key, f"generative classifier, sgd, {inits} initialisations", few, (read,)))
    for name, label in (("resnet", "ResNet"), ("slot_attention", "Slot Attention")):
        seeds = PLACES[name].seeds if name in options.methods else ()
        readers = tuple(partial(_regressed, name, options.weights, seed) for seed in seeds)
        if readers:
            found.append(comparison.Method(_key(name), f"{label}, count given, {len(seeds)} seeds", n, readers))
    return found


def _key(name: str) -> str:
    """A baseline with how long it was trained."""
    return f"{name}-{PLACES[name].settings['steps']}"


def _compound(weights: Path, solver: SGD) -> comparison.Reader:
    model = compound(untrained(pretrained=False))
    network = PLACES["compound"].trained("compound", weights, 0)
    return comparison.joint(attrs.evolve(model, denoiser=attrs.evolve(model.denoiser, network=network)), solver)


def _regressed(name: str, weights: Path, seed: int) -> comparison.Reader:
    return comparison.regressed(PLACES[name].trained(name, weights, seed))


def same_descent(
    chosen: Sequence[comparison.Method], data: str, records: dict[str, list[comparison.Record]], seed: int
) -> list[str]:
    """A sentence on the classifier against ours under the same solver, where both were run."""
    keys = {method.key.partition("-")[0]: method.key for method in chosen}  # of several sgd the last, with most inits
    if "sgd" not in keys or "compound" not in keys:
        return []
    ours, theirs = (comparison.answered(records[keys[name]], SHAPE) for name in ("sgd", "compound"))
    gap, low, high = comparison.paired_difference(PerceptionRate(), theirs, ours, seed=seed)
    return [f"{data}: the classifier minus ours, both by sgd, {gap:+.3f} ({low:+.3f} to {high:+.3f})."]


def how(options: argparse.Namespace) -> str:
    """How the table was made."""
    return (
        f"`python benchmarks/inference/discovery.py --data {' '.join(options.data)} -n {options.n} --few {options.few} "
        f"--steps {options.steps} --draws {options.draws} --start {options.start} --seed {options.seed}`: "
        f"model `{options.model}`, {options.threads} thread. Rows and CPU seconds are of one picture; "
        "ranges are over training seeds, intervals over pictures."
    )


if __name__ == "__main__":
    main()
