"""Find several concepts without training for them: composed prompts beside diffusion classifiers.

python benchmarks/inference/zero_shot.py [--model FOLDER --data FOLDER --concepts cat,dog,rabbit] [-n 100]
    [-o runs/zero_shot]

Thesis Tables 5.3, 5.5 and 5.8, with the number of objects known. All methods use the same network and the same draws.
Without a model and data, the script uses the shipped model on pairs outside its training set (`synthetic`), pairs of
its training set, and three objects. Each answer is one JSON line, so an interrupted run continues.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path

import attrs
import torch
from torch import Tensor

from benchmarks.baselines.comparison import Column, Record, bars, head, read_all, table_rows
from benchmarks.baselines.readers import Method, Reader
from benchmarks.common.answers import fingerprint
from benchmarks.common.measure import table, write
from energycomp import Model, NoiseBank, load
from energycomp.components import Rule
from energycomp.inference import Problem, make_problem
from energycomp_datasets.solids.metrics import ConceptRecall
from energycomp_datasets.solids.source import TextSource
from energycomp_lab.evaluation import ExactSet
from energycomp_solvers.weights import Weights
from energycomp_text import with_concepts
from energycomp_text.classifiers import Guess, compound, individual, weighted
from energycomp_text.text import Text

COLUMNS = (Column("set exactly correct", ExactSet(), ".1%"), Column("concepts found", ConceptRecall(), ".1%"))
SGD_SHARES = (1, 20)  # steps of gradient descent for each draw of least squares
Find = Callable[[Model, Tensor, NoiseBank, int], Guess]


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads, writes zero_shot.md and zero_shot.png."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    extra = {} if options.dtype is None else {"dtype": options.dtype}
    model = load("text" if options.model is None else options.model, device=options.device, **extra)
    shown = dict.fromkeys(name for data in options.data for name in TextSource().concepts(data))
    model = with_concepts(model, options.concepts.split(",") if options.concepts else list(shown))
    chosen, shape = methods(model, options), model.conditioner.value_shape
    answers = {data: read(chosen, model, data, options) for data in options.data}
    rows = [
        row
        for data in options.data
        for row in table_rows(chosen, data, answers[data], COLUMNS, shape=shape, seed=options.seed)
    ]
    write(
        options.out / "zero_shot", table(head(COLUMNS), rows, note(options)), bars(chosen, answers, COLUMNS[0], shape)
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None, help="folder or hub id; the model that ships")
    parser.add_argument("--data", nargs="+", default=["synthetic", "synthetic:seen", "synthetic:3"])
    parser.add_argument("--concepts", default=None, help="with commas; those of the data")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default=None, help="of a pipeline's networks, such as bfloat16")
    parser.add_argument("--draws", type=int, default=None, help="of every method; the model's own number")
    parser.add_argument("--only", nargs="+", default=None, help="methods, ours first: product nnls sgd-20 ...")
    parser.add_argument("-n", type=int, default=100, help="pictures of each data")
    parser.add_argument("--few", type=int, default=20, help="pictures that gradient steps read")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/zero_shot"), help="a folder; a run goes on there")
    return parser.parse_args(arguments)


def methods(model: Model, options: argparse.Namespace) -> list[Method]:
    """The rows of the table, ours first."""
    draws = options.draws or model.defaults.draws
    rule: Rule = model.defaults.reading_rule or model.denoiser.rule
    other: Rule = "mean" if rule == "product" else "product"
    ways: dict[str, tuple[str, Find]] = {
        rule: (f"composed, every set, rule {rule}", partial(composed, rule)),
        other: (f"composed, every set, rule {other}", partial(composed, other)),
        "nnls": ("weights, least squares", partial(fitted, 0)),
        **{
            f"sgd-{share}": (f"weights, {share * draws} gradient steps", partial(fitted, share)) for share in SGD_SHARES
        },
        "compound": ("compound prompt (diffusion classifier)", compound),
        "individual": ("individual prompts (its variant)", individual),
        "weighted": ("prompt weighting", weighted),
    }
    told = json.dumps([model.conditioner.config(), options.dtype], sort_keys=True)
    mark = f"{draws}-{fingerprint(model)}-{hashlib.sha256(told.encode()).hexdigest()[:6]}"
    return [
        Method(
            f"{key}-{mark}",
            label,
            options.few if "sgd" in key else options.n,
            (partial(_reader, model, draws, find_set),),
        )
        for key, (label, find_set) in ways.items()
        if options.only is None or key in options.only
    ]


def _reader(model: Model, draws: int, find_set: Find) -> Reader:
    conditioner = model.conditioner

    def read(image: Tensor, count: int, _: torch.Generator) -> tuple[Tensor, int]:
        observation = model.encode(image)
        guess = find_set(model, observation, _bank(model, observation, draws), count)
        return torch.cat([conditioner.parse(concept=name) for name in guess.concepts]), guess.rows

    return read


def _bank(model: Model, observation: Tensor, draws: int) -> NoiseBank:
    """Draws that follow from the picture, the same ones for every method."""
    return make_problem(observation, model, count=1).draw(draws, _generator(observation))


def _generator(observation: Tensor) -> torch.Generator:
    digest = hashlib.sha256(observation.cpu().numpy().tobytes()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7]))


def _problem(model: Model, observation: Tensor, count: int, rule: Rule) -> Problem:
    asked = attrs.evolve(model, defaults=attrs.evolve(model.defaults, reading_rule=rule))
    return make_problem(observation, asked, count=count)


def composed(rule: Rule, model: Model, observation: Tensor, bank: NoiseBank, count: int) -> Guess:
    """Ours: the set whose composition explains the picture best, of all sets (thesis alg. 4)."""
    problem = _problem(model, observation, count, rule)
    names = _names(model)
    form = problem.quadratic(model.conditioner.enumerate_support(), bank)
    sets = list(combinations(range(len(names)), count))
    weights = torch.zeros(len(sets), len(names), dtype=torch.float64)
    weights.scatter_(1, torch.tensor(sets), problem.weighting(count))
    best = sets[int(form.weighted_errors(weights).mean(1).argmin())]
    return Guess(tuple(names[k] for k in best), problem.rows)


def fitted(share: int, model: Model, observation: Tensor, bank: NoiseBank, count: int) -> Guess:
    """Ours: the concepts of greatest weight (thesis alg. 8), by least squares, or `share` gradient steps for a draw."""
    rule: Rule = model.defaults.reading_rule or model.denoiser.rule
    problem = _problem(model, observation, count, rule)
    draws = len(bank)
    solver = Weights(method="sgd" if share else "nnls", draws=draws, steps=max(1, share * draws), fresh_draws=1)
    found = solver.solve(problem, generator=_generator(observation))
    names = [model.conditioner.describe(value)["concept"] for value in found.conditions]
    rows = (len(_names(model)) + (rule == "product")) * max(1, share) * draws
    return Guess(tuple(names), rows)  # without those that judge the answer


def _names(model: Model) -> tuple[str, ...]:
    conditioner = model.conditioner
    if not isinstance(conditioner, Text):
        raise TypeError("a model of text is needed")
    return conditioner.concepts


def read(chosen: Sequence[Method], model: Model, data: str, options: argparse.Namespace) -> dict[str, list[Record]]:
    """What every method finds in the pictures of one data."""
    path = options.out / f"{re.sub(r'[^0-9A-Za-z.-]+', '_', data)}-{options.seed}.jsonl"
    examples = TextSource().examples(data, count=options.n, seed=options.seed)
    return read_all(chosen, examples, path, conditioner=model.conditioner, title=data, seed=options.seed)


def note(options: argparse.Namespace) -> str:
    """How the table was made."""
    model = f" --model {options.model}" if options.model else ""
    draws = f" --draws {options.draws}" if options.draws else ""
    draws += f" --only {' '.join(options.only)}" if options.only else ""
    return (
        f"`python benchmarks/inference/zero_shot.py{model} --data {' '.join(options.data)}{draws} -n {options.n} --few "
        f"{options.few} --seed {options.seed}`; {options.threads} thread, intervals over pictures. Rows and CPU "
        "seconds are of one picture."
    )


if __name__ == "__main__":
    main()
