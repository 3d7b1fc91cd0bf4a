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
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations

import attrs
import torch
from torch import Tensor

from benchmarks.baselines.comparison import Column, Method, Reader, compare, fingerprint
from benchmarks.common.options import parser
from benchmarks.inference.classifiers import Guess, compound, individual, weighted
from energycomp import Model, NoiseBank, load
from energycomp.components import Rule
from energycomp.inference import Problem, make_problem
from energycomp_datasets.solids.metrics import ConceptRecall
from energycomp_datasets.solids.source import TextSource
from energycomp_lab.evaluation import ExactSet, Example
from energycomp_solvers.weights import Weights
from energycomp_text import with_concepts

COLUMNS = (Column("set exactly correct", ExactSet(), ".1%"), Column("concepts found", ConceptRecall(), ".1%"))
SGD_SHARES = (1, 20)  # steps of gradient descent for each draw of least squares
Find = Callable[[Model, Tensor, NoiseBank, int], Guess]


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads, writes zero_shot.md and zero_shot.png."""
    options = parser(
        __doc__, model=("text", "registered name, folder or hub id"),
        data=(["synthetic", "synthetic:seen", "synthetic:3"], "as `TextSource` takes"),
        concepts=("", "with commas; those of the data by default"), device="cpu",
        dtype=("", "of a pipeline's networks, such as bfloat16"),
        draws=(0, "of every method; the model's own number by default"),
        only=([""], "methods, ours first: product nnls sgd-20 ...; all by default"), n=(100, "images of each data"),
        few=(20, "images that gradient steps read"), seed=0, threads=1, out="runs/zero_shot",
    ).parse_args(arguments)  # fmt: skip
    torch.set_num_threads(options.threads)
    model = load(options.model, device=options.device, **({"dtype": options.dtype} if options.dtype else {}))
    shown = dict.fromkeys(name for data in options.data for name in TextSource().concepts(data))
    model = with_concepts(model, options.concepts.split(",") if options.concepts else list(shown))
    told = f" --model {options.model}" if options.model != "text" else ""
    told += f" --data {' '.join(options.data)}" + (f" --draws {options.draws}" if options.draws else "")
    told += f" --only {' '.join(options.only)}" if any(options.only) else ""
    note = (
        f"`python benchmarks/inference/zero_shot.py{told} -n {options.n} --few {options.few} --seed {options.seed}`; "
        f"{options.threads} thread, intervals over images. Rows and CPU seconds are of one image."
    )

    def examples(data: str) -> Sequence[Example]:
        return TextSource().examples(data, count=options.n, seed=options.seed)

    conditioner = model.conditioner
    compare(
        methods(model, options), examples, COLUMNS, options, conditioner=conditioner, shape=conditioner.value_shape,
        name="zero_shot", note=lambda _: note,
    )  # fmt: skip


def methods(model: Model, options: argparse.Namespace) -> list[Method]:
    """The rows of the table, ours first."""
    draws = options.draws or model.defaults.draws
    rule: Rule = model.defaults.reading_rule or model.denoiser.rule
    other: Rule = "mean" if rule == "product" else "product"
    ways: dict[str, tuple[str, Find]] = {
        rule: (f"composed, every set, rule {rule}", partial(composed, rule)),
        other: (f"composed, every set, rule {other}", partial(composed, other)),
        "nnls": ("weights, least squares", partial(fitted, 0)),
        **{f"sgd-{k}": (f"weights, {k * draws} gradient steps", partial(fitted, k)) for k in SGD_SHARES},
        "compound": ("compound prompt (diffusion classifier)", compound),
        "individual": ("individual prompts (its variant)", individual),
        "weighted": ("prompt weighting", weighted),
    }
    told = json.dumps([model.conditioner.config(), options.dtype or None], sort_keys=True)
    mark = f"{draws}-{fingerprint(model)}-{hashlib.sha256(told.encode()).hexdigest()[:6]}"
    return [
        Method(
            f"{key}-{mark}", label, options.few if "sgd" in key else options.n, (partial(_reader, model, draws, find),)
        )
        for key, (label, find) in ways.items()
        if not any(options.only) or key in options.only
    ]


def _reader(model: Model, draws: int, find: Find) -> Reader:
    def read(image: Tensor, count: int, _: torch.Generator) -> tuple[Tensor, int]:
        observation = model.encode(image)
        bank = make_problem(observation, model, count=1).draw(draws, _generator(observation))
        guess = find(model, observation, bank, count)
        return torch.cat([model.conditioner.parse(concept=name) for name in guess.concepts]), guess.rows

    return read


def _generator(observation: Tensor) -> torch.Generator:
    digest = hashlib.sha256(observation.cpu().numpy().tobytes()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7]))


def _problem(model: Model, observation: Tensor, count: int, rule: Rule) -> Problem:
    asked = attrs.evolve(model, defaults=attrs.evolve(model.defaults, reading_rule=rule))
    return make_problem(observation, asked, count=count)


def composed(rule: Rule, model: Model, observation: Tensor, bank: NoiseBank, count: int) -> Guess:
    """Ours: the set whose composition explains the picture best, of all sets (thesis alg. 4)."""
    problem = _problem(model, observation, count, rule)
    names: tuple[str, ...] = model.conditioner.concepts  # type: ignore[attr-defined]
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
    rows = (len(model.conditioner.concepts) + (rule == "product")) * max(1, share) * draws
    return Guess(tuple(names), rows)  # without those that judge the answer


if __name__ == "__main__":
    main()
