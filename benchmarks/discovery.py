"""Finding objects: the composed model against a generative classifier, a ResNet and Slot Attention.

python benchmarks/discovery.py --train [--methods compound]
python benchmarks/discovery.py [--data synthetic:3-5 synthetic:6-8] [-n 200] [--few 20] [--seed 0] [-o runs/discovery]

Thesis Tables 5.1 and 5.4, and 5.6 with other data. `--train` makes the baselines first, from scenes that are rendered
once; weights are kept under `--weights`. Each answer is one JSON line, so a run goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import torch
from baselines.compound import compound
from baselines.readers import Method, Reader, composed, joint, regressed
from baselines.scores import Answer, paired_difference, score
from baselines.training import BASELINES, recipe, train
from matplotlib.figure import Figure
from measure import table, write
from tqdm import tqdm

from energycomp import load
from energycomp.data import Example
from energycomp.errors import InputError
from energycomp.jsonlines import append_line, read_lines
from energycomp.metrics import EstimationError, PerceptionRate, Precision
from energycomp.steps import derived_seed
from energycomp_clevr.data import ClevrSource
from energycomp_clevr.model import clevr as untrained
from energycomp_solvers.pursuit import Pursuit
from energycomp_solvers.sgd import SGD

OURS = "pursuit"  # the key of the method that all others are compared with
HEAD = (
    "data", "method", "n", "perception rate", "minus ours (95 %)", "precision", "estimation error", "rows", "CPU s"
)  # fmt: skip
METHODS = ["ours", "sgd", *BASELINES]
COLOURS = ("#d1495b", "#9aa0a6", "#4c78a8", "#72a98f")


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains where asked to, reads, writes NAME.md and NAME.png."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    if options.train:
        ours = recipe(options.cache)
        for name, baseline in BASELINES.items():
            for seed in baseline.seeds if name in options.methods else ():
                train(name, seed, options.weights, ours)
    chosen = methods(options)
    answers = {data: read_all(chosen, data, options) for data in options.data}
    rows = [row for data in options.data for row in table_rows(chosen, data, answers[data], options.seed)]
    gaps = [gap for data in options.data for gap in same_descent(chosen, data, answers[data], options.seed)]
    write(options.out / options.name, table(HEAD, rows, " ".join([note(options), *gaps])), bars(chosen, answers))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", action="store_true", help="the baselines among the methods, where not trained yet")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="all by default")
    parser.add_argument("--model", default="clevr", help="registered name or folder of our model")
    parser.add_argument("--weights", type=Path, default=Path("runs/baselines"), help="folder of the baselines")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"), help="folder of the training scenes")
    parser.add_argument("--data", nargs="+", default=["synthetic:3-5", "synthetic:6-8"], help="as `ClevrSource` takes")
    parser.add_argument("-n", type=int, default=200, help="pictures of each data")
    parser.add_argument("--few", type=int, default=20, help="pictures for methods that descend gradients")
    parser.add_argument(
        "--inits", type=int, nargs="+", default=[1, 5, 10, 15, 20], help="of sgd; the last for compound"
    )
    parser.add_argument("--steps", type=int, default=120, help="of sgd, the same for compound")
    parser.add_argument("--draws", type=int, default=1, help="noise draws of a step, the same for compound")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--name", default="discovery", help="of the table and the picture")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/discovery"), help="a folder; a run goes on there")
    return parser.parse_args(arguments)


def methods(options: argparse.Namespace) -> list[Method]:
    """The rows of the table, ours first."""
    model, n, few = load(options.model), options.n, min(options.few, options.n)
    solver = partial(SGD, steps=options.steps, draws=options.draws)
    found = [Method(OURS, "ours, pursuit, count given", n, (lambda: composed(model, Pursuit()),))]
    if "ours" in options.methods:
        read = partial(composed, model, Pursuit(), known=False)
        found.append(Method("pursuit-unknown", "ours, pursuit, count unknown", n, (read,)))
    for inits in options.inits if "sgd" in options.methods else ():
        label = f"ours, sgd, {inits} initialisation{'s' * (inits > 1)}"
        read = partial(composed, model, solver(inits=inits))
        found.append(Method(f"sgd-{inits}-{options.steps}-{options.draws}", label, few, (read,)))
    if "compound" in options.methods:
        inits = options.inits[-1]
        key = f"{_key('compound')}-{inits}-{options.steps}-{options.draws}"
        read = partial(_compound, options.weights, solver(inits=inits))
        found.append(Method(key, f"generative classifier, sgd, {inits} initialisations", few, (read,)))
    for name, label in (("resnet", "ResNet"), ("slot_attention", "Slot Attention")):
        seeds = BASELINES[name].seeds if name in options.methods else ()
        readers = tuple(partial(_regressed, name, options.weights, seed) for seed in seeds)
        if readers:
            found.append(Method(_key(name), f"{label}, count given, {len(seeds)} seeds", n, readers))
    return found


def _key(name: str) -> str:
    """A baseline with how long it was trained."""
    return f"{name}-{BASELINES[name].settings['steps']}"


def _compound(weights: Path, solver: SGD) -> Reader:
    model = compound(untrained(pretrained=False))
    network = BASELINES["compound"].trained(_trained(weights, "compound", 0), 0)
    return joint(attrs.evolve(model, denoiser=attrs.evolve(model.denoiser, network=network)), solver)


def _regressed(name: str, weights: Path, seed: int) -> Reader:
    return regressed(BASELINES[name].trained(_trained(weights, name, seed), seed))


def _trained(weights: Path, name: str, seed: int) -> Path:
    file = weights / f"{name}-{seed}.safetensors"
    if not file.is_file():
        raise InputError(f"got no {file}; expected the weights of {name}, seed {seed}; train it: --train")
    return file


def read_all(chosen: Sequence[Method], data: str, options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """The records of every method: a picture's `found` of each training seed, `true`, `rows` and CPU `seconds`."""
    path = options.out / f"{data.replace(':', '_').replace('/', '_')}-{options.seed}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    known = {(record["method"], record["index"]): record for record in read_lines(path)}
    examples = ClevrSource().examples(data, count=options.n, seed=options.seed)
    for method in chosen:
        missing = [k for k in range(min(method.pictures, len(examples))) if (method.key, k) not in known]
        readers = [make() for make in method.readers] if missing else []
        for index in tqdm(missing, desc=f"{data}: {method.label}", file=sys.stderr):
            record = read_one(readers, examples[index], derived_seed(options.seed, method.key, index))
            known[method.key, index] = {"method": method.key, "index": index, **record}
            append_line(path, known[method.key, index])
    return {method.key: [known[method.key, k] for k in range(min(method.pictures, len(examples)))] for method in chosen}


def read_one(readers: Sequence[Reader], example: Example, seed: int) -> dict[str, Any]:
    """What the readers of one method find in a picture; rows and seconds are means over them."""
    found, rows, started = [], 0, time.process_time()
    for read in readers:
        places, spent = read(example.image, len(example.values), torch.Generator().manual_seed(seed))
        found.append(places.tolist())
        rows += spent
    seconds = (time.process_time() - started) / len(readers)
    return {"found": found, "true": example.values.tolist(), "rows": rows / len(readers), "seconds": seconds}


def answered(records: Sequence[dict[str, Any]], training: slice = slice(None)) -> list[Answer]:
    """Records as answers, of some training seeds."""

    def places(listed: list[list[float]]) -> torch.Tensor:
        return torch.tensor(listed, dtype=torch.float32).reshape(-1, 2)

    return [Answer(tuple(map(places, r["found"][training])), places(r["true"])) for r in records]


def table_rows(
    chosen: Sequence[Method], data: str, records: dict[str, list[dict[str, Any]]], seed: int
) -> list[list[str]]:
    """One row a method; the difference is over the pictures that it read."""
    rows = []
    for method in chosen:
        own = records[method.key]
        answers, ours = answered(own), answered(records[OURS][: len(own)])
        rate = f"{score(PerceptionRate(), answers):.3f}"
        if (runs := len(method.readers)) > 1:
            each = [score(PerceptionRate(), answered(own, slice(k, k + 1))) for k in range(runs)]
            rate += f" ({min(each):.3f} to {max(each):.3f})"
        gap, low, high = paired_difference(PerceptionRate(), answers, ours, seed=seed)
        rows.append([
            data, method.label, str(len(own)), rate,
            "" if method.key == OURS else f"{gap:+.3f} ({low:+.3f} to {high:+.3f})",
            f"{score(Precision(), answers):.3f}", f"{score(EstimationError(), answers):.1e}",
            f"{_mean(own, 'rows'):,.0f}", f"{_mean(own, 'seconds'):.2g}",
        ])  # fmt: skip
    return rows


def same_descent(chosen: Sequence[Method], data: str, records: dict[str, list[dict[str, Any]]], seed: int) -> list[str]:
    """A sentence on the classifier against ours under the same solver, where both were run."""
    keys = {method.key.partition("-")[0]: method.key for method in chosen}  # of several sgd the last, with most inits
    if "sgd" not in keys or "compound" not in keys:
        return []
    ours, theirs = (answered(records[keys[name]]) for name in ("sgd", "compound"))
    gap, low, high = paired_difference(PerceptionRate(), theirs, ours, seed=seed)
    return [f"{data}: the classifier minus ours, both by sgd, {gap:+.3f} ({low:+.3f} to {high:+.3f})."]


def _mean(records: Sequence[dict[str, Any]], name: str) -> float:
    return float(sum(record[name] for record in records)) / len(records)


def note(options: argparse.Namespace) -> str:
    """How the table was made."""
    return (
        f"`python benchmarks/discovery.py --data {' '.join(options.data)} -n {options.n} --few {options.few} --steps "
        f"{options.steps} --draws {options.draws} --seed {options.seed}`: model `{options.model}`, {options.threads} "
        "thread. Rows and CPU seconds are of one picture; ranges are over training seeds, intervals over pictures."
    )


def bars(chosen: Sequence[Method], answers: dict[str, dict[str, list[dict[str, Any]]]]) -> Figure:
    """The perception rate of every method, a bar for each data."""
    figure = Figure(figsize=(7.2, 0.5 + 0.45 * len(chosen)), layout="constrained", facecolor="white")
    axes, thick = figure.subplots(), 0.8 / len(answers)
    for row, (data, records) in enumerate(answers.items()):
        rates = [score(PerceptionRate(), answered(records[method.key])) for method in chosen]
        places = [k + (row - (len(answers) - 1) / 2) * thick for k in range(len(chosen))]
        drawn = axes.barh(places, rates, thick, color=COLOURS[row % len(COLOURS)], label=data)
        axes.bar_label(drawn, fmt="%.2f", fontsize=7, padding=2)
    axes.set_yticks(range(len(chosen)), [method.label for method in chosen], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.08)
    axes.set_xlabel("perception rate")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
